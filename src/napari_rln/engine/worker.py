"""What a worker does with one tile: read, compute, write.

Functions of a folder and numbers, so that they can run in any process that sees the folder. A
process opens a job once, with its model. Several run in a process at once, one of which computes.
"""

import dataclasses
import functools
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch

from napari_rln.core.device import resolve_device
from napari_rln.core.errors import ComputeError
from napari_rln.core.machine import peak_bytes
from napari_rln.core.memory import release_freed_memory
from napari_rln.core.tiles import within
from napari_rln.core.volume import FloatArray, Volume
from napari_rln.deconvolution import rld_settings as rld
from napari_rln.deconvolution.rld_settings import RldSettings
from napari_rln.engine.job import TILE, Folder, Job, Key, Settings, box_of, is_intact
from napari_rln.engine.plan import IN_FLIGHT, blend
from napari_rln.engine.sampling import Around
from napari_rln.io.image import Image, checksum, open_image
from napari_rln.io.ome_zarr import ZarrTarget
from napari_rln.io.paths import atomic
from napari_rln.io.volumes import converted
from napari_rln.networks.application import through_network
from napari_rln.networks.data_consistency import Consistency, Merge
from napari_rln.networks.inference import Folded
from napari_rln.networks.model import Model
from napari_rln.networks.normalisation import Normalisation
from napari_rln.networks.rln_settings import RlnSettings

T = TypeVar("T")

_computing, _opening = threading.Lock(), threading.Lock()
_few = threading.BoundedSemaphore(IN_FLIGHT)  # whatever number of threads a worker was given


@dataclass
class Took:
    """Seconds that a task has read, computed and written."""

    read: float = 0.0
    compute: float = 0.0
    write: float = 0.0
    _since: float = field(default_factory=time.perf_counter)

    def lap(self, part: str) -> None:
        """Count what has passed since the last time as reading, computing or writing."""
        now = time.perf_counter()
        setattr(self, part, getattr(self, part) + now - self._since)
        self._since = now

    @property
    def seconds(self) -> tuple[float, float, float]:
        """Read, computed and written."""
        return self.read, self.compute, self.write

    def skip(self) -> None:
        """Count what has passed as waiting."""
        self._since = time.perf_counter()


@dataclass(frozen=True, kw_only=True)
class Done:
    """What a task tells.

    Attributes
    ----------
    key
        Of what was done.
    checksum
        Of what was written.
    clipped
        Voxels that the type of the result cannot hold.
    light
        Sum of the result over a block, in image units.
    image
        And of the image, over what is read of it but once.
    source
        Checksum of the image over that.
    seconds
        Read, computed and written.
    peak_bytes
        Memory of the worker, the most that it ever had.
    """

    key: Key
    checksum: str = ""
    clipped: int = 0
    light: float = 0.0
    image: float = 0.0
    source: str = ""
    seconds: tuple[float, float, float]
    peak_bytes: int


class _Bench:
    """A job as a worker has it open."""

    def __init__(self, out: str, device: str, began: int) -> None:
        self.folder, self._began = Folder(Path(out)), began
        job = self.folder.job()
        assert job is not None
        self.job: Job = job
        self.source: Image = open_image(job.origin)
        self.psf, self.model = self.folder.psf(), self.folder.model()
        self.device = resolve_device(device)
        self.settings: Settings = _settings(job)
        self.told: RldSettings | None = None
        if self.psf is not None and any(job.plan.core):
            if isinstance(self.settings, RldSettings):
                self.told = self.settings
            elif self.model is not None:
                self.told = self.model.start.rld()
        self.network: Folded | None = None
        if self.model is not None:
            self.network = Folded(self.model.network, self.device, job.settings["precision"])
        self.merge = _merge(job, self.model, self.psf)
        self.target = self.folder.target(job)

    def check_current(self) -> None:
        """Raise if another run has taken the folder since, into which nothing may be written.

        Raises
        ------
        ComputeError
            If so.
        """
        if _stamp(self.folder) != self._began:
            raise ComputeError(f"{self.folder.part} is of another run by now.")


def _settings(job: Job) -> Settings:
    """Return the settings of a job."""
    fields = dict(job.settings)
    if job.method == "rln":
        known = {field.name for field in dataclasses.fields(RlnSettings)}
        return RlnSettings(**{name: value for name, value in fields.items() if name in known})
    if fields["resolution_um"] is not None:
        fields["resolution_um"] = tuple(fields["resolution_um"])
    return RldSettings(**fields)


def _merge(job: Job, model: Model | None, psf: Volume | None) -> Merge | None:
    """Return what makes a result of the network's output; none where that is the result."""
    if model is None or psf is None or not model.start.needs_psf:
        return None
    found = job.statistics.consistency
    return Merge(Consistency() if found is None else Consistency.from_json(found), psf.data)


def _stamp(folder: Folder) -> int:
    """Return by what a run is told from another one of the same name.

    Raises
    ------
    ComputeError
        If there is none.
    """
    try:
        return folder.stamp()
    except FileNotFoundError as error:
        raise ComputeError(
            f"a worker does not see {folder.part}; all machines need the same folders."
        ) from error


_opened = functools.lru_cache(maxsize=2)(_Bench)


def _bench(out: str, device: str) -> _Bench:
    """Return a job opened by this process; not that of an earlier run of the same name."""
    began = _stamp(Folder(Path(out)))
    with _opening:
        bench = _opened(out, device, began)
    compute_with(bench.job.threads)
    return bench


def compute_with(threads: int) -> None:
    """Have this process compute with so many threads.

    Only where it does not: being told so changes the last digits of what it computes later.
    """
    if torch.get_num_threads() != threads:
        torch.set_num_threads(threads)


def close() -> None:
    """Let go of the jobs that this process has open, with their files and networks."""
    _opened.cache_clear()


def few_at_once(task: Callable[..., T]) -> Callable[..., T]:
    """Let no more tasks run in a process at once than its memory is planned for."""

    @functools.wraps(task)
    def waiting(*arguments: Any) -> T:
        with _few:
            return task(*arguments)

    return waiting


@few_at_once
def deconvolve_tile(out: str, device: str, time: int, number: int) -> Done:
    """Deconvolve a tile classically and keep it for the blocks that need it.

    Raises
    ------
    RlnError
        If the image cannot be used there.
    ComputeError
        If the computation fails.
    OSError
        If the image cannot be read or the disk is full.
    """
    bench, took = _bench(out, device), Took()
    job, tile = bench.job, bench.job.plan.tiles[number]
    assert bench.psf is not None
    assert bench.told is not None
    around = Around(bench.source, tile.window, bench.settings, time)
    took.lap("read")
    kept = within(job.plan.kept(tile), tile.window)
    with _computing:
        took.skip()
        # Here, where one tile at a time is: it takes memory as a deconvolution does.
        source = around.checksum(tile.inner)
        calibration = job.statistics.calibrated_at(time)
        image, seen = around.measured(calibration, bench.psf, bench.settings)
        light = float(image[tile.inner].sum(dtype=np.float64))
        found, volume = job.statistics, Volume(data=image, voxel_um=job.voxel_um)
        # All tiles begin alike and go on alike; a single one goes its own way.
        alike: dict[str, Any] = {"seen": seen}
        if len(job.plan.tiles) > 1:
            alike |= {"momenta": found.momenta, "flat": found.mean - found.background}
        run = rld.start(volume, bench.psf, calibration, bench.told, bench.device, **alike)
        for _ in range(job.statistics.iterations):
            run.step(measure=False)
        data = run.estimate(kept)
        del run
        took.lap("compute")
    del image, volume
    release_freed_memory()  # else every thread would keep what it once had
    bench.check_current()
    path = bench.folder.scratch(time, number)
    with atomic(path) as temporary:
        np.save(temporary, data)
    took.lap("write")
    return Done(
        key=Key(time, TILE, number),
        checksum=checksum(data),
        image=light,
        source=source,
        seconds=took.seconds,
        peak_bytes=peak_bytes(),
    )


@few_at_once
def finish_block(out: str, device: str, time: int, number: int) -> Done:
    """Write a block of the result, for which all tiles that have a say are there.

    Raises
    ------
    RlnError, ComputeError, OSError
        As :func:`deconvolve_tile`.
    """
    bench, took = _bench(out, device), Took()
    job, plan = bench.job, bench.job.plan
    block = plan.blocks[number]
    estimate: FloatArray | None = None
    light, source = 0.0, ""
    if plan.tiles:
        kept = {
            n: np.load(bench.folder.scratch(time, n), mmap_mode="r")
            for n in plan.needed(block.window)
        }
        estimate = blend(plan, block.window, kept)
    if bench.network is None:
        assert estimate is not None
        took.lap("read")
        data = estimate[block.inner]
    else:
        around = Around(bench.source, block.window, bench.settings, time)
        took.lap("read")
        with _computing:
            took.skip()
            if estimate is None:  # no tile has read it
                source = around.checksum(block.inner)
            calibration = job.statistics.calibrated_at(time)
            image, seen = around.measured(calibration, bench.psf, bench.settings)
            if estimate is None:
                estimate = image - np.float32(job.statistics.background)
                light = float(image[block.inner].sum(dtype=np.float64))
            assert bench.model is not None
            found = job.statistics
            scaling = Normalisation(offset=found.offset, scale=found.scale)
            data = through_network(
                bench.network,
                bench.model,
                scaling,
                found.background,
                image,
                estimate,
                block.inner,
                seen,
                bench.merge,
            )
            took.lap("compute")
        del image, estimate
    stored, low, high = converted(np.ascontiguousarray(data), job.dtype)
    bench.check_current()
    bench.target.write(block.core, stored, time)
    release_freed_memory()
    took.lap("write")
    return Done(
        key=Key(time, 0, number),
        checksum=checksum(stored),
        clipped=low + high,
        light=float(data.sum(dtype=np.float64)),
        image=light,
        source=source,
        seconds=took.seconds,
        peak_bytes=peak_bytes(),
    )


@few_at_once
def coarsen_block(out: str, device: str, time: int, level: int, number: int) -> Done:
    """Write a block of a coarser level from the level before it.

    Raises
    ------
    OSError
        If the disk is full.
    """
    bench, took = _bench(out, device), Took()
    assert isinstance(bench.target, ZarrTarget)
    box = bench.job.plan.level_boxes(level)[number]
    stored = bench.target.coarsened(box, time, level)
    took.lap("read")
    bench.check_current()
    bench.target.write(box, stored, time, level)
    took.lap("write")
    return Done(
        key=Key(time, level, number),
        checksum=checksum(stored),
        seconds=took.seconds,
        peak_bytes=peak_bytes(),
    )


@few_at_once
def check_source(out: str, device: str, key: Key, expected: str) -> bool:
    """Tell whether the image is still what a tile, or a block without one, was made of."""
    bench = _bench(out, device)
    time, level, number = key
    plan = bench.job.plan
    core = (plan.tiles if level == TILE else plan.blocks)[number].core
    return checksum(bench.source.read(core, time)) == expected


@few_at_once
def check_block(out: str, device: str, key: Key, expected: str) -> bool:
    """Tell whether a block or a tile of an interrupted run is still what was written."""
    bench = _bench(out, device)
    if key.level != TILE:
        intact = is_intact(bench.target, bench.job, key, expected)
        if not intact and isinstance(bench.target, ZarrTarget):
            bench.target.erase(box_of(bench.job, key), key.time, key.level)
        return intact
    try:
        return checksum(np.load(bench.folder.scratch(key.time, key.number))) == expected
    except (OSError, ValueError, EOFError):  # half-written, or damaged; it is done again
        return False
