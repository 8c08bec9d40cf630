"""The page of the PSF dock that computes a PSF from microscope settings."""

from dataclasses import fields
from itertools import chain
from pathlib import Path

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QFormLayout, QHBoxLayout, QPushButton, QVBoxLayout, QWidget

from napari_rln.core.volume import VoxelUm
from napari_rln.gui.copy_button import CopyButton, Run, image_arguments
from napari_rln.gui.fields import LABEL, VoxelField
from napari_rln.gui.forms import Form
from napari_rln.gui.jobs import BackgroundJob, JobQueue, one_step
from napari_rln.gui.layers import LayerImage
from napari_rln.gui.layouts import fill
from napari_rln.gui.pickers import VolumePicker
from napari_rln.gui.runbar import RunBar
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
    *(f.name for f in fields(MicroscopeSettings) if f.name in chain(*_ROWS.values())),
)


class MicroscopePage(QWidget):
    """Microscope settings, and a button for their PSF on the voxels of the chosen image."""

    created = Signal(object)

    def __init__(self, image: VolumePicker, jobs: JobQueue, bar: RunBar) -> None:
        super().__init__()
        self._image, self._jobs = image, jobs
        self.form = Form(MicroscopeSettings, top=_TOP)
        self.voxel = VoxelField("?")
        self.voxel.value = (0.2, 0.1, 0.1)
        self._voxel_row = QWidget()
        fill(QFormLayout(self._voxel_row), (LABEL, self.voxel), margin=0)
        self.button = QPushButton("Compute PSF")
        self.copy = CopyButton(lambda: [self._run()], bar.attempt)
        buttons = fill(QHBoxLayout(), (self.button, 1), self.copy)
        fill(QVBoxLayout(self), self.form, self._voxel_row, buttons)
        self.button.clicked.connect(lambda: bar.attempt(self.compute))
        self.form.fields["modality"].changed.connect(self._show_rows)
        image.changed.connect(self._show_rows)
        self._show_rows()

    def compute(self) -> None:
        """Queue the computation.

        Raises :class:`RlnError` if the settings contradict each other, or the voxel size is
        unknown.
        """
        settings = self.form.settings()
        image, voxel_um = self._grid()
        planes = image.shape[0] if image else None
        name = name_of(settings)

        steps = one_step(
            "computing", lambda: compute_psf(settings, voxel_um, planes=planes, name=name)
        )
        key = (settings, voxel_um, planes)
        self._jobs.add(BackgroundJob(name, steps, key=key, done=self.created.emit))

    def _grid(self) -> tuple[LayerImage | None, VoxelUm]:
        """Return the chosen image, or none, and the voxel size."""
        if self._image.layer is None:
            return None, self.voxel.voxel_um("the PSF")
        image = self._image.source("the image")
        return image, image.voxel_um

    def _run(self) -> Run:
        image, voxel_um = self._grid()
        settings = self.form.settings()
        return "psf compute", {
            **(image_arguments(image) if image else {"voxel_um": voxel_um}),
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
