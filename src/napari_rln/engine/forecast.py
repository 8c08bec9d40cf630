"""What a run in parts will take of memory and disk, before it is started."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from napari_rln.core.device import resolve_device
from napari_rln.core.errors import RlnError
from napari_rln.core.machine import LIBRARIES_BYTES, SHARE, TRANSFORM_BYTES
from napari_rln.deconvolution.method import Json
from napari_rln.engine.executors import worker_count
from napari_rln.engine.history import expected_seconds
from napari_rln.engine.imagej import is_plain_name
from napari_rln.engine.needs import (
    LEAST_BYTES,
    SLACK,
    allowed_bytes,
    free_disk,
    plan_of,
    reserved_bytes,
    working_bytes,
)
from napari_rln.engine.plan import Plan
from napari_rln.engine.sampling import sampled_bytes, search_bytes
from napari_rln.engine.survey import survey
from napari_rln.engine.task import Task, check_task
from napari_rln.io.image import open_image

_MOST_BYTES = 1 << 43  # of a worker's memory, beyond which no division is looked for
_DENSE = 0.75  # of float32 results with noise, that zstd leaves; of whole numbers less is left
_DENSE_INTEGER = 0.6


@dataclass(frozen=True, kw_only=True)
class Forecast:
    """What a run will take.

    Attributes
    ----------
    plan
        How a volume is divided.
    iterations
        Of the tiles; 0 where there are none.
    assumed
        Whether the image's noise will decide that, so that the usual number stands for it.
    workers
        Processes.
    memory_bytes
        That a worker will have at most, with its libraries.
    output_bytes
        Size of the result, its levels included, before compression.
    stored_bytes
        About what of it will be on the disk.
    most_bytes
        And with all that waits there at the most until it is finished.
    free_bytes
        On that disk.
    seconds
        About how long, by earlier runs on this machine; none where there were none.
    missing
        What there is too little of for the run to begin, in sentences.
    """

    plan: Plan
    iterations: int
    workers: int
    memory_bytes: int
    output_bytes: int
    stored_bytes: int
    most_bytes: int
    free_bytes: int
    assumed: bool = False
    seconds: float | None = None
    missing: tuple[str, ...] = ()

    def rows(self) -> tuple[tuple[str, str], ...]:
        """Return what there is to say, in words and numbers."""
        plan = self.plan
        voxels = plan.times * math.prod(plan.shape)
        block = [min(b, n) for b, n in zip(plan.block, plan.shape, strict=True)]
        series = f"{plan.times} volumes of " if plan.times > 1 else ""
        rows = [
            ("image", f"{series}{_sizes(plan.shape)} voxels, {voxels / 1e6:.4g} Mvoxel"),
            ("blocks", f"{plan.times * len(plan.blocks)} of {_sizes(block)}"),
        ]
        if self.iterations:
            steps = f"{self.iterations} iterations" + (" (usual)" if self.assumed else "")
            halo = f", {_sizes(plan.halo)} around" if len(plan.tiles) > 1 else ""
            rows.append(
                ("tiles", f"{plan.times * len(plan.tiles)} of {_sizes(plan.core)}{halo}, {steps}")
            )
        each = "" if self.workers == 1 else f" for each of {self.workers} workers"
        rows += [
            ("memory", f"{self.memory_bytes / 1e9:.2f} GB{each}"),
            ("disk", in_disk(self)),
        ]
        if self.seconds is not None:
            rows.append(("time", f"about {duration(self.seconds)}, by earlier runs"))
        return (*rows, *(("missing", sentence) for sentence in self.missing))


def in_disk(ahead: Forecast) -> str:
    """Return what a run takes of the disk, in words and numbers."""
    stored = f"{ahead.output_bytes / 1e9:.3g} GB"
    if ahead.stored_bytes != ahead.output_bytes:
        stored = f"about {ahead.stored_bytes / 1e9:.3g} GB ({stored} before compression)"
    return (
        f"{stored}, meanwhile up to {ahead.most_bytes / 1e9:.3g} GB, "
        f"{ahead.free_bytes / 1e9:.4g} GB free"
    )


def forecast(task: Task) -> Forecast:
    """Return what a run would take, of which nothing is started.

    Where the image decides on the iterations, those of most images are taken. What there is too
    little of is said in the forecast, which is of the smallest run that could be done instead.

    Raises
    ------
    RlnError
        If image, PSF, method and result do not go together.
    """
    image = open_image(task.image)
    check_task(task, image)
    device, stage, execution = task.method.device, task.method.tiles, task.execution
    kind = resolve_device(device).type
    seen = survey(str(task.out.parent), device)
    count = 1 if execution.scheduler else worker_count(execution, device)
    apart = count > 1 or bool(execution.gpus)
    shared = {} if stage is None else stage.expected()
    searching = search_bytes(image.shape, task.psf, stage)
    missing: list[str] = []

    def planned(memory: int, ram: int, shared: Json = shared) -> Plan | None:
        """Return the plan for so much memory; none where that is too little."""
        try:
            plan = plan_of(task, image, shared, kind, memory, ram)
        except RlnError:
            return None
        return plan if searching <= memory else None

    # The samples are with the process that drives the workers, if it is not the only one.
    taken = seen["taken"] + (0 if apart else sampled_bytes(image))
    beside = seen["taken"] + sampled_bytes(image) if apart else 0
    memory, ram = allowed_bytes(
        task, seen["ram"] // count, taken, kind, seen["device_free"], count, beside
    )
    plan = planned(memory, ram) if ram >= LEAST_BYTES else None
    if plan is None:
        enough = least(lambda ram: planned(memory if kind != "cpu" else ram, ram), ram)
        if enough is None:  # it is not for want of memory
            plan = plan_of(task, image, shared, kind, memory, ram)
        else:
            plan, needed = enough
            missing.append(_too_little(task, needed, ram, count))
    elif stage is not None and stage.depends_on_image:
        most = stage.expected(most=True)  # an image that takes more iterations has wider halos
        if planned(memory, ram, most) is None:
            missing.append(
                f"perhaps memory: an image that takes {most['iterations']} iterations needs more"
            )
    free = free_disk(task)
    wanted = reserved_bytes(task, plan)
    if wanted > free:
        missing.append(
            f"disk: up to {wanted / 1e9:.3g} GB may be needed in {task.out.absolute().parent}, "
            f"{(wanted - free) / 1e9:.3g} GB more than there are"
        )
    assumed = stage is not None and stage.depends_on_image
    found = forecast_of(task, plan, shared, count, kind, taken)
    return replace(found, assumed=assumed, missing=tuple(missing))


def _too_little(task: Task, needed: int, ram: int, count: int) -> str:
    """Return the sentence on memory that is missing."""
    short = count * (needed - ram) / 1e9
    if task.execution.memory_gb == "auto":
        return (
            f"memory: {short / SHARE:.2f} GB more have to be free, of which half is taken unless "
            "`memory_gb` says otherwise"
        )
    short /= SLACK
    return (
        f"memory: `memory_gb` is {task.execution.memory_gb:g}; {short:.2f} GB more are needed, "
        f"{math.ceil(100 * (task.execution.memory_gb + short)) / 100:g} in all"
    )


def least(planned: Callable[[int], Plan | None], least_bytes: int) -> tuple[Plan, int] | None:
    """Return the plan for the least memory with which there is one, and that; none if there is.

    Parameters
    ----------
    planned
        Returns the plan for so many bytes, or none.
    least_bytes
        With which there is none.
    """
    low = high = max(least_bytes, LEAST_BYTES)
    while (found := planned(high)) is None:
        low, high = high, 2 * high
        if high > _MOST_BYTES:
            return None
    while high - low > 0.01 * high:
        middle = (low + high) // 2
        plan = planned(middle)
        if plan is None:
            low = middle
        else:
            found, high = plan, middle
    return found, high


def forecast_of(
    task: Task, plan: Plan, shared: Json, workers: int, kind: str, taken: int
) -> Forecast:
    """Return what a plan will take, by so many workers that have so much before they begin."""
    output = plan.output_bytes(task.output.dtype)
    stored = output
    if task.form == "zarr":
        stored = int(output * (_DENSE if task.output.dtype == "float32" else _DENSE_INTEGER))
    libraries = LIBRARIES_BYTES if task.method.blocks is not None else TRANSFORM_BYTES
    most = stored + plan.scratch_bytes()
    if is_plain_name(task.out):  # which is copied in the end
        most = max(most, 2 * stored)
    return Forecast(
        plan=plan,
        iterations=shared.get("iterations", 0),
        workers=workers,
        memory_bytes=taken + libraries + working_bytes(task, plan, kind),
        output_bytes=output,
        stored_bytes=stored,
        most_bytes=most,
        free_bytes=free_disk(task),
        seconds=expected_seconds(task.method, kind, plan.times * math.prod(plan.shape)),
    )


def duration(seconds: float) -> str:
    """Return a time for a person."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


def _sizes(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape))
