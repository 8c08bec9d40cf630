"""Parts of layers along an axis, as layers for display only that share the data."""

from typing import Any

import numpy as np
from dask import array as da
from napari.layers import Image
from napari.utils.transforms import Affine

from napari_rln.gui.layers import DISPLAY_ONLY

LINKED = (
    "attenuation", "contrast_limits", "gamma", "interpolation2d", "interpolation3d",
    "iso_threshold", "opacity", "projection_mode", "rendering",
)  # fmt: skip
"""Attributes that a part shares with its layer, beside the colormap."""

_TRANSFORM = ("scale", "translate", "rotate", "shear", "affine", "units", "axis_labels")


def shape_of(layer: Image) -> tuple[int, ...]:
    """Return the number of voxels along the axes of a layer, at the finest level."""
    data = layer.data[0] if layer.multiscale else layer.data
    return tuple(data.shape[: layer.ndim])


def part_of(layer: Image, name: str, *, is_lowest: bool = True) -> Image:
    """Return a layer that shows what a layer shows; :func:`put` makes it a part.

    The lowest one of those on top of each other covers the canvas, which may be white.
    """
    attributes = (*_TRANSFORM, *LINKED, *(() if layer.rgb else ("colormap",)))
    return Image(
        layer.data,
        name=name,
        rgb=layer.rgb,
        multiscale=layer.multiscale,
        blending="translucent_no_depth" if is_lowest else layer.blending,
        metadata={DISPLAY_ONLY: True},
        **{attribute: getattr(layer, attribute) for attribute in attributes},
    )


def divider_of(layer: Image, axis: int) -> Image:
    """Return a layer of a line across a layer, of one voxel along an axis."""
    shape = list(shape_of(layer))
    shape[axis] = 1
    return Image(
        np.broadcast_to(np.float32(1), shape),
        name="divider",
        colormap="yellow",
        contrast_limits=(0, 1),
        metadata={DISPLAY_ONLY: True},
        **{attribute: getattr(layer, attribute) for attribute in _TRANSFORM},
    )


def put(part: Image, layer: Image, axis: int, start: int, stop: int) -> None:
    """Make a part that of a layer between two voxels along an axis; it is hidden if empty."""
    size = shape_of(layer)[axis]
    start, stop = max(start, 0), min(stop, size)
    if part.visible != (stop > start):  # even the same value would draw again
        part.visible = stop > start
    if part.visible:
        levels = layer.data if layer.multiscale else [layer.data]
        cut = [_cut(level, axis, start / size, stop / size) for level in levels]
        part.data = cut if layer.multiscale else cut[0]
        move(part, layer, axis, start)


def move(part: Image, layer: Image, axis: int, index: float) -> None:
    """Place the first voxel of a part at an index of a layer along an axis."""
    own = Affine(scale=layer.scale, rotate=layer.rotate, shear=layer.shear, ndim=layer.ndim)
    translate = layer.translate + own.linear_matrix[:, axis] * index
    if not np.array_equal(translate, part.translate):
        part.translate = translate


def _cut(level: Any, axis: int, start: float, stop: float) -> Any:
    """Return the part of an array between two fractions of its size, of one voxel at least."""
    if hasattr(level, "chunks") and not hasattr(level, "dask"):  # Zarr and HDF5 read when indexed
        level = da.from_array(level)  # type: ignore[no-untyped-call]
    size = level.shape[axis]
    first = min(round(start * size), size - 1)
    index = [slice(None)] * level.ndim
    index[axis] = slice(first, max(round(stop * size), first + 1))
    return level[tuple(index)]
