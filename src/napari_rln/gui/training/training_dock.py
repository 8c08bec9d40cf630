"""The dock that trains a network for a PSF, and shows how it goes."""

from typing import TYPE_CHECKING, Any

from qtpy.QtWidgets import QHBoxLayout, QPushButton, QTabWidget, QVBoxLayout, QWidget

from napari_rln.core.errors import RlnError
from napari_rln.gui import preferences
from napari_rln.gui.copy_button import CopyButton
from napari_rln.gui.events import follow
from napari_rln.gui.jobs import Job, Jobs, Update
from napari_rln.gui.runbar import RunBar
from napari_rln.gui.scroll_area import Area
from napari_rln.gui.training.example_layers import Exhibits
from napari_rln.gui.training.interrupted import LeftOff, LeftOffRow, checkpoint_of
from napari_rln.gui.training.loss_curves import Curves
from napari_rln.gui.training.model_list import ModelList
from napari_rln.gui.training.pairs_page import PairPreview
from napari_rln.gui.training.training_form import Recipe
from napari_rln.gui.training.training_run import Course, News, Plan
from napari_rln.networks.model import Model

if TYPE_CHECKING:
    import napari


class TrainingDock(QWidget):
    """What to train, how it goes, and the models that there are."""

    def __init__(self, napari_viewer: "napari.viewer.Viewer") -> None:
        super().__init__()
        self._viewer = napari_viewer
        self.jobs = Jobs(self)
        self.courses: dict[Job, Course] = {}
        self.exhibits = Exhibits(napari_viewer, self)
        self.recipe = Recipe(napari_viewer)
        self.curves = Curves()
        self.bar = RunBar(self.jobs, self.run, label="Train", can_pause=True)
        self.models = ModelList(self.bar.say)
        self.pairs = PairPreview(self.recipe, self.exhibits, self.bar)
        self.left = LeftOffRow()
        self.stop_button = QPushButton("Stop and keep the best")
        self.copy_button = CopyButton(lambda: [self.recipe.run()], self.bar.attempt)
        self.tabs = QTabWidget()
        self._drawn: Job | None = None  # whose curves are shown
        self._lay_out()
        self._connect()
        self._show_theme()
        self._refresh()

    def run(self) -> None:
        """Queue the training that is chosen.

        Raises
        ------
        RlnError
            If it cannot be, or one of its name was left off.
        """
        plan = self.recipe.plan()
        leaving = self.courses.get(self.jobs.leaving) if self.jobs.leaving else None
        if leaving is not None and leaving.plan.name == plan.name:
            raise RlnError(f"the training {plan.name} is in its last step yet; wait a moment.")
        if checkpoint_of(preferences.library(), plan.name).exists() and not self._is_busy(plan):
            raise RlnError(
                f"a training called {plan.name} was left off; resume or discard it, or give "
                "another name."
            )
        self._add(plan)

    def stop(self) -> None:
        """Have the training that runs stop, and keep its best model."""
        course = self._running()
        if course is not None:
            course.stop()
            self.bar.say("stopping\N{HORIZONTAL ELLIPSIS}")
            self._refresh()

    def showEvent(self, event: Any) -> None:
        """Look again what there is: models and trainings may have come from elsewhere."""
        self._refresh()
        super().showEvent(event)

    def _add(self, plan: Plan) -> None:
        course = Course(plan, preferences.library())
        job = Job(f"RLN {plan.name}", course.steps, done=self._on_model)
        self.courses[job] = course
        try:
            self.jobs.add(job)
        except RlnError:
            del self.courses[job]
            raise
        self.tabs.setCurrentWidget(self.curves)

    def _resume(self, left: LeftOff) -> None:
        self.bar.attempt(lambda: self._add(self.recipe.plan_on(left)))

    def _running(self) -> Course | None:
        return self.courses.get(self.jobs.running) if self.jobs.running else None

    def _is_busy(self, plan: Plan) -> bool:
        return plan.name in [course.plan.name for course in self.courses.values()]

    def _on_report(self, job: Job, update: Update) -> None:
        news = update.content
        if not isinstance(news, News):
            return
        if job is not self._drawn:
            self._drawn = job
            self.curves.clear()
        report = news.report
        trains = report.phase == "train"
        self.curves.show_baseline(report.baseline)
        if trains:
            self.curves.add_losses(news.losses, report.total)
        if report.quality is not None:
            self.curves.add_quality(report.step if trains else 0, report.quality, report.best_step)
        if report.preview is not None:
            self.exhibits.show_preview(report.preview, news.voxel_um)

    def _on_model(self, model: Model) -> None:
        self.models.watch.look()
        self.models.select(model.name)

    def _on_success(self, job: Job, model: Model) -> None:
        said = f"model {model.name} is ready"
        found = model.record.facts.get("validation")
        if found:
            network, rld = (found[kind]["psnr_db"] for kind in ("network", "rld"))
            said += f": {network:.2f} dB on held-out volumes, RLD at its best {rld:.2f}"
        self.bar.say(f"{said}.")

    def _on_cancelled(self, job: Job) -> None:
        course = self.courses[job]
        if checkpoint_of(course.library, course.plan.name).exists():
            self.bar.say(f"{job.title}: cancelled; it was left off, and can be resumed")

    def _on_end(self, job: Job) -> None:
        if job is self._drawn:
            self._drawn = None
        self._refresh()

    def _refresh(self) -> None:
        """Show what can be stopped, gone on with and begun with."""
        # What was cancelled is under way until its last step is done: it may save its state yet.
        under_way = (self.jobs.running, self.jobs.leaving, *self.jobs.waiting)
        self.courses = {job: course for job, course in self.courses.items() if job in under_way}
        course = self._running()
        self.stop_button.setEnabled(course is not None and not course.stopping)
        if course is not None and course.stopping and self.jobs.paused:
            self.jobs.toggle_pause()  # a paused one does not see that it is to stop
        self.left.refresh([course.plan.name for course in self.courses.values()])
        self.recipe.refresh_models()

    def _show_theme(self) -> None:
        self.curves.show_theme(self._viewer.theme)

    def _connect(self) -> None:
        follow(self, self._viewer.events.theme, self._show_theme)
        self.jobs.changed.connect(self._refresh)
        self.jobs.reported.connect(self._on_report)
        self.jobs.succeeded.connect(self._on_success)
        self.jobs.cancelled.connect(self._on_cancelled)
        self.jobs.ended.connect(self._on_end)
        self.models.changed.connect(self.recipe.refresh_models)
        self.left.resumed.connect(self._resume)
        self.stop_button.clicked.connect(self.stop)

    def _lay_out(self) -> None:
        self.tabs.addTab(Area(self.recipe), "What to train")
        self.tabs.addTab(self.curves, "Progress")
        self.tabs.addTab(self.models, "Models")
        row = QHBoxLayout()
        row.addWidget(self.stop_button, 1)
        row.addWidget(self.copy_button)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(4, 4, 4, 4)
        layout.addWidget(self.tabs, 1)
        layout.addWidget(self.left)
        layout.addLayout(row)
        layout.addWidget(self.bar)
