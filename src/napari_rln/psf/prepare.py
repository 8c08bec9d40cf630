"""Preparation of a PSF: cleaning, centring, resampling to the image's grid, normalisation.

The steps, in this order: hot voxels (they would bias the centre), background (it would dominate
the energy), noise floor, centre and grid in one interpolation, negatives, crop, sum.
"""

from dataclasses import dataclass
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
from scipy import ndimage

from napari_rln.core.errors import RlnError
from napari_rln.core.generators import checkpoint
from napari_rln.core.limits import as_dict, check_limits
from napari_rln.core.record import Record
from napari_rln.core.volume import Float64Array, Volume, VoxelUm, check_voxel_um
from napari_rln.psf.peak import Triple, isolated_voxels, peak_centre, peak_inside
from napari_rln.psf.pedestal import background_level, median_in_planes
from napari_rln.psf.placement import (
    Fault,
    cut_fault,
    find_fault,
    in_image_order,
    point_fault,
    split_axes,
)
from napari_rln.psf.resampling import check_preparation, resampled
from napari_rln.psf.shape import centre_crop, energy_box

_MOST_FAULTS = 100  # cached results of find_fault
_faults: dict[tuple[str, tuple[int, int, int]], Fault | None] = {}


@dataclass(frozen=True, kw_only=True)
class PrepareSettings:
    """Settings for preparing a PSF.

    A PSF of :func:`napari_rln.psf.compute.compute_psf` has no noise: ``hot_pixels`` and
    ``noise_floor`` are ignored.

    Parameters
    ----------
    background
        Level to subtract: measured at the lateral border near focus (``auto``), none, or a number
        in the unit of the file. Leave ``auto``, or give the detector's offset.
    hot_pixels
        Replace isolated voxels far above their neighbours by the local median. Switch it off where
        the PSF is one such voxel.
    centre
        Centre of the PSF: the peak of the main lobe, moved to the middle voxel, also where it is
        split among the corners as for a Fourier transform (``peak``); or the file's middle voxel n
        // 2 (``file``). Keep ``peak`` unless the file is centred.
    noise_floor
        Standard errors by which the surroundings of a voxel must exceed the noise where subtracting
        the background leaves negative values; other voxels are set to zero, since clipped noise
        adds up to a pedestal. 0 keeps all positive values. Raise it if haze of noise remains.
    energy_fraction
        Fraction of the light that the cropped box keeps; 1 does not crop. Lower it for a smaller,
        faster PSF.
    max_size
        Maximum size after cropping (z, y, x) in voxels; by default no limit. Lower it for a
        smaller, faster PSF.
    """

    background: Literal["auto", "none"] | float = "auto"
    hot_pixels: bool = True
    centre: Annotated[
        Literal["peak", "file"], {"words": {"peak": "at the peak", "file": "as in the file"}}
    ] = "peak"
    noise_floor: Annotated[float, {"min": 0.0, "max": 20.0, "label": "Noise limit"}] = 3.0
    energy_fraction: Annotated[float, {"min": 0.5, "max": 1.0, "label": "Light kept"}] = 0.999
    max_size: Annotated[
        tuple[int, int, int] | None, {"label": "Largest size (voxels)", "none": "any"}
    ] = None

    def __post_init__(self) -> None:
        check_limits(self)
        if self.max_size is not None and (len(self.max_size) != 3 or min(self.max_size) < 1):
            raise RlnError(
                f"`max_size` is {self.max_size}; give three sizes (z y x) of at least one voxel."
            )


RESAMPLE_ONLY = PrepareSettings(
    background="none", hot_pixels=False, centre="file", noise_floor=0.0, energy_fraction=1.0
)
"""Only resampling, where requested, and normalisation of the sum."""


def prepare_psf(
    volume: Volume,
    settings: PrepareSettings | None = None,
    *,
    image_voxel_um: VoxelUm | None = None,
) -> Volume:
    """Return a PSF of odd size, centred on its middle voxel, non-negative, with sum 1.

    Parameters
    ----------
    volume
        One bright spot on a darker background: a measured or computed PSF, an averaged bead.
        One plane is a 2D PSF and stays one.
    settings
        Steps to apply; all by default.
    image_voxel_um
        Voxel size (z, y, x) in micrometres of the image to deconvolve; the PSF is resampled to
        it. None: that of the PSF. The z size has no effect on a 2D PSF.

    Returns
    -------
    Volume
        Facts of its record: background, noise_sd, hot_pixels (number replaced), rolled (axes whose
        origin was the first voxel), shift_voxels (further shift, in the file's voxels),
        energy_kept (fraction after cropping), shape_before, shape_after, computed.

    Raises
    ------
    RlnError
        If the PSF is constant or does not exceed its background, if its peak is at the border, if
        all of its light is in one voxel of the new grid, or if the memory does not suffice.
    """
    settings = settings or PrepareSettings()
    if image_voxel_um is not None:
        check_voxel_um(image_voxel_um, "image")
    target = image_voxel_um or volume.voxel_um
    check_preparation(volume, target)
    data, facts = _clean(volume, settings)
    placed = place(volume, data, settings, target)
    facts |= {
        "shift_voxels": placed.shift_voxels,
        "energy_kept": placed.energy_kept,
        "shape_before": list(volume.shape),
        "shape_after": list(placed.data.shape),
    }
    record = Record(
        method="psf prepare",
        settings=as_dict(settings) | {"image_voxel_um": list(target)},
        facts=facts,
        inputs={volume.name: volume.hash},
    )
    unit = (placed.data / placed.data.sum()).astype(np.float32)
    return volume.with_data(unit, voxel_um=target, record=record)


class Placed(NamedTuple):
    """A cleaned PSF on the grid of an image, centred and cropped, and what was changed."""

    data: Float64Array
    shift_voxels: list[float]
    energy_kept: float


def place(
    volume: Volume, clean: Float64Array, settings: PrepareSettings, voxel_um: VoxelUm
) -> Placed:
    """Return the cleaned data of a volume as :func:`prepare_psf` places it on a grid."""
    in_file: Triple = (clean.shape[0] // 2, clean.shape[1] // 2, clean.shape[2] // 2)
    centre = in_file
    if settings.centre == "peak":
        centre = peak_centre(clean)
        if not peak_inside(centre, clean.shape):
            raise unusable(volume, cut_fault(centre, clean.shape))
    data = np.clip(resampled(volume, clean, centre, voxel_um), 0, None)
    cropped = data
    if settings.energy_fraction < 1:
        cropped = centre_crop(cropped, energy_box(cropped, settings.energy_fraction))
    if settings.max_size is not None:
        cropped = centre_crop(cropped, settings.max_size)
    checkpoint()
    fault = point_fault(cropped)
    if fault:
        raise unusable(volume, fault)
    checkpoint()
    shift_voxels = [m - c for m, c in zip(in_file, centre, strict=True)]
    return Placed(cropped, shift_voxels, float(cropped.sum() / data.sum()))


def check_psf(volume: Volume) -> None:
    """Raise unless a volume may be used as a PSF: non-negative, with sum 1, one whole spot.

    Raise an RlnError if it is zero everywhere, has negative values, or its sum is not 1 within 0.1
    %; if its peak is at the border or split among the corners, if all of its light is in one voxel,
    or if it is noise or several spots.
    """
    lowest, total = float(volume.data.min()), float(volume.data.sum(dtype=np.float64))
    if lowest < 0:
        count = int((volume.data < 0).sum())
        raise RlnError(
            f"{volume.name} has {count} negative values, the lowest {lowest:.3g}; a PSF has none. "
            "Prepare it first."
        )
    if total == 0:
        raise RlnError(f"{volume.name} is zero everywhere; a PSF needs one bright spot.")
    if abs(total - 1) > 1e-3:
        raise RlnError(f"{volume.name} sums to {total:.6g}; a PSF sums to 1. Prepare it first.")
    fault = _fault(volume)
    if fault:
        raise unusable(volume, fault)


def _fault(volume: Volume) -> Fault | None:
    """Return the result of :func:`find_fault`, cached: it takes seconds for a large PSF."""
    key = (volume.hash, volume.shape)
    if key not in _faults:
        if len(_faults) >= _MOST_FAULTS:
            _faults.clear()
        _faults[key] = find_fault(volume.data)
    return _faults[key]


def unusable(volume: Volume, fault: Fault) -> RlnError:
    """Return the error for a volume that cannot be used as a PSF."""
    repair = (
        " Repair it (centre=peak), as commands and fit_psf do by default." if fault.split else ""
    )
    return RlnError(f"{volume.name} cannot be used as a PSF: {fault.message}{repair}")


def is_computed(volume: Volume) -> bool:
    """Return whether a PSF was computed, and so has no noise, according to its record."""
    record = volume.record
    return record is not None and (
        record.method == "psf compute" or bool(record.facts.get("computed"))
    )


def without_hot(data: Float64Array) -> tuple[Float64Array, int]:
    """Return data with hot voxels replaced by the median of 3 x 3 voxels, and their number."""
    hot = isolated_voxels(data).hot
    if not hot.any():
        return data, 0
    filtered = median_in_planes(data)
    return np.where(hot, filtered, data), int(hot.sum())


def above_noise(data: Float64Array, noise_sd: float, floor: float) -> Float64Array:
    """Return data with voxels set to zero where the 5 x 5 x 5 mean is within its noise.

    The limit ``floor`` is in standard errors of the mean; the background is already removed. Data
    with hardly any negative light, such as a computed PSF, are returned unchanged.
    """
    if -data[data < 0].sum() < 1e-3 * data[data > 0].sum():
        return data
    size = [min(5, n) for n in data.shape]
    mean = ndimage.uniform_filter(data, size=size, mode="nearest")
    return np.where(mean > floor * noise_sd / np.sqrt(np.prod(size)), data, 0.0)


def _clean(volume: Volume, settings: PrepareSettings) -> tuple[Float64Array, dict[str, Any]]:
    """Return data rolled into order and cleaned, and the facts of the record."""
    data = volume.data.astype(np.float64)
    if data.max() == data.min() and data.size > 1:
        raise RlnError(
            f"{volume.name} is {data.flat[0]:.6g} in every voxel; give a file with one bright spot."
        )
    if data.max() <= 0:
        raise RlnError(
            f"{volume.name} has no positive value (highest {data.max():.6g}); a PSF is a bright "
            "spot on a darker background. Check whether the file is inverted."
        )
    rolled = split_axes(data) if settings.centre == "peak" else ()
    data, hot_pixels, computed = in_image_order(data, rolled), 0, is_computed(volume)
    if settings.hot_pixels and not computed:
        data, hot_pixels = without_hot(data)
    measured, noise_sd = background_level(data)
    level = measured if settings.background == "auto" else 0.0
    if not isinstance(settings.background, str):
        level = float(settings.background)
    data = data - level
    if data.max() <= 0:
        raise RlnError(
            f"{volume.name} has no value above its background of {level:.6g}; give a lower "
            "background, or a file with one bright spot."
        )
    checkpoint()
    if settings.noise_floor and not computed:
        data = above_noise(data, noise_sd, settings.noise_floor)
    return data, {
        "background": level,
        "noise_sd": noise_sd,
        "hot_pixels": hot_pixels,
        "rolled": ["zyx"[axis] for axis in rolled],
        "computed": computed,
    }
