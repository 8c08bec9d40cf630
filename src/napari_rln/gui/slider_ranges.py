"""Ranges of the viewer's sliders, without PSFs that are hidden.

napari's sliders are as long as all layers, hidden ones too. A PSF has up to twice the planes of its
image, so that half of a slider would show nothing.
"""

from typing import TYPE_CHECKING
from weakref import WeakSet

from napari.components import ViewerModel
from qtpy.QtCore import QObject

from napari_rln.gui.events import follow
from napari_rln.gui.layers import is_psf

if TYPE_CHECKING:
    from collections.abc import Iterable

    from napari.layers import Layer


class SliderRanges(QObject):
    """Keeps the sliders as long as all layers but hidden PSFs, until it is stopped."""

    def __init__(self, viewer: ViewerModel, parent: QObject) -> None:
        super().__init__(parent)
        self._viewer, self._is_stopped = viewer, False
        self._psfs: WeakSet[Layer] = WeakSet()  # followed
        follow(self, viewer.layers.events.inserted, self._fit)
        follow(self, viewer.dims.events.range, self._fit)
        self._fit()

    def stop(self) -> None:
        """Make the sliders as long as all layers, as napari does not when a layer is shown."""
        self._is_stopped = True
        layers = self._viewer.layers
        if not self._psfs.isdisjoint(layers):
            self._fit_to(layers)

    def _fit(self) -> None:
        if self._is_stopped:
            return
        layers = self._viewer.layers
        for layer in layers:
            if layer not in self._psfs and is_psf(layer):
                self._psfs.add(layer)
                follow(self, layer.events.visible, self._fit)
        if not self._psfs.isdisjoint(layers):
            kept = [layer for layer in layers if layer.visible or layer not in self._psfs]
            self._fit_to(kept or layers)

    def _fit_to(self, layers: "Iterable[Layer]") -> None:
        extent, dims = self._viewer.layers.get_extent(layers), self._viewer.dims
        if len(extent.step) == dims.ndim:  # a plane has fewer axes than its PSF
            dims.range = tuple(zip(*extent.world, extent.step, strict=True))
