"""Tasks of a worker: reading, computing and writing one tile or block.

They are functions of a folder and numbers, so that they run in any process that sees the folder. A
process opens a run once, with its model. Several tasks run in a process at once; one of them
computes.
"""

import functools
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch

from napari_rln.core.device import resolve_device
from napari_rln.core.errors import ComputeError
from napari_rln.core.machine import peak_bytes
from napari_rln.core.memory import release_freed_memory
from napari_rln.engine.journal import TILE, Key, RunFolder, RunState, box_of, is_intact
from napari_rln.engine.plan import IN_FLIGHT
from napari_rln.engine.tiled import Computation
from napari_rln.io.image import Image, checksum, open_image
from napari_rln.io.ome_zarr import ZarrTarget
from napari_rln.io.paths import atomic
from napari_rln.io.volumes import converted

T = TypeVar("T")

_computing, _opening = threading.Lock(), threading.Lock()
_few = threading.BoundedSemaphore(IN_FLIGHT)  # whatever the number of threads of a worker


class TaskTimer:
    """Times of reading, computing and writing of a task.

    Attributes
    ----------
    seconds : dict
        Times by ``"read"``, ``"compute"`` and ``"write"``.
    """

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._since = time.perf_counter()

    def lap(self, part: str) -> None:
        """Store the time since the last call as that of reading, computing or writing."""
        self.seconds[part] = time.perf_counter() - self._since
        self.skip()

    def skip(self) -> None:
        """Count the time since the last call as waiting."""
        self._since = time.perf_counter()


class TaskResult(NamedTuple):
    """Result of a task.

    Attributes
    ----------
    key
        Key of the finished part.
    entry
        Its entry in the journal: ``checksum`` of the written values; of a block ``clipped``, the
        number of voxels beyond the range of the result's type, and ``light``, its sum in image
        units; of a part read from the image ``source``, the checksum of the image over its core,
        and ``image``, the sum there in image units.
    seconds
        Times of reading, computing and writing.
    peak_bytes
        Peak memory of the worker.
    """

    key: Key
    entry: dict[str, Any]
    seconds: dict[str, float]
    peak_bytes: int


class _Opened:
    """A run opened by a worker."""

    def __init__(self, out: str, device: str, started: int) -> None:
        self.folder, self._started = RunFolder(Path(out)), started
        state = self.folder.state()
        assert state is not None
        self.state: RunState = state
        self.image: Image = open_image(state.image)
        self.work = Computation(
            self.image,
            self.folder.psf(),
            self.folder.method(state),
            state.image_state,
            state.plan,
            resolve_device(device),
        )
        self.target = self.folder.target(state)

    def check_current(self) -> None:
        """Raise if another run has replaced the folder, where nothing may be written then.

        Raises
        ------
        ComputeError
            If so.
        """
        if self.folder.stamp() != self._started:
            raise ComputeError(f"{self.folder.part} was replaced by another run; this one stops.")


_cached = functools.lru_cache(maxsize=2)(_Opened)


def _open(out: str, device: str) -> _Opened:
    """Return a run opened by this process, but not an earlier run of the same name."""
    started = RunFolder(Path(out)).stamp()
    with _opening:
        opened = _cached(out, device, started)
    set_threads(opened.state.threads)
    return opened


def set_threads(threads: int) -> None:
    """Set the number of computing threads of this process.

    Only where it differs: setting it changes the last digits of later results.
    """
    if torch.get_num_threads() != threads:
        torch.set_num_threads(threads)


def close() -> None:
    """Close the runs that this process has open, with their files and networks."""
    _cached.cache_clear()


def limit_concurrency(task: Callable[..., T]) -> Callable[..., T]:
    """Limit the concurrent tasks of a process to the number that its memory is planned for."""

    @functools.wraps(task)
    def waiting(*arguments: Any) -> T:
        with _few:
            return task(*arguments)

    return waiting


@limit_concurrency
def deconvolve_tile(out: str, device: str, time: int, number: int) -> TaskResult:
    """Compute a tile and keep it for the blocks that need it.

    Raises
    ------
    RlnError
        If the image cannot be used there.
    ComputeError
        If the computation fails.
    OSError
        If the image cannot be read or the disk is full.
    """
    opened, timer = _open(out, device), TaskTimer()
    work, tile = opened.work, opened.state.plan.tiles[number]
    read = work.read_tile(number, time)
    timer.lap("read")
    with _computing:
        timer.skip()
        # Within the lock for one tile at a time, as it takes as much memory as a deconvolution.
        source = read.checksum(tile.inner)
        data, light = work.tile(read, number, time)
        timer.lap("compute")
    release_freed_memory()  # otherwise every thread would keep its peak memory
    opened.check_current()
    path = opened.folder.scratch(time, number)
    with atomic(path) as temporary:
        np.save(temporary, data)
    timer.lap("write")
    entry = {"checksum": checksum(data), "image": light, "source": source}
    return TaskResult(Key(time, TILE, number), entry, timer.seconds, peak_bytes())


@limit_concurrency
def finish_block(out: str, device: str, time: int, number: int) -> TaskResult:
    """Write a block of the result, after all tiles that overlap it.

    Raises
    ------
    RlnError, ComputeError, OSError
        As :func:`deconvolve_tile`.
    """
    opened, timer = _open(out, device), TaskTimer()
    work, block = opened.work, opened.state.plan.blocks[number]
    estimate = work.estimate(number, functools.partial(opened.folder.read_scratch, time))
    entry: dict[str, Any] = {}
    if work.second is None:
        timer.lap("read")
        data, _ = work.block(None, number, estimate, time)
    else:
        read = work.read_block(number, time)
        timer.lap("read")
        with _computing:
            timer.skip()
            if estimate is None:  # without tiles, the block reads the image
                entry["source"] = read.checksum(block.inner)
            data, light = work.block(read, number, estimate, time)
            if estimate is None:
                entry["image"] = light
            timer.lap("compute")
    del estimate
    stored, low, high = converted(np.ascontiguousarray(data), opened.state.dtype)
    opened.check_current()
    opened.target.write(block.core, stored, time)
    release_freed_memory()
    timer.lap("write")
    entry |= {
        "checksum": checksum(stored),
        "clipped": low + high,
        "light": float(data.sum(dtype=np.float64)),
    }
    return TaskResult(Key(time, 0, number), entry, timer.seconds, peak_bytes())


@limit_concurrency
def coarsen_block(out: str, device: str, time: int, level: int, number: int) -> TaskResult:
    """Write a block of a coarser level from the previous level.

    Raises
    ------
    OSError
        If the disk is full.
    """
    opened, timer = _open(out, device), TaskTimer()
    assert isinstance(opened.target, ZarrTarget)
    box = opened.state.plan.level_boxes(level)[number]
    stored = opened.target.coarsened(box, time, level)
    timer.lap("read")
    opened.check_current()
    opened.target.write(box, stored, time, level)
    timer.lap("write")
    entry = {"checksum": checksum(stored)}
    return TaskResult(Key(time, level, number), entry, timer.seconds, peak_bytes())


@limit_concurrency
def check_source(out: str, device: str, key: Key, expected: str) -> bool:
    """Tell whether the image is unchanged since a tile, or a block without tiles, was computed."""
    opened = _open(out, device)
    return checksum(opened.image.read(box_of(opened.state, key), key.time)) == expected


@limit_concurrency
def check_block(out: str, device: str, key: Key, expected: str) -> bool:
    """Tell whether a block or a tile of an interrupted run has its expected checksum."""
    opened = _open(out, device)
    if key.level != TILE:
        intact = is_intact(opened.target, opened.state, key, expected)
        if not intact and isinstance(opened.target, ZarrTarget):
            opened.target.erase(box_of(opened.state, key), key.time, key.level)
        return intact
    try:
        return checksum(opened.folder.read_scratch(key.time, key.number)) == expected
    except (OSError, ValueError, EOFError):  # half-written or damaged, to be computed again
        return False
