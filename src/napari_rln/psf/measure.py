"""The point spread function measured from a stack of sub-resolution beads.

Find the beads, keep the isolated and unspoilt ones, register them to each other, average. Beads
are registered against their common average and not by their own peaks: in an asymmetric PSF
under noise the peak is the less certain of the two. Crops are only shifted, never mirrored, and
always interpolated from the image itself, so that no blur adds up over the rounds.

The size of the beads is not removed: their diameter should stay below half of the lateral FWHM.
"""

import dataclasses
import math
from collections import Counter
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from scipy.interpolate import make_interp_spline
from skimage.feature import peak_local_max

from napari_rln.errors import RlnError
from napari_rln.psf.prepare import above_noise
from napari_rln.psf.shape import background_level, fwhm_um, peak_centre
from napari_rln.record import Record
from napari_rln.settings import as_dict, check_limits
from napari_rln.volume import Volume

Float64Array = npt.NDArray[np.float64]
Size = tuple[int, int, int]
Status = Literal["used", "cut", "saturated", "clustered", "too dim", "unlike"]

_MAD_TO_SD = 1.4826  # standard deviation of Gaussian noise over its median absolute deviation
_FAINTEST = 0.02  # of the brightest bead: below it nothing is looked for
_LOBE = 0.25  # below this share of a bead's height, a maximum beside it is a lobe of its own
_CORE = 0.1  # of the peak: voxels above it decide on likeness
_SPLINE = 5  # order of interpolation: 0.5 % off at the peak of a spot with sigma 0.8 voxels
_MARGIN = 8  # voxels around a crop that its spline needs
_PLATEAU = 5  # voxels: chance and symmetry let up to four share the highest value
_LEAST_SPREAD = 1e-3  # of likeness among good beads, below which differences mean nothing
_ROUNDS = 3
_NOISE_FLOOR = 3.0  # standard errors; clipped noise would add up to a pedestal
_HEAVIEST = 4.0  # no bead weighs more than this many median ones


@dataclass(frozen=True, kw_only=True)
class MeasureSettings:
    """How beads are chosen and averaged.

    Parameters
    ----------
    size
        Size of the PSF in voxels (z y x), odd, which is also the room that a bead needs for
        itself; none: 8 FWHMs laterally and 6 axially, or what most beads have room for.
    minimum_snr
        Peak above the background over the noise of the background that a bead needs.
    minimum_correlation
        Correlation with the median bead, over its core, that a bead needs.
    saturation
        Intensity from which a voxel counts as saturated; none: a bead is saturated if five or
        more voxels share its highest value.
    """

    size: tuple[int, int, int] | None = None
    minimum_snr: Annotated[float, {"min": 3.0, "max": 1000.0}] = 10.0
    minimum_correlation: Annotated[float, {"min": 0.0, "max": 0.999}] = 0.9
    saturation: float | None = None

    def __post_init__(self) -> None:
        check_limits(self)
        if self.size is not None and any(n < 1 or n % 2 == 0 for n in self.size):
            raise RlnError(
                f"size is {self.size}, but each of z, y, x must be a positive odd number so that "
                f"one voxel is the centre; take {tuple(max(1, n) // 2 * 2 + 1 for n in self.size)}."
            )


@dataclass(frozen=True, kw_only=True)
class BeadTable:
    """The beads of a stack, brightest first.

    Attributes
    ----------
    positions
        (N, 3) float64, z, y, x in voxels.
    peaks
        (N,) float64, height above the background in the image's unit, of the third brightest
        voxel at the peak.
    backgrounds
        (N,) float64, in the image's unit.
    status
        For each bead ``"used"`` or why it is not.
    size
        Size of the crop (z, y, x) in voxels, odd.
    """

    positions: Float64Array
    peaks: Float64Array
    backgrounds: Float64Array
    status: tuple[Status, ...]
    size: Size

    @property
    def used(self) -> npt.NDArray[np.bool_]:
        """Mask (N,) of the beads that are used."""
        return np.array([s == "used" for s in self.status], dtype=bool)

    @property
    def rejected(self) -> dict[str, int]:
        """Number of beads rejected, by reason."""
        return dict(Counter(s for s in self.status if s != "used"))


def measure(image: Volume, settings: MeasureSettings, *, name: str = "measured PSF") -> Volume:
    """Return the PSF that the beads of a stack show: odd sizes, sum 1, centred on its peak.

    Parameters
    ----------
    image
        Stack of sub-resolution beads, any unit.
    settings
        Which beads to use.
    name
        What to call the PSF.

    Returns
    -------
    Volume
        Its record states how many beads were found, used and rejected for which reason, the
        FWHM (z, y, x) in micrometres and, from two beads, its standard deviation between them.

    Raises
    ------
    RlnError
        If no bead is found, or none is fit for use.
    """
    beads = align(image, find_beads(image, settings), settings)
    return average(image, beads, settings, name=name)


def find_beads(image: Volume, settings: MeasureSettings) -> BeadTable:
    """Return the beads of a stack with what is wrong with each.

    Raises
    ------
    RlnError
        If nothing rises above the noise.
    """
    data = image.data
    coarse, heights = _candidates(data, image.name)
    base = float(np.median(data))
    widths = _typical_fwhm(data, coarse)
    size = settings.size or _automatic_size(widths, coarse, heights, data.shape)
    half = np.array(size) // 2
    own = _own_maxima(coarse, heights, half + widths)
    coarse, heights = coarse[own], heights[own]

    rows: list[tuple[Any, float, float, Status]] = []
    for i, position in enumerate(coarse):
        crop = data[_around(position, half, data.shape)].astype(np.float64)
        level, noise = background_level(crop)
        peak = float(heights[i]) + base - level
        apart = np.abs(coarse - position)
        near = (apart <= half + widths).all(axis=1) & (heights >= _LOBE * heights[i])
        status: Status = "used"
        if np.any(position < half) or np.any(position + half > np.array(data.shape) - 1):
            status = "cut"
        elif _is_saturated(crop, settings.saturation):
            status = "saturated"
        elif near.sum() > 1:  # itself
            status = "clustered"
        elif peak < settings.minimum_snr * noise:
            status = "too dim"
        rows.append((position, peak, level, status))
    positions, peaks, levels, statuses = zip(*rows, strict=True)
    return BeadTable(
        positions=np.array(positions, dtype=np.float64),
        peaks=np.array(peaks),
        backgrounds=np.array(levels),
        status=statuses,
        size=size,
    )


def align(image: Volume, beads: BeadTable, settings: MeasureSettings) -> BeadTable:
    """Return the beads with sub-voxel positions, those unlike the median bead marked.

    The used beads first take the position of their own peak; then each moves to where it fits the
    average of all best, three times; last, all move together so that the average's peak is the
    common centre.

    Raises
    ------
    RlnError
        If no bead is used.
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
    like = _alike(crops, settings.minimum_correlation)
    for i in used[~like]:
        status[i] = "unlike"
    used = used[like]
    if used.size == 0:
        raise _none_left(dataclasses.replace(beads, status=tuple(status)))
    template = np.median(crops[like], axis=0)
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
    """Return the weighted mean of the used beads as a PSF; see :func:`measure`.

    Raises
    ------
    RlnError
        If no bead is used.
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


def _candidates(data: npt.NDArray[np.float32], name: str) -> tuple[Float64Array, Float64Array]:
    """Return (N, 3) voxels of the beads and their heights above the median, brightest first.

    Maxima are sought in the projection along z: the secondary maxima of an aberrated PSF lie
    above and below the bead and would otherwise be taken for beads.
    """
    sigma = [min(1.0, (n - 1) / 2) for n in data.shape]
    smooth = ndimage.gaussian_filter(data, sigma)
    plane = smooth.max(axis=0)
    middle = float(np.median(plane))
    noise = _MAD_TO_SD * float(np.median(np.abs(plane - middle)))
    rise = max(5 * noise, _FAINTEST * (float(plane.max()) - middle))
    found = peak_local_max(  # type: ignore[no-untyped-call]
        plane, min_distance=2, threshold_abs=middle + rise, exclude_border=False
    )
    if rise <= 0 or len(found) == 0:
        raise RlnError(
            f"{name} shows no bead: nothing rises above its noise ({noise:.3g}) five times. Check "
            "the channel, or take a brighter stack."
        )
    y, x = found.T
    z = smooth[:, y, x].argmax(axis=0)
    base = float(np.median(data))
    heights = np.array([_third_brightest(data[i], j, k) for i, j, k in zip(z, y, x, strict=True)])
    order = np.argsort(-heights, kind="stable")
    return np.stack([z, y, x], axis=1)[order].astype(np.float64), heights[order] - base


def _third_brightest(plane: npt.NDArray[np.float32], y: int, x: int) -> float:
    """Return the third highest of the 3 x 3 voxels around one: near the peak, but of no hot one."""
    around = plane[max(0, y - 1) : y + 2, max(0, x - 1) : x + 2].ravel()
    return float(np.sort(around)[max(0, around.size - 3)])


def _typical_fwhm(data: npt.NDArray[np.float32], coarse: Float64Array) -> Float64Array:
    """Return the median FWHM (z, y, x) in voxels of some beads of all brightnesses."""
    some = coarse[np.unique(np.linspace(0, len(coarse) - 1, 15).astype(int))]
    reach = np.array([data.shape[0], 12, 12])
    measured = []
    for position in some:
        crop = data[_around(position, reach, data.shape)].astype(np.float64)
        widths = fwhm_um(crop - background_level(crop)[0], (1.0, 1.0, 1.0))
        measured.append(widths)
    table = np.array(measured)
    table[~np.isfinite(table)] = np.nan
    return np.array(
        [np.median(c[np.isfinite(c)]) if np.isfinite(c).any() else 1.0 for c in table.T]
    )


def _automatic_size(
    widths: Float64Array, coarse: Float64Array, heights: Float64Array, shape: tuple[int, ...]
) -> Size:
    """Return the crop's odd sizes: no larger than most beads have room for, at least 4 FWHMs."""
    full = np.ceil(np.array([3, 4, 4]) * widths)
    own = coarse[_own_maxima(coarse, heights, full + widths)]
    border = np.minimum(own, np.array(shape) - 1 - own)
    apart = np.abs(own[:, None, 1:] - own[:, 1:]).max(axis=2) - widths[1:].max()
    np.fill_diagonal(apart, np.inf)
    room = np.minimum(border[:, 1:].min(axis=1), apart.min(axis=1))
    planes = int(min(full[0], np.quantile(border[:, 0], 0.25)))
    least, most = 2 * widths[1:].max(), full[1:].max()
    pixels = int(np.clip(np.median(room), min(least, most), most))
    return 2 * planes + 1, 2 * pixels + 1, 2 * pixels + 1


def _own_maxima(
    coarse: Float64Array, heights: Float64Array, reach: Float64Array
) -> npt.NDArray[np.bool_]:
    """Return the mask of the maxima that are no lobe of a brighter bead within reach."""
    own = np.ones(len(coarse), dtype=bool)
    for i in range(1, len(coarse)):
        near = own[:i] & (np.abs(coarse[:i] - coarse[i]) <= reach).all(axis=1)
        own[i] = not np.any(heights[i] < _LOBE * heights[:i][near])
    return own


def _around(
    position: Float64Array, half: npt.ArrayLike, shape: tuple[int, ...]
) -> tuple[slice, ...]:
    """Return the slices of the box around a position, cut to the image."""
    nearest = np.rint(position).astype(int)
    return tuple(
        slice(max(0, c - int(h)), min(n, c + int(h) + 1))
        for c, h, n in zip(nearest, np.asarray(half), shape, strict=True)
    )


def _is_saturated(crop: Float64Array, level: float | None) -> bool:
    """Tell whether a bead reaches the level, or without one has a flat top."""
    if level is not None:
        return bool(crop.max() >= level)
    return int(np.count_nonzero(crop == crop.max())) >= _PLATEAU


def _crop(data: npt.NDArray[np.float32], position: Float64Array, size: Size) -> Float64Array:
    """Return the crop whose middle voxel lies exactly at a position, interpolated."""
    box = _around(position, np.array(size) // 2 + _MARGIN, data.shape)
    crop = data[box].astype(np.float64)
    for axis in range(3):  # the spline is a product of one-dimensional ones
        n, start = crop.shape[axis], position[axis] - box[axis].start - size[axis] // 2
        points = np.clip(start + np.arange(size[axis]), 0, n - 1)
        if n > 1:
            order = _SPLINE if n > _SPLINE else 1
            crop = make_interp_spline(np.arange(n), crop, k=order, axis=axis)(points)
    return crop


def _normal_crops(
    data: npt.NDArray[np.float32], positions: Float64Array, size: Size
) -> Float64Array:
    """Return the beads' crops, background removed and divided by their sum; (N, Z, Y, X)."""
    crops = [_crop(data, position, size) for position in positions]
    clean = [crop - background_level(crop)[0] for crop in crops]
    return np.array([crop / crop.sum() for crop in clean])


def _mean(data: npt.NDArray[np.float32], positions: Float64Array, size: Size) -> Float64Array:
    """Return the sum of the beads, background removed.

    For counting noise the plain sum, in which every bead has its brightness for weight, is the
    best estimate; the weight is capped so that one bead does not stand for all.
    """
    crops = [_crop(data, position, size) for position in positions]
    clean = np.array([crop - background_level(crop)[0] for crop in crops])
    light = clean.sum(axis=(1, 2, 3))
    weight = np.minimum(1, _HEAVIEST * np.median(light) / light)
    total: Float64Array = np.tensordot(weight, clean, axes=1)
    return total - background_level(total)[0]


def _alike(crops: Float64Array, minimum: float) -> npt.NDArray[np.bool_]:
    """Return the mask of the crops that correlate with their median.

    Compared after a little smoothing, so that a dim bead is not refused for its noise. From five
    beads on, one far below what is usual among them goes too, so that a doublet is
    found among good beads.
    """
    calm = ndimage.gaussian_filter(crops, (0, 1, 1, 1))
    median = np.median(calm, axis=0)
    core = median > _CORE * median.max()
    likeness = np.array([np.corrcoef(crop[core], median[core])[0, 1] for crop in calm])
    like: npt.NDArray[np.bool_] = likeness >= minimum
    if len(crops) >= 5:
        usual = float(np.median(likeness))
        spread = _MAD_TO_SD * float(np.median(np.abs(likeness - usual)))
        like &= likeness >= usual - 5 * max(spread, _LEAST_SPREAD)
    return like


def _offset(crop: Float64Array, template: Float64Array) -> Float64Array:
    """Return how far (z, y, x) in voxels the crop's bead lies from the template's.

    Least squares of ``a T(r - d) + b`` in its first order, ``a T - a d . grad T + b``: the maximum
    of the normalised cross-correlation, without a grid of shifts.
    """
    axes = [a for a in range(3) if crop.shape[a] > 1]
    slopes = [np.gradient(template, axis=a).ravel() for a in axes]
    design = np.stack([template.ravel(), *slopes, np.ones(template.size)], axis=1)
    answer = np.linalg.lstsq(design, crop.ravel(), rcond=None)[0]
    offset = np.zeros(3)
    offset[axes] = np.clip(-answer[1:-1] / answer[0], -1, 1)
    return offset


def _middle(size: Size) -> tuple[float, float, float]:
    return size[0] // 2, size[1] // 2, size[2] // 2


def _json_lengths(values: npt.ArrayLike) -> list[float | None]:
    """Return lengths as JSON holds them: no number where a width could not be measured."""
    return [round(float(v), 4) if math.isfinite(v) else None for v in np.asarray(values)]


def _none_left(beads: BeadTable) -> RlnError:
    """Return the error that says why no bead is fit for use."""
    reasons = ", ".join(f"{n} {reason}" for reason, n in beads.rejected.items())
    return RlnError(
        f"Of {len(beads.status)} beads found none is fit for use ({reasons}). "
        "Beads are clustered or cut where a crop of "
        f"{beads.size} voxels (z, y, x) around them is not free: give a smaller size; "
        "or lower minimum_snr or minimum_correlation, or take a sparser stack."
    )
