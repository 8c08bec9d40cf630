"""Shift and resampling of a PSF to the voxels of an image, and the memory for it.

A voxel is the light integrated over its volume. Shifting and resampling therefore
interpolate the cumulative sum along each axis and take differences at the new voxels' edges:
light is conserved, and voxels that become larger integrate instead of picking samples. The
interpolant is monotone, so that no ringing and no negative light arise, also where the PSF is
undersampled.
"""

import math

import numpy as np
from scipy.interpolate import CubicHermiteSpline, make_interp_spline

from napari_rln.core.errors import RlnError
from napari_rln.core.machine import available_bytes
from napari_rln.core.volume import Float64Array, OnGrid, Shape, Volume, VoxelUm, shape_on
from napari_rln.psf.peak import Triple
from napari_rln.psf.pieces import PIECE, in_pieces

_SPLINE = 5  # order of the spline from which the slopes are taken
_MAX_SCALE = 20  # ratio of voxel sizes: a larger one is due to a wrong unit

# Bytes per voxel, measured (benchmarks/psf_memory.py): of the file while it is examined, and while
# it is resampled; of the resampled PSF then, and while it is checked; of a piece.
_EXAMINED_BYTES, _KEPT_BYTES, _NEW_BYTES, _CHECKED_BYTES, _PIECE_BYTES = 85, 40, 24, 76, 150


def preparation_bytes(shape: Shape, on_image: Shape) -> int:
    """Return the memory for examining and preparing a PSF, by its sizes before and after, bytes."""
    file, new = math.prod(shape), math.prod(on_image)
    piece = _PIECE_BYTES * min(PIECE, max(file, new))
    resampling = _KEPT_BYTES * file + _NEW_BYTES * new + piece
    return max(_EXAMINED_BYTES * file, resampling, _CHECKED_BYTES * new)


def check_preparation(
    psf: OnGrid,
    voxel_um: VoxelUm,
    on_image: Shape | None = None,
    *,
    least_bytes: int = 0,
    left_bytes: int | None = None,
) -> None:
    """Raise unless there is memory for preparing a PSF for an image.

    Parameters
    ----------
    psf
        Unprepared PSF; its values are not read.
    voxel_um
        Voxel size (z, y, x) of the image, micrometres.
    on_image
        Size of the prepared PSF (z, y, x), voxels; by default that of a centred one.
    least_bytes
        Memory of the further work, which does not begin before the preparation has ended.
    left_bytes
        Memory that may be used; by default what is free.

    Raises
    ------
    RlnError
        If the memory does not suffice.
    """
    on_image = on_image or shape_on(psf, voxel_um)
    needed = max(preparation_bytes(psf.shape, on_image), least_bytes)
    left = available_bytes() if left_bytes is None else left_bytes
    if needed > left:
        _check_scale(psf, voxel_um)  # whose reason is the clearer one
        raise RlnError(
            f"{psf.name} has {_sizes(psf.shape)} voxels of {_sizes(psf.voxel_um)} um and the image "
            f"voxels of {_sizes(voxel_um)} um (z, y, x), on which the PSF takes "
            f"{_sizes(on_image)} voxels and at least {needed / 1e9:.2f} GB of memory; "
            f"{max(0, left) / 1e9:.2f} GB are left. Check both voxel sizes; if they are right, "
            "crop the PSF to the surroundings of its peak, or allow more memory."
        )


def resampled(
    volume: Volume, clean: Float64Array, centre: Triple, voxel_um: VoxelUm
) -> Float64Array:
    """Return the cleaned data of a PSF on other voxels, with its centre on the middle one.

    ``centre`` is in the file's voxels. Raise an RlnError if the voxel sizes differ too much, or as
    :func:`check_preparation`.
    """
    scales = [new / own for new, own in zip(voxel_um, volume.voxel_um, strict=True)]
    _check_scale(volume, voxel_um)
    z, y, x = (
        n if n == 1 else 2 * _half_size(n, c, scale) + 1
        for n, c, scale in zip(clean.shape, centre, scales, strict=True)
    )
    check_preparation(volume, voxel_um, (z, y, x))
    data = clean
    for axis in range(3):
        data = _regrid(data, axis, centre[axis], scales[axis])
    return data


def _sizes(values: tuple[float, ...]) -> str:
    return " x ".join(format(value, "g") for value in values)


def _check_scale(volume: OnGrid, target: VoxelUm) -> None:
    for axis, (new, old) in enumerate(zip(target, volume.voxel_um, strict=True)):
        if volume.shape[axis] > 1 and not 1 / _MAX_SCALE <= new / old <= _MAX_SCALE:
            raise RlnError(
                f"{volume.name} has a voxel size of {old:g} um on axis {'zyx'[axis]} and the image "
                f"{new:g} um; they differ by more than {_MAX_SCALE} times. Check the units of both."
            )


def _regrid(data: Float64Array, axis: int, centre: float, scale: float) -> Float64Array:
    """Return data (Z, Y, X), light per voxel, resampled along one axis around a centre.

    ``centre`` is in old voxels, ``scale`` the new voxel size over the old one. An axis of one voxel
    is not changed.
    """
    n = data.shape[axis]
    if n == 1:
        return data
    half = _half_size(n, centre, scale)
    edges = centre + (np.arange(2 * half + 2) - half - 0.5) * scale
    edges = np.clip(edges, -0.5, n - 0.5)

    def at_edges(part: Float64Array) -> Float64Array:
        return np.diff(_cumulative(part, axis)(edges), axis=axis)

    return in_pieces(at_edges, data, 0 if axis else 1, PIECE * n // max(n, edges.size))


def _cumulative(data: Float64Array, axis: int) -> CubicHermiteSpline:
    """Return the cumulative light along one axis as a function of the position in voxels.

    The slopes at the voxels' edges are those of a spline, kept between 0 and three times the
    smaller of the adjacent voxels (Hyman 1983, SIAM J. Sci. Stat. Comput. 4, 645), which makes
    each piece monotone.
    """
    data = np.moveaxis(data, axis, 0)
    n = data.shape[0]
    positions = np.arange(n + 1) - 0.5
    below = np.concatenate([np.zeros_like(data[:1]), np.cumsum(data, axis=0)])
    # Slopes are linear in the values, so one small matrix is used for all lines.
    spline = make_interp_spline(positions, np.eye(n + 1), k=min(_SPLINE, n))
    slopes = np.tensordot(spline(positions, nu=1), below, axes=1)
    before, after = np.concatenate([data[:1], data]), np.concatenate([data, data[-1:]])
    low = 3 * np.minimum(np.maximum(before, after), 0)
    high = 3 * np.maximum(np.minimum(before, after), 0)
    slopes = np.moveaxis(np.clip(slopes, low, high), 0, axis)
    return CubicHermiteSpline(positions, np.moveaxis(below, 0, axis), slopes, axis=axis)


def _half_size(n: int, centre: float, scale: float) -> int:
    """Return the number of new voxels on each side of the middle one.

    A PSF centred within a voxel keeps its size, made odd. Otherwise its longer side is kept and
    the shorter one padded with zeros, so that no light is lost before the crop by energy.
    """
    equal = int((n / scale - 1) / 2 + 1e-6)
    longer = int(max(centre, n - 1 - centre) / scale + 1e-6)
    return equal if longer - equal <= 1 else longer
