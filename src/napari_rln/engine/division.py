"""Sizes of blocks and tiles, chosen to fit a worker's memory."""

import itertools
import math
from collections.abc import Iterator
from typing import NamedTuple

from napari_rln.core.errors import RlnError
from napari_rln.core.tiles import STEP, plan_tiles
from napari_rln.core.volume import OnGrid, Shape, Volume
from napari_rln.deconvolution.fft import fast_shape
from napari_rln.deconvolution.method import Json, Method, TileStage
from napari_rln.engine.plan import Format, Plan
from napari_rln.io.ome_zarr import Version, pyramid

_CHUNK = {"0.5": (64, 64, 64), "0.4": (64, 128, 128)}  # read by viewers in one piece
_COMPUTE_FRACTION = 0.6  # of a worker's memory, for computing a tile; the rest is for input, output
_MOST_TILE = 1 << 27  # voxels of a tile's window: larger ones hardly gain and delay the reports
_MOST_BLOCK = 1 << 25  # voxels of a block's window

BLOCK_BYTES = 125
"""Bytes per voxel of a block's window: all data of a worker, without its computation."""


def make_plan(
    image: OnGrid,
    times: int,
    psf: Volume | None,
    method: Method,
    shared: Json,
    *,
    form: Format,
    version: Version,
    kind: str,
    memory: int,
    ram: int,
    side: int | None = None,
) -> Plan:
    """Return the division of a volume that fits a worker's memory.

    Parameters
    ----------
    image
        Image with shape and voxel size.
    times
        Number of volumes.
    psf, method
        PSF and method of the deconvolution.
    shared
        State common to all tiles of the method's first stage.
    form, version
        Format of the output, and its OME-Zarr version.
    kind
        Type of the worker's device.
    memory
        Memory for computing, on the worker's device, bytes.
    ram
        Memory of the machine for a worker, bytes.
    side
        Side of tiles and, rounded to whole chunks, of blocks, voxels; the largest that fits the
        memory if None.

    Raises
    ------
    RlnError
        If no division is fine enough.
    """
    shape = image.shape
    chunk = _chunk(shape, version)
    second, stage = method.blocks, method.tiles
    per_voxel = 0.0 if second is None else second.voxel_bytes(kind)
    most = min(int(ram / (BLOCK_BYTES + per_voxel)), _MOST_BLOCK)
    if second is not None:
        most = min(most, int(memory / per_voxel))
    field = (0, 0, 0) if second is None else (second.receptive_field,) * 3
    block = _block(shape, chunk, field, most, form)
    if side is not None:
        z, y, x = (min(a, b) for a, b in zip(block, _whole(side, chunk, shape), strict=True))
        block = (z, y, x)
    core = halo = overlap = (0, 0, 0)
    if stage is not None:
        assert psf is not None
        halo = stage.halo(psf, shared)
        z, y, x = (_even(h // 2) for h in halo)
        overlap = (z, y, x)
        allowed = int(_COMPUTE_FRACTION * min(memory, ram))
        allowed = min(allowed, stage.memory_bytes((_MOST_TILE, 1, 1), (1, 1, 1)))
        core = _core(shape, psf.shape, stage, allowed, halo, overlap)
        if side is not None:
            z, y, x = (min(c, max(side, 2 * o)) for c, o in zip(core, overlap, strict=True))
            core = (z, y, x)
        if core != shape:
            stage.check_division()
    levels = tuple(pyramid(shape, image.voxel_um)) if form == "zarr" else ((1, 1, 1),)
    return Plan(
        shape=shape, times=times, chunk=chunk, block=block, receptive_field=field, core=core,
        halo=halo, overlap=overlap, levels=levels,
        estimates=1 if stage is None else stage.estimates,
    )  # fmt: skip


def _core(
    shape: Shape, psf_shape: Shape, stage: TileStage, allowed: int, halo: Shape, overlap: Shape
) -> Shape:
    """Return the tile size with the least total volume to transform, of those that fit.

    Raises
    ------
    RlnError
        If none fits.
    """
    per_voxel = stage.memory_bytes((1 << 10,) * 3, (1, 1, 1)) / (1 << 30)
    axes = [
        list(_divisions(n, h, 2 * o, m))
        for n, h, o, m in zip(shape, halo, overlap, stage.margin(psf_shape), strict=True)
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
            f"tiles with the halo of this PSF, {halo} voxels on either side, need at least "
            f"{least / 1e9:.2f} GB, more than the limit of {allowed / 1e9:.2f} GB; raise it "
            "(`memory_gb`), or crop the PSF."
        )
    return best[1]


class _Division(NamedTuple):
    """An axis cut into cores, with its transformed length: of all tiles, and of one."""

    core: int
    total: int
    largest: int


def _divisions(n: int, halo: int, least: int, margin: int) -> Iterator[_Division]:
    """Yield divisions of an axis, from one core to the narrowest, in steps of a few per cent."""
    before = 0
    parts = 1
    while True:
        core = n if parts == 1 else STEP * math.ceil(n / parts / STEP)
        if parts > 1 and core < max(least, STEP):
            return
        if core != before:
            windows = [tile.shape[0] for tile in plan_tiles((n, 1, 1), (core, 1, 1), (halo, 0, 0))]
            lengths = [fast_shape((w + margin, 1, 1))[0] for w in windows]
            yield _Division(core, sum(lengths), max(lengths))
        before, parts = core, max(parts + 1, round(1.05 * parts))
        if core <= STEP:
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


def _block(shape: Shape, chunk: Shape, receptive_field: Shape, most: int, form: Format) -> Shape:
    """Return the largest block, in whole chunks, whose window has at most a number of voxels.

    It grows along the axis where that saves the most repeated reading; for a TIFF along x first,
    since whole rows are written in one piece.
    """
    counts = [1, 1, 1]
    limits = [math.ceil(n / c) for n, c in zip(shape, chunk, strict=True)]

    def window(counts: list[int]) -> int:
        return math.prod(
            min(n, k * c + 2 * r)
            for n, k, c, r in zip(shape, counts, chunk, receptive_field, strict=True)
        )

    if window(counts) > most:
        raise RlnError(
            f"a block of one chunk, {chunk} voxels, exceeds the memory limit; raise it "
            "(`memory_gb`)."
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
