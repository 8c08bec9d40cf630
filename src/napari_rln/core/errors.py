"""Errors and warnings: mistakes that the user can correct, and failures of a computation."""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar


class RlnError(ValueError):
    """A mistake that the user can correct; the message names the value, limit and next step."""


class ComputeError(Exception):
    """A failure of the computation itself, for instance out of memory.

    Deliberately not a ``RuntimeError``: GUI workers mistake a ``RuntimeError`` of a generator for
    their own deletion and discard it.
    """


class RlnWarning(UserWarning):
    """A condition that the user should know about, such as clipped voxels."""


_listener: ContextVar[Callable[[str], None] | None] = ContextVar("listener", default=None)


def warn(message: str, *, stacklevel: int = 2) -> None:
    """Issue a :class:`RlnWarning`, or pass it to the listener of this thread.

    The level of the stack is as for :func:`warnings.warn`, counted from the caller.
    """
    listener = _listener.get()
    if listener is not None:
        listener(message)
    else:
        warnings.warn(message, RlnWarning, stacklevel=stacklevel + 1)


@contextmanager
def capture_warnings(listener: Callable[[str], None]) -> Iterator[None]:
    """Pass the warnings of this thread to a listener.

    Python's own hook, ``warnings.showwarning``, is global: of two concurrent runs, one would
    receive the warnings of the other.
    """
    token = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(token)
