"""Settings of Richardson-Lucy deconvolution, and the iteration that is made of them.

:mod:`napari_rln.deconvolution.richardson_lucy` holds the iteration,
:mod:`napari_rln.deconvolution.classical` the method.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Literal

import torch

from napari_rln.core.errors import RlnError
from napari_rln.core.limits import check_limits
from napari_rln.core.volume import FloatArray, OnGrid, Volume, on_one_grid
from napari_rln.deconvolution.back_projectors import BackProjector, transfer_function
from napari_rln.deconvolution.calibration import Calibration, Gain, Level, Mask, Negatives
from napari_rln.deconvolution.convolution import Border, Convolution, of_one_size, padded_shape
from napari_rln.deconvolution.richardson_lucy import HeldOut, RichardsonLucyIteration, Start, View
from napari_rln.psf.prepare import check_psf

_DTYPES = {"float32": torch.float32, "float64": torch.float64}


@dataclass(frozen=True, kw_only=True)
class RichardsonLucySettings:
    """Settings of Richardson-Lucy deconvolution.

    Parameters
    ----------
    iterations
        How many; auto stops where the estimate starts to predict unseen photons worse.
    max_iterations
        The most that auto takes, and what it takes where it finds no noise.
    tolerance
        Stop earlier when the relative change per iteration falls below this; 0 for never.
    back_projector
        matched is Richardson-Lucy proper; the others need fewer iterations and amplify noise
        sooner.
    acceleration
        biggs-andrews predicts along the path of the estimates, some 5 to 10 times faster; auto
        does so for the matched back projector. The others are fast as they are, and with smaller
        steps they are stopped nearer to the best.
    start
        Start from a flat estimate or from the image. Flat needs some more iterations and
        carries less noise.
    border
        extended lets the object reach beyond the image, by the PSF's support; periodic and
        reflect do not.
    background
        Light that is not of the object, camera offset included, in image units; auto takes
        the darkest parts of the image.
    offset
        What the camera gives without light, in image units; auto tells it by the image's noise.
    gain
        Image units per photon of the camera; auto tells it by the image's noise.
    repair_image
        Replace isolated hot and cold voxels, which no light can make, by what is around them.
    negatives
        What to do with negative voxels, such as of a subtracted background: keep them, as the
        camera's offset is found below them; clip, to set them to 0; or error.
    tv
        Strength of total-variation regularisation; 0 for none, 0.002 to 0.01 is usual.
    alpha
        Wiener regularisation of the wiener back projectors.
    beta
        Butterworth gain at the cut-off; the OTF's own when not given.
    order
        Butterworth order.
    resolution_um
        Resolution limit z y x for the unmatched back projectors; the PSF's FWHM when not given.
    report_every
        Iterations between reports, which are also where a run can be cancelled.
    device
        auto, cpu, cuda, cuda:1, mps.
    precision
        float64 is for checking float32; twice the memory.
    seed
        Of the random split of photons behind auto.
    """

    iterations: Annotated[int | Literal["auto"], {"min": 1, "max": 100_000}] = "auto"
    max_iterations: Annotated[int, {"min": 2, "max": 10_000}] = 100
    tolerance: Annotated[float, {"min": 0.0, "max": 1.0}] = 0.0
    back_projector: BackProjector = "matched"
    acceleration: Literal["auto", "biggs-andrews", "none"] = "auto"
    start: Start = "flat"
    border: Border = "extended"
    background: Level = "auto"
    offset: Level = "auto"
    gain: Gain = "auto"
    repair_image: bool = True
    negatives: Negatives = "keep"
    tv: Annotated[float, {"min": 0.0, "max": 0.1}] = 0.0
    alpha: Annotated[float, {"min": 1e-6, "max": 10.0}] = 0.05
    beta: Annotated[float | None, {"min": 1e-6, "max": 1.0}] = None
    order: Annotated[int, {"min": 1, "max": 30}] = 10
    resolution_um: tuple[float, float, float] | None = None
    report_every: Annotated[int, {"min": 1, "max": 1000}] = 1
    device: str = "auto"
    precision: Literal["float32", "float64"] = "float32"
    seed: Annotated[int, {"min": 0}] = 0

    def __post_init__(self) -> None:
        check_limits(self)
        if self.resolution_um is not None and not all(r > 0 for r in self.resolution_um):
            raise RlnError(f"`resolution_um` is {self.resolution_um}; give three positive lengths.")

    @property
    def accelerated(self) -> bool:
        """Whether the path of the estimates is continued."""
        if self.acceleration == "auto":
            return self.back_projector == "matched"
        return self.acceleration == "biggs-andrews"


def memory_bytes(
    image_shape: tuple[int, int, int],
    psf_shape: tuple[int, int, int],
    settings: RichardsonLucySettings,
    views: int = 1,
) -> int:
    """Return how much memory a deconvolution takes beside image and result, in bytes."""
    unmatched = settings.back_projector != "matched"
    volumes = 4 * (views - 1) + (7 if settings.accelerated or unmatched else 5) + unmatched
    volumes += 10 * (settings.tv > 0)
    size = {"float32": 4, "float64": 8}[settings.precision]
    work = math.prod(padded_shape(image_shape, psf_shape, settings.border))
    # In photons the image is another volume.
    return size * (volumes * work + 2 * math.prod(image_shape))


def check_pair(image: Volume, psf: Volume, negatives: Negatives = "keep") -> Volume:
    """Return the image fit for deconvolution with a PSF: unchanged, or clipped where asked for.

    Raises
    ------
    RlnError
        If either cannot be used, or they do not go together.
    """
    check_together(image, psf)
    return check_image(image, negatives)


def check_together(image: OnGrid, psf: Volume) -> None:
    """Raise unless a PSF can be used, and goes with an image, whose values do not matter.

    Raises
    ------
    RlnError
        If it cannot.
    """
    check_psf(psf)
    if not on_one_grid(psf, image):
        raise RlnError(
            f"the PSF's voxels are {psf.voxel_um} um but the image's are {image.voxel_um} um "
            "(z, y, x); resample the PSF with napari-rln psf repair or psf.prepare."
        )
    if image.shape[0] == 1 < psf.shape[0]:
        raise RlnError(
            f"the image is a single plane but the PSF has {psf.shape[0]} planes; use a PSF of one "
            "plane (its middle one) for a 2D image, or a stack of planes."
        )


def check_image(image: Volume, negatives: Negatives = "keep") -> Volume:
    """Return the image fit for deconvolution: unchanged, or clipped where asked for.

    Raises
    ------
    RlnError
        If it holds negative values that must not be, or a single value only.
    """
    data = without_negatives(image.data, negatives, image.name)
    if not data.max() > data.min():
        raise RlnError(
            f"all voxels of {image.name} are {float(data.max()):g}; there is nothing to deconvolve."
        )
    return image if data is image.data else image.with_data(data)


def without_negatives(data: FloatArray, negatives: Negatives, name: str) -> FloatArray:
    """Return an image, or a part of one, as its negative voxels are to be taken.

    Raises
    ------
    RlnError
        If there are some and must not be.
    """
    lowest = float(data.min())
    if lowest >= 0 or negatives == "keep":
        return data
    if negatives == "error":
        raise RlnError(
            f"{name} has {int((data < 0).sum())} negative voxels (lowest {lowest:g}); take them as "
            "they are with `negatives=keep`, or set them to 0 with `negatives=clip`."
        )
    return data.clip(0)


@dataclass(frozen=True, kw_only=True, eq=False)
class Seen:
    """An image of the object, and what there is to know of it.

    Attributes
    ----------
    image, psf
        As :func:`check_pair` passed them; no PSF for a method that needs none.
    calibration
        How the image's values come of photons, and its background.
    seen
        (Z, Y, X) bool, where the image shows the object; everywhere when none.
    held_out
        Photons kept back to judge estimates by, see :mod:`napari_rln.deconvolution.stopping`.
    """

    image: Volume
    psf: Volume | None
    calibration: Calibration
    seen: Mask | None = None
    held_out: HeldOut | None = None


def start(
    image: Volume,
    psf: Volume,
    calibration: Calibration,
    settings: RichardsonLucySettings,
    device: torch.device,
    momenta: Sequence[float] | None = None,
    flat: float | None = None,
    seen: Mask | None = None,
) -> RichardsonLucyIteration:
    """Return the iteration of a single view before its first step; see :func:`start_views`."""
    view = Seen(image=image, psf=psf, calibration=calibration, seen=seen)
    return start_views([view], settings, device, momenta=momenta, flat=flat)


def start_views(
    views: Sequence[Seen],
    settings: RichardsonLucySettings,
    device: torch.device,
    *,
    momenta: Sequence[float] | None = None,
    flat: float | None = None,
) -> RichardsonLucyIteration:
    """Return the iteration, in photons, before its first step.

    Parameters
    ----------
    views
        One or more images of one shape, in one unit.
    settings
        Of the run.
    device
        Where to compute.
    momenta
        Of the acceleration, one for each iteration, as those of another run; the images' own when
        none.
    flat
        Value of a flat estimate, in the image's unit; the image's mean less background when none.
    """
    kernels = of_one_size([view.psf.data for view in views if view.psf is not None])
    unit = views[0].calibration.camera.gain
    return RichardsonLucyIteration(
        *(
            _view(view, kernel, unit, settings, device)
            for view, kernel in zip(views, kernels, strict=True)
        ),
        accelerate=settings.accelerated,
        start=settings.start,
        tv=settings.tv,
        voxel_um=views[0].image.voxel_um,
        momenta=momenta,
        flat=None if flat is None else flat / unit,
        unit=unit,
    )


def _view(
    given: Seen,
    kernel: FloatArray,
    unit: float,
    settings: RichardsonLucySettings,
    device: torch.device,
) -> View:
    """Return a view in photons of so many image units, with its forward model."""
    dtype = _DTYPES[settings.precision]
    blur = Convolution(
        kernel, given.image.shape, border=settings.border, device=device, dtype=dtype
    )
    transfer = None
    if settings.back_projector != "matched":
        resolution, voxel_um = settings.resolution_um, (given.psf or given.image).voxel_um
        transfer = transfer_function(
            settings.back_projector,
            blur,
            kernel,
            alpha=settings.alpha,
            beta=settings.beta,
            order=settings.order,
            resolution_voxels=resolution
            and tuple(r / v for r, v in zip(resolution, voxel_um, strict=True)),  # type: ignore[arg-type]
        )
    calibration = replace(given.calibration, camera=given.calibration.camera.in_units_of(unit))
    return View(
        blur=blur,
        image=torch.from_numpy(calibration.camera.photons(given.image.data)).to(device, dtype),
        background=calibration.background_photons,
        transfer=transfer,
        seen=None if given.seen is None else torch.from_numpy(given.seen).to(device),
        held_out=given.held_out,
    )
