"""The tab of the page PSF that opens a PSF from a file."""

from pathlib import Path

from magicgui.widgets import FileEdit
from qtpy.QtCore import Signal
from qtpy.QtWidgets import QComboBox, QFormLayout, QLabel, QPushButton, QVBoxLayout, QWidget

from napari_rln.core.errors import RlnError
from napari_rln.core.volume import Volume, VoxelUm
from napari_rln.gui.field_errors import FieldError
from napari_rln.gui.fields import LABEL, VoxelField
from napari_rln.gui.jobs import BackgroundJob, JobQueue, one_step
from napari_rln.gui.layouts import fill
from napari_rln.gui.runbar import RunBar
from napari_rln.io.image import open_contents
from napari_rln.io.lazy import OpenedImage
from napari_rln.io.volumes import read

_KINDS = "Volumes (*.tif *.tiff *.lsm *.czi *.lif *.nd2 *.oib *.oif *.ome zarr.json .zattrs)"
_AS_IN_FILE = "file"  # placeholder of the voxel size
_PARTS = {"channel": "Channel", "time": "Time point"}


class FilePage(QWidget):
    """A file, its voxel size if missing there, and the choice of one of several volumes."""

    created = Signal(object)

    def __init__(self, jobs: JobQueue, bar: RunBar) -> None:
        super().__init__()
        self._jobs = jobs
        self.path = FileEdit(filter=_KINDS)
        self.path.choose_btn.text = "Browse\N{HORIZONTAL ELLIPSIS}"
        self._line = self.path.line_edit.native
        self._line.setPlaceholderText("choose or drop a TIFF")
        self._line.setAcceptDrops(False)  # else it would get the text of a dropped address
        self.voxel = VoxelField(_AS_IN_FILE)
        self.voxel.setToolTip(
            "<p>Voxel size z, y, x; leave it empty to take that of the file, or type it if the "
            "file has none or a wrong one.</p>"
        )
        self.parts = {name: QComboBox() for name in _PARTS}
        self.note = QLabel(wordWrap=True)
        self.button = QPushButton("Open PSF")
        self._rows = fill(QFormLayout(), ("File", self.path.native), (LABEL, self.voxel))
        for name, box in self.parts.items():
            tip = f"<p>The file has several; choose the {_PARTS[name].lower()} of the PSF.</p>"
            box.setToolTip(tip)
            self._rows.addRow(QLabel(_PARTS[name], toolTip=tip), box)
        fill(QVBoxLayout(self), self._rows, self.note, self.button, margin=6)
        self._forget_parts()
        self.path.changed.connect(self._forget_parts)
        self.button.clicked.connect(lambda: bar.attempt(self.open))

    def open(self) -> None:
        """Queue reading the file.

        Raises :class:`RlnError` if no file is chosen, or the voxel size is incomplete.
        """
        if not self._line.text().strip():
            raise FieldError("choose the file of the PSF.", self._line)
        path, sizes = Path(self._line.text().strip()).expanduser(), self.voxel.value
        if any(sizes) and not all(sizes):
            raise FieldError("give the voxel size along z, y and x, or none of them.", self.voxel)
        voxel_um = self.voxel.voxel_um(path.name) if any(sizes) else None
        part = {name: box.currentData() for name, box in self.parts.items() if box.count()}

        steps = one_step("reading", lambda: _read(path, voxel_um, part))
        key = (path, voxel_um, *part.items())
        note = ""  # the layer is seen, or the note on the volumes of the file
        title = f"Opening {path.name}"
        self._jobs.add(BackgroundJob(title, steps, key=key, done=self._show, end_note=note))

    def open_dropped(self, path: Path) -> None:
        """Open a file that was dropped; errors as in :meth:`open`."""
        self.path.value = str(path)
        self.open()

    def _show(self, read: Volume | OpenedImage) -> None:
        if isinstance(read, Volume):
            self.created.emit(read)
            return
        for name, count in (("channel", read.channels), ("time", read.times)):
            box = self.parts[name]
            for i in range(count if count > 1 else 0):
                box.addItem(str(i), i)
            self._rows.setRowVisible(box, count > 1)
        self.note.setText(f"{read.name} has several volumes: choose one, then open it.")
        self.note.setVisible(True)

    def _forget_parts(self) -> None:
        self.note.setVisible(False)
        for box in self.parts.values():
            box.clear()
            self._rows.setRowVisible(box, False)


def _read(path: Path, voxel_um: VoxelUm | None, part: dict[str, int]) -> Volume | OpenedImage:
    """Return the PSF of a file, or its contents if there are several volumes and none is chosen.

    Raises :class:`RlnError` if no voxel size is known.
    """
    info = open_contents(path) if path.exists() else None
    if info and voxel_um is None and info.voxel_um is None:
        raise RlnError(f"{path.name} has no voxel size; type it below the file.")
    if info and info.channels * info.times > 1 and not part:
        return info
    return read(path, voxel_um=voxel_um, **part)
