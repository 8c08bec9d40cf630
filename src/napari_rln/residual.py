"""How good a result is where no truth is known: it must explain the image within its noise."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.signal import fftconvolve

from napari_rln.calibration import Camera
from napari_rln.errors import RlnError
from napari_rln.metrics import Array, Float64, affine_fit, pair

INSIDE_SHARE = 0.99
"""A voxel's blur counts as seen whole if this share of the PSF lies inside the field."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Residual:
    """What the blurred result leaves unexplained of the image.

    Attributes
    ----------
    chi2
        Reduced chi squared: 1 if the image is explained to within its noise, more if structure is
        missing or invented, less if noise was fitted.
    scale, offset
        Of the fit of the blurred result to the image.
    map
        (Z, Y, X) float32, image minus blurred result in standard deviations of the noise; 0 where
        that cannot be told.
    inside
        (Z, Y, X) bool, what chi2 was evaluated of.
    """

    chi2: float
    scale: float
    offset: float
    map: npt.NDArray[np.float32]
    inside: npt.NDArray[np.bool_]


def reconvolution_residual(
    image: Array,
    result: Array,
    psf: Array,
    camera: Camera,
    *,
    outside: Array | None = None,
) -> Residual:
    """Return how well the result, blurred by the PSF, explains the image, in units of its noise.

    The variance of the image is that of its photons and the camera, at the mean from the
    fitted model itself, and no less than 5 % of its average. Only voxels with at least 99 % of the
    PSF inside the field are evaluated; if they are fewer than a tenth of the volume, as with a PSF
    as large as the image, all voxels are. What lies outside is dark unless it is given.

    Parameters
    ----------
    image, result
        (Z, Y, X), one shape; the image in counts.
    psf
        (Z, Y, X), non-negative, centre on voxel ``n // 2``; any sum.
    camera
        How its values come of photons.
    outside
        (Z, Y, X), light in the image from beyond the field of view, in counts; with it the map
        covers all voxels.

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
    x, y = pair(result, image)
    blurred, share = _blur(x, psf), _blur(np.ones_like(x), psf)
    beyond: Float64 | float = 0.0 if outside is None else np.asarray(outside, np.float64)
    inside = share >= INSIDE_SHARE
    if inside.mean() < 0.1:
        inside = np.ones_like(inside)
    elif outside is None:
        blurred = blurred / np.maximum(share, 1 - INSIDE_SHARE)
    scale, offset = affine_fit(blurred[inside], (y - beyond)[inside])
    model = scale * blurred + offset + beyond
    variance = camera.gain * (model - camera.zero)
    average = float(variance[inside].mean())
    if not average > 0:
        raise RlnError(
            f"a gain of {camera.gain:g} and an offset of {camera.offset:g} leave the image no "
            "photons; give others (--offset, --gain), or auto."
        )
    # The floor keeps a few voxels that the line calls noiseless from ruling the sum.
    variance = np.maximum(variance, 0.05 * average)
    residual = (y - model) / np.sqrt(variance)
    if outside is None:
        residual[~inside] = 0
    freedom = max(int(inside.sum()) - 2, 1)
    return Residual(
        chi2=float(np.square(residual[inside]).sum()) / freedom,
        scale=scale,
        offset=offset,
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
