"""Sub-voxel peak of a point spread function, distinguished from hot voxels.

A hot voxel of the camera is isolated in its plane. So is the peak of a PSF whose pixels are as wide
as its Airy disk; no threshold separates the two. The light around them does: optics spread some of
it about the peak, into rings and adjacent planes, but none about a hot voxel, which lies off the
PSF.
"""

from collections.abc import Iterable
from typing import Any, NamedTuple, cast

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from napari_rln.core.errors import RlnError
from napari_rln.core.generators import checkpoint
from napari_rln.core.volume import Float64Array, Mask
from napari_rln.psf.pedestal import (
    background_level,
    brightest_spot,
    median_in_planes,
    noise_among,
    rank_in_planes,
)

Triple = tuple[float, float, float]

_ISOLATED = 4.0  # a Gaussian spot of FWHM 1.5 voxels has 3.5 times its second neighbour
_ON_AXIS = 0.75  # voxels: half a voxel between peak and centre, and the error of the fit
_FLAT = 0.8  # of the peak: an axis along which the light stays above has no peak
_TILT = 2  # planes around the peak in which the axis of a tilted PSF is located separately


class IsolatedVoxels(NamedTuple):
    """Masks (Z, Y, X) of voxels that are isolated in their planes.

    Hot voxels lie outside the light of the PSF; its own are its peak, and further maxima along the
    optical axis.
    """

    hot: Mask
    own: Mask


class Peak(NamedTuple):
    """The peak of a PSF: its position (z, y, x) in voxels and intermediate results.

    ``rise`` (Z, Y, X) is the intensity above the background, 0 in hot voxels, and ``noise_sd`` the
    standard deviation of the background's noise; ``own`` as for :class:`IsolatedVoxels`.
    """

    centre: Triple
    rise: Float64Array
    noise_sd: float
    own: Mask


def peak_centre(data: npt.NDArray[Any]) -> Triple:
    """Return the sub-voxel position (z, y, x) of the peak of the main lobe, in voxels.

    A three-dimensional Gaussian of any orientation is fitted to the logarithm of the intensity in a
    window centred on the estimate and as wide as the lobe, until convergence: exact for a Gaussian,
    and unbiased for any symmetric lobe. Hot voxels are excluded, and the background need not be
    removed. Along an axis on which the light hardly decays, a maximum at the end is replaced by the
    middle voxel. Raise an RlnError if no voxel is above the background.
    """
    return find_peak(data).centre


def find_peak(data: npt.NDArray[Any]) -> Peak:
    """Return the peak of the main lobe with intermediate results; see :func:`peak_centre`."""
    data = np.asarray(data, dtype=np.float64)
    level, noise_sd = background_level(data)
    hot, own = _isolated_voxels(data, level, noise_sd)
    rise = np.where(hot, 0.0, data - level)
    spot = brightest_spot(rise)
    checkpoint()
    if own.any():  # a peak of one voxel, which the filters of brightest_spot remove
        at = int(np.where(own, rise, 0).argmax())
        lone = cast("tuple[int, int, int]", np.unravel_index(at, data.shape))
        spot = lone if rise[lone] > rise[spot] else spot
    peak = float(rise[tuple(slice(max(0, i - 1), i + 2) for i in spot)].max())
    if peak <= 0:
        raise RlnError(
            "The PSF has no peak: no voxel is above the background. Give a file with one bright "
            "spot."
        )
    centre = _refine(rise, ~hot, spot, peak)
    for axis, n in enumerate(data.shape):
        line = profile(rise, spot, axis)
        if not _inside(centre[axis], n) and line.min() > _FLAT * line.max():
            centre[axis] = n // 2
    return Peak(centre=triple(centre), rise=rise, noise_sd=noise_sd, own=own)


def triple(values: Iterable[float]) -> Triple:
    """Return three values (z, y, x) as a tuple of floats."""
    z, y, x = (float(value) for value in values)
    return z, y, x


def peak_inside(centre: Triple, shape: tuple[int, ...]) -> bool:
    """Return whether a peak at (z, y, x) in voxels has a voxel on each side."""
    return all(_inside(c, n) for c, n in zip(centre, shape, strict=True))


def isolated_voxels(data: npt.NDArray[Any]) -> IsolatedVoxels:
    """Return the voxels of (Z, Y, X) that are isolated in their planes, hot ones and the PSF's own.

    A voxel is isolated if it exceeds the background by more than four times as much as the second
    brightest of its eight neighbours in the plane, by at least ten times the noise (also that of
    the lit voxels) and 1 % of the PSF's peak. Neighbours in other planes do not count: a hot
    camera pixel is hot in all planes. It belongs to the PSF if the peak of the remaining light,
    without all such voxels, is centred on it.
    """
    data = np.asarray(data, dtype=np.float64)
    return _isolated_voxels(data, *background_level(data))


def _isolated_voxels(data: Float64Array, level: float, noise_sd: float) -> IsolatedVoxels:
    none = np.zeros(data.shape, dtype=bool)
    if min(data.shape[1:]) < 3:
        return IsolatedVoxels(none, none)
    checkpoint()
    noise_sd = max(noise_sd, noise_among(data, data > level))
    checkpoint()
    rise = data - level
    second = rank_in_planes(rise, 6)
    least = max(10 * noise_sd, 0.01 * float(second.max()))
    checkpoint()
    alone: Mask = (rise > _ISOLATED * np.maximum(second, 0)) & (rise > least)
    if not alone.any():
        return IsolatedVoxels(none, none)
    rest = np.where(alone, median_in_planes(rise), rise)
    if rest[~alone].max() <= max(10 * noise_sd, 1e-6 * float(rise.max())):
        return IsolatedVoxels(none, alone)  # a point source without spread
    own = _psf_voxels(rise, rest, alone)
    return IsolatedVoxels(alone & ~own, own)


def profile(rise: Float64Array, spot: tuple[int, int, int], axis: int) -> Float64Array:
    """Return the mean along an axis over the 3 x 3 voxels around a spot, (N,)."""
    around = [slice(max(0, i - 1), i + 2) for i in spot]
    around[axis] = slice(None)
    line: Float64Array = rise[tuple(around)].mean(axis=tuple(a for a in range(3) if a != axis))
    return line


def _inside(position: float, n: int) -> bool:
    return n <= 2 or 0.5 <= position <= n - 1.5


def _psf_voxels(rise: Float64Array, rest: Float64Array, alone: Mask) -> Mask:
    """Return the mask of the isolated voxels on which the remaining light is centred.

    The peak is in a plane near the brightest remaining voxel, or its light continues in the
    adjacent planes; a maximum further along the axis is not brighter than the peak.
    """
    spot = brightest_spot(rest)
    main = _refine(rest, ~alone, spot, max(float(rest[spot]), 1e-300))
    places = np.argwhere(alone)
    near = np.abs(places[:, 0] - spot[0]) <= _TILT
    centres = np.array(
        [
            _axis_position(z, rest, alone, main) if close else main[1:]
            for z, close in zip(places[:, 0], near, strict=True)
        ]
    )
    on_axis = np.abs(places[:, 1:] - centres).max(axis=1) <= _ON_AXIS
    light = rise[alone]
    likely = near | (light <= _ISOLATED * _next_planes(rise)[alone])
    peak = max(float(rest.max()), float(light[on_axis & likely].max(initial=0)))
    own = np.zeros(rest.shape, dtype=bool)
    own[alone] = on_axis & (likely | (light <= peak))
    return own


def _next_planes(rise: Float64Array) -> Float64Array:
    """Return, per voxel, the brightest of 3 x 3 voxels in the adjacent planes."""
    wide = np.pad(
        ndimage.maximum_filter(rise, size=(1, 3, 3), mode="nearest"), ((1, 1), (0, 0), (0, 0))
    )
    brightest: Float64Array = np.maximum(wide[:-2], wide[2:])
    return brightest


def _axis_position(z: int, rest: Float64Array, alone: Mask, main: Float64Array) -> Float64Array:
    """Return the position (y, x) of the axis of a possibly tilted PSF in a plane near its peak."""
    near = slice(max(0, z - 1), z + 2)
    slab = rest[near].sum(axis=0, keepdims=True)
    spot = brightest_spot(slab)
    if np.abs(np.array(spot[1:]) - main[1:]).max() > 2 * _TILT:
        return main[1:]
    usable: Mask = ~np.any(alone[near], axis=0, keepdims=True)
    return _refine(slab, usable, spot, max(float(slab[spot]), 1e-300))[1:]


def _refine(
    rise: Float64Array, usable: Mask, spot: tuple[int, int, int], peak: float
) -> Float64Array:
    """Return the peak (z, y, x) of the lobe around a voxel, by repeated fits."""
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
    for axis in range(3):
        line = profile(rise, spot, axis)
        above = line > 0.5 * line[spot[axis]]
        above[spot[axis]] = True
        lobe, _ = ndimage.label(above)
        widths.append(max(0.8, np.count_nonzero(lobe == lobe[spot[axis]]) / 2))
    return np.array(widths)


def _fit_peak(
    rise: Float64Array,
    usable: npt.NDArray[np.bool_],
    centre: Float64Array,
    widths: Float64Array,
    peak: float,
) -> Float64Array:
    """Return the peak of a Gaussian fitted around a centre, or the windowed centroid.

    The log-intensity is a quadratic form, fitted by least squares weighted by intensity squared
    (noise in the logarithm is noise over intensity) times the window.
    """
    axes = [a for a in range(3) if rise.shape[a] > 1]
    half = np.maximum(1, np.ceil(2 * widths)).astype(int)
    nearest = np.rint(centre).astype(int)
    box = tuple(slice(max(0, i - r), i + r + 1) for i, r in zip(nearest, half, strict=True))
    values, grid = rise[box], np.indices(rise[box].shape).astype(np.float64)
    offsets = [grid[a] + box[a].start - centre[a] for a in axes]
    window = np.exp(-0.5 * sum((o / widths[a]) ** 2 for o, a in zip(offsets, axes, strict=True)))
    keep = usable[box] & (values > 0.02 * peak)
    weight = (np.where(keep, values, 0) * window)[keep]
    u = [o[keep] for o in offsets]
    pairs = [(i, j) for i in range(len(u)) for j in range(i, len(u))]
    design = np.stack([np.ones_like(weight), *u, *(u[i] * u[j] for i, j in pairs)], axis=1)
    solution, _, rank, _ = np.linalg.lstsq(
        design * weight[:, None], np.log(values[keep]) * weight, rcond=None
    )
    form = np.zeros((len(u), len(u)))
    for (i, j), value in zip(pairs, solution[1 + len(u) :], strict=True):
        form[i, j] += value
        form[j, i] += value
    shift = np.zeros(3)
    if rank == design.shape[1] and np.linalg.eigvalsh(form).max() < 0:
        shift[axes] = np.linalg.solve(form, -solution[1 : 1 + len(u)])
    else:
        light = weight / weight.sum()
        shift[axes] = [float((light * o).sum()) for o in u]
    limit = widths / 2  # keeps a bad fit from diverging
    moved: Float64Array = np.clip(
        centre + np.clip(shift, -limit, limit), 0, np.array(rise.shape) - 1.0
    )
    return moved
