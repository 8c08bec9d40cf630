"""Whether a result can be trusted: it must explain the image, no more and no less.

Blurred again, a result is to be the image to within its noise. Where it is not, it lost something
or invented it. That holds for any method, a network's result most of all.
"""

from collections.abc import Generator
from dataclasses import dataclass

import numpy as np

from napari_rln.calibration import Calibration, Given, calibrate
from napari_rln.device import check_memory, resolve_device
from napari_rln.errors import RlnError
from napari_rln.record import Record
from napari_rln.residual import reconvolution_residual
from napari_rln.rld import RldReport, check_pair, memory_bytes
from napari_rln.start import StartSettings, first_estimate
from napari_rln.steps import finish
from napari_rln.volume import FloatArray, Volume

_ITERATIONS = 20  # of the classical deconvolution that finds the light from outside the field
_ADVICE = "crop the PSF (psf repair), check a part of the image, or use another device."


@dataclass(frozen=True, kw_only=True, eq=False)
class Trust:
    """How far a result explains the image that it is of.

    Attributes
    ----------
    chi2
        Reduced chi squared of the blurred result against the image: 1 if they agree to within the
        image's noise, more if something was lost or invented, less if noise was fitted.
    flux_ratio
        Light of the result over light of the image after its background. More than 1 is right
        where light left through the sides of the stack, as in widefield.
    scale
        Of the fit of the blurred result to the image: 1 for a result in the image's units.
    residual
        (Z, Y, X), image less blurred result in standard deviations of the noise: above 0 where the
        result lacks something, below where it has too much.
    """

    chi2: float
    flux_ratio: float
    scale: float
    residual: Volume


def check_result(
    image: Volume,
    result: Volume,
    psf: Volume,
    *,
    background: float | None = None,
    device: str = "auto",
) -> Trust:
    """Return how far a result explains the image; the last word of :func:`check_steps`."""
    return finish(check_steps(image, result, psf, background=background, device=device))


def check_steps(
    image: Volume,
    result: Volume,
    psf: Volume,
    *,
    background: float | None = None,
    device: str = "auto",
) -> Generator[RldReport, None, Trust]:
    """Yield reports, return how far a result, of whatever method, explains the image.

    The light that comes into the image from beyond its sides is found by a short Richardson-Lucy
    deconvolution.

    Parameters
    ----------
    image
        (Z, Y, X), non-negative.
    result
        On the image's grid, background removed, in units proportional to the image's.
    psf
        On the image's voxels, sum 1.
    background
        Image units; what the result's record says when none, else as found in the image.
    device
        Where to compute.

    Raises
    ------
    RlnError
        If the three do not go together, the image has no noise to measure by, or the memory is
        not enough.
    """
    check_pair(image, psf)
    if result.shape != image.shape:
        raise RlnError(
            f"{result.name} is {result.shape} but the image {image.name} is {image.shape}; crop or "
            "resample it to the image's shape."
        )
    if background is None and result.record is not None:
        background = result.record.facts.get("background")
    calibration = calibrate(image, Given(background="auto" if background is None else background))
    if not calibration.camera.counts_photons:
        raise RlnError(
            f"{image.name} has no noise to measure the residual by: it was smoothed or simulated "
            "without."
        )
    outside = yield from outside_steps(image, psf, calibration, device)
    found = reconvolution_residual(
        image.data, result.data, psf.data, calibration.camera, outside=outside
    )
    flux = float(image.data.sum(dtype=np.float64)) - calibration.background * image.data.size
    record = Record(
        method="check",
        facts=calibration.facts() | {"chi2": found.chi2},
        inputs={"image": image.hash, "result": result.hash, "psf": psf.hash},
    )
    return Trust(
        chi2=found.chi2,
        flux_ratio=float(result.data.sum(dtype=np.float64)) / flux if flux > 0 else float("nan"),
        scale=found.scale,
        residual=image.with_data(found.map, name=f"{result.name} · residual", record=record),
    )


def outside_steps(
    image: Volume, psf: Volume, calibration: Calibration, device: str = "auto"
) -> Generator[RldReport, None, FloatArray | None]:
    """Return the light (Z, Y, X) in an image from beyond its field of view, image units.

    Raises
    ------
    RlnError
        If the device has not the memory for it.
    """
    settings, where = StartSettings(iterations=_ITERATIONS), resolve_device(device)
    check_memory(memory_bytes(image.shape, psf.shape, settings.rld()), where, _ADVICE)
    return (yield from first_estimate(image, psf, calibration, settings, where)).outside
