"""The two kinds of failure, what the user can mend and what the computation met; and warnings."""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar


class RlnError(ValueError):
    """A mistake that the user can mend; the message says what, the limit, and the next step."""


class ComputeError(Exception):
    """The computation itself failed, for instance for want of memory.

    Deliberately no ``RuntimeError``: GUI workers take a ``RuntimeError`` raised in a generator
    for their own deletion and lose it.
    """


class RlnWarning(UserWarning):
    """Something was done that the user should know about, such as clipped voxels."""


_listener: ContextVar[Callable[[str], None] | None] = ContextVar("listener", default=None)


def warn(message: str, *, stacklevel: int = 2) -> None:
    """Issue a :class:`RlnWarning`, or tell whoever listens in this thread instead.

    Parameters
    ----------
    message
        A sentence.
    stacklevel
        As :func:`warnings.warn` takes it where this is called.
    """
    listener = _listener.get()
    if listener is not None:
        listener(message)
    else:
        warnings.warn(message, RlnWarning, stacklevel=stacklevel + 1)


@contextmanager
def listening(listener: Callable[[str], None]) -> Iterator[None]:
    """Have what is warned of in this thread told to a listener.

    Python's own means, ``warnings.showwarning``, are of the whole process: of two works that run at
    once, one would be told what the other is warned of.
    """
    token = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(token)
