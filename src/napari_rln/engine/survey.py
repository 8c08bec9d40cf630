"""What a worker's process has: device, memory, cores, version."""

import os
import platform
from typing import Any

from napari_rln import __version__
from napari_rln.core.device import free_bytes, resolve_device
from napari_rln.core.machine import available_bytes, cores, taken_bytes


def survey(folder: str, device: str) -> dict[str, Any]:
    """Return what a worker is: its device and memory, its version, whether it sees a folder.

    Parameters
    ----------
    folder
        Of the result.
    device
        On which it is to compute.

    Raises
    ------
    RlnError
        If it has no such device.
    """
    found = resolve_device(device)
    return {
        "version": __version__,
        "sees": os.path.isdir(folder),  # noqa: PTH112
        "device": found.type,
        "device_free": free_bytes(found),
        "ram": available_bytes(),
        "taken": taken_bytes(),
        "host": platform.node(),
        "cores": cores(),
    }
