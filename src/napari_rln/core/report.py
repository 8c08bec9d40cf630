"""Progress reports, which the generators of this package yield."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from napari_rln.core.tiles import Tile
from napari_rln.core.volume import Box, FloatArray

Phase = Literal[
    "stop", "deconvolve", "start", "compile", "network", "outside",
    "sample", "plan", "check", "tiles", "pyramid",
]  # fmt: skip
"""Phase of the work.

stop: search for the number of iterations; deconvolve: iterations, or tiles; start: initial estimate
of a network; compile: its kernels, once per machine; network: its tiles; outside: light from beyond
the field of view. In a run in parts also: sample: a representative part; plan: once before the
first tile; check: finished parts of an interrupted run; tiles: blocks of the result; pyramid: its
coarser levels.
"""


@dataclass(frozen=True, kw_only=True, eq=False)
class Report:
    """Progress of a deconvolution.

    Attributes
    ----------
    phase
        Phase of the work.
    done, total
        Iterations or tiles of that phase; the maximum during the search for the stop.
    seconds
        Time since the start, seconds.
    relative_change
        Norm of the last iteration's change of the estimate over the norm of the estimate.
    held_out
        Prediction error of held-out photons over that of their noise alone, during the search for
        the number of iterations.
    part
        Part (z, y, x) of the image that :meth:`estimate` covers: a part suffices to find the stop.
    tile, piece
        Finished tile, and its (z, y, x) float32 result, image units, background removed.
    rows
        Memory, disk space and time of a run in parts, as names and text, with the phase plan.
    box, time
        Part (z, y, x) of the result that was just written, or verified, and its time point.
    """

    phase: Phase
    done: int
    total: int
    seconds: float
    relative_change: float = math.nan
    held_out: float | None = None
    part: tuple[slice, ...] = (slice(None),) * 3
    tile: Tile | None = None
    piece: FloatArray | None = None
    box: Box | None = None
    time: int = 0
    rows: tuple[tuple[str, str], ...] = ()
    snapshot: Callable[[], FloatArray] | None = field(default=None, repr=False)

    def estimate(self) -> FloatArray | None:
        """Return a copy of the current estimate, (z, y, x) float32, image units.

        None without an estimate, or if it is on other voxels than the image. To be called before
        the next report, as the next iteration changes the estimate.
        """
        return None if self.snapshot is None else self.snapshot()


def duration(seconds: float, *, approximate: bool = False) -> str:
    """Return a duration as text."""
    if seconds < 1:
        return "less than 1 s"
    if approximate:
        return f"about {duration(seconds)}"
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


def plural(n: int, noun: str) -> str:
    """Return a number with its noun."""
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"
