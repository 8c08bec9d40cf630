"""Where results are: in memory, or on disk for what outgrows it."""

from dataclasses import fields
from pathlib import Path
from typing import Any

from qtpy.QtCore import Signal
from qtpy.QtWidgets import (
    QComboBox,
    QFileDialog,
    QHBoxLayout,
    QLineEdit,
    QPushButton,
    QVBoxLayout,
    QWidget,
)

from napari_rln.core.errors import RlnError
from napari_rln.engine.execution import Execution, Output, OutputFormat
from napari_rln.gui.field_errors import FieldError, Fold
from napari_rln.gui.forms import Form
from napari_rln.gui.layer_jobs import path_of
from napari_rln.gui.layers import LayerImage
from napari_rln.io.paths import check_folder

IN_MEMORY, ON_DISK = "in memory", "on disk (OME-Zarr)"
_NOT_IN_NAMES = dict.fromkeys(map(ord, '/\\:*?"<>|'), "-")


class FolderField(QWidget):
    """A folder, typed or looked for."""

    changed = Signal()

    def __init__(self) -> None:
        super().__init__()
        self._suggested = ""
        self.line = QLineEdit()
        self.line.setPlaceholderText("folder of the results")
        browse = QPushButton("\N{HORIZONTAL ELLIPSIS}")
        browse.setMaximumWidth(30)
        layout = QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.line, 1)
        layout.addWidget(browse)
        self.line.textChanged.connect(self.changed)
        browse.clicked.connect(self._choose)

    def path(self) -> Path:
        """Return the folder.

        Raises
        ------
        RlnError
            If none is given, it is not there, or not writable.
        """
        text = self.line.text().strip()
        if not text:
            raise FieldError("choose the folder of the results.", self.line)
        path = Path(text).expanduser()
        try:
            check_folder(path / "result")
        except RlnError as error:
            raise FieldError(str(error), self.line) from error
        return path

    def suggest(self, path: Path) -> None:
        """Take a folder where none is given, or one that was suggested before."""
        if self.line.text().strip() in ("", self._suggested):
            self._suggested = str(path)
            self.line.setText(self._suggested)

    def _choose(self) -> None:
        found = QFileDialog.getExistingDirectory(self, "Folder of the results", self.line.text())
        if found:
            self.line.setText(found)


class ResultPlace(QWidget):
    """The choice of where results are, with the folder and who works there."""

    changed = Signal()

    def __init__(self) -> None:
        super().__init__()
        self.box = QComboBox()
        self.box.addItems([IN_MEMORY, ON_DISK])
        self.box.setToolTip(
            "<p>On disk an image may be larger than the memory: it is read and written in parts, "
            "what is looked at first, and a run that was cancelled goes on where it was.</p>"
        )
        self.folder = FolderField()
        self.format, self.execution = _whole_form(OutputFormat), _whole_form(Execution)
        forms = QWidget()
        advanced = QVBoxLayout(forms)
        advanced.addWidget(self.format)
        advanced.addWidget(self.execution)
        self._below = QWidget()
        below = QVBoxLayout(self._below)
        below.addWidget(self.folder)
        below.addWidget(Fold("Advanced", forms))
        layout = QVBoxLayout(self)
        layout.addWidget(self.box)
        layout.addWidget(self._below)
        for each in (advanced, below, layout):
            each.setContentsMargins(0, 0, 0, 0)
            each.setSpacing(2)
        self._by_hand = False
        self._show_below()
        self.box.currentIndexChanged.connect(self._show_below)
        self.box.activated.connect(self._on_hand)
        for part in (self.folder, self.execution, self.format):
            part.changed.connect(self.changed)

    @property
    def on_disk(self) -> bool:
        """Whether results are to be on disk."""
        return bool(self.box.currentText() == ON_DISK)

    def run_by(self) -> Execution:
        """Return by what results are computed.

        Raises
        ------
        RlnError
            If the settings contradict each other.
        """
        settings: Execution = self.execution.settings()
        return settings

    def output(self, out: Path) -> Output:
        """Return how a result is written to a path."""
        format_: OutputFormat = self.format.settings()
        return format_.at(out)

    def follow(self, image: LayerImage | None) -> None:
        """Choose what is right for an image, unless somebody has chosen: one on disk stays there.

        Parameters
        ----------
        image
            That is chosen; none where there is none.
        """
        if image is None:
            return
        if not self._by_hand:
            self.box.setCurrentText(IN_MEMORY if image.in_memory else ON_DISK)
        path = path_of(image.layer)
        # Of no file it is for the user to say where results are to be.
        if path.exists() and (path.is_absolute() or image.layer.source.path):
            self.folder.suggest(_folder_of(path))

    def result(self, image: LayerImage, method: str) -> Path:
        """Return where a result is to be.

        Parameters
        ----------
        image
            That it is made of.
        method
            By which.

        Raises
        ------
        RlnError
            If there is no such folder, or it is not writable.
        """
        return self.folder.path() / f"{file_name(f'{image.name} {method}')}.ome.zarr"

    def _on_hand(self) -> None:
        self._by_hand = True

    def _show_below(self) -> None:
        self._below.setVisible(self.on_disk)
        self.changed.emit()


def _whole_form(kind: type[Any]) -> Form[Any]:
    """Return a form with all fields on top: what it stands in is folded as a whole."""
    return Form(kind, top=[field.name for field in fields(kind)])


def file_name(name: str) -> str:
    """Return what a file may be called, whose name is made of a layer's."""
    return name.translate(_NOT_IN_NAMES)


def _folder_of(path: Path) -> Path:
    """Return the folder that an image lies in; of an array in a Zarr group that of the group."""
    folder = path.absolute().parent
    if path.is_dir():  # what reads Zarr is imported where it is needed
        from napari_rln.io.paths import is_zarr

        while is_zarr(folder):
            folder = folder.parent
    return folder
