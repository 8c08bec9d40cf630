"""The spectrum of an image's noise: white as a camera gives it, or coloured by what was done since.

An interpolation, a deskew, a registration or a smoothing mixes the noise of neighbouring voxels.
Where the microscope passes nothing, all that is left in an image is noise; there its spectrum is
read off, as the product of one factor along each axis.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import scipy.fft
import torch
from scipy import ndimage

from napari_rln.psf.shape import centre_crop
from napari_rln.tiles import Shape
from napari_rln.volume import FloatArray

Floats = npt.NDArray[np.floating]

_DARK = 2e-3  # of the OTF's maximum, below which the microscope passes nothing
_LEAST = 2000  # frequencies without light that are needed to tell
_LAGS = 3  # voxels that noise reaches along an axis at the most
_WHITE = 0.08  # correlation of neighbours up to which noise is taken for white
_ROUNDS = 6  # of fitting the three factors in turn: they settle after three or four


@dataclass(frozen=True, kw_only=True, eq=False)
class Spectrum:
    """Power of an image's noise by frequency.

    Attributes
    ----------
    correlations
        Along z, y and x, the correlation of the noise of voxels 1, 2, ... apart; empty where white.
    scale
        Variance before it was coloured over what photons have; 1 for an image in photons.
    """

    correlations: tuple[tuple[float, ...], ...] = ((), (), ())
    scale: float = 1.0

    @property
    def white(self) -> bool:
        """Whether neighbouring voxels have independent noise."""
        return not any(self.correlations)

    @property
    def share(self) -> float:
        """Variance of a voxel over what it was before the noise was coloured."""
        found = 1.0
        for lags in self.correlations:
            found /= max(1 + 2 * sum(lags), 1e-3)
        return found

    def draw(self, variance: FloatArray, rng: np.random.Generator) -> FloatArray:
        """Return noise of this spectrum, float32.

        Parameters
        ----------
        variance
            (Z, Y, X), of each voxel if the noise were white.
        rng
            Random numbers.
        """
        noise = rng.standard_normal(variance.shape, dtype=np.float32)
        noise *= np.sqrt(np.float32(self.scale) * variance)
        if self.white:
            return noise
        found = scipy.fft.rfftn(noise, workers=torch.get_num_threads()) * np.sqrt(
            self.powers(noise.shape)
        )
        drawn: FloatArray = scipy.fft.irfftn(found, s=noise.shape, workers=torch.get_num_threads())
        return drawn

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
            # An interpolation keeps the mean: at frequency 0 the power is what it was.
            along = _power(lags, angles) / max(1 + 2 * sum(lags), 1e-3)
            power = power * _along(along, axis)
        return power.astype(np.float32)


def estimate_spectrum(
    photons: FloatArray,
    psf: FloatArray,
    background: float,
    seen: npt.NDArray[np.bool_] | None = None,
) -> Spectrum:
    """Return the spectrum of an image's noise.

    Parameters
    ----------
    photons
        (Z, Y, X).
    psf
        (z, y, x) centre on voxel ``n // 2``.
    background
        Photons.
    seen
        (Z, Y, X) bool, voxels that can be believed; all when none.

    Notes
    -----
    Where the microscope passes nearly all frequencies that the voxels hold, there is nothing to
    tell by, and the noise is taken for white.
    """
    window = np.ones((1, 1, 1))
    for axis, n in enumerate(photons.shape):
        if n >= 8:
            window = window * _along(np.hanning(n + 2)[1:-1], axis)
    if seen is not None:
        inner = ndimage.binary_erosion(seen, iterations=3, border_value=1)
        window = window * ndimage.uniform_filter(inner.astype(np.float32), 5, mode="nearest")
    power = (
        np.abs(
            scipy.fft.rfftn(
                (photons - np.float32(background)) * window, workers=torch.get_num_threads()
            )
        )
        ** 2
    )
    dark = transfer(psf, photons.shape) < _DARK
    dark[0, 0, :] = dark[:, 0, 0] = dark[0, :, 0] = False  # flicker and patterns lie on the axes
    if dark.sum() < _LEAST:
        return Spectrum()
    correlations, level = _fitted(power, dark, photons.shape)
    if all(abs(lags[0]) < _WHITE for lags in correlations if lags):
        correlations = ((), (), ())
        level = float(power[dark].mean())
    # What of the light falls where the window lets it through.
    light = float((np.square(window) * photons).sum(dtype=np.float64))
    at_zero = level * np.prod([1 + 2 * sum(lags) for lags in correlations])
    return Spectrum(correlations=correlations, scale=float(at_zero) / max(light, 1e-30))


def transfer(psf: FloatArray, shape: Shape) -> FloatArray:
    """Return how much of each frequency a PSF passes, |OTF| over its maximum, on an image's grid.

    Parameters
    ----------
    psf
        (z, y, x) centre on voxel ``n // 2``.
    shape
        (Z, Y, X) of the image; the result is of the shape of its real transform.
    """
    kernel = centre_crop(psf, shape)
    whole = np.zeros(shape, np.float32)
    whole[tuple(slice(n) for n in kernel.shape)] = kernel
    found = np.abs(scipy.fft.rfftn(whole, workers=torch.get_num_threads()))
    passed: FloatArray = found / found.max()
    return passed


def _fitted(
    power: Floats, dark: npt.NDArray[np.bool_], sizes: Shape
) -> tuple[tuple[tuple[float, ...], ...], float]:
    """Return the correlations along each axis, and the power of as much white noise."""
    where = np.nonzero(dark)
    values = power[where]
    places = [np.minimum(w, n - w) for w, n in zip(where, sizes, strict=True)]
    factors: list[Floats] = [np.ones(n // 2 + 1) for n in sizes]
    counts = [np.bincount(p, minlength=f.size) for p, f in zip(places, factors, strict=True)]
    correlations: list[tuple[float, ...]] = [(), (), ()]
    level = float(values.mean())
    for _ in range(_ROUNDS):
        for axis, (place, factor, count) in enumerate(zip(places, factors, counts, strict=True)):
            if factor.size < 4:
                continue
            others = np.full(values.size, level)
            for other in range(3):
                if other != axis:
                    others *= factors[other][places[other]]
            mean = np.bincount(place, values / others, minlength=factor.size)
            known = count > 0
            angles = np.arange(factor.size) * (2 * np.pi / sizes[axis])
            lags = _lags(angles[known], mean[known] / count[known], count[known])
            correlations[axis] = lags[1:]
            factors[axis] = _power(lags[1:], angles)
            level *= lags[0]
    return tuple(correlations), level


def _lags(angles: Floats, values: Floats, counts: npt.NDArray[np.intp]) -> tuple[float, ...]:
    """Return the level and the correlations whose cosine series is nearest to a power spectrum."""
    columns = [np.ones_like(angles)] + [2 * np.cos(k * angles) for k in range(1, _LAGS + 1)]
    weight = np.sqrt(counts)
    found, *_ = np.linalg.lstsq(np.stack(columns, 1) * weight[:, None], values * weight, rcond=None)
    level = max(float(found[0]), 1e-30)
    return level, *(float(np.clip(c / level, -0.49, 0.9)) for c in found[1:])


def _power(lags: tuple[float, ...], angles: Floats) -> Floats:
    """Return the power of noise of variance 1 at frequencies in radians per voxel."""
    total = np.ones_like(angles)
    for k, correlation in enumerate(lags, 1):
        total += 2 * correlation * np.cos(k * angles)
    return np.maximum(total, 1e-3)


def _along(values: Floats, axis: int) -> Floats:
    shape = [1, 1, 1]
    shape[axis] = -1
    return values.reshape(shape)
