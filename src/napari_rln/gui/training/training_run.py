"""A training in a thread, from its settings to the model in the library."""

from collections.abc import Generator
from contextlib import closing
from dataclasses import dataclass, field
from threading import Event
from typing import NamedTuple

from napari_rln.core.errors import RlnError
from napari_rln.core.volume import Volume, VoxelUm
from napari_rln.deconvolution.views import psfs_of_views
from napari_rln.engine.progress import Progress
from napari_rln.gui.jobs import Steps, Update, streamed
from napari_rln.gui.layers import LayerImage
from napari_rln.gui.training.interrupted import InterruptedTraining, checkpoint_of, layer_names
from napari_rln.gui.training.second_psf import SecondPsf
from napari_rln.networks.library import Library
from napari_rln.networks.model import SUFFIX, Model
from napari_rln.psf.examine import fit_psf
from napari_rln.simulate.structures import StructureSettings
from napari_rln.train.checkpoint import discard
from napari_rln.train.loop import train_model_iter
from napari_rln.train.training_set import TrainingSet, training_set_of
from napari_rln.train.training_settings import TrainReport, TrainSettings


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


class TrainingUpdate(NamedTuple):
    """Last report of a training, losses by step since the last update, voxels of the preview."""

    report: TrainReport
    losses: list[tuple[int, float]]
    voxel_um: VoxelUm


@dataclass(eq=False)
class TrainingRun:
    """A training that can be stopped with the best model kept, and saves it in the library."""

    plan: TrainingPlan
    library: Library
    _stop: Event = field(default_factory=Event)
    _losses: list[tuple[int, float]] = field(default_factory=list)

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

        def update(report: TrainReport) -> TrainingUpdate:
            losses, self._losses = self._losses, []
            return TrainingUpdate(report, losses, voxel_um)

        model = yield from streamed(
            self._recorded(training), update, always=lambda report: report.preview is not None
        )
        path = self.library.save(model)
        discard(checkpoint)
        return self.library.load(path.name.removesuffix(SUFFIX))

    def _recorded(
        self, training: Generator[TrainReport, None, Model]
    ) -> Generator[TrainReport, None, Model]:
        """Yield a training's reports and collect losses; return the best model."""
        report = None
        with closing(training):
            while report is None or not self._stop.is_set():
                try:
                    report = next(training)
                except StopIteration as end:
                    model: Model = end.value
                    return model
                if report.phase == "train" and report.loss is not None:
                    self._losses.append((report.step, report.loss))
                yield report
            return report.model()


def _by_hash(library: Library, model_hash: str | None) -> Model | None:
    """Return the model with a hash, none for none; raise a :class:`RlnError` if it is missing."""
    if model_hash is None:
        return None
    for name in library.names():
        model = library.load(name)
        if model.hash == model_hash:
            return model
    raise RlnError("the initial model is missing; import it, or discard the training.")
