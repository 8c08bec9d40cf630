"""A training in a thread, from its settings to the model in the library."""

import time
from collections.abc import Generator
from contextlib import closing
from dataclasses import dataclass, field, replace
from threading import Event
from typing import NamedTuple

from napari_rln.core.errors import RlnError
from napari_rln.core.report import duration
from napari_rln.core.volume import Volume, VoxelUm
from napari_rln.deconvolution.views import psfs_of_views
from napari_rln.engine.progress import Progress
from napari_rln.gui.jobs import Steps, Update, streamed
from napari_rln.gui.layers import LayerImage
from napari_rln.gui.steady_time import SteadyTime
from napari_rln.gui.training.expected_time import MeasuredTime
from napari_rln.gui.training.interrupted import InterruptedTraining, checkpoint_of, layer_names
from napari_rln.gui.training.second_psf import SecondPsf
from napari_rln.networks.inference import compile_in_background, is_compiling
from napari_rln.networks.library import Library
from napari_rln.networks.model import SUFFIX, Model
from napari_rln.psf.examine import fit_psf
from napari_rln.simulate.structures import StructureSettings
from napari_rln.train.checkpoint import discard
from napari_rln.train.loop import train_model_iter
from napari_rln.train.training_set import TrainingSet, training_set_of
from napari_rln.train.training_settings import Preview, TrainReport, TrainSettings

_PREPARATION = {"examples": "preparing volume", "baseline": "scoring RLD on test volume"}
_PREVIEW_S, _PREVIEW_FRACTION = 3.0, 0.03  # between previews; of the time, at most


@dataclass(frozen=True, kw_only=True, eq=False)
class TrainingPlan:
    """The inputs and settings of a training; nothing is read yet."""

    name: str
    psf: LayerImage
    image: LayerImage | None  # whose light and noise are simulated instead of the defaults
    settings: TrainSettings
    structures: StructureSettings
    second: SecondPsf | None = None
    initial_model: Model | None = None  # none for new weights
    interrupted: InterruptedTraining | None = None  # to resume; none for a new training

    def training_set(self, library: Library) -> TrainingSet:
        """Read and return the inputs of the training; call it in a thread."""
        image = self.image.read() if self.image else None
        psf, psf_b = self._psfs(image)
        initial_model = self.initial_model
        names = layer_names(self.psf, self.image, self.second)
        if self.interrupted is not None:
            initial_model = _by_hash(library, self.interrupted.inputs.get("initial_model"))
            names = self.interrupted.layers  # layers may be renamed since
        training_set = training_set_of(
            self.settings,
            psf=psf,
            psf_b=psf_b,
            like=image,
            structures=self.structures,
            initial_model=initial_model,
        )
        training_set = training_set._replace(inputs=training_set.inputs | names)
        if self.interrupted is not None:
            self.interrupted.check(training_set.inputs)
        return training_set

    def _psfs(self, image: Volume | None) -> tuple[Volume, Volume | None]:
        """Return the prepared PSFs of both views; for one view, none as the second."""
        psf, _ = fit_psf(self.psf.read(), image)
        if self.second is None:
            return psf, None
        psf_b, _ = fit_psf(self.second.psf.read())
        return psfs_of_views(psf, psf_b, self.second.settings)


@dataclass(frozen=True, eq=False)
class TrainingStep:
    """A report of a training, with a preview where one is due."""

    report: TrainReport
    preview: Preview | None

    def progress(self) -> Progress:
        """Return what is done, and the time left."""
        report = self.report
        if report.phase == "train":
            if report.seconds_left is None:
                return Progress(activity="training, the first steps are timed")
            return Progress(
                activity="training, step",
                done=report.step,
                total=report.total,
                seconds_left=report.seconds_left,
            )
        activity, left = _PREPARATION[report.phase], report.preparation_left
        whole, note = report.seconds_left, ""
        if left is not None:
            note = f"training starts in {duration(left, approximate=True)}"
        if whole is None:  # the training's own time is not known yet
            whole, note = left, "" if left is None else "before the training"
        return Progress(
            activity=activity,
            done=min(report.step + 1, report.total),
            total=report.total,
            note=note,
            seconds_left=whole,
        )


class TrainingUpdate(NamedTuple):
    """Last report of a training, preview, losses by step since the last update, voxels."""

    report: TrainReport
    preview: Preview | None
    losses: list[tuple[int, float]]
    voxel_um: VoxelUm


@dataclass(eq=False)
class TrainingRun:
    """A training that can be stopped with the best model kept, and saves it in the library."""

    plan: TrainingPlan
    library: Library
    previewing: bool = True  # whether somebody looks
    _stop: Event = field(default_factory=Event)
    _losses: list[tuple[int, float]] = field(default_factory=list)
    _time: MeasuredTime = field(default_factory=MeasuredTime)
    _next_preview: float = 0.0
    _left: SteadyTime = field(default_factory=SteadyTime)
    _preparation_left: SteadyTime = field(default_factory=SteadyTime)

    @property
    def stopping(self) -> bool:
        """Whether it is stopping."""
        return self._stop.is_set()

    def stop(self) -> None:
        """Stop after the current step, and keep the best model so far."""
        self._stop.set()

    def steps(self) -> Steps[Model]:
        """Yield updates; return the saved model."""
        yield Update(Progress(activity="preparing the PSF"))
        if self.plan.settings.architecture == "rln":
            compile_in_background()  # while volumes are created
        training_set = self.plan.training_set(self.library)
        assert training_set.psf is not None
        voxel_um = training_set.psf.voxel_um
        self.library.folder.mkdir(parents=True, exist_ok=True)
        checkpoint = checkpoint_of(self.library, self.plan.name)
        training = train_model_iter(
            training_set,
            self.plan.settings,
            name=self.plan.name,
            checkpoint=checkpoint,
            resume=self.plan.interrupted is not None,
        )

        def update(step: TrainingStep) -> TrainingUpdate:
            losses, self._losses = self._losses, []
            return TrainingUpdate(step.report, step.preview, losses, voxel_um)

        def is_kept(step: TrainingStep) -> bool:
            return step.preview is not None or step.report.quality is not None

        model = yield from streamed(self._recorded(training), update, always=is_kept)
        whole = self.plan.interrupted is None
        self._time.remember(self.plan.settings, training_set.psf.shape, whole=whole)
        path = self.library.save(model)
        discard(checkpoint)
        return self.library.load(path.name.removesuffix(SUFFIX))

    def _recorded(
        self, training: Generator[TrainReport, None, Model]
    ) -> Generator[TrainingStep, None, Model]:
        """Yield a training's reports with previews, collect losses; return the best model."""
        report = None
        with closing(training):
            while report is None or not self._stop.is_set():
                try:
                    report = next(training)
                except StopIteration as end:
                    model: Model = end.value
                    return model
                self._time.add(report)
                if report.phase == "train" and report.loss is not None:
                    self._losses.append((report.step, report.loss))
                yield TrainingStep(self._steady(report), self._preview(report))
            return report.model()

    def _steady(self, report: TrainReport) -> TrainReport:
        """Return a report whose times left vary less."""
        now = time.monotonic()
        return replace(
            report,
            seconds_left=self._left.update(report.seconds_left, now),
            preparation_left=self._preparation_left.update(report.preparation_left, now),
        )

    def _preview(self, report: TrainReport) -> Preview | None:
        """Return the report's preview, or one by the present weights if it is due.

        These take a small fraction of the time. Without the kernels, which are being compiled at
        first, one would take as long as the compilation.
        """
        began = time.monotonic()
        if report.preview is not None:
            self._next_preview = began + _PREVIEW_S
            return report.preview
        if not self.previewing or began < self._next_preview or is_compiling():
            return None
        preview = report.preview_now()
        took = time.monotonic() - began
        self._next_preview = began + max(_PREVIEW_S, took / _PREVIEW_FRACTION)
        return preview


def _by_hash(library: Library, model_hash: str | None) -> Model | None:
    """Return the model with a hash, none for none; raise a :class:`RlnError` if it is missing."""
    if model_hash is None:
        return None
    for name in library.names():
        model = library.load(name)
        if model.hash == model_hash:
            return model
    raise RlnError("the initial model is missing; import it, or discard the training.")
