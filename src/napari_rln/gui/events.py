"""napari's events to widgets, for as long as these exist."""

import contextlib
from collections.abc import Callable
from inspect import ismethod
from typing import Any
from weakref import WeakMethod, ref

from qtpy.compat import isalive
from qtpy.QtCore import QObject


def follow(owner: QObject, emitter: Any, slot: Callable[[], Any]) -> None:
    """Call a function without arguments at an event of napari's, until its owner is destroyed.

    The owner is not held, so that a dock that was closed goes. Nor is its end waited for: when
    Python's collector destroys it, the function that would be told may be gone before.

    Parameters
    ----------
    owner
        The widget that the function is of.
    emitter
        Of the events.
    slot
        The function.
    """
    held = ref(owner)
    method = WeakMethod(slot) if ismethod(slot) else lambda: slot

    def called(event: Any = None) -> None:
        now, call = held(), method()
        if now is None or call is None or not isalive(now):
            with contextlib.suppress(ValueError, KeyError):
                emitter.disconnect(called)
        else:
            call()

    emitter.connect(called)
