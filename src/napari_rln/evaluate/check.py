"""Whether a result can be trusted: it must explain the image, no more and no less.

Blurred again, a result is to be the image to within its noise. Where it is not, it lost something
or invented it. That holds for any method, a network's result most of all.
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
from napari_rln.deconvolution.residual import facts_of, residual_of
from napari_rln.deconvolution.settings import RichardsonLucySettings, check_pair, memory_bytes
from napari_rln.deconvolution.shared import Shared

_ADVICE = "crop the PSF (psf repair), check a part of the image, or use another device."


@dataclass(frozen=True, kw_only=True, eq=False)
class Trust:
    """How far a result explains the image that it is of.

    Attributes
    ----------
    chi2
        Reduced chi squared of the blurred result, as it is, against the image: 1 if they agree to
        within the image's noise, more if something was lost or invented, less if noise was fitted.
    flux_ratio
        Light of the blurred result, with that from outside the field of view, over light of the
        image after its background: 1 where all of it is explained.
    scale
        Factor on the blurred result by which it fits the image best: 1 for a result that is as
        bright as the image says.
    residual
        (Z, Y, X), image less blurred result in standard deviations of the noise: above 0 where the
        result lacks something, below where it has too much.
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
) -> Trust:
    """Return how far a result explains the image; the last word of :func:`check_iter`."""
    return finish(check_iter(image, result, psf, background=background, device=device))


def check_iter(
    image: Volume,
    result: Volume,
    psf: Volume,
    *,
    background: float | None = None,
    device: str = "auto",
) -> Generator[Report, None, Trust]:
    """Yield reports, return how far a result, of whatever method, explains the image.

    The light that comes into the image from beyond its sides is found by a Richardson-Lucy
    deconvolution.

    Parameters
    ----------
    image
        (Z, Y, X), non-negative.
    result
        On the image's grid and in its unit, background removed.
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
    check_on_grid(result, image)
    if not result.data.max() > 0:
        raise RlnError(f"{result.name} holds no light; there is nothing to check.")
    if background is None and result.record is not None:
        background = result.record.facts.get("background")
    known = UserCalibration(background="auto" if background is None else background)
    calibration = calibrate(image, known)
    clean, mask, _ = prepare_image(image, psf, calibration)
    outside = yield from outside_light_iter(clean, psf, calibration, device, mask=mask)
    found = residual_of(clean, result.data, psf, calibration, outside=outside, mask=mask)
    if found is None:
        raise RlnError(
            f"{image.name} has no noise to measure the residual by: it was smoothed or simulated "
            "without."
        )
    record = Record(
        method="check",
        facts=calibration.facts() | facts_of(found),
        inputs={"image": image.hash, "result": result.hash, "psf": psf.hash},
    )
    return Trust(
        chi2=found.chi2,
        flux_ratio=found.flux_ratio,
        scale=found.scale,
        residual=image.with_data(found.map, name=f"{result.name} · residual", record=record),
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
    """Return the light (Z, Y, X) in an image from beyond its field of view, image units.

    It is that of a Richardson-Lucy deconvolution; see
    :mod:`napari_rln.deconvolution.outside_light`. Where a method found it already, and left it in
    the shared, that is taken.

    Raises
    ------
    RlnError
        If the device has not the memory for it.
    """
    known = None if shared is None else shared.outside(image, psf, calibration)
    if known is not None:
        return known
    settings, where = RichardsonLucySettings(), resolve_device(device)
    check_memory(memory_bytes(image.shape, psf.shape, settings), where, _ADVICE)
    started = time.perf_counter()
    view = rld.PreparedView(image=image, psf=psf, calibration=calibration, mask=mask)
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
