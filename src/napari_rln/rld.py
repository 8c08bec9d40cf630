"""What Richardson-Lucy deconvolution is told, what it reports, and the run made from that.

:mod:`napari_rln.iteration` holds the step, :mod:`napari_rln.deconvolution` the loop around it.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, Literal

import numpy as np
import numpy.typing as npt
import torch

from napari_rln.device import to_numpy
from napari_rln.errors import RlnError
from napari_rln.forward import Border, Convolution, of_one_size, padded_shape
from napari_rln.iteration import RichardsonLucy, Start, View
from napari_rln.noise import estimate_background
from napari_rln.projectors import BackProjector, transfer_function
from napari_rln.psf.prepare import check_psf
from napari_rln.settings import check_limits
from napari_rln.stop import SHARE
from napari_rln.volume import FloatArray, Volume, on_one_grid

Negatives = Literal["error", "clip"]

_DTYPES = {"float32": torch.float32, "float64": torch.float64}


@dataclass(frozen=True, kw_only=True)
class RldSettings:
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
        biggs-andrews predicts along the path of the estimates, some 5 to 10 times faster.
    start
        Start from a flat estimate or from the image. Flat needs some more iterations and
        carries less noise.
    border
        extended lets the object reach beyond the image, by the PSF's support; periodic and
        reflect do not.
    background
        Light that is not of the object, camera offset included, in image units; auto takes
        the darkest parts of the image.
    negatives
        What to do with negative voxels: error, or clip to set them to 0.
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
    acceleration: Literal["biggs-andrews", "none"] = "biggs-andrews"
    start: Start = "flat"
    border: Border = "extended"
    background: Annotated[float | Literal["auto"], {"min": 0.0}] = "auto"
    negatives: Negatives = "error"
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
            raise RlnError(f"resolution_um is {self.resolution_um}; give three positive lengths.")


@dataclass(frozen=True, kw_only=True)
class RldReport:
    """Where a deconvolution stands after an iteration.

    Attributes
    ----------
    phase
        ``"stop"`` while the number of iterations is sought, then ``"deconvolve"``.
    iteration
        Iterations done in this phase.
    total
        Iterations to do; the most there can be while they are sought.
    relative_change
        Norm of the last iteration's change of the estimate over the norm of the estimate.
    seconds
        Since the start.
    held_out
        Deviance of unseen photons per voxel, while the number of iterations is sought.
    part
        Of the image (z, y, x) that the estimate is of: while the number of iterations is sought, a
        part tells as much as the whole.
    """

    phase: Literal["stop", "deconvolve"]
    iteration: int
    total: int
    relative_change: float
    seconds: float
    held_out: float | None = None
    part: tuple[slice, ...] = (slice(None),) * 3
    _estimate: torch.Tensor = field(repr=False, compare=False)
    _per_count: float = field(default=1.0, repr=False, compare=False)

    def estimate(self) -> FloatArray:
        """Return a copy of the estimate in the field of view, (Z, Y, X) float32, image units.

        To be called before the next iteration, which changes it.
        """
        found = to_numpy(self._estimate)
        found *= np.float32(self._per_count)
        return found


def memory_bytes(
    image_shape: tuple[int, int, int],
    psf_shape: tuple[int, int, int],
    settings: RldSettings,
    views: int = 1,
) -> int:
    """Return how much memory a deconvolution takes beside image and result, in bytes."""
    volumes = 4 * (views - 1) + {"biggs-andrews": 7, "none": 5}[settings.acceleration]
    volumes += settings.back_projector != "matched"
    volumes += 10 * (settings.tv > 0)
    size = {"float32": 4, "float64": 8}[settings.precision]
    work = math.prod(padded_shape(image_shape, psf_shape, settings.border))
    return size * (volumes * work + math.prod(image_shape))


def check_pair(image: Volume, psf: Volume, negatives: Negatives = "error") -> Volume:
    """Return the image fit for deconvolution with a PSF: unchanged, or clipped where asked for.

    Raises
    ------
    RlnError
        If either cannot be used, or they do not go together.
    """
    check_together(image, psf)
    return check_image(image, negatives)


def check_together(image: Volume, psf: Volume) -> None:
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
            "(z, y, x); resample the PSF with `napari-rln psf repair --image` or psf.prepare."
        )
    if image.shape[0] == 1 < psf.shape[0]:
        raise RlnError(
            f"the image is a single plane but the PSF has {psf.shape[0]} planes; use a PSF of one "
            "plane (its middle one) for a 2D image, or a stack of planes."
        )


def check_image(image: Volume, negatives: Negatives = "error") -> Volume:
    """Return the image fit for deconvolution: unchanged, or clipped where asked for.

    Raises
    ------
    RlnError
        If it holds negative values that are not to be clipped, or nothing above 0.
    """
    lowest = float(image.data.min())
    if lowest < 0 and negatives == "error":
        raise RlnError(
            f"{image.name} has {int((image.data < 0).sum())} negative voxels (lowest {lowest:g}) "
            "but counts cannot be negative; add the camera offset back, or set them to 0 with "
            "--negatives clip."
        )
    if not image.data.max() > 0:
        raise RlnError(f"{image.name} has no voxel above 0; there is nothing to deconvolve.")
    return image.with_data(image.data.clip(0)) if lowest < 0 else image


def resolve_background(background: float | Literal["auto"], image: Volume) -> float:
    """Return the background to use, in image units: as given, or as found in the image.

    Raises
    ------
    RlnError
        If nothing of the image stands above it.
    """
    level = estimate_background(image.data) if background == "auto" else float(background)
    check_background(level, float(image.data.mean(dtype=np.float64)), image.name)
    return level


def check_background(level: float, mean: float, name: str) -> None:
    """Raise unless an image stands above its background on average.

    Raises
    ------
    RlnError
        With both.
    """
    if not level < mean:
        raise RlnError(
            f"the background is {level:g} but {name} is {mean:g} on average, so nothing "
            "stands above it; give a lower one, such as the camera's offset (--background)."
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class Seen:
    """An image of the object, and what there is to know of it.

    Attributes
    ----------
    image, psf
        As :func:`check_pair` passed them.
    background
        In the image's unit.
    seen
        (Z, Y, X) bool, where the image shows the object; everywhere when none.
    held_out
        (Z, Y, X) photons kept back to judge estimates by, see :mod:`napari_rln.stop`.
    """

    image: Volume
    psf: Volume
    background: float
    seen: npt.NDArray[np.bool_] | None = None
    held_out: FloatArray | None = None


def start(
    image: Volume,
    psf: Volume,
    background: float,
    settings: RldSettings,
    device: torch.device,
    held_out: FloatArray | None = None,
    momenta: Sequence[float] | None = None,
    flat: float | None = None,
) -> RichardsonLucy:
    """Return the iteration of a single view before its first step; see :func:`start_views`."""
    view = Seen(image=image, psf=psf, background=background, held_out=held_out)
    return start_views([view], settings, device, momenta=momenta, flat=flat)


def start_views(
    views: Sequence[Seen],
    settings: RldSettings,
    device: torch.device,
    *,
    momenta: Sequence[float] | None = None,
    flat: float | None = None,
) -> RichardsonLucy:
    """Return the iteration before its first step.

    Parameters
    ----------
    views
        One or more images of one shape.
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
    kernels = of_one_size([view.psf.data for view in views])
    return RichardsonLucy(
        *(
            _view(view, kernel, settings, device)
            for view, kernel in zip(views, kernels, strict=True)
        ),
        accelerate=settings.acceleration == "biggs-andrews",
        start=settings.start,
        tv=settings.tv,
        voxel_um=views[0].image.voxel_um,
        held_out_ratio=(1 - SHARE) / SHARE,
        momenta=momenta,
        flat=flat,
    )


def _view(given: Seen, kernel: FloatArray, settings: RldSettings, device: torch.device) -> View:
    """Return a view with its forward model."""
    dtype, image, psf = _DTYPES[settings.precision], given.image, given.psf
    blur = Convolution(kernel, image.shape, border=settings.border, device=device, dtype=dtype)
    transfer = None
    if settings.back_projector != "matched":
        resolution = settings.resolution_um
        transfer = transfer_function(
            settings.back_projector,
            blur,
            kernel,
            alpha=settings.alpha,
            beta=settings.beta,
            order=settings.order,
            resolution_voxels=resolution
            and tuple(r / v for r, v in zip(resolution, psf.voxel_um, strict=True)),  # type: ignore[arg-type]
        )

    def there(data: FloatArray | None) -> torch.Tensor | None:
        return None if data is None else torch.from_numpy(data).to(device, dtype)

    return View(
        blur=blur,
        image=torch.from_numpy(image.data).to(device, dtype),
        background=given.background,
        transfer=transfer,
        seen=None if given.seen is None else torch.from_numpy(given.seen).to(device),
        held_out=there(given.held_out),
    )
