"""The page of the PSF dock for computing a PSF from the microscope."""

from pathlib import Path

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QFormLayout, QHBoxLayout, QPushButton, QVBoxLayout, QWidget

from napari_rln.core.volume import Volume, VoxelUm
from napari_rln.engine.progress import Progress
from napari_rln.gui.copy_button import CopyButton, Run, image_of
from napari_rln.gui.forms import Form
from napari_rln.gui.jobs import BackgroundJob, JobQueue, Steps, Update
from napari_rln.gui.layers import LayerImage
from napari_rln.gui.pickers import VolumePicker
from napari_rln.gui.runbar import RunBar
from napari_rln.gui.voxel_size import LABEL, VoxelField
from napari_rln.psf.compute import compute_psf
from napari_rln.psf.microscope import MicroscopeSettings

_OPTICS = ("na", "immersion_index", "sample_index", "wavelength_um", "depth_um")
_ROWS = {
    "widefield": _OPTICS,
    "confocal": (*_OPTICS, "excitation_um", "pinhole_au"),
    "two-photon": (*_OPTICS, "excitation_um"),
    "light-sheet": (*_OPTICS, "sheet_fwhm_um"),
    "gaussian": ("fwhm_um",),
}
_TOP = (
    "modality",
    "na",
    "immersion_index",
    "sample_index",
    "wavelength_um",
    "excitation_um",
    "pinhole_au",
    "sheet_fwhm_um",
    "depth_um",
    "fwhm_um",
)


class MicroscopePage(QWidget):
    """Microscope settings, and a button for their PSF on the voxels of an image.

    Parameters
    ----------
    image
        Choice of the image that the PSF is for.
    jobs, bar
        Of the dock.
    """

    made = Signal(object)

    def __init__(self, image: VolumePicker, jobs: JobQueue, bar: RunBar) -> None:
        super().__init__()
        self._image, self._jobs = image, jobs
        self.form = Form(MicroscopeSettings, top=_TOP)
        self.voxel = VoxelField("?")
        self.voxel.value = (0.2, 0.1, 0.1)
        self._voxel_row = QWidget()
        row = QFormLayout(self._voxel_row)
        row.setContentsMargins(0, 0, 0, 0)
        row.addRow(LABEL, self.voxel)
        self.button = QPushButton("Compute PSF")
        self.copy = CopyButton(lambda: [self._described()], bar.attempt)
        buttons = QHBoxLayout()
        buttons.addWidget(self.button, 1)
        buttons.addWidget(self.copy)
        layout = QVBoxLayout(self)
        layout.addWidget(self.form)
        layout.addWidget(self._voxel_row)
        layout.addLayout(buttons)
        self.button.clicked.connect(lambda: bar.attempt(self.compute))
        self.form.fields["modality"].changed.connect(self._show_rows)
        image.changed.connect(self._show_rows)
        self._show_rows()

    def compute(self) -> None:
        """Queue the computation.

        Raises
        ------
        RlnError
            If the settings contradict each other, or the voxel size is unknown.
        """
        settings = self.form.settings()
        image, voxel_um = self._grid()
        planes = image.shape[0] if image else None
        name = name_of(settings)

        def steps() -> Steps[Volume]:
            yield Update(Progress(activity="computing"))
            psf = compute_psf(settings, voxel_um, planes=planes, name=name)
            yield None  # here it may be cancelled
            return psf

        self._jobs.add(
            BackgroundJob(name, steps, key=(settings, voxel_um, planes), done=self.made.emit)
        )

    def _grid(self) -> tuple[LayerImage | None, VoxelUm]:
        """Return the chosen image, or none, and the voxel size."""
        if self._image.layer is None:
            return None, self.voxel.voxel_um("the PSF")
        image = self._image.source("the image")
        return image, image.voxel_um

    def _described(self) -> Run:
        image, voxel_um = self._grid()
        settings = self.form.settings()
        return "psf compute", {
            **(image_of(image) if image else {"voxel_um": voxel_um}),
            "out": Path(f"{name_of(settings)}.tif"),
            "settings": settings,
        }

    def _show_rows(self) -> None:
        modality = self.form.fields["modality"].value
        self.form.show_only(("modality", *_ROWS[modality]))
        self._voxel_row.setVisible(self._image.layer is None)


def name_of(settings: MicroscopeSettings) -> str:
    """Return the name of a microscope's PSF."""
    if settings.modality == "gaussian":
        return "PSF gaussian"
    return f"PSF {settings.modality} NA {settings.na:g}"
