"""The strip at the foot of a dock: run, pause, cancel, how far it is, and what went wrong."""

import time
from collections.abc import Callable

from qtpy.QtCore import Qt
from qtpy.QtWidgets import (
    QHBoxLayout,
    QLabel,
    QMessageBox,
    QProgressBar,
    QPushButton,
    QVBoxLayout,
    QWidget,
)

from napari_rln.core.errors import RlnError
from napari_rln.engine.progress import SEARCHING, Progress
from napari_rln.gui.field_errors import FieldError, point_at
from napari_rln.gui.forms import worded
from napari_rln.gui.jobs import BackgroundJob, Failure, JobQueue, Update
from napari_rln.gui.number import take_typed

_SPINNER = 5  # per cent of its speed, some pictures a second
_LEAST_S = 1.0  # of a phase, before the time that is left can be told


class RunBar(QWidget):
    """Buttons and progress of a dock's works.

    Parameters
    ----------
    jobs
        The works.
    run
        What the button does: adds jobs. What it raises as :class:`RlnError` is shown.
    label
        Of the button.
    can_pause
        Whether there is a button to pause.
    window
        Of which works it speaks, where several windows share them; see :class:`Job`.
    """

    def __init__(
        self,
        jobs: JobQueue,
        run: Callable[[], None],
        *,
        label: str = "Run",
        can_pause: bool = False,
        window: str = "",
    ) -> None:
        super().__init__()
        self._jobs, self._run, self._label, self._window = jobs, run, label, window
        self._details = ""
        self._failure = ""  # that is shown now
        self._phase, self._phase_began, self._phase_from = "", 0.0, 0
        self.run_button = QPushButton(label)
        self.pause_button = QPushButton("Pause")
        self.cancel_button = QPushButton("Cancel")
        self.bar = QProgressBar()
        self.bar.setTextVisible(False)
        self.bar.setMaximumHeight(10)
        self.message = QLabel()
        self.message.setWordWrap(True)
        self.message.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        self.warning = QLabel()
        self.warning.setWordWrap(True)
        self.warning.setVisible(False)
        self.details_button = QPushButton("Details")
        self.pause_button.setVisible(can_pause)
        self.details_button.setVisible(False)
        self._buttons = QHBoxLayout()
        for button in (self.run_button, self.pause_button, self.cancel_button):
            self._buttons.addWidget(button, 1)
        said = QHBoxLayout()
        said.addWidget(self.message, 1)
        said.addWidget(self.details_button, 0, Qt.AlignmentFlag.AlignTop)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addLayout(self._buttons)
        layout.addWidget(self.bar)
        layout.addLayout(said)
        layout.addWidget(self.warning)
        self.run_button.clicked.connect(self._on_run)
        self.pause_button.clicked.connect(jobs.toggle_pause)
        self.cancel_button.clicked.connect(self._on_cancel)
        self.details_button.clicked.connect(self._show_details)
        jobs.changed.connect(self._refresh)
        jobs.reported.connect(self._on_report)
        jobs.succeeded.connect(self._on_success)
        jobs.failed.connect(self.show_failure)
        jobs.cancelled.connect(self._on_cancelled)
        jobs.warned.connect(self._on_warning)
        self._refresh()

    def add_button(self, button: QWidget) -> None:
        """Put a button beside the others."""
        self._buttons.addWidget(button)

    def attempt(self, action: Callable[[], None], *, asked: bool = True) -> None:
        """Do something at once; a mistake of the user's is shown as a sentence.

        Parameters
        ----------
        action
            What to do.
        asked
            Whether the user has just asked for it: then the field of a mistake gets the focus.
        """
        if asked:
            take_typed(self.window())
        try:
            action()
        except RlnError as error:
            self.say(str(error), error=True)
            if asked and isinstance(error, FieldError):
                point_at(error.field)

    def say(self, sentence: str, *, error: bool = False) -> None:
        """Show a sentence; why a work failed, which it replaces, stays to be read below."""
        failure, self._failure = self._failure, ""
        if failure:
            self._warn(failure)
        sentence = worded(sentence)
        self.message.setText(f"{sentence[:1].upper()}{sentence[1:]}")
        self.message.setProperty("error", error)
        self.message.setStyleSheet("QLabel { color: #e0524c; }" if error else "")

    def _on_run(self) -> None:
        if self._jobs.running is None:
            self._failure = ""
            self.say("")
            self.warning.clear()
            self.warning.setVisible(False)
            self._details = ""
            self.details_button.setVisible(False)
        self.attempt(self._run)

    def _on_cancel(self) -> None:
        self.say("cancelling\N{HORIZONTAL ELLIPSIS}")
        self._jobs.cancel()

    def _refresh(self) -> None:
        running, waiting = self._jobs.running is not None, len(self._jobs.waiting)
        more = f" ({waiting} waiting)" if waiting else ""
        self.run_button.setText(f"Queue another{more}" if running else self._label)
        self.cancel_button.setEnabled(running or waiting > 0)
        self.pause_button.setEnabled(running)
        self.pause_button.setText("Resume" if self._jobs.paused else "Pause")
        if not running:
            self.bar.setRange(0, 1)
            self.bar.setValue(0)
            self._phase = ""
            if waiting and self._jobs.leaving:
                self.say("waiting until what was cancelled has ended its last step")
        elif not self._phase:
            self.bar.setRange(0, 0)
            calm_spinners(self.window())

    def _on_report(self, job: BackgroundJob, update: Update) -> None:
        if not update.due or job.window != self._window:
            return
        progress = update.progress
        if progress.activity != self._phase:
            self._phase, self._phase_from = progress.activity, progress.done
            self._phase_began = time.monotonic()
        self.bar.setRange(0, progress.total)
        self.bar.setValue(progress.done)
        count = f" {progress.done} of {progress.total}" if progress.total else ""
        left = self._seconds_left(progress)
        parts = [f"{job.title}: {progress.activity}{count}", progress.note]
        parts += [f"{duration(left)} left"] if left is not None else []
        self.say(", ".join(part for part in parts if part))

    def _seconds_left(self, progress: Progress) -> float | None:
        if progress.seconds_left is not None:
            return progress.seconds_left
        passed, done = time.monotonic() - self._phase_began, progress.done - self._phase_from
        # How long the search for the stop takes is not known: it ends when it has found it.
        if passed < _LEAST_S or done <= 0 or progress.activity == SEARCHING:
            return None
        return passed / done * (progress.total - progress.done)

    def _on_warning(self, job: BackgroundJob, sentence: str) -> None:
        if job.window == self._window:
            self._warn(f"{job.title}: {sentence}")

    def _warn(self, sentence: str) -> None:
        before = f"{self.warning.text()}\n" if self.warning.text() else ""
        self.warning.setText(f"{before}{worded(sentence)}")
        self.warning.setVisible(True)

    def _on_success(self, job: BackgroundJob, result: object) -> None:
        if job.window == self._window:
            self.say(f"{job.title}: done")

    def show_failure(self, job: BackgroundJob, failure: Failure) -> None:
        """Show why a work failed; it stays to be read until something is run anew."""
        if job.window != self._window:
            return
        self.say(f"{job.title}: {failure.sentence}", error=True)
        self._failure = self.message.text()
        self._details += f"{self._failure}\n\n{failure.details}\n"
        self.details_button.setVisible(True)

    def _on_cancelled(self, job: BackgroundJob) -> None:
        if job.window == self._window:
            self.say(f"{job.title}: cancelled{'; ' if job.kept else ''}{job.kept}")

    def _show_details(self) -> None:
        box = QMessageBox(self)
        box.setWindowTitle("Details")
        box.setText("\n".join(text for text in (self.warning.text(), self._failure) if text))
        box.setDetailedText(self._details)
        box.open()


def calm_spinners(window: QWidget) -> None:
    """Slow down what turns in a window while it computes, such as napari's sign of activity.

    Every picture of it has the whole window drawn again. Where no graphics card does that, it took
    40 % of two cores' time (``benchmarks/gui.py``).
    """
    for label in window.findChildren(QLabel):
        if label.movie() is not None:
            label.movie().setSpeed(_SPINNER)


def duration(seconds: float) -> str:
    """Return a duration as one says it."""
    if seconds < 1:
        return "less than 1 s"
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
