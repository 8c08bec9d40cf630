"""Box layouts in one call."""

from typing import Any, TypeVar

from qtpy.QtWidgets import QBoxLayout, QLayout, QWidget

L = TypeVar("L", bound=QBoxLayout)


def fill(
    layout: L,
    *parts: QWidget | QLayout | tuple[Any, int],
    margin: int | None = None,
    spacing: int | None = None,
) -> L:
    """Add widgets and layouts to a box layout, and return it.

    Parameters
    ----------
    layout
        The layout.
    *parts
        Widgets and layouts, each alone or with its stretch factor.
    margin, spacing
        Pixels; the style's by default.
    """
    if margin is not None:
        layout.setContentsMargins(margin, margin, margin, margin)
    if spacing is not None:
        layout.setSpacing(spacing)
    for part in parts:
        item, stretch = part if isinstance(part, tuple) else (part, 0)
        add = layout.addLayout if isinstance(item, QLayout) else layout.addWidget
        add(item, stretch)
    return layout
