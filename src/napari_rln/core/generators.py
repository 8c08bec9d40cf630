"""Results, conversion and timing of generators of reports; functions that can be cancelled."""

import contextvars
import threading
import time
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Any, TypeVar

R = TypeVar("R")
S = TypeVar("S")
T = TypeVar("T")

_POLL_S = 0.1
_stopped: contextvars.ContextVar[threading.Event | None] = contextvars.ContextVar(
    "stopped", default=None
)


class Interrupted(BaseException):
    """End of a function whose result is no longer wanted."""


def checkpoint() -> None:
    """End the function that :func:`interruptible` runs in this thread, if it is cancelled.

    Without effect anywhere else. A long function calls it at least twice a second.
    """
    stopped = _stopped.get()
    if stopped is not None and stopped.is_set():
        raise Interrupted


def interruptible(compute: Callable[[], T]) -> Generator[None, None, T]:
    """Yield None while a function runs in a thread; return its result.

    Closing the generator cancels the function at its next :func:`checkpoint`, and waits for that.
    """
    stopped, context = threading.Event(), contextvars.copy_context()
    context.run(_stopped.set, stopped)
    with ThreadPoolExecutor(1, "interruptible") as pool:
        future = pool.submit(context.run, compute)
        try:
            while not wait([future], _POLL_S).done:
                yield None
        finally:
            stopped.set()
    try:
        return future.result()
    finally:
        del future  # else an error, whose traceback has this frame, keeps its data


def finish(steps: Generator[Any, None, T]) -> T:
    """Return the return value of a generator, ignoring the values that it yields."""
    while True:
        try:
            next(steps)
        except StopIteration as stop:
            result: T = stop.value
            return result


def relay(steps: Generator[R, None, T], convert: Callable[[R], S]) -> Generator[S, None, T]:
    """Yield a generator's reports converted by a function; return its return value."""
    while True:
        try:
            report = next(steps)
        except StopIteration as stop:
            result: T = stop.value
            return result
        yield convert(report)


class Stopwatch:
    """Duration of a generator's own work, without the time between its reports.

    Parameters
    ----------
    before
        Seconds of earlier work that count too.
    """

    def __init__(self, before: float = 0.0) -> None:
        self._before = before
        self._since: float | None = None

    @property
    def seconds(self) -> float:
        """Duration so far, seconds."""
        running = 0.0 if self._since is None else time.perf_counter() - self._since
        return self._before + running

    def follow(self, steps: Generator[R, None, T]) -> Generator[R, None, T]:
        """Yield a generator's reports and return its return value, with its work timed."""
        try:
            while True:
                self._since = time.perf_counter()
                try:
                    report = next(steps)
                except StopIteration as stop:
                    result: T = stop.value
                    return result
                finally:
                    self._before, self._since = self.seconds, None
                yield report
        finally:
            steps.close()
