"""How good a result is where no truth is known: it must explain the image within its noise."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.signal import fftconvolve

from napari_rln.core.errors import RlnError
from napari_rln.core.metrics import Array, Float64, pair
from napari_rln.core.volume import FloatArray, Volume
from napari_rln.deconvolution.calibration import Calibration, Mask

INSIDE_SHARE = 0.99
"""A voxel's blur counts as seen whole if this share of the PSF lies inside the field."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Residual:
    """What the blurred result leaves unexplained of the image.

    Attributes
    ----------
    chi2
        Reduced chi squared of the result as it is, in the image's units: 1 if the image is
        explained to within its noise, more if structure is missing or invented or the brightness
        is another, less if noise was fitted.
    scale
        Factor on the blurred result by which it fits the image best.
    flux_ratio
        Light of the blurred result, and of what comes from outside, over light of the image.
    map
        (Z, Y, X) float32, image minus blurred result in standard deviations of the noise; 0 where
        that cannot be told.
    inside
        (Z, Y, X) bool, what all of it was evaluated of.
    """

    chi2: float
    scale: float
    flux_ratio: float
    map: npt.NDArray[np.float32]
    inside: npt.NDArray[np.bool_]


def reconvolution_residual(
    image: Array,
    result: Array,
    psf: Array,
    calibration: Calibration,
    *,
    outside: Array | None = None,
    seen: npt.NDArray[np.bool_] | None = None,
) -> Residual:
    """Return how well the result, blurred by the PSF, explains the image, in units of its noise.

    The variance of the image is that of its photons, with the mean from the model itself, and no
    less than 5 % of its average. Only voxels with at least 99 % of the PSF inside the field are
    evaluated; if they are fewer than a tenth of the volume, as with a PSF as large as the image,
    all voxels are. What lies outside is dark unless it is given.

    Parameters
    ----------
    image, result
        (Z, Y, X), one shape, image units; the result without background.
    psf
        (Z, Y, X), non-negative, centre on voxel ``n // 2``; any sum.
    calibration
        Of the image: camera, background, and how its noise was averaged by an interpolation.
    outside
        (Z, Y, X), light in the image from beyond the field of view, image units; with it the map
        covers all voxels.
    seen
        (Z, Y, X) bool, voxels that are measurements; all when none.

    Raises
    ------
    RlnError
        If the shapes differ or the image has no photons by that camera.
    """
    if outside is not None and outside.shape != image.shape:
        raise RlnError(
            f"the light from outside is {outside.shape} but the image {image.shape}; both are of "
            "the field of view."
        )
    camera = calibration.camera
    x, y = pair(result, image)
    y = y - calibration.background
    blurred, share = _blur(x, psf), _blur(np.ones_like(x), psf)
    beyond: Float64 | float = 0.0 if outside is None else np.asarray(outside, np.float64)
    inside = share >= INSIDE_SHARE
    if inside.mean() < 0.1:
        inside = np.ones_like(inside)
    elif outside is None:
        blurred = blurred / np.maximum(share, 1 - INSIDE_SHARE)
    if seen is not None:
        inside &= seen
    model = blurred + beyond
    per_value = camera.gain * calibration.spectrum.share
    variance = per_value * (model + calibration.background - camera.zero)
    average = float(variance[inside].mean()) if inside.any() else 0.0
    if not average > 0:
        raise RlnError(
            f"a gain of {camera.gain:g} and an offset of {camera.offset:g} leave the image no "
            "photons; give others (`offset`, `gain`), or auto."
        )
    # The floor keeps a few voxels that have no noise by the camera from ruling the sum.
    variance = np.maximum(variance, 0.05 * average)
    residual = (y - model) / np.sqrt(variance)
    if outside is None:
        residual[~inside] = 0
    elif seen is not None:
        residual[~seen] = 0
    weight = 1 / variance[inside]
    own, wanted = blurred[inside], (y - beyond)[inside]
    power = float(np.vdot(weight * own, own))
    light = float(y[inside].sum())
    return Residual(
        chi2=float(np.square(residual[inside]).mean()),
        scale=float(np.vdot(weight * own, wanted)) / power if power > 0 else float("nan"),
        flux_ratio=float(model[inside].sum()) / light if light > 0 else float("nan"),
        map=residual.astype(np.float32),
        inside=inside,
    )


def _blur(volume: Float64, psf: Array) -> Float64:
    """Return a volume in the dark, blurred."""
    # scipy centres an even kernel half a voxel away from n // 2; a trailing zero makes it odd.
    kernel = np.pad(np.asarray(psf, np.float64), [(0, 1 - n % 2) for n in psf.shape])
    # Not mode="same", which keeps the size of whichever is larger.
    full = fftconvolve(volume, kernel / kernel.sum(), mode="full")
    middle: Float64 = full[
        tuple(slice(k // 2, k // 2 + n) for n, k in zip(volume.shape, kernel.shape, strict=True))
    ]
    return middle


def explained(
    image: Volume,
    data: FloatArray,
    psf: Volume,
    calibration: Calibration,
    *,
    outside: FloatArray | None = None,
    seen: Mask | None = None,
) -> Residual | None:
    """Return how far a result explains an image; none where there is no noise to tell by.

    Parameters
    ----------
    image
        (Z, Y, X), as it is deconvolved.
    data
        (Z, Y, X), the result, image units, background removed.
    psf
        On the image's voxels, sum 1.
    calibration
        Of the image.
    outside
        (Z, Y, X), light in the image from beyond the field of view, image units; dark when none.
    seen
        (Z, Y, X) bool, voxels that are measurements; all when none.
    """
    if not calibration.camera.counts_photons:
        return None
    try:
        return reconvolution_residual(
            image.data,
            data,
            psf.data,
            calibration,
            outside=outside,
            seen=seen,
        )
    except RlnError:  # no photons are left: the result is there all the same
        return None


def facts_of(found: Residual | None) -> dict[str, Any]:
    """Return what a record says of a result's explanation of its image."""
    if found is None:
        return {}
    return {"chi2": found.chi2, "reblur_scale": found.scale, "flux_ratio": found.flux_ratio}
