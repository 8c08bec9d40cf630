"""Data consistency: a network's output held to what the image shows.

A network is trained to guess what a microscope does not pass. Its first estimate, a classical
deconvolution, holds what the microscope did pass, so the two are merged by what each is good for:

brightness
    A network may be some per cent too bright or too dark, since only structure counts in training.
    Its output is multiplied so that it explains the image.
darkness
    Where the first estimate is dark the image holds no light: the network may sharpen and smooth
    what is there, but not put light where none came from.
bright points
    What is far brighter than anything in training is left to the first estimate.
detail
    Photons that were kept back tell at which frequencies the network's output predicts them better
    than the first estimate does. Where the PSF passes much, the estimate often wins; what it hardly
    passes only the network can fill in. This needs a PSF that explains the image to within its
    noise: with another one an estimate that follows the image follows the error of the PSF too.
    That is in the unseen photons as in the seen ones, and they are predicted well for the wrong
    reason.
"""

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import scipy.fft
import torch
from scipy import ndimage

from napari_rln.core.volume import FloatArray
from napari_rln.deconvolution.stopping import BANDS, EXPLAINED
from napari_rln.deconvolution.stopping_trial import Trial
from napari_rln.psf.shape import centre_crop

REACH = 6
"""Voxels around a part of a result that it depends on, beside those of the network."""

VOXEL_BYTES = 48
"""Memory that merging takes for each voxel beside the network's output."""

_KERNEL = 5  # voxels on either side of the filter that takes detail from the estimate; measured
_GRID = 64  # half of the voxels a side on which that filter is computed
_BLUR, _ALLOWED = 0.7, 1.5  # voxels, and the factor on the blurred estimate that bounds a result
_BRIGHT = 16.0  # of the network's scale: brighter voxels of an estimate are unlike any in training
_BRIGHT_ALONE = 3.0  # and so are isolated ones brighter than this
_CORE, _AROUND = 5, 17  # voxels across an isolated point, and of what is dark around it
_ALONE = 0.8  # share of the squared light of these that is in the point
_FADE = 5  # voxels across the rim of what is left to the estimate
_HARDLY = 0.01  # passed by the PSF: of such detail no photons tell
_NO_GOOD = 0.8  # least share of the estimate in all other detail from which it is taken there too


@dataclass(frozen=True, kw_only=True)
class Consistency:
    """How a network's output and its first estimate become a result.

    Attributes
    ----------
    output
        Factor on the network's output before the two are merged.
    detail
        Share of the first estimate in detail that the PSF passes little, more and most of, by
        :data:`napari_rln.deconvolution.stopping.BANDS`. Where that is nearly all of all of it, a
        network that is no good for such an object is not believed in other detail either.
    result
        Factor on the result.
    """

    output: float = 1.0
    detail: tuple[float, ...] = (0.0,) * (len(BANDS) - 1)
    result: float = 1.0

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> Self:
        """Return what :func:`dataclasses.asdict` and JSON made of one."""
        return cls(**fields | {"detail": tuple(fields["detail"])})

    @classmethod
    def of(cls, trial: Trial, estimate: FloatArray, output: FloatArray, scale: float) -> Self:
        """Return how to merge what a network makes of an image, by photons that it was not shown.

        Parameters
        ----------
        trial
            By which the stop of the image's deconvolution was found.
        estimate, output
            (Z, Y, X), image units, background removed: what the trial made of the photons that it
            was given, and the network of that.
        scale
            What the network was given as 1, image units.
        """
        split, run = trial.split, trial.run
        outside = run.in_photons(trial.outside)
        first = run.blurred(estimate)
        second = run.blurred(Merge(cls())(output, estimate, scale))
        factor = split.scale(second, outside)
        merit = split.compare(first, factor * second, outside)
        if merit.error > EXPLAINED:
            return cls(output=factor)
        found = cls(output=factor, detail=merit.shares)
        assert trial.view.psf is not None
        result = Merge(found, trial.view.psf.data)(output, estimate, scale)
        return cls(
            output=factor, detail=merit.shares, result=split.scale(run.blurred(result), outside)
        )


class Merge:
    """Makes a result of a network's output and its first estimate.

    Parameters
    ----------
    consistency
        How.
    psf
        (z, y, x), centre on voxel ``n // 2``.
    """

    def __init__(self, consistency: Consistency, psf: FloatArray | None = None) -> None:
        self._consistency = consistency
        self._kernel: FloatArray | None = None
        if psf is not None and any(consistency.detail):
            self._kernel = _kernel(psf, consistency.detail)

    def __call__(self, output: FloatArray, estimate: FloatArray, scale: float) -> FloatArray:
        """Return the result, (z, y, x) float32, image units, background removed.

        Parameters
        ----------
        output, estimate
            (z, y, x), image units, background removed.
        scale
            What the network was given as 1, image units.
        """
        blurred = ndimage.gaussian_filter(estimate, _BLUR)
        most = np.maximum(estimate, np.float32(_ALLOWED) * blurred)
        found = np.minimum(output, most)
        found *= np.float32(self._consistency.output)
        share = _share_of_points(estimate, scale)
        if share is not None:
            found += share * (estimate - found)
        if self._kernel is not None:
            found += _filtered(estimate - found, self._kernel)
            np.clip(found, 0, most, out=found)
        result: FloatArray = found * np.float32(self._consistency.result)
        return result


def _share_of_points(estimate: FloatArray, scale: float) -> FloatArray | None:
    """Return the share of the first estimate around points too bright for a network; none if 0."""
    if not (estimate > _BRIGHT_ALONE * scale).any():
        return None
    square = np.square(estimate / np.float32(scale))
    core = _CORE**3 * ndimage.uniform_filter(square, _CORE)
    around = _AROUND**3 * ndimage.uniform_filter(square, _AROUND)
    bright = estimate > np.where(core > _ALONE * around, _BRIGHT_ALONE, _BRIGHT) * scale
    if not bright.any():
        return None
    whole = ndimage.maximum_filter(bright, _AROUND).astype(np.float32)
    share: FloatArray = ndimage.uniform_filter(whole, _FADE)
    return share


def _kernel(psf: FloatArray, detail: tuple[float, ...]) -> FloatArray:
    """Return the filter that takes detail from the first estimate, (z, y, x) float32, odd sizes."""
    grid = (2 * _GRID,) * 3
    passed = np.abs(scipy.fft.rfftn(centre_crop(psf, grid), grid, workers=torch.get_num_threads()))
    level = np.log(np.maximum(passed / passed.max(), 0.1 * _HARDLY))
    middles = np.sqrt(np.multiply(BANDS[:-1], BANDS[1:]))
    hardly = max(0.0, (min(detail) - _NO_GOOD) / (1 - _NO_GOOD))
    shares = np.interp(level, np.log([_HARDLY, *middles]), [hardly, *detail])
    whole = scipy.fft.fftshift(scipy.fft.irfftn(shares, grid))
    middle = slice(_GRID - _KERNEL, _GRID + _KERNEL + 1)
    return np.ascontiguousarray(whole[middle, middle, middle], np.float32)


def _filtered(data: FloatArray, kernel: FloatArray) -> FloatArray:
    """Return an array, continued beyond its border by its edge voxels, filtered."""
    padded = np.pad(data, _KERNEL, mode="edge")
    shape = [scipy.fft.next_fast_len(n, real=True) for n in padded.shape]
    workers = torch.get_num_threads()
    spectrum = scipy.fft.rfftn(padded, shape, workers=workers)
    spectrum *= scipy.fft.rfftn(kernel, shape, workers=workers)
    found = scipy.fft.irfftn(spectrum, shape, workers=workers)
    inner: FloatArray = found[tuple(slice(2 * _KERNEL, 2 * _KERNEL + n) for n in data.shape)]
    return inner
