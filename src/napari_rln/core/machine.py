"""Memory and cores that this machine allows a process.

A batch system (SLURM) or a container (Docker, Kubernetes) restricts a process to a part of the
machine by Linux control groups, of version 1 or 2. A process that takes more memory is killed, and
one with more threads than cores waits. So their limits count as those of the machine.
"""

import math
import os
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import psutil

from napari_rln.core.limits import check_limits

MemoryGb = Annotated[float | Literal["auto"], {"min": 0.5, "max": 100_000.0}]
"""Memory limit, GB of 10^9 bytes; auto is half of the free memory."""

LIBRARIES_BYTES = 250_000_000
"""Memory of libraries and kernels that a process loads with its first tile; measured."""

TRANSFORM_BYTES = 100_000_000
"""Part of :data:`LIBRARIES_BYTES` that is loaded without a network."""

USABLE_FRACTION = 0.5
"""Default fraction of the free memory."""

_ROOT = Path("/")
_PERIOD_US = 100_000.0  # default of cpu.max


@dataclass(frozen=True)
class Allowance:
    """Memory limit of this process as the system counts it, including its current memory.

    So it is the amount in GB to request from a batch system; the libraries alone take about 0.35.
    auto is half of the free memory, besides the current memory of the process. Raise an RlnError
    for an invalid amount, or one too small for any work.
    """

    memory_gb: MemoryGb = "auto"

    def __post_init__(self) -> None:
        check_limits(self)

    @property
    def left_bytes(self) -> int:
        """Remaining memory, bytes; negative if the process exceeds its limit."""
        if self.memory_gb == "auto":
            return int(USABLE_FRACTION * available_bytes())
        return int(self.memory_gb * 1e9) - used_bytes()


def available_bytes(root: Path = _ROOT) -> int:
    """Return the memory that is available to this process, bytes.

    ``root`` is the root of the file system, with ``proc`` and ``sys``.
    """
    free = int(psutil.virtual_memory().available)
    return max(0, min([free, *(limit - used for limit, used in _memory(root))]))


def cores(root: Path = _ROOT) -> int:
    """Return the number of cores that this process may use, at least one."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else math.inf
    physical = psutil.cpu_count(logical=False) or 1
    return max(1, int(min([allowed, physical, *_quotas(root)])))


def used_bytes() -> int:
    """Return the current memory of this process, its libraries included, bytes."""
    return int(psutil.Process().memory_info().rss)


def peak_bytes() -> int:
    """Return the peak memory of this process, bytes."""
    if sys.platform == "linux":  # where getrusage includes the parent
        status = Path("/proc/self/status").read_text()
        return 1024 * int(re.search(r"VmHWM:\s*(\d+)", status)[1])  # type: ignore[index]
    if sys.platform == "win32":
        return int(psutil.Process().memory_info().peak_wset)
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _memory(root: Path) -> Iterator[tuple[int, int]]:
    """Yield limit and use, in bytes, of each control group that limits this process's memory."""
    for folder, version in _groups(root, "memory"):
        if version == 1:
            limits, use, stale = ["memory.limit_in_bytes"], "usage_in_bytes", "total_inactive_file"
        else:  # above memory.high a process is throttled almost to a halt
            limits, use, stale = ["memory.max", "memory.high"], "current", "inactive_file"
        values = [v for name in limits if (v := _number(_text(folder / name))) is not None]
        used = _number(_text(folder / f"memory.{use}"))
        if values and used is not None:
            # Cached files that are not in use are released on demand.
            stated = re.search(rf"^{stale} (\d+)$", _text(folder / "memory.stat"), re.MULTILINE)
            yield int(min(values)), int(max(0, used - (float(stated[1]) if stated else 0)))


def _quotas(root: Path) -> Iterator[float]:
    """Yield the limit of each control group of this process, in cores."""
    for folder, version in _groups(root, "cpu"):
        if version == 1:
            quota = _number(_text(folder / "cpu.cfs_quota_us"))
            period = _number(_text(folder / "cpu.cfs_period_us"))
        else:
            fields = _text(folder / "cpu.max").split()
            quota = _number(fields[0]) if fields else None
            period = _number(fields[1]) if len(fields) > 1 else _PERIOD_US
        if quota is not None and quota > 0 and period:  # -1 is no limit in version 1
            yield quota / period


def _groups(root: Path, controller: str) -> Iterator[tuple[Path, int]]:
    """Yield the control groups of this process that have a controller, from its own upwards.

    Each as the folder of its limits, and the version of control groups, 1 or 2.
    """
    mounts = [line.split() for line in _text(root / "proc/self/mountinfo").splitlines()]
    for line in _text(root / "proc/self/cgroup").splitlines():
        number, _, rest = line.partition(":")
        names, _, path = rest.partition(":")
        version = 2 if number == "0" and not names else 1
        if version == 1 and controller not in names.split(","):
            continue
        for mount in mounts:
            # ID, parent, device, root of the mount, its place, options ... - type, source, options
            if len(mount) < 10 or "-" not in mount:
                continue
            kind, options = mount[mount.index("-") + 1], mount[-1].split(",")
            if kind == ("cgroup2" if version == 2 else "cgroup") and (
                version == 2 or controller in options
            ):
                yield from _upwards(root / mount[4].lstrip("/"), mount[3], path, version)


def _upwards(place: Path, top: str, path: str, version: int) -> Iterator[tuple[Path, int]]:
    """Yield the folders of a group and of its mounted ancestors.

    In a container its own group is at the top, and the path from outside is meaningless.
    """
    inside = os.path.relpath(path, top)
    folder = place if inside.startswith("..") else Path(os.path.normpath(place / inside))
    if not folder.is_dir():
        folder = place
    while True:
        yield folder, version
        if folder == place or place not in folder.parents:
            return
        folder = folder.parent


def _number(text: str) -> float | None:
    """Return the number in a text; None if it is empty or ``max``."""
    try:
        return float(text)
    except ValueError:
        return None


def _text(path: Path) -> str:
    """Return the text of a file; empty if unreadable."""
    try:
        return path.read_text()
    except (OSError, UnicodeError):
        return ""
