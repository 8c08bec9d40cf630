"""What a run from disk to disk needs, by how it is divided: memory, disk, time.

Numbers of bytes and seconds for each voxel were measured (``benchmarks/forecast.py``).
"""

import math
import shutil

import torch

from napari_rln.core.errors import RlnError
from napari_rln.core.machine import LIBRARIES_BYTES, SHARE
from napari_rln.core.tiles import Shape
from napari_rln.deconvolution.convolution import padded_shape
from napari_rln.deconvolution.rld_settings import RldSettings, memory_bytes
from napari_rln.engine.cost import NETWORK_FACTOR, setup_seconds, sought_iterations, step_seconds
from napari_rln.engine.division import BLOCK_BYTES, make_plan
from napari_rln.engine.imagej import is_plain_name
from napari_rln.engine.plan import Plan
from napari_rln.engine.request import LargeRun
from napari_rln.engine.sampling import further, looking_bytes, sampled_bytes, telling_size
from napari_rln.engine.speed import Speed
from napari_rln.io.image import Image
from napari_rln.networks.data_consistency import VOXEL_BYTES as MERGE_BYTES
from napari_rln.networks.inference import TORCH_VOXEL_BYTES, Folded
from napari_rln.networks.rln_settings import RlnSettings

LEAST_BYTES = 200_000_000
"""Beside its libraries, without which a worker can do nothing."""

SLACK = 0.95
"""Of the memory that was allowed, that is planned with: freed memory is not given back at once."""

# Bytes per voxel: of a tile's window that is read, waits and is kept while another is computed; of
# a block's that is blended, converted and written.
_WAITING_BYTES, _ALONE_BYTES, _BLENDING_BYTES = 36, 12, 40

MOVING_S = 0.1e-6
"""Seconds per voxel of reading an image whole and writing the result."""

WHOLE_S = 1.0
"""Seconds besides."""

# Seconds per voxel: looking at samples; finding what of a block's window was measured; reading and
# writing; compressing; making the levels. And seconds in which all begins.
_LOOKING, _MEASURING, _MOVING, _COMPRESSING, _LEVELS = 0.45e-6, 0.25e-6, 0.04e-6, 0.06e-6, 0.1e-6
_STARTING, _STARTING_PROCESSES = 2.0, 8.0


def shares(
    run: LargeRun, ram: int, taken: int, kind: str, device_free: int, crowd: int, beside: int
) -> tuple[int, int]:
    """Return what a worker may compute in on its device, and take in memory, beside what it has.

    Parameters
    ----------
    run
        What is asked for.
    ram
        Bytes of memory that are free for a worker.
    taken
        That it has.
    kind, device_free
        Its device, and the bytes that are free there.
    crowd
        Workers on its machine.
    beside
        Bytes that the process has that drives them, where it is another one.
    """
    if run.memory_gb == "auto":
        mine = int(SHARE * ram) - LIBRARIES_BYTES
    else:
        mine = int((SLACK * run.memory_gb * 1e9 - beside) / crowd) - taken - LIBRARIES_BYTES
    return (mine if kind == "cpu" else int(SHARE * device_free)), mine


def worker_memory(
    run: LargeRun, ram: int, taken: int, kind: str, device_free: int, crowd: int, beside: int = 0
) -> tuple[int, int]:
    """Return what :func:`shares` does.

    Raises
    ------
    RlnError
        If that is too little to do anything.
    """
    memory, mine = shares(run, ram, taken, kind, device_free, crowd, beside)
    if mine < LEAST_BYTES:
        taken += LIBRARIES_BYTES
        needed = (beside + crowd * (taken + LEAST_BYTES)) / SLACK / 1e9
        given = ram / 1e9 if run.memory_gb == "auto" else run.memory_gb
        raise RlnError(
            f"{crowd} workers have {taken / 1e9:.2f} GB each before they begin, so "
            f"{given:.2f} GB are too little; allow at least {needed:.1f} GB."
            if crowd > 1 else
            f"the program has {taken / 1e9:.2f} GB before it begins, so {given:.2f} GB are too "
            f"little; allow at least {needed:.1f} GB."
        )  # fmt: skip
    return memory, mine


def plan_of(
    run: LargeRun, source: Image, iterations: int, kind: str, memory: int, ram: int
) -> Plan:
    """Return how the volume is divided for workers with a kind of device."""
    network = isinstance(run.settings, RlnSettings)
    return make_plan(
        source.shape,
        source.voxel_um,
        source.times,
        run.form,
        run.large.ome_zarr,
        psf=run.psf,
        told=run.told,
        iterations=iterations,
        network_voxel_bytes=network_bytes(run, kind) if network else None,
        memory=memory,
        ram=ram,
        side=None if run.tile == "auto" else run.tile,
    )


def network_bytes(run: LargeRun, kind: str) -> float:
    """Return what a run's network takes for each voxel, in bytes of a kind of device."""
    assert run.model is not None
    assert isinstance(run.settings, RlnSettings)
    precision = run.settings.precision
    if kind != "cpu":
        return TORCH_VOXEL_BYTES[precision]
    return Folded(run.model.network, torch.device(kind), precision).bytes_per_voxel


def working_bytes(run: LargeRun, source: Image, plan: Plan, kind: str) -> int:
    """Return what a worker takes at most beside its libraries, in bytes of the machine's memory."""
    told = run.told
    found = [looking_bytes(source, run.psf, told) if kind == "cpu" else 0]
    if told is not None:
        assert run.psf is not None
        window = max((t.shape for t in plan.tiles), key=math.prod)
        computed = memory_bytes(window, run.psf.shape, told) if kind == "cpu" else 0
        waiting = _WAITING_BYTES if len(plan.tiles) > 1 else _ALONE_BYTES
        found.append(computed + waiting * math.prod(window))
    block = max(math.prod(block.shape) for block in plan.blocks)
    per_voxel = float(_BLENDING_BYTES)
    if isinstance(run.settings, RlnSettings):
        network = network_bytes(run, kind) if kind == "cpu" else 0.0
        per_voxel = BLOCK_BYTES + max(network, MERGE_BYTES)
    found.append(int(per_voxel * block))
    return max(found)


def run_seconds(
    run: LargeRun,
    source: Image,
    plan: Plan,
    iterations: int,
    assumed: bool,
    workers: int,
    speed: Speed,
) -> float:
    """Return the seconds of a run: looking, computing, reading, writing, and the levels."""
    told, network = run.told, isinstance(run.settings, RlnSettings)
    precision = run.settings.precision if isinstance(run.settings, RlnSettings) else None
    psf_shape = run.psf.shape if run.psf is not None else None
    computing = computing_seconds(plan, psf_shape, told, iterations, precision, speed)
    windows = plan.times * sum(math.prod(block.shape) for block in plan.blocks)
    if network:
        computing += _MEASURING * windows
    apart = run.large.scheduler is not None or speed.device != "cpu"
    computing /= workers if apart else 1  # workers of one CPU share its cores
    looking = _LOOKING * sampled_bytes(source) / 4
    if told is not None and run.psf is not None:
        part = telling_size(source.shape, run.psf.shape)
        work = math.prod(padded_shape(part, run.psf.shape, told.border))
        looking += speed.check.at(work)  # of the result, in the end
        if assumed:
            sought = sought_iterations(told)
            looking += speed.search.at(math.prod(part)) + setup_seconds(work, told, speed)
            looking += sought * step_seconds(work, told, speed)
        if len(plan.tiles) > 1:  # parts of the image decide what all tiles share
            parts = 1 + (len(further(source, part)) if network else 0)
            once = setup_seconds(work, told, speed) + iterations * step_seconds(work, told, speed)
            looking += parts * once
        if network and assumed:
            looking += (
                2 * speed.network.at(math.prod(part)) * NETWORK_FACTOR[precision or "float32"]
            )
    tiles = plan.times * sum(math.prod(tile.shape) for tile in plan.tiles)
    voxels = plan.times * math.prod(plan.shape)
    moving = _MOVING * (tiles + windows + voxels)
    if run.form == "zarr":
        moving += (_COMPRESSING + (_LEVELS if len(plan.levels) > 1 else 0.0)) * voxels
    starting = _STARTING_PROCESSES if run.large.workers not in ("auto", 1) else _STARTING
    return starting + looking + computing + moving


def computing_seconds(
    plan: Plan,
    psf_shape: Shape | None,
    told: RldSettings | None,
    iterations: int,
    precision: str | None,
    speed: Speed,
) -> float:
    """Return the seconds in which one machine computes all tiles.

    Parameters
    ----------
    plan
        How a volume is divided.
    psf_shape, told, iterations
        Of the classical deconvolution; none where there is none.
    precision
        Of the network; none where there is none.
    speed
        Of the machine.
    """
    seconds = 0.0
    if told is not None:
        assert psf_shape is not None
        for tile in plan.tiles:
            work = math.prod(padded_shape(tile.shape, psf_shape, told.border))
            seconds += setup_seconds(work, told, speed)
            seconds += iterations * step_seconds(work, told, speed)
    if precision is not None:
        windows = sum(math.prod(block.shape) for block in plan.blocks)
        per_voxel = speed.network.per_voxel * NETWORK_FACTOR[precision]
        seconds += speed.network.fixed * len(plan.blocks) + per_voxel * windows
    return plan.times * seconds


def reserved_bytes(run: LargeRun, plan: Plan) -> int:
    """Return what a run may take of the disk if nothing can be compressed."""
    output = plan.output_bytes(run.dtype)
    return output + max(plan.scratch_bytes(), output if is_plain_name(run.out) else 0)


def check_disk(run: LargeRun, plan: Plan) -> None:
    """Raise if the disk of a result has less room than it may take.

    Raises
    ------
    RlnError
        With both numbers.
    """
    folder = run.out.absolute().parent
    needed, free = reserved_bytes(run, plan), free_disk(run)
    if needed > free:
        raise RlnError(
            f"{run.out.name} needs up to {needed / 1e9:.4g} GB but {free / 1e9:.4g} GB are free in "
            f"{folder}; make room, name another folder, or write uint16."
        )


def free_disk(run: LargeRun) -> int:
    """Return how much room there is on the disk of a result, in bytes."""
    return shutil.disk_usage(run.out.absolute().parent).free
