"""Memory and disk space of a run in parts, estimated before it is started."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from napari_rln.core.device import resolve_device
from napari_rln.core.errors import RlnError
from napari_rln.core.machine import LIBRARIES_BYTES, TRANSFORM_BYTES, USABLE_FRACTION
from napari_rln.core.report import duration
from napari_rln.deconvolution.method import Json
from napari_rln.engine.executors import Room, worker_count
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

_MOST_BYTES = 1 << 43  # largest considered memory of a worker
_DENSE = 0.75  # compressed fraction of noisy float32 results by zstd; less for integers
_DENSE_INTEGER = 0.6


@dataclass(frozen=True, kw_only=True)
class Forecast:
    """Estimated memory, disk space and time of a run.

    Attributes
    ----------
    plan
        Division of a volume.
    iterations
        Number of iterations of the tiles; 0 without.
    assumed
        Whether the number of iterations is a typical one, as the image's noise will determine it.
    workers
        Number of processes.
    memory_bytes
        Peak memory of a worker, with its libraries.
    output_bytes
        Size of the result, its levels included, before compression.
    stored_bytes
        Approximate size of the result on the disk.
    most_bytes
        Largest size on the disk during the run, with waiting tiles.
    free_bytes
        Free space on that disk.
    seconds
        Approximate duration by earlier runs on this machine; None without them.
    missing
        Sentences on insufficient memory or disk space.
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
        """Return the forecast as rows of names and values."""
        plan = self.plan
        voxels = plan.times * math.prod(plan.shape)
        block = [min(b, n) for b, n in zip(plan.block, plan.shape, strict=True)]
        series = f"{plan.times} volumes of " if plan.times > 1 else ""
        rows = [
            ("image", f"{series}{_sizes(plan.shape)} voxels, {voxels / 1e6:.4g} Mvoxel"),
            ("blocks", f"{plan.times * len(plan.blocks)} of {_sizes(block)}"),
        ]
        if plan.tiles:
            steps = f", {self.iterations} iterations" if self.iterations else ""
            steps += " (typical)" if steps and self.assumed else ""
            halo = f", halo {_sizes(plan.halo)}" if len(plan.tiles) > 1 else ""
            rows.append(
                ("tiles", f"{plan.times * len(plan.tiles)} of {_sizes(plan.core)}{halo}{steps}")
            )
        each = "" if self.workers == 1 else f" for each of {self.workers} workers"
        rows += [
            ("memory", f"{self.memory_bytes / 1e9:.2f} GB{each}"),
            ("disk", in_disk(self)),
        ]
        if self.seconds is not None:
            rows.append(("time", f"{duration(self.seconds, approximate=True)}, by earlier runs"))
        return (*rows, *(("missing", sentence) for sentence in self.missing))


def in_disk(expected: Forecast) -> str:
    """Return the disk space of a run as text."""
    stored = f"{expected.output_bytes / 1e9:.3g} GB"
    if expected.stored_bytes != expected.output_bytes:
        stored = f"about {expected.stored_bytes / 1e9:.3g} GB ({stored} before compression)"
    return (
        f"{stored}, meanwhile up to {expected.most_bytes / 1e9:.3g} GB, "
        f"{expected.free_bytes / 1e9:.4g} GB free"
    )


def forecast(task: Task) -> Forecast:
    """Return the forecast of a run, without starting it.

    Where the number of iterations depends on the image, a typical one is assumed. Insufficient
    memory or disk space is reported in the forecast, which is then that of the smallest possible
    run.

    Raises
    ------
    RlnError
        If image, PSF, method and result do not match.
    """
    image = open_image(task.image)
    check_task(task, image)
    device, stage, execution = task.method.device, task.method.tiles, task.execution
    kind = resolve_device(device).type
    properties = survey(str(task.out.parent), device)
    count = 1 if execution.scheduler else worker_count(execution, device)
    apart = count > 1 or bool(execution.gpus)
    shared = {} if stage is None else stage.expected()
    searching = search_bytes(image.shape, task.psf, stage)
    missing: list[str] = []

    def planned(memory: int, ram: int, shared: Json = shared) -> Plan | None:
        """Return the plan for an amount of memory; None if that is too little."""
        try:
            plan = plan_of(task, image, shared, kind, memory, ram)
        except RlnError:
            return None
        return plan if searching <= memory else None

    # The samples are in the memory of the driving process, if it is not the only one.
    used = properties["used"] + (0 if apart else sampled_bytes(image))
    driver_bytes = properties["used"] + sampled_bytes(image) if apart else 0
    free_ram, on_device = properties["ram"] // count, properties["device_free"]
    memory, ram = allowed_bytes(task, Room(free_ram, used, kind, on_device, count, driver_bytes))
    plan = planned(memory, ram) if ram >= LEAST_BYTES else None
    if plan is None:
        enough = least_memory(lambda ram: planned(memory if kind != "cpu" else ram, ram), ram)
        if enough is None:  # memory is not the reason
            plan = plan_of(task, image, shared, kind, memory, ram)
        else:
            plan, needed = enough
            missing.append(_too_little(task, needed, ram, count))
    elif stage is not None and stage.depends_on_image:
        most = stage.expected(most=True)  # an image with more iterations has wider halos
        if planned(memory, ram, most) is None:
            which = "with less noise"
            if "iterations" in most:
                which = f"that needs {most['iterations']} iterations"
            missing.append(f"possibly memory: an image {which} needs more")
    free = free_disk(task)
    wanted = reserved_bytes(task, plan)
    if wanted > free:
        missing.append(
            f"disk: up to {wanted / 1e9:.3g} GB may be needed in {task.out.absolute().parent}, "
            f"{(wanted - free) / 1e9:.3g} GB more than are free"
        )
    assumed = stage is not None and stage.depends_on_image
    result = forecast_of(task, plan, shared, count, kind, used)
    return replace(result, assumed=assumed, missing=tuple(missing))


def _too_little(task: Task, needed: int, ram: int, count: int) -> str:
    """Return the sentence on insufficient memory."""
    short = count * (needed - ram) / 1e9
    if task.execution.memory_gb == "auto":
        return (
            f"memory: {short / USABLE_FRACTION:.2f} GB more must be free, half of which is used "
            "unless `memory_gb` sets another limit"
        )
    short /= SLACK
    return (
        f"memory: `memory_gb` is {task.execution.memory_gb:g}; {short:.2f} GB more are needed, "
        f"{math.ceil(100 * (task.execution.memory_gb + short)) / 100:g} in all"
    )


def least_memory(
    planned: Callable[[int], Plan | None], least_bytes: int
) -> tuple[Plan, int] | None:
    """Return the plan for the least sufficient memory, and that memory; None without a plan."""
    low = high = max(least_bytes, LEAST_BYTES)
    while (plan_found := planned(high)) is None:
        low, high = high, 2 * high
        if high > _MOST_BYTES:
            return None
    while high - low > 0.01 * high:
        middle = (low + high) // 2
        plan = planned(middle)
        if plan is None:
            low = middle
        else:
            plan_found, high = plan, middle
    return plan_found, high


def forecast_of(
    task: Task, plan: Plan, shared: Json, workers: int, kind: str, used: int
) -> Forecast:
    """Return the forecast of a plan, for a number of workers and their initial memory."""
    output = plan.output_bytes(task.output.dtype)
    stored = output
    if task.form == "zarr":
        stored = int(output * (_DENSE if task.output.dtype == "float32" else _DENSE_INTEGER))
    libraries = LIBRARIES_BYTES if task.method.blocks is not None else TRANSFORM_BYTES
    most = stored + plan.scratch_bytes()
    if is_plain_name(task.out):  # which is copied at the end
        most = max(most, 2 * stored)
    return Forecast(
        plan=plan,
        iterations=shared.get("iterations", 0),
        workers=workers,
        memory_bytes=used + libraries + working_bytes(task, plan, kind),
        output_bytes=output,
        stored_bytes=stored,
        most_bytes=most,
        free_bytes=free_disk(task),
        seconds=expected_seconds(task.method, kind, plan.times * math.prod(plan.shape)),
    )


def _sizes(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape))
