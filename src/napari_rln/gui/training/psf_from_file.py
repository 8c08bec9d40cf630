"""The PSF of a training, computed from what the file of its image states."""

from napari.components import ViewerModel
from qtpy.QtCore import QObject

from napari_rln.core.errors import RlnError
from napari_rln.core.volume import Volume
from napari_rln.gui.deconvolve.stated_psfs import is_known, psf_layer, stated_psf
from napari_rln.gui.jobs import BackgroundJob, JobQueue, one_step
from napari_rln.gui.runbar import RunBar
from napari_rln.gui.training.training_form import TrainingForm


class PsfFromFile(QObject):
    """Computes the PSF in a thread, as a hidden layer that the form of a training then has.

    The button is there while no PSF is chosen and the image's file states enough.
    """

    def __init__(self, viewer: ViewerModel, form: TrainingForm, bar: RunBar) -> None:
        super().__init__(form)
        self._viewer, self._form = viewer, form
        self.jobs = JobQueue(self)
        form.compute_button.clicked.connect(lambda: bar.attempt(self._add))
        for picker in (form.psf, form.image):
            picker.changed.connect(self._refresh)
        self.jobs.changed.connect(self._refresh)
        self.jobs.failed.connect(bar.show_failure)
        self._refresh()

    def _add(self) -> None:
        psf = stated_psf(self._form.image.source("the image"))
        if psf is None:
            raise RlnError("the image's file states too little for a PSF; choose its layer.")
        steps = one_step("computing the PSF", psf.read)
        self.jobs.add(BackgroundJob(psf.name, steps, key=psf.key, done=self._show))

    def _show(self, psf: Volume) -> None:
        self._viewer.add_layer(psf_layer(psf))

    def _refresh(self) -> None:
        image, computing = self._form.image.layer, self.jobs.running is not None
        button = self._form.compute_button
        text = "Computing the PSF\N{HORIZONTAL ELLIPSIS}" if computing else "Compute the PSF"
        button.setText(text)
        button.setEnabled(not computing)
        button.setVisible(self._form.psf.layer is None and image is not None and is_known(image))
