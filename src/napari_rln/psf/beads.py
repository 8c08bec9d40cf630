"""Detection of beads in a stack, and the reasons for rejecting some."""

from collections import Counter
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from skimage.feature import peak_local_max

from napari_rln.core.errors import RlnError
from napari_rln.core.volume import Float64Array, Shape, Volume
from napari_rln.psf.pedestal import MAD_TO_SD, background_level
from napari_rln.psf.shape import fwhm_um

Status = Literal["used", "cut", "saturated", "clustered", "too dim", "unlike"]

_FAINTEST = 0.02  # of the brightest bead: fainter maxima are ignored
_LOBE = 0.25  # of a bead's height: fainter maxima near it are its side lobes
_PLATEAU = 5  # voxels of highest value: up to four are equal by chance or symmetry


@dataclass(frozen=True, kw_only=True, eq=False)
class BeadTable:
    """The beads of a stack, brightest first.

    Positions (N, 3) are z, y, x in voxels; peaks (N,), in the image's unit, heights of the third
    brightest voxel above the background (N,). The status (N,) is ``"used"``, or the reason for
    rejection; the size is that of the crop (z, y, x) in voxels, odd.
    """

    positions: Float64Array
    peaks: Float64Array
    backgrounds: Float64Array
    status: tuple[Status, ...]
    size: Shape

    @property
    def used(self) -> npt.NDArray[np.bool_]:
        """Mask (N,) of the beads that are used."""
        return np.array([s == "used" for s in self.status], dtype=bool)

    @property
    def rejected(self) -> dict[str, int]:
        """Number of beads rejected, by reason."""
        return dict(Counter(s for s in self.status if s != "used"))


def find_beads(
    image: Volume, *, size: Shape | None, minimum_snr: float, saturation: float | None
) -> BeadTable:
    """Return the beads of a stack with their status, selected as by the settings of measurement.

    Raise an RlnError if nothing rises above the noise.
    """
    data = image.data
    coarse, heights = _candidates(data, image.name)
    base = float(np.median(data))
    widths = _typical_fwhm(data, coarse)
    size = size or _automatic_size(widths, coarse, heights, data.shape)
    half = np.array(size) // 2
    main = _main_maxima(coarse, heights, half + widths)
    coarse, heights = coarse[main], heights[main]

    rows: list[tuple[Any, float, float, Status]] = []
    for i, position in enumerate(coarse):
        crop = data[box_around(position, half, data.shape)].astype(np.float64)
        level, noise = background_level(crop)
        peak = float(heights[i]) + base - level
        near = (np.abs(coarse - position) <= half + widths).all(axis=1)
        status: Status = "used"
        if crop.shape != size:
            status = "cut"
        elif _is_saturated(crop, saturation):
            status = "saturated"
        elif np.count_nonzero(heights[near] >= _LOBE * heights[i]) > 1:  # itself
            status = "clustered"
        elif peak < minimum_snr * noise:
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


def chosen_beads(image: Volume, positions: npt.ArrayLike, *, size: Shape | None) -> BeadTable:
    """Return the beads at chosen positions; only those cut by the border are rejected.

    Positions, (N, 3) of z, y, x in voxels with nan for an unknown z, move to the brightest voxel
    within 1.5 FWHMs; duplicates are merged. Raise an RlnError if there is no position, or one lies
    outside the image.
    """
    data = image.data
    places = np.atleast_2d(np.array(positions, np.float64))
    if places.size == 0:
        raise RlnError("no bead is chosen; choose at least one.")
    outside = ((places < -0.5) | (places > np.array(data.shape) - 0.5)).any(axis=1)
    if outside.any():
        where = ", ".join(f"{c:.1f}" for c in places[outside][0])
        raise RlnError(
            f"the bead chosen at voxel ({where}) is outside {image.name} of {data.shape} voxels "
            "(z, y, x); remove or move it."
        )
    smooth = _smooth(data)
    for i in np.flatnonzero(np.isnan(places[:, 0])):
        places[i, 0] = 0.0
        places[i, 0] = _brightest_near(smooth, places[i], np.array([len(data), 2, 2]))[0]
    widths = _typical_fwhm(data, places)
    coarse = np.unique([_brightest_near(smooth, p, np.ceil(1.5 * widths)) for p in places], axis=0)
    heights = np.array([_third_brightest(data[z], y, x) for z, y, x in coarse])
    order = np.argsort(-heights, kind="stable")
    coarse, heights = coarse[order].astype(np.float64), heights[order]
    size = size or _automatic_size(widths, coarse, heights - float(np.median(data)), data.shape)
    half = np.array(size) // 2
    crops = [data[box_around(p, half, data.shape)].astype(np.float64) for p in coarse]
    levels = np.array([background_level(crop)[0] for crop in crops])
    return BeadTable(
        positions=coarse,
        peaks=heights - levels,
        backgrounds=levels,
        status=tuple("used" if crop.shape == size else "cut" for crop in crops),
        size=size,
    )


def box_around(
    position: Float64Array, half: npt.ArrayLike, shape: tuple[int, ...]
) -> tuple[slice, ...]:
    """Return the slices of the box around a position, clipped to the image."""
    nearest = np.rint(position).astype(int)
    return tuple(
        slice(max(0, c - int(h)), min(n, c + int(h) + 1))
        for c, h, n in zip(nearest, np.asarray(half), shape, strict=True)
    )


def _candidates(data: npt.NDArray[np.float32], name: str) -> tuple[Float64Array, Float64Array]:
    """Return (N, 3) voxels of the beads and their heights above the median, brightest first.

    Maxima are searched for in the projection along z, since the axial secondary maxima of an
    aberrated PSF would otherwise count as beads.
    """
    smooth = _smooth(data)
    plane = smooth.max(axis=0)
    middle = float(np.median(plane))
    noise = MAD_TO_SD * float(np.median(np.abs(plane - middle)))
    rise = max(5 * noise, _FAINTEST * (float(plane.max()) - middle))
    maxima = peak_local_max(  # type: ignore[no-untyped-call]
        plane, min_distance=2, threshold_abs=middle + rise, exclude_border=False
    )
    if rise <= 0 or len(maxima) == 0:
        raise RlnError(
            f"{name} has no bead: no maximum exceeds 5 times its noise ({noise:.3g}). Check the "
            "channel, or use a brighter stack."
        )
    y, x = maxima.T
    z = smooth[:, y, x].argmax(axis=0)
    base = float(np.median(data))
    heights = np.array([_third_brightest(data[i], j, k) for i, j, k in zip(z, y, x, strict=True)])
    order = np.argsort(-heights, kind="stable")
    return np.stack([z, y, x], axis=1)[order].astype(np.float64), heights[order] - base


def _smooth(data: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    sigma = [min(1.0, (n - 1) / 2) for n in data.shape]
    smooth: npt.NDArray[np.float32] = ndimage.gaussian_filter(data, sigma)
    return smooth


def _brightest_near(
    smooth: npt.NDArray[np.float32], position: Float64Array, radius: Float64Array
) -> npt.NDArray[np.intp]:
    """Return the brightest voxel (z, y, x) within a radius (z, y, x) of a position."""
    box = box_around(position, radius, smooth.shape)
    at = np.unravel_index(int(smooth[box].argmax()), smooth[box].shape)
    return np.array([part.start + i for part, i in zip(box, at, strict=True)])


def _third_brightest(plane: npt.NDArray[np.float32], y: int, x: int) -> float:
    """Return the third highest of the 3 x 3 voxels around one: the peak, robust to hot pixels."""
    around = plane[max(0, y - 1) : y + 2, max(0, x - 1) : x + 2].ravel()
    return float(np.sort(around)[max(0, around.size - 3)])


def _typical_fwhm(data: npt.NDArray[np.float32], coarse: Float64Array) -> Float64Array:
    """Return the median FWHM (z, y, x) in voxels of up to 15 beads of all brightnesses."""
    sample = coarse[np.unique(np.linspace(0, len(coarse) - 1, 15).astype(int))]
    half = np.array([data.shape[0], 12, 12])
    crops = [data[box_around(p, half, data.shape)].astype(np.float64) for p in sample]
    table = np.array([fwhm_um(c - background_level(c)[0], (1.0, 1.0, 1.0)) for c in crops])
    finite = (column[np.isfinite(column)] for column in table.T)
    return np.array([np.median(widths) if widths.size else 1.0 for widths in finite])


def _automatic_size(
    widths: Float64Array, coarse: Float64Array, heights: Float64Array, shape: tuple[int, ...]
) -> Shape:
    """Return the odd crop size: as large as most beads have room for, at least 4 FWHMs."""
    full = np.ceil(np.array([3, 4, 4]) * widths)
    main = coarse[_main_maxima(coarse, heights, full + widths)]
    border = np.minimum(main, np.array(shape) - 1 - main)
    apart = np.abs(main[:, None, 1:] - main[:, 1:]).max(axis=2) - widths[1:].max()
    np.fill_diagonal(apart, np.inf)
    room = np.minimum(border[:, 1:].min(axis=1), apart.min(axis=1))
    planes = int(min(full[0], np.quantile(border[:, 0], 0.25)))
    least, most = 2 * widths[1:].max(), full[1:].max()
    pixels = int(np.clip(np.median(room), min(least, most), most))
    return 2 * planes + 1, 2 * pixels + 1, 2 * pixels + 1


def _main_maxima(
    coarse: Float64Array, heights: Float64Array, distance: Float64Array
) -> npt.NDArray[np.bool_]:
    """Return the mask of the maxima that are not side lobes of a brighter bead nearby."""
    main = np.ones(len(coarse), dtype=bool)
    for i in range(1, len(coarse)):
        near = main[:i] & (np.abs(coarse[:i] - coarse[i]) <= distance).all(axis=1)
        main[i] = not np.any(heights[i] < _LOBE * heights[:i][near])
    return main


def _is_saturated(crop: Float64Array, level: float | None) -> bool:
    """Return whether a bead reaches the saturation level, or has a flat top if there is none."""
    if level is not None:
        return bool(crop.max() >= level)
    return int(np.count_nonzero(crop == crop.max())) >= _PLATEAU
