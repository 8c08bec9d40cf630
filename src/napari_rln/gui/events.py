"""Connections of napari's events to widgets, which end with the widgets."""

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
    """
    owner_ref = ref(owner)
    method = WeakMethod(slot) if ismethod(slot) else lambda: slot

    def on_event(event: Any = None) -> None:
        widget, function = owner_ref(), method()
        if widget is None or function is None or not isalive(widget):
            with contextlib.suppress(ValueError, KeyError):
                emitter.disconnect(on_event)
        else:
            function()

    emitter.connect(on_event)
