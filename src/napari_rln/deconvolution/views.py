"""Preparation of two views of one object from different directions, as of a diSPIM.

Each view is sharp along the axis along which the other is blurred. In joint deconvolution the first
view corrects the estimate, then the second, each with its own point spread function (Wu et al.,
Nature Biotechnology 31, 1032, 2013). The first estimate is their mean.
"""

from collections.abc import Generator
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
from scipy.signal import fftconvolve

from napari_rln.core.errors import RlnError
from napari_rln.core.generators import finish
from napari_rln.core.grid import resample_onto, resampled_image, translation
from napari_rln.core.limits import as_dict, check_limits
from napari_rln.core.volume import (
    Float64Array,
    FloatArray,
    Mask,
    Volume,
    VoxelUm,
    on_one_grid,
    same_grid,
)
from napari_rln.deconvolution.calibration import (
    LEAST_MEASURED,
    Gain,
    Level,
    UserCalibration,
    calibrate,
    prepare_image,
)
from napari_rln.deconvolution.classical import RichardsonLucy
from napari_rln.deconvolution.method import Method
from napari_rln.deconvolution.prepared_view import PreparedView
from napari_rln.deconvolution.settings import check_pair
from napari_rln.psf.prepare import RESAMPLE_ONLY, check_psf, prepare_psf
from napari_rln.registration.register import RegistrationReport, RegistrationSettings, register_iter

Rotation = Annotated[
    Literal["none", "x+90", "x-90", "y+90", "y-90"],
    {
        "words": {
            "x+90": "x by +90\N{DEGREE SIGN}",
            "x-90": "x by \N{MINUS SIGN}90\N{DEGREE SIGN}",
            "y+90": "y by +90\N{DEGREE SIGN}",
            "y-90": "y by \N{MINUS SIGN}90\N{DEGREE SIGN}",
        }
    },
]

_PLANES = {"x": (0, 1), "y": (0, 2)}  # axes exchanged by a rotation about an axis
_LEAST_OVERLAP = 0.1  # least fraction of the first view that the second shows
_ADVICE = "crop the PSFs, deconvolve a part of the image, or use another device."


@dataclass(frozen=True, kw_only=True)
class DualSettings:
    """Settings of the alignment of a second view with the first.

    Parameters
    ----------
    rotation
        Rotation of the second stack and its PSF by 90 degrees about its x or y axis, before the
        registration, as for the second objective of a diSPIM. Choose ``none`` if it is already
        rotated.
    transform
        Registration of the second view: ``translation``, ``rigid`` (with rotation) or ``affine``
        (with scaling and shear too). Choose ``none`` if it already lies on the voxels of the first.
    voxels
        Voxels of the result: ``isotropic``, with the finest side of the first view's along all
        axes, or those of the ``first``. Keep ``isotropic`` for the resolution that the second view
        adds.
    background_b
        Background level of the second view in its image units, camera offset included; ``auto``
        measures the darkest regions. Give it where no region is empty.
    offset_b
        Camera offset of the second view, in its image units; ``auto`` estimates it from the noise.
        Give the mean of a dark image if you have one.
    gain_b
        Camera gain of the second view, in its image units per photon; ``auto`` estimates it from
        the noise. Give that of the camera if you know it.
    seed
        Random seed of the registration. Change it if the registration fails.
    """

    rotation: Rotation = "none"
    transform: Annotated[
        Literal["none", "translation", "rigid", "affine"],
        {"label": "Registration", "words": {"none": "none (is registered)"}},
    ] = "affine"
    voxels: Annotated[
        Literal["isotropic", "first"],
        {"label": "Voxels of the result", "words": {"first": "as the first view"}},
    ] = "isotropic"
    background_b: Annotated[Level, {"label": "Second background"}] = "auto"
    offset_b: Annotated[Level, {"label": "Second offset"}] = "auto"
    gain_b: Annotated[Gain, {"label": "Second gain"}] = "auto"
    seed: Annotated[int, {"label": "Random seed"}] = 0

    def __post_init__(self) -> None:
        check_limits(self)


@dataclass(frozen=True, kw_only=True, eq=False)
class TwoViews:
    """Two views on one grid and in one unit.

    Attributes
    ----------
    first, second
        Views on that grid, the second scaled to the brightness of the first.
    original
        First view on its own voxels.
    facts
        Facts of the alignment.
    inputs
        Hashes of the original views and PSFs.
    """

    first: PreparedView
    second: PreparedView
    original: PreparedView
    facts: dict[str, Any]
    inputs: dict[str, str]

    def calibrations(self) -> dict[str, Any]:
        """Return the calibrations for a record, each in the unit of its own view."""
        second = self.second.calibration.scaled(self.facts["brightness_b"])
        return self.first.calibration.facts() | {f"{k}_b": v for k, v in second.facts().items()}


def rotated(volume: Volume, rotation: Rotation) -> Volume:
    """Return a volume rotated by 90 degrees about its x or y axis, with its voxel size."""
    if rotation == "none":
        return volume
    axes = _PLANES[rotation[0]]
    data = np.rot90(volume.data, 1 if rotation[1] == "+" else -1, axes)
    sizes = list(volume.voxel_um)
    sizes[axes[0]], sizes[axes[1]] = sizes[axes[1]], sizes[axes[0]]
    z, y, x = sizes
    return volume.with_data(np.ascontiguousarray(data), voxel_um=(z, y, x))


def pair_views(
    first: Volume,
    second: Volume,
    psf_first: Volume,
    psf_second: Volume,
    settings: DualSettings | None = None,
    method: Method | None = None,
) -> TwoViews:
    """Return two views on one grid; see :func:`pair_views_iter`, which yields reports."""
    return finish(pair_views_iter(first, second, psf_first, psf_second, settings, method))


def pair_views_iter(
    first: Volume,
    second: Volume,
    psf_first: Volume,
    psf_second: Volume,
    settings: DualSettings | None = None,
    method: Method | None = None,
) -> Generator[RegistrationReport, None, TwoViews]:
    """Yield reports of the registration; return two views on one grid.

    Parameters
    ----------
    first, second
        (Z, Y, X), each on its own voxels.
    psf_first, psf_second
        Sum 1, each on the voxels and in the orientation of its own view.
    settings
        Settings of the alignment; the defaults when none.
    method
        Method of the deconvolution, for the background and the camera of the first view, and the
        treatment of negative and defective voxels of both; Richardson-Lucy by default.

    Raises
    ------
    RlnError
        If a view or a PSF is unusable, or the views do not match.

    Notes
    -----
    The PSF of the second view is rotated by 90 degrees with it, but not by the small rotation of
    the registration.
    """
    settings, method = settings or DualSettings(), method or RichardsonLucy()
    first = check_pair(first, psf_first, method.negatives)
    second = check_pair(second, psf_second, method.negatives)
    one = calibrate(first, method)
    two = calibrate(
        second,
        UserCalibration(
            background=settings.background_b, offset=settings.offset_b, gain=settings.gain_b
        ),
    )
    inputs = {"image": first.hash, "image_b": second.hash, "psf": psf_first.hash,
              "psf_b": psf_second.hash}  # fmt: skip
    repair = method.repair_image
    first, mask_first, first_facts = prepare_image(first, psf_first, one, repair=repair)
    second, mask_second, second_facts = prepare_image(second, psf_second, two, repair=repair)
    original = PreparedView(image=first, psf=psf_first, calibration=one, mask=mask_first)
    grid = _grid(first.voxel_um, settings)
    image, other = _resampled(first, grid), _resampled(rotated(second, settings.rotation), grid)
    if mask_first is not None:
        mask_first = _resampled(_as_volume(mask_first, first), grid).data > LEAST_MEASURED
    shows = np.ones(other.shape, np.float32)
    if mask_second is not None:
        shows = _resampled(rotated(_as_volume(mask_second, second), settings.rotation), grid).data
    psfs = psfs_of_views(psf_first, psf_second, settings, first.voxel_um)
    facts: dict[str, Any] = {"dual": as_dict(settings)} | first_facts
    facts |= {f"{name}_b": value for name, value in second_facts.items()}
    if settings.transform == "none":
        if other.shape != image.shape:
            raise RlnError(
                f"{other.name} is {other.shape} but {image.name} is {image.shape} on one grid; "
                "register it (`transform=affine`), or crop both to the same part."
            )
        mask = shows > LEAST_MEASURED
    else:
        # Blurred by each other's PSF they are similar; unblurred, a scaling would compensate for
        # their different blur along an axis.
        similar = _blurred(other, psfs[0]), _blurred(image, psfs[1])
        registered = yield from register_iter(
            *similar, RegistrationSettings(transform=settings.transform, seed=settings.seed)
        )
        assert registered.record is not None
        registration = registered.record.facts
        matrix = np.array(registration["matrix"])
        data = _moved_onto(other, image, matrix)
        mask = np.isfinite(data)
        if mask_second is not None:
            mask &= (
                np.nan_to_num(_moved_onto(other.with_data(shows), image, matrix)) > LEAST_MEASURED
            )
        other = image.with_data(np.nan_to_num(data), name=second.name)
        kept = ("matrix", "shift_um", "transform", "similarity_after", "overlap")
        facts["registration"] = {name: registration[name] for name in kept}
    if mask.mean() < _LEAST_OVERLAP:
        raise RlnError(
            f"{second.name} overlaps {mask.mean():.0%} of {first.name}, less than "
            f"{_LEAST_OVERLAP:.0%}; crop {first.name} to what both show."
        )
    brightness = _light(other, mask, two.background) / _light(image, mask, one.background)
    if not brightness > 0:
        raise RlnError(
            f"{second.name} is not brighter than its background where {first.name} is; check the "
            "alignment, or set the backgrounds (`background`, `background_b`)."
        )
    facts["brightness_b"] = brightness
    scaled = (other.data.clip(0) / brightness).astype(np.float32)
    return TwoViews(
        first=PreparedView(image=image, psf=psfs[0], calibration=one, mask=mask_first),
        second=PreparedView(
            image=image.with_data(scaled, name=second.name),
            psf=psfs[1],
            calibration=two.scaled(1 / brightness),
            mask=None if mask.all() else mask,
        ),
        original=original,
        facts=facts,
        inputs=inputs,
    )


def psfs_of_views(
    psf_first: Volume,
    psf_second: Volume,
    settings: DualSettings,
    voxel_um: VoxelUm | None = None,
) -> tuple[Volume, Volume]:
    """Return the PSFs of two views, rotated and resampled to the voxels of the result.

    Each is in the orientation of its own view; ``voxel_um`` is that of the first view, and that of
    its PSF when none.
    """
    grid = _grid(voxel_um or psf_first.voxel_um, settings)
    return _on_grid(psf_first, grid), _on_grid(rotated(psf_second, settings.rotation), grid)


def _grid(voxel_um: VoxelUm, settings: DualSettings) -> VoxelUm:
    if settings.voxels == "first":
        return voxel_um
    finest = min(voxel_um)
    return finest, finest, finest


def _on_grid(psf: Volume, grid: VoxelUm) -> Volume:
    check_psf(psf)
    like = Volume(data=psf.data[:1], voxel_um=grid)
    return psf if on_one_grid(psf, like) else prepare_psf(psf, RESAMPLE_ONLY, image_voxel_um=grid)


def _resampled(volume: Volume, grid: VoxelUm) -> Volume:
    return volume if same_grid(volume.voxel_um, grid) else resampled_image(volume, grid)


def _blurred(volume: Volume, psf: Volume) -> Volume:
    """Return a volume, extended by its edge voxels, blurred by a PSF."""
    margins = [((n - 1) // 2, n // 2) for n in psf.shape]
    data = fftconvolve(np.pad(volume.data, margins, mode="edge"), psf.data, mode="valid")
    return volume.with_data(data.astype(np.float32))


def _moved_onto(other: Volume, image: Volume, matrix: Float64Array) -> FloatArray:
    """Return a view on the voxels of another by the matrix of its record, NaN outside."""
    half, other_half = (np.divide(volume.voxel_um, 2) for volume in (image, other))
    return resample_onto(other, image, translation(other_half) @ matrix @ translation(-half))


def _as_volume(mask: Mask, like: Volume) -> Volume:
    return like.with_data(mask.astype(np.float32))


def _light(volume: Volume, mask: Mask, background: float) -> float:
    """Return the mean light above the background in a part of a volume."""
    return float(volume.data[mask].mean(dtype=np.float64)) - background
