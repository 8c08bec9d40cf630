"""Reader and writer of layers, with voxel size and record, which napari's own reader ignores.

TIFF is read whole. OME-Zarr is read lazily, at the level that the screen needs.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from napari.layers import Image

from napari_rln.core.errors import RlnError
from napari_rln.gui.layers import CHANNEL, KEY, LayerData, contrast_limits, layer_data, source_of
from napari_rln.io.image import open_contents
from napari_rln.io.paths import is_zarr
from napari_rln.io.volumes import read, write


def reader(path: str | Sequence[str]) -> Callable[[str], list[LayerData]] | None:
    """Return a reader for a TIFF file or OME-Zarr image with a voxel size; else None."""
    if not isinstance(path, str):
        return None
    try:
        if Path(path).is_dir():
            from napari_rln.io.ome_zarr import open_lazily  # imports Zarr

            place = Path(path)
            return read_zarr if is_zarr(place) and open_lazily(place).voxel_um else None
        known = open_contents(path).voxel_um is not None
    except RlnError:
        return None
    return read_layers if known else None


def read_layers(path: str) -> list[LayerData]:
    """Return a layer for every channel; several time points become a leading axis."""
    opened = open_contents(path)
    layers = []
    for channel in range(opened.channels):
        volumes = [read(path, channel=channel, time=time) for time in range(opened.times)]
        first = volumes[0]
        data, options, kind = layer_data(first)
        if opened.channels > 1:
            options["name"] = f"{first.name} channel {channel}"
            options["metadata"][CHANNEL] = channel
        if opened.times > 1:
            data = np.stack([volume.data for volume in volumes])
            options["scale"] = (1.0, *first.voxel_um)
            options["units"] = ("pixel", *options["units"])
            options["axis_labels"] = ("t", *options["axis_labels"])
        layers.append((data, options, kind))
    return layers


def read_zarr(path: str) -> list[LayerData]:
    """Return a multiscale layer for every channel of an OME-Zarr image."""
    import dask.array as da

    from napari_rln.io.ome_zarr import image_levels, open_lazily

    opened = open_lazily(Path(path))
    assert opened.voxel_um is not None
    arrays = image_levels(Path(path))
    levels = [da.from_zarr(array) for array in arrays]  # type: ignore[no-untyped-call]
    order = [opened.axes.index(axis) for axis in "CTZYX" if axis in opened.axes]
    levels = [level.transpose(order) for level in levels]
    axes = "".join(opened.axes[i] for i in order if opened.axes[i] != "C").lower()
    sizes = dict(zip("zyx", opened.voxel_um, strict=True))
    channels = levels[0].shape[0] if "C" in opened.axes else 1
    layers = []
    for channel in range(channels):
        data = [level[channel] if "C" in opened.axes else level for level in levels]
        coarsest = np.asarray(data[-1][(0,) * (data[-1].ndim - 3)])
        options: dict[str, Any] = {
            "name": opened.name,
            "scale": [sizes.get(axis, 1.0) for axis in axes],
            "units": ["um" if axis in sizes else "pixel" for axis in axes],
            "axis_labels": list(axes),
            "metadata": {} if opened.record is None else {KEY: opened.record.as_dict()},
            "contrast_limits": contrast_limits([coarsest]),
            "multiscale": len(data) > 1,
        }
        if channels > 1:
            options["name"] = f"{opened.name} channel {channel}"
            options["metadata"][CHANNEL] = channel
        layers.append((data if len(data) > 1 else data[0], options, "image"))
    return layers


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
