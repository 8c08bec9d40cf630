"""How a volume is divided: blocks that are written, and tiles of the classical deconvolution.

Blocks are whole chunks of the output and do not overlap: no two workers write one chunk. A network
reads as many voxels more on either side as its result depends on.

Tiles of the deconvolution overlap. One reaches beyond its core by a halo that takes up what is
wrong at its edges; neighbours are blended where they meet, with weights that add up to 1.
"""

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, Self

import numpy as np
import numpy.typing as npt

from napari_rln.core.tiles import Shape, Tile, plan_tiles, within
from napari_rln.core.volume import Box, FloatArray
from napari_rln.io.ome_zarr import coarser

Format = Literal["zarr", "tiff"]

IN_FLIGHT = 3
"""Tiles that a worker has at once: one computes while others are read and written."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How one volume is divided; all of its fields are numbers.

    Attributes
    ----------
    shape
        (Z, Y, X).
    times
        Number of such volumes.
    chunk
        (z, y, x) of the output that is read at once.
    block
        (z, y, x) of the output that is written at once, whole chunks.
    reach
        Voxels (z, y, x) that a block reads beyond what it writes.
    core
        (z, y, x) of the deconvolution's tiles; zeros where there is none.
    halo
        Voxels (z, y, x) by which they reach beyond that.
    overlap
        Voxels (z, y, x) beyond their cores up to which neighbours are blended.
    levels
        Factors (z, y, x) of the output's levels, the finest first.
    """

    shape: Shape
    times: int
    chunk: Shape
    block: Shape
    reach: Shape
    core: Shape
    halo: Shape
    overlap: Shape
    levels: tuple[Shape, ...]

    @classmethod
    def of(cls, fields: dict[str, Any]) -> Self:
        """Return the plan that JSON holds."""
        found = {k: tuple(v) if isinstance(v, list) else v for k, v in fields.items()}
        return cls(**found | {"levels": tuple(tuple(f) for f in fields["levels"])})

    @cached_property
    def blocks(self) -> tuple[Tile, ...]:
        """What is written of a volume, in the order in which it is."""
        return self._ordered(plan_tiles(self.shape, self.block, self.reach))

    @cached_property
    def tiles(self) -> tuple[Tile, ...]:
        """The deconvolution's; none where there is none."""
        return self._ordered(plan_tiles(self.shape, self.core, self.halo)) if any(self.core) else ()

    def _ordered(self, tiles: Sequence[Tile]) -> tuple[Tile, ...]:
        """Return tiles in slabs across the longest axis: so least is kept between two slabs."""
        axes = sorted(range(3), key=lambda a: -self.shape[a])
        return tuple(sorted(tiles, key=lambda t: [t.core[a].start for a in axes]))

    def level_boxes(self, level: int) -> tuple[Box, ...]:
        """Return what is written at once of a coarser level."""
        return self._level_boxes[level]

    @cached_property
    def _level_boxes(self) -> list[tuple[Box, ...]]:
        sizes = [coarser(self.shape, factors) for factors in self.levels]
        return [tuple(t.core for t in plan_tiles(s, self.block, (0, 0, 0))) for s in sizes]

    @cached_property
    def _numbers(self) -> dict[Shape, int]:
        """By where their cores begin, the numbers of the tiles."""
        found: dict[Shape, int] = {}
        for number, tile in enumerate(self.tiles):
            z, y, x = (part.start for part in tile.core)
            found[z, y, x] = number
        return found

    @cached_property
    def _kept(self) -> list[dict[int, slice]]:
        """Along each axis, what a tile has a say in by where its core begins."""
        return [
            {tile.core[axis].start: self.kept(tile)[axis] for tile in self.tiles}
            for axis in range(3)
        ]

    def kept(self, tile: Tile) -> Box:
        """Return the part of a volume for which a tile of the deconvolution has a say."""
        z, y, x = (
            slice(max(w.start, c.start - o), min(w.stop, c.stop + o))
            for c, w, o in zip(tile.core, tile.window, self.overlap, strict=True)
        )
        return z, y, x

    def needed(self, box: Box) -> list[int]:
        """Return the numbers of the tiles that have a say in a part of a volume."""
        if not self.tiles:
            return []
        along = [
            [begin for begin, k in kept.items() if k.start < part.stop and part.start < k.stop]
            for kept, part in zip(self._kept, box, strict=True)
        ]
        return sorted(self._numbers[z, y, x] for z, y, x in itertools.product(*along))

    def weights(self, tile: Tile, part: Box) -> list[FloatArray]:
        """Return how much say a tile has along z, y and x of a part of what it kept.

        Along an axis it rises linearly from 0 to 1 where the tile meets its neighbour, whose falls
        there; at the volume's border it is 1.
        """
        return [
            _ramp(c, p, o, n)
            for c, p, o, n in zip(tile.core, part, self.overlap, self.shape, strict=True)
        ]

    def scratch_bytes(self) -> int:
        """Return how much is on the disk between deconvolution and writing, at the most.

        That is two slabs of tiles across the longest of the axes along which blocks follow each
        other: in a TIFF, whose blocks are as wide as the image, that is not x.
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
        return 4 * slab * math.prod(across) // across[axis]

    def output_bytes(self, dtype: npt.DTypeLike) -> int:
        """Return the size of what is written, its levels included, before compression."""
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
    plan: Plan, box: Box, kept: dict[int, npt.NDArray[np.float32]]
) -> npt.NDArray[np.float32]:
    """Return a part of a volume from what tiles have kept, (z, y, x).

    Parameters
    ----------
    plan
        Of the volume.
    box
        The part.
    kept
        By the tile's number, the deconvolution in :meth:`Plan.kept`; of all tiles with a say.
    """
    whole = np.zeros([part.stop - part.start for part in box], dtype=np.float32)
    for number in sorted(kept):
        tile = plan.tiles[number]
        place = plan.kept(tile)
        z, y, x = (
            slice(max(k.start, b.start), min(k.stop, b.stop))
            for k, b in zip(place, box, strict=True)
        )
        part = z, y, x
        along_z, along_y, along_x = plan.weights(tile, part)
        share = np.multiply(kept[number][within(part, place)], along_y[:, None] * along_x)
        share *= along_z[:, None, None]
        whole[within(part, box)] += share
    return whole


def pairs(plan: Plan) -> Iterator[tuple[int, int]]:
    """Yield every time and block number, in the order in which they are written."""
    return itertools.product(range(plan.times), range(len(plan.blocks)))
