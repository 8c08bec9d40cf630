"""Richardson-Lucy deconvolution (Richardson 1972, Lucy 1974) as a method: whole images, and tiles.

The image is modelled as ``Poisson(A x + b)``; an iteration multiplies the estimate ``x`` by
``A_adjoint(y / (A x + b)) / A_adjoint(1)``.
"""

import math
import time
from collections.abc import Collection, Generator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar, Self

import torch

from napari_rln.core.device import computing
from napari_rln.core.errors import RlnError
from napari_rln.core.report import Report
from napari_rln.core.volume import Box, FloatArray, OnGrid, Shape, Volume
from napari_rln.deconvolution.convolution import check_tiled, padded_shape, tile_margin
from napari_rln.deconvolution.ladder import COUNTS, MOST, Ladder
from napari_rln.deconvolution.method import (
    Json,
    Method,
    Observation,
    SampleEstimates,
    TileStage,
    WholeResult,
)
from napari_rln.deconvolution.outside_light import OutsideLight
from napari_rln.deconvolution.prepared_view import PreparedView
from napari_rln.deconvolution.richardson_lucy import RichardsonLucyIteration
from napari_rln.deconvolution.settings import (
    RichardsonLucySettings,
    check_consensus,
    check_psf_fits,
    memory_bytes,
    start_iteration,
)
from napari_rln.deconvolution.stopping import structured_shape
from napari_rln.deconvolution.stopping_trial import IterationChoice, Trial, find_iterations
from napari_rln.psf.shape import energy_box

ADVICE = "crop the PSF (psf repair), deconvolve a part of the image, or use another device."

# Of a residual, measured: per voxel of the image; and while it is blurred, also per padded voxel.
_COMPARED_BYTES, _BLURRED_BYTES = 85, (24, 26)

BY_HELD_OUT_PHOTONS = "held-out photons"
"""Fact ``stopped_by`` of a run that the automatic stop ended."""

SPLIT_BYTES = 40
"""Bytes per voxel of an image of split photons, beside its deconvolution; measured."""

READ_BYTES = 12
"""Bytes per voxel of an image as read, as float32, and of the result; measured."""

_ESTIMATE_BYTES = 4  # per voxel of an estimate

# Other titles than RLD, in tables and layers.
_TITLES = {"wiener-butterworth": "WB", "masked-wiener": "OMW"}
_SUPPORT = 0.99  # fraction of a PSF's light within its support
# Width of a halo in supports: after 10 iterations, and per further tenfold. Measured
# (benchmarks/scale.py seams).
_HALO, _HALO_PER_DECADE = 2.0, 1.0

# Usual iterations of auto, by whether the back projector is matched and whether it is accelerated.
_USUAL = {(True, True): 40, (True, False): 100, (False, True): 10, (False, False): 19}


@dataclass(frozen=True, kw_only=True)
class RichardsonLucy(RichardsonLucySettings, Method):
    """Richardson-Lucy deconvolution as a method; the parameters are those of its settings."""

    kind: ClassVar[str] = "rld"
    needs_psf: ClassVar[bool] = True
    files: ClassVar[tuple[Path, ...]] = ()
    blocks: ClassVar[None] = None

    @property
    def title(self) -> str:
        """Name of results in tables and layers."""
        return "RLGC" if self.consensus else _TITLES.get(self.back_projector, "RLD")

    @property
    def tiles(self) -> "ClassicalTiles":
        """The iterations, tile by tile."""
        return ClassicalTiles(self)

    def check(self, image: OnGrid, psf: Volume | None, *, views: int = 1) -> None:
        """Raise unless there is a PSF that matches the image."""
        if psf is None:
            raise RlnError("Richardson-Lucy deconvolution needs the PSF; give one (`psf`).")
        check_psf_fits(image, psf)

    def check_tiled(self) -> None:
        """Raise if tiles would stop at different iterations."""
        if self.tolerance:
            raise RlnError(
                f"`tolerance` is {self.tolerance:g}, which would stop tiles at different "
                "iterations; for an image deconvolved in parts, set `iterations` instead, to a "
                "number or auto."
            )

    def of_views(self, views: int) -> Self:
        """Return the method for a number of views; several start from their mean."""
        return self if views == 1 else replace(self, start="image")

    def needed_bytes(self, shape: Shape, psf_shape: Shape | None) -> int:
        """Return the memory for a whole image, bytes, beside that already in use."""
        assert psf_shape is not None
        kept = READ_BYTES * math.prod(shape) + search_bytes(shape, psf_shape, self)
        # The residual is computed while the iterations' arrays still exist.
        kept += residual_bytes(shape, psf_shape)
        return kept + memory_bytes(shape, psf_shape, self)

    def whole(self, observation: Observation) -> Generator[Report, None, WholeResult | None]:
        """Deconvolve a whole image; yield reports, return the result.

        None if it does not fit into memory.
        """
        views, device = observation.views, observation.device
        shapes = [view.psf.shape for view in views if view.psf is not None]
        z, y, x = (max(sizes) for sizes in zip(*shapes, strict=True))
        needed = memory_bytes(observation.image.shape, (z, y, x), self, views=len(views))
        if not observation.fits_whole(needed):
            if len(views) > 1:  # there are no tiles of two views
                raise RlnError(
                    f"two views need {needed / 1e9:.2f} GB to deconvolve, more than the memory "
                    f"limit; raise it (`memory_gb`), {ADVICE}"
                )
            return None
        with computing(needed, device, ADVICE):
            iterations, stop = self.iterations, None
            if iterations == "auto":
                stop = yield from find_iterations_of(observation, self)
                iterations = stop.iterations
            run = iteration_of(observation, self, iterations)
            facts: Json = {"shared_iterations": run.done} if run.done else {}
            every = (
                self.report_every
                if observation.shows_estimates or self.tolerance
                else self.max_iterations
            )
            data, steps = yield from iterate(run, iterations, self, every, observation)
            outside = run.outside() if len(views) == 1 else None
            trial = None if stop is None else stop.trial
            if self.back_projector == "matched" and trial and trial.covers(observation.image):
                outside = trial.outside  # converged, and the same for every residual
        return WholeResult(data, facts | steps, outside)


RichardsonLucy.__doc__ = RichardsonLucySettings.__doc__  # read by forms and the command line


def search_bytes(shape: Shape, psf_shape: Shape, settings: RichardsonLucySettings) -> int:
    """Return the memory kept by the trial for auto on a whole volume, in bytes."""
    if settings.iterations != "auto":
        return 0
    part = structured_shape(shape, psf_shape)
    return ClassicalTiles(settings).search_bytes(part, psf_shape)


def residual_bytes(shape: Shape, psf_shape: Shape | None) -> int:
    """Return the memory of the reconvolution residual of a whole volume, in bytes."""
    if psf_shape is None:
        return 0
    inside, padded = math.prod(shape), math.prod(padded_shape(shape, psf_shape, "extended"))
    return max(_COMPARED_BYTES * inside, _BLURRED_BYTES[0] * inside + _BLURRED_BYTES[1] * padded)


def find_iterations_of(
    observation: Observation, settings: RichardsonLucySettings
) -> Generator[Report, None, IterationChoice]:
    """Yield reports; return the number of iterations, of several views that of the first."""
    return (
        yield from observation.shared.find_iterations(
            observation.original, settings, observation.device, observation.started
        )
    )


def predict_stop(
    view: PreparedView,
    ladder: Ladder,
    settings: RichardsonLucySettings,
    device: torch.device,
    started: float,
) -> Generator[Report, None, float]:
    """Yield reports; return the best number of iterations of a view, predicted by a ladder."""
    run = start_iteration([view], settings, device, marks=COUNTS)
    for done in range(1, COUNTS[-1] + 1):
        run.step(measure=False)
        seconds = time.perf_counter() - started
        yield Report(phase="stop", done=done, total=COUNTS[-1], seconds=seconds)
    return ladder.predict(view, run)


def iteration_of(
    observation: Observation,
    settings: RichardsonLucySettings,
    iterations: int,
    marks: Collection[int] = (),
    *,
    beyond: bool = False,
) -> RichardsonLucyIteration:
    """Return the iteration of an observation, with one view continued from an earlier method's.

    The estimates after ``marks`` iterations are kept; ``beyond`` as in :meth:`.Shared.path`.
    """
    views, device = observation.views, observation.device
    if len(views) > 1:
        return start_iteration(views, settings, device, marks=marks)
    return observation.shared.path(views[0], settings, device, iterations, marks, beyond=beyond)


def iterate(
    run: RichardsonLucyIteration,
    iterations: int,
    settings: RichardsonLucySettings,
    every: int,
    observation: Observation,
) -> Generator[Report, None, tuple[FloatArray, Json]]:
    """Run up to ``iterations``; yield reports, return the estimate and facts.

    There is a report after every ``every`` iterations, and after the last.
    """
    stopped = _stopped_by(settings, iterations)
    for done in range(run.done + 1, iterations + 1):
        due = done % every == 0 or done == iterations
        change = run.step(measure=due)
        observation.shared.watch(run)
        if not due:
            continue
        observation.memory.sample()
        yield Report(
            phase="deconvolve",
            done=done,
            total=iterations,
            relative_change=change,
            seconds=time.perf_counter() - observation.started,
            snapshot=run.estimate,
        )
        if change < settings.tolerance:
            stopped = "tolerance"
            break
    return run.estimate(), {
        "iterations": done,
        "stopped_by": stopped,
        "relative_change": change,
    }


def _stopped_by(settings: RichardsonLucySettings, iterations: int) -> str:
    """Return the fact ``stopped_by``: what decided on the number of iterations."""
    if settings.iterations != "auto":
        return "iterations"
    return BY_HELD_OUT_PHOTONS if iterations < settings.max_iterations else "limit"


class ClassicalTiles(TileStage):
    """Richardson-Lucy iterations in tiles, with one start, acceleration and number of iterations.

    ``beyond`` is a factor on the number of iterations of auto. With a ladder the number is
    predicted, and a tile is several estimates, (n, z, y, x).
    """

    def __init__(
        self,
        settings: RichardsonLucySettings,
        beyond: float = 1.0,
        ladder: Ladder | None = None,
    ) -> None:
        self.settings, self.beyond, self._ladder = settings, beyond, ladder

    @property
    def estimates(self) -> int:
        """Number of estimates of a tile."""
        return 1 if self._ladder is None else self._ladder.estimates

    @property
    def _marks(self) -> tuple[int, ...]:
        return () if self._ladder is None else COUNTS

    def memory_bytes(self, shape: Shape, psf_shape: Shape) -> int:
        """Return the memory for a tile with its halo, in bytes."""
        kept = _ESTIMATE_BYTES * (len(COUNTS) + 2 * self.estimates) if self._ladder else 0
        return memory_bytes(shape, psf_shape, self.settings) + kept * math.prod(shape)

    def search_bytes(self, shape: Shape, psf_shape: Shape) -> int:
        """Return the memory of :meth:`search` for a part of a shape, in bytes."""
        return self.memory_bytes(shape, psf_shape) + SPLIT_BYTES * math.prod(shape)

    def search(
        self, crop: PreparedView, device: torch.device, started: float
    ) -> Generator[Report, None, tuple[Json, Trial | None]]:
        """Yield reports; return the number of iterations, and the trial that determined it."""
        check_consensus(self.settings, crop)
        if self._ladder is not None:
            return (yield from self._predicted(self._ladder, crop, device, started)), None
        if self.settings.iterations != "auto":
            return self._shared(self.settings.iterations, self.settings.iterations), None
        stop = yield from find_iterations(crop, self.settings, device, started)
        iterations = max(1, round(self.beyond * stop.iterations))
        return self._shared(iterations, stop.iterations), stop.trial

    def _predicted(
        self, ladder: Ladder, crop: PreparedView, device: torch.device, started: float
    ) -> Generator[Report, None, Json]:
        """Yield reports; return the number of iterations, and the predicted best one."""
        best = yield from predict_stop(crop, ladder, self.settings, device, started)
        return {"iterations": ladder.iterations(best), "stop": best, "stopped_by": "prediction"}

    def _shared(self, iterations: int, stop: int) -> Json:
        return {"iterations": iterations, "stopped_by": _stopped_by(self.settings, stop)}

    def sample(
        self,
        crops: Sequence[PreparedView],
        shared: Json,
        level: float | None,
        device: torch.device,
        started: float,
    ) -> Generator[Report, None, SampleEstimates]:
        """Yield reports; return the acceleration of the first crop, and the estimates of all."""
        iterations: int = shared["iterations"]
        momenta: list[float] | None = None
        estimates, outsides = [], []
        for number, crop in enumerate(crops):
            run = self._start(crop, device, momenta, level)
            watch = None
            if self._ladder is not None and self.settings.back_projector == "matched":
                watch = OutsideLight(crop.image, crop.calibration)  # as for a whole image
            for done in range(1, iterations + 1):
                run.step(measure=False)
                if watch is not None:
                    watch.update(run)
                yield Report(
                    phase="sample",
                    done=number * iterations + done,
                    total=len(crops) * iterations,
                    seconds=time.perf_counter() - started,
                )
            momenta = momenta or [float(m) for m in run.momenta] or None
            estimates.append(self._estimates(run, shared))
            if watch is not None:
                while not watch.update(run):
                    run.step(measure=False)
                outsides.append(watch.light)
            del run
        return SampleEstimates({"momenta": momenta}, estimates, outsides)

    def halo(self, psf: Volume, shared: Json) -> Shape:
        """Return the halo of tiles in voxels (z, y, x).

        An iteration carries light, and errors at a tile's edge, over two supports of the PSF; most
        of the error fades with distance. Measured, a halo of two supports leaves a few thousandths
        after ten iterations, and each further tenfold needs one support more. One iteration needs
        exactly two supports.
        """
        iterations = max(shared["iterations"], 1)
        factor = _HALO + _HALO_PER_DECADE * max(0.0, math.log10(iterations / 10))
        z, y, x = (2 * math.ceil(math.ceil(factor * s) / 2) for s in support(psf))
        return z, y, x

    def margin(self, psf_shape: Shape) -> Shape:
        """Return the padding of a tile for its transform, in voxels (z, y, x)."""
        return tile_margin(psf_shape, self.settings.border)

    def check_division(self) -> None:
        """Raise if tiles are impossible."""
        check_tiled(self.settings.border)

    def tile(
        self,
        crop: PreparedView,
        shared: Json,
        level: float | None,
        device: torch.device,
        part: Box,
    ) -> FloatArray:
        """Return the estimates of a tile, cropped to a part of its window, image units."""
        run = self._start(crop, device, None if level is None else shared["momenta"], level)
        for _ in range(shared["iterations"]):
            run.step(measure=False)
        return self._estimates(run, shared, part)

    def _start(
        self,
        crop: PreparedView,
        device: torch.device,
        momenta: list[float] | None,
        level: float | None,
    ) -> RichardsonLucyIteration:
        return start_iteration(
            [crop], self.settings, device, momenta=momenta, flat=level, marks=self._marks
        )

    def _estimates(
        self, run: RichardsonLucyIteration, shared: Json, part: tuple[slice, ...] = ()
    ) -> FloatArray:
        last = run.estimate(part)
        if self._ladder is None:
            return last
        kept = {count: estimate[part] for count, estimate in run.kept.items()}
        return self._ladder.around(kept | {run.done: last}, shared["stop"])

    @property
    def depends_on_image(self) -> bool:
        """Whether the number of iterations depends on the image's noise."""
        return self.settings.iterations == "auto" or self._ladder is not None

    def expected(self, *, most: bool = False) -> Json:
        """Return the usual, or with ``most`` the maximal, number of iterations."""
        if self._ladder is not None:
            return {"iterations": MOST if most else COUNTS[-1]}
        if self.settings.iterations != "auto":
            return {"iterations": self.settings.iterations}
        usual = _USUAL[self.settings.back_projector == "matched", self.settings.accelerated]
        stop = self.settings.max_iterations if most else min(usual, self.settings.max_iterations)
        return {"iterations": max(1, round(self.beyond * stop))}

    def facts(self, shared: Json) -> Json:
        """Return the shared parameters of the tiles for the record."""
        return {
            name: shared[name] for name in ("iterations", "stopped_by", "stop") if name in shared
        }


def support(psf: Volume) -> Shape:
    """Return the half width in voxels (z, y, x) of the box with 99 % of a PSF's light."""
    z, y, x = (n // 2 for n in energy_box(psf.data, _SUPPORT))
    return z, y, x
