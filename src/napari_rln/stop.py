"""When to stop: before the estimate follows the noise.

The photons of an image are split by chance into nine tenths to deconvolve and one tenth to ask:
as long as the estimate comes nearer to the object it predicts the unseen tenth better; once it
follows the noise of the seen photons, worse. Measured against a known object, the iteration that
predicts best is that of the smallest error, or near it (``benchmarks/rld.py stop``).
"""

import math
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from napari_rln.volume import FloatArray

# Unmatched back projectors overshoot at low frequencies, which spoils predictions before noise
# does: the best is two to five iterations later.
BEYOND = 2
SHARE = 0.9  # of the photons, deconvolved while the rest is asked
_PATIENCE = 0.15  # of the iterations done so far, without a better prediction
_LEAST_PATIENCE = 8  # iterations: unmatched back projectors overshoot before they settle
_SETTLED = 4e-5  # gain of an iteration, of all gained so far, that is not worth another
_EXPLAINED = 1.5  # chi squared per unseen voxel up to which noise explains the image
_WORTHWHILE = 5e-3  # gain of an iteration, of what noise cannot explain, that is worth another
_CROP_VOXELS = 2**20  # more photons than these hold would not move the answer


@dataclass
class Watch:
    """Follows how well unseen photons are predicted and says when to look no further.

    That is when predictions get worse, or when they no longer gain: against all that was gained,
    or, where the PSF is unlike the microscope's and noise does not explain the difference,
    against what stays unexplained. Such an image has no best iteration: the error of the PSF,
    alike in seen and unseen photons, would be followed for ever.

    Attributes
    ----------
    iteration
        The best so far, counted from 1; 0 before the first.
    """

    iteration: int = 0
    _best: float = math.inf
    _first: float = math.nan
    _last: float = math.nan
    _seen: int = 0

    def add(self, deviance: float, chi2: float) -> bool:
        """Take what the next iteration's estimate predicts; return whether to stop looking.

        Parameters
        ----------
        deviance
            Poisson deviance of the unseen photons per voxel, up to a constant.
        chi2
            Their mean squared difference from the prediction over the prediction.
        """
        self._seen += 1
        gain, self._last = self._last - deviance, deviance
        if deviance < self._best:
            self.iteration, self._best = self._seen, deviance
        if self._seen == 1:
            self._first = deviance
        if self._seen - self.iteration > max(_LEAST_PATIENCE, _PATIENCE * self._seen):
            return True
        settled = gain < _SETTLED * (self._first - self._best)
        hopeless = chi2 > _EXPLAINED and gain < _WORTHWHILE * (chi2 - 1)
        return self._seen > 5 and gain >= 0 and (settled or hopeless)


def telling_shape(
    image_shape: tuple[int, int, int], psf_shape: tuple[int, int, int]
) -> tuple[int, int, int]:
    """Return the size (z, y, x) of what :func:`telling_crop` cuts out.

    All of z, since light spreads along it most; a square or less of y and x, at least twice
    the PSF's width.
    """
    planes, height, width = image_shape
    side = max(round(math.sqrt(_CROP_VOXELS / planes)), 2 * max(psf_shape[1:]))
    return planes, min(side, height), min(side, width)


def telling_crop(image: FloatArray, psf_shape: tuple[int, int, int]) -> tuple[slice, ...]:
    """Return the part of a large image with most structure, (z, y, x) slices."""
    _, height, width = image.shape
    _, *crop = telling_shape(image.shape, psf_shape)
    if crop == [height, width]:
        return (slice(None),) * 3
    structure = image.var(axis=0, dtype=np.float64) + image.mean(axis=0, dtype=np.float64) ** 2
    total = ndimage.uniform_filter(structure, size=crop, mode="constant")
    inner = tuple(
        slice(c // 2, n - (c - 1) // 2) for c, n in zip(crop, (height, width), strict=True)
    )
    y, x = np.unravel_index(int(total[inner].argmax()), total[inner].shape)
    return slice(None), slice(int(y), int(y) + crop[0]), slice(int(x), int(x) + crop[1])
