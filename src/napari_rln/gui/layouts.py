"""Layouts in one call."""

from typing import Any, TypeVar

from qtpy.QtWidgets import QFormLayout, QLayout, QWidget

L = TypeVar("L", bound=QLayout)


def fill(
    layout: L,
    *parts: QWidget | QLayout | tuple[Any, ...],
    margin: int | None = None,
    spacing: int | None = None,
) -> L:
    """Add widgets and layouts to a box or form layout, and return it.

    Parameters
    ----------
    layout
        The layout.
    *parts
        Widgets and layouts, each alone, or with its stretch factor in a box, or after its label in
        a form.
    margin, spacing
        Pixels; the style's by default.
    """
    if margin is not None:
        layout.setContentsMargins(margin, margin, margin, margin)
    if spacing is not None:
        layout.setSpacing(spacing)
    for part in parts:
        arguments = part if isinstance(part, tuple) else (part,)
        if isinstance(layout, QFormLayout):
            layout.addRow(*arguments)
        elif isinstance(arguments[0], QLayout):
            layout.addLayout(*arguments)
        else:
            layout.addWidget(*arguments)
    return layout
