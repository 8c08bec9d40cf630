"""Background jobs of a dock: one runs in a thread, the others wait; every error is reported.

A job is a generator of the core. It can be paused and cancelled between two of its yields.
"""

import contextlib
import time
import traceback
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any, TypeVar

from napari.qt.threading import create_worker
from napari.utils.notifications import show_warning
from qtpy.QtCore import QEvent, QObject, QTimer, Signal
from superqt.utils import GeneratorWorker

from napari_rln.core.errors import ComputeError, RlnError, RlnWarning, capture_warnings
from napari_rln.core.generators import interruptible, relay
from napari_rln.core.memory import release_freed_memory
from napari_rln.engine.progress import AnyReport, Progress, progress_of
from napari_rln.gui.preferences import set_threads

_DISPLAY_FRACTION = 0.02  # of the time, at most, the window's thread spends on display
_LONGEST_WAIT_S = 5.0  # between two pictures, however slow the display is
_TEXT_S = 2.0  # between two texts without a picture
_RELEASE_MS = 600  # time that a cancelled job has for its step before it ends for the user

R = TypeVar("R", bound=AnyReport)
T = TypeVar("T")


@dataclass(eq=False)
class Update:
    """Progress of a job, and data to display."""

    progress: Progress
    content: Any = None
    due: bool = True  # false if too soon after the last one to be drawn, but not to be lost
    display_seconds: float | None = None  # set by the GUI thread afterwards


Steps = Generator[Update | None, None, T]
"""Generator of updates; it yields None where there is nothing new but it may be cancelled."""


@dataclass(frozen=True, eq=False)
class BackgroundJob:
    """Long computation; of jobs with equal title and key, one at most runs or waits."""

    title: str
    steps: Callable[[], Steps[Any]]  # called in the thread
    key: Any = None
    done: Callable[[Any], None] = lambda result: None  # called with the result
    stopped: Callable[[str], None] = lambda reason: None  # called with "failed" or "cancelled"
    cancel_note: str = ""  # for the user after cancelling, such as what is kept
    end_note: str | None = None  # for the user at the end, none if it is plain; by default "done"
    is_named: bool = False  # whether the title begins with a layer's name, which stays as it is
    window: str = ""  # that shows its progress, where several share a queue


@dataclass(frozen=True, kw_only=True)
class Failure:
    """Error of a job: the message, and the traceback."""

    message: str
    details: str


def streamed(
    steps: Generator[R, None, T],
    content: Callable[[R], Any] = lambda report: None,
    *,
    every_s: float = 1.0,
    always: Callable[[R], bool] = lambda report: False,
) -> Steps[T]:
    """Yield the reports of a generator as updates, as often as the window can show them.

    Display takes a small fraction of the time only, and no update is made before the last one was
    drawn: a slow display does not slow down the computation.

    There are ``every_s`` seconds at least between two updates. ``content`` returns the data to
    display for a report; it is called in the thread, before the next step. A report that is not to
    be lost is ``always`` an update.
    """
    previous: Update | None = None
    shown_at = said_at = 0.0
    pictures = 0

    def wait_s(display_seconds: float) -> float:
        # The first picture takes longer, as its layer is added.
        seconds = display_seconds if pictures > 1 else 0.0
        return max(every_s, min(seconds / _DISPLAY_FRACTION, _LONGEST_WAIT_S))

    def convert(report: R) -> Update | None:
        nonlocal previous, shown_at, said_at, pictures
        progress, now = progress_of(report), time.monotonic()
        ends = (
            previous is None
            or progress.done == progress.total
            or progress.activity != previous.progress.activity
        )
        seconds = previous.display_seconds if previous else None
        due = ends or (seconds is not None and now - shown_at >= wait_s(seconds))
        if due:
            previous = Update(progress, content(report), due)
            pictures += previous.content is not None
            shown_at = said_at = now
            return previous
        if always(report):
            return Update(progress, content(report), due)
        if now - said_at >= max(every_s, _TEXT_S):
            said_at = now
            return Update(progress)  # without a picture
        return None

    return relay(steps, convert)


def guarded(make: Callable[[], Steps[Any]]) -> Steps[Any]:
    """Yield the updates of a job; return its result, or a :class:`Failure`.

    Nothing is raised: superqt takes a RuntimeError, which is what torch raises, for the deletion
    of the worker, and drops it.
    """
    set_threads()
    try:
        result = yield from make()
    except (RlnError, ComputeError) as error:
        return Failure(message=str(error), details=traceback.format_exc())
    except Exception as error:
        message = f"unexpected error: {type(error).__name__}: {error}"
        return Failure(message=message, details=traceback.format_exc())
    return result


class _Worker(GeneratorWorker):
    """Worker that closes its generator in the thread, as this may take a while.

    superqt leaves that to the thread that drops the last reference to the worker: napari's.
    """

    def run(self) -> None:
        """Run in the thread."""
        # Errors of the job are reported by signals; this one means that napari has closed and
        # deleted them.
        with contextlib.suppress(RuntimeError):
            super().run()

    def work(self) -> Any:
        """Run the generator until it ends or is cancelled."""
        with capture_warnings(lambda message: self.warned.emit((message, RlnWarning))):
            try:
                return super().work()
            finally:
                self._gen.close()
                release_freed_memory()


class JobQueue(QObject):
    """Jobs of a dock: one runs, the others wait for it.

    A cancelled job ends at once for the user. If it is in a long step, that goes on in the thread
    without display, and the next job waits for it. When the dock is removed from its window, all
    jobs are cancelled, as nobody could cancel them any more, and the dock is deleted.
    """

    changed = Signal()
    reported = Signal(object, object)  # job, update
    succeeded = Signal(object, object)  # job, result
    failed = Signal(object, object)  # job, failure
    cancelled = Signal(object)
    ended = Signal(object)  # after any of these three
    warned = Signal(object, str)

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self.running: BackgroundJob | None = None
        self.cancelling: BackgroundJob | None = None  # while its last step still runs
        self.waiting: list[BackgroundJob] = []
        self.paused = False  # the running job
        self._worker: GeneratorWorker | None = None
        self._returned = False
        self._closed = False  # whether the dock was removed from its window
        self._release_timer = QTimer(self, singleShot=True, interval=_RELEASE_MS)
        self._release_timer.timeout.connect(self._release)
        if parent is not None:
            parent.installEventFilter(self)

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        """Cancel all jobs when the dock loses its parent, which is how napari closes it."""
        if event.type() == QEvent.Type.ParentChange:
            self._closed = watched.parent() is None
            if self._closed:
                self.cancel()
                self._delete_closed()
        return False

    def _delete_closed(self) -> None:
        """Delete a closed dock once nothing runs.

        Its signals are connected to functions that refer to it, which Python's garbage collector
        does not see.
        """
        if self._closed and self._worker is None:
            self.parent().deleteLater()

    def add(self, *jobs: BackgroundJob) -> None:
        """Add jobs to the end; raise a :class:`RlnError` if an equal one runs or waits already."""
        for job in jobs:
            if self.is_under_way(job):
                raise RlnError(f"{job.title} is under way already; cancel it to run it again.")
        if self._closed:  # the end of one job adds another, which nobody would see
            return
        self.waiting += jobs
        self._next()

    def is_under_way(self, job: BackgroundJob) -> bool:
        """Return whether an equal job runs or waits."""
        others = (other for other in (self.running, *self.waiting) if other)
        return any((other.title, other.key) == (job.title, job.key) for other in others)

    def cancel(self) -> None:
        """Cancel the running job, and remove the waiting ones."""
        removed, self.waiting = self.waiting, []
        if self.running is not None and self._worker is not None:
            self._worker.quit()
            self._release_timer.start()
        for job in removed:
            self._notify_cancelled(job)
            self.ended.emit(job)
        self.changed.emit()

    def toggle_pause(self) -> None:
        """Pause the running job at its next step, or resume it."""
        if self._worker is not None:
            self._worker.toggle_pause()

    def _next(self) -> None:
        if self._worker is None and self.waiting:
            self.running = self.waiting.pop(0)
            self._returned = False
            # Not in napari's activity dock, which redraws the whole window within each call.
            worker = create_worker(
                guarded, self.running.steps, _worker_class=_Worker, _start_thread=False
            )
            worker.yielded.connect(self._on_yield)
            worker.returned.connect(self._on_return)
            worker.warned.connect(self._on_warning)
            worker.paused.connect(self._on_pause)
            worker.resumed.connect(self._on_resume)
            worker.finished.connect(self._on_finish)
            self.destroyed.connect(worker.quit)
            self._worker = worker
            worker.start()
        self.changed.emit()

    def _on_yield(self, update: Update | None) -> None:
        # After cancelling nothing more is shown, not even an update that was already sent.
        if update is None or self._worker is None or self._worker.abort_requested:
            return
        began = time.monotonic()
        self.reported.emit(self.running, update)

        def displayed() -> None:
            update.display_seconds = time.monotonic() - began

        QTimer.singleShot(0, displayed)  # after drawing, which Qt does when it is idle

    def _on_return(self, result: Any) -> None:
        job = self.running
        if job is None:  # released
            return
        self._returned = True
        if isinstance(result, Failure):
            job.stopped("failed")
            self.failed.emit(job, result)
        else:
            job.done(result)
            self.succeeded.emit(job, result)

    def _on_pause(self) -> None:
        self.paused = True
        self.changed.emit()

    def _on_resume(self) -> None:
        self.paused = False
        self.changed.emit()

    def _on_warning(self, warning: tuple[Any, ...]) -> None:
        message, category = warning[:2]
        if not issubclass(category, RlnWarning):  # a library's, not for the user
            return
        if len(warning) > 2:  # superqt caught the warning of another thread, such as the GUI's
            show_warning(str(message))
        elif self.running is not None:
            self.warned.emit(self.running, str(message))

    def _on_finish(self) -> None:
        self._release_timer.stop()
        self._worker = self.cancelling = None  # frees the memory of its generator
        self._end()
        self._next()
        self._delete_closed()

    def _release(self) -> None:
        """End a cancelled job for the user while its last step goes on."""
        self.cancelling = self.running
        self._end()
        self.changed.emit()

    def _end(self) -> None:
        job, self.running, self.paused = self.running, None, False
        if job is None:  # released
            return
        if not self._returned:
            self._notify_cancelled(job)
        self.ended.emit(job)

    def _notify_cancelled(self, job: BackgroundJob) -> None:
        job.stopped("cancelled")
        self.cancelled.emit(job)


def one_step(activity: str, compute: Callable[[], T]) -> Callable[[], Steps[T]]:
    """Return the steps of a computation that can be cancelled at its checkpoints."""

    def steps() -> Steps[T]:
        yield Update(Progress(activity=activity))
        return (yield from interruptible(compute))

    return steps
