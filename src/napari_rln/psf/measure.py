"""Measurement of a point spread function from a stack of sub-resolution beads.

Beads are detected, the isolated and undamaged ones registered to each other and averaged. They are
registered against their common average instead of by their own peaks, which are less certain in an
asymmetric PSF with noise. Crops are only shifted, never mirrored, and always interpolated from the
image itself, so that no blur accumulates over the rounds.

The size of the beads is not removed: their diameter should be below half of the lateral FWHM.
"""

import dataclasses
import math
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from scipy.interpolate import make_interp_spline

from napari_rln.core.errors import RlnError
from napari_rln.core.limits import as_dict, check_limits
from napari_rln.core.record import Record
from napari_rln.core.volume import Float64Array, Shape, Volume
from napari_rln.psf.beads import BeadTable, box_around, chosen_beads, find_beads
from napari_rln.psf.microscope import check_odd_size
from napari_rln.psf.peak import peak_centre
from napari_rln.psf.pedestal import MAD_TO_SD, background_level
from napari_rln.psf.prepare import above_noise
from napari_rln.psf.shape import fwhm_um

_CORE = 0.1  # of the peak: voxels above it are compared
_SPLINE = 5  # order of interpolation: error of 0.5 % at the peak of a spot of sigma 0.8 voxels
_MARGIN = 8  # voxels around a crop that its spline needs
_MINIMUM_SPREAD = 1e-3  # of the correlation among good beads: smaller differences are ignored
_ROUNDS = 3
_NOISE_FLOOR = 3.0  # standard errors; clipped noise would add up to a pedestal
_HEAVIEST = 4.0  # largest weight of a bead over that of the median one


@dataclass(frozen=True, kw_only=True)
class MeasureSettings:
    """Settings for selecting and averaging beads.

    Parameters
    ----------
    size
        Odd size of the PSF in voxels (z y x), also the region free of other beads around each bead;
        by default 8 FWHMs laterally and 6 axially, or what most beads have room for. Give a smaller
        one if beads are rejected as clustered or cut.
    minimum_snr
        Minimum peak of a bead above the background, over the noise of the background. Raise it to
        leave out dim beads.
    minimum_correlation
        Minimum correlation of a bead with the median bead, over its core; 1 is identical. Raise it
        to leave out beads of other shapes.
    saturation
        Intensity from which a voxel counts as saturated; by default a bead is saturated if five or
        more voxels have its highest value. Give the detector's highest value.
    """

    size: Annotated[tuple[int, int, int] | None, {"label": "Size (voxels)", "none": "auto"}] = None
    minimum_snr: Annotated[float, {"min": 3.0, "max": 1000.0, "label": "Least contrast (SNR)"}] = (
        10.0
    )
    minimum_correlation: Annotated[
        float, {"min": 0.0, "max": 0.999, "label": "Least similarity"}
    ] = 0.9
    saturation: Annotated[float | None, {"label": "Saturated from", "none": "auto"}] = None

    def __post_init__(self) -> None:
        check_limits(self)
        check_odd_size(self.size)


def measure_psf(
    image: Volume,
    settings: MeasureSettings,
    *,
    positions: npt.ArrayLike | None = None,
    name: str = "measured PSF",
) -> Volume:
    """Return the PSF measured from the beads of a stack: odd size, sum 1, centred on its peak.

    Parameters
    ----------
    image
        Stack of sub-resolution beads, any unit.
    settings
        Selection of beads and size.
    positions
        (N, 3), approximate z, y, x of chosen beads in voxels, nan for an unknown z; rejected only
        if cut by the border or unlike the others. None: beads are detected.
    name
        Name of the PSF.

    Returns
    -------
    Volume
        Its record states the numbers of beads detected, used and rejected by reason, the positions
        of the used ones (z, y, x in voxels), the FWHM (z, y, x) in micrometres and, from two beads
        on, its standard deviation between them.

    Raises
    ------
    RlnError
        If no bead is detected, or none is usable.
    """
    if positions is not None:
        beads = chosen_beads(image, positions, size=settings.size)
    else:
        snr, saturation = settings.minimum_snr, settings.saturation
        beads = find_beads(image, size=settings.size, minimum_snr=snr, saturation=saturation)
    return average(image, align(image, beads, settings), settings, name=name)


def align(image: Volume, beads: BeadTable, settings: MeasureSettings) -> BeadTable:
    """Return the beads with sub-voxel positions, those unlike the median bead rejected.

    Each used bead starts at the position of its own peak and is registered three times to the
    average of all; finally all move together so that the peak of the average is the centre. Raise
    an RlnError if no bead is used.
    """
    used = np.flatnonzero(beads.used)
    if used.size == 0:
        raise _none_left(beads)
    positions, status = beads.positions.copy(), list(beads.status)
    half = np.array(beads.size) // 2
    for i in used:
        crop = _crop(image.data, positions[i], beads.size)
        shift = np.array(peak_centre(crop)) - half
        positions[i] += np.clip(shift, -2, 2)
    crops = _normal_crops(image.data, positions[used], beads.size)
    similar = _similar(crops, settings.minimum_correlation)
    for i in used[~similar]:
        status[i] = "unlike"
    used = used[similar]
    if used.size == 0:
        raise _none_left(dataclasses.replace(beads, status=tuple(status)))
    template = np.median(crops[similar], axis=0)
    for _ in range(_ROUNDS):
        crops = _normal_crops(image.data, positions[used], beads.size)
        positions[used] += [_offset(crop, template) for crop in crops]
        positions[used] += np.array(peak_centre(template)) - half
        template = _mean(image.data, positions[used], beads.size)
    positions[used] += np.array(peak_centre(template)) - half
    return dataclasses.replace(beads, positions=positions, status=tuple(status))


def average(
    image: Volume, beads: BeadTable, settings: MeasureSettings, *, name: str = "measured PSF"
) -> Volume:
    """Return the weighted mean of the used beads as a PSF; see :func:`measure_psf`.

    Raise an RlnError if no bead is used.
    """
    used = np.flatnonzero(beads.used)
    if used.size == 0:
        raise _none_left(beads)
    mean = _mean(image.data, beads.positions[used], beads.size)
    psf = np.clip(above_noise(mean, background_level(mean)[1], _NOISE_FLOOR), 0, None)
    psf /= psf.sum()
    each = np.array(
        [
            fwhm_um(crop, image.voxel_um, _middle(beads.size))
            for crop in _normal_crops(image.data, beads.positions[used], beads.size)
        ]
    )
    facts: dict[str, Any] = {
        "beads_found": len(beads.status),
        "beads_used": int(used.size),
        "beads_rejected": beads.rejected,
        "beads_at": beads.positions[used].round(2).tolist(),
        "fwhm_um": _json_lengths(fwhm_um(psf, image.voxel_um, _middle(beads.size))),
    }
    if used.size > 1:
        facts["fwhm_sd_um"] = _json_lengths(each.std(axis=0, ddof=1))
    record = Record(
        method="psf measure",
        settings=as_dict(dataclasses.replace(settings, size=beads.size)),
        facts=facts,
        inputs={image.name: image.hash},
    )
    return Volume.from_array(psf, image.voxel_um, name=name, record=record)


def beads_text(facts: dict[str, Any]) -> str:
    """Return the numbers of beads used and rejected as text, from the facts of a record."""
    rejected = ", ".join(f"{n} {why}" for why, n in facts["beads_rejected"].items())
    used = f"mean of {facts['beads_used']} of {facts['beads_found']} beads"
    return f"{used} ({rejected})" if rejected else used


def _crop(data: npt.NDArray[np.float32], position: Float64Array, size: Shape) -> Float64Array:
    """Return the interpolated crop whose middle voxel lies exactly at a position."""
    box = box_around(position, np.array(size) // 2 + _MARGIN, data.shape)
    crop = data[box].astype(np.float64)
    for axis in range(3):  # the spline is a product of one-dimensional ones
        n, start = crop.shape[axis], position[axis] - box[axis].start - size[axis] // 2
        points = np.clip(start + np.arange(size[axis]), 0, n - 1)
        if n > 1:
            order = _SPLINE if n > _SPLINE else 1
            crop = make_interp_spline(np.arange(n), crop, k=order, axis=axis)(points)
    return crop


def _normal_crops(
    data: npt.NDArray[np.float32], positions: Float64Array, size: Shape
) -> Float64Array:
    """Return the beads' crops, background removed and divided by their sum; (N, Z, Y, X)."""
    crops = [_crop(data, position, size) for position in positions]
    clean = [crop - background_level(crop)[0] for crop in crops]
    return np.array([crop / crop.sum() for crop in clean])


def _mean(data: npt.NDArray[np.float32], positions: Float64Array, size: Shape) -> Float64Array:
    """Return the weighted sum of the beads, background removed.

    For Poisson noise the plain sum, which weights beads by brightness, is the best estimate; the
    weight is limited so that no single bead dominates.
    """
    crops = [_crop(data, position, size) for position in positions]
    clean = np.array([crop - background_level(crop)[0] for crop in crops])
    light = clean.sum(axis=(1, 2, 3))
    weight = np.minimum(1, _HEAVIEST * np.median(light) / light)
    total: Float64Array = np.tensordot(weight, clean, axes=1)
    return total - background_level(total)[0]


def _similar(crops: Float64Array, minimum: float) -> npt.NDArray[np.bool_]:
    """Return the mask of the crops that correlate with their median.

    Compared after slight smoothing, so that a dim bead is not rejected for its noise. From five
    beads on, outliers below the median correlation are rejected too, such as a doublet among good
    beads.
    """
    smooth = ndimage.gaussian_filter(crops, (0, 1, 1, 1))
    median = np.median(smooth, axis=0)
    core = median > _CORE * median.max()
    similarity = np.array([np.corrcoef(crop[core], median[core])[0, 1] for crop in smooth])
    similar: npt.NDArray[np.bool_] = similarity >= minimum
    if len(crops) >= 5:
        middle = float(np.median(similarity))
        spread = MAD_TO_SD * float(np.median(np.abs(similarity - middle)))
        similar &= similarity >= middle - 5 * max(spread, _MINIMUM_SPREAD)
    return similar


def _offset(crop: Float64Array, template: Float64Array) -> Float64Array:
    """Return the offset (z, y, x) in voxels of the bead in a crop from that of the template.

    Least-squares fit of ``a T(r - d) + b`` to first order, ``a T - a d . grad T + b``: the maximum
    of the normalised cross-correlation, without a grid of shifts.
    """
    axes = [a for a in range(3) if crop.shape[a] > 1]
    slopes = [np.gradient(template, axis=a).ravel() for a in axes]
    design = np.stack([template.ravel(), *slopes, np.ones(template.size)], axis=1)
    solution = np.linalg.lstsq(design, crop.ravel(), rcond=None)[0]
    offset = np.zeros(3)
    offset[axes] = np.clip(-solution[1:-1] / solution[0], -1, 1)
    return offset


def _middle(size: Shape) -> tuple[float, float, float]:
    return size[0] // 2, size[1] // 2, size[2] // 2


def _json_lengths(values: npt.ArrayLike) -> list[float | None]:
    """Return lengths for JSON; null where a width could not be measured."""
    return [round(float(v), 4) if math.isfinite(v) else None for v in np.asarray(values)]


def _none_left(beads: BeadTable) -> RlnError:
    """Return the error for a stack without usable beads, with the reasons."""
    reasons = ", ".join(f"{n} {reason}" for reason, n in beads.rejected.items())
    return RlnError(
        f"None of {len(beads.status)} beads is usable ({reasons}). Clustered or cut ones have "
        f"other beads or the border within {beads.size} voxels (z, y, x): give a smaller `size`, "
        "lower `minimum_snr` or `minimum_correlation`, or use a sparser stack."
    )
