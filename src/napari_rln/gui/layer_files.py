"""Reader and writer of layers, with voxel size, optics and record, which napari's own ignores.

TIFF is read whole, also without a voxel size, which is then typed. OME-Zarr is read lazily, at the
level that the screen needs, and files of microscopes by planes.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from napari.layers import Image

from napari_rln.core.errors import RlnError
from napari_rln.gui.layers import (
    CHANNEL,
    KEY,
    OPTICS,
    SERIES,
    LayerData,
    contrast_limits,
    layer_data,
    names_psf,
    source_of,
)
from napari_rln.io.image import open_contents, volume_index
from napari_rln.io.lazy import OpenedImage
from napari_rln.io.paths import is_microscope_name, is_tiff_name, is_zarr
from napari_rln.io.volumes import read, write

_COLOURS = ((0.49, "bop blue"), (0.56, "green"), (0.63, "red"), (10.0, "magenta"))
"""Colours up to an emission wavelength in micrometres, each roughly that of the light."""


def reader(path: str | Sequence[str]) -> Callable[[str], list[LayerData]] | None:
    """Return a reader for a TIFF file, OME-Zarr image with a voxel size, or microscope's file.

    None for others, and for a TIFF with an axis beside channel, time, z, y and x. A microscope's
    file is not opened here: its errors are shown when it is read.
    """
    if not isinstance(path, str):
        return None
    place = Path(path)
    if is_microscope_name(place):
        return read_microscope
    try:
        if place.is_dir():
            from napari_rln.io.ome_zarr import open_lazily  # imports Zarr

            return read_zarr if is_zarr(place) and open_lazily(place).voxel_um else None
        opened = open_contents(path)
        if opened.voxel_um is not None:
            return read_layers
        _check_axes(opened)
    except RlnError:
        return None
    return read_plain if is_tiff_name(place) else None


def read_layers(path: str) -> list[LayerData]:
    """Return a layer for every channel; several time points become a leading axis."""
    opened = open_contents(path)
    layers = []
    for channel in range(opened.channels):
        volumes = [read(path, channel=channel, time=time) for time in range(opened.times)]
        first = volumes[0]
        data, options, kind = layer_data(first)
        if opened.times > 1:
            data = np.stack([volume.data for volume in volumes])
            options["scale"] = (1.0, *first.voxel_um)
            options["units"] = ("pixel", *options["units"])
            options["axis_labels"] = ("t", *options["axis_labels"])
        _add_channel(options, opened, channel)
        layers.append((data, options, kind))
    return layers


def read_plain(path: str) -> list[LayerData]:
    """Return a layer in pixels for every channel of a TIFF without a voxel size.

    Raises :class:`RlnError` as for :func:`read_microscope`.
    """
    opened = open_contents(path)
    stored = opened.array[(slice(None),) * len(opened.axes)]
    return _layers_of(opened, np.array(stored, opened.array.dtype.newbyteorder("=")))


def read_zarr(path: str) -> list[LayerData]:
    """Return a multiscale layer for every channel of an OME-Zarr image."""
    import dask.array as da

    from napari_rln.io.ome_zarr import image_levels, open_lazily

    levels = [da.from_zarr(array) for array in image_levels(Path(path))]  # type: ignore[no-untyped-call]
    return _lazy_layers(open_lazily(Path(path)), levels)


def read_microscope(path: str) -> list[LayerData]:
    """Return a lazy layer for every channel of every image in a microscope's file.

    Raises :class:`RlnError` if it is damaged, cannot be read, or has axes beside channel, time, z,
    y and x.
    """
    import dask.array as da

    layers = []
    count = open_contents(path, 0).images
    for series in range(count):
        opened = open_contents(path, series)
        array = opened.array
        _check_axes(opened)
        if not isinstance(array, da.Array):
            each = zip(opened.axes, array.shape, strict=True)
            planes = tuple(n if axis in "YX" else 1 for axis, n in each)
            chunks = getattr(array, "chunks", planes)
            meta = np.empty((0,) * len(array.shape), array.dtype)
            array = da.from_array(array, chunks, name=False, meta=meta)  # type: ignore[no-untyped-call]
        found = _layers_of(opened, array)
        if count > 1:
            for _, options, _ in found:
                options["metadata"][SERIES] = series
        layers += found
    return layers


def _check_axes(opened: OpenedImage) -> None:
    """Raise a :class:`RlnError` if there are axes beside channel, time, z, y and x."""
    volume_index(opened.axes, opened.array.shape, {"C": 0, "T": 0}, opened.name)


def _layers_of(opened: OpenedImage, array: Any) -> list[LayerData]:
    """Return a layer for every channel of an array with the axes of a file."""
    kept = [axis for axis in opened.axes if axis in "CZYX" or opened.times > 1]
    array = array[tuple(slice(None) if axis in kept else 0 for axis in opened.axes)]
    return _lazy_layers(opened._replace(array=array, axes="".join(kept)), [array])


def _lazy_layers(opened: OpenedImage, levels: list[Any]) -> list[LayerData]:
    """Return a layer for every channel of an image, from its levels, the finest first."""
    order = [opened.axes.index(axis) for axis in "CTZYX" if axis in opened.axes]
    levels = [level.transpose(order) for level in levels]
    axes = "".join(opened.axes[i] for i in order if opened.axes[i] != "C").lower()
    sizes = dict(zip("zyx", opened.voxel_um or (), strict=False))
    layers: list[LayerData] = []
    for channel in range(opened.channels):
        data = [level[channel] if "C" in opened.axes else level for level in levels]
        options: dict[str, Any] = {
            "name": opened.name,
            "scale": [sizes.get(axis, 1.0) for axis in axes],
            "units": ["um" if axis in sizes else "pixel" for axis in axes],
            "axis_labels": list(axes),
            "metadata": {} if opened.record is None else {KEY: opened.record.as_dict()},
            "contrast_limits": contrast_limits([_glimpse(data)]),
            "multiscale": len(data) > 1,
        }
        _add_channel(options, opened, channel)
        layers.append((data if len(data) > 1 else data[0], options, "image"))
    return layers


def _glimpse(levels: Sequence[Any]) -> np.ndarray:
    """Return a part of lazy levels: the first volume of the coarsest, or the middle plane."""
    coarsest = levels[-1]
    if len(levels) > 1:
        return np.asarray(coarsest[(0,) * (coarsest.ndim - 3)])
    return np.asarray(coarsest[tuple(n // 2 for n in coarsest.shape[:-2])])


def _add_channel(options: dict[str, Any], opened: OpenedImage, channel: int) -> None:
    """Add name, colour and optics of a channel to the options of its layer."""
    if names_psf(opened.name):
        options["blending"] = "additive"  # does not cover an image that is open
    optics = opened.optics[channel] if channel < len(opened.optics) else None
    if optics is not None and optics.as_json():
        options["metadata"][OPTICS] = optics.as_json()
    if opened.channels == 1:
        return
    names = [one.channel for one in opened.optics]
    label = optics.channel if optics is not None and len(set(names)) == len(names) else ""
    options["name"] += f" {label or f'channel {channel}'}"
    options["metadata"][CHANNEL] = channel
    emission = optics.emission_um if optics is not None else None
    if emission is not None:
        options["colormap"] = next(name for limit, name in _COLOURS if emission < limit)
    options["blending"] = "additive"


def write_layer(path: str, data: Any, options: dict[str, Any]) -> list[str]:
    """Write an image layer as TIFF, or as OME-TIFF if the name ends in .ome.tif.

    Raises :class:`RlnError` if it is not a plane or volume, or cannot be written there.
    """
    name = str(options.get("name", Path(path).stem))
    if np.ndim(data) > 3:
        raise RlnError(
            f"{name} has {np.ndim(data)} axes; split it into time points and write these."
        )
    # A layer converts the units; data of a multiscale one are all levels.
    kept = ("scale", "affine", "rotate", "shear", "units", "metadata", "multiscale", "rgb")
    layer = Image(data, name=name, **{k: options[k] for k in kept if k in options})
    volume = source_of(layer, (0,) * layer.ndim).read()
    write(volume, path)
    return [path]
