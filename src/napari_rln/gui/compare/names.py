"""Names of layers, shown by napari on the panels of its grid."""

from collections.abc import Iterable
from typing import Any
from weakref import WeakKeyDictionary

from napari.components import ViewerModel
from napari.layers import Image, Layer

_FONT = (6, 11)  # points, smallest and largest
_ABOVE = 0.001  # points, so that the display's resolution does not round them down
_SMALL = 8.0  # points, of a name that may be shortened
_CHARACTER = 1.0  # pixels of the canvas per point
_MARGIN = 24  # pixels beside a name
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
        Size of the font in points instead, as from :func:`common_size`.
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


def common_size(layers: Iterable[Layer], width: float) -> float:
    """Return the size in points of a font in which all names fit a panel of a width in pixels."""
    return min((_font(layer.name, width) for layer in layers), default=_FONT[1] + _ABOVE)


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
    fitting = largest if width is None else (width - _MARGIN) / (_CHARACTER * len(name))
    return int(max(smallest, min(largest, fitting))) + _ABOVE


def shortened(name: str, width: float) -> str:
    """Return a name without its middle if it is too long for a panel with a small font."""
    kept = int((width - _MARGIN) / (_CHARACTER * _SMALL))
    if len(name) <= kept:
        return name
    end = kept // 2
    return f"{name[: kept - end - 1]}\N{HORIZONTAL ELLIPSIS}{name[len(name) - end :]}"
