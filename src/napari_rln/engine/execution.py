"""Settings of output and execution: file format, memory, workers."""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Literal

from napari_rln.core.errors import RlnError
from napari_rln.core.limits import check_limits
from napari_rln.core.machine import MemoryGb
from napari_rln.core.tiles import TileSide
from napari_rln.io.ome_zarr import Version
from napari_rln.io.volumes import OutputType

_BIT_DEPTHS = {
    "float32": "32-bit (float)",
    "uint16": "16-bit (rounded)",
    "uint8": "8-bit (rounded)",
}

Overwrite = Annotated[bool, {"label": "Replace an existing result"}]
"""Whether a result replaces an existing one."""


@dataclass(frozen=True, kw_only=True)
class OutputFormat:
    """Format of a result.

    Parameters
    ----------
    dtype
        Number type of the written values: ``float32`` keeps them; ``uint16`` and ``uint8`` round
        and clip. Choose ``uint16`` for programs that read nothing else.
    ome_zarr
        OME-Zarr version: 0.5 writes few, large files. Choose 0.4 for older programs.
    overwrite
        Replace an existing result, or restart an interrupted run that had other settings. Switch it
        on only if the old result is not needed.
    """

    dtype: Annotated[OutputType, {"label": "Bit depth", "words": _BIT_DEPTHS}] = "float32"
    ome_zarr: Annotated[Version, {"label": "OME-Zarr version"}] = "0.5"
    overwrite: Overwrite = False

    def __post_init__(self) -> None:
        check_limits(self)

    def at(self, path: str | Path) -> "Output":
        """Return the output in this format at a path."""
        names = (field.name for field in fields(OutputFormat))
        return Output(path=Path(path), **{name: getattr(self, name) for name in names})


@dataclass(frozen=True, kw_only=True)
class Output(OutputFormat):
    """Path and format of a result.

    Parameters
    ----------
    path
        Result, .tif (ImageJ, one volume of up to 4 GB), .ome.tif or .ome.zarr; other parameters as
        for :class:`OutputFormat`.
    """

    path: Path

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "path", Path(self.path))


@dataclass(frozen=True, kw_only=True)
class Execution:
    """Memory, tiles and workers of a computation; the result does not depend on them.

    Parameters
    ----------
    memory_gb
        Memory limit of the program and all workers of a machine together, GB; ``auto``: half of the
        free memory. Larger volumes are deconvolved in parts. Lower it to leave room for other
        programs.
    tile
        Side of a tile, voxels; ``auto``: the largest that fits the memory. Keep ``auto`` unless you
        measure speed.
    workers
        Number of processes on this machine, which share its cores; ``auto``: one per GPU, on a CPU
        one per eight cores. Keep ``auto`` unless you measure speed.
    gpus
        Numbers of the GPUs to use, as 0,1, with one worker each; by default all. Leave it out
        unless others use the machine too.
    scheduler
        Address of a running dask.distributed scheduler, tcp://host:port, whose workers are used.
        Leave it out to compute on this machine.
    """

    memory_gb: Annotated[MemoryGb, {"label": "Memory limit"}] = "auto"
    tile: Annotated[TileSide, {"label": "Tile (voxels)"}] = "auto"
    workers: Annotated[int | Literal["auto"], {"min": 1, "max": 4096, "label": "Processes"}] = (
        "auto"
    )
    gpus: Annotated[str, {"label": "GPUs"}] = ""
    scheduler: Annotated[str | None, {"label": "Dask scheduler"}] = None

    def __post_init__(self) -> None:
        check_limits(self)
        if self.scheduler is not None and (self.workers != "auto" or self.gpus):
            raise RlnError(
                "`workers` and `gpus` start workers on this machine but a `scheduler` has its own; "
                "give one or the other."
            )
        numbers = self.gpus.split(",") if self.gpus else []
        if len(set(numbers)) < len(numbers) or not all(n.strip().isdigit() for n in numbers):
            raise RlnError(f"`gpus` is {self.gpus!r}; give different numbers from 0, such as 0,1.")
        if numbers and self.workers not in ("auto", len(numbers)):
            raise RlnError(
                f"`workers` is {self.workers} but each of the GPUs {self.gpus} has one; leave "
                "`workers` out."
            )

    @property
    def gpu_numbers(self) -> tuple[int, ...]:
        """Numbers of the GPUs to use; empty for all, or without GPUs."""
        return tuple(int(word) for word in self.gpus.split(",")) if self.gpus else ()

    @property
    def has_workers(self) -> bool:
        """Whether a setting that applies only to a run in parts is set."""
        return self.workers != "auto" or bool(self.gpus) or self.scheduler is not None
