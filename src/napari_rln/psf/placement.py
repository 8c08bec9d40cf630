"""Checks that a file has exactly one PSF, complete and near its centre.

They run before every long computation that uses a PSF.
"""

from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from napari_rln.core.generators import checkpoint
from napari_rln.core.volume import Float64Array
from napari_rln.psf.peak import Triple, find_peak, isolated_voxels, peak_inside, profile
from napari_rln.psf.pedestal import background_level

_DARK = 0.5  # of the peak: limit of the middle of a file whose peak is split between the ends
_BALANCE = 0.3  # least ratio of the light on the two sides of a border that splits the peak
_SIGMAS = 8.0  # standard errors of a mean of 3 x 3 x 3; noise has up to 5, that of few photons 7
_SECOND = 0.5  # of the peak: brighter maxima are further PSFs and not side lobes
_APART = 0.35  # of the peak: limit of the light between two PSFs side by side
_APART_AXIALLY = 0.05  # the same along z, where aberrations split a peak
_NEAR = 2  # voxels around a lobe that count as above or below it
_SMALLEST = 9  # lateral voxels: a smaller file has no room for a background
_POINT = 0.99  # of the light: with so much in one voxel, a PSF does not blur


@dataclass(frozen=True)
class Fault:
    """Reason why a file cannot be used as a PSF, by the short name of a check.

    ``split`` are the axes between whose ends the peak is split, which centring repairs; else empty.
    """

    check: str
    message: str
    split: tuple[int, ...] = ()


def find_fault(data: npt.NDArray[Any]) -> Fault | None:
    """Return the reason why data (Z, Y, X) cannot be used as a PSF, or none.

    Background and noise need not be removed. Raise an RlnError if no voxel is above the background.
    """
    data = np.asarray(data, dtype=np.float64)
    fault = point_fault(data)
    if fault is not None:
        return fault
    checkpoint()
    axes = split_axes(data)
    fault = _spot_fault(in_image_order(data, axes))
    if axes and fault is None:
        return Fault(
            "centre",
            f"the peak is split between the two ends of {' and '.join('zyx'[a] for a in axes)}: "
            "its origin is the first voxel, as for a Fourier transform, not the middle one.",
            split=axes,
        )
    return fault


def _spot_fault(data: Float64Array) -> Fault | None:
    """Return the fault of data that are not a single spot off the border, or none."""
    if data.size == 1:
        return None
    peak = find_peak(data)
    size = [min(3, n) for n in data.shape]
    checkpoint()
    mean = ndimage.uniform_filter(peak.rise, size=size, mode="nearest")
    checkpoint()
    least = _SIGMAS * peak.noise_sd / np.sqrt(np.prod(size))
    if min(data.shape[1:]) >= _SMALLEST:
        if not peak.own.any() and mean.max() <= least:
            return Fault(
                "peak",
                f"the brightest 3 x 3 x 3 voxels are {mean.max() / least * _SIGMAS:.1f} standard "
                f"errors above the noise (a peak at least {_SIGMAS:g}): this is noise, not a PSF. "
                "Choose another file, or measure beads with more light.",
            )
        count = 1 + _other_spots(mean, least)
        if count > 1:
            return Fault(
                "peak",
                f"{count} separate spots have more than {_SECOND:.0%} of the peak; a PSF is one "
                "spot. Crop the file to one of them, or average beads (`napari-rln psf "
                "measure`).",
            )
    return None if peak_inside(peak.centre, data.shape) else cut_fault(peak.centre, data.shape)


def point_fault(data: npt.NDArray[Any]) -> Fault | None:
    """Return the fault of data whose light is all in one voxel, or none."""
    light = float(data.clip(0).sum(dtype=np.float64))
    if not light > 0 or float(data.max()) < _POINT * light:
        return None
    return Fault(
        "width",
        "all of its light is in one voxel, so it does not blur; check the voxel sizes of PSF and "
        "image, or use a larger PSF.",
    )


def cut_fault(centre: Triple, shape: tuple[int, ...]) -> Fault:
    """Return the fault of a peak at the border of a file."""
    return Fault(
        "centre",
        f"the peak is at voxel ({', '.join(f'{c:.1f}' for c in centre)}) of {shape} (z, y, x), at "
        "the border, and part of the PSF is missing; use a file that contains the whole spot.",
    )


def in_image_order(data: npt.NDArray[Any], axes: tuple[int, ...]) -> npt.NDArray[Any]:
    """Return data with the origin of axes moved from the first voxel to the middle one."""
    rolled: npt.NDArray[Any] = np.fft.fftshift(data, axes=axes)
    return rolled


def split_axes(data: npt.NDArray[Any]) -> tuple[int, ...]:
    """Return the axes of (Z, Y, X) between whose ends the peak is split, as in Fourier order.

    There the light around the peak continues at the other end, and the middle is dark. At a border
    that merely cuts the PSF, the other end is dark too. An undecided axis, such as that of a peak
    one voxel wide, follows the others.
    """
    data = np.asarray(data, dtype=np.float64)
    every = tuple(a for a, n in enumerate(data.shape) if n > 1)
    if not _bright_border(data):
        return ()
    rolled = in_image_order(data, every)
    level, noise_sd = background_level(rolled)
    rise = np.where(isolated_voxels(rolled).hot, 0.0, rolled - level)
    mean = (
        ndimage.uniform_filter(rise, size=[min(3, n) for n in data.shape], mode="wrap")
        + 1e-6 * rise
    )
    spot = cast("tuple[int, int, int]", np.unravel_index(int(mean.argmax()), data.shape))
    decisions = [_is_split(profile(rise, spot, a), spot[a], noise_sd) for a in every]
    if True in decisions or all(split is None for split in decisions):
        return tuple(a for a, split in zip(every, decisions, strict=True) if split is not False)
    return ()


def _bright_border(data: Float64Array) -> bool:
    """Return whether the border is about as bright as the brightest voxels: a quick check."""
    mean = ndimage.uniform_filter(data, size=[min(3, n) for n in data.shape], mode="wrap")
    dark = float(mean.min())
    ends = max(
        float(mean.take([0, -1], axis=a).max()) for a, n in enumerate(data.shape) if n > 1 or a
    )
    return ends - dark > 0.1 * (float(mean.max()) - dark)


def _is_split(line: Float64Array, spot: int, noise_sd: float) -> bool | None:
    """Return whether the peak of a line was split between its ends; none if undecided.

    ``line`` is the light along the axis, its former ends now meeting before voxel ``n // 2``, and
    ``spot`` the voxel of the peak.
    """
    n = line.size
    seam = n // 2
    if not seam - 2 <= spot <= seam + 1:
        return False
    steps = np.arange(2) + (spot - seam + 1 if spot >= seam else seam - spot)
    beyond = steps if spot < seam else -steps
    few = max(1, n // 8)
    ends = np.concatenate([line[:few], line[-few:]])
    dark = float(ends.min())
    near, far = (float((line[(spot + s) % n] - dark).sum()) for s in (-beyond, beyond))
    if n < 5 or max(near, far) <= max(3 * noise_sd, 1e-3 * float(line[spot])):
        return None if spot == seam else False
    return far > _BALANCE * near and float(ends.max()) < _DARK * float(line[spot])


def _other_spots(mean: Float64Array, least: float) -> int:
    """Return the number of spots besides the brightest that are separate PSFs."""
    top = float(mean.max())
    apart, _ = ndimage.label(mean > _APART * top)
    checkpoint()
    together, _ = ndimage.label(mean > _APART_AXIALLY * top)
    spot = np.unravel_index(int(mean.argmax()), mean.shape)
    below = ndimage.binary_dilation((apart == apart[spot]).any(axis=0), iterations=_NEAR)
    bright = mean >= max(0.999 * _SECOND * top, least)
    checkpoint()
    count = 0
    for label in set(np.unique(apart[bright])) - {0, apart[spot]}:
        checkpoint()
        lobe = apart == label
        above = bool((lobe.any(axis=0) & below).any())
        count += not (above and bool((together[lobe] == together[spot]).any()))
    return count
