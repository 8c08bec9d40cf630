"""Voxels of an image that cannot be believed: hot and cold ones, saturated and filled ones.

What light comes through an optical system is no sharper than its PSF. A voxel that stands out
from its neighbours more than any distribution of light could, noise allowed for, is the camera's
doing: a hot pixel, in one plane or in all, random telegraph noise, a cosmic ray.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from napari_rln.core.volume import FloatArray
from napari_rln.deconvolution.noise import Noise
from napari_rln.deconvolution.unmeasured_voxels import (
    Levels,
    constant_planes,
    filled,
    find_levels,
    saturated,
)

Mask = npt.NDArray[np.bool_]
Float64Array = npt.NDArray[np.float64]

_SURE = 6.0  # standard deviations of noise that a defect stands out by
_SKEWED = (_SURE**2 - 1) / 6  # photons by which few of them reach further than a Gaussian does
_CANDIDATE = 4.0  # standard deviations above or below the neighbours from which to look closer
_SHARPER = 1.5  # how much sharper than its PSF the light may be: PSFs are never quite right
_FAINT = 0.01  # share of the PSF's greatest local mean from which its sharpness counts
_CANDIDATES = 2**17  # looked at together
_SHARPEST = (0.5, 0.9, 0.9)  # FWHM (z, y, x) in voxels of an unknown PSF


@dataclass(frozen=True, kw_only=True, eq=False)
class Defects:
    """Voxels of an image that cannot be believed, (Z, Y, X) bool each.

    Attributes
    ----------
    hot, cold
        Isolated voxels brighter or darker than light can be; never among the others.
    saturated
        At the highest value that the detector, or the file, can hold.
    filled
        Filled in where nothing was imaged, absent planes included.
    planes
        Numbers, from 0, of planes that hold one value only.
    levels
        By which the saturated and filled voxels were known.
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
    def seen(self) -> Mask:
        """Voxels that are measurements, (Z, Y, X) bool: neither saturated nor filled."""
        return ~(self.saturated | self.filled)

    def sentences(self) -> tuple[str, ...]:
        """Return what was found, with numbers; empty where nothing was."""
        said = []
        for mask, word in ((self.hot, "hot"), (self.cold, "cold")):
            if count := int(mask.sum()):
                said.append(
                    f"{count:,} isolated {word} voxel{_s(count)} (1 in {mask.size // count:,}) "
                    f"{_were(count)} repaired"
                )
        if count := int(self.saturated.sum()):
            said.append(
                f"{count:,} saturated voxel{_s(count)} at {self.levels.saturation:g} "
                f"{_are(count)} left out"
            )
        if count := len(self.planes):
            verb = "holds" if count == 1 else "hold"
            listed = _listed([str(z) for z in self.planes])
            said.append(
                f"plane{_s(count)} {listed} {verb} one value only and {_are(count)} left out"
            )
        others = self.filled.copy()
        others[list(self.planes)] = False
        if count := int(others.sum()):
            said.append(
                f"{count:,} voxel{_s(count)} ({count / others.size:.1%}) {_are(count)} filled in, "
                f"not measured, and left out"
            )
        return tuple(said)


def find_defects(
    image: FloatArray,
    *,
    noise: Noise,
    psf: FloatArray | None = None,
    levels: Levels | None = None,
    planes: Sequence[int] | None = None,
    background: float | None = None,
) -> Defects:
    """Return the voxels of an image, or of a part of one, that cannot be believed.

    The masks at a voxel depend on the levels given and on voxels up to :data:`HALO` away.

    Parameters
    ----------
    image
        (Z, Y, X), in any unit; NaN where nothing was measured.
    noise
        Of the image. Without a gain nothing is called hot or cold: an image that was denoised or
        deconvolved may be sharper than its PSF.
    psf
        (Z, Y, X), sum 1, on the image's voxels. When none, one of about a voxel is taken, and
        only the most glaring voxels are found.
    levels
        Of saturated and filled voxels, as :func:`find_levels` finds them on samples of the whole
        image; found in this one when none.
    planes
        Numbers of planes that hold one value only, where the image is a part; found when none.
    background
        Level without object, image units; where light is brightest in proportion to its
        surroundings. The noise's zero when none, which finds fewer.
    """
    levels = find_levels(image) if levels is None else levels
    planes = constant_planes(image) if planes is None else tuple(planes)
    unseen = filled(image, levels)
    unseen[list(planes)] = True
    hot = cold = np.zeros(image.shape, dtype=bool)
    if noise.gain > 0 and min(image.shape[1:]) >= 3:
        level = noise.zero if background is None else background
        measured = np.where(_maybe_filled(image, levels), np.float32(np.nan), image)
        measured[list(planes)] = np.nan
        hot, cold = _isolated(measured, noise, _tests(image.shape, psf), level)
    return Defects(
        hot=hot,
        cold=cold,
        saturated=saturated(image, levels) & ~hot & ~unseen,
        filled=unseen,
        planes=planes,
        levels=levels,
    )


def _maybe_filled(image: FloatArray, levels: Levels) -> Mask:
    """Return voxels that are filled or mixtures by their value alone, (Z, Y, X) bool."""
    if levels.fill is None:
        return np.isnan(image)
    return np.asarray((image == levels.fill) | (image < levels.least) | np.isnan(image))


def repaired(image: FloatArray, defects: Mask, *, others: Mask | None = None) -> FloatArray:
    """Return an image with defects replaced by the median of their neighbours.

    Parameters
    ----------
    image
        (Z, Y, X).
    defects
        (Z, Y, X) bool, what to replace.
    others
        (Z, Y, X) bool, what else is not to be believed as a neighbour.

    Returns
    -------
    ndarray
        (Z, Y, X) float32; a copy. A defect without a neighbour to believe within two voxels
        stays as it is.
    """
    mended = np.array(image, dtype=np.float32)
    wrong = defects if others is None else defects | others
    left = np.argwhere(defects)
    for reach in (1, 2):
        if not left.size:
            break
        known = np.pad(np.where(wrong, np.nan, image), reach, constant_values=np.nan)
        around = _around(known, left, reach)
        can = ~np.isnan(around).all(axis=1)
        mended[tuple(left[can].T)] = np.nanmedian(around[can], axis=1)
        left = left[~can]
    return mended


@dataclass(frozen=True, kw_only=True)
class _Test:
    """Second differences along some axes, and how large light alone can make them.

    Attributes
    ----------
    differences, mean
        (27,) weights of a voxel and its neighbours.
    most, least
        Greatest and smallest difference over mean of an image of any light.
    """

    differences: FloatArray
    mean: FloatArray
    most: float
    least: float

    def above(self, around: FloatArray) -> FloatArray:
        """Return by how much voxels differ from neighbours, (N,), told by the brighter ones.

        Of two neighbours on opposite sides both count as the brighter one, and none counts in a
        voxel's favour by being brighter than itself: what is beside a defect is none.
        """
        centre = around[:, 13:14]
        against = np.maximum(around, around[:, ::-1])
        counted = np.where(self.differences < 0, against, np.minimum(around, centre))
        return _sum(counted, self.differences)


def _tests(shape: tuple[int, ...], psf: FloatArray | None) -> list[_Test]:
    """Return what an image of a shape is tested by.

    Along all axes for lone voxels; without one of them for what stretches along it: pixels that
    are hot in all planes, tracks of cosmic rays. An image is a sum of PSFs, so
    none of its ratios of difference to mean exceeds the PSF's.
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
    """Return a PSF of about a voxel, (Z, Y, X)."""
    z, y, x = np.indices((5, 9, 9) if volume else (1, 9, 9), dtype=np.float64)
    widths = np.array(_SHARPEST) / np.sqrt(8 * np.log(2))
    z, y, x = z - z.max() / 2, y - 4, x - 4
    psf = np.exp(-0.5 * ((z / widths[0]) ** 2 + (y / widths[1]) ** 2 + (x / widths[2]) ** 2))
    return np.asarray(psf / psf.sum())


def _isolated(
    image: FloatArray, noise: Noise, tests: Sequence[_Test], level: float
) -> tuple[Mask, Mask]:
    """Return hot and cold voxels of an image with NaN where it is no measurement."""
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
            doubt = _SURE * np.sqrt(_sum(variance, test.differences**2))
            further = np.float32(_SKEWED * noise.gain * test.differences[13])
            up |= test.above(around) > test.most * light + doubt + further
            down |= -test.above(-around) < test.least * light - doubt
        hot[tuple(some[up].T)] = True
        cold[tuple(some[down].T)] = True
    size = np.abs(rise)
    return hot & ~_outdone(hot, cold, size), cold & ~_outdone(cold, hot, size)


def _outdone(mask: Mask, others: Mask, size: FloatArray) -> Mask:
    """Return voxels of a mask with one of the others beside them that stands out more.

    Next to a hot voxel at the border its neighbours look cold.
    """
    outdone = np.zeros(mask.shape, dtype=bool)
    voxels = np.argwhere(mask)
    if len(voxels) and others.any():
        theirs = _around(np.pad(np.where(others, size, 0), 1), voxels, 1)
        outdone[tuple(voxels.T)] = theirs.max(axis=1) > size[tuple(voxels.T)]
    return outdone


def _sum(around: FloatArray, weights: FloatArray) -> FloatArray:
    """Return weighted sums of neighbourhoods; only neighbours with a weight need be known."""
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


def _around(padded: FloatArray, voxels: npt.NDArray[np.intp], reach: int) -> FloatArray:
    """Return the neighbourhoods of voxels of an image padded by their reach, (N, neighbours)."""
    z, y, x = (v[:, None] for v in voxels.T)
    steps = np.indices((2 * reach + 1,) * 3).reshape(3, -1)
    return np.asarray(padded[z + steps[0], y + steps[1], x + steps[2]])


def _listed(words: Sequence[str]) -> str:
    """Return words as in a sentence: "7, 9 and 12"."""
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def _s(count: int) -> str:
    return "" if count == 1 else "s"


def _are(count: int) -> str:
    return "is" if count == 1 else "are"


def _were(count: int) -> str:
    return "was" if count == 1 else "were"
