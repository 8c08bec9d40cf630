"""Plan of a volume: output blocks, and tiles of the classical deconvolution.

Blocks are whole chunks of the output and do not overlap: no two workers write one chunk. A network
reads its receptive field around a block.

Tiles of the deconvolution overlap. Each extends beyond its core by a halo that contains the errors
at its edges; neighbours are blended where they meet, with weights that add up to 1.
"""

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, Self

import numpy as np
import numpy.typing as npt

from napari_rln.core.tiles import Tile, plan_tiles, within
from napari_rln.core.volume import Box, FloatArray, Shape
from napari_rln.io.ome_zarr import coarser

Format = Literal["zarr", "tiff"]

IN_FLIGHT = 3
"""Concurrent tiles of a worker: one is computed while others are read and written."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Division of one volume; all fields are numbers.

    Attributes
    ----------
    shape
        (Z, Y, X).
    times
        Number of volumes.
    chunk
        Size (z, y, x) of a chunk of the output.
    block
        Size (z, y, x) of a block, which is written in one piece; whole chunks.
    receptive_field
        Receptive field (z, y, x) on each side of a block, voxels.
    core
        Size (z, y, x) of the cores of the deconvolution's tiles; zeros without tiles.
    halo
        Halo (z, y, x) on each side of a core, voxels.
    overlap
        Distance (z, y, x) from the core up to which neighbours are blended, voxels.
    levels
        Factors (z, y, x) of the output's levels, the finest first.
    estimates
        Number of estimates of a tile.
    """

    shape: Shape
    times: int
    chunk: Shape
    block: Shape
    receptive_field: Shape
    core: Shape
    halo: Shape
    overlap: Shape
    levels: tuple[Shape, ...]
    estimates: int = 1

    @classmethod
    def of(cls, fields: dict[str, Any]) -> Self:
        """Return the plan from its JSON fields."""
        values = {k: tuple(v) if isinstance(v, list) else v for k, v in fields.items()}
        return cls(**values | {"levels": tuple(tuple(f) for f in fields["levels"])})

    @cached_property
    def blocks(self) -> tuple[Tile, ...]:
        """Output blocks of a volume, in the order of writing."""
        return self._ordered(plan_tiles(self.shape, self.block, self.receptive_field))

    @cached_property
    def tiles(self) -> tuple[Tile, ...]:
        """Tiles of the deconvolution; empty without one."""
        return self._ordered(plan_tiles(self.shape, self.core, self.halo)) if any(self.core) else ()

    def _ordered(self, tiles: Sequence[Tile]) -> tuple[Tile, ...]:
        """Return tiles in slabs across the longest axis, to keep the least between two slabs."""
        axes = sorted(range(3), key=lambda a: -self.shape[a])
        return tuple(sorted(tiles, key=lambda t: [t.core[a].start for a in axes]))

    def level_boxes(self, level: int) -> tuple[Box, ...]:
        """Return the boxes in which a coarser level is written."""
        return self._level_boxes[level]

    @cached_property
    def _level_boxes(self) -> list[tuple[Box, ...]]:
        sizes = [coarser(self.shape, factors) for factors in self.levels]
        return [tuple(t.core for t in plan_tiles(s, self.block, (0, 0, 0))) for s in sizes]

    @cached_property
    def _numbers(self) -> dict[Shape, int]:
        """Numbers of the tiles, by the starts of their cores."""
        numbers: dict[Shape, int] = {}
        for number, tile in enumerate(self.tiles):
            z, y, x = (part.start for part in tile.core)
            numbers[z, y, x] = number
        return numbers

    @cached_property
    def _kept(self) -> list[dict[int, slice]]:
        """Along each axis, the range where a tile has a weight, by the start of its core."""
        return [
            {tile.core[axis].start: self.stored_part(tile)[axis] for tile in self.tiles}
            for axis in range(3)
        ]

    def stored_part(self, tile: Tile) -> Box:
        """Return the part of a volume where a tile of the deconvolution has a weight."""
        z, y, x = (
            slice(max(w.start, c.start - o), min(w.stop, c.stop + o))
            for c, w, o in zip(tile.core, tile.window, self.overlap, strict=True)
        )
        return z, y, x

    def needed(self, box: Box) -> list[int]:
        """Return the numbers of the tiles with a weight in a part of a volume."""
        if not self.tiles:
            return []
        along = [
            [begin for begin, k in kept.items() if k.start < part.stop and part.start < k.stop]
            for kept, part in zip(self._kept, box, strict=True)
        ]
        return sorted(self._numbers[z, y, x] for z, y, x in itertools.product(*along))

    def weights(self, tile: Tile, part: Box) -> list[FloatArray]:
        """Return the blend weights of a tile along z, y and x in a part of its kept box.

        Along an axis the weight rises linearly from 0 to 1 where the tile meets its neighbour, and
        the neighbour's falls; at the volume's border it is 1.
        """
        return [
            _ramp(c, p, o, n)
            for c, p, o, n in zip(tile.core, part, self.overlap, self.shape, strict=True)
        ]

    def scratch_bytes(self) -> int:
        """Return the largest size of tiles on the disk between deconvolution and writing, bytes.

        That is two slabs of tiles across the longest axis with more than one block: in a TIFF,
        whose blocks are as wide as the image, that is not x.
        """
        if not any(self.core):
            return 0
        along = [a for a in range(3) if self.block[a] < self.shape[a]] or [0]
        axis = max(along, key=lambda a: self.shape[a])
        slab = min(self.shape[axis], 2 * (self.core[axis] + 2 * self.overlap[axis]))
        across = [
            n + 2 * o * (math.ceil(n / c) - 1)
            for n, c, o in zip(self.shape, self.core, self.overlap, strict=True)
        ]
        return 4 * self.estimates * slab * math.prod(across) // across[axis]

    def output_bytes(self, dtype: npt.DTypeLike) -> int:
        """Return the uncompressed size of the output with its levels, bytes."""
        itemsize = np.dtype(dtype).itemsize
        voxels = sum(math.prod(coarser(self.shape, f)) for f in self.levels)
        return voxels * self.times * itemsize


def _ramp(core: slice, part: slice, overlap: int, length: int) -> FloatArray:
    place = np.arange(part.start, part.stop, dtype=np.float32) + np.float32(0.5)
    weight = np.ones(part.stop - part.start, dtype=np.float32)
    if overlap and core.start > 0:
        weight *= ((place - core.start) / (2 * overlap) + 0.5).clip(0, 1)
    if overlap and core.stop < length:
        weight *= ((core.stop - place) / (2 * overlap) + 0.5).clip(0, 1)
    return weight


def blend(
    plan: Plan, box: Box, stored: dict[int, npt.NDArray[np.float32]]
) -> npt.NDArray[np.float32]:
    """Return a part of a volume, blended from all its tiles, by their numbers.

    (z, y, x), or several volumes, (n, z, y, x).
    """
    several = next(iter(stored.values())).shape[:-3]
    size = [part.stop - part.start for part in box]
    whole = np.zeros((*several, *size), dtype=np.float32)
    for number in sorted(stored):
        tile = plan.tiles[number]
        place = plan.stored_part(tile)
        z, y, x = (
            slice(max(k.start, b.start), min(k.stop, b.stop))
            for k, b in zip(place, box, strict=True)
        )
        part = z, y, x
        along_z, along_y, along_x = plan.weights(tile, part)
        shown = stored[number][(..., *within(part, place))]
        weighted = np.multiply(shown, along_y[:, None] * along_x)
        weighted *= along_z[:, None, None]
        whole[(..., *within(part, box))] += weighted
    return whole


def pairs(plan: Plan) -> Iterator[tuple[int, int]]:
    """Yield every time point and block number, in the order of writing."""
    return itertools.product(range(plan.times), range(len(plan.blocks)))
