"""Names of layers, shown by napari on the panels of its grid."""

from collections.abc import Iterable
from typing import Any
from weakref import WeakKeyDictionary

from napari.components import ViewerModel
from napari.layers import Image, Layer
from qtpy.QtCore import Qt
from qtpy.QtGui import QFontMetricsF
from qtpy.QtWidgets import QApplication

_FONT = (6, 11)  # points, smallest and largest
_ABOVE = 0.001  # points, so that the display's resolution does not round them down
_SMALL = 8  # points, of a name that may be shortened
_ENLARGED = 96 / 72  # text of the canvas, over that of a widget with the same font
_MARGIN = 20  # pixels beside a name: napari leaves 10 on each side
_DARKER = 0.7  # distance of a name's colour from white, of that of its layer
_before: WeakKeyDictionary[Layer, dict[str, Any]] = WeakKeyDictionary()


def show_names(
    layers: Iterable[Layer],
    on: bool,
    *,
    width: float | None = None,
    size: float | None = None,
    position: str = "top_left",
    coloured: bool = False,
) -> None:
    """Show the names of layers in the canvas, or show them again as the user had them.

    Parameters
    ----------
    layers
        The layers.
    on
        Whether to show the names; False ends what an earlier call began.
    width
        Pixels of the panel, as from :func:`panel_width`: longer names get a smaller font.
    size
        Size of the font in points instead, as from :func:`common_look`.
    position
        Corner of the panel.
    coloured
        Whether each name has the colour of its layer, as for channels in one panel.
    """
    for layer in layers:
        overlay = layer.name_overlay
        if on:
            points = _font(layer.name, width) if size is None else size
            colour = _colour(layer) if coloured else None
            look: dict[str, Any] = {
                "font_size": points, "position": position, "color": colour, "box": True,
                "box_color": None if colour is None else "black",
                "visible": True,  # at last: then it is drawn once
            }  # fmt: skip
            _before.setdefault(layer, {name: getattr(overlay, name) for name in look})
        else:
            look = _before.pop(layer, {})
        for name, value in look.items():
            setattr(overlay, name, value)


def common_look(layers: Iterable[Layer], width: float) -> tuple[float, str]:
    """Return size in points and corner of the names in a row of panels of a width in pixels.

    napari cuts what has no room. At the right that is the beginning, the name of the file: the
    channel and the method are at the end.
    """
    names = [layer.name for layer in layers]
    size = min((_font(name, width) for name in names), default=_FONT[1] + _ABOVE)
    fits = all(size * _per_point(name) <= width - _MARGIN for name in names)
    return size, "top_left" if fits else "top_right"


def panel_width(viewer: ViewerModel) -> float:
    """Return the width of a panel of the canvas in pixels, in the grid or without it."""
    _, columns = viewer.canvas.grid.actual_shape(viewer.layers)
    return viewer.canvas.size[1] / columns


def _colour(layer: Layer) -> Any:
    """Return the brightest colour of a layer, lighter, so that it can be read on black."""
    if not isinstance(layer, Image) or layer.rgb:
        return None
    return 1 - _DARKER * (1 - layer.colormap.colors[-1])


def _font(name: str, width: float | None) -> float:
    """Return the size of a name's font: whole points, for which napari makes the box behind it."""
    smallest, largest = _FONT
    fitting = largest if width is None else (width - _MARGIN) / _per_point(name)
    return int(max(smallest, min(largest, fitting))) + _ABOVE


def _per_point(name: str) -> float:
    """Return the pixels of the canvas that a name takes per point of its font."""
    return max(1.0, _metrics(_SMALL).horizontalAdvance(name) * _ENLARGED / _SMALL)


def _metrics(points: int) -> QFontMetricsF:
    font = QApplication.font()  # napari's in the canvas too
    font.setPointSize(points)
    return QFontMetricsF(font)


def shortened(name: str, width: float) -> str:
    """Return a name without its middle if it is too long for a panel with a small font."""
    room = (width - _MARGIN) / _ENLARGED
    return _metrics(_SMALL).elidedText(name, Qt.TextElideMode.ElideMiddle, room)
