"""Choice of the destination of results: memory, or files for images larger than memory."""

import math
from dataclasses import fields
from functools import cached_property
from pathlib import Path
from typing import TypeVar

from magicgui.widgets import FileEdit
from qtpy.QtCore import Signal
from qtpy.QtWidgets import QComboBox, QHBoxLayout, QVBoxLayout, QWidget

from napari_rln.core.errors import RlnError
from napari_rln.core.machine import available_bytes
from napari_rln.engine.execution import Execution, Output, OutputFormat
from napari_rln.gui.deferred import Deferred
from napari_rln.gui.field_errors import FieldError
from napari_rln.gui.forms import Form
from napari_rln.gui.layer_jobs import path_of
from napari_rln.gui.layers import LayerImage
from napari_rln.gui.layouts import Collapsible, fill
from napari_rln.io.paths import check_folder, is_microscope_name, is_zarr

IN_MEMORY, ON_DISK = "in memory", "on disk (OME-Zarr)"
_BYTES_PER_VOXEL = 200  # of an image that is deconvolved in memory, roughly
_TIGHT = {"margin": 0, "spacing": 2}
_NOT_IN_NAMES = dict.fromkeys(map(ord, '/\\:*?"<>|'), "-")

S = TypeVar("S")


class FolderField(QWidget):
    """Field for a folder, with a button for a file dialog."""

    changed = Signal()

    def __init__(self) -> None:
        super().__init__()
        self._suggested = ""
        self._edit = FileEdit(mode="d")
        self._edit.choose_btn.text = "\N{HORIZONTAL ELLIPSIS}"
        self._edit.choose_btn.native.setMaximumWidth(30)
        self.line = self._edit.line_edit.native
        self.line.setPlaceholderText("folder of the results")
        fill(QHBoxLayout(self), self._edit.native, margin=0)
        self.line.textChanged.connect(self.changed)

    def path(self) -> Path:
        """Return the folder.

        Raises :class:`RlnError` if the field is empty, or the folder does not exist or is not
        writable.
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
        """Fill in a folder, unless the user has entered one."""
        if self.line.text().strip() in ("", self._suggested):
            self._suggested = str(path)
            self.line.setText(self._suggested)


class ResultDestination(QWidget):
    """Choice between memory and disk, with folder, file format and execution.

    The form of the latter two, ``advanced``, is for a row of its own, as it needs the whole width.
    """

    changed = Signal()

    def __init__(self) -> None:
        super().__init__()
        self.box = QComboBox()
        self.box.addItems([IN_MEMORY, ON_DISK])
        self.box.setToolTip(
            "<p>On disk: the image may be larger than the memory, as it is read and written in "
            "parts, the visible part first. Choose it for large images; a cancelled run can be "
            "continued.</p>"
        )
        self.folder = FolderField()
        self.advanced = Collapsible("Advanced: format, tiles, memory", Deferred(self._forms))
        fill(QVBoxLayout(self), self.box, self.folder, **_TIGHT)
        self._chosen_by_user = False
        self._show_options()
        self.box.currentIndexChanged.connect(self._show_options)
        self.box.activated.connect(self._on_user_choice)
        self.folder.changed.connect(self.changed)

    @cached_property
    def format(self) -> Form[OutputFormat]:
        """The form of the files' format."""
        return self._form(OutputFormat)

    @cached_property
    def execution(self) -> Form[Execution]:
        """The form of the parts, processes and memory of a run."""
        return self._form(Execution)

    @property
    def on_disk(self) -> bool:
        """Whether results are written to disk."""
        return bool(self.box.currentText() == ON_DISK)

    def suggest_for(self, image: LayerImage) -> None:
        """Choose disk for an image on disk, and its folder, unless the user has chosen.

        A microscope's file that fits into the memory several times is deconvolved there.
        """
        path = path_of(image.layer)
        if not self._chosen_by_user:
            needed = _BYTES_PER_VOXEL * math.prod(image.shape)
            is_small = is_microscope_name(path) and needed < available_bytes()
            in_memory = image.in_memory or is_small
            self.box.setCurrentText(IN_MEMORY if in_memory else ON_DISK)
        # Without a file the user has to choose the folder.
        if path.exists() and (path.is_absolute() or image.layer.source.path):
            folder = path.absolute().parent
            while path.is_dir() and is_zarr(folder):  # an array in a Zarr group
                folder = folder.parent
            self.folder.suggest(folder)

    def output(self, image: LayerImage, method: str) -> Output:
        """Return path and format of a method's result; errors as in :meth:`FolderField.path`."""
        path = self.folder.path() / f"{file_name(f'{image.name} {method}')}.ome.zarr"
        return self.format.settings().at(path)

    def _form(self, kind: type[S]) -> Form[S]:
        # All fields are on top, as the forms are folded as a whole.
        form = Form(kind, top=[field.name for field in fields(kind)])  # type: ignore[arg-type]
        form.changed.connect(self.changed)
        return form

    def _forms(self) -> QWidget:
        forms = QWidget()
        fill(QVBoxLayout(forms), self.format, self.execution, **_TIGHT)
        return forms

    def _on_user_choice(self) -> None:
        self._chosen_by_user = True

    def _show_options(self) -> None:
        for part in (self.folder, self.advanced):
            part.setVisible(self.on_disk)
        self.changed.emit()


def file_name(name: str) -> str:
    """Return the name of a layer without characters that file names must not contain."""
    return name.translate(_NOT_IN_NAMES)
