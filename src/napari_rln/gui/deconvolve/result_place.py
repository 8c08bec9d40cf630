"""Where results are: in memory, or on disk for what outgrows it."""

from pathlib import Path
from typing import Any

from qtpy.QtCore import Signal
from qtpy.QtWidgets import (
    QComboBox,
    QFileDialog,
    QFormLayout,
    QHBoxLayout,
    QLineEdit,
    QPushButton,
    QVBoxLayout,
    QWidget,
)

from napari_rln.core.errors import RlnError
from napari_rln.core.machine import MemoryGb
from napari_rln.core.tiles import TileSide
from napari_rln.engine.execution import LargeSettings
from napari_rln.gui.copy_button import path_of
from napari_rln.gui.field_errors import FieldError
from napari_rln.gui.fields import field_for
from napari_rln.gui.forms import Form
from napari_rln.gui.layers import Source
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


class Place(QWidget):
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
        self.tile = field_for(TileSide)
        self.tile.tooltip = (
            "<p>Side in voxels of what is computed at once. The largest that the memory allows "
            "takes least time in all; of smaller ones the first is there sooner.</p>"
        )
        self.memory = field_for(MemoryGb)
        self.memory.tooltip = (
            "<p>That all workers together may take; auto takes half of what is free.</p>"
        )
        self.tile.value = self.memory.value = "auto"
        self.form = Form(LargeSettings, top=())
        self._below = QWidget()
        below = QVBoxLayout(self._below)
        rows = QFormLayout()
        rows.setContentsMargins(0, 0, 0, 0)
        for label, field in (("Tile (voxels)", self.tile), ("Memory (GB)", self.memory)):
            field.label = label
            rows.addRow(label, field.native)
        below.addWidget(self.folder)
        below.addLayout(rows)
        below.addWidget(self.form)
        layout = QVBoxLayout(self)
        layout.addWidget(self.box)
        layout.addWidget(self._below)
        for each in (below, layout):
            each.setContentsMargins(0, 0, 0, 0)
            each.setSpacing(2)
        self._by_hand = False
        self._show_below()
        self.box.currentIndexChanged.connect(self._show_below)
        self.box.activated.connect(self._on_hand)
        for part in (self.folder, self.form):
            part.changed.connect(self.changed)
        for field in (self.tile, self.memory):
            field.changed.connect(lambda: self.changed.emit())

    @property
    def on_disk(self) -> bool:
        """Whether results are to be on disk."""
        return bool(self.box.currentText() == ON_DISK)

    def settings(self) -> dict[str, Any]:
        """Return how it is done, as :class:`napari_rln.engine.request.LargeRun` takes it.

        Raises
        ------
        RlnError
            If the settings contradict each other.
        """
        return {
            "tile": self.tile.value,
            "memory_gb": self.memory.value,
            "large": self.form.settings(),
        }

    def follow(self, image: Source | None) -> None:
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

    def result(self, image: Source, method: str) -> Path:
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
