"""Volumes to napari layers: scale in micrometres, axes, and how they were made."""

import dataclasses
from typing import Any

from napari_rln.volume import FloatArray, Volume

LayerData = tuple[FloatArray, dict[str, Any], str]


def layer_data(volume: Volume, **options: Any) -> LayerData:
    """Return what napari takes for an image layer: data, options, type.

    Parameters
    ----------
    volume
        What to show.
    **options
        Further options of the layer, such as ``colormap``.
    """
    metadata: dict[str, Any] = {}
    if volume.record:
        metadata["napari-rln"] = dataclasses.asdict(volume.record)
    shown = {
        "name": volume.name,
        "scale": volume.voxel_um,
        "units": ("um", "um", "um"),
        "axis_labels": ("z", "y", "x"),
        "metadata": metadata,
    }
    return volume.data, shown | options, "image"
