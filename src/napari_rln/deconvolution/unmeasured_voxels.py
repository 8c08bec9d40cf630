"""Unmeasured voxels: saturated ones, and those filled in where nothing was imaged.

Their values are detected once, in a volume or samples of it (:func:`find_levels`). The masks of a
part depend on these values and the part alone, so that parts with a halo of :data:`HALO` voxels
have the masks of the whole.
"""

import math
from collections import Counter
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from napari_rln.core.volume import FloatArray, Mask, Shape

HALO = 4  # voxels around a part on which its masks depend

_PILE = 5  # voxels at the highest value that may occur by chance
_PILE_RATIO = 4.0  # least frequency of a ceiling relative to the values below it
_SPECKS = 2e-3  # most isolated other voxels in a filled region, relative to its size
_LEAST_FILLED = 1e-4  # least fraction of a volume to detect
_MIXED = 2  # distance from filled voxels up to which interpolation mixes values
_NEAR = (3, 6)  # distances from filled voxels of the nearest unmixed image
_BEGINS = 0.25  # least ratio there of darkest tenth to median, above the fill value


@dataclass(frozen=True, kw_only=True)
class Levels:
    """Values of unmeasured voxels.

    Attributes
    ----------
    saturation
        Highest value of the detector, or of the file; none without saturated voxels.
    fill
        Fill value where nothing was imaged; none without filled voxels.
    least
        Lowest value of unmixed voxels beside filled ones.
    """

    saturation: float | None = None
    fill: float | None = None
    least: float = -math.inf


def find_levels(*images: FloatArray) -> Levels:
    """Return the values of saturated and filled voxels of an image, or of samples of it.

    NaN is always unmeasured and needs no level.
    """
    saturation = saturation_level(*images)
    fill, least = _fill_level(images, saturation)
    return Levels(saturation=saturation, fill=fill, least=least)


def saturated(part: FloatArray, levels: Levels) -> Mask:
    """Return the mask of saturated voxels of a part, (Z, Y, X) bool."""
    if levels.saturation is None:
        return np.zeros(part.shape, dtype=bool)
    return np.asarray(part >= levels.saturation)


def filled(part: FloatArray, levels: Levels) -> Mask:
    """Return the mask of filled voxels of a part, (Z, Y, X) bool.

    These are regions of the fill value, at least 3 voxels wide in the plane, and voxels within a
    distance of 2 that interpolation mixed with them. Isolated voxels of that value are measured.
    """
    unknown = np.isnan(part)
    if levels.fill is None:
        return unknown
    wide = _widened(_constant(part, levels.fill), (0, 1, 1))
    if not wide.any():
        return unknown
    beside = _widened(wide, (_MIXED,) * 3)
    mixed = (part == levels.fill) | ((part >= levels.fill) & (part < levels.least))
    return np.asarray((beside & mixed) | unknown)


def constant_planes(image: FloatArray) -> tuple[int, ...]:
    """Return the indices, from 0, of planes with a single value: absent ones.

    Empty if all planes are: then there is no image.
    """
    constant = np.flatnonzero(~_varied(image))
    return tuple(constant.tolist()) if constant.size < len(image) else ()


def _varied(image: FloatArray) -> Mask:
    """Return the mask of planes with more than one value, (Z,) bool."""
    spread = np.fmax.reduce(image, axis=(1, 2)) - np.fmin.reduce(image, axis=(1, 2))
    return np.asarray(spread > 0)


def saturation_level(*images: FloatArray) -> float | None:
    """Return the highest value of images if voxels accumulate there, else none.

    A ceiling is more frequent than the values below it; without saturation the highest values are
    the rarest. Isolated voxels at one value are hot, not saturated: neighbours of saturated voxels
    are bright.
    """
    images = tuple(image[_varied(image)] for image in images)  # without absent planes
    images = tuple(image for image in images if image.size)
    if not images:
        return None
    top = max(float(np.nanmax(image)) for image in images)
    count = sum(int((image == top).sum()) for image in images)
    if count < _PILE or count <= _PILE_RATIO * _usual_count(images, top):
        return None
    half = 0.5 * (top + float(np.median(np.concatenate([_subsampled(i) for i in images]))))
    bright = [_beside_bright(image, top, half) for image in images]
    return top if np.concatenate(bright).mean() >= 0.5 else None


def _usual_count(images: tuple[FloatArray, ...], top: float) -> float:
    """Return the mean frequency of the five highest values below the top."""
    below = [image[image < top] for image in images]
    few = [np.partition(b, b.size - 1000)[b.size - 1000 :] if b.size > 1000 else b for b in below]
    values = np.unique(np.concatenate(few))[-5:]
    if not values.size:
        return math.inf
    return sum(int((b >= values[0]).sum()) for b in below) / values.size


def _beside_bright(image: FloatArray, top: float, half: float) -> Mask:
    """Return, for each voxel at the top, whether a neighbour in the plane is bright too."""
    z, y, x = np.nonzero(image == top)
    z, y, x = z[:1000], y[:1000], x[:1000]
    _, height, width = image.shape
    bright = np.zeros(z.size, dtype=bool)
    for dy, dx in ((-1, 0), (1, 0), (0, -1), (0, 1)):
        v, u = y + dy, x + dx
        there = (v >= 0) & (v < height) & (u >= 0) & (u < width)
        bright[there] |= image[z[there], v[there], u[there]] > half
    return bright


def _subsampled(image: FloatArray, size: int = 2**18) -> FloatArray:
    """Return about ``size`` measured voxels, (N,), spread over an image."""
    values = image.ravel()[:: max(1, image.size // size) | 1]
    return np.asarray(values[~np.isnan(values)])


def _fill_level(
    images: tuple[FloatArray, ...], saturation: float | None
) -> tuple[float | None, float]:
    """Return the fill value, and the lowest value of unmixed voxels beside it.

    Voxels are filled where whole neighbourhoods have one exact value and the image begins abruptly
    beside them. Zeros of a dark image end gradually, among similar values, and contain isolated
    photons.
    """
    constants: Counter[float] = Counter()
    for image in images:
        values, counts = np.unique(image[_repeated(image)], return_counts=True)
        constants.update(dict(zip(values.tolist(), counts.tolist(), strict=True)))
    if saturation is not None:
        constants.pop(saturation, None)
    size = sum(image.size for image in images)
    for value, count in constants.most_common(2):
        if count < max(_LEAST_FILLED * size, 9):
            break
        near = np.concatenate([_near(image, value) for image in images])
        if near.size < 50:
            continue
        lowest, middle = np.quantile(near, [0.1, 0.5])
        abrupt = lowest - value > _BEGINS * (middle - value) > 0
        if abrupt and sum(_specks(i, value) for i in images) < _SPECKS * count:
            return value, float(np.quantile(near, 0.001))
    return None, -math.inf


def _specks(image: FloatArray, value: float) -> int:
    """Return the number of isolated voxels of other values among voxels of a value.

    Light clipped at a value still exceeds it in places.
    """
    around = (image == value).astype(np.int8)
    for axis in (1, 2):
        around = ndimage.convolve1d(around, [1, 1, 1], axis, mode="constant")
    return int(((image != value) & (around >= 7)).sum())


def _near(image: FloatArray, value: float) -> FloatArray:
    """Return the values, (N,), of voxels near regions of a value, beyond mixtures with it."""
    wide = _widened(_constant(image, value), (0, 1, 1))
    if not wide.any():
        return image[:0].ravel()
    inner = _widened(wide, (_NEAR[0] - 1,) * 3)
    outer = _widened(inner, (_NEAR[1] - _NEAR[0] + 1,) * 3)
    return np.asarray(image[outer & ~inner & ~np.isnan(image)])


def _repeated(image: FloatArray) -> Mask:
    """Return the mask of voxels equal to their four neighbours in the plane, (Z, Y, X) bool."""
    same = np.ones(image.shape, dtype=bool)
    for axis in (1, 2):
        differs = np.diff(image, axis=axis) != 0
        first, last = lagged(axis, 1, image.shape[axis])
        same[first] &= ~differs
        same[last] &= ~differs
    return same


def _constant(image: FloatArray, value: float) -> Mask:
    """Return the mask of voxels that have a value, with their eight neighbours in the plane.

    The image is extended by its edge voxels.
    """
    return ~_widened(image != value, (0, 1, 1))


def _widened(mask: Mask, radii: Shape) -> Mask:
    """Return a mask dilated by radii (z, y, x) in voxels."""
    for axis, voxels in enumerate(radii):
        first, last = lagged(axis, 1, mask.shape[axis])
        for _ in range(voxels):
            narrow, mask = mask, mask.copy()
            mask[first] |= narrow[last]
            mask[last] |= narrow[first]
    return mask


def lagged(axis: int, lag: int, n: int) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """Return slices that pair the voxels along an axis of length n at a lag."""
    around = (slice(None),) * axis
    return (*around, slice(None, n - lag)), (*around, slice(lag, None))
