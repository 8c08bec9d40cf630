"""Noise of an image, estimated from the image itself.

The noise of a camera follows the photon transfer line: the variance of a voxel is
``gain * value + intercept``. Its slope is the camera's gain; read noise raises the intercept and
the camera's offset lowers it.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from napari_rln.core.volume import Float64Array, FloatArray, Mask
from napari_rln.deconvolution.noise_residuals import (
    Sample,
    Stencil,
    across,
    corner_power,
    stencil_of,
    step_of,
    take_samples,
    without_spikes,
)
from napari_rln.deconvolution.noise_spectrum import Spectrum
from napari_rln.deconvolution.photon_transfer import fit_line, is_noiseless, take_bins
from napari_rln.deconvolution.unmeasured_voxels import lagged

_LAGS = 4  # greatest distance in voxels at which noise may be correlated
_WHITE = 0.05  # highest correlation of neighbours in white noise
_CHANCE = 8.0  # as _WHITE, over the root of the number of pairs
_LOST = 2000.0  # loss of power in the corner beyond which noise cannot be estimated


@dataclass(frozen=True, kw_only=True)
class Noise:
    """The photon transfer line ``variance = gain * value + intercept``.

    Attributes
    ----------
    gain
        Image units per photon; 0 without photon noise.
    intercept
        Image units squared: read variance minus gain times offset.
    darkest
        Value of the darkest voxels, image units, an upper limit of :attr:`zero`.
    zero_uncertainty
        Standard deviation of :attr:`zero`, image units.
    spectrum
        Spectrum of the noise.
    """

    gain: float
    intercept: float
    darkest: float = math.inf
    zero_uncertainty: float = 0.0
    spectrum: Spectrum = field(default_factory=Spectrum)

    @property
    def zero(self) -> float:
        """Value, in image units, at which the variance is 0, at most that of the darkest voxels.

        That is the camera's offset minus its read variance over its gain. Without a gain it is the
        value of the darkest voxels.
        """
        at_line = -self.intercept / self.gain if self.gain > 0 else math.inf
        lowest = min(at_line, self.darkest)
        return lowest if math.isfinite(lowest) else 0.0

    def variance(self, value: npt.ArrayLike) -> Float64Array:
        """Return the variance of voxels of an expected value, at least that of one photon."""
        line = self.gain * np.asarray(value, dtype=np.float64) + self.intercept
        return np.maximum(line, self.gain**2)


def estimate_noise(
    *images: FloatArray,
    mask: Mask | Sequence[Mask] | None = None,
    gain: float | None = None,
) -> Noise:
    """Return the photon transfer line of an image, from its highest spatial frequencies.

    Differences along every axis pass the corner of the spectrum, where microscopes transmit
    nothing: the residual is noise. Its variance is computed in bins of the local mean, and a line
    fitted to them. Residuals too large for noise are hot voxels or cosmic rays; these, their
    neighbours, and those of saturated, filled or masked voxels are excluded.

    Parameters
    ----------
    *images
        (Z, Y, X), an image, or samples of it; differences need axes of at least 3 voxels.
    mask
        Bool, of the shape of the image, or one per sample: valid voxels.
    gain
        Gain of the camera, if known: then only the intercept is fitted.

    Notes
    -----
    Noise correlated by interpolation or smoothing is weaker in the corner. The correlation along
    each axis, of differences along the other two, yields the loss; the line is that of the noise
    before. An image too smooth to have noise left in the corner has gain 0, like one without noise.
    """
    level, darkest, samples = take_samples(images, mask)
    if (
        not any(sample.mask.any() for sample in samples)
        or not stencil_of(samples[0].values.shape).taps
    ):
        return Noise(gain=0.0, intercept=0.0)
    samples = without_spikes(samples, darkest - level)
    bins = take_bins(samples)
    spectrum, loss = _correlation(samples)
    none = Noise(gain=0.0, intercept=0.0, darkest=darkest, spectrum=spectrum)
    step = step_of(samples)
    rounding = step**2 / 12
    ranges = [len(lags) - 1 for lags in spectrum.correlations]
    smooth = loss > _LOST or (min(ranges) >= 2 and max(ranges) >= 3)  # structure, not noise
    if bins is None or smooth or is_noiseless(bins, step):
        return none
    if loss != 1:
        if float(np.average(bins.variance, weights=bins.count)) < 3 * rounding:
            return none
        bins = replace(bins, variance=loss * np.maximum(bins.variance - rounding, 0))
    line = fit_line(bins, darkest - level, gain)
    if not line.slope > 0:
        return replace(none, intercept=max(line.at_level, 0.0))
    return replace(
        none,
        gain=line.slope,
        intercept=line.at_level - line.slope * level,
        zero_uncertainty=line.zero_uncertainty,
    )


def _correlation(samples: list[Sample]) -> tuple[Spectrum, float]:
    """Return the spectrum of the noise and its loss of power in the corner.

    Along each axis the autocovariance of differences along the other two axes is computed in the
    darker half of the voxels. Its sum is the power of the noise at frequency 0, which neither
    interpolation nor smoothing changes; that of its differences is the power in the corner. A
    covariance that does not decay with distance is a fixed pattern of the camera.
    """
    correlations: list[tuple[float, ...]] = [(), (), ()]
    loss = 1.0
    shape = samples[0].values.shape
    stencil = stencil_of(shape)
    middle = float(np.median(np.concatenate([s.values[s.mask][::7] for s in samples])))
    for axis, taps in stencil.taps.items():
        others = across(shape, axis)
        if shape[axis] < 2 * _LAGS or not others.taps:
            continue
        power, count = _autocovariance(samples, axis, others, middle)
        power -= min(max(power[-1], 0.0), 0.5 * power[0])
        if not power[0] > 0:
            continue
        # Few pairs correlate by chance; the differences make neighbours less independent.
        least = max(_WHITE, _CHANCE / math.sqrt(max(count, 1.0)))
        correlated = power > least * power[0]
        extent = int(np.argmin(correlated)) - 1 if not correlated.all() else _LAGS
        if extent:
            power = np.where(np.arange(power.size) <= extent + 1, power, 0)
            correlations[axis] = tuple(float(p) for p in power[1 : extent + 2] / power[0])
            flat = max(power[0] + 2 * power[1:].sum(), 0.0)
            loss *= flat / max(corner_power(power, taps), 1e-9 * power[0])
    return Spectrum(correlations=(correlations[0], correlations[1], correlations[2])), loss


def _autocovariance(
    samples: list[Sample], axis: int, others: Stencil, middle: float
) -> tuple[Float64Array, float]:
    """Return the autocovariance along an axis, at lags of 0 to 4 voxels, and the number of pairs.

    It is that of the differences along the other axes.
    """
    total, count = np.zeros(_LAGS + 1), np.zeros(_LAGS + 1)
    for sample in samples:
        value = others.differences(sample.values)
        dark = others.valid(sample.mask) & (others.means(sample.values) <= middle)
        most = 3 / 1.645 * float(np.quantile(np.abs(value[dark]), 0.9)) if dark.any() else 0.0
        value = np.where(dark, value.clip(-most, most) if most > 0 else value, 0)
        for lag in range(_LAGS + 1):
            a, b = lagged(axis, lag, value.shape[axis])
            total[lag] += float((value[a] * value[b]).sum(dtype=np.float64))
            count[lag] += np.count_nonzero(dark[a] & dark[b])
    return total / np.maximum(count, 1), float(count[0])
