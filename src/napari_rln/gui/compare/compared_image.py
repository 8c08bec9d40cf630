"""An image whose results are compared, and the comparison of them in the background."""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple
from weakref import ref

from napari.components import ViewerModel
from napari.layers import Image

from napari_rln.core.errors import RlnError
from napari_rln.deconvolution.classical import BY_HELD_OUT_PHOTONS
from napari_rln.deconvolution.shared import Shared
from napari_rln.engine.progress import Progress
from napari_rln.evaluate.comparison import Comparison, compare_iter
from napari_rln.evaluate.verdict import Verdict, verdicts
from napari_rln.gui.compare.grids import crop_like, on_voxels_of
from napari_rln.gui.deconvolve.chosen_method import Inputs
from napari_rln.gui.deconvolve.history import PastRun
from napari_rln.gui.deconvolve.streams import COMPARED, RESULTS, result_layers
from napari_rln.gui.jobs import BackgroundJob, Steps, Update, streamed
from napari_rln.gui.layers import LayerImage, record_of, source_of

WINDOW = "compare"
"""Shows the progress of the page's jobs, instead of the page Deconvolve."""

State = tuple[ref[Image], Any]
"""Reference of a layer, and the number of iterations that it shows."""


class Remaining(NamedTuple):
    """What the last comparison says of the results that are still open."""

    comparison: Comparison
    verdicts: tuple[Verdict, ...]
    outdated: list[bool]  # for each row, whether its layer shows another iteration now


@dataclass(eq=False, kw_only=True)
class ComparedImage:
    """An image, whose results are layers of a viewer.

    Attributes
    ----------
    key
        Hash of the image, as in the records of its results.
    inputs
        The image and its PSF.
    run
        Run of the last results, which the channels of an image have in common.
    shared
        What the methods of the run keep for a comparison.
    is_new
        Whether there are results since the last comparison.
    comparison, verdicts
        The last comparison.
    job
        The comparison that is under way, if any.
    """

    key: str
    inputs: Inputs
    run: PastRun
    shared: Shared | None = None
    is_new: bool = True
    comparison: Comparison | None = None
    verdicts: tuple[Verdict, ...] = ()
    job: BackgroundJob | None = None
    _states: list[State] = field(default_factory=list)  # of the layers in the rows

    @property
    def prefix(self) -> str:
        """What the names of the results begin with."""
        return f"{self.inputs.image.name} \N{MIDDLE DOT} "

    def results(self, viewer: ViewerModel) -> list[Image]:
        """Return the layers of the results, and of registered references."""
        return result_layers(viewer, self.key, COMPARED)

    def sources(self, viewer: ViewerModel) -> list[LayerImage]:
        """Return the results, not read yet; raise a :class:`RlnError` without any."""
        layers = self.results(viewer)
        if not layers:
            raise RlnError("the results of the image were removed; run a method first.")
        image, point = self.inputs.image, viewer.dims.point
        return [crop_like(image, source_of(layer, point)) for layer in layers]

    def remaining(self, viewer: ViewerModel) -> Remaining | None:
        """Return the last comparison without the results whose layers were removed; None if empty.

        The image is kept: its layer is not needed to compare again.
        """
        if self.comparison is None:
            return None
        now = {_state_of(layer) for layer in viewer.layers if isinstance(layer, Image)}
        still_open = {layer for layer, _ in now}
        (raw, _), *results = zip(self.comparison.rows, self._states, strict=True)
        kept = [(row, state) for row, state in results if state[0] in still_open]
        if not kept:
            return None
        names = {row.name.removeprefix(self.prefix) for row, _ in kept}
        return Remaining(
            dataclasses.replace(self.comparison, rows=(raw, *(row for row, _ in kept))),
            tuple(verdict for verdict in self.verdicts if verdict.name in names),
            [False, *(state not in now for _, state in kept)],
        )

    def comparison_job(
        self, viewer: ViewerModel, truth: LayerImage | None, done: Callable[[], None]
    ) -> BackgroundJob:
        """Return a job that compares the results and calls ``done``; errors as in ``sources``."""
        inputs, results = self.inputs, self.sources(viewer)
        # The volumes that methods share are freed afterwards.
        shared, self.shared = self.shared or Shared(), None
        known = None if truth is None else crop_like(inputs.image, truth)
        made = result_layers(viewer, self.key, RESULTS)  # the others are references
        judged = {source.name for source in results if source.layer in made}
        plain = {source.name for source in results if _is_plain_rld(source.layer)}
        automatic = {source.name for source in results if _stopped_itself(source.layer)}
        states = [_state_of(source.layer) for source in (inputs.image, *results)]
        key = (inputs.key, *states, *(each and each.key for each in (known, *results)))

        def steps() -> Steps[Comparison]:
            yield Update(Progress(activity="comparing"))  # reading a large image takes a while
            raw = inputs.image.read()
            volumes = [on_voxels_of(raw, result.read()) for result in results]
            fitted = inputs.fitted_psf(raw, shared)
            truth = known.read() if known else None
            reports = compare_iter(raw, volumes, truth=truth, psf=fitted, shared=shared)
            return (yield from streamed(reports))

        def finish(comparison: Comparison) -> None:
            self.comparison, self._states = comparison, states
            if self.job is not None and self.job.key == key:  # not if another one waits
                self.job = None
            rld = _best(comparison, plain)
            too_few = rld is not None and rld not in automatic
            raw, *others = comparison.rows
            short = [
                dataclasses.replace(row, name=row.name.removeprefix(self.prefix))
                for row in others
                if row.name in judged
            ]
            self.verdicts = verdicts(
                dataclasses.replace(comparison, rows=(raw, *short)),
                rld and rld.removeprefix(self.prefix),
                maybe_too_few=too_few,
            )
            done()

        return BackgroundJob(
            "comparison",
            steps,
            key=key,
            done=finish,
            window=WINDOW,
            end_note="",
        )


def _state_of(layer: Image) -> State:
    """Return the state of a layer, for comparison with a later one."""
    record = record_of(layer)
    return ref(layer), record.facts.get("iterations") if record else None


def _best(comparison: Comparison, names: set[str]) -> str | None:
    """Return the one of some results that explains the image best; None without any."""
    rows = [row for row in comparison.rows if row.name in names and row.chi2 is not None]
    return min(rows, key=lambda row: row.chi2 or 0.0).name if rows else None


def _is_plain_rld(layer: Image) -> bool:
    """Return whether a layer is a result of standard Richardson-Lucy deconvolution."""
    record = record_of(layer)
    if record is None or record.method != "rld":
        return False
    return bool(record.settings.get("back_projector", "matched") == "matched")


def _stopped_itself(layer: Image) -> bool:
    """Return whether the automatic stop ended the iterations of a result."""
    record = record_of(layer)
    return record is not None and record.facts.get("stopped_by") == BY_HELD_OUT_PHOTONS
