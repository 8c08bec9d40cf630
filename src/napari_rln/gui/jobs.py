"""Long works in a thread: one at a time, the others wait; nothing they raise is lost.

A work is one of the core's generators. Between two of its yields it can be paused and cancelled.
"""

import contextlib
import time
import traceback
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from typing import Any, TypeVar

from napari.qt.threading import create_worker
from napari.utils.notifications import show_warning
from qtpy.QtCore import QEvent, QObject, QTimer, Signal
from superqt.utils import GeneratorWorker

from napari_rln.core.errors import ComputeError, RlnError, RlnWarning, capture_warnings
from napari_rln.core.generators import relay
from napari_rln.core.memory import release_freed_memory
from napari_rln.engine.progress import AnyReport, Progress, progress_of
from napari_rln.gui.preferences import take_threads

_SHARE = 0.04  # of the time, that showing may take
_PATIENCE_MS = 600  # after which a work that was cancelled is left to end its step alone

R = TypeVar("R", bound=AnyReport)
T = TypeVar("T")


@dataclass(eq=False)
class Receipt:
    """What the GUI thread tells back: how many seconds showing took; none before it is done."""

    seconds: float | None = None


@dataclass(frozen=True, eq=False)
class Update:
    """What a work shows: how far it is, and what there is to see.

    Not due is what must not be lost but comes too soon after the last one to be drawn.
    """

    progress: Progress
    content: Any = None
    due: bool = True
    receipt: Receipt = field(default_factory=Receipt)


Steps = Generator[Update | None, None, T]
"""A work that yields updates, or nothing where there is none but it may be cancelled."""


@dataclass(frozen=True, eq=False)
class BackgroundJob:
    """A long work.

    Attributes
    ----------
    title
        What the user reads while it waits and runs.
    steps
        Makes the work; called in the thread.
    key
        What it is the same as: of two works of one title and key, only one is under way.
    done
        What to do with the result.
    left
        What to do where there is none; it is told ``"failed"`` or ``"cancelled"``.
    kept
        What the user reads of what is left of it, where it is cancelled.
    quiet
        Whether it is so short and so frequent that napari's activity dock need not show it.
    window
        Which window speaks of it, where several share the works.
    """

    title: str
    steps: Callable[[], Steps[Any]]
    key: Any = None
    done: Callable[[Any], None] = lambda result: None
    left: Callable[[str], None] = lambda why: None
    kept: str = ""
    quiet: bool = False
    window: str = ""


@dataclass(frozen=True, kw_only=True)
class Failure:
    """Why a work ended without a result: a sentence, and the trace for those who ask."""

    sentence: str
    details: str


def streamed(
    steps: Generator[R, None, T],
    content: Callable[[R], Any] = lambda report: None,
    *,
    every_s: float = 0.25,
    always: Callable[[R], bool] = lambda report: False,
) -> Steps[T]:
    """Yield a work's reports as updates, as often as the window shows them; return its result.

    What is shown on the way may take a small share of the time, and no update is made before the
    last one was shown: a slow display slows nothing else down.

    Parameters
    ----------
    steps
        The work.
    content
        What there is to see of a report; called in the thread, before the work goes on.
    every_s
        Least seconds between two updates.
    always
        Whether a report must not be lost, whatever the time.
    """
    last, doing, receipt = -every_s, "", Receipt(0.0)

    def convert(report: R) -> Update | None:
        nonlocal last, doing, receipt
        progress, now = progress_of(report), time.monotonic()
        ends = progress.done == progress.total or progress.activity != doing
        shown = receipt.seconds
        due = shown is not None and now - last >= max(every_s, shown / _SHARE)
        if not (due or ends or always(report)):
            return None
        update = Update(progress, content(report), due or ends)
        if update.due:
            last, doing, receipt = now, progress.activity, update.receipt
        return update

    return relay(steps, convert)


def guarded(make: Callable[[], Steps[Any]]) -> Steps[Any]:
    """Yield a work's updates; return its result, or the :class:`Failure` it ended with.

    Nothing is raised: superqt would take a RuntimeError, and that is what torch raises, for the
    deletion of the worker and tell nobody.
    """
    take_threads()
    try:
        result = yield from make()
    except (RlnError, ComputeError) as error:
        return Failure(sentence=str(error), details=traceback.format_exc())
    except Exception as error:
        sentence = f"this failed in a way that was not foreseen: {type(error).__name__}: {error}"
        return Failure(sentence=sentence, details=traceback.format_exc())
    return result


class _Worker(GeneratorWorker):
    """Closes its work in the thread: to leave off may take a while, and napari would stand still.

    superqt leaves the closing to whoever drops the worker last.
    """

    def run(self) -> None:
        """Run in the thread."""
        # What it meets is told by signals, so this is that napari closed and has deleted them.
        with contextlib.suppress(RuntimeError):
            super().run()

    def work(self) -> Any:
        """Do it, to the end or until it is cancelled."""
        with capture_warnings(lambda message: self.warned.emit((message, RlnWarning))):
            try:
                return super().work()
            finally:
                self._gen.close()
                release_freed_memory()


class JobQueue(QObject):
    """The works of a dock: one runs, the others wait for it.

    One that is cancelled ends at once for the user. A long step that it is in goes on in the
    thread, is shown to nobody, and is waited for by the next. When the dock is taken out of its
    window, and nobody could cancel any more, all are cancelled, and the dock goes.
    """

    changed = Signal()
    reported = Signal(object, object)  # job, update
    succeeded = Signal(object, object)  # job, result
    failed = Signal(object, object)  # job, failure
    cancelled = Signal(object)
    ended = Signal(object)  # after any of the three, and what was done about it
    warned = Signal(object, str)

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self.waiting: list[BackgroundJob] = []
        self.paused = False
        self._job: BackgroundJob | None = None
        self._worker: GeneratorWorker | None = None
        self._ended = False
        self._closed = False  # whether the dock is out of its window
        self._advancing = False  # while napari's bar lets other events in
        self._left: BackgroundJob | None = None
        self._patience = QTimer(self, singleShot=True, interval=_PATIENCE_MS)
        self._patience.timeout.connect(self._let_go)
        if parent is not None:
            parent.installEventFilter(self)

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        """End all when the dock is taken out of its window, which is how napari closes it."""
        if event.type() == QEvent.Type.ParentChange:
            self._closed = watched.parent() is None
            if self._closed:
                self.cancel()
                self._delete_closed()
        return False

    def _delete_closed(self) -> None:
        """Delete a dock that was closed, once nothing runs: its own signals would keep it for ever.

        They are connected to functions that hold it, which Python's collector does not see.
        """
        if self._closed and self._worker is None:
            self.parent().deleteLater()

    @property
    def leaving(self) -> BackgroundJob | None:
        """The work that was cancelled and is still in its last step."""
        return self._left

    @property
    def running(self) -> BackgroundJob | None:
        """The work that runs now."""
        return self._job

    def add(self, *jobs: BackgroundJob) -> None:
        """Run works as soon as those before them are done.

        Raises
        ------
        RlnError
            If the same is under way already.
        """
        for job in jobs:
            if self.is_under_way(job):
                raise RlnError(f"{job.title} is under way already; cancel it to run it anew.")
        self.waiting += jobs
        self._next()

    def is_under_way(self, job: BackgroundJob) -> bool:
        """Tell whether the same as a work runs or waits."""
        others = (other for other in (self._job, *self.waiting) if other)
        return any((other.title, other.key) == (job.title, job.key) for other in others)

    def cancel(self) -> None:
        """Cancel the work that runs and forget those that wait."""
        forgotten, self.waiting = self.waiting, []
        if self._job is not None and self._worker is not None:
            self._worker.quit()
            self._patience.start()
        for job in forgotten:
            self._leave(job)
            self.ended.emit(job)
        self.changed.emit()

    def toggle_pause(self) -> None:
        """Make the work that runs wait at its next step, or go on."""
        if self._worker is not None:
            self._worker.toggle_pause()

    def _next(self) -> None:
        if self._worker is None and self.waiting:
            self._job = self.waiting.pop(0)
            self._ended = False
            worker = create_worker(
                guarded,
                self._job.steps,
                _worker_class=_Worker,
                _progress=None if self._job.quiet else {"desc": self._job.title},
                _start_thread=False,
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
        # What was cancelled shows no more, also where an update was on its way already.
        if update is None or self._worker is None or self._worker.abort_requested:
            return
        worker, began = self._worker, time.monotonic()
        self.reported.emit(self._job, update)
        # After what was shown has been drawn, which Qt does when it has nothing else to do.
        QTimer.singleShot(0, lambda: _sign(update.receipt, began))
        self._advance(worker, update.progress)  # last, for it lets other events in

    def _advance(self, worker: GeneratorWorker, progress: Progress) -> None:
        """Show progress in napari's activity dock.

        That handles whatever events wait: the next update, which would come back here, a click on
        Run or Cancel, the end of the work, the closing of the viewer.
        """
        bar = worker.pbar
        if bar is None or self._advancing or worker.abort_requested:
            return
        self._advancing = True
        try:
            if bar.total != progress.total:
                bar.total = progress.total
            bar.update(progress.done - bar.n)
        finally:
            self._advancing = False

    def _on_return(self, result: Any) -> None:
        job = self._job
        if job is None:  # it was let go
            return
        self._ended = True
        if isinstance(result, Failure):
            job.left("failed")
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
        if not issubclass(category, RlnWarning):  # those of the libraries are not for the user
            return
        if len(warning) > 2:  # superqt caught what another thread, such as the GUI's, warned of
            show_warning(str(message))
        elif self._job is not None:
            self.warned.emit(self._job, str(message))

    def _on_finish(self) -> None:
        self._patience.stop()
        self._worker = self._left = None  # frees what its generator holds
        self._end()
        self._next()
        self._delete_closed()

    def _let_go(self) -> None:
        self._left = self._job
        self._end()
        self.changed.emit()

    def _end(self) -> None:
        job, self._job, self.paused = self._job, None, False
        if job is None:  # it was let go
            return
        if not self._ended:
            self._leave(job)
        self.ended.emit(job)

    def _leave(self, job: BackgroundJob) -> None:
        job.left("cancelled")
        self.cancelled.emit(job)


def _sign(receipt: Receipt, started: float) -> None:
    receipt.seconds = time.monotonic() - started


def one_step(activity: str, compute: Callable[[], T]) -> Callable[[], Steps[T]]:
    """Return the steps of a computation that can be cancelled only before its result is used."""

    def steps() -> Steps[T]:
        yield Update(Progress(activity=activity))
        result = compute()
        yield None
        return result

    return steps
