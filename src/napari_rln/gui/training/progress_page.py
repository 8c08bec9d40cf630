"""Page with the progress of a training: its phases, then its curves, and what can be done."""

from functools import cached_property

from napari.components import ViewerModel
from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import QHBoxLayout, QLabel, QPushButton, QVBoxLayout, QWidget

from napari_rln.gui.deferred import Deferred
from napari_rln.gui.layouts import fill
from napari_rln.gui.training.example_layers import ExampleLayers
from napari_rln.gui.training.loss_curves import Curves
from napari_rln.gui.training.phases import phases_text
from napari_rln.gui.training.training_run import TrainingRun, TrainingUpdate

_EMPTY = (
    "<p>No training yet. Choose the PSF and the image under <i>Settings</i>, then press "
    "<i>Train</i>.</p>"
)
_BACK_TIP = (
    "<p>Removes the pictures of the training, and shows your layers as before. The training goes "
    "on: press it to work with your image meanwhile.</p>"
)
_SHOW_TIP = (
    "<p>Shows the pictures of the training again. Press it to see what the network learns.</p>"
)
_LEGEND = (
    "In the viewer, a test volume, from the left: image, initial estimate, the network's present "
    "result, truth. Planes xy above, xz below."
)
_STOP_TIP = (
    "<p>Ends the training after the present step; the model is the best so far. Press it when the "
    "quality no longer rises.</p>"
)
_USE_TIP = "<p>Chooses the model among the methods of Deconvolve. Press it to apply the model.</p>"


class ProgressPage(QWidget):
    """The phases of a training before its first step, its curves from then on, and buttons."""

    use_requested = Signal(str)  # name of the model
    stop_requested = Signal()

    def __init__(self, viewer: ViewerModel, examples: ExampleLayers) -> None:
        super().__init__()
        self._examples = examples
        self._run: TrainingRun | None = None
        self._update: TrainingUpdate | None = None  # the last one with a preview
        self._has_step = False  # so that there is a model
        self.model = ""  # of the ended training
        self._viewer = viewer
        self.phases, self._place = QLabel(_EMPTY, wordWrap=True), Deferred(lambda: self.curves)
        self.phases.setAlignment(Qt.AlignmentFlag.AlignTop)
        self.legend = QLabel(_LEGEND, wordWrap=True)
        self.view_button = QPushButton("Back to my image", toolTip=_BACK_TIP)
        self.show_button = QPushButton("Show in the viewer", toolTip=_SHOW_TIP)
        self.stop_button = QPushButton("Stop and keep the best", toolTip=_STOP_TIP)
        self.use_button = QPushButton("Use this model", toolTip=_USE_TIP)
        buttons = fill(QHBoxLayout(), self.view_button, self.show_button, self.stop_button)
        parts = (self.legend, self.use_button, buttons)
        fill(QVBoxLayout(self), (self.phases, 1), (self._place, 1), *parts, margin=4)
        self.view_button.clicked.connect(examples.back)
        self.show_button.clicked.connect(self._show)
        self.stop_button.clicked.connect(self.stop_requested)
        self.use_button.clicked.connect(lambda: self.use_requested.emit(self.model))
        examples.changed.connect(self.refresh)
        self._show_curves(False)
        self.refresh()

    @cached_property
    def curves(self) -> Curves:
        """The curves of quality and loss."""
        return Curves(self._viewer)

    def begin(self, run: TrainingRun) -> None:
        """Show the progress of a training from now on."""
        self._run, self._update, self._has_step, self.model = run, None, False, ""
        self._examples.following = True
        self.curves.clear()
        self.phases.setText(phases_text(None))
        self._show_curves(False)
        self.refresh()

    def show_update(self, update: TrainingUpdate) -> None:
        """Show an update of the training."""
        report = update.report
        is_training = report.phase == "train"
        self.curves.show_baseline(report.baseline)
        if is_training:
            self.curves.add_losses(update.losses, report.total)
        if report.quality is not None:
            self.curves.add_quality(
                report.step if is_training else 0, report.quality, report.best_step
            )
        self.phases.setText(phases_text(report))
        if update.preview is not None:
            self._update = update
            self._examples.show_preview(update.preview, update.voxel_um)
        if is_training is not self._has_step:
            self._has_step = is_training
            self._show_curves(True)
        self.refresh()

    def end(self, model: str = "") -> None:
        """Show that the training ended, with a model or without."""
        self._run, self._update, self.model = None, None, model
        if not model and not self._has_step:
            self.phases.setText(_EMPTY)
        self._examples.leave()

    def refresh(self) -> None:
        """Show the buttons that can be used now."""
        run, shown = self._run, self._examples.has_planes
        if run is not None:
            run.previewing = self._examples.following
        self.legend.setVisible(shown)
        self.view_button.setVisible(shown)
        self.show_button.setVisible(run is not None and self._update is not None and not shown)
        self.stop_button.setVisible(run is not None and self._has_step)
        self.stop_button.setEnabled(run is not None and not run.stopping)
        self.use_button.setVisible(bool(self.model))

    def _show(self) -> None:
        self._examples.leave()  # a pair
        self._examples.following = True
        if self._update is not None and self._update.preview is not None:
            self._examples.show_preview(self._update.preview, self._update.voxel_um)
        self.refresh()

    def _show_curves(self, on: bool) -> None:
        self._place.setVisible(on)
        self.phases.setVisible(not on)
