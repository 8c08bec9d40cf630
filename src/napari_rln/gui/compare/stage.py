"""The canvas for two layers alone, and back as it was."""

from collections.abc import Collection, Sequence

from napari.components import ViewerModel
from napari.layers import Image, Layer

from napari_rln.core.errors import RlnError
from napari_rln.gui.layers import is_image

Sides = tuple[list[Image], list[Image]]
"""Layers that are shown together, such as the channels of an image, and others."""


def check_sides(a: Sequence[Layer | None], b: Sequence[Layer | None]) -> Sides:
    """Return the layers of two sides to compare.

    Raises :class:`RlnError` if one is missing or not an image, or both sides have one of them.
    """
    sides: Sides = [], []
    for layers, side in zip((a, b), sides, strict=True):
        for layer in layers:
            if not isinstance(layer, Image) or not is_image(layer):
                raise RlnError(
                    "choose two image layers to compare, such as the image and a result."
                )
            side.append(layer)
    for layer in sides[0]:
        if layer in sides[1]:
            raise RlnError(f"both layers are {layer.name}; choose another one to compare it with.")
    return sides


class Stage:
    """Hides the other images and the grid, until it ends."""

    def __init__(self, viewer: ViewerModel, kept: Collection[Layer]) -> None:
        self._viewer = viewer
        self._selection = [*viewer.layers.selection]
        self._grid = viewer.canvas.grid.enabled
        self._tiling = viewer.canvas.overlay_tiling.top_right
        viewer.canvas.overlay_tiling.top_right = "vertical"  # names in the corners one per line
        self._visible = {layer: layer.visible for layer in kept}
        others = [layer for layer in viewer.layers if isinstance(layer, Image) and layer.visible]
        self._hidden = [layer for layer in others if layer not in kept]
        viewer.canvas.grid.enabled = False  # at first: each change would arrange it again
        for layer in self._hidden:
            layer.visible = False

    def select(self) -> None:
        """Select what was selected at first."""
        layers = self._viewer.layers
        layers.selection = {layer for layer in self._selection if layer in layers}

    def end(self) -> None:
        """Show what was shown at first, but for layers removed since."""
        for layer in self._hidden:
            layer.visible = True
        for layer, visible in self._visible.items():
            layer.visible = visible
        self._viewer.canvas.grid.enabled = self._grid
        self._viewer.canvas.overlay_tiling.top_right = self._tiling
