"""When to stop: before the estimate follows the noise.

The photons of an image are split by chance into nine tenths to deconvolve and one tenth to ask:
as long as the estimate comes nearer to the object it predicts the unseen tenth better; once it
follows the noise of the seen photons, worse. Measured against a known object, the iteration that
predicts best is that of the smallest error, or near it (``benchmarks/rld.py stop``).
"""

import math
from dataclasses import dataclass, field

import numpy as np
from scipy import ndimage

from napari_rln.volume import FloatArray

SHARE = 0.9  # of the photons, deconvolved while the rest is asked
_PATIENCE = 0.15  # of the iterations done so far, without a better prediction
_CROP_VOXELS = 2**20  # more photons than these hold would not move the answer


@dataclass
class BestSoFar:
    """Follows the deviance of unseen photons and says when it has seen the least.

    Attributes
    ----------
    iteration
        The best so far, counted from 1; 0 before the first.
    deviance
        Its deviance.
    """

    iteration: int = 0
    deviance: float = math.inf
    _seen: int = field(default=0, repr=False)

    def add(self, deviance: float) -> bool:
        """Take the next iteration's deviance; return whether to stop looking."""
        self._seen += 1
        if deviance < self.deviance:
            self.iteration, self.deviance = self._seen, deviance
        return self._seen - self.iteration > max(3, _PATIENCE * self._seen)


def telling_crop(image: FloatArray, psf_shape: tuple[int, int, int]) -> tuple[slice, ...]:
    """Return the part of a large image with most structure, (z, y, x) slices.

    All of z, since light spreads along it most; a square or less of y and x, at least twice
    the PSF's width.
    """
    planes, height, width = image.shape
    side = max(round(math.sqrt(_CROP_VOXELS / planes)), 2 * max(psf_shape[1:]))
    crop = min(side, height), min(side, width)
    if crop == (height, width):
        return (slice(None),) * 3
    structure = image.var(axis=0, dtype=np.float64) + image.mean(axis=0, dtype=np.float64) ** 2
    total = ndimage.uniform_filter(structure, size=crop, mode="constant")
    inner = tuple(
        slice(c // 2, n - (c - 1) // 2) for c, n in zip(crop, (height, width), strict=True)
    )
    y, x = np.unravel_index(int(total[inner].argmax()), total[inner].shape)
    return slice(None), slice(int(y), int(y) + crop[0]), slice(int(x), int(x) + crop[1])
