"""How a volume is divided: blocks that are written, and tiles of the classical deconvolution.

Blocks are whole chunks of the output and do not overlap: no two workers write one chunk. A network
reads 16 voxels more on either side, which is all that it sees.

Tiles of the deconvolution overlap. One reaches beyond its core by a halo that takes up what is
wrong at its edges; neighbours are blended where they meet, with weights that add up to 1.
"""

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, NamedTuple, Self

import numpy as np
import numpy.typing as npt

from napari_rln.errors import RlnError
from napari_rln.fft import fast_shape
from napari_rln.networks.rln import REACH
from napari_rln.psf.shape import energy_box
from napari_rln.rld import RldSettings, memory_bytes
from napari_rln.stores.ngff import Version, coarser, pyramid
from napari_rln.tiles import Box, Shape, Tile, plan_tiles, within
from napari_rln.volume import FloatArray, Volume, VoxelUm

Format = Literal["zarr", "tiff"]

IN_FLIGHT = 3
"""Tiles that a worker has at once: one computes while others are read and written."""

_CHUNK = {"0.5": (64, 64, 64), "0.4": (64, 128, 128)}  # what a viewer reads at once
_SUPPORT = 0.99  # of a PSF's light, that its support holds
# Of the support, that a halo is wide: after 10 iterations, and for each tenfold of these. Measured
# (benchmarks/scale.py seams).
_HALO, _HALO_PER_DECADE = 2.0, 1.0
_SHARE = 0.6  # of a worker's memory that a deconvolution computes in; the rest is read and written
_MOST_TILE = 1 << 27  # voxels of a deconvolution's window: larger ones hardly gain and come seldom
_MOST_BLOCK = 1 << 25  # and of a network's
# Per voxel of a block's window, of all that a worker has at once, beside what the network takes.
_BLOCK_BYTES = 125


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

        That is two slabs of tiles across the longest axis.
        """
        if not any(self.core):
            return 0
        axis = max(range(3), key=lambda a: self.shape[a])
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


def seam_halo(psf: Volume, iterations: int) -> Shape:
    """Return by how much tiles (z, y, x) reach beyond their cores.

    Every iteration carries light, and what is wrong at a tile's edge, twice by the PSF's support;
    most of that fades on the way. Measured, some two supports leave a few thousandths after ten
    iterations, and one more is needed for each tenfold of these. What one iteration reaches is not
    exceeded by several times: one needs two supports exactly.
    """
    factor = _HALO + _HALO_PER_DECADE * max(0.0, math.log10(max(iterations, 1) / 10))
    z, y, x = (_even(math.ceil(factor * s)) for s in support(psf))
    return z, y, x


def support(psf: Volume) -> Shape:
    """Return within how many voxels (z, y, x) of its centre a PSF has 99 % of its light."""
    z, y, x = (n // 2 for n in energy_box(psf.data, _SUPPORT))
    return z, y, x


def make_plan(
    shape: Shape,
    voxel_um: VoxelUm,
    times: int,
    form: Format,
    version: Version,
    *,
    psf: Volume | None,
    told: RldSettings | None,
    iterations: int,
    network_voxel_bytes: float | None,
    memory: int,
    ram: int,
    side: int | None = None,
) -> Plan:
    """Return how volumes are divided so that a worker's memory holds what it works on.

    Parameters
    ----------
    shape
        (Z, Y, X) of a volume.
    voxel_um
        Its voxel size (z, y, x) in micrometres.
    times
        Number of volumes.
    form, version
        Of the output.
    psf, told, iterations
        Of the classical deconvolution; none where there is none.
    network_voxel_bytes
        Memory that the network takes; none where there is none.
    memory
        Bytes that a worker may compute in, on its device.
    ram
        Bytes that it may take in the machine's memory.
    side
        In voxels of the deconvolution's tiles and, in whole chunks, of the blocks; the largest
        that the memory allows when none.

    Raises
    ------
    RlnError
        If no division is fine enough.
    """
    chunk = _chunk(shape, version)
    network = network_voxel_bytes is not None
    per_voxel = network_voxel_bytes or 0.0
    most = min(int(ram / (_BLOCK_BYTES + per_voxel)), _MOST_BLOCK)
    if network:
        most = min(most, int(memory / per_voxel))
    reach = (REACH,) * 3 if network else (0, 0, 0)
    block = _block(shape, chunk, reach, most, form)
    if side is not None:
        z, y, x = (min(a, b) for a, b in zip(block, _whole(side, chunk, shape), strict=True))
        block = (z, y, x)
    core = halo = overlap = (0, 0, 0)
    if told is not None:
        assert psf is not None
        halo = seam_halo(psf, iterations)
        z, y, x = (_even(h // 2) for h in halo)
        overlap = (z, y, x)
        allowed = int(_SHARE * min(memory, ram))
        window = (_MOST_TILE, 1, 1)
        allowed = min(allowed, memory_bytes(window, (1, 1, 1), told))
        core = _core(shape, psf.shape, told, allowed, halo, overlap)
        if side is not None:
            z, y, x = (min(c, max(side, 2 * o)) for c, o in zip(core, overlap, strict=True))
            core = (z, y, x)
        if core != shape and told.border == "periodic":
            raise RlnError(
                "the periodic border is of the whole volume, which does not fit into the memory "
                "that may be taken; use the extended border."
            )
    levels = tuple(pyramid(shape, voxel_um)) if form == "zarr" else ((1, 1, 1),)
    return Plan(
        shape=shape, times=times, chunk=chunk, block=block, reach=reach, core=core, halo=halo,
        overlap=overlap, levels=levels,
    )  # fmt: skip


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


def _core(
    shape: Shape, psf_shape: Shape, told: RldSettings, allowed: int, halo: Shape, overlap: Shape
) -> Shape:
    """Return the size of the tiles that together are the least to transform, of those that fit.

    Raises
    ------
    RlnError
        If none fits.
    """
    per_voxel = memory_bytes((1 << 10,) * 3, (1, 1, 1), told) / (1 << 30)
    axes = [
        list(_divisions(n, h, 2 * o, p if told.border != "periodic" else 1))
        for n, h, o, p in zip(shape, halo, overlap, psf_shape, strict=True)
    ]
    best: tuple[float, Shape] = (math.inf, shape)
    least = math.inf
    for z, y, x in itertools.product(*axes):
        largest = per_voxel * z.largest * y.largest * x.largest
        least = min(least, largest)
        if largest <= allowed:
            best = min(best, (z.total * y.total * x.total, (z.core, y.core, x.core)))
    if best[0] == math.inf:
        raise RlnError(
            f"tiles that overlap by what this PSF asks for, {halo} voxels on either side, take at "
            f"least {least / 1e9:.2f} GB to compute but {allowed / 1e9:.2f} GB may be taken; allow "
            "more (--memory-gb), or crop the PSF."
        )
    return best[1]


class _Division(NamedTuple):
    """An axis cut into cores, with what is transformed of it: in all, and by one tile."""

    core: int
    total: int
    largest: int


def _divisions(n: int, halo: int, least: int, psf: int) -> Iterator[_Division]:
    """Yield ways to cut an axis, from one core to the narrowest, in steps of a few per cent."""
    before = 0
    parts = 1
    while True:
        core = n if parts == 1 else _even(math.ceil(n / parts))
        if parts > 1 and core < max(least, 2):
            return
        if core != before:
            windows = [tile.shape[0] for tile in plan_tiles((n, 1, 1), (core, 1, 1), (halo, 0, 0))]
            lengths = [fast_shape((w + psf - 1, 1, 1))[0] for w in windows]
            yield _Division(core, sum(lengths), max(lengths))
        before, parts = core, max(parts + 1, round(1.05 * parts))
        if core <= 2:
            return


def _chunk(shape: Shape, version: Version) -> Shape:
    """Return a chunk's size: no larger than the volume, and even."""
    z, y, x = (min(c, _even(n)) for c, n in zip(_CHUNK[version], shape, strict=True))
    return z, y, x


def _whole(side: int, chunk: Shape, shape: Shape) -> Shape:
    """Return the size of blocks about as wide as a side, in whole chunks."""
    z, y, x = (
        min(max(1, round(side / c)), math.ceil(n / c)) * c
        for c, n in zip(chunk, shape, strict=True)
    )
    return z, y, x


def _block(shape: Shape, chunk: Shape, reach: Shape, most: int, form: Format) -> Shape:
    """Return the largest block, in whole chunks, whose window has at most so many voxels.

    It grows where that saves the most of what is read twice; for a TIFF along x first, where a
    block of whole rows is written in one piece.
    """
    counts = [1, 1, 1]
    limits = [math.ceil(n / c) for n, c in zip(shape, chunk, strict=True)]

    def window(counts: list[int]) -> int:
        return math.prod(
            min(n, k * c + 2 * r) for n, k, c, r in zip(shape, counts, chunk, reach, strict=True)
        )

    if window(counts) > most:
        raise RlnError(
            f"a block of one chunk, {chunk} voxels, takes more memory than may be taken; allow "
            "more (--memory-gb)."
        )
    while True:
        options = []
        for axis in range(3):
            more = [k + (a == axis) for a, k in enumerate(counts)]
            if more[axis] <= limits[axis] and window(more) <= most:
                options.append((form != "tiff" or axis != 2, counts[axis] * chunk[axis], axis))
        if not options:
            break
        counts[min(options)[2]] += 1
    z, y, x = (k * c for k, c in zip(counts, chunk, strict=True))
    return z, y, x


def _even(n: int) -> int:
    return n + n % 2


def pairs(plan: Plan) -> Iterator[tuple[int, int]]:
    """Yield every time and block number, in the order in which they are written."""
    return itertools.product(range(plan.times), range(len(plan.blocks)))
