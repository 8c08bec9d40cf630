"""A 3x3x3 convolution with half the multiplications along y: Winograd's F(4, 3).

Six input rows are transformed to six others, whose products with transformed weights transform
back to four output rows, called a strip (Lavin and Gray, CVPR 2016). Rows lie along x, so the
transforms work on whole vectors.

Layout: a plane is (channels, rows, pitch) with ``LANES`` zeros before each row, which serve the end
of the row before as well. A ring is (4, strips, 6, channels, pitch): the transformed rows of the
last four planes, plane z in slot ``z & 3``.
"""

import numpy as np
import numpy.typing as npt

from napari_rln.core.volume import FloatArray
from napari_rln.networks.cpu_kernels.simd import (
    GROUP,
    LANES,
    WIDE,
    add_4x16,
    add_4x32,
    add_8x16,
    add_8x32,
    inlined,
    kernel,
    softplus,
)

STRIP = 4  # output rows at a time
POINTS = 6  # transformed rows for them

_G = np.array(
    [
        [1 / 4, 0, 0],
        [-1 / 6, -1 / 6, -1 / 6],
        [-1 / 6, 1 / 6, -1 / 6],
        [1 / 24, 1 / 12, 1 / 6],
        [1 / 24, -1 / 12, 1 / 6],
        [0, 0, 1],
    ]
)
"""F(4, 3) at 0, 1, -1, 2, -2 and infinity. In float32 it costs one digit at most."""


def transform_weights(weight: npt.NDArray[np.float64]) -> FloatArray:
    """Return the weights of a convolution, (outputs, inputs, 3, 3, 3), for :func:`convolve`.

    They are (6, groups, inputs, 3, 3, outputs per group) float32, with z and x the axes of 3.
    """
    outputs, inputs = weight.shape[:2]
    size = min(outputs, GROUP)
    points = np.einsum("ty,oizyx->toizx", _G, weight)
    points = points.reshape(POINTS, outputs // size, size, inputs, 3, 3)
    return np.ascontiguousarray(np.moveaxis(points, 2, -1), np.float32)


@kernel
def transform(plane: FloatArray, ring: FloatArray, z: int, strip: int) -> None:
    """Fill a strip s of the ring's slot of z from rows 4 s to 4 s + 5 of a plane."""
    four, five, two = np.float32(4), np.float32(5), np.float32(2)
    out = ring[z & 3, strip]
    k = STRIP * strip
    for c in range(out.shape[1]):
        r0, r1, r2 = plane[c, k], plane[c, k + 1], plane[c, k + 2]
        r3, r4, r5 = plane[c, k + 3], plane[c, k + 4], plane[c, k + 5]
        t0, t1, t2 = out[0, c], out[1, c], out[2, c]
        t3, t4, t5 = out[3, c], out[4, c], out[5, c]
        for x in range(r0.size):
            d0, d1, d2, d3, d4, d5 = r0[x], r1[x], r2[x], r3[x], r4[x], r5[x]
            p, q = d4 - four * d2, d3 - four * d1
            u, v = d4 - d2, two * (d3 - d1)
            t0[x] = four * d0 - five * d2 + d4
            t1[x] = p + q
            t2[x] = p - q
            t3[x] = u + v
            t4[x] = u - v
            t5[x] = four * d1 - five * d3 + d5


@kernel
def convolve(
    newer: FloatArray, older: FloatArray, z: int, strip: int, weight: FloatArray, out: FloatArray
) -> None:
    """Fill ``out`` (6, outputs, width) from a strip of two rings, still to be transformed back.

    The first input channels are those of ``newer``, the others the first of ``older``.
    """
    inputs, outputs = weight.shape[2], weight.shape[5]
    from_newer = min(inputs, newer.shape[3])
    out_pitch, width = 4 * out.shape[-1], out.shape[-1]
    for point in range(POINTS):
        for group in range(weight.shape[1]):
            start = out[point, group * outputs].ctypes.data
            w = weight[point, group].ctypes.data
            for part in range(2 if inputs > from_newer else 1):
                ring, channels = (older, inputs - from_newer) if part else (newer, from_newer)
                below = ring[(z - 1) & 3, strip, point].ctypes.data
                here = ring[z & 3, strip, point].ctypes.data
                above = ring[(z + 1) & 3, strip, point].ctypes.data
                pitch = 4 * ring.shape[-1]
                fresh = 1 - part
                x = 0
                while x < width:
                    d = 4 * (x + LANES)
                    o, p, q, r = start + 4 * x, below + d, here + d, above + d
                    if WIDE and x + 2 * LANES <= width:
                        if outputs == 8:
                            add_8x32(o, out_pitch, p, q, r, pitch, channels, w, fresh)
                        else:
                            add_4x32(o, out_pitch, p, q, r, pitch, channels, w, fresh)
                        x += 2 * LANES
                    else:
                        if WIDE and outputs == 8:
                            add_8x16(o, out_pitch, p, q, r, pitch, channels, w, fresh)
                        else:
                            add_4x16(o, out_pitch, p, q, r, pitch, channels, w, fresh)
                        x += LANES
                w += 4 * 9 * outputs * channels


@inlined
def _back(
    m0: np.float32,
    m1: np.float32,
    m2: np.float32,
    m3: np.float32,
    m4: np.float32,
    m5: np.float32,
) -> tuple[np.float32, np.float32, np.float32, np.float32]:
    """Return the four rows of a convolution from its six transformed ones, at a voxel."""
    p, q = m1 + m2, m1 - m2
    u, v = m3 + m4, m3 - m4
    two, four, eight = np.float32(2), np.float32(4), np.float32(8)
    return m0 + p + u, q + two * v, p + four * u, q + eight * v + m5


@kernel
def activate(
    points: FloatArray,
    o: int,
    bias: float,
    out: FloatArray,
    row: int,
    start: int,
    limit: tuple[int, int, int, int],
) -> None:
    """Transform back, add the bias, softplus: four rows of ``out`` from ``row`` and ``start`` on.

    They are 0 from ``limit`` on.
    """
    zero = np.float32(0)
    m0, m1, m2 = points[0, o], points[1, o], points[2, o]
    m3, m4, m5 = points[3, o], points[4, o], points[5, o]
    # Rows of contiguous arrays, as the compiler does not vectorise others.
    y0, y1 = out[row, start:], out[row + 1, start:]
    y2, y3 = out[row + 2, start:], out[row + 3, start:]
    n0, n1, n2, n3 = limit
    for x in range(m0.size):
        v0, v1, v2, v3 = _back(m0[x], m1[x], m2[x], m3[x], m4[x], m5[x])
        v0, v1, v2, v3 = (
            softplus(v0 + bias),
            softplus(v1 + bias),
            softplus(v2 + bias),
            softplus(v3 + bias),
        )
        y0[x] = v0 if x < n0 else zero
        y1[x] = v1 if x < n1 else zero
        y2[x] = v2 if x < n2 else zero
        y3[x] = v3 if x < n3 else zero


@kernel
def activate_mean(points: FloatArray, bias: FloatArray, out: FloatArray) -> None:
    """Fill ``out`` (4, width) as :func:`activate` with the mean over the outputs."""
    fraction = np.float32(1 / bias.size)
    y0, y1, y2, y3 = out[0], out[1], out[2], out[3]
    out[:] = 0
    for o in range(bias.size):
        m0, m1, m2 = points[0, o], points[1, o], points[2, o]
        m3, m4, m5 = points[3, o], points[4, o], points[5, o]
        b = bias[o]
        for x in range(m0.size):
            v0, v1, v2, v3 = _back(m0[x], m1[x], m2[x], m3[x], m4[x], m5[x])
            y0[x] += fraction * softplus(v0 + b)
            y1[x] += fraction * softplus(v1 + b)
            y2[x] += fraction * softplus(v2 + b)
            y3[x] += fraction * softplus(v3 + b)
