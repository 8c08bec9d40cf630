"""Spectrum of an image's noise: white from the camera, or coloured by later processing.

Interpolation, deskewing, registration and smoothing correlate the noise of neighbouring voxels.
"""

from dataclasses import dataclass

import numpy as np
import scipy.fft

from napari_rln.core.volume import FloatArray, Shape

Lags = tuple[float, ...]

_LEAST = 1e-3  # lowest power at any frequency, over that of white noise


@dataclass(frozen=True, kw_only=True)
class Spectrum:
    """Correlation of the noise of neighbouring voxels along each axis.

    Attributes
    ----------
    correlations
        Along z, y and x, correlations of the noise at lags of 1, 2, ... voxels; empty where
        independent.
    """

    correlations: tuple[Lags, Lags, Lags] = ((), (), ())

    @property
    def white(self) -> bool:
        """Whether the noise of all voxels is independent."""
        return not any(self.correlations)

    @property
    def variance_ratio(self) -> float:
        """Variance of a voxel over that before its noise was correlated."""
        ratio = 1.0
        for lags in self.correlations:
            ratio /= _at_zero(lags)
        return ratio

    def powers(self, shape: Shape) -> FloatArray:
        """Return the power at the frequencies of an image, over that of the original white noise.

        The result has the shape of the image's real transform.
        """
        power = np.ones((1, 1, 1))
        for axis, (n, lags) in enumerate(zip(shape, self.correlations, strict=True)):
            angles = np.arange(n // 2 + 1 if axis == 2 else n) * (2 * np.pi / n)
            along = np.ones_like(angles)
            for k, correlation in enumerate(lags, 1):
                along += 2 * correlation * np.cos(k * angles)
            # Interpolation keeps the mean, and so the power at frequency 0.
            along = np.maximum(along, _LEAST) / _at_zero(lags)
            power = power * np.expand_dims(along, tuple(a for a in range(3) if a != axis))
        return power.astype(np.float32)

    def draw(self, variance: FloatArray, rng: np.random.Generator) -> FloatArray:
        """Return noise of this spectrum, from the variance of each voxel before correlation."""
        noise: FloatArray = rng.standard_normal(variance.shape, dtype=np.float32)
        noise *= np.sqrt(variance)
        return noise if self.white else self.coloured(noise)

    def coloured(self, noise: FloatArray) -> FloatArray:
        """Return white noise (Z, Y, X) with this spectrum."""
        z, y, x = noise.shape
        spectrum = scipy.fft.rfftn(noise) * np.sqrt(self.powers((z, y, x)))
        drawn: FloatArray = scipy.fft.irfftn(spectrum, s=noise.shape)
        return drawn


def _at_zero(lags: Lags) -> float:
    """Return the power at frequency 0 of noise of variance 1."""
    return max(1 + 2 * sum(lags), _LEAST)
