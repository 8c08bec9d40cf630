"""Buttons that open the windows of batches and studies, which are made at the first click."""

from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path

from napari.components import ViewerModel
from qtpy.QtWidgets import QDialog, QHBoxLayout, QWidget

from napari_rln.gui.deconvolve.batch_window import BATCH, BatchTask, BatchWindow
from napari_rln.gui.deconvolve.chosen_inputs import ChosenInputs
from napari_rln.gui.deconvolve.chosen_method import ChosenMethod
from napari_rln.gui.deconvolve.study_window import STUDY, StudyWindow
from napari_rln.gui.jobs import JobQueue
from napari_rln.gui.layer_jobs import path_of
from napari_rln.gui.layers import LayerImage
from napari_rln.gui.layouts import button, fill

WINDOWS = (BATCH, STUDY)
"""Windows whose jobs the page shows too."""


class Windows(QWidget):
    """Buttons for many files, and for the comparison of methods on simulated images.

    Both windows take methods and PSF from the page, and share its queue; ``methods`` returns those
    that are ticked.
    """

    def __init__(
        self,
        viewer: ViewerModel,
        jobs: JobQueue,
        inputs: ChosenInputs,
        methods: Callable[[], list[ChosenMethod]],
    ) -> None:
        super().__init__()
        self._viewer, self._jobs = viewer, jobs
        self._inputs, self._methods = inputs, methods
        self.batch_button = button(
            "Batch\N{HORIZONTAL ELLIPSIS}",
            "Click to deconvolve many files, with all channels and time points, with the methods "
            "and the PSF of this page.",
            self._open_batch,
        )
        self.study_button = button(
            "Study\N{HORIZONTAL ELLIPSIS}",
            "Click to compare methods, and networks trained for the PSF, on images simulated with "
            "it, and learn which to use.",
            lambda: _show(self.study),
        )
        fill(QHBoxLayout(self), self.batch_button, self.study_button, margin=0)

    @cached_property
    def batch(self) -> BatchWindow:
        """The window of batches."""
        return BatchWindow(self._viewer, self._jobs, self._task, self)

    @cached_property
    def study(self) -> StudyWindow:
        """The window of studies."""
        return StudyWindow(self._jobs, self._study_inputs, self)

    def _task(self) -> BatchTask:
        psf, destination = self._inputs.psf, self._inputs.destination
        return BatchTask(
            methods=self._methods(),
            psf=psf.source("the PSF") if psf.layer else None,
            repair=self._inputs.repair.isChecked(),
            output=destination.format.settings(),
            execution=destination.execution.settings(),
        )

    def _study_inputs(self) -> tuple[LayerImage, Sequence[ChosenMethod]]:
        return self._inputs.psf.source("the PSF"), self._methods()

    def _open_batch(self) -> None:
        image, folder = self._inputs.image.layer, self._inputs.destination.folder.line.text()
        if image is not None and path_of(image).exists():
            self.batch.add(str(path_of(image)))
        if folder:
            self.batch.folder.suggest(Path(folder))
        _show(self.batch)


def _show(window: QDialog) -> None:
    window.show()
    window.raise_()
