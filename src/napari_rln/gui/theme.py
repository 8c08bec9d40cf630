"""Colours of widgets, and of plots in the theme of the viewer."""

from typing import Any

from napari.components import ViewerModel
from napari.utils.theme import get_theme

ERROR, WARNING, NOTE, OK = "#e0524c", "#d9822b", "#4f8fd6", "#3fa34d"
LINE = "#ffd400"  # on an image


def paint_background(canvas: Any, viewer: ViewerModel) -> str:
    """Give a canvas the background of the viewer's theme; return the colour of text on it."""
    theme = get_theme(viewer.theme)
    canvas.setBackground(theme.background.as_hex())
    return str(theme.text.as_hex())


def paint_axes(plot: Any, colour: str, *names: str) -> None:
    """Draw axes of a pyqtgraph plot, such as bottom, in a colour."""
    for name in names:
        plot.getAxis(name).setPen(colour)
        plot.getAxis(name).setTextPen(colour)
