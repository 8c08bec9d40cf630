"""Tiling of a volume, such that the tiles together give the result of the whole.

A tile reads a window and yields the result in its core. Cores lie side by side and cover the
volume; windows overlap by a halo. Origins are multiples of 4, since networks pool voxels in blocks
of up to 4, and a tile with another origin would pool other blocks.
"""

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np

from napari_rln.core.volume import Box, FloatArray, Shape

TileSide = Annotated[int | Literal["auto"], {"min": 16, "max": 65_536}]
"""Side of a tile, voxels; a smaller tile would be mostly halo."""

STEP = 4
"""Factor of which the origins of tiles are multiples."""


@dataclass(frozen=True, kw_only=True)
class Tile:
    """One tile: parts (z, y, x) of the volume with its result (core), and to read (window)."""

    core: Box
    window: Box

    @property
    def inner(self) -> Box:
        """Core relative to the window."""
        return within(self.core, self.window)

    @property
    def shape(self) -> Shape:
        """Size of the window (z, y, x)."""
        z, y, x = (w.stop - w.start for w in self.window)
        return z, y, x


def within(part: Box, whole: Box) -> Box:
    """Return a part of a box relative to that box, both in the volume."""
    z, y, x = (slice(p.start - w.start, p.stop - w.start) for p, w in zip(part, whole, strict=True))
    return z, y, x


def overlap(one: Box, other: Box) -> bool:
    """Tell whether two boxes have a voxel in common."""
    return all(a.start < b.stop and b.start < a.stop for a, b in zip(one, other, strict=True))


def as_text(box: Box) -> str:
    """Return a box in Python's slice notation."""
    return "[" + ", ".join(f"{part.start}:{part.stop}" for part in box) + "]"


def plan_tiles(shape: Shape, core: Shape, halo: Shape) -> tuple[Tile, ...]:
    """Return tiles that cover a volume of a shape (Z, Y, X).

    ``core`` is the largest size (z, y, x) of a core, made a multiple of 4 unless it covers the
    axis. The halo (z, y, x) on each side of a core is extended to one, and cropped at the border.
    """
    axes = [list(_along(n, c, h)) for n, c, h in zip(shape, core, halo, strict=True)]
    return tuple(
        Tile(core=tuple(c for c, _ in parts), window=tuple(w for _, w in parts))  # type: ignore[arg-type]
        for parts in itertools.product(*axes)
    )


def largest_core(shape: Shape, halo: Shape, voxels: int) -> Shape:
    """Return the size (z, y, x) of cores whose windows have at most a number of voxels.

    The longest axis is halved repeatedly: nearly cubic tiles have the least halo. Cores are not
    reduced below twice the smallest size, even if that exceeds the number.
    """
    core = list(shape)

    def window() -> int:
        return math.prod(min(n, c + 2 * h) for n, c, h in zip(shape, core, halo, strict=True))

    while window() > voxels and max(core) > STEP:
        axis = max(range(3), key=lambda a: core[a])
        core[axis] = STEP * -(-core[axis] // (2 * STEP))
    return core[0], core[1], core[2]


def even_sized(data: FloatArray, step: int = 2) -> FloatArray:
    """Return (Z, Y, X) with the last planes repeated up to multiples of a step, for networks."""
    if all(n % step == 0 for n in data.shape):
        return np.ascontiguousarray(data)
    return np.pad(data, [(0, -n % step) for n in data.shape], mode="edge")


def _along(n: int, core: int, halo: int) -> Iterator[tuple[slice, slice]]:
    """Yield core and window of every tile along one axis."""
    size = n if core >= n else max(STEP, core - core % STEP)
    halo += -halo % STEP
    for start in range(0, n, size):
        stop = min(start + size, n)
        yield slice(start, stop), slice(max(0, start - halo), min(n, stop + halo))


def blocks(shape: Shape, size: Shape, most: int) -> Sequence[Box]:
    """Return boxes of a size, evenly distributed over a volume of a shape, both (z, y, x).

    Their size is limited to that of the volume, their number to ``most``, and fewer where they
    would overlap.
    """
    z, y, x = (min(s, n) for s, n in zip(size, shape, strict=True))
    rooms = [max(1, n // s) for n, s in zip(shape, (z, y, x), strict=True)]
    counts = [1, 1, 1]
    # Add one along the axis where the boxes lie farthest apart, up to the largest number.
    while True:
        options = [a for a in range(3) if counts[a] < rooms[a]]
        if not options:
            break
        axis = max(options, key=lambda a: shape[a] / counts[a])
        more = [c + (a == axis) for a, c in enumerate(counts)]
        if more[0] * more[1] * more[2] > most:
            break
        counts = more
    starts = [
        [round((i + 0.5) * n / c - s / 2) for i in range(c)]
        for n, c, s in zip(shape, counts, (z, y, x), strict=True)
    ]
    return [
        (slice(a, a + z), slice(b, b + y), slice(c, c + x))
        for a, b, c in itertools.product(*starts)
    ]
