"""What a run from disk to disk will take: how it is divided, memory, disk, time."""

import math
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from napari_rln.cost import NETWORK_FACTOR, setup_seconds, step_seconds
from napari_rln.errors import RlnError
from napari_rln.forward import padded_shape
from napari_rln.large.plan import Plan
from napari_rln.rld import RldSettings
from napari_rln.speed import Speed
from napari_rln.tiles import Shape


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


def check_disk(folder: Path, needed: int, name: str) -> None:
    """Raise if a folder has fewer free bytes than are needed.

    Raises
    ------
    RlnError
        With both numbers.
    """
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise RlnError(
            f"{name} needs up to {needed / 1e9:.4g} GB but {free / 1e9:.4g} GB are free in "
            f"{folder}; make room, name another folder, or write uint16."
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
