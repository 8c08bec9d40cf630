"""What a batch reports; of their own, so that who only shows it loads no Zarr."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from napari_rln.core.report import Report

if TYPE_CHECKING:
    from napari_rln.engine.job import Job


@dataclass(frozen=True, kw_only=True)
class Item:
    """One image of a batch.

    Attributes
    ----------
    job
        What is done.
    problem
        Why it cannot be done, where that is known.
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
        """Its result."""
        return self.job.output.path


@dataclass(frozen=True, kw_only=True)
class Ended:
    """What became of an image.

    Attributes
    ----------
    item
        The image.
    error
        Why it failed; empty where it did not.
    seconds
        It took.
    summary
        What was found.
    made
        Whether it was made now; else it was there, complete.
    warnings
        What the user should know.
    """

    item: Item
    error: str = ""
    seconds: float = 0.0
    summary: dict[str, Any] = field(default_factory=dict)
    made: bool = True
    warnings: tuple[str, ...] = ()

    @property
    def status(self) -> Literal["done", "there before", "failed"]:
        """In a word."""
        return "failed" if self.error else "done" if self.made else "there before"


@dataclass(frozen=True, kw_only=True)
class BatchReport:
    """Where a batch stands.

    Attributes
    ----------
    phase
        ``"batch"``.
    done, total
        Images.
    item
        That is worked on, or that has just ended.
    inner
        Where that stands; none where it has ended.
    ended
        What became of it; none where it has not.
    """

    done: int
    total: int
    item: Item
    inner: Report | None = None
    ended: Ended | None = None
    phase: Literal["batch"] = "batch"
