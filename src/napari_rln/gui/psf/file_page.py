"""The page of the PSF dock for opening a PSF from a file."""

from pathlib import Path

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QFileDialog, QFormLayout, QHBoxLayout, QPushButton, QVBoxLayout, QWidget

from napari_rln.core.errors import RlnError
from napari_rln.core.volume import Volume
from napari_rln.engine.progress import Progress
from napari_rln.gui.field_errors import FieldError
from napari_rln.gui.fields import field_for
from napari_rln.gui.jobs import BackgroundJob, JobQueue, Steps, Update
from napari_rln.gui.runbar import RunBar
from napari_rln.gui.voxel_size import LABEL, VoxelField
from napari_rln.io.volumes import contents, read

_KINDS = "Volumes (*.tif *.tiff *.lsm *.ome zarr.json .zattrs)"
_AS_IN_FILE = "file"  # placeholder of the voxel size


class FilePage(QWidget):
    """A file, and its voxel size where the file lacks it.

    Parameters
    ----------
    jobs, bar
        Of the dock.
    """

    made = Signal(object)

    def __init__(self, jobs: JobQueue, bar: RunBar) -> None:
        super().__init__()
        self._jobs = jobs
        self.path = field_for(str)
        self.path.native.setPlaceholderText("TIFF or OME-TIFF")
        browse = QPushButton("Browse\N{HORIZONTAL ELLIPSIS}")
        self.voxel = VoxelField(_AS_IN_FILE)
        self.voxel.setToolTip("<p>Voxel size z, y, x; empty for that of the file.</p>")
        self.button = QPushButton("Open PSF")
        line = QHBoxLayout()
        line.addWidget(self.path.native, 1)
        line.addWidget(browse)
        rows = QFormLayout()
        rows.addRow("File", line)
        rows.addRow(LABEL, self.voxel)
        layout = QVBoxLayout(self)
        layout.addLayout(rows)
        layout.addWidget(self.button)
        browse.clicked.connect(self._browse)
        self.button.clicked.connect(lambda: bar.attempt(self.open))

    def open(self) -> None:
        """Queue reading the file.

        Raises
        ------
        RlnError
            If no file is named, or the voxel size is incomplete.
        """
        if not self.path.value.strip():
            raise FieldError("choose the file that holds the PSF.", self.path.native)
        path, sizes = Path(self.path.value.strip()).expanduser(), self.voxel.value
        if any(sizes) and not all(sizes):
            raise FieldError("give the voxel size along z, y and x, or none of them.", self.voxel)
        voxel_um = self.voxel.voxel_um(path.name) if any(sizes) else None

        def steps() -> Steps[Volume]:
            yield Update(Progress(activity="reading"))
            held = contents(path) if path.exists() else None
            if held and held.channels * held.times > 1:
                raise RlnError(
                    f"{path.name} holds {held.channels} channels and {held.times} time points; "
                    "open it with File > Open, and choose the layer below."
                )
            if held and voxel_um is None and held.voxel_um is None:
                raise RlnError(f"{path.name} has no voxel size; type it below the file.")
            psf = read(path, voxel_um=voxel_um)
            yield None
            return psf

        self._jobs.add(
            BackgroundJob(f"Opening {path.name}", steps, key=(path, voxel_um), done=self.made.emit)
        )

    def _browse(self) -> None:
        path, _ = QFileDialog.getOpenFileName(self, "Open a PSF", self.path.value, _KINDS)
        if path:
            self.path.value = path
