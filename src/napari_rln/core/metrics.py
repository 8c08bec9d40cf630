"""Metrics of a result against ground truth: PSNR, NRMSE, SSIM and Pearson's correlation.

All functions take plain arrays, compute in float64, and raise an RlnError if the shapes differ.
:mod:`napari_rln.evaluate.fourier_shell` measures up to which frequency the two agree, and
:mod:`napari_rln.deconvolution.residual` how well a result explains its image without ground truth.

Deconvolution leaves the absolute scale of a result partly undetermined (networks lose it), so
results are compared after a least-squares fit of scale and offset to the ground truth; it is the
default wherever a function has ``fit``, except for the PSNR, where both are customary.
"""

import numpy as np
from skimage.metrics import structural_similarity

from napari_rln.core.errors import RlnError
from napari_rln.core.volume import Array, Float64Array

SSIM_SIGMA = 1.5
"""Standard deviation of the SSIM's Gaussian window in voxels (Wang et al., IEEE TIP 13, 2004)."""

SSIM_WINDOW = 11
"""Side of that window in voxels, truncated at 3.5 standard deviations."""


def affine_fit(result: Array, truth: Array) -> tuple[float, float]:
    """Return the least-squares scale and offset of a result to the ground truth.

    They minimise ``||scale * result + offset - truth||``; for a flat result the scale is 0 and the
    offset is the mean of the truth.
    """
    x, g = fitted_pair(result, truth)
    x_mean, g_mean = float(x.mean()), float(g.mean())
    centred = x - x_mean
    power = float(np.vdot(centred, centred))
    scale = float(np.vdot(centred, g)) / power if power > 0 else 0.0
    return scale, g_mean - scale * x_mean


def fitted(result: Array, truth: Array) -> Float64Array:
    """Return the result after the scale and offset of :func:`affine_fit`, float64."""
    scale, offset = affine_fit(result, truth)
    return scale * np.asarray(result, np.float64) + offset


def psnr(
    result: Array, truth: Array, *, fit: bool = False, data_range: float | None = None
) -> float:
    """Return the peak signal-to-noise ratio in dB: ``20 log10(range / rms error)``.

    Infinite if the two are equal. The range is the truth's maximum minus its minimum if None. Raise
    an RlnError if the truth is flat.
    """
    x, g = fitted_pair(result, truth, fit=fit)
    rms = float(np.sqrt(np.mean((x - g) ** 2)))
    peak = _range(g, data_range)
    return 20 * float(np.log10(peak / rms)) if rms > 0 else float("inf")


def nrmse(result: Array, truth: Array, *, fit: bool = True) -> float:
    """Return ``||scale * result + offset - truth|| / ||truth||``.

    Without ``fit`` the scale is 1 and the offset 0. Raise an RlnError if the truth is zero
    everywhere.
    """
    x, g = fitted_pair(result, truth, fit=fit)
    norm = float(np.linalg.norm(g))
    if norm == 0:
        raise RlnError("the ground truth is zero everywhere; choose a region with structure.")
    return float(np.linalg.norm(x - g)) / norm


def ssim(
    result: Array, truth: Array, *, fit: bool = True, data_range: float | None = None
) -> float:
    """Return the mean structural similarity, with a Gaussian window of sigma 1.5 voxels.

    Of (Z, Y, X) or (Y, X); of volumes with fewer planes than the window (11), the mean over planes.
    The range of values is the truth's maximum minus its minimum if None. Raise an RlnError if the
    truth is flat, or a plane is smaller than the window.
    """
    x, g = fitted_pair(result, truth, fit=fit)
    peak = _range(g, data_range)
    if min(g.shape[-2:]) < SSIM_WINDOW:
        raise RlnError(
            f"SSIM needs planes of at least {SSIM_WINDOW} x {SSIM_WINDOW} voxels but these are "
            f"{g.shape[-2]} x {g.shape[-1]}; compare a larger region."
        )
    pairs = zip(x, g, strict=True) if g.ndim == 3 and len(g) < SSIM_WINDOW else [(x, g)]
    scores = [
        structural_similarity(  # type: ignore[no-untyped-call]
            a,
            b,
            data_range=peak,
            gaussian_weights=True,
            sigma=SSIM_SIGMA,
            use_sample_covariance=False,
        )
        for a, b in pairs
    ]
    return float(np.mean(scores))


def pearson(result: Array, truth: Array) -> float:
    """Return Pearson's correlation coefficient, free of scale and offset; 0 if one is flat."""
    x, g = fitted_pair(result, truth)
    x, g = x - x.mean(), g - g.mean()
    norm = float(np.linalg.norm(x)) * float(np.linalg.norm(g))
    return float(np.vdot(x, g)) / norm if norm > 0 else 0.0


def fitted_pair(
    result: Array, truth: Array, *, fit: bool = False
) -> tuple[Float64Array, Float64Array]:
    """Return both as float64, the first fitted to the second if ``fit``; check their shapes."""
    if result.shape != truth.shape:
        raise RlnError(
            f"the result is {result.shape} but the ground truth {truth.shape}; crop or resample "
            "one of them to the shape of the other."
        )
    g = np.asarray(truth, np.float64)
    return (fitted(result, g) if fit else np.asarray(result, np.float64)), g


def _range(truth: Float64Array, data_range: float | None) -> float:
    """Return the range of values that a score refers to."""
    peak = float(np.ptp(truth)) if data_range is None else data_range
    if peak <= 0:
        raise RlnError("the ground truth is flat; choose a region with structure.")
    return peak
