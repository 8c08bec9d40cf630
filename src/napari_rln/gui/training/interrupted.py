"""Interrupted trainings, to resume or discard.

The state of each, with settings and inputs, is a file ``NAME.checkpoint`` beside the models.
"""

import ast
import contextlib
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QComboBox, QHBoxLayout, QLabel, QMessageBox, QPushButton, QWidget

from napari_rln.core.errors import RlnError
from napari_rln.core.limits import as_dict, from_dict
from napari_rln.deconvolution.views import DualSettings
from napari_rln.gui import preferences
from napari_rln.gui.layers import LayerImage
from napari_rln.gui.layouts import fill
from napari_rln.gui.narrow_box import make_narrow
from napari_rln.gui.training.second_psf import SecondPsf
from napari_rln.networks.library import Library
from napari_rln.simulate.structures import StructureSettings
from napari_rln.train.checkpoint import Checkpoint, discard
from napari_rln.train.training_settings import TrainSettings

_ENDING = ".checkpoint"
# Inputs of a checkpoint besides hashes: names of layers, and settings of two views.
PSF, IMAGE, PSF_B, _VIEWS_KEY = "psf layer", "image layer", "psf_b layer", "views"


@dataclass(frozen=True, kw_only=True)
class InterruptedTraining:
    """An interrupted training, read from its checkpoint."""

    name: str
    path: Path
    step: int
    total: int
    settings: TrainSettings
    structures: StructureSettings
    inputs: dict[str, str]  # names and hashes, as in the record
    dual: DualSettings | None = None  # none for one view

    @classmethod
    def read(cls, path: Path) -> Self:
        """Return the training of a checkpoint.

        Raises :class:`RlnError` if the file is damaged, or the training did not use synthetic
        structures.
        """
        saved = Checkpoint.load(path)
        dual = saved.inputs.get(_VIEWS_KEY)
        try:
            structures = ast.literal_eval(saved.inputs["structures"])
            return cls(
                name=path.stem,
                path=path,
                step=saved.step,
                total=saved.total,
                settings=from_dict(TrainSettings, saved.settings),
                structures=from_dict(StructureSettings, structures),
                inputs=saved.inputs,
                dual=None if dual is None else from_dict(DualSettings, ast.literal_eval(dual)),
            )
        except (KeyError, TypeError, ValueError, SyntaxError) as error:
            raise RlnError(f"{path.name} cannot be resumed ({error}).") from error

    @property
    def layers(self) -> dict[str, str]:
        """Names of the layers among the inputs; see :func:`layer_names`."""
        named = (PSF, IMAGE, PSF_B, _VIEWS_KEY)
        return {key: name for key, name in self.inputs.items() if key in named}

    def check(self, inputs: dict[str, str]) -> None:
        """Raise a :class:`RlnError` unless the chosen inputs are those of the training."""
        differ = [key for key, value in self.inputs.items() if inputs.get(key) != value]
        if differ:
            image = f"image {self.inputs[IMAGE]}" if IMAGE in self.inputs else "no image"
            names = (self.inputs.get(key) for key in (PSF, PSF_B))
            psfs = " and ".join(name for name in names if name) or "of a file"
            raise RlnError(
                f"{self.name} was started with PSF {psfs} and {image}, but "
                f"{', '.join(differ)} differ now; choose the original inputs, or discard it."
            )


class InterruptedRow(QWidget):
    """Interrupted trainings with buttons to resume and discard; hidden without any."""

    resumed = Signal(object)  # the training

    def __init__(self) -> None:
        super().__init__()
        tip = (
            "<p>Trainings that were cancelled, or stopped as napari was closed. Open the PSF and "
            "the image of one, then press Resume.</p>"
        )
        self.box = QComboBox(toolTip=tip)
        make_narrow(self.box, 8)
        self.resume_button, self.discard_button = QPushButton("Resume"), QPushButton("Discard")
        self.resume_button.setToolTip("<p>Goes on where the training ended. Press it.</p>")
        self.discard_button.setToolTip("<p>Deletes its state. Press it to free the name.</p>")
        label, buttons = QLabel("Interrupted:"), (self.resume_button, self.discard_button)
        fill(QHBoxLayout(self), label, (self.box, 1), *buttons, margin=0)
        self.resume_button.clicked.connect(lambda: self.resumed.emit(self.box.currentData()))
        self.discard_button.clicked.connect(self._discard)
        self.setVisible(False)

    def refresh(self, busy: Collection[str] = ()) -> None:
        """Update the list, without the names of running and waiting trainings."""
        chosen: InterruptedTraining | None = self.box.currentData()
        self.box.clear()
        for training in interrupted_trainings(preferences.library()):
            if training.name not in busy:
                text = f"{training.name}, step {training.step} of {training.total}"
                self.box.addItem(text, training)
                if chosen is not None and training.path == chosen.path:
                    self.box.setCurrentIndex(self.box.count() - 1)
        self.setVisible(self.box.count() > 0)

    def _discard(self) -> None:
        training: InterruptedTraining = self.box.currentData()
        question = f"Discard {self.box.currentText()}?"
        if QMessageBox.question(self, "Discard", question) == QMessageBox.StandardButton.Yes:
            discard(training.path)
            self.box.removeItem(self.box.currentIndex())
            self.setVisible(self.box.count() > 0)


def layer_names(
    psf: LayerImage, image: LayerImage | None, second: SecondPsf | None
) -> dict[str, str]:
    """Return the names of a training's layers, and its settings of two views, as inputs."""
    inputs = {PSF: psf.layer.name}
    if image is not None:
        inputs[IMAGE] = image.layer.name
    if second is not None:
        inputs |= {PSF_B: second.psf.layer.name, _VIEWS_KEY: str(as_dict(second.settings))}
    return inputs


def checkpoint_of(library: Library, name: str) -> Path:
    """Return the path of the state of a model's training."""
    return library.folder / f"{name}{_ENDING}"


def interrupted_trainings(library: Library) -> list[InterruptedTraining]:
    """Return the interrupted trainings that can be resumed, latest first."""
    paths = [path for path in library.folder.glob(f"*{_ENDING}") if path.is_file()]
    trainings = []
    for path in sorted(paths, key=lambda path: path.stat().st_mtime, reverse=True):
        with contextlib.suppress(RlnError):  # a file of another program
            trainings.append(InterruptedTraining.read(path))
    return trainings
