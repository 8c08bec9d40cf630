"""Planes of a stack that show structure."""

from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt
from napari.components import ViewerModel
from napari.layers import Image, Layer

from napari_rln.gui.compare.world import layer_axis, to_data, to_world
from napari_rln.gui.layers import is_image

_FRACTION = 0.3  # of the range of contrasts, above which a plane shows structure
_ENOUGH = 0.5  # of the highest contrast, with which a plane is worth looking at
_PIXELS = 20_000  # of a plane that its contrast is computed from
_READ = 16  # planes of a lazy stack that are read
_BRIGHTEST = 99.9  # percentile, above which are hot pixels


class _Contrasts(NamedTuple):
    key: Any
    planes: npt.NDArray[np.float64]  # indices in voxels of the finest level
    values: npt.NDArray[np.float64]


_computed: WeakKeyDictionary[Layer, _Contrasts] = WeakKeyDictionary()


def next_plane_with_structure(viewer: ViewerModel, layer: Layer, step: int) -> bool:
    """Move the slider to the next plane of a layer that shows structure.

    Parameters
    ----------
    viewer
        The viewer.
    layer
        The layer whose contrasts count.
    step
        1 for the next plane, -1 for the previous one.

    Returns
    -------
    bool
        Whether there is one; the slider stays otherwise.
    """
    axis = _slider(viewer, layer)
    if axis is None:
        return False
    assert isinstance(layer, Image)
    contrasts = _contrasts(viewer, layer, axis)
    own = layer_axis(viewer, layer, axis)
    count = (layer.data[0] if layer.multiscale else layer.data).shape[own]
    planes = np.arange(count)
    values = np.interp(planes, contrasts.planes, contrasts.values)
    low, high = values.min(), values.max()
    shows = values >= low + _FRACTION * (high - low)
    here = round(float(to_data(viewer, layer, viewer.dims.point)[own]))
    beyond = planes[shows & ((planes > here) if step > 0 else (planes < here))]
    if not beyond.size:
        return False
    _go(viewer, layer, axis, float(beyond[0 if step > 0 else -1]))
    return True


def go_to_brightest_plane(viewer: ViewerModel, layer: Layer) -> bool:
    """Move the slider to the plane of a layer with the highest contrast; return if there is one."""
    axis = _slider(viewer, layer)
    if axis is None:
        return False
    assert isinstance(layer, Image)
    contrasts = _contrasts(viewer, layer, axis)
    _go(viewer, layer, axis, round(float(contrasts.planes[contrasts.values.argmax()])))
    return True


def leave_empty_plane(viewer: ViewerModel, layer: Layer) -> bool:
    """Go to the plane with the highest contrast if the one shown has much less of it.

    A stack on disk without coarser levels, which would be slow to look through, is left as it is.
    """
    axis = _slider(viewer, layer)
    if axis is None:
        return False
    assert isinstance(layer, Image)
    in_memory = isinstance(layer.data, np.ndarray) and not isinstance(layer.data, np.memmap)
    if not (in_memory or layer.multiscale):
        return False
    contrasts = _contrasts(viewer, layer, axis)
    here = float(to_data(viewer, layer, viewer.dims.point)[layer_axis(viewer, layer, axis)])
    now = float(np.interp(here, contrasts.planes, contrasts.values))
    if now >= _ENOUGH * contrasts.values.max():
        return False
    return go_to_brightest_plane(viewer, layer)


def _slider(viewer: ViewerModel, layer: Layer) -> int | None:
    """Return the viewer's axis whose slider moves through a layer's planes; None without one."""
    hidden = viewer.dims.not_displayed
    if not (hidden and is_image(layer) and viewer.dims.ndisplay == 2):
        return None
    return hidden[-1] if layer_axis(viewer, layer, hidden[-1]) >= 0 else None


def _go(viewer: ViewerModel, layer: Layer, axis: int, index: float) -> None:
    at = to_data(viewer, layer, viewer.dims.point)
    at[layer_axis(viewer, layer, axis)] = index
    viewer.dims.set_point(axis, to_world(viewer, layer, at)[layer_axis(viewer, layer, axis)])


def _contrasts(viewer: ViewerModel, layer: Image, axis: int) -> _Contrasts:
    """Return the contrasts of planes of a layer along an axis; of a lazy one of some planes."""
    level = layer.data[-1] if layer.multiscale else layer.data
    whole = (layer.data[0] if layer.multiscale else layer.data).shape
    own = layer_axis(viewer, layer, axis)
    shown = [layer_axis(viewer, layer, a) for a in viewer.dims.displayed]
    shown += [layer.ndim] if layer.rgb else []
    here = to_data(viewer, layer, viewer.dims.point)
    index: list[Any] = [
        slice(None, None, _stride(level, shown)) if a in shown
        else int(np.clip(here[a] * level.shape[a] // whole[a], 0, level.shape[a] - 1))
        for a in range(level.ndim)
    ]  # fmt: skip
    rest = [(a, i) for a, i in enumerate(index) if a != own and not isinstance(i, slice)]
    key = id(layer.data), own, *shown, *rest
    known = _computed.get(layer)
    if known is not None and known.key == key:
        return known
    count = level.shape[own]
    in_memory = isinstance(level, np.ndarray) and not isinstance(level, np.memmap)
    read = count if in_memory else min(count, _READ)
    planes = np.unique(np.linspace(0, count - 1, read).round().astype(int))
    values = []
    for plane in planes:
        index[own] = int(plane)
        values.append(_contrast(np.asarray(level[tuple(index)], np.float64)))
    at = (planes + 0.5) * whole[own] / count - 0.5
    found = _Contrasts(key, at, np.array(values))
    _computed[layer] = found
    return found


def _stride(level: Any, shown: list[int]) -> int:
    pixels = np.prod([level.shape[a] for a in shown], dtype=float)
    return max(1, int(np.sqrt(pixels / _PIXELS)))


def _contrast(plane: npt.NDArray[np.float64]) -> float:
    """Return the standard deviation of a plane without its hot pixels."""
    return float(np.minimum(plane, np.nanpercentile(plane, _BRIGHTEST)).std())
