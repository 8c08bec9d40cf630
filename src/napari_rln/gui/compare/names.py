"""Names of layers, shown by napari on the panels of its grid."""

from collections.abc import Iterable
from typing import Any
from weakref import WeakKeyDictionary

from napari.layers import Layer

_LEGIBLE = {"visible": True, "box": True, "font_size": 11.0}
_before: WeakKeyDictionary[Layer, dict[str, Any]] = WeakKeyDictionary()


def show_names(layers: Iterable[Layer], on: bool, *, position: str = "top_left") -> None:
    """Show the names of layers in the canvas, or show them again as the user had them.

    Parameters
    ----------
    layers
        The layers.
    on
        Whether to show the names; False ends what an earlier call began.
    position
        Corner of the panel.
    """
    for layer in layers:
        overlay = layer.name_overlay
        if on:
            look = _LEGIBLE | {"position": position}
            _before.setdefault(layer, {name: getattr(overlay, name) for name in look})
        else:
            look = _before.pop(layer, {})
        for name, value in look.items():
            setattr(overlay, name, value)
