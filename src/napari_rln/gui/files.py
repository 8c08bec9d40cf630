"""TIFF to layers and back, with voxel size and record, which napari's own reader leaves out."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from napari.layers import Image

from napari_rln.errors import RlnError
from napari_rln.gui.layers import CHANNEL, LayerData, layer_data, source_of
from napari_rln.io import contents, read_volume, write_volume


def reader(path: str | Sequence[str]) -> Callable[[str], list[LayerData]] | None:
    """Return a reader for a TIFF that says its voxel size; none for others, which napari reads."""
    if not isinstance(path, str):
        return None
    try:
        known = contents(path).voxel_um is not None
    except RlnError:
        return None
    return read if known else None


def read(path: str) -> list[LayerData]:
    """Return a layer for every channel; several time points become a leading axis."""
    channels, times, _ = contents(path)
    layers = []
    for channel in range(channels):
        volumes = [read_volume(path, channel=channel, time=time) for time in range(times)]
        first = volumes[0]
        data, options, kind = layer_data(first)
        if channels > 1:
            options["name"] = f"{first.name} channel {channel}"
            options["metadata"][CHANNEL] = channel
        if times > 1:
            data = np.stack([volume.data for volume in volumes])
            options["scale"] = (1.0, *first.voxel_um)
            options["units"] = ("pixel", *options["units"])
            options["axis_labels"] = ("t", *options["axis_labels"])
        layers.append((data, options, kind))
    return layers


def write(path: str, data: Any, options: dict[str, Any]) -> list[str]:
    """Write an image layer as TIFF or, where the name ends so, OME-TIFF.

    Raises
    ------
    RlnError
        If it is no volume, or cannot be written there.
    """
    name = str(options.get("name", Path(path).stem))
    if np.ndim(data) > 3:
        raise RlnError(
            f"{name} has {np.ndim(data)} axes; split it into its time points to write volumes."
        )
    # As a layer, which knows its units; of a multiscale one napari gives all levels.
    kept = ("scale", "units", "metadata", "multiscale", "rgb")
    layer = Image(data, name=name, **{k: options[k] for k in kept if k in options})
    volume = source_of(layer, (0,) * layer.ndim).read()
    write_volume(volume, path)
    return [path]
