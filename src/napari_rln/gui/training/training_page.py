"""The dock that trains networks for a PSF."""

from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QEvent, Signal
from qtpy.QtWidgets import QTabWidget, QVBoxLayout, QWidget

from napari_rln.core.errors import RlnError
from napari_rln.gui import preferences
from napari_rln.gui.copy_button import CopyButton
from napari_rln.gui.help_button import HelpButton
from napari_rln.gui.jobs import BackgroundJob, JobQueue, Update
from napari_rln.gui.layouts import PAGE_MARGIN, ScrollArea, fill
from napari_rln.gui.runbar import RunBar
from napari_rln.gui.training.example_layers import ExampleLayers, PairPreview
from napari_rln.gui.training.interrupted import InterruptedRow, InterruptedTraining, checkpoint_of
from napari_rln.gui.training.model_list import ModelList
from napari_rln.gui.training.progress_page import ProgressPage
from napari_rln.gui.training.psf_from_file import PsfFromFile
from napari_rln.gui.training.training_form import TrainingForm
from napari_rln.gui.training.training_run import TrainingPlan, TrainingRun, TrainingUpdate
from napari_rln.networks.model import Model

if TYPE_CHECKING:
    import napari


class TrainingPage(QWidget):
    """Settings of a training, its progress, and the models."""

    use_requested = Signal(str)  # name of the model to deconvolve with

    def __init__(self, napari_viewer: "napari.viewer.Viewer") -> None:
        super().__init__()
        self.jobs = JobQueue(self)
        self.runs: dict[BackgroundJob, TrainingRun] = {}
        self.examples = ExampleLayers(napari_viewer, self)
        self.form = TrainingForm(napari_viewer)
        self.page = ProgressPage(napari_viewer, self.examples)
        self.bar = RunBar(self.jobs, self.run, label="Train", can_pause=True)
        self.models = ModelList(self.bar.show_message)
        self.pairs = PairPreview(self.form, self.examples, self.bar)
        self.from_file = PsfFromFile(napari_viewer, self.form, self.bar)
        self.interrupted = InterruptedRow()
        self.copy_button = CopyButton(lambda: [self.form.run()], self.bar)
        self.tabs = QTabWidget()
        self._drawn: BackgroundJob | None = None  # training on the page
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

    def event(self, event: Any) -> bool:
        """Restore the user's view when the dock is closed, which napari does by its parent."""
        if event.type() == QEvent.Type.ParentChange and self.parent() is None:
            self.examples.leave()
        return bool(super().event(event))

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
        self._begin()
        self.tabs.setCurrentWidget(self.page)

    def _resume(self, training: InterruptedTraining) -> None:
        self.bar.attempt(lambda: self._add(self.form.resumed_plan(training)))

    def _run_of(self, job: BackgroundJob | None) -> TrainingRun | None:
        return self.runs.get(job) if job else None

    def _names(self) -> list[str]:
        return [run.plan.name for run in self.runs.values()]

    def _begin(self) -> None:
        """Show the running training on the page."""
        job = self.jobs.running
        if job is not None and job is not self._drawn:
            self._drawn = job
            self.page.begin(self.runs[job])

    def _on_report(self, job: BackgroundJob, update: Update) -> None:
        self._begin()
        if isinstance(update.content, TrainingUpdate):
            self.page.show_update(update.content)

    def _on_model(self, model: Model) -> None:
        self.models.library_watcher.check()
        self.models.select(model.name)

    def _on_success(self, job: BackgroundJob, model: Model) -> None:
        self.page.end(model.name)
        self.bar.show_message(_end_message(model))

    def _use(self, name: str) -> None:
        self.bar.show_message(f"{name} is one of the methods of Deconvolve; run it there.")
        self.use_requested.emit(name)

    def _on_cancelled(self, job: BackgroundJob) -> None:
        run = self.runs[job]
        if checkpoint_of(run.library, run.plan.name).exists():
            self.bar.show_message(
                f"{job.title}: cancelled; its steps are kept. Press Resume below to go on, or "
                "Discard."
            )

    def _on_end(self, job: BackgroundJob) -> None:
        if job is self._drawn:
            self._drawn = None
            self.page.end(self.page.model)
            self.form.show_time()  # now measured
        self._refresh()

    def _refresh(self) -> None:
        """Update the stop button, the interrupted trainings and the initial models."""
        # A cancelled training may still save its state in its last step.
        active = (self.jobs.running, self.jobs.cancelling, *self.jobs.waiting)
        self.runs = {job: run for job, run in self.runs.items() if job in active}
        run = self._run_of(self.jobs.running)
        self.page.refresh()
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
        for picker in (self.form.psf, self.form.image):
            picker.changed.connect(self.bar.forget)
        self.form.training.changed.connect(self.bar.forget_refusal)
        self.interrupted.resumed.connect(self._resume)
        self.page.stop_requested.connect(self.stop)
        for part in (self.page, self.models):
            part.use_requested.connect(self._use)

    def _lay_out(self) -> None:
        self.tabs.addTab(ScrollArea(self.form), "Settings")
        self.tabs.addTab(self.page, "Progress")
        self.tabs.addTab(self.models, "Models")
        self.tabs.setCornerWidget(HelpButton("napari", "train-a-network-for-your-microscope"))
        self.bar.add_button(self.copy_button)
        fill(QVBoxLayout(self), (self.tabs, 1), self.interrupted, self.bar, margin=PAGE_MARGIN)


def _end_message(model: Model) -> str:
    """Return that a model is ready, how good it is, and what to do with it."""
    facts = model.record.facts
    validation = facts.get("validation")
    quality = ""
    if validation:
        quality = f": {validation['network']['psnr_db']:.1f} dB on test volumes it has not seen"
        if "rld" in validation:
            quality += f"; the best RLD reaches {validation['rld']['psnr_db']:.1f} dB"
    message = f"model {model.name} is ready{quality}. "
    if validation and facts["best_step"] == 0:
        message += "No step of the training was better on them than the initial model. "
    return f"{message}Press Use this model to deconvolve with it."
