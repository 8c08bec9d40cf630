"""Where long work stands: what every generator of this package yields on its way."""

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
"""What is being done.

stop, while the number of iterations is sought; deconvolve, the iterations, or tiles of them; start,
the initial estimate of a network; compile, its kernels where they are new on this machine, once;
network, its tiles; outside, the light from beyond the field of view. Of a run in parts also:
sample, a part that stands for the whole; plan, once before the first tile; check, what an
interrupted run has left; tiles, blocks of the result; pyramid, its coarser levels.
"""


@dataclass(frozen=True, kw_only=True, eq=False)
class Report:
    """Where a deconvolution stands.

    Attributes
    ----------
    phase
        What is being done.
    done, total
        Iterations or tiles of that phase; the most there can be while the stop is sought.
    seconds
        Since the start.
    relative_change
        Norm of the last iteration's change of the estimate over the norm of the estimate.
    held_out
        Error of the prediction of held-out photons over that of their noise alone, while the number
        of iterations is sought.
    part
        Of the image (z, y, x) that :meth:`estimate` is of: a part shows as well as the whole where
        to stop.
    tile, piece
        Tile that was just finished, and its (z, y, x) float32 result, image units, background
        removed.
    rows
        What a run in parts will take, names and words, with the phase plan.
    box, time
        Part (z, y, x) of the result that was just written, or verified, and the number of its
        volume in a series.
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
        """Return a copy of the estimate as it is now, (z, y, x) float32, image units.

        None where there is none, or where it is on other voxels than the image. To be called before
        the next report: the next iteration changes the estimate.
        """
        return None if self.snapshot is None else self.snapshot()
