"""A training in a thread, from what was chosen to a model in the library."""

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
from napari_rln.gui.training.interrupted import LeftOff, checkpoint_of, layer_names
from napari_rln.gui.training.second_psf import Second
from napari_rln.networks.library import Library
from napari_rln.networks.model import SUFFIX, Model
from napari_rln.psf.examine import fit_psf
from napari_rln.simulate.structures import StructureSettings
from napari_rln.train.checkpoint import discard
from napari_rln.train.loop import train_steps
from napari_rln.train.training_set import Setting, setting_of
from napari_rln.train.training_settings import TrainReport, TrainSettings


@dataclass(frozen=True, kw_only=True, eq=False)
class Plan:
    """A training as it was chosen; nothing is read yet.

    Attributes
    ----------
    name
        Of the model.
    psf, image
        That it is for; without an image, light and noise are those by default.
    settings, structures
        How it is trained, and on what.
    second
        The second view, for a network that takes two.
    begin
        Model to begin with; none for new weights.
    left_off
        To go on with.
    """

    name: str
    psf: LayerImage
    image: LayerImage | None
    settings: TrainSettings
    structures: StructureSettings
    second: Second | None = None
    begin: Model | None = None
    left_off: LeftOff | None = None

    def setting(self, library: Library) -> Setting:
        """Return what the training is of; in a thread."""
        image = self.image.read() if self.image else None
        psf, psf_b = self._psfs(image)
        begin = self.begin
        names = layer_names(self.psf, self.image, self.second)
        if self.left_off is not None:
            begin = _by_hash(library, self.left_off.inputs.get("begin"))
            names = self.left_off.layers  # which may be called otherwise now
        setting = setting_of(
            self.settings, psf=psf, psf_b=psf_b, like=image, structures=self.structures, begin=begin
        )
        setting = setting._replace(inputs=setting.inputs | names)
        if self.left_off is not None:
            self.left_off.check(setting.inputs)
        return setting

    def _psfs(self, image: Volume | None) -> tuple[Volume, Volume | None]:
        """Return the PSFs of both views, ready for use; the second none where there is one view."""
        psf, _ = fit_psf(self.psf.read(), image)
        if self.second is None:
            return psf, None
        psf_b, _ = fit_psf(self.second.psf.read())
        return psfs_of_views(psf, psf_b, self.second.settings)


class News(NamedTuple):
    """What there is to see of a training since the last time.

    Attributes
    ----------
    report
        The last.
    losses
        Steps and their losses.
    voxel_um
        Of the planes that are shown.
    """

    report: TrainReport
    losses: list[tuple[int, float]]
    voxel_um: VoxelUm


@dataclass(eq=False)
class Course:
    """One training under way, which may be told to stop and keep the best.

    Parameters
    ----------
    plan
        What to train.
    library
        Where the model goes.
    """

    plan: Plan
    library: Library
    _stop: Event = field(default_factory=Event)
    _losses: list[tuple[int, float]] = field(default_factory=list)

    @property
    def stopping(self) -> bool:
        """Whether it was told to stop."""
        return self._stop.is_set()

    def stop(self) -> None:
        """Have it stop after its present step and keep the best model so far."""
        self._stop.set()

    def steps(self) -> Steps[Model]:
        """Yield news; return the model as it is in the library now."""
        yield Update(Progress(doing="preparing the PSF"))
        setting = self.plan.setting(self.library)
        assert setting.psf is not None
        voxel_um = setting.psf.voxel_um
        self.library.folder.mkdir(parents=True, exist_ok=True)
        checkpoint = checkpoint_of(self.library, self.plan.name)
        training = train_steps(
            setting,
            self.plan.settings,
            name=self.plan.name,
            checkpoint=checkpoint,
            resume=self.plan.left_off is not None,
        )

        def news(report: TrainReport) -> News:
            losses, self._losses = self._losses, []
            return News(report, losses, voxel_um)

        model = yield from streamed(
            self._followed(training), news, always=lambda report: report.preview is not None
        )
        path = self.library.save(model)
        discard(checkpoint)
        return self.library.load(path.name.removesuffix(SUFFIX))

    def _followed(
        self, training: Generator[TrainReport, None, Model]
    ) -> Generator[TrainReport, None, Model]:
        """Yield a training's reports; return the best model at its end, or when told to stop."""
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


def _by_hash(library: Library, wanted: str | None) -> Model | None:
    """Return the model of a hash; none for none.

    Raises
    ------
    RlnError
        If it is not in the library any more.
    """
    if wanted is None:
        return None
    for name in library.names():
        model = library.load(name)
        if model.hash == wanted:
            return model
    raise RlnError("the model that this training began with is no longer among the models.")
