"""Trainings that were left off: to go on with one, or to discard it.

Each lies beside the models as ``NAME.checkpoint``, with what is needed to show again what it is of.
"""

import ast
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QComboBox, QHBoxLayout, QLabel, QMessageBox, QPushButton, QWidget

from napari_rln.core.errors import RlnError
from napari_rln.core.limits import as_dict
from napari_rln.deconvolution.views import DualSettings
from napari_rln.gui import preferences
from napari_rln.gui.layers import LayerImage
from napari_rln.gui.training.second_psf import Second
from napari_rln.networks.library import Library
from napari_rln.simulate.structures import StructureSettings
from napari_rln.train.checkpoint import Checkpoint, discard
from napari_rln.train.training_settings import TrainSettings

_ENDING = ".checkpoint"
# What the inputs of a training hold beside hashes: names of layers, and how views lie.
_PSF, _IMAGE, _PSF_B, _LAID = "psf layer", "image layer", "psf_b layer", "views"


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
    laid
        How its second view lies to the first; none where there is one view.
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
    laid: DualSettings | None = None

    @classmethod
    def read(cls, path: Path) -> Self:
        """Return the training of a checkpoint.

        Raises
        ------
        RlnError
            If the file is damaged, or of a training on other than synthetic structures.
        """
        saved = Checkpoint.load(path)
        laid = saved.inputs.get(_LAID)
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
                laid=None if laid is None else DualSettings(**ast.literal_eval(laid)),
            )
        except (KeyError, TypeError, ValueError, SyntaxError) as error:
            raise RlnError(f"{path.name} cannot be gone on with ({error}).") from error

    @property
    def layers(self) -> dict[str, str]:
        """Names of the layers among the inputs; see :func:`layer_names`."""
        named = (_PSF, _IMAGE, _PSF_B, _LAID)
        return {key: name for key, name in self.inputs.items() if key in named}

    @property
    def psf(self) -> str | None:
        """Name of the PSF's layer."""
        return self.inputs.get(_PSF)

    @property
    def image(self) -> str | None:
        """Name of the image's layer; none where there was no image."""
        return self.inputs.get(_IMAGE)

    @property
    def psf_b(self) -> str | None:
        """Name of the layer of the second view's PSF; none where there is one view."""
        return self.inputs.get(_PSF_B)

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
            psfs = " and ".join(name for name in (self.psf, self.psf_b) if name) or "of a file"
            raise RlnError(
                f"{self.name} was begun with PSF {psfs} and {image}, and these "
                f"are others ({', '.join(differ)}); choose those of then, or discard it."
            )


class LeftOffRow(QWidget):
    """Trainings that were left off; seen only where there are any."""

    resumed = Signal(object)  # left off

    def __init__(self) -> None:
        super().__init__()
        self.box = QComboBox()
        self.box.setSizeAdjustPolicy(
            QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon
        )
        self.resume_button, self.discard_button = QPushButton("Resume"), QPushButton("Discard")
        layout = QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(QLabel("Left off"))
        layout.addWidget(self.box, 1)
        layout.addWidget(self.resume_button)
        layout.addWidget(self.discard_button)
        self.resume_button.clicked.connect(lambda: self.resumed.emit(self.box.currentData()))
        self.discard_button.clicked.connect(self._discard)
        self.setVisible(False)

    def refresh(self, busy: Collection[str] = ()) -> None:
        """Look which there are.

        Parameters
        ----------
        busy
            Names of those that are under way.
        """
        chosen: LeftOff | None = self.box.currentData()
        self.box.clear()
        for left in left_off(preferences.library()):
            if left.name not in busy:
                self.box.addItem(f"{left.name}, step {left.step} of {left.total}", left)
                if chosen is not None and left.path == chosen.path:
                    self.box.setCurrentIndex(self.box.count() - 1)
        self.box.setToolTip(
            "<p>Trainings that were cancelled, or that napari was closed on. Open their PSF and "
            "image to go on.</p>"
        )
        self.setVisible(self.box.count() > 0)

    def _discard(self) -> None:
        left: LeftOff = self.box.currentData()
        question = f"Discard {self.box.currentText()}?"
        if QMessageBox.question(self, "Discard", question) == QMessageBox.StandardButton.Yes:
            discard(left.path)
            self.box.removeItem(self.box.currentIndex())
            self.setVisible(self.box.count() > 0)


def layer_names(psf: LayerImage, image: LayerImage | None, second: Second | None) -> dict[str, str]:
    """Return the names of a training's layers, and how views lie, as its inputs hold them."""
    found = {_PSF: psf.layer.name}
    if image is not None:
        found[_IMAGE] = image.layer.name
    if second is not None:
        found |= {_PSF_B: second.psf.layer.name, _LAID: str(as_dict(second.settings))}
    return found


def checkpoint_of(library: Library, name: str) -> Path:
    """Return the file that holds the state of the training of a model."""
    return library.folder / f"{name}{_ENDING}"


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


def _tuples(settings: dict[str, Any]) -> dict[str, Any]:
    """Undo what JSON did to tuples."""
    return {k: tuple(v) if isinstance(v, list) else v for k, v in settings.items()}
