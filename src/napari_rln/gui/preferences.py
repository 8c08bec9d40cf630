"""Preferences of the plugin in napari, which hold for all docks."""

from pathlib import Path
from typing import Literal

import torch
from napari.settings import get_plugin_settings

from napari_rln.networks.library import Library, default_folder

_MIN_TILE = 16
_DEFAULT_THREADS = torch.get_num_threads()


def device() -> str:
    """Return the device: auto, cpu, cuda, cuda:1 or mps."""
    return str(get_plugin_settings("napari-rln").compute.device).strip() or "auto"


def tile() -> int | Literal["auto"]:
    """Return the side of a network's tiles in voxels."""
    side = int(get_plugin_settings("napari-rln").compute.tile)
    return max(side, _MIN_TILE) if side else "auto"


def set_threads() -> None:
    """Set the number of torch threads of the calling thread from the preferences."""
    threads = int(get_plugin_settings("napari-rln").compute.threads)
    torch.set_num_threads(threads or _DEFAULT_THREADS)


def library() -> Library:
    """Return the user's model library."""
    folder = str(get_plugin_settings("napari-rln").models.folder).strip()
    return Library(Path(folder).expanduser() if folder else default_folder())
