"""What a run from disk to disk will take, before it is started."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from napari_rln.core.device import resolve_device
from napari_rln.core.errors import RlnError
from napari_rln.core.machine import LIBRARIES_BYTES, SHARE, TRANSFORM_BYTES
from napari_rln.engine.cost import usual_iterations
from napari_rln.engine.executors import worker_count
from napari_rln.engine.imagej import is_plain_name
from napari_rln.engine.needs import (
    LEAST_BYTES,
    SLACK,
    free_disk,
    plan_of,
    reserved_bytes,
    run_seconds,
    shares,
    working_bytes,
)
from napari_rln.engine.plan import Plan
from napari_rln.engine.request import LargeRun, check_run
from napari_rln.engine.sampling import looking_bytes, sampled_bytes
from napari_rln.engine.speed import Speed
from napari_rln.engine.survey import survey
from napari_rln.io.image import Image, open_image

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
        Of the classical deconvolution; 0 where there is none.
    assumed
        Whether the image's noise will decide that, so that another image's number stands for it.
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
        From beginning to end; none where this machine's speed was not measured.
    missing
        What there is too little of for the run to begin, in sentences.
    """

    plan: Plan
    iterations: int
    assumed: bool
    workers: int
    memory_bytes: int
    output_bytes: int
    stored_bytes: int
    most_bytes: int
    free_bytes: int
    seconds: float | None = None
    missing: tuple[str, ...] = ()

    def rows(self) -> list[tuple[str, str]]:
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
            told = f"{self.iterations} iterations" + (" (usual)" if self.assumed else "")
            halo = f", {_sizes(plan.halo)} around" if len(plan.tiles) > 1 else ""
            rows.append(
                ("tiles", f"{plan.times * len(plan.tiles)} of {_sizes(plan.core)}{halo}, {told}")
            )
        each = "" if self.workers == 1 else f" for each of {self.workers} workers"
        rows += [
            ("memory", f"{self.memory_bytes / 1e9:.2f} GB{each}"),
            ("disk", in_disk(self)),
        ]
        if self.seconds is not None:
            rows.append(("time", duration(self.seconds)))
        return rows + [("missing", sentence) for sentence in self.missing]


def in_disk(told: Forecast) -> str:
    """Return what a run takes of the disk, in words and numbers."""
    stored = f"{told.output_bytes / 1e9:.3g} GB"
    if told.stored_bytes != told.output_bytes:
        stored = f"about {told.stored_bytes / 1e9:.3g} GB ({stored} before compression)"
    return (
        f"{stored}, meanwhile up to {told.most_bytes / 1e9:.3g} GB, "
        f"{told.free_bytes / 1e9:.4g} GB free"
    )


def forecast(run: LargeRun, speed: Speed | None = None) -> Forecast:
    """Return what a run would take, of which nothing is started.

    Where the image decides on the iterations, those of most images are taken. What there is too
    little of is said in the forecast, which is of the smallest run that could be done instead.

    Raises
    ------
    RlnError
        If image, PSF, model and result do not go together.
    """
    source = open_image(run.origin)
    check_run(run, source)
    kind = resolve_device(run.settings.device).type
    seen = survey(str(run.out.parent), run.settings.device)
    count = 1 if run.large.scheduler else worker_count(run.large, run.settings.device)
    apart = count > 1 or bool(run.large.gpus)
    told = run.told
    ahead = usual_iterations(told) if told else 0
    auto = told is not None and told.iterations == "auto"
    if auto and run.model is not None:
        ahead = run.model.start.after(ahead)
    missing: list[str] = []

    def planned(memory: int, ram: int, iterations: int = ahead) -> Plan | None:
        """Return the plan for so much memory; none where that is too little."""
        try:
            plan = plan_of(run, source, iterations, kind, memory, ram)
        except RlnError:
            return None
        return plan if looking_bytes(source, run.psf, told) <= memory else None

    # The samples are with the process that drives the workers, if it is not the only one.
    taken = seen["taken"] + (0 if apart else sampled_bytes(source))
    beside = seen["taken"] + sampled_bytes(source) if apart else 0
    memory, ram = shares(run, seen["ram"] // count, taken, kind, seen["device_free"], count, beside)
    plan = planned(memory, ram) if ram >= LEAST_BYTES else None
    if plan is None:
        enough = least(lambda ram: planned(memory if kind != "cpu" else ram, ram), ram)
        if enough is None:  # it is not for want of memory
            plan = plan_of(run, source, ahead, kind, memory, ram)
        else:
            plan, needed = enough
            missing.append(_too_little(run, needed, ram, count))
    elif auto and told is not None:  # an image that takes more iterations has wider halos
        most = told.max_iterations
        most = most if run.model is None else run.model.start.after(most)
        if planned(memory, ram, most) is None:
            missing.append(f"perhaps memory: an image that takes {most} iterations needs more")
    free = free_disk(run)
    wanted = reserved_bytes(run, plan)
    if wanted > free:
        missing.append(
            f"disk: up to {wanted / 1e9:.3g} GB may be needed in {run.out.absolute().parent}, "
            f"{(wanted - free) / 1e9:.3g} GB more than there are"
        )
    found = forecast_of(run, source, plan, ahead, auto, count, taken, speed, kind)
    return replace(found, missing=tuple(missing))


def _too_little(run: LargeRun, needed: int, ram: int, count: int) -> str:
    """Return the sentence on memory that is missing."""
    short = count * (needed - ram) / 1e9
    if run.memory_gb == "auto":
        return (
            f"memory: {short / SHARE:.2f} GB more have to be free, of which half is taken unless "
            "`memory_gb` says otherwise"
        )
    short /= SLACK
    return (
        f"memory: `memory_gb` is {run.memory_gb:g}; {short:.2f} GB more are needed, "
        f"{math.ceil(100 * (run.memory_gb + short)) / 100:g} in all"
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
    run: LargeRun,
    source: Image,
    plan: Plan,
    iterations: int,
    assumed: bool,
    workers: int,
    taken: int,
    speed: Speed | None,
    kind: str,
) -> Forecast:
    """Return what a plan will take, by so many workers that have so much before they begin."""
    seconds = None
    if speed is not None:
        seconds = run_seconds(run, source, plan, iterations, assumed, workers, speed)
    output = plan.output_bytes(run.dtype)
    stored = output
    if run.form == "zarr":
        stored = int(output * (_DENSE if run.dtype == "float32" else _DENSE_INTEGER))
    most = stored + plan.scratch_bytes()
    if is_plain_name(run.out):  # which is copied in the end
        most = max(most, 2 * stored)
    return Forecast(
        plan=plan,
        iterations=iterations,
        assumed=assumed,
        workers=workers,
        memory_bytes=taken
        + (TRANSFORM_BYTES if run.method == "rld" else LIBRARIES_BYTES)
        + working_bytes(run, source, plan, kind),
        output_bytes=output,
        stored_bytes=stored,
        most_bytes=most,
        free_bytes=free_disk(run),
        seconds=seconds,
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
