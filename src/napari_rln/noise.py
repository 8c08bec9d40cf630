"""What an image tells about its own noise and background.

Cameras are described by the photon transfer line: the variance of a voxel is
``gain * value + offset_variance``. Its slope is the camera's gain, its intercept holds both the
read noise (which raises it) and the camera's offset (which lowers it).
"""

import itertools
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from napari_rln.volume import FloatArray

_BINS = 24


@dataclass(frozen=True, kw_only=True)
class Noise:
    """The photon transfer line ``variance = gain * value + intercept``.

    Attributes
    ----------
    gain
        Image units per photon; 0 where no noise was found.
    intercept
        Image units squared: read variance less gain times offset.
    """

    gain: float
    intercept: float

    @property
    def zero(self) -> float:
        """Value at which the variance is 0, image units."""
        return -self.intercept / self.gain if self.gain > 0 else 0.0


def estimate_noise(image: FloatArray, *more: FloatArray) -> Noise:
    """Return the photon transfer line of an image, from its highest spatial frequencies.

    The second difference along every axis passes the corner of the spectrum, where no microscope
    passes an image; what is left there is noise. Its variance is collected in bins of the local
    mean, and the line fitted to them.

    Parameters
    ----------
    image
        (Z, Y, X); axes shorter than 3 are not differenced, and without longer ones there is
        nothing to tell noise by.

    Notes
    -----
    An image that was smoothed, denoised or interpolated has less noise there than elsewhere.
    """
    if max(image.shape) < 3:
        return Noise(gain=0.0, intercept=0.0)
    residual = np.asarray(image, dtype=np.float64)
    mean = residual
    power = 1.0
    for axis in (a for a, n in enumerate(image.shape) if n >= 3):
        residual = ndimage.correlate1d(residual, [1.0, -2.0, 1.0], axis=axis, mode="mirror")
        mean = ndimage.correlate1d(mean, [0.25, 0.5, 0.25], axis=axis, mode="mirror")
        power *= 6.0
    inner = tuple(slice(1, -1) if n >= 3 else slice(None) for n in image.shape)
    mean, variance = mean[inner].ravel(), residual[inner].ravel() ** 2 / power
    order = np.argsort(mean)
    # Bins of equal count are bins of background mostly; half of them, of equal range, reach up.
    edges = np.unique(
        np.concatenate(
            [
                np.linspace(0, mean.size, _BINS + 1).astype(int),
                np.searchsorted(mean[order], np.linspace(mean.min(), mean.max(), _BINS + 1)),
                [mean.size],
            ]
        )
    )
    groups = [order[a:b] for a, b in itertools.pairwise(edges) if b - a >= 50]
    if len(groups) < 2:
        groups = [order]
    x = np.array([mean[g].mean() for g in groups])
    y = np.array([variance[g].mean() for g in groups])
    n = np.array([g.size for g in groups], dtype=float)
    return _line(x, y, n)


def _line(
    x: npt.NDArray[np.float64], y: npt.NDArray[np.float64], n: npt.NDArray[np.float64]
) -> Noise:
    """Fit a line through bin variances, each known to a relative precision of sqrt(2 / n)."""
    total = float((n * y).sum() / n.sum())
    if total <= 0 or not np.isfinite(total):
        return Noise(gain=0.0, intercept=0.0)
    fitted = np.full_like(y, total)
    slope, intercept = 0.0, total
    for _ in range(5):  # weights follow the fit, so that bright bins do not rule
        weight = np.sqrt(n) / np.maximum(fitted, 1e-3 * total)
        if np.ptp(x) <= 1e-6 * max(abs(float(x.max())), 1e-30):
            break
        slope, intercept = np.polyfit(x, y, 1, w=weight)
        fitted = slope * x + intercept
    if slope <= 0:  # no trend: all noise as if from the mean brightness
        level = float((n * x).sum() / n.sum())
        return Noise(gain=total / level if level > 0 else 0.0, intercept=0.0)
    return Noise(gain=float(slope), intercept=float(intercept))


def estimate_background(*images: FloatArray) -> float:
    """Return the level of the darkest parts of an image: camera offset, haze, autofluorescence.

    It is the 0.5th percentile of means over blocks of up to 4 x 8 x 8 voxels: low enough to leave
    dim structures their light, averaged enough not to follow the noise.

    Parameters
    ----------
    *images
        (Z, Y, X): the image, or samples of it.
    """
    means = np.concatenate([_block_means(image).ravel() for image in images])
    return max(float(np.percentile(means, 0.5)), 0.0)


def _block_means(image: FloatArray) -> npt.NDArray[np.float64]:
    sizes = tuple(min(n, block) for n, block in zip(image.shape, (4, 8, 8), strict=True))
    whole = image[tuple(slice(n - n % s) for n, s in zip(image.shape, sizes, strict=True))]
    z, y, x = (n // s for n, s in zip(whole.shape, sizes, strict=True))
    blocks = whole.reshape(z, sizes[0], y, sizes[1], x, sizes[2])
    means: npt.NDArray[np.float64] = blocks.mean((1, 3, 5), dtype=np.float64)
    return means
