"""What runs from disk to disk report; of their own, so that who only shows it loads no Zarr."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from napari_rln.core.volume import Box

if TYPE_CHECKING:
    from napari_rln.engine.batch import Ended, Item
    from napari_rln.engine.forecast import Forecast

Phase = Literal["sample", "stop", "plan", "check", "deconvolve", "tiles", "pyramid"]


@dataclass(frozen=True, kw_only=True)
class LargeReport:
    """Where a run from disk to disk stands.

    Attributes
    ----------
    phase
        ``"stop"`` while it is sought when to stop the classical deconvolution, ``"sample"`` while a
        sample is deconvolved, ``"plan"`` once before the first tile, ``"check"`` while an
        interrupted run's tiles are held against their checksums, ``"deconvolve"`` and ``"tiles"``
        in turn, then ``"pyramid"``.
    done, total
        Of that.
    seconds
        Since the beginning.
    box
        Where the piece lies that was just written, or found to be as it was written.
    time
        And in which volume of a series.
    forecast
        What it will take, with the phase ``"plan"``.
    """

    phase: Phase
    done: int
    total: int
    seconds: float
    box: Box | None = None
    time: int = 0
    forecast: "Forecast | None" = None


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
    item: "Item"
    inner: LargeReport | None = None
    ended: "Ended | None" = None
    phase: Literal["batch"] = "batch"
