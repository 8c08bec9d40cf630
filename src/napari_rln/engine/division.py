"""How large blocks and tiles are, so that a worker's memory holds what it works on."""

import itertools
import math
from collections.abc import Iterator
from typing import NamedTuple

from napari_rln.core.errors import RlnError
from napari_rln.core.tiles import Shape, plan_tiles
from napari_rln.core.volume import Volume, VoxelUm
from napari_rln.deconvolution.fft import fast_shape
from napari_rln.deconvolution.rld_settings import RldSettings, memory_bytes
from napari_rln.engine.plan import Format, Plan
from napari_rln.io.ome_zarr import Version, pyramid
from napari_rln.networks.data_consistency import VOXEL_BYTES as MERGE_BYTES
from napari_rln.networks.rln_settings import REACH
from napari_rln.psf.shape import energy_box

_CHUNK = {"0.5": (64, 64, 64), "0.4": (64, 128, 128)}  # what a viewer reads at once
_SUPPORT = 0.99  # of a PSF's light, that its support holds
# Of the support, that a halo is wide: after 10 iterations, and for each tenfold of these. Measured
# (benchmarks/scale.py seams).
_HALO, _HALO_PER_DECADE = 2.0, 1.0
_SHARE = 0.6  # of a worker's memory that a deconvolution computes in; the rest is read and written
_MOST_TILE = 1 << 27  # voxels of a deconvolution's window: larger ones hardly gain and come seldom
_MOST_BLOCK = 1 << 25  # and of a network's
# Per voxel of a block's window, of all that a worker has at once, beside what the network takes.
BLOCK_BYTES = 125


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
    per_voxel = max(network_voxel_bytes, MERGE_BYTES) if network_voxel_bytes is not None else 0.0
    most = min(int(ram / (BLOCK_BYTES + per_voxel)), _MOST_BLOCK)
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
            "more (`memory_gb`), or crop the PSF."
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
            "more (`memory_gb`)."
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
