"""How a run from disk to disk is divided and by whom it is done."""

from dataclasses import dataclass
from typing import Annotated, Literal

from napari_rln.core.errors import RlnError
from napari_rln.core.settings import check_limits
from napari_rln.io.ome_zarr import Version


@dataclass(frozen=True, kw_only=True)
class LargeSettings:
    """How a run from disk to disk is done.

    Parameters
    ----------
    workers
        Processes on this machine, which share its cores; auto takes one for each GPU, on a CPU
        one for each eight cores.
    gpus
        Numbers of the GPUs to use, as 0,1, a worker on each; all when not given.
    scheduler
        Address of a running dask.distributed scheduler, tcp://host:port, whose workers do it.
    ome_zarr
        Version of OME-Zarr that is written: 0.5 has shards, 0.4 is read by older programs.
    overwrite
        Whether to begin anew where there is a result, or a run with other settings was interrupted.
    """

    workers: Annotated[int | Literal["auto"], {"min": 1, "max": 4096}] = "auto"
    gpus: str = ""
    scheduler: str | None = None
    ome_zarr: Version = "0.5"
    overwrite: bool = False

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
    def asked(self) -> bool:
        """Whether something is set that only a run from disk to disk has."""
        return self.workers != "auto" or bool(self.gpus) or self.scheduler is not None
