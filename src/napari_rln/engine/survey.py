"""Properties of a worker process: device, memory, cores, version."""

import os
import platform
from typing import Any

from napari_rln import __version__
from napari_rln.core.device import free_bytes, resolve_device
from napari_rln.core.machine import available_bytes, cores, used_bytes


def survey(folder: str, device: str) -> dict[str, Any]:
    """Return a worker's device and memory, its version, and whether it sees a folder.

    Raises
    ------
    RlnError
        If the worker has no such device.
    """
    resolved = resolve_device(device)
    return {
        "version": __version__,
        "sees": os.path.isdir(folder),  # noqa: PTH112
        "device": resolved.type,
        "device_free": free_bytes(resolved),
        "ram": available_bytes(),
        "used": used_bytes(),
        "host": platform.node(),
        "cores": cores(),
    }
