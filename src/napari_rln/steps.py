"""Long work is a generator of reports; here is how to want its result only, or other reports."""

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
