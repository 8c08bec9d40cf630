"""Connections of napari's events to widgets that end with the widgets."""

import contextlib
from collections.abc import Callable
from inspect import ismethod
from typing import Any
from weakref import WeakMethod, ref

from qtpy.compat import isalive
from qtpy.QtCore import QObject


def follow(owner: QObject, emitter: Any, slot: Callable[[], Any]) -> None:
    """Call a function without arguments at an event of napari, until its owner is destroyed.

    Only a weak reference to the owner is kept, so that a closed dock is freed. Its ``destroyed``
    signal is not used: the garbage collector may free the receiver first.

    Parameters
    ----------
    owner
        The widget that the function belongs to.
    emitter
        Emitter of the event.
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
