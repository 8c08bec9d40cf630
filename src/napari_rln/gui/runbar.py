"""Bar at the bottom of a dock: run, pause and cancel buttons, progress and messages."""

import re
import time
from collections.abc import Callable, Collection

import napari
from qtpy.QtCore import QCoreApplication, QEvent, Qt
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
from napari_rln.core.report import duration
from napari_rln.engine.progress import SEARCHING, Progress
from napari_rln.gui.field_errors import FieldError, show_field
from napari_rln.gui.forms import with_labels
from napari_rln.gui.jobs import BackgroundJob, Failure, JobQueue, Update
from napari_rln.gui.layouts import fill
from napari_rln.gui.number import commit_number
from napari_rln.gui.steady_time import SteadyTime
from napari_rln.gui.theme import ERROR

_ELLIPSIS = "\N{HORIZONTAL ELLIPSIS}"
_WORD = re.compile(r"[a-z]+(?=[\s,;:]|$)")  # unlike the name of a file
_MIN_PHASE_S = 1.0  # time in a phase before the time left is estimated


class RunBar(QWidget):
    """Buttons and progress of a dock's jobs, or of those of one ``window``.

    It shows those of ``others`` too, windows that the user may close. The button with the ``label``
    calls ``run``, which adds jobs; its :class:`RlnError` is shown.
    """

    def __init__(
        self,
        jobs: JobQueue,
        run: Callable[[], None],
        *,
        label: str = "Run",
        can_pause: bool = False,
        window: str = "",
        others: Collection[str] = (),
    ) -> None:
        super().__init__()
        self._jobs, self._run, self._label = jobs, run, label
        self._windows = {window, *others}
        self._can_pause = can_pause
        self._details = ""
        self._failure = ""  # the failure that the message shows
        self._is_refusal = False  # whether the message says why an action was not done
        self._phase, self._phase_began, self._phase_from = "", 0.0, 0
        self._left = SteadyTime()
        self._is_pausing = self._was_paused = False
        self._reached = ""  # by the running job, as text
        self.run_button = QPushButton(label)
        self.pause_button = QPushButton("Pause")
        self.cancel_button = QPushButton("Cancel")
        self.bar = QProgressBar(textVisible=False, maximumHeight=10)
        selectable = Qt.TextInteractionFlag.TextSelectableByMouse
        self.message = QLabel(wordWrap=True, textInteractionFlags=selectable)
        self.warning, self.details_button = QLabel(wordWrap=True), QPushButton("Details")
        self._hide_details()
        buttons = (self.run_button, self.pause_button, self.cancel_button)
        self._buttons = fill(QHBoxLayout(), *((button, 1) for button in buttons))
        details = (self.details_button, 0, Qt.AlignmentFlag.AlignTop)
        row = fill(QHBoxLayout(), (self.message, 1), details)
        fill(QVBoxLayout(self), self._buttons, self.bar, row, self.warning, margin=0)
        self.run_button.clicked.connect(self._on_run)
        self.pause_button.clicked.connect(self._on_pause)
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
        """Add a button to the right of the others."""
        self._buttons.addWidget(button)

    def attempt(self, action: Callable[[], None], *, clicked: bool = True) -> None:
        """Call a function, and show its :class:`RlnError`.

        The field of the error gets the focus, if the user has ``clicked`` for the action.
        """
        if clicked:
            commit_number(self.window())
            self.forget()
        try:
            action()
        except RlnError as error:
            self.show_message(str(error), error=True)
            self._is_refusal = True
            if clicked and isinstance(error, FieldError):
                show_field(error.field)

    def show_message(self, text: str, *, error: bool = False) -> None:
        """Show a message; the failure of a job that it replaces moves to the warnings below."""
        self._show(as_sentence(with_labels(text)), error)

    def _show_of(self, job: BackgroundJob, text: str, *, error: bool = False) -> None:
        """Show a message on a job."""
        message = with_labels(f"{job.title}: {text}")
        self._show(message if job.is_named else as_sentence(message), error)

    def _show(self, text: str, error: bool) -> None:
        failure, self._failure, self._is_refusal = self._failure, "", False
        if failure:
            self._warn(failure)
        self.message.setText(text)
        style = f"QLabel {{ color: {ERROR}; }}" if error else ""
        self.message.setProperty("error", error)
        if self.message.styleSheet() != style:
            self.message.setStyleSheet(style)
        # Now, and not after the text has been drawn at the old place.
        QCoreApplication.sendPostedEvents(None, QEvent.Type.LayoutRequest)

    def _on_run(self) -> None:
        self.attempt(self._run)

    def forget_refusal(self) -> None:
        """Remove the reason why an action was not done, once the user has changed something."""
        if self._is_refusal:
            self.show_message("")

    def forget(self) -> None:
        """Remove the messages of earlier jobs, unless one runs."""
        if self._jobs.running is not None:
            return
        self._failure = self._details = ""
        self.show_message("")
        self.warning.clear()
        self._hide_details()

    def _hide_details(self) -> None:
        self.warning.setVisible(False)
        self.details_button.setVisible(False)

    def _on_cancel(self) -> None:
        self.show_message(f"cancelling{_ELLIPSIS}")
        self._jobs.cancel()

    def _on_pause(self) -> None:
        self._is_pausing = not self._jobs.paused
        self._jobs.toggle_pause()
        self._refresh()
        if self._is_pausing and self._jobs.running is not None:
            self._show_of(self._jobs.running, f"pausing after this step{_ELLIPSIS}")

    def _show_pause(self) -> None:
        """Say once that the running job is paused, and that it goes on."""
        job, paused = self._jobs.running, self._jobs.paused
        self._is_pausing &= job is not None and not paused
        self.pause_button.setEnabled(not self._is_pausing)
        self.pause_button.setText("Resume" if paused else "Pause")
        changed, self._was_paused = paused is not self._was_paused, paused
        if job is None or not changed:
            return
        at = f" ({self._reached})" if self._reached else ""
        note = f"paused{at}, nothing is computed. Press Resume to go on."
        self._show_of(job, note if paused else self._reached or "goes on")

    def _refresh(self) -> None:
        running, waiting = self._jobs.running is not None, len(self._jobs.waiting)
        more = f" ({waiting} waiting)" if waiting else ""
        self.run_button.setText(f"Queue another{more}" if running else self._label)
        for widget in (self.cancel_button, self.bar):
            widget.setVisible(running or waiting > 0)
        self.pause_button.setVisible(self._can_pause and running)
        self._show_pause()
        if not running:
            self._show_count(0, 0)
            self._phase = self._reached = ""
            if waiting and self._jobs.cancelling:
                self.show_message("waiting for the last step of the cancelled job")
        elif not self._phase:
            assert self._jobs.running is not None
            if self._jobs.running.window in self._windows:
                self._show_of(self._jobs.running, "starting")
            elif any(job.window in self._windows for job in self._jobs.waiting):
                self.show_message(f"waiting for {self._jobs.running.title}")
            self._show_count(0, 0)

    def _on_report(self, job: BackgroundJob, update: Update) -> None:
        if not update.due or job.window not in self._windows:
            return
        progress = update.progress
        if progress.activity != self._phase:
            self._phase, self._phase_from = progress.activity, progress.done
            self._phase_began = time.monotonic()
            self._left = SteadyTime()
        self._show_count(progress.done, progress.total)
        count = f" {progress.done} of {progress.total}" if progress.total else ""
        self._reached = f"{progress.activity}{count}"
        if self._is_pausing:  # which it does after this step
            return
        left = self._seconds_left(progress)
        parts = [self._reached, progress.note]
        parts += [f"{duration(left)} left"] if left is not None else []
        self._show_of(job, ", ".join(part for part in parts if part))

    def _show_count(self, done: int, total: int) -> None:
        """Show a count, or an empty bar without a total.

        Qt would animate a bar without a total, and redraw the whole window 30 times a second.
        """
        self.bar.setUpdatesEnabled(False)  # each call would redraw the whole window at once
        self.bar.setRange(0, max(1, total))
        self.bar.setValue(done if total else 0)
        self.bar.setUpdatesEnabled(True)

    def _seconds_left(self, progress: Progress) -> float | None:
        if progress.seconds_left is not None:
            return progress.seconds_left
        passed, done = time.monotonic() - self._phase_began, progress.done - self._phase_from
        # The search for the number of iterations may end at any of them.
        if passed < _MIN_PHASE_S or done <= 0 or progress.activity == SEARCHING:
            return None
        estimate = passed / done * (progress.total - progress.done)
        return self._left.update(estimate, time.monotonic())

    def _on_warning(self, job: BackgroundJob, text: str) -> None:
        if job.window in self._windows:
            name, _, rest = text.partition(": ")
            named_twice = rest and job.title.startswith(f"{name} ")
            self._warn(f"{job.title}: {rest if named_twice else text}")

    def _warn(self, text: str) -> None:
        before = f"{self.warning.text()}\n" if self.warning.text() else ""
        self.warning.setText(f"{before}{with_labels(text)}")
        self.warning.setVisible(True)

    def _on_success(self, job: BackgroundJob, result: object) -> None:
        if job.window in self._windows:
            if job.end_note is None:
                self._show_of(job, "done")
            else:
                self.show_message(job.end_note)

    def show_failure(self, job: BackgroundJob, failure: Failure) -> None:
        """Show why a job failed, until the next run."""
        if job.window not in self._windows:
            return
        self._show_of(job, failure.message, error=True)
        self._failure = self.message.text()
        self._details += f"{self._failure}\n\n{failure.details}\n"
        self.details_button.setVisible(True)

    def _on_cancelled(self, job: BackgroundJob) -> None:
        if job.window in self._windows:
            note = f"; {job.cancel_note}" if job.cancel_note else ""
            self._show_of(job, f"cancelled{note}")

    def _show_details(self) -> None:
        box = QMessageBox(self)
        box.setWindowTitle("Details")
        box.setText("\n".join(text for text in (self.warning.text(), self._failure) if text))
        box.setDetailedText(self._details)
        box.open()


def as_sentence(text: str) -> str:
    """Return a message with a capital at the start, unless it begins with a name."""
    viewer = napari.current_viewer()
    names = [layer.name for layer in viewer.layers] if viewer is not None else []
    if not _WORD.match(text) or any(text.startswith(name) for name in names):
        return text
    return f"{text[:1].upper()}{text[1:]}"
