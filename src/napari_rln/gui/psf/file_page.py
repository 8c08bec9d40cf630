"""The page of the PSF dock that opens a PSF from a file."""

from pathlib import Path

from magicgui.widgets import FileEdit
from qtpy.QtCore import Signal
from qtpy.QtWidgets import QFormLayout, QPushButton, QVBoxLayout, QWidget

from napari_rln.core.errors import RlnError
from napari_rln.core.volume import Volume, VoxelUm
from napari_rln.gui.field_errors import FieldError
from napari_rln.gui.fields import LABEL, VoxelField
from napari_rln.gui.jobs import BackgroundJob, JobQueue, one_step
from napari_rln.gui.layouts import fill
from napari_rln.gui.runbar import RunBar
from napari_rln.io.image import open_contents
from napari_rln.io.volumes import read

_KINDS = "Volumes (*.tif *.tiff *.lsm *.ome zarr.json .zattrs)"
_AS_IN_FILE = "file"  # placeholder of the voxel size


class FilePage(QWidget):
    """A file, and its voxel size if missing there."""

    created = Signal(object)

    def __init__(self, jobs: JobQueue, bar: RunBar) -> None:
        super().__init__()
        self._jobs = jobs
        self.path = FileEdit(filter=_KINDS)
        self.path.choose_btn.text = "Browse\N{HORIZONTAL ELLIPSIS}"
        self._line = self.path.line_edit.native
        self._line.setPlaceholderText("TIFF or OME-TIFF")
        self.voxel = VoxelField(_AS_IN_FILE)
        self.voxel.setToolTip("<p>Voxel size z, y, x; empty for that of the file.</p>")
        self.button = QPushButton("Open PSF")
        rows = fill(QFormLayout(), ("File", self.path.native), (LABEL, self.voxel))
        fill(QVBoxLayout(self), rows, self.button)
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

        steps, key = one_step("reading", lambda: _read(path, voxel_um)), (path, voxel_um)
        job = BackgroundJob(f"Opening {path.name}", steps, key=key, done=self.created.emit)
        self._jobs.add(job)


def _read(path: Path, voxel_um: VoxelUm | None) -> Volume:
    """Return the PSF of a file.

    Raises :class:`RlnError` if the file has several volumes, or no voxel size is known.
    """
    info = open_contents(path) if path.exists() else None
    if info and info.channels * info.times > 1:
        raise RlnError(
            f"{path.name} has {info.channels} channels and {info.times} time points; open it with "
            "File > Open, and choose its layer below."
        )
    if info and voxel_um is None and info.voxel_um is None:
        raise RlnError(f"{path.name} has no voxel size; type it below the file.")
    return read(path, voxel_um=voxel_um)
