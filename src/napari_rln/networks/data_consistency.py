"""Data consistency: merging of a network's output with its initial estimate.

A network is trained to restore frequencies that a microscope does not transmit. Its initial
estimate, a classical deconvolution, holds those that are transmitted. The two are merged:

brightness
    A network may be some per cent too bright or too dark, since its training weighs structure
    alone. Its output is scaled to explain the image.
darkness
    Where the initial estimate is dark the image has no light: the network may sharpen and smooth
    existing structure, but not add light elsewhere.
bright points
    Points far brighter than any in training are those of the initial estimate.
detail
    Held-out photons show at which frequencies the network's output predicts them better than the
    initial estimate. Well transmitted frequencies are often better in the estimate; those that the
    PSF hardly transmits only the network can restore. This needs a PSF that explains the image
    to within its noise: otherwise an estimate that fits the image fits the error of the PSF too,
    which is in the held-out photons as well, and predicts them for the wrong reason.
"""

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import scipy.fft
import torch
from scipy import ndimage

from napari_rln.core.volume import FloatArray, Mask
from napari_rln.deconvolution.convolution import Convolution
from napari_rln.deconvolution.prepared_view import PreparedView
from napari_rln.deconvolution.stopping import BANDS, EXPLAINED, fitted_factor
from napari_rln.deconvolution.stopping_trial import Trial
from napari_rln.psf.shape import centre_crop

HALO = 6
"""Halo in voxels of the merging, in addition to that of the network."""

VOXEL_BYTES = 48
"""Memory of merging per voxel, beside the network's output, in bytes."""

_KERNEL = 5  # half width in voxels of the filter for detail of the estimate; measured
_GRID = 64  # half the side in voxels of the grid on which that filter is computed
# Sigma in voxels, and factor, of the blurred estimate that limits a result.
_BLUR, _ALLOWED = 0.7, 1.5
_BRIGHT = 16.0  # in units of the network's scale: above the range of training
_BRIGHT_ISOLATED = 3.0  # the same for isolated points
_BRIGHT_ISOLATED_ROOT = 12.0  # the same of a network on the scale of the square root
_CORE, _AROUND = 5, 17  # width in voxels of an isolated point, and of its dark surroundings
_ISOLATED = 0.8  # least fraction of the squared light of these in an isolated point
_FADE = 5  # width in voxels of the transition to the estimate
_OPAQUE = 0.01  # transmission of the PSF below which photons carry no information
_FITS = 4  # of a factor on a result, until it no longer changes
_LEAST_REST = 0.1  # of the light outside bright points, to fit a factor to it
_UNSUITABLE = 0.8  # least weight of the estimate in all other detail to use it there too


@dataclass(frozen=True, kw_only=True)
class Consistency:
    """Parameters of merging a network's output with its initial estimate.

    Attributes
    ----------
    output
        Factor on the network's output before merging.
    detail
        Weight of the initial estimate in detail of low to high transmission by the PSF, by
        :data:`napari_rln.deconvolution.stopping.BANDS`. If all are near 1, the network is
        unsuitable for the object, and replaced in all other detail too.
    result
        Factor on the result: of models with a trial, a refinement, or two views.
    """

    output: float = 1.0
    detail: tuple[float, ...] = (0.0,) * (len(BANDS) - 1)
    result: float = 1.0

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> Self:
        """Return an instance from the JSON of :func:`dataclasses.asdict`; defaults if empty."""
        known: dict[str, Any] = {k: tuple(v) if k == "detail" else v for k, v in fields.items()}
        return cls(**known)

    @classmethod
    def of(cls, trial: Trial, estimate: FloatArray, output: FloatArray, scale: float) -> Self:
        """Return the parameters for an image, by prediction of its held-out photons.

        ``estimate`` is that of the trial and ``output`` that of the network for it, (Z, Y, X),
        image units, background removed; ``scale`` is that of the normalisation, image units.
        """
        split, run = trial.split, trial.run
        outside = run.in_photons(trial.outside)
        first = run.blurred(estimate)
        second = run.blurred(Merge(cls())(output, estimate, scale))
        factor = split.scale(second, outside)
        error, detail = split.compare(first, factor * second, outside)
        if error > EXPLAINED:
            return cls(output=factor)
        merged = cls(output=factor, detail=detail)
        assert trial.view.psf is not None
        result = Merge(merged, trial.view.psf.data)(output, estimate, scale)
        return cls(output=factor, detail=detail, result=split.scale(run.blurred(result), outside))


class Merge:
    """Merging of a network's output with its initial estimate.

    The PSF is for detail. With ``root`` the network works on the scale of the square root of
    photons, on which bright points are moderate.
    """

    def __init__(
        self, consistency: Consistency, psf: FloatArray | None = None, *, root: bool = False
    ) -> None:
        self._consistency = consistency
        self._isolated = _BRIGHT_ISOLATED_ROOT if root else _BRIGHT_ISOLATED
        self._kernel: FloatArray | None = None
        if psf is not None and any(consistency.detail):
            self._kernel = _kernel(psf, consistency.detail)

    def __call__(
        self,
        output: FloatArray,
        estimate: FloatArray,
        scale: float,
        light: FloatArray | None = None,
    ) -> FloatArray:
        """Return the result; all are (z, y, x) float32, image units, background removed.

        ``scale`` is that of the normalisation, image units; ``light``, the image, is not used.
        """
        blurred = ndimage.gaussian_filter(estimate, _BLUR)
        limit = np.maximum(estimate, np.float32(_ALLOWED) * blurred)
        merged = np.minimum(output, limit)
        merged *= np.float32(self._consistency.output)
        weight = _weight_of_points(estimate, scale, self._isolated)
        if weight is not None:
            merged += weight * (estimate - merged)
        if self._kernel is not None:
            merged += _filtered(estimate - merged, self._kernel)
            np.clip(merged, 0, limit, out=merged)
        result: FloatArray = merged * np.float32(self._consistency.result)
        return result

    def points_of(
        self, estimate: FloatArray, scale: float, mask: Mask | None = None
    ) -> FloatArray | None:
        """Return the part of a result, (z, y, x), that is of the estimate.

        These are bright points, and voxels that are not measured (``mask`` is of those that are).
        The rest is the network's, and has the factor on its output. None if all of it is.
        """
        weight = _weight_of_points(estimate, scale, self._isolated)
        points = None if weight is None else weight * estimate
        if mask is None or mask.all():
            return points
        return np.where(mask, np.float32(0) if points is None else points, estimate)


def _weight_of_points(estimate: FloatArray, scale: float, isolated: float) -> FloatArray | None:
    """Return the weight of the estimate around points too bright for a network; none if 0."""
    if not (estimate > isolated * scale).any():
        return None
    square = np.square(estimate / np.float32(scale))
    core = _CORE**3 * ndimage.uniform_filter(square, _CORE)
    around = _AROUND**3 * ndimage.uniform_filter(square, _AROUND)
    limits = np.float32(isolated * scale), np.float32(_BRIGHT * scale)
    bright = estimate > np.where(core > _ISOLATED * around, *limits)
    if not bright.any():
        return None
    whole = ndimage.maximum_filter(bright, _AROUND).astype(np.float32)
    weight: FloatArray = ndimage.uniform_filter(whole, _FADE)
    return weight


def _kernel(psf: FloatArray, detail: tuple[float, ...]) -> FloatArray:
    """Return the filter for detail of the initial estimate, (z, y, x) float32, odd sizes."""
    grid = (2 * _GRID,) * 3
    passed = np.abs(scipy.fft.rfftn(centre_crop(psf, grid), grid, workers=torch.get_num_threads()))
    level = np.log(np.maximum(passed / passed.max(), 0.1 * _OPAQUE))
    middles = np.sqrt(np.multiply(BANDS[:-1], BANDS[1:]))
    opaque = max(0.0, (min(detail) - _UNSUITABLE) / (1 - _UNSUITABLE))
    weights = np.interp(level, np.log([_OPAQUE, *middles]), [opaque, *detail])
    whole = scipy.fft.fftshift(scipy.fft.irfftn(weights, grid))
    middle = slice(_GRID - _KERNEL, _GRID + _KERNEL + 1)
    return np.ascontiguousarray(whole[middle, middle, middle], np.float32)


def _filtered(data: FloatArray, kernel: FloatArray) -> FloatArray:
    """Return an array, continued beyond its border by its edge voxels, filtered."""
    padded = np.pad(data, _KERNEL, mode="edge")
    shape = [scipy.fft.next_fast_len(n, real=True) for n in padded.shape]
    workers = torch.get_num_threads()
    spectrum = scipy.fft.rfftn(padded, shape, workers=workers)
    spectrum *= scipy.fft.rfftn(kernel, shape, workers=workers)
    whole = scipy.fft.irfftn(spectrum, shape, workers=workers)
    inner: FloatArray = whole[tuple(slice(2 * _KERNEL, 2 * _KERNEL + n) for n in data.shape)]
    return inner


def explaining_factor(
    view: PreparedView,
    result: FloatArray,
    outside: FloatArray | None,
    device: torch.device,
    points: FloatArray | None = None,
) -> float:
    """Return the factor on a result with which its blur fits the image best, by its photons.

    ``outside`` is the light in the image from beyond the field of view, image units; without it,
    voxels near the border count as if the object ended there. ``points`` is the part of the result
    that keeps its brightness, see :meth:`Merge.points_of`; none if the factor is on all of it. If
    nearly all light is in that part, the factor is 1.
    """
    assert view.psf is not None
    rest = result if points is None else result - points
    if points is not None and rest.sum() < _LEAST_REST * result.sum():
        return 1.0
    camera = view.calibration.camera
    blur = Convolution(view.psf.data, view.image.shape, border="extended", device=device)
    field = torch.zeros(blur.estimate_shape, device=device)
    unit = np.float32(camera.gain)
    beyond = torch.zeros(view.image.shape, device=device)
    if outside is not None:
        beyond = torch.from_numpy(outside / unit).to(device)
    if points is not None:
        field[blur.window] = torch.from_numpy(points / unit).to(device)
        beyond = beyond + blur.A(field)
    field[blur.window] = torch.from_numpy(rest / unit).to(device)
    photons = torch.from_numpy(camera.photons(view.image.data)).to(device)
    mask = None if view.mask is None else torch.from_numpy(view.mask).to(device)
    blurred, factor = blur.A(field), 1.0
    for _ in range(_FITS):  # the noise that weights the fit is that of the scaled result
        step = fitted_factor(photons, blurred, beyond, view.calibration.background_photons, mask)
        blurred *= step
        factor *= step
    return factor
