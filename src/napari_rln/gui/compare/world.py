"""Positions in the viewer's world, whose units may differ from those of a layer."""

import numpy as np
import numpy.typing as npt
from napari.components import ViewerModel
from napari.layers import Layer

Positions = npt.NDArray[np.float64]


def to_world(viewer: ViewerModel, layer: Layer, position: npt.ArrayLike) -> Positions:
    """Return a position in a layer's data (N,) in the world, along the layer's axes."""
    world = np.asarray(layer.data_to_world(position), np.float64)
    return world * _units(viewer, layer)


def to_data(viewer: ViewerModel, layer: Layer, world: npt.ArrayLike) -> Positions:
    """Return a position in the world, of which the last axes count, in a layer's data (N,)."""
    own = np.asarray(world, np.float64)[-layer.ndim :] / _units(viewer, layer)
    return np.asarray(layer.world_to_data(own), np.float64)


def layer_axis(viewer: ViewerModel, layer: Layer, axis: int) -> int:
    """Return the layer's axis that is an axis of the viewer; negative if it has none."""
    return axis - (viewer.dims.ndim - layer.ndim)


def _units(viewer: ViewerModel, layer: Layer) -> Positions:
    """Return the layer's units in those of the viewer; ones if its layers have no common unit."""
    common = viewer.layers.units
    if not common:
        return np.ones(layer.ndim)
    pairs = zip(layer.units, common[-layer.ndim :], strict=True)
    return np.array([float((1 * own).to(unit).magnitude) for own, unit in pairs])
