"""Results, conversion and timing of generators of reports."""

import time
from collections.abc import Callable, Generator
from typing import Any, TypeVar

R = TypeVar("R")
S = TypeVar("S")
T = TypeVar("T")


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
