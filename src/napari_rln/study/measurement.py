"""Application of methods to a test image, timed and scored.

The seconds are those of a deconvolution as a user runs it, with the calibration of the image and
the check of the result, but without loading and compiling: the first application to images and a
PSF of a size is not timed.
"""

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any, TypeVar, cast

from napari_rln.core.errors import RlnError, capture_warnings
from napari_rln.core.generators import Stopwatch
from napari_rln.core.report import Report
from napari_rln.core.volume import FloatArray, Shape, Volume
from napari_rln.deconvolution.classical import RichardsonLucy
from napari_rln.deconvolution.method import Method
from napari_rln.engine.in_memory import deconvolve_iter
from napari_rln.simulate.imaging import Pair
from napari_rln.study.config import StudyMethod
from napari_rln.study.results import Planes
from napari_rln.study.scoring import Judge

T = TypeVar("T")

Warm = set[tuple[str, Shape, Shape]]
"""Names of methods with sizes of PSF and image that they were applied to before."""

_QUALITY = ("psnr_db", "ssim", "psnr_xz_db", "ssim_xz")
_LOWEST = ("nrmse", "lateral_um", "axial_um")  # scores of which the lowest is best
_PATIENCE = 4  # counts in a row at which all of the quality fell: noise has taken over


@dataclass(frozen=True, kw_only=True, eq=False)
class Measurement:
    """Result of a method on a test image.

    Attributes
    ----------
    scores
        Scores by the names of ``results.SCORES``.
    seconds
        Seconds of the application.
    planes
        Planes of the result.
    iterations
        Iterations of a classical method, or of the start of a network.
    facts
        Further facts, JSON types.
    """

    scores: Mapping[str, float]
    seconds: float
    planes: Planes
    iterations: int | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)


class Bench:
    """Measurements on one test image.

    Parameters
    ----------
    pair
        Image and ground truth.
    psf
        PSF that the methods use.
    warm
        Earlier applications, of other images too; extended here.
    """

    def __init__(self, pair: Pair, psf: Volume, warm: Warm) -> None:
        self._image, self._psf, self._warm = pair.image, psf, warm
        self._truth = pair.truth
        self._judge = Judge(pair.truth.data, pair.truth.voxel_um)

    def planes_of_input(self) -> tuple[Planes, Planes]:
        """Return the planes of the image without background, and of the truth."""
        assert self._image.record is not None
        background = float(self._image.record.facts["background"])
        return self._planes(self._image.data - background), self._planes(self._truth.data)

    def apply(self, method: Method, name: str) -> Generator[Report, None, Measurement]:
        """Apply a method; yield its reports, return its measurement."""
        if self._is_cold(name):
            yield from self._run(method)
        clock = Stopwatch()
        result, warnings = yield from self._run(method, clock)
        assert result.record is not None
        facts = result.record.facts
        started = facts.get("start_iterations", facts.get("iterations"))
        return Measurement(
            scores=self._judge.scores(result.data),
            seconds=clock.seconds,
            planes=self._planes(self._judge.fitted(result.data)),
            iterations=started or None,  # the start of a network may be the image
            facts={"warnings": warnings} if warnings else {},
        )

    def iterate(
        self, methods: Sequence[StudyMethod], device: str
    ) -> Generator[Report, None, list[Measurement]]:
        """Measure a classical method at several stops, from one run; yield its reports.

        The methods differ in their stop alone. The time of a stop is that of a run of its own: of
        one iteration, and of the further ones in the common run.
        """
        first = replace(methods[0], stop=1).classical(device)
        settings = replace(cast("RichardsonLucy", first), report_every=1)
        for _ in range(1 + self._is_cold(methods[0].name)):
            once = Stopwatch()
            _, warnings = yield from self._run(settings, once)
        stop, searching = 0, 0.0
        if any(method.stop == "auto" for method in methods):
            stop, searching = yield from self._automatic_stop(settings)
        path = _Path(self, methods, stop)
        yield from path.follow(settings)
        found = []
        for method in methods:
            seconds = once.seconds - path.began
            if method.stop == "auto":
                seconds += max(0.0, searching - path.began)
            measured = path.measurement(method)
            facts = {**measured.facts, **({"warnings": warnings} if warnings else {})}
            found.append(replace(measured, seconds=measured.seconds + seconds, facts=facts))
        return found

    def point(self, data: FloatArray | None, iterations: int, seconds: float) -> Measurement:
        """Return the measurement of an estimate."""
        if data is None:
            raise RlnError("the image is too large for the memory; make it smaller (shape).")
        return Measurement(
            scores=self._judge.scores(data), seconds=seconds, iterations=iterations,
            planes=self._planes(self._judge.fitted(data)),
        )  # fmt: skip

    def start(self, settings: RichardsonLucy) -> Generator[Report, None, Volume]:
        """Return the run of a classical method."""
        return deconvolve_iter(self._image, self._psf, settings)

    def _automatic_stop(
        self, settings: RichardsonLucy
    ) -> Generator[Report, None, tuple[int, float]]:
        """Yield reports; return the automatic number, and the seconds to its first iteration."""
        clock = Stopwatch()
        steps = clock.follow(self.start(replace(settings, iterations="auto")))
        try:
            while True:
                report = _silently(lambda: next(steps))
                if report.phase == "deconvolve":
                    return report.total, clock.seconds
                yield report
        finally:
            steps.close()

    def _run(
        self, method: Method, clock: Stopwatch | None = None
    ) -> Generator[Report, None, tuple[Volume, list[str]]]:
        """Deconvolve; yield reports, return the result and the warnings."""
        psf = self._psf if method.needs_psf else None
        steps = deconvolve_iter(self._image, psf, method)
        steps = (clock or Stopwatch()).follow(steps)
        warnings: list[str] = []
        while True:
            try:
                report = _silently(lambda: next(steps), warnings.append)
            except StopIteration as ended:
                return ended.value, warnings
            yield report

    def _is_cold(self, name: str) -> bool:
        """Tell whether a method is applied for the first time to these sizes, and remember it."""
        key = name, self._psf.shape, self._image.shape
        cold = key not in self._warm
        self._warm.add(key)
        return cold

    def _planes(self, data: Any) -> Planes:
        z, y = data.shape[0] // 2, data.shape[1] // 2
        xy, xz = (part.astype("float32") for part in (data[z], data[:, y]))
        return Planes(xy=xy, xz=xz, voxel_um=self._image.voxel_um)


class _Path:
    """Estimates of one run at the iterations that methods of several stops need."""

    def __init__(self, bench: Bench, methods: Sequence[StudyMethod], automatic: int) -> None:
        self._bench, self._automatic = bench, automatic
        self._lists = [method.counts for method in methods if method.stop == "best"]
        others = [self._fixed(method) for method in methods if method.stop != "best"]
        self._least = max(others, default=0)
        self._wanted = {*others, *(n for counts in self._lists for n in counts)}
        self._points: dict[int, Measurement] = {}
        self._seconds: list[float] = [0.0]  # to the end of each iteration

    @property
    def began(self) -> float:
        """Seconds to the end of the first iteration."""
        return self._seconds[1]

    def follow(self, settings: RichardsonLucy) -> Generator[Report, None, None]:
        """Run, until nothing more is needed; yield reports."""
        clock = Stopwatch()
        steps = clock.follow(self._bench.start(replace(settings, iterations=max(self._wanted))))
        try:
            while True:
                try:
                    report = _silently(lambda: next(steps))
                except StopIteration as ended:
                    return self._end(ended.value)
                if report.phase == "deconvolve":
                    self._seconds.append(clock.seconds)
                    if report.done in self._wanted:
                        self._add(report.estimate())
                        if report.done >= self._least and all(map(self._is_over, self._lists)):
                            return None
                yield report
        finally:
            steps.close()

    def measurement(self, method: StudyMethod) -> Measurement:
        """Return what the run measured of a method."""
        if method.stop != "best":
            return self._points[min(self._fixed(method), self._done)]
        listed = [self._points[n] for n in self._until_noise(method.counts)]
        listed = listed or [self._points[self._done]]
        best = {name: _best(listed, name) for name in listed[0].scores if name != "flux"}
        chosen = best["psnr_db"]
        scores = {name: point.scores[name] for name, point in best.items()}
        facts: dict[str, Any] = {
            "oracle": True,
            "best_iterations": {name: point.iterations for name, point in best.items()},
            "at_last_count": chosen.iterations == method.counts[-1],
        }
        return replace(chosen, scores=scores | {"flux": chosen.scores["flux"]}, facts=facts)

    @property
    def _done(self) -> int:
        return len(self._seconds) - 1

    def _fixed(self, method: StudyMethod) -> int:
        """Return the number of iterations of a fixed or automatic stop."""
        return method.stop if isinstance(method.stop, int) else self._automatic

    def _add(self, data: FloatArray | None) -> None:
        self._points[self._done] = self._bench.point(data, self._done, self._seconds[-1])

    def _end(self, result: Volume) -> None:
        """Add the result of a run that a tolerance ended early."""
        if self._done not in self._points:
            self._add(result.data)

    def _is_over(self, counts: Sequence[int]) -> bool:
        """Tell whether further iterations add only noise, or there are no further ones."""
        until = self._until_noise(counts)
        return len(until) == len(counts) or self._falling(until)

    def _until_noise(self, counts: Sequence[int]) -> list[int]:
        """Return the counts measured, up to where noise has taken over."""
        known = [n for n in counts if n in self._points]
        ends = (end for end in range(1, len(known)) if self._falling(known[:end]))
        return known[: next(ends, len(known))]

    def _falling(self, counts: Sequence[int]) -> bool:
        """Tell whether all of the quality fell at each of the last counts."""
        last = [self._points[n].scores for n in counts[-1 - _PATIENCE :]]
        return len(last) > _PATIENCE and all(
            b[name] < a[name] for a, b in pairwise(last) for name in _QUALITY
        )


def _best(listed: Sequence[Measurement], score: str) -> Measurement:
    """Return the measurement of the best score."""
    choose = min if score in _LOWEST else max
    return choose(listed, key=lambda point: point.scores[score])


def _silently(step: Callable[[], T], listener: Callable[[str], None] = lambda message: None) -> T:
    """Return the result of a step, with its warnings given to a listener."""
    with capture_warnings(listener):
        return step()
