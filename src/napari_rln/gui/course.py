"""A training in a thread: from what was chosen to a model in the library, and on from where it was.

A training that is left off lies beside the models as ``NAME.checkpoint``, with what is needed to
show again what it is of.
"""

import ast
from collections.abc import Generator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event
from typing import Any, NamedTuple, Self

from napari_rln.errors import RlnError
from napari_rln.gui.layers import Source
from napari_rln.gui.worker import Steps, Update, streamed
from napari_rln.library import Library
from napari_rln.model import SUFFIX, Model
from napari_rln.progress import Progress
from napari_rln.psf.doctor import fit_psf
from napari_rln.simulate.structures import StructureSettings
from napari_rln.train.checkpoint import Checkpoint
from napari_rln.train.loop import train_steps
from napari_rln.train.setting import Setting, setting_of
from napari_rln.train.settings import TrainReport, TrainSettings
from napari_rln.volume import Volume, VoxelUm

_ENDING = ".checkpoint"
_LONGEST = 45  # characters of a name
_PSF, _IMAGE = "psf layer", "image layer"  # names, among the inputs of a training


@dataclass(frozen=True, kw_only=True)
class LeftOff:
    """A training that was left off, as its checkpoint tells.

    Attributes
    ----------
    name
        Of its model.
    path
        Of the checkpoint.
    step, total
        Done and to do.
    settings, structures
        Of the training.
    inputs
        Names and hashes of what it is of, as in the record.
    """

    name: str
    path: Path
    step: int
    total: int
    settings: TrainSettings
    structures: StructureSettings
    inputs: dict[str, str]

    @classmethod
    def read(cls, path: Path) -> Self:
        """Return the training of a checkpoint.

        Raises
        ------
        RlnError
            If the file is damaged, or of a training on other than synthetic structures.
        """
        saved = Checkpoint.load(path)
        try:
            structures = ast.literal_eval(saved.inputs["structures"])
            return cls(
                name=path.stem,
                path=path,
                step=saved.step,
                total=saved.total,
                settings=TrainSettings(**_tuples(saved.settings)),
                structures=StructureSettings(**_tuples(structures)),
                inputs=saved.inputs,
            )
        except (KeyError, TypeError, ValueError, SyntaxError) as error:
            raise RlnError(f"{path.name} cannot be gone on with ({error}).") from error

    @property
    def psf(self) -> str | None:
        """Name of the PSF's layer."""
        return self.inputs.get(_PSF)

    @property
    def image(self) -> str | None:
        """Name of the image's layer; none where there was no image."""
        return self.inputs.get(_IMAGE)

    def check(self, inputs: dict[str, str]) -> None:
        """Raise unless what was chosen is what it is of.

        Raises
        ------
        RlnError
            With what to choose.
        """
        differ = [key for key, value in self.inputs.items() if inputs.get(key) != value]
        if differ:
            image = f"image {self.image}" if self.image else "no image"
            raise RlnError(
                f"{self.name} was begun with PSF {self.psf or 'of a file'} and {image}, and these "
                f"are others ({', '.join(differ)}); choose those of then, or discard it."
            )


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
    begin
        Model to begin with; none for new weights.
    left_off
        To go on with.
    """

    name: str
    psf: Source
    image: Source | None
    settings: TrainSettings
    structures: StructureSettings
    begin: Model | None = None
    left_off: LeftOff | None = None

    def fitted(self) -> tuple[Volume, Volume | None]:
        """Return the PSF ready for use, and the image; in a thread, it may take a while."""
        image = self.image.read() if self.image else None
        return fit_psf(self.psf.read(), image)[0], image

    def setting(self, library: Library) -> Setting:
        """Return what the training is of; in a thread."""
        psf, image = self.fitted()
        begin = self.begin
        names = {_PSF: self.psf.layer.name}
        names |= {_IMAGE: self.image.layer.name} if self.image else {}
        if self.left_off is not None:  # a layer may have another name now
            then = self.left_off.inputs
            begin = _by_hash(library, then.get("begin"))
            names = {key: then[key] for key in (_PSF, _IMAGE) if key in then}
        setting = setting_of(
            self.settings, psf=psf, like=image, structures=self.structures, begin=begin
        )
        setting = setting._replace(inputs=setting.inputs | names)
        if self.left_off is not None:
            self.left_off.check(setting.inputs)
        return setting


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
            self._followed(training), news, always=lambda report: report.quality is not None
        )
        path = self.library.save(model)
        checkpoint.unlink(missing_ok=True)
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


def checkpoint_of(library: Library, name: str) -> Path:
    """Return the file that holds the state of the training of a model."""
    return library.folder / f"{name}{_ENDING}"


def file_name(name: str) -> str:
    """Return a name as the model's file and the checkpoint can be called."""
    plain = "".join(c if c.isalnum() or c in " ._-+()" else "-" for c in name)
    return plain[:_LONGEST].strip(". ") or "model"


def left_off(library: Library) -> list[LeftOff]:
    """Return the trainings that were left off, the latest first; those that cannot go on are not.

    Parameters
    ----------
    library
        Beside whose models they lie.
    """
    paths = [path for path in library.folder.glob(f"*{_ENDING}") if path.is_file()]
    found = []
    for path in sorted(paths, key=lambda path: path.stat().st_mtime, reverse=True):
        try:
            found.append(LeftOff.read(path))
        except RlnError:  # somebody else's file
            continue
    return found


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


def _tuples(settings: dict[str, Any]) -> dict[str, Any]:
    """Undo what JSON did to tuples."""
    return {k: tuple(v) if isinstance(v, list) else v for k, v in settings.items()}
