"""What a run from disk to disk will take: how it is divided, memory, disk, time."""

import math
import shutil
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from napari_rln.cost import NETWORK_FACTOR, setup_seconds, step_seconds, usual_iterations
from napari_rln.device import resolve_device
from napari_rln.errors import RlnError
from napari_rln.forward import padded_shape
from napari_rln.large.division import make_plan
from napari_rln.large.engines import worker_count
from napari_rln.large.machine import survey
from napari_rln.large.plan import Plan
from napari_rln.large.request import LargeRun, check_run
from napari_rln.machine import LIBRARIES_BYTES, SHARE
from napari_rln.networks.folded import TORCH_VOXEL_BYTES, Folded
from napari_rln.rld import RldSettings
from napari_rln.rln import RlnSettings
from napari_rln.speed import Speed
from napari_rln.stores.source import Source, open_source
from napari_rln.tiles import Shape

_LEAST_BYTES = 200_000_000  # a worker can do nothing with less


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
        That a worker may take.
    output_bytes
        Size of the result, its levels included, before compression.
    scratch_bytes
        And on the disk besides until it is finished, at the most.
    free_bytes
        On that disk.
    seconds
        Of computing; none where this machine's speed was not measured.
    """

    plan: Plan
    iterations: int
    assumed: bool
    workers: int
    memory_bytes: int
    output_bytes: int
    scratch_bytes: int
    free_bytes: int
    seconds: float | None = None

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
        rows += [
            ("memory", f"{self.memory_bytes / 1e9:.2f} GB for each of {self.workers} workers"),
            (
                "disk",
                f"{self.output_bytes / 1e9:.3g} GB before compression, "
                f"{self.scratch_bytes / 1e9:.3g} GB meanwhile, {self.free_bytes / 1e9:.4g} GB free",
            ),
        ]
        if self.seconds is not None:
            rows.append(("computing", duration(self.seconds)))
        return rows


def forecast(run: LargeRun, speed: Speed | None = None) -> Forecast:
    """Return what a run would take, of which nothing is started.

    Where the image decides on the iterations, those of most images are taken.

    Raises
    ------
    RlnError
        If it cannot be run.
    """
    source = open_source(run.origin)
    check_run(run, source)
    kind = resolve_device(run.settings.device).type
    seen = survey(str(run.out.parent), run.settings.device)
    count = 1 if run.large.scheduler else worker_count(run.large, run.settings.device)
    told = run.told
    ahead = usual_iterations(told) if told else 0
    auto = told is not None and told.iterations == "auto"
    if auto and run.model is not None:
        ahead = run.model.start.after(ahead)
    free, taken = seen["ram"] // count, seen["taken"]
    memory, ram = worker_memory(run, free, taken, kind, seen["device_free"], count)
    plan = plan_of(run, source, ahead, kind, memory, ram)
    memory_bytes = ram + taken + LIBRARIES_BYTES
    check_disk(run, plan)
    return forecast_of(run, plan, ahead, auto, count, memory_bytes, speed)


def worker_memory(
    run: LargeRun, ram: int, taken: int, kind: str, device_free: int, crowd: int
) -> tuple[int, int]:
    """Return what a worker may compute in on its device, and take in memory, beside what it has.

    Raises
    ------
    RlnError
        If that is too little to do anything.
    """
    taken += LIBRARIES_BYTES
    if run.memory_gb == "auto":
        mine = int(SHARE * ram)
    else:
        mine = int(run.memory_gb * 1e9 / crowd) - taken
    if mine < _LEAST_BYTES:
        least = crowd * (taken + _LEAST_BYTES) / 1e9
        given = ram / 1e9 if run.memory_gb == "auto" else run.memory_gb
        raise RlnError(
            f"{crowd} workers have {taken / 1e9:.2f} GB each before they begin, so "
            f"{given:.2f} GB are too little; allow at least {least:.1f} GB."
        )
    return (mine if kind == "cpu" else int(SHARE * device_free)), mine


def plan_of(
    run: LargeRun, source: Source, iterations: int, kind: str, memory: int, ram: int
) -> Plan:
    """Return how the volume is divided for workers with a kind of device."""
    per_voxel = None
    if isinstance(run.settings, RlnSettings):
        assert run.model is not None
        precision = run.settings.precision
        per_voxel = TORCH_VOXEL_BYTES[precision]
        if kind == "cpu":
            per_voxel = Folded(run.model.network, torch.device(kind), precision).bytes_per_voxel
    return make_plan(
        source.shape,
        source.voxel_um,
        source.times,
        run.form,
        run.large.ome_zarr,
        psf=run.psf,
        told=run.told,
        iterations=iterations,
        network_voxel_bytes=per_voxel,
        memory=memory,
        ram=ram,
        side=None if run.tile == "auto" else run.tile,
    )


def forecast_of(
    run: LargeRun,
    plan: Plan,
    iterations: int,
    assumed: bool,
    workers: int,
    memory: int,
    speed: Speed | None,
) -> Forecast:
    """Return what a plan will take, by so many workers with so much memory each."""
    seconds = None
    if speed is not None:
        precision = run.settings.precision if isinstance(run.settings, RlnSettings) else None
        psf_shape = run.psf.shape if run.psf is not None else None
        seconds = computing_seconds(plan, psf_shape, run.told, iterations, precision, speed)
        apart = run.large.scheduler is not None or speed.device != "cpu"
        seconds /= workers if apart else 1  # workers of one CPU share its cores
    return Forecast(
        plan=plan,
        iterations=iterations,
        assumed=assumed,
        workers=workers,
        memory_bytes=memory,
        output_bytes=plan.output_bytes(run.dtype),
        scratch_bytes=plan.scratch_bytes(),
        free_bytes=_free(run),
        seconds=seconds,
    )


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


def check_disk(run: LargeRun, plan: Plan) -> None:
    """Raise if the disk of a result has less room than it may take.

    Raises
    ------
    RlnError
        With both numbers.
    """
    folder = run.out.absolute().parent
    needed, free = plan.output_bytes(run.dtype) + plan.scratch_bytes(), _free(run)
    if needed > free:
        raise RlnError(
            f"{run.out.name} needs up to {needed / 1e9:.4g} GB but {free / 1e9:.4g} GB are free in "
            f"{folder}; make room, name another folder, or write uint16."
        )


def _free(run: LargeRun) -> int:
    return shutil.disk_usage(run.out.absolute().parent).free


def duration(seconds: float) -> str:
    """Return a time for a person."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


def _sizes(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape))
