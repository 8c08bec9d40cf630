"""Check of a result against its image, without ground truth.

Blurred again, a result must equal the image to within its noise. Where it does not, structure was
lost or invented. This holds for every method, and matters most for networks.
"""

import time
from collections.abc import Generator
from dataclasses import dataclass

from napari_rln.core.device import check_memory, resolve_device
from napari_rln.core.errors import RlnError
from napari_rln.core.generators import finish
from napari_rln.core.record import Record
from napari_rln.core.report import Report
from napari_rln.core.volume import FloatArray, Mask, Volume, check_on_grid
from napari_rln.deconvolution import settings as rld
from napari_rln.deconvolution.calibration import (
    Calibration,
    UserCalibration,
    calibrate,
    prepare_image,
)
from napari_rln.deconvolution.outside_light import MOST, OutsideLight
from napari_rln.deconvolution.prepared_view import PreparedView
from napari_rln.deconvolution.residual import facts_of, residual_of
from napari_rln.deconvolution.settings import RichardsonLucySettings, check_pair, memory_bytes
from napari_rln.deconvolution.shared import Shared

_ADVICE = "crop the PSF (psf repair), check a part of the image, or use another device."


@dataclass(frozen=True, kw_only=True, eq=False)
class CheckResult:
    """Agreement of a result with its image.

    Attributes
    ----------
    chi2
        Reduced chi squared between the blurred result, without a fit, and the image: 1 if they
        agree to within the noise, more if structure was lost or invented, less if noise was fitted.
    flux_ratio
        Flux of the blurred result plus that of light from outside the field of view, divided by
        the flux of the image above its background; ideally 1.
    scale
        Factor on the blurred result that fits the image best; 1 for a result of the right
        brightness.
    residual
        (Z, Y, X), image minus blurred result in standard deviations of the noise: positive where
        the result lacks light, negative where it has too much.
    """

    chi2: float
    flux_ratio: float
    scale: float
    residual: Volume


def check(
    image: Volume,
    result: Volume,
    psf: Volume,
    *,
    background: float | None = None,
    device: str = "auto",
) -> CheckResult:
    """Return the agreement of a result with its image; see :func:`check_iter`."""
    return finish(check_iter(image, result, psf, background=background, device=device))


def check_iter(
    image: Volume,
    result: Volume,
    psf: Volume,
    *,
    background: float | None = None,
    device: str = "auto",
) -> Generator[Report, None, CheckResult]:
    """Yield reports, return the agreement of a result of any method with its image.

    A Richardson-Lucy deconvolution estimates the light from outside the field of view.

    Parameters
    ----------
    image
        (Z, Y, X), non-negative.
    result
        On the image's grid and in its unit, background removed.
    psf
        On the image's voxels, sum 1.
    background
        Background in image units. None: that of the result's record, or else estimated from the
        image.
    device
        Device: auto, cpu, cuda, cuda:1, mps.

    Raises
    ------
    RlnError
        If grids or units of the three do not match, the image has no noise, or memory is
        insufficient.
    """
    check_pair(image, psf)
    check_on_grid(result, image)
    if not result.data.max() > 0:
        raise RlnError(f"{result.name} has no positive value; check that it is a result.")
    if background is None and result.record is not None:
        background = result.record.facts.get("background")
    known = UserCalibration(background="auto" if background is None else background)
    calibration = calibrate(image, known)
    clean, mask, _ = prepare_image(image, psf, calibration)
    outside = yield from outside_light_iter(clean, psf, calibration, device, mask=mask)
    measured = residual_of(clean, result.data, psf, calibration, outside=outside, mask=mask)
    if measured is None:
        raise RlnError(
            f"{image.name} has no noise to compare the residual with: it was smoothed, or "
            "simulated without noise. Give the image as acquired."
        )
    record = Record(
        method="check",
        facts=calibration.facts() | facts_of(measured),
        inputs={"image": image.hash, "result": result.hash, "psf": psf.hash},
    )
    return CheckResult(
        chi2=measured.chi2,
        flux_ratio=measured.flux_ratio,
        scale=measured.scale,
        residual=image.with_data(measured.map, name=f"{result.name} · residual", record=record),
    )


def outside_light_iter(
    image: Volume,
    psf: Volume,
    calibration: Calibration,
    device: str = "auto",
    *,
    mask: Mask | None = None,
    shared: Shared | None = None,
) -> Generator[Report, None, FloatArray]:
    """Yield reports, return the light (Z, Y, X) in an image from outside its field of view.

    In image units, estimated by a Richardson-Lucy deconvolution (see
    :mod:`napari_rln.deconvolution.outside_light`), or taken from the results that methods share.
    Raise an RlnError if the memory of the device is insufficient.
    """
    known = None if shared is None else shared.outside(image, psf, calibration)
    if known is not None:
        return known
    settings, where = RichardsonLucySettings(), resolve_device(device)
    check_memory(memory_bytes(image.shape, psf.shape, settings), where, _ADVICE)
    started = time.perf_counter()
    view = PreparedView(image=image, psf=psf, calibration=calibration, mask=mask)
    run = rld.start_iteration([view], settings, where)
    outside = OutsideLight(image, calibration)
    for done in range(1, MOST + 1):
        change = run.step()
        yield Report(
            phase="deconvolve",
            done=done,
            total=MOST,
            relative_change=change,
            seconds=time.perf_counter() - started,
            snapshot=run.estimate,
        )
        if outside.update(run):
            break
    return outside.light
