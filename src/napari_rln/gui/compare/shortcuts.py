"""Keys of the viewer for what the user does most."""

from collections.abc import Callable, Mapping
from typing import Any

from napari.components import ViewerModel
from qtpy.compat import isalive
from qtpy.QtCore import QObject

SHORTCUTS = {
    "run": ("Ctrl+Enter", "Run"),
    "cancel": ("Ctrl+.", "Cancel"),
    "next_plane": ("Ctrl+Right", "Next plane with structure"),
    "previous_plane": ("Ctrl+Left", "Previous plane with structure"),
    "blink": ("K", "Show the other one of two layers"),
}
"""Keys and what they do, by the name of the action; none is one of napari's own."""


def bind_shortcuts(
    viewer: ViewerModel, dock_actions: Mapping[str, Callable[[], Any]], owner: QObject | None = None
) -> Callable[[], None]:
    """Bind the keys of :data:`SHORTCUTS` to actions; return a function that releases them.

    They work wherever the focus is, unless what has it uses the key.

    Parameters
    ----------
    viewer
        The viewer.
    dock_actions
        Functions by names of :data:`SHORTCUTS`; the other keys stay free.
    owner
        The dock; its keys do nothing after it was destroyed.
    """
    before: dict[str, Any] = {}
    bound: dict[str, Any] = {}

    def release() -> None:
        while bound:
            key, own = bound.popitem()
            now = viewer.bind_key(key, None)
            is_own = getattr(now, "__wrapped__", now) is own  # napari wraps what plugins get
            again = before[key] if is_own else now
            if again is not None:
                viewer.bind_key(key, again, overwrite=True)

    for name, action in dock_actions.items():

        def pressed(viewer: Any, action: Callable[[], Any] = action) -> None:
            if owner is None or isalive(owner):
                action()
            else:
                release()

        key = SHORTCUTS[name][0].replace("+", "-")
        before[key] = viewer.bind_key(key, None)
        bound[key] = pressed
        viewer.bind_key(key, pressed)
    return release


def with_shortcut(text: str, name: str) -> str:
    """Return a tooltip of a sentence without its full stop, with the key of an action."""
    return f"<p>{text} ({SHORTCUTS[name][0]}).</p>"
