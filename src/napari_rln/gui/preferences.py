"""Preferences of the plugin in napari, which hold for all docks."""

from pathlib import Path
from typing import Literal

import torch
from napari.settings import get_plugin_settings

from napari_rln.networks.library import Library, default_folder

_LEAST_TILE = 16
_FIRST_THREADS = torch.get_num_threads()


def device() -> str:
    """Return where to compute: auto, cpu, cuda, cuda:1 or mps."""
    return str(get_plugin_settings("napari-rln").compute.device).strip() or "auto"


def tile() -> int | Literal["auto"]:
    """Return the side of the network's tiles in voxels."""
    side = int(get_plugin_settings("napari-rln").compute.tile)
    return max(side, _LEAST_TILE) if side else "auto"


def take_threads() -> None:
    """Set the number of torch's threads from the preferences, for the calling thread."""
    threads = int(get_plugin_settings("napari-rln").compute.threads)
    torch.set_num_threads(threads or _FIRST_THREADS)


def library() -> Library:
    """Return the user's model library."""
    folder = str(get_plugin_settings("napari-rln").models.folder).strip()
    return Library(Path(folder).expanduser() if folder else default_folder())
