"""TIFF to layers and back, with voxel size and record, which napari's own reader leaves out."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from napari_rln.errors import RlnError
from napari_rln.gui.layers import CHANNEL, KEY, LayerData, layer_data
from napari_rln.io import contents, read_volume, write_volume
from napari_rln.record import Record
from napari_rln.volume import Volume


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
    units = [str(unit) for unit in options.get("units") or ()]
    if any(unit not in ("micrometer", "um") for unit in units[-3:]):
        raise RlnError(f"the voxel size of {name} is not in micrometres; give it in a dock first.")
    sizes = [float(size) for size in options["scale"]]
    z, y, x = sizes if len(sizes) == 3 else (sizes[0], *sizes)
    record = options.get("metadata", {}).get(KEY)
    volume = Volume.from_array(
        data, (z, y, x), name=name, record=Record(**record) if record else None
    )
    write_volume(volume, path)
    return [path]
