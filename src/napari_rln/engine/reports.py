"""Reports of a batch, in a module of their own, so that displaying them does not load Zarr."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from napari_rln.core.report import Report

if TYPE_CHECKING:
    from napari_rln.engine.job import Job


@dataclass(frozen=True, kw_only=True)
class BatchItem:
    """One image of a batch.

    Attributes
    ----------
    job
        Job of the image.
    problem
        Reason why it cannot run; empty without one.
    """

    job: "Job"
    problem: str = ""

    @property
    def label(self) -> str:
        """File, channel and time point of the image."""
        image = self.job.image
        mark = "" if image.channel is None else f" channel {image.channel}"
        mark += "" if image.time is None else f" time {image.time}"
        return f"{Path(image.path).name}{mark}"

    @property
    def out(self) -> Path:
        """Path of the result."""
        return self.job.output.path


@dataclass(frozen=True, kw_only=True)
class ItemOutcome:
    """Outcome of one image of a batch.

    Attributes
    ----------
    item
        The image.
    error
        Reason of the failure; empty without one.
    seconds
        Duration.
    summary
        Measured facts.
    computed
        Whether the result was computed now; otherwise it already existed, complete.
    warnings
        Warnings for the user.
    """

    item: BatchItem
    error: str = ""
    seconds: float = 0.0
    summary: dict[str, Any] = field(default_factory=dict)
    computed: bool = True
    warnings: tuple[str, ...] = ()

    @property
    def status(self) -> Literal["done", "already complete", "failed"]:
        """Outcome in a word."""
        return "failed" if self.error else "done" if self.computed else "already complete"


@dataclass(frozen=True, kw_only=True)
class BatchReport:
    """Progress of a batch.

    Attributes
    ----------
    phase
        ``"batch"``.
    done, total
        Finished images, and all.
    item
        Image being deconvolved, or just finished.
    inner
        Report on that image; None when finished.
    outcome
        Outcome of that image; None until finished.
    """

    done: int
    total: int
    item: BatchItem
    inner: Report | None = None
    outcome: ItemOutcome | None = None
    phase: Literal["batch"] = "batch"
