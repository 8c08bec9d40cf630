"""Noise residuals: differences of an image in the corner of the spectrum.

Second differences along every axis pass the highest spatial frequencies, where microscopes transmit
nothing. Samples of an image are relative to a level, so that float32 is exact enough for any camera
offset, and have a mask of valid voxels.
"""

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from napari_rln.core.volume import Array, Float64Array, FloatArray, Mask
from napari_rln.deconvolution.unmeasured_voxels import (
    constant_planes,
    filled,
    find_levels,
    saturated,
)

_SAMPLE = 2**20  # voxels to estimate noise from: more do not change the result
_CHUNK = (32, 64, 64)  # shape of a sample of a large image
_BINS = 24
_LEAST = 50  # least residuals in a bin
_SPIKE = 4.5  # standard deviations beyond which a residual is a spike
_DARKEST = 1e-4  # fraction of voxels that may be darker than the darkest: dead pixels
_SECOND = (1.0, -2.0, 1.0)
_FOURTH = (1.0, -4.0, 6.0, -4.0, 1.0)


@dataclass(frozen=True, kw_only=True)
class Sample:
    """A part of an image, (Z, Y, X), relative to a level, and its mask of valid voxels."""

    values: FloatArray
    mask: Mask


@dataclass(frozen=True)
class Stencil:
    """Differences of even order along axes, with matching means and masks."""

    taps: dict[int, tuple[float, ...]]
    """Weights of neighbours, by axis."""

    @property
    def voxels(self) -> int:
        """Number of voxels in a difference."""
        return math.prod(len(taps) for taps in self.taps.values())

    @property
    def redundancy(self) -> float:
        """Number of overlapping differences equivalent to one independent one, for white noise."""
        return math.prod(float((_autocorrelation(t) ** 2).sum()) for t in self.taps.values())

    def inner(self, axes: int = 3) -> tuple[slice, ...]:
        """Return the voxels of an image that have a difference, as slices."""
        radii = [len(self.taps.get(axis, (1.0,))) // 2 for axis in range(axes)]
        return tuple(slice(r, -r) if r else slice(None) for r in radii)

    def differences(self, values: FloatArray) -> FloatArray:
        """Return differences, scaled to the variance of a voxel if voxels are independent."""
        return self._weighted(values, lambda t, taps: t / math.sqrt(sum(u * u for u in taps)))

    def means(self, values: FloatArray) -> FloatArray:
        """Return local means, orthogonal to the differences."""
        return self._weighted(values, lambda _, taps: 1 / len(taps))

    def smoothed(self, values: FloatArray) -> FloatArray:
        """Return means weighted like the variance of a difference."""
        return self._weighted(values, lambda t, taps: t * t / sum(u * u for u in taps))

    def _weighted(
        self, values: FloatArray, weight: Callable[[float, Sequence[float]], float]
    ) -> FloatArray:
        """Return sums of neighbours along all axes, for voxels that have all."""
        for axis, taps in self.taps.items():
            around = _neighbours(values, axis, len(taps))
            values = around[0] * np.float32(weight(taps[0], taps))
            for neighbour, tap in zip(around[1:], taps[1:], strict=True):
                values += neighbour * np.float32(weight(tap, taps))
        return values

    def valid(self, mask: Mask) -> Mask:
        """Return where all voxels of a difference are valid."""
        for axis, taps in self.taps.items():
            mask = np.asarray(np.logical_and.reduce(_neighbours(mask, axis, len(taps))))
        return mask

    def beside(self, values: FloatArray) -> FloatArray:
        """Return the least of the means of neighbours along each axis, without the voxel.

        A hot voxel or a streak leaves one of them unchanged, at the voxel and its neighbours.
        """
        means = []
        for axis, taps in self.taps.items():
            others = Stencil({a: t for a, t in self.taps.items() if a != axis})
            around = _neighbours(others.means(values), axis, len(taps))
            del around[len(taps) // 2]
            means.append(np.mean(around, axis=0, dtype=np.float32))
        return np.asarray(np.minimum.reduce(means))


def stencil_of(shape: Sequence[int]) -> Stencil:
    """Return the differences that suppress structure in an image of a shape; none if too small.

    Second differences suffice along three axes; fourth ones are needed along fewer.
    """
    axes = [axis for axis, n in enumerate(shape) if n >= 3]
    few = len(axes) < 3
    return Stencil({a: _FOURTH if few and shape[a] >= 5 else _SECOND for a in axes})


def across(shape: Sequence[int], axis: int) -> Stencil:
    """Return differences along all axes but one, of fourth order if long enough."""
    others = [a for a, n in enumerate(shape) if n >= 3 and a != axis]
    return Stencil({a: _FOURTH if shape[a] >= 5 else _SECOND for a in others})


def corner_power(covariance: Float64Array, taps: Sequence[float]) -> float:
    """Return the variance of differences along an axis, relative to white noise.

    The covariance is at lags of 0, 1, 2, ... voxels.
    """
    weights = _autocorrelation(taps)[len(taps) - 1 :]
    weights[1:] *= 2
    n = min(weights.size, covariance.size)
    return float(weights[:n] @ covariance[:n])


def _autocorrelation(taps: Sequence[float]) -> Float64Array:
    full = np.correlate(taps, taps, "full")
    return np.asarray(full / full.max())


def _neighbours(values: Array, axis: int, count: int) -> list[Array]:
    """Return neighbours along an axis, first to last, for voxels that have all."""
    n = values.shape[axis] - count + 1
    around = (slice(None),) * axis
    return [values[(*around, slice(start, start + n))] for start in range(count)]


def take_samples(
    images: Sequence[FloatArray], mask: Mask | Sequence[Mask] | None
) -> tuple[float, float, list[Sample]]:
    """Return a level, the value of the darkest voxels, and samples of images minus that level.

    Relative to a level float32 is exact enough for any camera offset.
    """
    room = max(_SAMPLE // len(images), math.prod(_CHUNK))
    parts = [
        (image[where], None if mask is None else mask[where])
        for image, mask in zip(images, masks_of(images, mask), strict=True)
        for where in chunks_of(image, room)
    ]
    levels = find_levels(*[part for part, _ in parts])
    masked = []
    for part, mask in parts:
        measured = ~filled(part, levels) & ~saturated(part, levels)
        measured[list(constant_planes(part))] = False
        masked.append((part, measured if mask is None else measured & mask))
    known = np.concatenate([part[mask] for part, mask in masked]).astype(np.float64)
    if not known.size:
        return 0.0, 0.0, []
    level = float(np.median(known[:: max(1, known.size // 2**18) | 1]))
    darkest = float(np.quantile(known, _DARKEST, method="lower"))
    samples = [
        Sample(values=np.nan_to_num(part.astype(np.float64) - level).astype(np.float32), mask=mask)
        for part, mask in masked
    ]
    return level, darkest, samples


def chunks_of(image: FloatArray, room: int = _SAMPLE) -> list[tuple[slice, ...]]:
    """Return boxes of an image of at most ``room`` voxels in all, dark to bright ones."""
    if image.size <= room:
        return [(slice(None),) * image.ndim]
    starts = [range(0, max(n - c // 2, 1), c) for n, c in zip(image.shape, _CHUNK, strict=True)]
    chunks = [
        tuple(slice(a, a + c) for a, c in zip(corner, _CHUNK, strict=True))
        for corner in itertools.product(*starts)
    ]
    light = [float(np.nanmean(image[chunk][::2, ::4, ::4])) for chunk in chunks]
    count = max(1, room // math.prod(_CHUNK))
    picked = np.unique(np.linspace(0, len(chunks) - 1, count).round().astype(int))
    order = np.argsort(light)
    return [chunks[i] for i in order[picked]]


def masks_of(
    images: Sequence[FloatArray], mask: Mask | Sequence[Mask] | None
) -> Sequence[Mask | None]:
    """Return one mask, or none, for each image."""
    if mask is None:
        return [None] * len(images)
    return [mask] if isinstance(mask, np.ndarray) else mask


def without_spikes(samples: list[Sample], darkest: float) -> list[Sample]:
    """Return samples with spikes, isolated voxels beyond their noise, masked.

    The limit is a multiple of the residuals' scale in bins of the level of neighbours, without the
    voxel itself. In the dark, where a photon exceeds that scale, the limit is higher.
    """
    stencil = stencil_of(samples[0].values.shape)
    inner = stencil.inner()
    sizes = [np.abs(stencil.differences(sample.values)) for sample in samples]
    levels = [stencil.beside(sample.values) for sample in samples]
    for _ in range(2):
        valid = [stencil.valid(sample.mask) for sample in samples]
        size = np.concatenate([s[b] for s, b in zip(sizes, valid, strict=True)])
        level = np.concatenate([v[b] for v, b in zip(levels, valid, strict=True)])
        if size.size < _LEAST:
            return samples
        x, limit = _limits(size, level, darkest)
        kept = []
        for i, sample in enumerate(samples):
            spike = sizes[i] > np.interp(levels[i], x, limit)
            mask = sample.mask.copy()
            mask[inner] &= ~(spike & valid[i])
            kept.append(Sample(values=sample.values, mask=mask))
        samples = kept
    return samples


def _limits(
    sizes: FloatArray, mean: FloatArray, darkest: float
) -> tuple[Float64Array, Float64Array]:
    """Return local means, ascending, and the limits of residuals there."""
    thin = slice(None, None, max(1, sizes.size // 2**18) | 1)
    sizes, mean = sizes[thin], mean[thin]
    x, limit = [], []
    for group in groups_of(mean):
        size = sizes[group]
        scale = float(np.quantile(size, 0.9)) / 1.645
        if scale == 0:  # fewer photons than residuals
            scale = float(np.sqrt(np.mean(size**2, dtype=np.float64)))
        level = float(mean[group].mean(dtype=np.float64))
        photon = scale**2 / max(level - darkest, 0.2 * scale) if scale > 0 else 0.0
        x.append(level)
        limit.append(_SPIKE * scale + photon)
    return np.array(x), np.array(limit)


def groups_of(mean: FloatArray) -> list[npt.NDArray[np.intp]]:
    """Return the voxel indices of bins of local means, ascending.

    Bins of equal count mostly hold background; bins of equal range are added for bright regions.
    """
    order = np.argsort(mean)
    edges = np.unique(
        np.concatenate(
            [
                np.linspace(0, mean.size, _BINS + 1).astype(int),
                np.searchsorted(mean[order], np.linspace(mean.min(), mean.max(), _BINS + 1)),
                [mean.size],
            ]
        )
    )
    groups = [order[a:b] for a, b in itertools.pairwise(edges) if b - a >= _LEAST]
    return groups if groups else [order]


def step_of(samples: list[Sample]) -> float:
    """Return the step between values of an image of integers, 0 without steps."""
    values = np.concatenate([s.values[s.mask] for s in samples])
    values = values[:: max(1, values.size // 2**16) | 1]
    distinct = np.unique(values)
    if distinct.size < 2 or distinct.size > 0.25 * values.size:
        return 0.0
    step = float(np.diff(distinct).min())
    return step if step > 1e-6 * float(np.ptp(distinct)) else 0.0
