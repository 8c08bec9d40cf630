"""What this machine lets a process have: memory and cores.

A queue of jobs (SLURM) or a container (Docker, Kubernetes) gives a process a part of the machine
only, by Linux control groups, of version 1 or 2. Who takes more memory is killed, who starts more
threads than it has cores waits. So what they allow counts as what the machine has.
"""

import math
import os
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

import psutil

from napari_rln.core.limits import check_limits

MemoryGb = Annotated[float | Literal["auto"], {"min": 0.5, "max": 100_000.0}]
"""Memory that may be taken, in GB of 10^9 bytes; auto takes half of what is free."""

LIBRARIES_BYTES = 250_000_000
"""Of libraries and kernels, that a process loads with its first tile; measured."""

TRANSFORM_BYTES = 100_000_000
"""Of those, what comes without a network."""

SHARE = 0.5
"""Of the free memory, that is taken unless said otherwise."""

_ROOT = Path("/")
_PERIOD_US = 100_000.0  # of cpu.max where it names none


class _Group(NamedTuple):
    """A folder of a control group that a process is in, itself or one above it.

    Attributes
    ----------
    folder
        With the files of its limits.
    version
        1 or 2.
    """

    folder: Path
    version: int


@dataclass(frozen=True)
class Allowance:
    """Memory that this process may have, as the system counts it: with all that it has already.

    So it is what a queue of jobs is to be asked for. The libraries alone take some 0.35 GB.

    Parameters
    ----------
    memory_gb
        How much; auto takes half of what is free, besides what the process has.

    Raises
    ------
    RlnError
        If that is no amount, or too little for anything.
    """

    memory_gb: MemoryGb = "auto"

    def __post_init__(self) -> None:
        check_limits(self)

    @property
    def left_bytes(self) -> int:
        """What the process may still take; negative where it has more than it may."""
        if self.memory_gb == "auto":
            return int(SHARE * available_bytes())
        return int(self.memory_gb * 1e9) - taken_bytes()


def available_bytes(root: Path = _ROOT) -> int:
    """Return how much memory this process may still take, in bytes.

    Parameters
    ----------
    root
        Of the file system, in which ``proc`` and ``sys`` are looked for.
    """
    found = int(psutil.virtual_memory().available)
    return max(0, min([found, *(limit - taken for limit, taken in _memory(root))]))


def total_bytes(root: Path = _ROOT) -> int:
    """Return how much memory this machine has, or this process may have of it, in bytes."""
    found = int(psutil.virtual_memory().total)
    return min([found, *(limit for limit, _ in _memory(root))])


def cores(root: Path = _ROOT) -> int:
    """Return how many cores this process may use, at least one.

    Parameters
    ----------
    root
        As of :func:`available_bytes`.
    """
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else math.inf
    there = psutil.cpu_count(logical=False) or 1
    return max(1, int(min([allowed, there, *_quotas(root)])))


def taken_bytes() -> int:
    """Return how much memory this process has now, its libraries included."""
    return int(psutil.Process().memory_info().rss)


def peak_bytes() -> int:
    """Return the most memory that this process ever had."""
    if sys.platform == "linux":  # where getrusage tells of the parent too
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
        else:  # above memory.high a process is slowed down until it hardly moves
            limits, use, stale = ["memory.max", "memory.high"], "current", "inactive_file"
        found = [value for name in limits if (value := _number(folder / name)) is not None]
        taken = _number(folder / f"memory.{use}")
        if found and taken is not None:
            # Files that were read and are not in use are given up when memory is wanted.
            yield int(min(found)), int(max(0, taken - _stated(folder / "memory.stat", stale)))


def _quotas(root: Path) -> Iterator[float]:
    """Yield how many cores' time each control group allows that limits this process's."""
    for folder, version in _groups(root, "cpu"):
        if version == 1:
            quota = _number(folder / "cpu.cfs_quota_us")
            period = _number(folder / "cpu.cfs_period_us")
        else:
            words = _text(folder / "cpu.max").split()
            quota = _parsed(words[0]) if words else None
            period = _parsed(words[1]) if len(words) > 1 else _PERIOD_US
        if quota is not None and quota > 0 and period:  # -1 is no limit in version 1
            yield quota / period


def _groups(root: Path, controller: str) -> Iterator[_Group]:
    """Yield the control groups of this process that have a controller, from its own upwards."""
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


def _upwards(place: Path, top: str, path: str, version: int) -> Iterator[_Group]:
    """Yield the folders of a group and of those above it, as far up as they are mounted.

    A container sees its own group at the top, whose path outside of it means nothing there.
    """
    inside = os.path.relpath(path, top)
    folder = place if inside.startswith("..") else Path(os.path.normpath(place / inside))
    if not folder.is_dir():
        folder = place
    while True:
        yield _Group(folder, version)
        if folder == place or place not in folder.parents:
            return
        folder = folder.parent


def _stated(path: Path, name: str) -> float:
    """Return a number of a file of names and numbers; 0 where it is not in it."""
    for line in _text(path).splitlines():
        first, _, rest = line.partition(" ")
        if first == name:
            return _parsed(rest) or 0.0
    return 0.0


def _number(path: Path) -> float | None:
    """Return the number in a file; none where there is none, or it says ``max``."""
    return _parsed(_text(path))


def _parsed(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _text(path: Path) -> str:
    """Return what is in a file; nothing where it cannot be read."""
    try:
        return path.read_text()
    except (OSError, UnicodeError):
        return ""
