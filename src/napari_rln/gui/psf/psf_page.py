"""The dock that computes, examines and repairs point spread functions."""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from napari.layers import Image
from qtpy.QtCore import QTimer
from qtpy.QtWidgets import (
    QCheckBox,
    QGroupBox,
    QHBoxLayout,
    QLabel,
    QPushButton,
    QVBoxLayout,
    QWidget,
)

from napari_rln.core.errors import RlnError
from napari_rln.core.volume import Volume
from napari_rln.gui.copy_button import CopyButton, Run, image_arguments, psf_arguments
from napari_rln.gui.forms import with_labels
from napari_rln.gui.jobs import BackgroundJob, JobQueue, one_step
from napari_rln.gui.layer_jobs import path_of
from napari_rln.gui.layers import is_psf, is_raw, layer_data, record_of
from napari_rln.gui.layouts import ScrollArea, StackedPages, fill
from napari_rln.gui.pickers import VolumePicker
from napari_rln.gui.psf.beads_page import BeadsPage
from napari_rln.gui.psf.file_page import FilePage
from napari_rln.gui.psf.microscope_page import MicroscopePage
from napari_rln.gui.psf.psf_pictures import PsfPictures, psf_pictures
from napari_rln.gui.psf.repairs import Repairs
from napari_rln.gui.psf.thumbnails import Thumbnails
from napari_rln.gui.runbar import RunBar
from napari_rln.psf.microscope import MicroscopeSettings
from napari_rln.psf.prepare import PrepareSettings, prepare_psf

if TYPE_CHECKING:
    import napari

_WAIT_MS = 200  # from a change to the examination, as more may follow


class PsfPage(QWidget):
    """Pages that create a PSF, its findings, and its repairs."""

    def __init__(self, napari_viewer: "napari.viewer.Viewer") -> None:
        super().__init__()
        self._viewer = napari_viewer
        self.jobs, self.examinations = JobQueue(self), JobQueue(self)
        self.bar = RunBar(self.jobs, self.repair)
        self.bar.run_button.setVisible(False)  # each page has its own
        self.image = VolumePicker(napari_viewer, prefer=is_raw, optional="none")
        self.microscope = MicroscopePage(self.image, self.jobs, self.bar)
        self.beads = BeadsPage(napari_viewer, self.jobs, self.bar)
        self.opening = FilePage(self.jobs, self.bar)
        self.psf = VolumePicker(napari_viewer, prefer=is_psf, optional="none")
        tip = (
            "<p>Compares widths and voxel size with the limits by NA, wavelength and index under "
            "Compute. A computed PSF is always compared with its own microscope.</p>"
        )
        self.check_optics = QCheckBox("Check against the microscope above", toolTip=tip)
        self.thumbnails = Thumbnails(napari_viewer)
        self.repairs = Repairs()
        self.repair_button, self.all_button = QPushButton("Repair"), QPushButton("Repair all")
        self.copy = CopyButton(lambda: [self._run()], self.bar.attempt)
        self._timer = QTimer(self, singleShot=True, interval=_WAIT_MS)
        self._lay_out()
        self._timer.timeout.connect(self.examine)
        for page in (self.microscope, self.beads, self.opening):
            page.created.connect(self.add_psf)
        for changed in (self.image.changed, self.psf.changed, self.check_optics.toggled):
            changed.connect(self._examine_soon)
        self.microscope.form.changed.connect(self._on_optics)
        self.repair_button.clicked.connect(lambda: self.bar.attempt(self.repair))
        self.all_button.clicked.connect(self._repair_all)
        self.examinations.failed.connect(lambda _, failure: self._show_message(failure.message))
        self.examine()

    @property
    def is_busy(self) -> bool:
        """Whether a job is running, or a change is about to be examined."""
        return bool(self.jobs.running or self.examinations.running or self._timer.isActive())

    def add_psf(self, psf: Volume) -> None:
        """Add a PSF as a layer and choose it."""
        data, options, _ = layer_data(psf, colormap="magma", blending="additive")
        layer = Image(data, **options)
        if not is_psf(layer):
            layer.name = f"{psf.name} (PSF)"  # docks recognise a PSF by its name
        self._viewer.add_layer(layer)
        self.psf.layer = layer

    def examine(self) -> None:
        """Examine the chosen PSF in a thread."""
        self.examinations.cancel()
        self.repairs.allow_resampling(self.image.layer is not None)
        if self.psf.layer is None:
            self.thumbnails.clear("Choose a layer with a PSF, or create a PSF above.")
            return
        self.thumbnails.clear("Examining\N{HORIZONTAL ELLIPSIS}", keep=True)
        try:
            psf, image, optics = self.psf.source("the PSF"), self._grid(), self._optics()
        except RlnError as error:
            self._show_message(str(error))
            return

        steps = one_step("examining", lambda: psf_pictures(psf.read(), image, optics))
        job = BackgroundJob(f"Examining {psf.name}", steps, key=object(), done=self._show)
        self.examinations.add(job)

    def repair(self) -> None:
        """Queue the ticked repairs.

        Raises :class:`RlnError` if no PSF is chosen, or a number is invalid.
        """
        psf, settings = self.psf.source("the PSF"), self.repairs.settings()
        target = self.image.source("the image").voxel_um if self.repairs.resample else None
        name = f"{psf.name} \N{MIDDLE DOT} prepared"

        def prepare() -> Volume:
            ready = prepare_psf(psf.read(), settings, image_voxel_um=target)
            return dataclasses.replace(ready, name=name)

        steps = one_step("preparing", prepare)
        key = (id(psf.layer), settings, target)
        self.jobs.add(BackgroundJob(f"Preparing {psf.name}", steps, key=key, done=self.add_psf))

    def _examine_soon(self) -> None:
        self._timer.start()

    def _on_optics(self) -> None:
        if self.check_optics.isChecked():
            self._examine_soon()

    def _repair_all(self) -> None:
        self.repairs.check_all()
        self.bar.attempt(self.repair)

    def _run(self) -> Run:
        psf, settings = self.psf.source("the PSF"), self.repairs.settings()
        image = self.image.source("the image") if self.repairs.resample else None
        return "psf repair", {
            **psf_arguments(psf),
            **(image_arguments(image) if image else {}),
            "out": Path(f"{path_of(psf.layer).stem} prepared.tif"),
            "settings": settings,
            "everything": settings == PrepareSettings(),
        }

    def _grid(self) -> Volume | None:
        """Return a dark volume on the grid of the image, which is all that findings need."""
        if self.image.layer is None:
            return None
        image = self.image.source("the image")
        dark = np.zeros(image.shape, np.float32)  # uses no memory until written to
        return Volume(data=dark, voxel_um=image.voxel_um, name=image.name)

    def _optics(self) -> MicroscopeSettings | None:
        """Return the microscope of the PSF's record, or that of the form if checked."""
        assert self.psf.layer is not None
        record = record_of(self.psf.layer)
        if record is not None and record.method == "psf compute":
            known = {"modality", "na", "immersion_index", "wavelength_um", "excitation_um"}
            return MicroscopeSettings(**{k: v for k, v in record.settings.items() if k in known})
        return self.microscope.form.settings() if self.check_optics.isChecked() else None

    def _show(self, pictures: PsfPictures) -> None:
        self.thumbnails.show_pictures(pictures)
        self.repairs.advise(pictures.report.findings)
        self.repairs.allow_resampling(self.image.layer is not None)

    def _show_message(self, message: str) -> None:
        message = with_labels(message)
        self.thumbnails.clear(f"{message[:1].upper()}{message[1:]}")

    def _lay_out(self) -> None:
        pages = StackedPages()
        pages.add("Compute", self.microscope)
        pages.add("Measure beads", self.beads)
        pages.add("Open a file", self.opening)
        box, content = QGroupBox("PSF"), QWidget()
        buttons = fill(QHBoxLayout(), (self.repair_button, 1), (self.all_button, 1), self.copy)
        parts = (self.psf, self.thumbnails, self.check_optics, self.repairs, buttons)
        fill(QVBoxLayout(box), *parts)
        fill(QVBoxLayout(content), QLabel("For image"), self.image, pages, box).addStretch(1)
        self.bar.layout().setContentsMargins(9, 0, 9, 9)
        fill(QVBoxLayout(self), (ScrollArea(content), 1), self.bar, margin=0)
