"""Defective voxels of an image: hot and cold, saturated and filled.

Light that passes an optical system is no sharper than its PSF. A voxel that differs from its
neighbours by more than any distribution of light allows, beyond noise, is an artefact of the
camera: a hot pixel, in one plane or in all, random telegraph noise, a cosmic ray.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from napari_rln.core.volume import Float64Array, FloatArray, Mask
from napari_rln.deconvolution.noise import Noise
from napari_rln.deconvolution.unmeasured_voxels import (
    Levels,
    constant_planes,
    filled,
    find_levels,
    saturated,
)

_SURE = 6.0  # standard deviations of noise by which a defect must differ
_SKEW = (_SURE**2 - 1) / 6  # photons by which the Poisson tail exceeds a Gaussian's
_CANDIDATE = 4.0  # standard deviations above or below the neighbours to become a candidate
_SHARPER = 1.5  # factor by which light may be sharper than the PSF, which is never exact
_FAINT = 0.01  # fraction of the PSF's greatest local mean below which sharpness is ignored
_CANDIDATES = 2**17  # tested at once
_SHARPEST = (0.5, 0.9, 0.9)  # FWHM (z, y, x) in voxels of an unknown PSF


@dataclass(frozen=True, kw_only=True, eq=False)
class Defects:
    """Masks of the defective voxels of an image, (Z, Y, X) bool each.

    Attributes
    ----------
    hot, cold
        Isolated voxels brighter or darker than light allows; disjoint from the others.
    saturated
        Voxels at the highest value of the detector, or of the file.
    filled
        Voxels filled in where nothing was imaged, absent planes included.
    planes
        Indices, from 0, of planes with a single value.
    levels
        Values of saturated and filled voxels.
    """

    hot: Mask
    cold: Mask
    saturated: Mask
    filled: Mask
    planes: tuple[int, ...]
    levels: Levels

    @property
    def isolated(self) -> Mask:
        """Voxels to repair: hot and cold ones, (Z, Y, X) bool."""
        return self.hot | self.cold

    @property
    def mask(self) -> Mask:
        """Measured voxels, (Z, Y, X) bool: neither saturated nor filled."""
        return ~(self.saturated | self.filled)

    def sentences(self) -> tuple[str, ...]:
        """Return one sentence for each kind of defect, with its number of voxels."""
        sentences = []
        for mask, kind in ((self.hot, "hot"), (self.cold, "cold")):
            if count := int(mask.sum()):
                rate = f"1 in {mask.size // count:,}"
                sentences.append(f"repaired {count:,} isolated {kind} voxel{_s(count)} ({rate})")
        if count := int(self.saturated.sum()):
            level = f"{self.levels.saturation:g}"
            sentences.append(f"excluded {count:,} voxel{_s(count)} saturated at {level}")
        if count := len(self.planes):
            listed = ", ".join(str(z) for z in self.planes)
            sentences.append(f"excluded plane{_s(count)} {listed} without any contrast")
        others = self.filled.copy()
        others[list(self.planes)] = False
        if count := int(others.sum()):
            fraction = f"{count / others.size:.1%}"
            sentences.append(f"excluded {count:,} unmeasured, filled voxel{_s(count)} ({fraction})")
        return tuple(sentences)


def find_defects(
    image: FloatArray,
    *,
    noise: Noise,
    psf: FloatArray | None = None,
    levels: Levels | None = None,
    planes: Sequence[int] | None = None,
    background: float | None = None,
) -> Defects:
    """Return the defective voxels of an image or a part of one, (Z, Y, X), NaN where unmeasured.

    The masks at a voxel depend on ``levels`` and on voxels up to :data:`HALO` away.

    Parameters
    ----------
    image
        In any unit.
    noise
        Noise of the image. Without a gain no voxel counts as hot or cold: a denoised or
        deconvolved image may be sharper than its PSF.
    psf
        (Z, Y, X), sum 1, on the image's voxels. When none, a PSF about one voxel wide is assumed,
        which detects only the most extreme voxels.
    levels, planes
        Values of saturated and filled voxels, and indices of planes with a single value, of the
        whole image; detected in this one when none.
    background
        Background level, image units. The noise's zero when none, which detects fewer.
    """
    levels = find_levels(image) if levels is None else levels
    planes = constant_planes(image) if planes is None else tuple(planes)
    unmeasured = filled(image, levels)
    unmeasured[list(planes)] = True
    hot = cold = np.zeros(image.shape, dtype=bool)
    if noise.gain > 0 and min(image.shape[1:]) >= 3:
        level = noise.zero if background is None else background
        measured = np.where(_maybe_filled(image, levels), np.float32(np.nan), image)
        measured[list(planes)] = np.nan
        hot, cold = _isolated(measured, noise, _tests(image.shape, psf), level)
    return Defects(
        hot=hot,
        cold=cold,
        saturated=saturated(image, levels) & ~hot & ~unmeasured,
        filled=unmeasured,
        planes=planes,
        levels=levels,
    )


def _maybe_filled(image: FloatArray, levels: Levels) -> Mask:
    """Return voxels that are filled or mixtures by their value alone, (Z, Y, X) bool."""
    if levels.fill is None:
        return np.isnan(image)
    return np.asarray((image == levels.fill) | (image < levels.least) | np.isnan(image))


def repaired(image: FloatArray, defects: Mask, *, others: Mask | None = None) -> FloatArray:
    """Return a copy of an image with defects replaced by the median of their neighbours, float32.

    All are (Z, Y, X); voxels of ``others`` are excluded as neighbours too. A defect without a valid
    neighbour within two voxels is unchanged.
    """
    result = np.array(image, dtype=np.float32)
    invalid = defects if others is None else defects | others
    remaining = np.argwhere(defects)
    for radius in (1, 2):
        if not remaining.size:
            break
        known = np.pad(np.where(invalid, np.nan, image), radius, constant_values=np.nan)
        around = _around(known, remaining, radius)
        can = ~np.isnan(around).all(axis=1)
        result[tuple(remaining[can].T)] = np.nanmedian(around[can], axis=1)
        remaining = remaining[~can]
    return result


@dataclass(frozen=True, kw_only=True)
class _Test:
    """Second differences along some axes, and their limits for light of any distribution.

    Attributes
    ----------
    differences, mean
        (27,), weights of a voxel and its neighbours.
    most, least
        Greatest and smallest ratio of difference to mean for light of any distribution.
    """

    differences: FloatArray
    mean: FloatArray
    most: float
    least: float

    def above(self, around: FloatArray) -> FloatArray:
        """Return the differences of voxels from their brighter neighbours, (N,).

        Of two neighbours on opposite sides both count as the brighter one, and none counts as
        brighter than the voxel: neighbours of a defect are no defects.
        """
        centre = around[:, 13:14]
        against = np.maximum(around, around[:, ::-1])
        counted = np.where(self.differences < 0, against, np.minimum(around, centre))
        return _sum(counted, self.differences)


def _tests(shape: tuple[int, ...], psf: FloatArray | None) -> list[_Test]:
    """Return the tests for an image of a shape.

    Along all axes for isolated voxels; without one of them for defects that extend along it:
    pixels that are hot in all planes, tracks of cosmic rays. An image is a sum of PSFs, so no
    ratio of difference to mean exceeds the PSF's.
    """
    axes = [axis for axis, n in enumerate(shape) if n >= 3]
    chosen = [axes, *itertools.combinations(axes, len(axes) - 1)]
    light = _gaussian(len(axes) > 2) if psf is None else np.asarray(psf, dtype=np.float64)
    light = np.pad(light, 2)
    tests = []
    for some in chosen:
        difference = np.zeros((3, 3, 3))
        mean = np.zeros((3, 3, 3))
        difference[1, 1, 1] = mean[1, 1, 1] = 1
        for axis in some:
            difference = ndimage.correlate1d(difference, [-1.0, 2.0, -1.0], axis, mode="constant")
            mean = ndimage.correlate1d(mean, [1.0, 1.0, 1.0], axis, mode="constant") / 3
        differences = ndimage.convolve(light, difference, mode="constant")
        means = ndimage.convolve(light, mean, mode="constant")
        there = means > _FAINT * means.max()
        ratio = differences[there] / means[there]
        tests.append(
            _Test(
                differences=difference.ravel().astype(np.float32),
                mean=mean.ravel().astype(np.float32),
                most=_SHARPER * max(float(ratio.max()), 0.0),
                least=_SHARPER * min(float(ratio.min()), 0.0),
            )
        )
    return tests


def _gaussian(volume: bool) -> Float64Array:
    """Return a PSF about one voxel wide, (Z, Y, X)."""
    z, y, x = np.indices((5, 9, 9) if volume else (1, 9, 9), dtype=np.float64)
    widths = np.array(_SHARPEST) / np.sqrt(8 * np.log(2))
    z, y, x = z - z.max() / 2, y - 4, x - 4
    psf = np.exp(-0.5 * ((z / widths[0]) ** 2 + (y / widths[1]) ** 2 + (x / widths[2]) ** 2))
    return np.asarray(psf / psf.sum())


def _isolated(
    image: FloatArray, noise: Noise, tests: Sequence[_Test], level: float
) -> tuple[Mask, Mask]:
    """Return the masks of hot and cold voxels of an image with NaN at unmeasured voxels."""
    padded = np.pad(image, 1, mode="reflect")
    axes = [axis for axis, n in enumerate(image.shape) if n >= 3]
    rise = image - _beside(padded, axes)
    hot, cold = np.zeros(image.shape, dtype=bool), np.zeros(image.shape, dtype=bool)
    variance = np.float32(noise.gain) * (image - rise - np.float32(noise.zero))
    np.maximum(variance, np.float32(noise.gain**2), out=variance)
    candidates = np.argwhere(rise**2 > np.float32(_CANDIDATE**2) * variance)
    for start in range(0, len(candidates), _CANDIDATES):
        some = candidates[start : start + _CANDIDATES]
        around = _around(padded, some, 1) - np.float32(level)
        variance = np.float32(noise.gain) * (around + np.float32(level - noise.zero))
        np.maximum(variance, np.float32(noise.gain**2), out=variance)
        up, down = np.zeros(len(some), dtype=bool), np.zeros(len(some), dtype=bool)
        for test in tests:
            light = np.maximum(_sum(around, test.mean), 0)
            margin = _SURE * np.sqrt(_sum(variance, test.differences**2))
            skew = np.float32(_SKEW * noise.gain * test.differences[13])
            up |= test.above(around) > test.most * light + margin + skew
            down |= -test.above(-around) < test.least * light - margin
        hot[tuple(some[up].T)] = True
        cold[tuple(some[down].T)] = True
    size = np.abs(rise)
    return hot & ~_less_extreme(hot, cold, size), cold & ~_less_extreme(cold, hot, size)


def _less_extreme(mask: Mask, others: Mask, size: FloatArray) -> Mask:
    """Return voxels of a mask beside one of the others that differs more from its neighbours.

    Neighbours of a hot voxel at the border look cold.
    """
    less = np.zeros(mask.shape, dtype=bool)
    voxels = np.argwhere(mask)
    if len(voxels) and others.any():
        theirs = _around(np.pad(np.where(others, size, 0), 1), voxels, 1)
        less[tuple(voxels.T)] = theirs.max(axis=1) > size[tuple(voxels.T)]
    return less


def _sum(around: FloatArray, weights: FloatArray) -> FloatArray:
    """Return weighted sums of neighbourhoods; neighbours of weight 0 may be NaN."""
    if not np.isnan(around).any():
        return np.asarray(around @ weights)
    used = weights != 0
    return np.asarray(around[:, used] @ weights[used])


def _beside(padded: FloatArray, axes: Sequence[int]) -> FloatArray:
    """Return the mean of each voxel's direct neighbours along axes."""
    inner = [slice(1, -1)] * 3
    total = np.zeros([n - 2 for n in padded.shape], dtype=np.float32)
    for axis in axes:
        for end in (slice(None, -2), slice(2, None)):
            total += padded[tuple(end if a == axis else s for a, s in enumerate(inner))]
    total /= np.float32(2 * len(axes))
    return total


def _around(padded: FloatArray, voxels: npt.NDArray[np.intp], radius: int) -> FloatArray:
    """Return the neighbourhoods of voxels of an image padded by their radius, (N, neighbours)."""
    z, y, x = (v[:, None] for v in voxels.T)
    steps = np.indices((2 * radius + 1,) * 3).reshape(3, -1)
    return np.asarray(padded[z + steps[0], y + steps[1], x + steps[2]])


def _s(count: int) -> str:
    return "" if count == 1 else "s"
