"""Settings of Richardson-Lucy deconvolution, and the iteration built from them.

:mod:`napari_rln.deconvolution.richardson_lucy` holds the iteration,
:mod:`napari_rln.deconvolution.classical` the method.
"""

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Literal

import torch

from napari_rln.core.errors import RlnError
from napari_rln.core.limits import NUMBER_TYPES, check_limits
from napari_rln.core.volume import FloatArray, OnGrid, Shape, Volume, on_one_grid
from napari_rln.deconvolution.back_projectors import BackProjector, transfer_function
from napari_rln.deconvolution.calibration import Gain, Level, Negatives, Offset, RepairImage
from napari_rln.deconvolution.convolution import Border, Convolution, of_one_size, padded_shape
from napari_rln.deconvolution.gradient_consensus import GradientConsensus
from napari_rln.deconvolution.prepared_view import PreparedView
from napari_rln.deconvolution.richardson_lucy import RichardsonLucyIteration, Start, View
from napari_rln.psf.prepare import check_psf

_DTYPES = {"float32": torch.float32, "float64": torch.float64}


@dataclass(frozen=True, kw_only=True)
class RichardsonLucySettings:
    """Settings of Richardson-Lucy deconvolution.

    Parameters
    ----------
    iterations
        Number of iterations; ``auto``: the number that best predicts held-out photons. Keep
        ``auto``, or give fewer for less noise.
    max_iterations
        Largest number that ``auto`` may choose, and its number for images without photon noise.
        Raise it if a run stops there.
    tv
        Strength of total-variation regularisation, which smooths noise and keeps edges; 0: none.
        Give 0.002 to 0.01 for noisy images.
    consensus
        Change only voxels whose correction two random halves of the photons agree on, drawn anew in
        each iteration (gradient consensus, RLGC): noise is hardly amplified by further iterations.
        An iteration takes about four times as long, and is not accelerated; only for the matched
        back projector. Switch it on for faint images.
    back_projector
        Filter that takes the error of the blurred estimate back to the object: ``matched``, the
        adjoint of the blur, is standard Richardson-Lucy; the others need fewer iterations but
        amplify noise sooner. Keep ``matched`` for noisy images.
    alpha
        Wiener parameter of the Wiener, Wiener-Butterworth and masked Wiener back projectors. Raise
        it for less noise.
    beta
        Butterworth gain at the cut-off frequency, or for the masked Wiener back projector the
        absolute OTF at the edge of its support, relative to its maximum; by default from the OTF.
        Leave it out unless you repeat a publication.
    order
        Order of the Butterworth filter: a higher one cuts off more sharply. Lower it if results
        ring.
    resolution_um
        Resolution limit (z y x) in micrometres of the back projectors that are not matched; by
        default the FWHM of the PSF. Give larger lengths for less noise.
    acceleration
        Extrapolation of successive estimates: ``biggs-andrews`` is some 5 to 10 times faster;
        ``auto`` uses it for the matched back projector only, since the others converge fast without
        it and then stop closer to the best iteration. Keep ``auto`` unless you compare.
    start
        Initial estimate: ``flat`` needs a few more iterations than ``image``, and carries less
        noise. Keep ``flat`` for noisy images.
    border
        What lies beyond the edges: ``extended`` estimates the object there, within the PSF's reach;
        ``periodic`` and ``reflect`` repeat the image. Keep ``extended`` for images of a microscope.
    background
        Background level in image units, camera offset included; ``auto`` measures the darkest
        regions of the image. Give it where no region is empty.
    offset
        Camera offset, the value without light, in image units; ``auto`` estimates it from the
        noise. Give the mean of a dark image if you have one.
    gain
        Camera gain, in image units per photon; ``auto`` estimates it from the noise. Give that of
        the camera if you know it.
    repair_image
        Replace isolated hot and cold pixels by the median of their neighbours. Switch it off where
        single bright voxels are structure.
    negatives
        Negative values, as after background subtraction: ``keep`` them (an automatic camera offset
        lies below them), ``clip`` them to 0, or stop with an ``error``. Choose ``keep`` unless they
        mean nothing.
    tolerance
        Relative change per iteration below which to stop early; 0: never. Keep 0 where the number
        of iterations is automatic.
    report_every
        Iterations between progress reports; a run can be cancelled at each. Raise it where
        iterations take milliseconds.
    device
        Compute device: auto, cpu, cuda, cuda:1 or mps. Choose cpu if the memory of the GPU does not
        suffice.
    precision
        Number type of the computation: ``float32``, or ``float64`` at twice the memory. Choose
        ``float64`` only to verify a result.
    seed
        Random seed of the split into photons to deconvolve and photons held out, for automatic
        iterations, and of the halves of consensus. Change it to see what depends on the split.
    """

    iterations: Annotated[int | Literal["auto"], {"min": 1, "max": 100_000}] = "auto"
    max_iterations: Annotated[int, {"min": 2, "max": 10_000, "label": "Most iterations"}] = 100
    tv: Annotated[float, {"min": 0.0, "max": 0.1, "label": "Total variation"}] = 0.0
    consensus: Annotated[bool, {"label": "Gradient consensus"}] = False
    back_projector: BackProjector = "matched"
    alpha: Annotated[float, {"min": 1e-6, "max": 10.0, "label": "Wiener parameter"}] = 0.05
    beta: Annotated[
        float | None, {"min": 1e-6, "max": 1.0, "label": "Butterworth gain", "none": "of the OTF"}
    ] = None
    order: Annotated[int, {"min": 1, "max": 30, "label": "Butterworth order"}] = 10
    resolution_um: Annotated[tuple[float, float, float] | None, {"none": "PSF"}] = None
    acceleration: Annotated[
        Literal["auto", "biggs-andrews", "none"], {"words": {"biggs-andrews": "Biggs-Andrews"}}
    ] = "auto"
    start: Start = "flat"
    border: Border = "extended"
    background: Level = "auto"
    offset: Offset = "auto"
    gain: Gain = "auto"
    repair_image: RepairImage = True
    negatives: Negatives = "keep"
    tolerance: Annotated[float, {"min": 0.0, "max": 1.0, "label": "Least change"}] = 0.0
    report_every: Annotated[int, {"min": 1, "max": 1000, "label": "Iterations per report"}] = 1
    device: str = "auto"
    precision: Annotated[Literal["float32", "float64"], {"words": NUMBER_TYPES}] = "float32"
    seed: Annotated[int, {"min": 0, "label": "Random seed"}] = 0

    def __post_init__(self) -> None:
        check_limits(self)
        if self.resolution_um is not None and not all(r > 0 for r in self.resolution_um):
            raise RlnError(f"`resolution_um` is {self.resolution_um}; give three positive lengths.")
        if self.consensus and self.back_projector != "matched":
            raise RlnError(
                "`consensus` is for the matched back projector; choose that "
                "(`back_projector=matched`), or leave `consensus` out."
            )
        if self.consensus and self.acceleration == "biggs-andrews":
            raise RlnError(
                "`consensus` is not accelerated, as an extrapolation would change the voxels that "
                "it leaves; set `acceleration` to auto or none."
            )

    @property
    def accelerated(self) -> bool:
        """Whether successive estimates are extrapolated."""
        if self.acceleration == "auto":
            return self.back_projector == "matched" and not self.consensus
        return self.acceleration == "biggs-andrews"


def memory_bytes(
    image_shape: Shape, psf_shape: Shape, settings: RichardsonLucySettings, views: int = 1
) -> int:
    """Return the memory of a deconvolution beside image and result, in bytes."""
    unmatched = settings.back_projector != "matched"
    volumes = 4 * (views - 1) + (7 if settings.accelerated or unmatched else 5) + unmatched
    volumes += 10 * (settings.tv > 0) + 4 * settings.consensus
    size = {"float32": 4, "float64": 8}[settings.precision]
    work = math.prod(padded_shape(image_shape, psf_shape, settings.border))
    # The image in photons is another volume.
    return size * (volumes * work + 2 * math.prod(image_shape))


def check_consensus(settings: RichardsonLucySettings, view: PreparedView) -> None:
    """Raise if photons are to be split but the image has none, see :class:`.Camera`."""
    if settings.consensus and not view.calibration.camera.counts_photons:
        raise RlnError(
            f"`consensus` splits the photons of an image, and {view.image.name} shows no photon "
            "noise to count them by; set its `gain`, or leave `consensus` out."
        )


def check_pair(image: Volume, psf: Volume, negatives: Negatives = "keep") -> Volume:
    """Return :func:`check_image` of an image whose PSF fits, see :func:`check_psf_fits`."""
    check_psf_fits(image, psf)
    return check_image(image, negatives)


def check_psf_fits(image: OnGrid, psf: Volume) -> None:
    """Raise unless a PSF is usable and matches the grid of an image; values are not read."""
    check_psf(psf)
    if not on_one_grid(psf, image):
        raise RlnError(
            f"the PSF's voxels are {psf.voxel_um} um but the image's are {image.voxel_um} um "
            "(z, y, x); resample the PSF (`napari-rln psf repair`)."
        )
    if image.shape[0] == 1 < psf.shape[0]:
        raise RlnError(
            f"the image is a single plane but the PSF has {psf.shape[0]} planes; use a PSF of one "
            "plane (its middle one) for a 2D image, or a stack of planes."
        )


def check_image(image: Volume, negatives: Negatives = "keep") -> Volume:
    """Return a validated image for deconvolution: unchanged, or clipped on request.

    Raises
    ------
    RlnError
        If it has negative voxels and these are an error, or all voxels are equal.
    """
    data = without_negatives(image.data, negatives, image.name)
    if not data.max() > data.min():
        raise RlnError(
            f"all voxels of {image.name} are {float(data.max()):g}; there is nothing to deconvolve."
        )
    return image if data is image.data else image.with_data(data)


def without_negatives(data: FloatArray, negatives: Negatives, name: str) -> FloatArray:
    """Return an image, or a part of one, with its negative voxels kept or clipped.

    Raises
    ------
    RlnError
        If there are negative voxels and these are an error.
    """
    lowest = float(data.min())
    if lowest >= 0 or negatives == "keep":
        return data
    if negatives == "error":
        raise RlnError(
            f"{name} has {int((data < 0).sum())} negative voxels (lowest {lowest:g}); keep them "
            "(`negatives=keep`), or set them to 0 (`negatives=clip`)."
        )
    return data.clip(0)


def start_iteration(
    views: Sequence[PreparedView],
    settings: RichardsonLucySettings,
    device: torch.device,
    *,
    momenta: Sequence[float] | None = None,
    flat: float | None = None,
    marks: Collection[int] = (),
) -> RichardsonLucyIteration:
    """Return the iteration, in photons, before its first step.

    The views are images of one shape in one unit. ``momenta`` are the acceleration factors of
    another run, one per iteration; they are computed from the images when none. ``flat`` is the
    value of a flat estimate, image units; the image's mean minus background when none. The
    estimates after ``marks`` iterations are kept.
    """
    for view in views:
        check_consensus(settings, view)
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
        marks=marks,
    )


def _view(
    view: PreparedView,
    kernel: FloatArray,
    unit: float,
    settings: RichardsonLucySettings,
    device: torch.device,
) -> View:
    """Return a view in photons of ``unit`` image units, with its forward model."""
    dtype = _DTYPES[settings.precision]
    blur = Convolution(kernel, view.image.shape, border=settings.border, device=device, dtype=dtype)
    transfer = None
    if settings.back_projector != "matched":
        resolution, voxel_um = settings.resolution_um, (view.psf or view.image).voxel_um
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
    calibration = replace(view.calibration, camera=view.calibration.camera.in_units_of(unit))
    photons = calibration.camera.photons(view.image.data)
    consensus = None
    if settings.consensus:
        consensus = GradientConsensus(
            blur, photons, spectrum=calibration.spectrum, seed=settings.seed, origin=view.origin
        )
    return View(
        blur=blur,
        image=torch.from_numpy(photons).to(device, dtype),
        background=calibration.background_photons,
        transfer=transfer,
        mask=None if view.mask is None else torch.from_numpy(view.mask).to(device),
        held_out=view.held_out,
        consensus=consensus,
    )
