"""Layers of the panels that show an image, its results and their residual maps."""

from collections.abc import Sequence
from typing import NamedTuple

from napari.components import ViewerModel
from napari.layers import Image, Layer

from napari_rln.gui.compare.compared_image import ComparedImage
from napari_rln.gui.compare.residual_maps import ResidualMaps

_MOST_COLUMNS = 4  # in a row of results above one of their maps


class Panels(NamedTuple):
    """Layers of each panel, channels together.

    The residual maps of the channels, which cannot be seen on top of each other, share a panel
    each: those of the other channels are hidden.
    """

    results: list[list[Image]]  # the image, its results and registered references
    maps: list[list[Image]]
    hidden: list[Image]

    @property
    def all(self) -> list[list[Image]]:
        """All panels."""
        return [*self.results, *self.maps]

    @property
    def columns(self) -> int:
        """Number of columns with the maps in a row of their own; 0 for any."""
        return len(self.results) if self.maps and len(self.results) <= _MOST_COLUMNS else 0

    def composite_of(self, layer: Layer) -> list[Image]:
        """Return a layer with the other channels in its panel."""
        return next((panel for panel in self.results if layer in panel), [])


def panels_of(
    viewer: ViewerModel,
    channels: Sequence[ComparedImage],
    chosen: ComparedImage,
    maps: ResidualMaps,
) -> Panels:
    """Return the panels of an image, with the other channels of its run where they have as many."""
    every = {each: _panels_of(viewer, each) for each in channels}
    if len({len(panels) for panels in every.values()}) != 1:
        every = {chosen: _panels_of(viewer, chosen)}
    results = [[*panel] for panel in zip(*every.values(), strict=True)]
    found = [[maps.of(layer) for layer in panel] for panel in results]
    whole = [[each for each in panel if each] for panel in found if None not in panel]
    own = [*every].index(chosen)
    others = [layer for panel in whole for i, layer in enumerate(panel) if i != own]
    return Panels(results, whole, others)


def _panels_of(viewer: ViewerModel, compared: ComparedImage) -> list[Image]:
    """Return an image, its results and registered references."""
    wanted = [compared.inputs.image.layer, *compared.results(viewer)]
    return [layer for layer in wanted if layer in viewer.layers]
