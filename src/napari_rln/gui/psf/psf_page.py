"""The dock that computes, examines and repairs point spread functions."""

import dataclasses
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from napari.layers import Image, Layer
from qtpy.QtCore import QTimer, Signal
from qtpy.QtWidgets import (
    QCheckBox,
    QFileDialog,
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
from napari_rln.gui.deferred import Deferred
from napari_rln.gui.dropped_files import FileDrops
from napari_rln.gui.forms import with_labels
from napari_rln.gui.help_button import HelpButton
from napari_rln.gui.jobs import BackgroundJob, JobQueue, one_step
from napari_rln.gui.layer_jobs import path_of
from napari_rln.gui.layers import SAVED, is_image, is_psf, is_raw, layer_data, record_of
from napari_rln.gui.layouts import PAGE_MARGIN, ScrollArea, StackedPages, fill
from napari_rln.gui.pickers import VolumePicker
from napari_rln.gui.psf.beads_page import BeadsPage
from napari_rln.gui.psf.file_page import FilePage
from napari_rln.gui.psf.microscope_page import MicroscopePage
from napari_rln.gui.psf.psf_pictures import PsfPictures, psf_pictures
from napari_rln.gui.psf.repairs import Repairs
from napari_rln.gui.psf.thumbnails import Thumbnails
from napari_rln.gui.runbar import RunBar, as_sentence
from napari_rln.io.paths import check_tiff_output
from napari_rln.io.volumes import write
from napari_rln.psf.microscope import MicroscopeSettings
from napari_rln.psf.prepare import PrepareSettings, prepare_psf

if TYPE_CHECKING:
    import napari

_WAIT_MS = 200  # from a change to the examination, as more may follow
_ENDING = ".ome.tif"
_LAYOUT_MS = 50  # until a change is laid out, level by level
_FILE = 2  # tab of the page that opens a file


class PsfPage(QWidget):
    """Pages that create a PSF, its findings, and its repairs."""

    added = Signal(object)  # the layer of a PSF that was made here

    def __init__(self, napari_viewer: "napari.viewer.Viewer") -> None:
        super().__init__()
        self._viewer = napari_viewer
        self._is_new = False  # the PSF, to be shown to the user
        self.jobs, self.examinations = JobQueue(self), JobQueue(self)
        self.bar = RunBar(self.jobs, self.repair)
        self.bar.run_button.setVisible(False)  # each page has its own
        self.image = VolumePicker(napari_viewer, prefer=is_raw, optional="none")
        self.microscope = MicroscopePage(self.image, self.jobs, self.bar)
        self.pages, self._box = StackedPages(), QGroupBox("PSF")
        self.psf = VolumePicker(napari_viewer, prefer=is_psf, optional="none", of_psf=True)
        tip = (
            "<p>Compares widths and voxel size with the limits of the microscope above. "
            "Fill in its NA, index and emission, then tick this.</p>"
        )
        self.check_optics = QCheckBox("Check against the microscope above", toolTip=tip)
        self.thumbnails = Thumbnails(napari_viewer)
        self.repairs = Repairs()
        self.repair_button = QPushButton(
            "Repair", toolTip="<p>Click for a new layer with the ticked repairs.</p>"
        )
        self.all_button = QPushButton(
            "Repair all", toolTip="<p>Click for a new layer with all repairs.</p>"
        )
        self.repair_part = QWidget()
        tip = "<p>Click to write the PSF as OME-TIFF, with its voxel size and its origin.</p>"
        self.save_button = QPushButton("Save PSF\N{HORIZONTAL ELLIPSIS}", toolTip=tip)
        self.copy = CopyButton(lambda: [self._run()], self.bar)
        self._timer = QTimer(self, singleShot=True, interval=_WAIT_MS)
        self._lay_out()
        FileDrops(self, self.open_file)
        self._timer.timeout.connect(self.examine)
        self.microscope.created.connect(self.add_psf)
        for changed in (self.image.changed, self.psf.changed, self.check_optics.toggled):
            changed.connect(self._examine_soon)
        self.microscope.form.changed.connect(self._on_optics)
        self.microscope.form.changed.connect(self.bar.forget_refusal)
        self.image.changed.connect(self.bar.forget)
        self.repair_button.clicked.connect(lambda: self.bar.attempt(self.repair))
        self.all_button.clicked.connect(self._repair_all)
        self.save_button.clicked.connect(lambda: self.bar.attempt(self.save))
        self.examinations.failed.connect(lambda _, failure: self._show_message(failure.message))
        self.examine()

    @cached_property
    def beads(self) -> BeadsPage:
        """The tab that measures a PSF from beads."""
        page = BeadsPage(self._viewer, self.jobs, self.bar)
        page.created.connect(self.add_psf)
        return page

    @cached_property
    def opening(self) -> FilePage:
        """The tab that opens a file."""
        page = FilePage(self.jobs, self.bar)
        page.created.connect(self.add_psf)
        return page

    @property
    def is_busy(self) -> bool:
        """Whether a job is running, or a change is about to be examined."""
        return bool(self.jobs.running or self.examinations.running or self._timer.isActive())

    def add_psf(self, psf: Volume) -> None:
        """Add a PSF as a layer and choose it."""
        data, options, _ = layer_data(psf, colormap="magma", blending="additive")
        # This page shows it: it does not lie over an image.
        seen = any(
            each.visible and is_image(each) and not is_psf(each) for each in self._viewer.layers
        )
        layer = Image(data, **options, visible=not seen)
        if not is_psf(layer):
            layer.name = f"{psf.name} (PSF)"  # docks recognise a PSF by its name
        self._viewer.add_layer(layer)
        self.show_psf(layer)
        self.added.emit(layer)

    def show_psf(self, layer: Layer) -> None:
        """Choose the layer of a PSF, and scroll to it."""
        self.psf.layer = layer
        self._is_new = True
        self._examine_soon()

    def examine(self) -> None:
        """Examine the chosen PSF in a thread."""
        self.examinations.cancel()
        self.repairs.allow_resampling(self.image.layer is not None)
        self.save_button.setVisible(self.psf.layer is not None)
        self.check_optics.setVisible(self.psf.layer is not None and self._computed() is None)
        if self.psf.layer is None:
            self._show_message("Choose a layer with a PSF, or get one above.")
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

    def save(self) -> None:
        """Ask for a file and queue writing the chosen PSF there.

        Raises :class:`RlnError` if no PSF is chosen, or the file cannot be written.
        """
        psf = self.psf.source("the PSF")
        kinds = f"OME-TIFF (*{_ENDING});;TIFF (*.tif *.tiff)"
        chosen, _ = QFileDialog.getSaveFileName(self, "Save PSF", f"{psf.name}{_ENDING}", kinds)
        if not chosen:
            return
        named = Path(chosen)
        has_ending = named.suffix[1:].isalpha()  # unlike that of "NA 1.4"
        path = named if has_ending else named.with_name(f"{named.name}{_ENDING}")
        check_tiff_output(path)
        replace = path == named  # else the dialog has not asked whether to
        if path.exists() and not replace:
            raise RlnError(
                f"there is a file {path.name} already; choose it in the dialog to replace it, or "
                "type another name."
            )
        steps = one_step("writing", lambda: write(psf.read(), path, replace=replace))

        def remember(_: object) -> None:
            psf.layer.metadata[SAVED] = str(path)  # which a copied command then reads

        title, note = f"Saving {path.name}", f"The PSF is in {path}."
        self.jobs.add(BackgroundJob(title, steps, key=path, done=remember, end_note=note))

    def open_file(self, path: Path) -> None:
        """Go to the tab of files, and open one as a PSF."""
        self.pages.tabs.setCurrentIndex(_FILE)
        self.bar.attempt(lambda: self.opening.open_dropped(path))

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
        """Return the microscope of a computed PSF, or that of the form if checked."""
        checked = self.check_optics.isChecked()
        return self._computed() or (self.microscope.form.settings() if checked else None)

    def _computed(self) -> MicroscopeSettings | None:
        """Return the microscope in the record of the PSF; None if it was not computed."""
        assert self.psf.layer is not None
        record = record_of(self.psf.layer)
        if record is None or record.method != "psf compute":
            return None
        known = {"modality", "na", "immersion_index", "wavelength_um", "excitation_um"}
        return MicroscopeSettings(**{k: v for k, v in record.settings.items() if k in known})

    def _show(self, pictures: PsfPictures) -> None:
        self.thumbnails.show_pictures(pictures)
        self.repairs.advise(pictures.report.findings)
        self.repairs.allow_resampling(self.image.layer is not None)
        self.repair_part.setVisible(any(finding.repair for finding in pictures.report.findings))
        if self._is_new:
            QTimer.singleShot(_LAYOUT_MS, self._reveal)
        self._is_new = False

    def _reveal(self) -> None:
        """Scroll to the PSF."""
        self._scroll.verticalScrollBar().setValue(self._box.y())

    def _show_message(self, message: str) -> None:
        self.repair_part.setVisible(False)
        self.thumbnails.clear(as_sentence(with_labels(message)))

    def _lay_out(self) -> None:
        for title, page, tip in (
            (
                "From microscope",
                self.microscope,
                "Compute the PSF from the data of the microscope.",
            ),
            (
                "From beads",
                Deferred(lambda: self.beads),
                "Measure the PSF in a stack of small beads.",
            ),
            (
                "From a file",
                Deferred(lambda: self.opening),
                "Open the PSF from a file, or drop the file here.",
            ),
        ):
            self.pages.add(title, page)
            self.pages.tabs.setTabToolTip(self.pages.tabs.count() - 1, f"<p>{tip}</p>")
        content = QWidget()
        buttons = fill(QHBoxLayout(), (self.repair_button, 1), (self.all_button, 1), self.copy)
        fill(QVBoxLayout(self.repair_part), self.repairs, buttons, margin=0)
        parts = (self.psf, self.thumbnails, self.check_optics, self.repair_part, self.save_button)
        fill(QVBoxLayout(self._box), *parts, margin=PAGE_MARGIN)
        image = fill(QHBoxLayout(), (QLabel("For image"), 1), HelpButton("psf"))
        whole = (image, self.image, self.pages, self._box)
        fill(QVBoxLayout(content), *whole, margin=PAGE_MARGIN).addStretch(1)
        self.bar.layout().setContentsMargins(PAGE_MARGIN, 0, PAGE_MARGIN, PAGE_MARGIN)
        self._scroll = ScrollArea(content)
        fill(QVBoxLayout(self), (self._scroll, 1), self.bar, margin=0)
