"""The peak of a point spread function: where it is, and which voxels only look like one.

A hot voxel of the camera stands alone in its plane. So does the peak of a PSF whose pixels are as
wide as its Airy disk, which is legal; no threshold tells the two apart. What does is the light
around: optics spread some of it about the peak, in the rings and in the planes next to it, whereas
nothing is spread about a hot voxel, and the PSF stands elsewhere.
"""

from typing import Any, NamedTuple, cast

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from napari_rln.core.errors import RlnError
from napari_rln.psf.pedestal import (
    Float64Array,
    background_level,
    brightest_spot,
    noise_among,
)

Triple = tuple[float, float, float]
Mask = npt.NDArray[np.bool_]

_ALONE = 4.0  # a Gaussian spot of FWHM 1.5 voxels reaches 3.5 times its second neighbour
_ON_AXIS = 0.75  # voxels: a peak may lie half a voxel off its centre, and the fit errs
_FLAT = 0.8  # of the peak, below which light must fall along an axis on which there is a peak
_TILT = 2  # planes next to the peak's in which the axis of a tilted PSF is looked for anew


class Alone(NamedTuple):
    """Voxels that stand alone in their planes, (Z, Y, X) each.

    Attributes
    ----------
    hot
        Those about which no light of the PSF lies.
    own
        Those of the PSF itself: its peak, and its further maxima along the optical axis.
    """

    hot: Mask
    own: Mask


class Peak(NamedTuple):
    """The peak of a PSF.

    Attributes
    ----------
    centre
        Position (z, y, x) in voxels.
    rise
        (Z, Y, X), the light above the background, 0 in hot voxels.
    noise_sd
        Standard deviation of the noise in the background.
    own
        See :class:`Alone`.
    """

    centre: Triple
    rise: Float64Array
    noise_sd: float
    own: Mask


def peak_centre(data: npt.NDArray[Any]) -> Triple:
    """Return the sub-voxel position (z, y, x) of the peak of the main lobe, in voxels.

    A three-dimensional Gaussian of any orientation is fitted to the logarithm of the intensity
    under a window that is centred on the estimate and as wide as the lobe, until it stands still:
    exact for a Gaussian, and unbiased for any lobe that is symmetric. Hot voxels are left out. A
    peak at the end of an axis along which the light hardly fades is none: the middle voxel counts.

    Parameters
    ----------
    data
        (Z, Y, X), any unit; the background need not be removed.

    Raises
    ------
    RlnError
        If no voxel rises above the background.
    """
    return find_peak(data).centre


def find_peak(data: npt.NDArray[Any]) -> Peak:
    """Return the peak of the main lobe and what was found on the way; see :func:`peak_centre`."""
    data = np.asarray(data, dtype=np.float64)
    level, noise_sd = background_level(data)
    hot, own = _lone_voxels(data, level, noise_sd)
    rise = np.where(hot, 0.0, data - level)
    spot = brightest_spot(rise)
    if own.any():  # a peak that the filters of the brightest spot do not see
        at = int(np.where(own, rise, 0).argmax())
        lone = cast("tuple[int, int, int]", np.unravel_index(at, data.shape))
        spot = lone if rise[lone] > rise[spot] else spot
    peak = float(rise[tuple(slice(max(0, i - 1), i + 2) for i in spot)].max())
    if peak <= 0:
        raise RlnError(
            "The PSF has no peak: no voxel rises above the background. Give a file with one bright "
            "spot."
        )
    centre = _climb(rise, ~hot, spot, peak)
    for axis, n in enumerate(data.shape):
        line = profile(rise, spot, axis)
        if not _inside(centre[axis], n) and line.min() > _FLAT * line.max():
            centre[axis] = n // 2
    where = float(centre[0]), float(centre[1]), float(centre[2])
    return Peak(centre=where, rise=rise, noise_sd=noise_sd, own=own)


def peak_inside(centre: Triple, shape: tuple[int, ...]) -> bool:
    """Tell whether a peak at a position (z, y, x) in voxels has a voxel on each side of it."""
    return all(_inside(c, n) for c, n in zip(centre, shape, strict=True))


def lone_voxels(data: npt.NDArray[Any]) -> Alone:
    """Return which voxels stand alone in their planes: the hot ones and the PSF's own.

    A voxel stands alone when it rises above the background more than four times as far as the
    second brightest of its eight neighbours in the plane, by at least ten times the noise (also
    that among the lit voxels) and 1 % of the PSF's peak. Neighbours in other planes do not count:
    a hot camera pixel is hot in all planes. It is the PSF's own where the peak of the light that
    is left without all such voxels is centred on it.

    Parameters
    ----------
    data
        (Z, Y, X), any unit.
    """
    data = np.asarray(data, dtype=np.float64)
    return _lone_voxels(data, *background_level(data))


def _lone_voxels(data: Float64Array, level: float, noise_sd: float) -> Alone:
    none = np.zeros(data.shape, dtype=bool)
    if min(data.shape[1:]) < 3:
        return Alone(none, none)
    noise_sd = max(noise_sd, noise_among(data, data > level))
    rise = data - level
    second = ndimage.rank_filter(rise, -3, size=(1, 3, 3), mode="nearest")
    least = max(10 * noise_sd, 0.01 * float(second.max()))
    alone: Mask = (rise > _ALONE * np.maximum(second, 0)) & (rise > least)
    if not alone.any():
        return Alone(none, none)
    rest = np.where(alone, ndimage.median_filter(rise, size=(1, 3, 3), mode="nearest"), rise)
    if rest[~alone].max() <= max(10 * noise_sd, 1e-6 * float(rise.max())):
        return Alone(none, alone)  # there is nothing but a point
    own = _own(rise, rest, alone)
    return Alone(alone & ~own, own)


def profile(rise: Float64Array, spot: tuple[int, int, int], axis: int) -> Float64Array:
    """Return the mean along an axis over the 3 x 3 voxels around a spot, (N,)."""
    around = [slice(max(0, i - 1), i + 2) for i in spot]
    around[axis] = slice(None)
    line: Float64Array = rise[tuple(around)].mean(axis=tuple(a for a in range(3) if a != axis))
    return line


def _inside(position: float, n: int) -> bool:
    return n <= 2 or 0.5 <= position <= n - 1.5


def _own(rise: Float64Array, rest: Float64Array, alone: Mask) -> Mask:
    """Return the lone voxels on which the light that is left is centred.

    The peak is in a plane near the brightest of what is left, or its light goes on in the next
    planes; a maximum further along the axis is not brighter than the peak.
    """
    spot = brightest_spot(rest)
    main = _climb(rest, ~alone, spot, max(float(rest[spot]), 1e-300))
    places = np.argwhere(alone)
    near = np.abs(places[:, 0] - spot[0]) <= _TILT
    centres = np.array(
        [
            _axis_at(z, rest, alone, main) if close else main[1:]
            for z, close in zip(places[:, 0], near, strict=True)
        ]
    )
    on_axis = np.abs(places[:, 1:] - centres).max(axis=1) <= _ON_AXIS
    light = rise[alone]
    likely = near | (light <= _ALONE * _next_planes(rise)[alone])
    peak = max(float(rest.max()), float(light[on_axis & likely].max(initial=0)))
    own = np.zeros(rest.shape, dtype=bool)
    own[alone] = on_axis & (likely | (light <= peak))
    return own


def _next_planes(rise: Float64Array) -> Float64Array:
    """Return, per voxel, the brightest of 3 x 3 voxels in the plane before and in the one after."""
    wide = np.pad(
        ndimage.maximum_filter(rise, size=(1, 3, 3), mode="nearest"), ((1, 1), (0, 0), (0, 0))
    )
    brightest: Float64Array = np.maximum(wide[:-2], wide[2:])
    return brightest


def _axis_at(z: int, rest: Float64Array, alone: Mask, main: Float64Array) -> Float64Array:
    """Return where (y, x) the axis of a PSF, which may be tilted, passes a plane near its peak."""
    near = slice(max(0, z - 1), z + 2)
    slab = rest[near].sum(axis=0, keepdims=True)
    spot = brightest_spot(slab)
    if np.abs(np.array(spot[1:]) - main[1:]).max() > 2 * _TILT:
        return main[1:]
    usable: Mask = ~np.any(alone[near], axis=0, keepdims=True)
    return _climb(slab, usable, spot, max(float(slab[spot]), 1e-300))[1:]


def _climb(
    rise: Float64Array, usable: Mask, spot: tuple[int, int, int], peak: float
) -> Float64Array:
    """Return the peak (z, y, x) of the lobe around a voxel, by fits that follow each other."""
    widths = _half_widths(rise, spot)
    centre = np.array(spot, dtype=np.float64)
    for _ in range(30):
        moved = _fit_peak(rise, usable, centre, widths, peak)
        step = float(np.abs(moved - centre).max())
        centre = moved
        if step < 1e-4:
            break
    return centre


def _half_widths(rise: Float64Array, spot: tuple[int, int, int]) -> Float64Array:
    """Return rough half widths at half maximum (z, y, x) in voxels, at least 0.8."""
    widths = []
    for axis, n in enumerate(rise.shape):
        line = profile(rise, spot, axis)
        above = line > 0.5 * line[spot[axis]]
        low = high = spot[axis]
        while low > 0 and above[low - 1]:
            low -= 1
        while high < n - 1 and above[high + 1]:
            high += 1
        widths.append(max(0.8, (high - low + 1) / 2))
    return np.array(widths)


def _fit_peak(
    rise: Float64Array,
    usable: npt.NDArray[np.bool_],
    centre: Float64Array,
    widths: Float64Array,
    peak: float,
) -> Float64Array:
    """Return the peak of the Gaussian fitted around a centre; the windowed centroid if none fits.

    The log-intensity is a quadratic form; its weighted least squares has weights proportional to
    intensity squared (noise in the logarithm is noise over intensity) times the window.
    """
    axes = [a for a in range(3) if rise.shape[a] > 1]
    reach = np.maximum(1, np.ceil(2 * widths)).astype(int)
    nearest = np.rint(centre).astype(int)
    box = tuple(slice(max(0, i - r), i + r + 1) for i, r in zip(nearest, reach, strict=True))
    values, grid = rise[box], np.indices(rise[box].shape).astype(np.float64)
    offsets = [grid[a] + box[a].start - centre[a] for a in axes]
    window = np.exp(-0.5 * sum((o / widths[a]) ** 2 for o, a in zip(offsets, axes, strict=True)))
    keep = usable[box] & (values > 0.02 * peak)
    weight = (np.where(keep, values, 0) * window)[keep]
    u = [o[keep] for o in offsets]
    pairs = [(i, j) for i in range(len(u)) for j in range(i, len(u))]
    design = np.stack([np.ones_like(weight), *u, *(u[i] * u[j] for i, j in pairs)], axis=1)
    answer, _, rank, _ = np.linalg.lstsq(
        design * weight[:, None], np.log(values[keep]) * weight, rcond=None
    )
    form = np.zeros((len(u), len(u)))
    for (i, j), value in zip(pairs, answer[1 + len(u) :], strict=True):
        form[i, j] += value
        form[j, i] += value
    shift = np.zeros(3)
    if rank == design.shape[1] and np.linalg.eigvalsh(form).max() < 0:
        shift[axes] = np.linalg.solve(form, -answer[1 : 1 + len(u)])
    else:
        light = weight / weight.sum()
        shift[axes] = [float((light * o).sum()) for o in u]
    limit = widths / 2  # a bad fit may not run away
    moved: Float64Array = np.clip(
        centre + np.clip(shift, -limit, limit), 0, np.array(rise.shape) - 1.0
    )
    return moved
