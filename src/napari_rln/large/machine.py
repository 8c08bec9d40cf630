"""What a worker's process has: device, memory, cores, version."""

import math
import os
import platform
import re
import sys
from pathlib import Path
from typing import Any

import psutil

from napari_rln import __version__
from napari_rln.device import free_bytes, resolve_device


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
        "ram": psutil.virtual_memory().available,
        "taken": psutil.Process().memory_info().rss,
        "host": platform.node(),
        "cores": cores(),
    }


def cores() -> int:
    """Return how many cores this process may use."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else math.inf
    return int(min(allowed, psutil.cpu_count(logical=False) or 1))


def peak_bytes() -> int:
    """Return the most memory that this process ever had."""
    if sys.platform == "linux":  # where getrusage tells of the parent too
        status = Path("/proc/self/status").read_text()
        return 1024 * int(re.search(r"VmHWM:\s*(\d+)", status)[1])  # type: ignore[index]
    if sys.platform == "win32":
        return int(psutil.Process().memory_info().peak_wset)
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
