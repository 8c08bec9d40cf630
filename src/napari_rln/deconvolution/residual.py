"""Reconvolution residual: agreement of a result with the image within its noise."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.signal import fftconvolve

from napari_rln.core.errors import RlnError
from napari_rln.core.metrics import fitted_pair
from napari_rln.core.volume import Array, Float64Array, FloatArray, Mask, Volume
from napari_rln.deconvolution.calibration import Calibration

INSIDE_FRACTION = 0.99
"""Least fraction of the PSF inside the field of view for a voxel to be evaluated."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Residual:
    """Difference of the image from the blurred result, relative to the noise.

    Attributes
    ----------
    chi2
        Reduced chi squared of the unscaled result: 1 if the image is explained to within its
        noise, more if structure is missing or invented or the brightness differs, less if noise
        was fitted.
    scale
        Factor on the blurred result for the best fit to the image.
    flux_ratio
        Light of the blurred result, plus that from outside, over light of the image.
    map
        (Z, Y, X) float32, image minus blurred result in standard deviations of the noise; 0 where
        unknown.
    inside
        (Z, Y, X) bool, evaluated voxels.
    """

    chi2: float
    scale: float
    flux_ratio: float
    map: FloatArray
    inside: Mask


def reconvolution_residual(
    image: Array,
    result: Array,
    psf: Array,
    calibration: Calibration,
    *,
    outside: Array | None = None,
    mask: Mask | None = None,
) -> Residual:
    """Return the residual of the image and the result blurred by the PSF, relative to the noise.

    The variance is that of the photons of the blurred result, and at least 5 % of its average.
    Only voxels with at least 99 % of the PSF inside the field of view are evaluated; if they are
    fewer than a tenth of the volume, as with a PSF as large as the image, all voxels are. The
    object is dark outside the field of view unless ``outside`` is set.

    Parameters
    ----------
    image, result
        (Z, Y, X), one shape, image units; the result without background.
    psf
        (Z, Y, X), non-negative, centre on voxel ``n // 2``; any sum.
    calibration
        Camera, background and noise correlation of the image.
    outside
        (Z, Y, X), light in the image from beyond the field of view, image units; with it the map
        covers all voxels.
    mask
        (Z, Y, X) bool, measured voxels; all when none.

    Raises
    ------
    RlnError
        If the shapes differ, or the image has no photons by the calibration.
    """
    if outside is not None and outside.shape != image.shape:
        raise RlnError(
            f"the shape of the light from outside is {outside.shape} but that of the image is "
            f"{image.shape}; give both in the field of view."
        )
    camera = calibration.camera
    x, y = fitted_pair(result, image)
    y = y - calibration.background
    kernel = np.asarray(psf, np.float64)
    kernel = kernel / kernel.sum()
    blurred, fraction = _blur(x, kernel), _fraction_inside(kernel, x.shape)
    beyond: Float64Array | float = 0.0 if outside is None else np.asarray(outside, np.float64)
    inside = fraction >= INSIDE_FRACTION
    if inside.mean() < 0.1:
        inside = np.ones_like(inside)
    elif outside is None:
        blurred = blurred / np.maximum(fraction, 1 - INSIDE_FRACTION)
    if mask is not None:
        inside &= mask
    model = blurred + beyond
    per_value = camera.gain * calibration.spectrum.variance_ratio
    variance = per_value * (model + calibration.background - camera.zero)
    average = float(variance[inside].mean()) if inside.any() else 0.0
    if not average > 0:
        raise RlnError(
            f"the image has no photons with a gain of {camera.gain:g} and an offset of "
            f"{camera.offset:g}; set others (`offset`, `gain`), or auto."
        )
    # The floor keeps a few voxels of almost no variance from dominating the sum.
    variance = np.maximum(variance, 0.05 * average)
    residual = (y - model) / np.sqrt(variance)
    if outside is None:
        residual[~inside] = 0
    elif mask is not None:
        residual[~mask] = 0
    weight = 1 / variance[inside]
    own, target = blurred[inside], (y - beyond)[inside]
    power = float(np.vdot(weight * own, own))
    light = float(y[inside].sum())
    return Residual(
        chi2=float(np.square(residual[inside]).mean()),
        scale=float(np.vdot(weight * own, target)) / power if power > 0 else float("nan"),
        flux_ratio=float(model[inside].sum()) / light if light > 0 else float("nan"),
        map=residual.astype(np.float32),
        inside=inside,
    )


def _blur(volume: Float64Array, kernel: Float64Array) -> Float64Array:
    """Return a volume blurred, with 0 outside, to 3e-7 of its maximum."""
    # scipy centres an even kernel half a voxel away from n // 2; a trailing zero makes it odd.
    kernel = np.pad(kernel, [(0, 1 - n % 2) for n in kernel.shape])
    # Single precision takes less than half the time. Not mode="same", whose size is that of the
    # larger array.
    full = fftconvolve(volume.astype(np.float32), kernel.astype(np.float32), mode="full")
    middle: Float64Array = full[
        tuple(slice(k // 2, k // 2 + n) for n, k in zip(volume.shape, kernel.shape, strict=True))
    ].astype(np.float64)
    return middle


def _fraction_inside(kernel: Float64Array, shape: tuple[int, ...]) -> Float64Array:
    """Return a volume of ones blurred: per voxel, the sum of the kernel inside the volume."""
    sums = kernel
    for axis, n in enumerate(shape):
        k = kernel.shape[axis]
        below = np.pad(sums.cumsum(axis), [(int(a == axis), 0) for a in range(sums.ndim)])
        last = np.arange(n) + k // 2  # of the kernel's voxels at the lower edge of the volume
        end, start = np.clip(last + 1, 0, k), np.clip(last + 1 - n, 0, k)
        sums = below.take(end, axis) - below.take(start, axis)
    return sums


def residual_of(
    image: Volume,
    data: FloatArray,
    psf: Volume,
    calibration: Calibration,
    *,
    outside: FloatArray | None = None,
    mask: Mask | None = None,
) -> Residual | None:
    """Return :func:`reconvolution_residual`; none without photon noise.

    Image and mask are prepared for deconvolution; ``data`` is the result, image units, background
    removed.
    """
    if not calibration.camera.counts_photons:
        return None
    try:
        return reconvolution_residual(
            image.data, data, psf.data, calibration, outside=outside, mask=mask
        )
    except RlnError:  # no photons by the calibration, which does not invalidate the result
        return None


def facts_of(residual: Residual | None) -> dict[str, Any]:
    """Return a residual for a record; empty when none."""
    if residual is None:
        return {}
    return {
        "chi2": residual.chi2,
        "reblur_scale": residual.scale,
        "flux_ratio": residual.flux_ratio,
    }
