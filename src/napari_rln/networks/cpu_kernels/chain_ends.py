"""First and last step of a chain of convolutions: planes from a volume, and rows of the result."""

from typing import NamedTuple

import numpy as np

from napari_rln.core.volume import FloatArray
from napari_rln.networks.cpu_kernels.simd import LANES, kernel, softplus

DIVIDE, MULTIPLY, MEAN, KEEP = range(4)
"""Last step of a chain of convolutions, see :class:`End`."""


class End(NamedTuple):
    """Last step of a chain, applied to the last convolution.

    ``KEEP`` all its channels, or their ``MEAN``; ``DIVIDE`` the image by the projection of the
    estimate; or ``MULTIPLY`` the estimate with its correction. See :func:`finish`.
    """

    kind: int
    image: FloatArray
    """(C, D, H, W); only for ``DIVIDE``."""
    estimate: FloatArray
    """(C, D, H, W); for ``DIVIDE`` and ``MULTIPLY``."""
    scale: FloatArray
    shift: FloatArray
    """(C,) each, of the batch normalisation of the quotient or the product."""
    plus: np.float32
    """Added to the denominator of the division, or to the correction."""


@kernel
def load(volume: FloatArray, z: int, top: int, out: FloatArray) -> None:
    """Fill a plane with rows of ``volume`` (C, D, H, W) from ``top`` on, zeros outside."""
    width = volume.shape[3]
    for c in range(volume.shape[0]):
        for r in range(out.shape[1]):
            y = top + r
            target = out[c, r]
            if 0 <= y < volume.shape[2]:
                source = volume[c, z, y]
                for x in range(width):
                    target[LANES + x] = source[x]
            else:
                target[:] = 0


@kernel
def load_doubled(
    volume: FloatArray,
    z: int,
    top: int,
    out: FloatArray,
    weight: FloatArray,
    bias: FloatArray,
    pair: FloatArray,
) -> None:
    """Fill a plane as :func:`load` from the transposed convolution of a volume of half the size.

    ``volume`` is (8, d, h, w), ``weight`` (8, outputs, 2, 2, 2) and ``pair`` (2, >= w) scratch.
    """
    half = volume.shape[3]
    for r in range(out.shape[1]):
        y = top + r
        for c in range(out.shape[0]):
            target = out[c, r]
            if not 0 <= y < 2 * volume.shape[2]:
                target[:] = 0
                continue
            for odd in range(2):
                # Four channels at a time: with eight the compiler does not vectorise.
                part = pair[odd]
                for x in range(half):
                    part[x] = bias[c]
                for k in range(0, 8, 4):
                    s0, s1 = volume[k, z >> 1, y >> 1], volume[k + 1, z >> 1, y >> 1]
                    s2, s3 = volume[k + 2, z >> 1, y >> 1], volume[k + 3, z >> 1, y >> 1]
                    w = weight[k : k + 4, c, z & 1, y & 1, odd]
                    w0, w1, w2, w3 = w[0], w[1], w[2], w[3]
                    for x in range(half):
                        part[x] += w0 * s0[x] + w1 * s1[x] + w2 * s2[x] + w3 * s3[x]
            left, right = pair[0], pair[1]
            for x in range(half):
                target[LANES + 2 * x] = softplus(left[x])
                target[LANES + 2 * x + 1] = softplus(right[x])


@kernel
def finish(end: End, mean: FloatArray, out: FloatArray, z: int, y: int) -> None:
    """Write a row of the result from the mean over the channels of the last convolution.

    DIVIDE: the image over the mean plus the softplus of the estimate, normalised.
    MULTIPLY: the estimate times the mean, normalised, softplus.
    The estimate is the mean of its channels.
    """
    width = out.shape[3]
    if end.kind == MEAN:
        target = out[0, z, y]
        for x in range(width):
            target[x] = mean[x]
        return
    channels = end.estimate.shape[0]
    fraction = np.float32(1 / channels)
    first, last = end.estimate[0, z, y], end.estimate[channels - 1, z, y]
    plus = end.plus
    if end.kind == DIVIDE:
        for c in range(channels):
            a, b, image, target = end.scale[c], end.shift[c], end.image[c, z, y], out[c, z, y]
            for x in range(width):
                estimate = first[x] if channels == 1 else fraction * (first[x] + last[x])
                target[x] = a * (image[x] / (mean[x] + softplus(estimate) + plus)) + b
    else:
        a, b, target = end.scale[0], end.shift[0], out[0, z, y]
        for x in range(width):
            estimate = first[x] if channels == 1 else fraction * (first[x] + last[x])
            target[x] = softplus(a * (estimate * (mean[x] + plus)) + b)
