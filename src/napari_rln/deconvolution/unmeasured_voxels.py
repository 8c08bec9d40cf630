"""Voxels that hold no measurement: saturated ones, and those filled in where nothing was imaged.

What to look for is found once, on a volume or samples of it (:func:`find_levels`); the masks of
any part follow from those levels and the part alone, so that parts with a halo of
:data:`HALO` voxels have the masks of the whole.
"""

import math
from collections import Counter
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from napari_rln.core.volume import FloatArray

Mask = npt.NDArray[np.bool_]

HALO = 4  # voxels around a part that its masks depend on

_PILE = 5  # voxels at the highest value that may be chance
_PILE_RATIO = 4.0  # how much more frequent than the values below it a ceiling is
_SPECKS = 2e-3  # lone voxels of other values, of those with one value, that a filled region has
_LEAST_FILLED = 1e-4  # share of a volume that is worth telling
_MIXED = 2  # voxels next to filled ones that an interpolation mixed with them
_NEAR = (3, 6)  # voxels from filled ones where there is image again
_BEGINS = 0.25  # brightness of its darkest tenth there, of its median


@dataclass(frozen=True, kw_only=True)
class Levels:
    """Values by which voxels without a measurement are known.

    Attributes
    ----------
    saturation
        Value at which the detector, or the file, ends; none where nothing piles up there.
    fill
        Value that was filled in where nothing was imaged; none where there is no such value.
    least
        Value below which voxels beside filled ones are mixtures with them.
    """

    saturation: float | None = None
    fill: float | None = None
    least: float = -math.inf


def find_levels(*images: FloatArray) -> Levels:
    """Return by which values the voxels without a measurement are known.

    Parameters
    ----------
    *images
        (Z, Y, X): an image, or samples of it. NaN is never a measurement and needs no level.
    """
    saturation = saturation_level(*images)
    fill, least = _fill_level(images, saturation)
    return Levels(saturation=saturation, fill=fill, least=least)


def saturated(part: FloatArray, levels: Levels) -> Mask:
    """Return which voxels of a part are at the detector's end, (Z, Y, X) bool."""
    if levels.saturation is None:
        return np.zeros(part.shape, dtype=bool)
    return np.asarray(part >= levels.saturation)


def filled(part: FloatArray, levels: Levels) -> Mask:
    """Return which voxels of a part were filled in, (Z, Y, X) bool.

    Those are regions of the fill value, at least 3 voxels wide in the plane, and mixtures with
    them that an interpolation left within 2 voxels. A lone voxel of that value is not one.

    Parameters
    ----------
    part
        (Z, Y, X), of the volume that the levels are of.
    levels
        As :func:`find_levels` returned them.
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
    """Return the numbers, from 0, of planes that hold one value only: absent ones.

    None where all planes do: then there is no image to be absent from.
    """
    constant = np.flatnonzero(~_varied(image))
    return tuple(constant.tolist()) if constant.size < len(image) else ()


def _varied(image: FloatArray) -> Mask:
    """Return which planes hold more than one value, (Z,) bool."""
    spread = np.fmax.reduce(image, axis=(1, 2)) - np.fmin.reduce(image, axis=(1, 2))
    return np.asarray(spread > 0)


def saturation_level(*images: FloatArray) -> float | None:
    """Return the highest value of images if voxels pile up there, else none.

    A ceiling is more frequent than the values below it; where light merely ends, the highest
    values are the rarest. Isolated voxels at one value are hot, not saturated: next to saturated
    ones it is bright.
    """
    images = tuple(
        image[_varied(image)] for image in images
    )  # an absent plane has no highest value
    images = tuple(image for image in images if image.size)
    if not images:
        return None
    top = max(float(np.nanmax(image)) for image in images)
    count = sum(int((image == top).sum()) for image in images)
    if count < _PILE or count <= _PILE_RATIO * _usual_count(images, top):
        return None
    half = 0.5 * (top + float(np.median(np.concatenate([_thinned(i) for i in images]))))
    company = [_has_company(image, top, half) for image in images]
    return top if np.concatenate(company).mean() >= 0.5 else None


def _usual_count(images: tuple[FloatArray, ...], top: float) -> float:
    """Return how often each of the five highest values below the top occurs, on average."""
    below = [image[image < top] for image in images]
    few = [np.partition(b, b.size - 1000)[b.size - 1000 :] if b.size > 1000 else b for b in below]
    values = np.unique(np.concatenate(few))[-5:]
    if not values.size:
        return math.inf
    return sum(int((b >= values[0]).sum()) for b in below) / values.size


def _has_company(image: FloatArray, top: float, half: float) -> Mask:
    """Return, for each voxel at the top, whether one beside it in the plane is bright too."""
    z, y, x = np.nonzero(image == top)
    z, y, x = z[:1000], y[:1000], x[:1000]
    _, height, width = image.shape
    company = np.zeros(z.size, dtype=bool)
    for dy, dx in ((-1, 0), (1, 0), (0, -1), (0, 1)):
        v, u = y + dy, x + dx
        there = (v >= 0) & (v < height) & (u >= 0) & (u < width)
        company[there] |= image[z[there], v[there], u[there]] > half
    return company


def _thinned(image: FloatArray, size: int = 2**18) -> FloatArray:
    """Return about so many measured voxels, (N,), spread over an image."""
    values = image.ravel()[:: max(1, image.size // size) | 1]
    return np.asarray(values[~np.isnan(values)])


def _fill_level(
    images: tuple[FloatArray, ...], saturation: float | None
) -> tuple[float | None, float]:
    """Return the value that was filled in, and the least value of what is image beside it.

    Voxels are filled where whole neighbourhoods hold one exact value and the image begins at
    once beside them. The zeros of a dark image end gradually, among values like them, and have
    lone photons within.
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
        begins = lowest - value > _BEGINS * (middle - value) > 0
        if begins and sum(_specks(i, value) for i in images) < _SPECKS * count:
            return value, float(np.quantile(near, 0.001))
    return None, -math.inf


def _specks(image: FloatArray, value: float) -> int:
    """Return how many voxels of other values stand alone among voxels of a value.

    Light that was cut off at a value still rises above it here and there.
    """
    around = (image == value).astype(np.int8)
    for axis in (1, 2):
        first, last = _ends(axis)
        total = around.copy()
        total[first] += around[last]
        total[last] += around[first]
        around = total
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
    """Return where a voxel's four neighbours in the plane hold its value, (Z, Y, X) bool."""
    same = np.ones(image.shape, dtype=bool)
    for axis in (1, 2):
        differs = np.diff(image, axis=axis) != 0
        first, last = _ends(axis)
        same[first] &= ~differs
        same[last] &= ~differs
    return same


def _constant(image: FloatArray, value: float) -> Mask:
    """Return where a voxel and its eight neighbours in the plane hold a value, (Z, Y, X) bool.

    Beyond the border everything is as at the border.
    """
    return ~_widened(image != value, (0, 1, 1))


def _widened(mask: Mask, reach: tuple[int, int, int]) -> Mask:
    """Return a mask widened by some voxels along each axis."""
    for axis, voxels in enumerate(reach):
        for _ in range(voxels):
            mask = _along(mask, axis)
    return mask


def _along(mask: Mask, axis: int) -> Mask:
    """Return where a mask holds for a voxel or a neighbour along an axis."""
    wide = mask.copy()
    first, last = _ends(axis)
    wide[first] |= mask[last]
    wide[last] |= mask[first]
    return wide


def _ends(axis: int) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """Return slices of all but the last and all but the first along an axis."""
    around = (slice(None),) * axis
    return (*around, slice(None, -1)), (*around, slice(1, None))
