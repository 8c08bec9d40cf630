"""Where a result goes, and by what it is computed."""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Literal

from napari_rln.core.errors import RlnError
from napari_rln.core.limits import check_limits
from napari_rln.core.machine import MemoryGb
from napari_rln.core.tiles import TileSide
from napari_rln.io.ome_zarr import Version
from napari_rln.io.volumes import OutputType


@dataclass(frozen=True, kw_only=True)
class OutputFormat:
    """How a result is written.

    Parameters
    ----------
    dtype
        Type of the written values; uint16 and uint8 round and clip.
    ome_zarr
        Version of OME-Zarr that is written: 0.5 has shards, 0.4 is read by older programs.
    overwrite
        Replace what is there, or begin anew where a run with other settings was interrupted.
    """

    dtype: Annotated[OutputType, {"label": "Type of values"}] = "float32"
    ome_zarr: Annotated[Version, {"label": "OME-Zarr"}] = "0.5"
    overwrite: bool = False

    def __post_init__(self) -> None:
        check_limits(self)

    def at(self, path: str | Path) -> "Output":
        """Return the output that is written so at a path."""
        names = (field.name for field in fields(OutputFormat))
        return Output(path=Path(path), **{name: getattr(self, name) for name in names})


@dataclass(frozen=True, kw_only=True)
class Output(OutputFormat):
    """Where a result goes, and how it is written.

    Parameters
    ----------
    path
        Result, .tif (ImageJ, one volume of up to 4 GB), .ome.tif or .ome.zarr; the others are as
        for :class:`OutputFormat`.
    """

    path: Path

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "path", Path(self.path))


@dataclass(frozen=True, kw_only=True)
class Execution:
    """By what a result is computed; it does not depend on it.

    Parameters
    ----------
    memory_gb
        Memory that may be taken, by the program and all workers of a machine together; auto takes
        half of what is free. Volumes that need more are deconvolved in parts.
    tile
        Side in voxels of what is computed at once; auto takes the largest that the memory allows.
    workers
        Processes on this machine, which share its cores; auto takes one for each GPU, on a CPU
        one for each eight cores.
    gpus
        Numbers of the GPUs to use, as 0,1, a worker on each; all when not given.
    scheduler
        Address of a running dask.distributed scheduler, tcp://host:port, whose workers do it.
    """

    memory_gb: MemoryGb = "auto"
    tile: TileSide = "auto"
    workers: Annotated[int | Literal["auto"], {"min": 1, "max": 4096}] = "auto"
    gpus: Annotated[str, {"label": "GPUs"}] = ""
    scheduler: str | None = None

    def __post_init__(self) -> None:
        check_limits(self)
        if self.scheduler is not None and (self.workers != "auto" or self.gpus):
            raise RlnError(
                "workers and gpus are of this machine but a scheduler has workers of its own; give "
                "one or the other."
            )
        words = self.gpus.split(",") if self.gpus else []
        if len(set(words)) < len(words) or not all(word.strip().isdigit() for word in words):
            raise RlnError(f"`gpus` is {self.gpus!r}; give different numbers from 0, such as 0,1.")
        if words and self.workers not in ("auto", len(words)):
            raise RlnError(f"`workers` is {self.workers} but there is one on each of {self.gpus}.")

    @property
    def gpu_numbers(self) -> tuple[int, ...]:
        """Numbers of the GPUs to use; none where all are, or there are none."""
        return tuple(int(word) for word in self.gpus.split(",")) if self.gpus else ()

    @property
    def has_workers(self) -> bool:
        """Whether something is set that only a run in parts has."""
        return self.workers != "auto" or bool(self.gpus) or self.scheduler is not None
