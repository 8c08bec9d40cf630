"""Back projectors: filters that carry the correction from the image back to the estimate.

The matched one is the adjoint of the blur. The unmatched ones (named as in Guo et al., Nature
Biotechnology 38, 1337, 2020) undo more of the blur per iteration, so that a few iterations replace
tens with the matched one.

``masked-wiener`` is designed after the OTF-masked Wiener back projector of PetaKit5D (Ruan et al.,
Nature Methods 21, 2342, 2024), made for light sheets, whose OTF no ellipsoid resembles: the Wiener
filter times a window on the support of the OTF, see
:func:`napari_rln.deconvolution.otf_support.support_window`. It undoes the blur of all that the
microscope transmits, and hands nothing on of the frequencies beyond, which are noise alone.
"""

import math
from typing import Annotated, Literal

import numpy as np
import numpy.typing as npt
import torch

from napari_rln.core.errors import RlnError
from napari_rln.core.volume import Shape
from napari_rln.deconvolution.convolution import Convolution
from napari_rln.deconvolution.otf_support import support_window
from napari_rln.psf.shape import fwhm_um

BackProjector = Annotated[
    Literal["matched", "gaussian", "butterworth", "wiener", "wiener-butterworth", "masked-wiener"],
    {
        "words": {
            "gaussian": "Gaussian",
            "butterworth": "Butterworth",
            "wiener": "Wiener",
            "wiener-butterworth": "Wiener-Butterworth",
            "masked-wiener": "masked Wiener",
        }
    },
]


def transfer_function(
    name: BackProjector,
    blur: Convolution,
    psf: npt.NDArray[np.floating],
    *,
    alpha: float,
    beta: float | None = None,
    order: int = 10,
    resolution_voxels: tuple[float, float, float] | None = None,
) -> torch.Tensor:
    """Return the transfer function of an unmatched back projector, with gain 1 at frequency 0.

    Parameters
    ----------
    name
        Any but ``"matched"``, which is the adjoint of the blur.
    blur, psf
        Forward model, and its PSF, (z, y, x).
    alpha
        Wiener parameter.
    beta
        Butterworth gain at the cut-off; that of the OTF, averaged over axes, when none. For
        ``"masked-wiener"`` the level of :func:`.otf_support.support_window`.
    order
        Order of the Butterworth filter.
    resolution_voxels
        Resolution limit (z, y, x) in voxels, whose reciprocal is the cut-off; the PSF's full
        width at half maximum when none.

    Returns
    -------
    torch.Tensor
        Of the shape, type and layout of ``blur.otf``, likewise divided by the number of voxels.
    """
    flipped = blur.otf.conj() / blur.otf.abs().max()
    wiener = flipped / (flipped.abs() ** 2 + alpha)
    if name == "wiener":
        result = wiener
    elif name == "masked-wiener":
        result = wiener * support_window(psf, blur.work_shape, beta).to(wiener)
    else:
        limit = resolution_voxels or _resolution(psf)
        squared = _squared_frequencies(blur, limit)
        if name == "gaussian":
            # Fourier transform of a Gaussian of full width d at half maximum, at k cycles per voxel
            result = torch.exp(-(math.pi**2) / (4 * math.log(2)) * squared).to(wiener)
        else:
            gain = _gain_at_cut_off(flipped, blur.work_shape, limit)
            if beta is None:
                beta = gain
            at_cut_off = gain / (gain**2 + alpha) if name == "wiener-butterworth" else 1.0
            # As in the published code: beta_w / beta^2 - 1, and 1 / beta^2 - 1 without Wiener.
            steepness = at_cut_off / beta**2 - 1
            butterworth = torch.rsqrt(1 + steepness * squared**order)
            result = wiener * butterworth if name == "wiener-butterworth" else butterworth + 0j
    count = math.prod(blur.work_shape)
    return torch.empty_like(blur.otf).copy_(result / (result[0, 0, 0].abs() * count))


def _squared_frequencies(blur: Convolution, limit: tuple[float, float, float]) -> torch.Tensor:
    """Return the squared distances of frequencies from 0, in units of the cut-off 1 / d."""
    frequencies: list[torch.Tensor] = [
        (torch.fft.rfftfreq if axis == 2 else torch.fft.fftfreq)(n, device=blur.device)
        for axis, n in enumerate(blur.work_shape)
    ]
    z, y, x = ((k * d).square_() for k, d in zip(frequencies, limit, strict=True))
    return z[:, None, None] + y[:, None] + x


def _resolution(psf: npt.NDArray[np.floating]) -> tuple[float, float, float]:
    """Return the PSF's full widths at half maximum in voxels; 1 along an axis of one voxel."""
    z, y, x = (
        1.0 if n == 1 else width
        for n, width in zip(psf.shape, fwhm_um(psf, (1.0, 1.0, 1.0)), strict=True)
    )
    if not all(math.isfinite(width) for width in (z, y, x)):
        raise RlnError(
            f"the PSF's box {psf.shape} is too small for its half maximum (FWHM {z, y, x} "
            "voxels); use a larger PSF, the matched back projector, or set `resolution_um`."
        )
    return z, y, x


def _gain_at_cut_off(otf: torch.Tensor, shape: Shape, limit: tuple[float, float, float]) -> float:
    """Return the absolute OTF at the cut-off frequency 1 / d, averaged over axes longer than 1."""
    gains = []
    for axis, (n, d) in enumerate(zip(shape, limit, strict=True)):
        if n == 1:
            continue
        index = [0, 0, 0]
        index[axis] = min(round(n / d), n // 2)
        gains.append(float(otf[tuple(index)].abs()))
    return max(sum(gains) / len(gains), 1e-3)
