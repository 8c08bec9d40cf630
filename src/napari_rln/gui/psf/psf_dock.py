"""The dock for making, checking and repairing point spread functions."""

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
from napari_rln.engine.progress import Progress
from napari_rln.gui.copy_button import CopyButton, Run, image_of, psf_of
from napari_rln.gui.forms import worded
from napari_rln.gui.jobs import BackgroundJob, Failure, JobQueue, Steps, Update
from napari_rln.gui.layer_jobs import path_of
from napari_rln.gui.layers import is_psf, is_raw, layer_data, record_of
from napari_rln.gui.pickers import VolumePicker
from napari_rln.gui.psf.beads_page import BeadsPage
from napari_rln.gui.psf.file_page import FilePage
from napari_rln.gui.psf.microscope_page import MicroscopePage
from napari_rln.gui.psf.psf_pictures import PsfPictures, psf_pictures
from napari_rln.gui.psf.repairs import Repairs
from napari_rln.gui.psf.stacked_pages import StackedPages
from napari_rln.gui.psf.thumbnails import Thumbnails
from napari_rln.gui.runbar import RunBar
from napari_rln.gui.scroll_area import ScrollArea
from napari_rln.psf.microscope import MicroscopeSettings
from napari_rln.psf.prepare import PrepareSettings, prepare_psf

if TYPE_CHECKING:
    import napari

_WAIT_MS = 200  # from a change to the examination: further changes may follow


class PsfDock(QWidget):
    """Computes, measures or opens a PSF, shows its findings, and repairs it."""

    def __init__(self, napari_viewer: "napari.viewer.Viewer") -> None:
        super().__init__()
        self._viewer = napari_viewer
        self.jobs, self.examinations = JobQueue(self), JobQueue(self)
        self.bar = RunBar(self.jobs, self.repair)
        self.bar.run_button.setVisible(False)  # every page has its own
        self.image = VolumePicker(napari_viewer, prefer=is_raw, optional="none")
        self.microscope = MicroscopePage(self.image, self.jobs, self.bar)
        self.beads = BeadsPage(napari_viewer, self.jobs, self.bar)
        self.opening = FilePage(self.jobs, self.bar)
        self.psf = VolumePicker(napari_viewer, prefer=is_psf, optional="none")
        self.judge = QCheckBox("Judge by the microscope above")
        self.judge.setToolTip(
            "<p>Compares widths and voxel size with what NA, wavelength and index under Compute "
            "allow. A computed PSF is always judged by its own.</p>"
        )
        self.thumbnails = Thumbnails(napari_viewer)
        self.repairs = Repairs()
        self.repair_button, self.all_button = QPushButton("Repair"), QPushButton("Repair all")
        self.copy = CopyButton(lambda: [self._described()], self.bar.attempt)
        self._timer = QTimer(self, singleShot=True, interval=_WAIT_MS)
        self._lay_out()
        self._timer.timeout.connect(self.examine)
        for page in (self.microscope, self.beads, self.opening):
            page.made.connect(self.take)
        for changed in (self.image.changed, self.psf.changed, self.judge.toggled):
            changed.connect(self._examine_soon)
        self.microscope.form.changed.connect(self._judge_again)
        self.repair_button.clicked.connect(lambda: self.bar.attempt(self.repair))
        self.all_button.clicked.connect(self._repair_all)
        self.examinations.failed.connect(self._on_failure)
        self.examine()

    @property
    def is_busy(self) -> bool:
        """Whether anything is under way, or a change is about to be examined."""
        return bool(self.jobs.running or self.examinations.running or self._timer.isActive())

    def take(self, psf: Volume) -> None:
        """Add a PSF as a layer, and choose it."""
        data, options, _ = layer_data(psf, colormap="magma", blending="additive")
        layer = Image(data, **options)
        if not is_psf(layer):
            layer.name = f"{psf.name} (PSF)"  # a name that all docks take for a PSF
        self._viewer.add_layer(layer)
        self.psf.layer = layer

    def examine(self) -> None:
        """Examine the chosen PSF in a thread."""
        self.examinations.cancel()
        self.repairs.allow_resampling(self.image.layer is not None)
        if self.psf.layer is None:
            self.thumbnails.clear("Choose a layer that holds a PSF, or make one above.")
            return
        self.thumbnails.clear("Examining\N{HORIZONTAL ELLIPSIS}", keep=True)
        try:
            psf, image, optics = self.psf.source("the PSF"), self._grid(), self._optics()
        except RlnError as error:
            self._say(str(error))
            return

        def steps() -> Steps[PsfPictures]:
            yield Update(Progress(activity="examining"))
            pictures = psf_pictures(psf.read(), image, optics)
            yield None  # an outdated one is cancelled here
            return pictures

        self.examinations.add(
            BackgroundJob(f"Examining {psf.name}", steps, key=object(), done=self._show)
        )

    def repair(self) -> None:
        """Queue the ticked repairs.

        Raises
        ------
        RlnError
            If no PSF is chosen, or a number is not valid.
        """
        psf, settings = self.psf.source("the PSF"), self.repairs.settings()
        target = self.image.source("the image").voxel_um if self.repairs.resample else None
        name = f"{psf.name} \N{MIDDLE DOT} prepared"

        def steps() -> Steps[Volume]:
            yield Update(Progress(activity="preparing"))
            ready = prepare_psf(psf.read(), settings, image_voxel_um=target)
            yield None
            return dataclasses.replace(ready, name=name)

        key = (id(psf.layer), settings, target)
        self.jobs.add(BackgroundJob(f"Preparing {psf.name}", steps, key=key, done=self.take))

    def _examine_soon(self) -> None:
        self._timer.start()

    def _judge_again(self) -> None:
        if self.judge.isChecked():
            self._examine_soon()

    def _repair_all(self) -> None:
        self.repairs.tick_all()
        self.bar.attempt(self.repair)

    def _described(self) -> Run:
        psf, settings = self.psf.source("the PSF"), self.repairs.settings()
        image = self.image.source("the image") if self.repairs.resample else None
        return "psf repair", {
            **psf_of(psf),
            **(image_of(image) if image else {}),
            "out": Path(f"{path_of(psf.layer).stem} prepared.tif"),
            "settings": settings,
            "everything": settings == PrepareSettings(),
        }

    def _grid(self) -> Volume | None:
        """Return an empty volume on the grid of the image: findings concern only the grid."""
        if self.image.layer is None:
            return None
        image = self.image.source("the image")
        dark = np.zeros(image.shape, np.float32)  # takes no memory before it is written to
        return Volume(data=dark, voxel_um=image.voxel_um, name=image.name)

    def _optics(self) -> MicroscopeSettings | None:
        """Return the microscope of the PSF: that of its record, or the one above if ticked."""
        assert self.psf.layer is not None
        record = record_of(self.psf.layer)
        if record is not None and record.method == "psf compute":
            known = {"modality", "na", "immersion_index", "wavelength_um", "excitation_um"}
            return MicroscopeSettings(**{k: v for k, v in record.settings.items() if k in known})
        return self.microscope.form.settings() if self.judge.isChecked() else None

    def _show(self, pictures: PsfPictures) -> None:
        self.thumbnails.show_pictures(pictures)
        self.repairs.advise(pictures.report.findings)
        self.repairs.allow_resampling(self.image.layer is not None)

    def _on_failure(self, job: BackgroundJob, failure: Failure) -> None:
        self._say(failure.sentence)

    def _say(self, sentence: str) -> None:
        sentence = worded(sentence)
        self.thumbnails.clear(f"{sentence[:1].upper()}{sentence[1:]}")

    def _lay_out(self) -> None:
        pages = StackedPages()
        pages.add("Compute", self.microscope)
        pages.add("Measure beads", self.beads)
        pages.add("Open a file", self.opening)
        shown = QGroupBox("PSF")
        buttons = QHBoxLayout()
        for button in (self.repair_button, self.all_button):
            buttons.addWidget(button, 1)
        buttons.addWidget(self.copy)
        inside = QVBoxLayout(shown)
        for part in (self.psf, self.thumbnails, self.judge, self.repairs):
            inside.addWidget(part)
        inside.addLayout(buttons)
        content = QWidget()
        above = QVBoxLayout(content)
        for part in (QLabel("For image"), self.image, pages, shown):
            above.addWidget(part)
        above.addStretch(1)
        whole = QVBoxLayout(self)
        whole.setContentsMargins(0, 0, 0, 0)
        whole.addWidget(ScrollArea(content), 1)
        self.bar.layout().setContentsMargins(9, 0, 9, 9)
        whole.addWidget(self.bar)
