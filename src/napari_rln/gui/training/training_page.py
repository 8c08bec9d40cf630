"""The dock that trains networks for a PSF."""

from typing import TYPE_CHECKING, Any

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QHBoxLayout, QPushButton, QTabWidget, QVBoxLayout, QWidget

from napari_rln.core.errors import RlnError
from napari_rln.gui import preferences
from napari_rln.gui.copy_button import CopyButton
from napari_rln.gui.jobs import BackgroundJob, JobQueue, Update
from napari_rln.gui.layouts import ScrollArea, fill
from napari_rln.gui.runbar import RunBar
from napari_rln.gui.training.example_layers import ExampleLayers, PairPreview
from napari_rln.gui.training.interrupted import InterruptedRow, InterruptedTraining, checkpoint_of
from napari_rln.gui.training.loss_curves import Curves
from napari_rln.gui.training.model_list import ModelList
from napari_rln.gui.training.training_form import TrainingForm
from napari_rln.gui.training.training_run import TrainingPlan, TrainingRun, TrainingUpdate
from napari_rln.networks.model import Model

if TYPE_CHECKING:
    import napari


class TrainingPage(QWidget):
    """Settings of a training, its progress, and the models."""

    use_requested = Signal(str)  # name of a model

    def __init__(self, napari_viewer: "napari.viewer.Viewer") -> None:
        super().__init__()
        self.jobs = JobQueue(self)
        self.runs: dict[BackgroundJob, TrainingRun] = {}
        self.examples = ExampleLayers(napari_viewer, self)
        self.form = TrainingForm(napari_viewer)
        self.curves = Curves(napari_viewer)
        self.bar = RunBar(self.jobs, self.run, label="Train", can_pause=True)
        self.models = ModelList(self.bar.show_message)
        self.pairs = PairPreview(self.form, self.examples, self.bar)
        self.interrupted = InterruptedRow()
        self.stop_button = QPushButton("Stop and keep the best")
        self.copy_button = CopyButton(lambda: [self.form.run()], self.bar.attempt)
        self.tabs = QTabWidget()
        self._drawn: BackgroundJob | None = None  # training in the plots
        self._lay_out()
        self._connect()
        self._refresh()

    def run(self) -> None:
        """Queue the chosen training.

        Raises :class:`RlnError` if a setting is invalid, or a training of this name was
        interrupted.
        """
        plan = self.form.plan()
        cancelling = self._run_of(self.jobs.cancelling)
        if cancelling is not None and cancelling.plan.name == plan.name:
            raise RlnError(f"the training {plan.name} is still in its last step; try again soon.")
        busy = plan.name in self._names()
        if checkpoint_of(preferences.library(), plan.name).exists() and not busy:
            raise RlnError(
                f"a training named {plan.name} was interrupted; resume or discard it, or choose "
                "another name."
            )
        self._add(plan)

    def stop(self) -> None:
        """Stop the running training, and keep its best model."""
        run = self._run_of(self.jobs.running)
        if run is not None:
            run.stop()
            self.bar.show_message("stopping\N{HORIZONTAL ELLIPSIS}")
            self._refresh()

    def showEvent(self, event: Any) -> None:
        """Update the lists of models and of interrupted trainings."""
        self._refresh()
        super().showEvent(event)

    def _add(self, plan: TrainingPlan) -> None:
        run = TrainingRun(plan, preferences.library())
        job = BackgroundJob(f"Training {plan.name}", run.steps, done=self._on_model)
        self.runs[job] = run
        try:
            self.jobs.add(job)
        except RlnError:
            del self.runs[job]
            raise
        self.tabs.setCurrentWidget(self.curves)

    def _resume(self, training: InterruptedTraining) -> None:
        self.bar.attempt(lambda: self._add(self.form.resumed_plan(training)))

    def _run_of(self, job: BackgroundJob | None) -> TrainingRun | None:
        return self.runs.get(job) if job else None

    def _names(self) -> list[str]:
        return [run.plan.name for run in self.runs.values()]

    def _on_report(self, job: BackgroundJob, update: Update) -> None:
        content = update.content
        if not isinstance(content, TrainingUpdate):
            return
        if job is not self._drawn:
            self._drawn = job
            self.curves.clear()
        report = content.report
        is_training = report.phase == "train"
        self.curves.show_baseline(report.baseline)
        if is_training:
            self.curves.add_losses(content.losses, report.total)
        if report.quality is not None:
            step = report.step if is_training else 0
            self.curves.add_quality(step, report.quality, report.best_step)
        if report.preview is not None:
            self.examples.show_preview(report.preview, content.voxel_um)

    def _on_model(self, model: Model) -> None:
        self.models.library_watcher.check()
        self.models.select(model.name)

    def _on_success(self, job: BackgroundJob, model: Model) -> None:
        message = f"model {model.name} is ready"
        validation = model.record.facts.get("validation")
        if validation:
            network, rld = (validation[kind]["psnr_db"] for kind in ("network", "rld"))
            message += f": {network:.2f} dB on held-out volumes, best RLD {rld:.2f} dB"
        self.bar.show_message(f"{message}.")

    def _on_cancelled(self, job: BackgroundJob) -> None:
        run = self.runs[job]
        if checkpoint_of(run.library, run.plan.name).exists():
            self.bar.show_message(f"{job.title}: cancelled; it can be resumed")

    def _on_end(self, job: BackgroundJob) -> None:
        if job is self._drawn:
            self._drawn = None
        self._refresh()

    def _refresh(self) -> None:
        """Update the stop button, the interrupted trainings and the initial models."""
        # A cancelled training may still save its state in its last step.
        active = (self.jobs.running, self.jobs.cancelling, *self.jobs.waiting)
        self.runs = {job: run for job, run in self.runs.items() if job in active}
        run = self._run_of(self.jobs.running)
        self.stop_button.setEnabled(run is not None and not run.stopping)
        if run is not None and run.stopping and self.jobs.paused:
            self.jobs.toggle_pause()  # else it would not stop
        self.interrupted.refresh(self._names())
        self.form.refresh_models()

    def _connect(self) -> None:
        self.jobs.changed.connect(self._refresh)
        self.jobs.reported.connect(self._on_report)
        self.jobs.succeeded.connect(self._on_success)
        self.jobs.cancelled.connect(self._on_cancelled)
        self.jobs.ended.connect(self._on_end)
        self.models.changed.connect(self.form.refresh_models)
        self.interrupted.resumed.connect(self._resume)
        self.stop_button.clicked.connect(self.stop)

    def _lay_out(self) -> None:
        self.tabs.addTab(ScrollArea(self.form), "Settings")
        self.tabs.addTab(self.curves, "Progress")
        self.tabs.addTab(self.models, "Models")
        buttons = fill(QHBoxLayout(), (self.stop_button, 1), self.copy_button)
        fill(QVBoxLayout(self), (self.tabs, 1), self.interrupted, buttons, self.bar, margin=4)
