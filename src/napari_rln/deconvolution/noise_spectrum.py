"""The spectrum of an image's noise: white as a camera gives it, or coloured by what was done since.

An interpolation, a deskew, a registration or a smoothing mixes the noise of neighbouring voxels.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import scipy.fft

from napari_rln.core.volume import FloatArray

Shape = tuple[int, int, int]
Lags = tuple[float, ...]

_LEAST = 1e-3  # power, over that of white noise, that is left at any frequency


@dataclass(frozen=True, kw_only=True)
class Spectrum:
    """How the noise of neighbouring voxels goes together, along each axis.

    Attributes
    ----------
    correlations
        Along z, y and x, the correlation of the noise of voxels 1, 2, ... apart; empty where
        they are independent.
    """

    correlations: tuple[Lags, Lags, Lags] = ((), (), ())

    @property
    def white(self) -> bool:
        """Whether all voxels have independent noise."""
        return not any(self.correlations)

    @property
    def share(self) -> float:
        """Variance of a voxel over what it was before its noise was mixed with its neighbours'."""
        share = 1.0
        for lags in self.correlations:
            share /= _at_zero(lags)
        return share

    def powers(self, shape: Shape) -> FloatArray:
        """Return the power by frequency, over that of the white noise that became this.

        Parameters
        ----------
        shape
            (Z, Y, X) of the image; the result is of the shape of its real transform.
        """
        power = np.ones((1, 1, 1))
        for axis, (n, lags) in enumerate(zip(shape, self.correlations, strict=True)):
            angles = np.arange(n // 2 + 1 if axis == 2 else n) * (2 * np.pi / n)
            along = np.ones_like(angles)
            for k, correlation in enumerate(lags, 1):
                along += 2 * correlation * np.cos(k * angles)
            # An interpolation keeps the mean: at frequency 0 the power is what it was.
            along = np.maximum(along, _LEAST) / _at_zero(lags)
            power = power * np.expand_dims(along, tuple(a for a in range(3) if a != axis))
        return power.astype(np.float32)

    def draw(self, variance: FloatArray, rng: np.random.Generator) -> FloatArray:
        """Return noise of this spectrum, float32.

        Parameters
        ----------
        variance
            (Z, Y, X), that each voxel would have if its noise were not mixed with its neighbours'.
        rng
            Random numbers.
        """
        noise: FloatArray = rng.standard_normal(variance.shape, dtype=np.float32)
        noise *= np.sqrt(variance)
        if self.white:
            return noise
        z, y, x = variance.shape
        mixed = scipy.fft.rfftn(noise) * np.sqrt(self.powers((z, y, x)))
        drawn: npt.NDArray[np.float32] = scipy.fft.irfftn(mixed, s=noise.shape)
        return drawn


def _at_zero(lags: Lags) -> float:
    """Return the power at frequency 0 of noise of variance 1."""
    return max(1 + 2 * sum(lags), _LEAST)
