"""napari's events to widgets, for as long as these exist."""

import contextlib
from collections.abc import Callable
from typing import Any

from qtpy.QtCore import QObject


def follow(owner: QObject, emitter: Any, slot: Callable[[], Any]) -> None:
    """Call a function without arguments at an event of napari's, until its owner is destroyed.

    napari forgets a method when Python has collected its object, but Qt destroys a widget before.

    Parameters
    ----------
    owner
        The widget that the function is of.
    emitter
        Of the events.
    slot
        The function.
    """

    def called(event: Any = None) -> None:
        slot()

    def forget() -> None:
        with contextlib.suppress(ValueError, KeyError):  # where napari was faster
            emitter.disconnect(called)

    emitter.connect(called)
    owner.destroyed.connect(forget)
