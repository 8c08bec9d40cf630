"""The view of a layer, kept while its voxel size changes."""

import contextlib
from collections.abc import Iterator

import numpy as np
from napari.components import ViewerModel
from napari.layers import Layer


@contextlib.contextmanager
def kept_in_view(viewer: ViewerModel, layer: Layer) -> Iterator[None]:
    """Let a layer fill the canvas as before, on the same plane, when its voxel size changes."""
    camera, displayed = viewer.scene.camera, list(viewer.dims.displayed)
    before, point = viewer.layers.get_extent([layer]).step, np.array(viewer.dims.point)
    yield
    ratio = np.ones(viewer.dims.ndim)
    ratio[-layer.ndim :] = viewer.layers.get_extent([layer]).step / before
    viewer.dims.point = tuple(point * ratio)
    center = np.array(camera.center)
    center[-len(displayed) :] *= ratio[displayed]
    camera.center, camera.zoom = tuple(center), camera.zoom / ratio[displayed[-1]]
