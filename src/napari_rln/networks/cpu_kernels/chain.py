"""Chains of convolutions with few channels, compiled by numba and run by :mod:`compiled`.

A chain goes through its volumes plane after plane. No more than four planes of each convolution
are in use at a time, and stay in the cache. The convolutions themselves are in :mod:`winograd`,
which also says how planes and rings lie in memory.
"""

import hashlib
from pathlib import Path

import numpy as np
from numba import njit

from napari_rln.core.volume import FloatArray
from napari_rln.networks.cpu_kernels.chain_ends import KEEP, End, finish, load, load_doubled
from napari_rln.networks.cpu_kernels.simd import LANES, OPTIONS, Function, inlined, kernel, padded
from napari_rln.networks.cpu_kernels.winograd import (
    POINTS,
    STRIP,
    activate,
    activate_mean,
    convolve,
    transform,
)

Weights = tuple[FloatArray, FloatArray, FloatArray]
_MOST = 8  # output channels of a convolution


def _cached(function: Function) -> Function:
    """Compile a function, cached on disk until a file of this folder changes.

    numba detects changes of this file only; a hash in the name covers the others.
    """
    files = sorted(Path(__file__).parent.glob("*.py"))
    content = b"".join(file.read_bytes() for file in files)
    function.__qualname__ += f"_{hashlib.sha256(content).hexdigest()[:8]}"
    compiled: Function = njit(**OPTIONS, cache=True)(function)
    return compiled


def workspace(width: int, strips: int, channels: tuple[int, int, int]) -> int:
    """Return the number of float32 that :func:`chain` needs for a block.

    ``channels`` are those of the source, after the first and after the second convolution.
    """
    inner = padded(width)
    pitch, rows = inner + LANES, STRIP * (strips + 2) + 2
    rings = sum(4 * (strips + 2) * POINTS * c * pitch + LANES for c in channels)
    planes = (channels[0] + _MOST) * rows * pitch
    return rings + planes + (POINTS * _MOST + STRIP + 2) * inner


@inlined
def _ring(
    space: FloatArray, used: int, strips: int, channels: int, pitch: int
) -> tuple[FloatArray, int]:
    """Return a ring, and the size of the workspace in use with it."""
    size = 4 * strips * POINTS * channels * pitch
    ring = space[used : used + size].reshape((4, strips, POINTS, channels, pitch))
    used += size
    # A row ends with the zeros before the next one: the last row of a plane with those of a slot
    # that may not be filled yet, the very last with none of a slot.
    for slot in range(4):
        ring[slot, 0, 0, 0, :LANES] = 0
    space[used : used + LANES] = 0
    return ring, used + LANES


@inlined
def _carve(
    space: FloatArray, width: int, strips: int, channels: tuple[int, int, int]
) -> tuple[tuple[FloatArray, ...], FloatArray, FloatArray, FloatArray, FloatArray, FloatArray]:
    """Return the parts of a workspace: rings, two planes of zeros, and scratch for one strip."""
    inner = padded(width)
    pitch, rows = inner + LANES, STRIP * strips + 2
    ring0, used = _ring(space, 0, strips, channels[0], pitch)
    ring1, used = _ring(space, used, strips, channels[1], pitch)
    ring2, used = _ring(space, used, strips, channels[2], pitch)
    size = channels[0] * rows * pitch
    loaded = space[used : used + size].reshape((channels[0], rows, pitch))
    used += size
    size = _MOST * rows * pitch
    plane = space[used : used + size].reshape((_MOST, rows, pitch))
    used += size
    loaded[:] = 0
    plane[:] = 0
    points = space[used : used + POINTS * _MOST * inner]
    used += points.size
    results = space[used : used + STRIP * inner].reshape((STRIP, inner))
    used += results.size
    pair = space[used : used + 2 * inner].reshape((2, inner))
    return (ring0, ring1, ring2), loaded, plane, points, results, pair


@inlined
def _limit(y: int, height: int, width: int) -> tuple[int, int, int, int]:
    """Return the ends of the four rows of a strip from y on; 0 outside the volume."""
    return (
        width if y < height else 0,
        width if y + 1 < height else 0,
        width if y + 2 < height else 0,
        width if y + 3 < height else 0,
    )


@kernel
def _pass_on(
    newer: FloatArray,
    older: FloatArray,
    z: int,
    weight: FloatArray,
    bias: FloatArray,
    points: FloatArray,
    first: int,
    size: tuple[int, int],
    plane: FloatArray,
    ring: FloatArray,
) -> None:
    """Fill slot z of the ring that is the input of the next convolution.

    ``first`` is the ring's first strip in the volume of ``size`` (rows, columns).
    """
    height, width = size
    for strip in range(ring.shape[1]):
        convolve(newer, older, z, strip, weight, points)
        limit = _limit(STRIP * (first + strip), height, width)
        for o in range(bias.size):
            activate(points, o, bias[o], plane[o], STRIP * strip + 1, LANES, limit)
        if strip:  # the previous strip is now complete, and still in the cache
            transform(plane, ring, z, strip - 1)
    transform(plane, ring, z, ring.shape[1] - 1)


@kernel
def _write(
    newer: FloatArray,
    older: FloatArray,
    z: int,
    weight: FloatArray,
    bias: FloatArray,
    points: FloatArray,
    first: int,
    strips: tuple[int, int],
    results: FloatArray,
    end: End,
    out: FloatArray,
) -> None:
    """Fill strips of plane z of the result from rings, whose first strip is ``first``."""
    height, width = out.shape[2], out.shape[3]
    for strip in range(strips[0], strips[1]):
        convolve(newer, older, z, strip - first, weight, points)
        y = STRIP * strip
        rows = min(STRIP, height - y)
        if end.kind == KEEP:
            limit = _limit(y, height, width)
            for o in range(bias.size):
                activate(points, o, bias[o], results, 0, 0, limit)
                for r in range(rows):
                    for x in range(width):  # a slice takes numba seconds to compile
                        out[o, z, y + r, x] = results[r, x]
        else:
            activate_mean(points, bias, results)
            for r in range(rows):
                finish(end, results[r], out, z, y + r)


@_cached
def chain(
    count: int,
    source: FloatArray,
    doubling: FloatArray,
    doubling_bias: FloatArray,
    weights: Weights,
    biases: Weights,
    end: End,
    out: FloatArray,
    block: tuple[int, int, int, int],
    space: FloatArray,
) -> None:
    """Compute a block of a chain of convolutions, each with bias and softplus, plane after plane.

    The input channels of each are the output of the previous one and, if it has more, the input
    of that.

    Parameters
    ----------
    count
        Number of convolutions, at most 3.
    source
        (C, D, H, W); if of half the size of ``out``, the transposed convolution is applied first.
    doubling, doubling_bias
        Weight and bias of the transposed convolution.
    weights, biases
        As returned by :func:`winograd.transform_weights`, and (outputs,); always three.
    end
        Last step, applied to the last output.
    out
        (C', D, H, W), filled in the block.
    block
        First plane and plane after the last; first strip and strip after the last.
    space
        Workspace of the size :func:`workspace`.
    """
    z0, z1, strip0, strip1 = block
    depth, height, width = out.shape[1], out.shape[2], out.shape[3]
    doubled = source.shape[3] != width
    # One more strip on either side contains the rows that the next convolutions need.
    first, last = max(strip0 - 1, 0), min(strip1 + 1, (height + STRIP - 1) // STRIP)
    top = STRIP * first - 1
    inputs = doubling.shape[1] if doubled else source.shape[0]
    channels = (inputs, biases[0].size, biases[1].size)
    rings, loaded, plane, scratch, results, pair = _carve(space, width, last - first, channels)

    # Each convolution is one plane behind the previous one, and needs one more plane on either side
    # for each that follows; the source is ``count`` planes ahead of the result.
    for ahead in range(z0 - count, z1 + count):
        if ahead < 0 or ahead >= depth:
            rings[0][ahead & 3] = 0
        else:
            if doubled:
                load_doubled(source, ahead, top, loaded, doubling, doubling_bias, pair)
            else:
                load(source, ahead, top, loaded)
            for strip in range(last - first):
                transform(loaded, rings[0], ahead, strip)
        for i in range(1, count + 1):
            z, halo = ahead - i, count - i
            if z < z0 - halo or z >= z1 + halo:
                continue
            if z < 0 or z >= depth:
                rings[i][z & 3] = 0
                continue
            newer, older = rings[i - 1], rings[max(i - 2, 0)]
            weight, bias = weights[i - 1], biases[i - 1]
            length = POINTS * bias.size * results.shape[1]
            points = scratch[:length].reshape((POINTS, bias.size, results.shape[1]))
            if halo:
                size = (height, width)
                _pass_on(newer, older, z, weight, bias, points, first, size, plane, rings[i])
            else:
                strips = (strip0, strip1)
                _write(newer, older, z, weight, bias, points, first, strips, results, end, out)


@_cached
def halve(volume: FloatArray, out: FloatArray, z: int) -> None:
    """Fill plane z of ``out`` (C, d, h, w) with the means of 2x2x2 voxels of ``volume``."""
    eighth = np.float32(0.125)
    for c in range(out.shape[0]):
        for y in range(out.shape[2]):
            a, b = volume[c, 2 * z, 2 * y], volume[c, 2 * z, 2 * y + 1]
            d, e = volume[c, 2 * z + 1, 2 * y], volume[c, 2 * z + 1, 2 * y + 1]
            target = out[c, z, y]
            for x in range(target.size):
                i, j = 2 * x, 2 * x + 1
                target[x] = eighth * (a[i] + b[i] + d[i] + e[i] + (a[j] + b[j] + d[j] + e[j]))


def is_cached() -> bool:
    """Return whether the compiled code of these files is on disk."""
    folder = Path(chain.stats.cache_path)  # type: ignore[attr-defined]
    return any(folder.glob(f"*.{chain.__qualname__}-*.nbi"))
