"""Long work is a generator of reports: wanting only its result, other reports, or its own time."""

import time
from collections.abc import Callable, Generator
from typing import Any, TypeVar

R = TypeVar("R")
S = TypeVar("S")
T = TypeVar("T")


def finish(steps: Generator[Any, None, T]) -> T:
    """Return what a generator returns at its end, whatever it yields on the way."""
    while True:
        try:
            next(steps)
        except StopIteration as stop:
            result: T = stop.value
            return result


def relay(steps: Generator[R, None, T], convert: Callable[[R], S]) -> Generator[S, None, T]:
    """Yield a generator's reports as a function converts them; return what it returns."""
    while True:
        try:
            report = next(steps)
        except StopIteration as stop:
            result: T = stop.value
            return result
        yield convert(report)


class Stopwatch:
    """Seconds of a work itself: it stands while somebody looks at a report, or pauses."""

    def __init__(self) -> None:
        self._before = 0.0
        self._since: float | None = None

    @property
    def seconds(self) -> float:
        """So far."""
        running = 0.0 if self._since is None else time.perf_counter() - self._since
        return self._before + running

    def follow(self, steps: Generator[R, None, T]) -> Generator[R, None, T]:
        """Yield a generator's reports and return what it returns; only it is timed."""
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
