"""Memory and disk space of a run in parts, for its plan.

Bytes per voxel are measured (``benchmarks/memory.py``).
"""

import math
import shutil

from napari_rln.core.errors import RlnError
from napari_rln.core.machine import LIBRARIES_BYTES, USABLE_FRACTION
from napari_rln.deconvolution.method import Json
from napari_rln.engine.division import BLOCK_BYTES, make_plan
from napari_rln.engine.executors import Room
from napari_rln.engine.imagej import is_plain_name
from napari_rln.engine.plan import Plan
from napari_rln.engine.sampling import search_bytes
from napari_rln.engine.task import Task
from napari_rln.io.image import Image

LEAST_BYTES = 200_000_000
"""Least memory of a worker beside its libraries."""

SLACK = 0.95
"""Planned fraction of the memory limit, as freed memory is not returned at once."""

# Bytes per voxel: of a tile's window that is read or kept while another is computed; of a block's
# window that is blended, converted and written.
_WAITING_BYTES, _ALONE_BYTES, _BLENDING_BYTES = 36, 12, 40


def allowed_bytes(task: Task, room: Room) -> tuple[int, int]:
    """Return the further memory of a worker on its device and on its machine, bytes."""
    memory_gb = task.execution.memory_gb
    if memory_gb == "auto":
        on_machine = int(USABLE_FRACTION * room.ram) - LIBRARIES_BYTES
    else:
        each = int((SLACK * memory_gb * 1e9 - room.driver_bytes) / room.per_machine)
        on_machine = each - room.used - LIBRARIES_BYTES
    on_device = on_machine if room.kind == "cpu" else int(USABLE_FRACTION * room.device_free)
    return on_device, on_machine


def worker_memory(task: Task, room: Room) -> tuple[int, int]:
    """Return the result of :func:`allowed_bytes`.

    Raises
    ------
    RlnError
        If that is too little for any work.
    """
    memory, on_machine = allowed_bytes(task, room)
    if on_machine < LEAST_BYTES:
        used, per_machine = room.used + LIBRARIES_BYTES, room.per_machine
        needed = (room.driver_bytes + per_machine * (used + LEAST_BYTES)) / SLACK / 1e9
        memory_gb = task.execution.memory_gb
        allowed = room.ram / 1e9 if memory_gb == "auto" else memory_gb
        raise RlnError(
            f"{per_machine} workers take {used / 1e9:.2f} GB each before the first tile, so "
            f"{allowed:.2f} GB are too little; allow at least {needed:.1f} GB."
            if per_machine > 1 else
            f"the program takes {used / 1e9:.2f} GB before the first tile, so {allowed:.2f} GB "
            f"are too little; allow at least {needed:.1f} GB."
        )  # fmt: skip
    return memory, on_machine


def plan_of(task: Task, image: Image, shared: Json, kind: str, memory: int, ram: int) -> Plan:
    """Return the plan of a volume for workers with a type of device."""
    side = task.execution.tile
    return make_plan(
        image,
        image.times,
        task.psf,
        task.method,
        shared,
        form=task.form,
        version=task.output.ome_zarr,
        kind=kind,
        memory=memory,
        ram=ram,
        side=None if side == "auto" else side,
    )


def working_bytes(task: Task, plan: Plan, kind: str) -> int:
    """Return the peak memory of a worker beside its libraries, on its machine, bytes."""
    stage, second, on_cpu = task.method.tiles, task.method.blocks, kind == "cpu"
    peaks = [search_bytes(plan.shape, task.psf, stage) if on_cpu else 0]
    if stage is not None:
        assert task.psf is not None
        window = max((t.shape for t in plan.tiles), key=math.prod)
        computed = stage.memory_bytes(window, task.psf.shape) if on_cpu else 0
        waiting = _WAITING_BYTES if len(plan.tiles) > 1 else _ALONE_BYTES
        peaks.append(computed + waiting * math.prod(window))
    block = max(math.prod(block.shape) for block in plan.blocks)
    per_voxel = float(_BLENDING_BYTES)
    if second is not None:
        per_voxel = BLOCK_BYTES + second.voxel_bytes(kind)
    peaks.append(int(per_voxel * block))
    return max(peaks)


def reserved_bytes(task: Task, plan: Plan) -> int:
    """Return the disk space of a run without compression, bytes."""
    output = plan.output_bytes(task.output.dtype)
    return output + max(plan.scratch_bytes(), output if is_plain_name(task.out) else 0)


def check_disk(task: Task, plan: Plan) -> None:
    """Raise if the disk has less free space than a result may take.

    Raises
    ------
    RlnError
        If so, with both numbers.
    """
    folder = task.out.absolute().parent
    needed, free = reserved_bytes(task, plan), free_disk(task)
    if needed > free:
        raise RlnError(
            f"{task.out.name} needs up to {needed / 1e9:.4g} GB but {free / 1e9:.4g} GB are free "
            f"in {folder}; make room, name another folder, or write uint16."
        )


def free_disk(task: Task) -> int:
    """Return the free space on the disk of a result, bytes."""
    return shutil.disk_usage(task.out.absolute().parent).free
