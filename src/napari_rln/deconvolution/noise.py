"""What an image tells about its own noise.

Cameras are described by the photon transfer line: the variance of a voxel is
``gain * value + intercept``. Its slope is the camera's gain, its intercept holds both the
read noise (which raises it) and the camera's offset (which lowers it).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from napari_rln.core.volume import FloatArray
from napari_rln.deconvolution.noise_residuals import (
    Float64Array,
    Mask,
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

_LAGS = 4  # voxels to follow correlated noise along an axis
_WHITE = 0.05  # correlation of neighbours up to which noise is called white
_CHANCE = 8.0  # the same times the root of the number of pairs
_LOST = 2000.0  # power lost in the corner beyond which nothing is left to tell noise by


@dataclass(frozen=True, kw_only=True)
class Noise:
    """The photon transfer line ``variance = gain * value + intercept``.

    Attributes
    ----------
    gain
        Image units per photon; 0 where no photon noise was found.
    intercept
        Image units squared: read variance less gain times offset.
    darkest
        Image units: value of the darkest voxels, of which :attr:`zero` is never above.
    gain_uncertainty
        Standard deviation of the gain, image units per photon.
    zero_uncertainty
        Standard deviation of :attr:`zero`, image units.
    spectrum
        How the noise of neighbouring voxels goes together.
    """

    gain: float
    intercept: float
    darkest: float = math.inf
    gain_uncertainty: float = 0.0
    zero_uncertainty: float = 0.0
    spectrum: Spectrum = field(default_factory=Spectrum)

    @property
    def zero(self) -> float:
        """The value, in image units, at which the variance is 0, never above the darkest voxels.

        That is the camera's offset less its read variance over its gain. Without a gain it is the
        darkest voxels' value.
        """
        at_line = -self.intercept / self.gain if self.gain > 0 else math.inf
        lowest = min(at_line, self.darkest)
        return lowest if math.isfinite(lowest) else 0.0

    def variance(self, value: npt.ArrayLike) -> Float64Array:
        """Return the variance of voxels of an expected value: that of one photon or more."""
        line = self.gain * np.asarray(value, dtype=np.float64) + self.intercept
        return np.maximum(line, self.gain**2)


def estimate_noise(
    *images: FloatArray,
    seen: Mask | Sequence[Mask] | None = None,
    gain: float | None = None,
) -> Noise:
    """Return the photon transfer line of an image, from its highest spatial frequencies.

    Differences along every axis pass the corner of the spectrum, where no microscope
    passes an image; what is left there is noise. Its variance is collected in bins of the local
    mean, and the line fitted to them. Residuals beyond what noise reaches are hot voxels or
    cosmic rays, and whatever touches those, or voxels that are saturated, filled in or
    not seen, does not count.

    Parameters
    ----------
    *images
        (Z, Y, X): an image, or samples of it; axes shorter than 3 are not differenced, and
        without longer ones there is nothing to tell noise by.
    seen
        Bool, of the shape of the image, or one for each: which voxels can be believed.
    gain
        The camera's, where it is known: then only the intercept is sought.

    Notes
    -----
    Noise that neighbours share after an interpolation or a smoothing is weaker in the corner.
    Along each axis, the other two differenced, its correlation tells by how much; the line is
    given for the noise that it was before. An image smoothed so much that nothing is left there
    has gain 0, like one that never had noise.
    """
    level, darkest, samples = take_samples(images, seen)
    if (
        not any(sample.seen.any() for sample in samples)
        or not stencil_of(samples[0].values.shape).taps
    ):
        return Noise(gain=0.0, intercept=0.0)
    samples = without_spikes(samples, darkest - level)
    bins = take_bins(samples)
    spectrum, loss = _correlation(samples)
    none = Noise(gain=0.0, intercept=0.0, darkest=darkest, spectrum=spectrum)
    step = step_of(samples)
    rounding = step**2 / 12
    reach = [len(lags) - 1 for lags in spectrum.correlations]
    smooth = loss > _LOST or (min(reach) >= 2 and max(reach) >= 3)  # as structure is, not noise
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
        gain_uncertainty=math.sqrt(line.covariance[0, 0]),
        zero_uncertainty=line.zero_uncertainty,
    )


def _correlation(samples: list[Sample]) -> tuple[Spectrum, float]:
    """Return the spectrum of the noise and what it lost in the corner.

    Along each axis the autocovariance of the other two axes' differences is taken in the darker
    half of the voxels. Its sum is the power of noise at frequency 0, which neither interpolation
    nor smoothing changes; its differences' that in the corner. What is the same however far apart
    is a fixed pattern of the camera's, not noise that reaches so far.
    """
    found: list[tuple[float, ...]] = [(), (), ()]
    loss = 1.0
    shape = samples[0].values.shape
    stencil = stencil_of(shape)
    middle = float(np.median(np.concatenate([s.values[s.seen][::7] for s in samples])))
    for axis, taps in stencil.taps.items():
        others = across(shape, axis)
        if shape[axis] < 2 * _LAGS or not others.taps:
            continue
        power, count = _autocovariance(samples, axis, others, middle)
        power -= min(max(power[-1], 0.0), 0.5 * power[0])
        if not power[0] > 0:
            continue
        # What few voxels show may be chance; the differences make neighbours less independent.
        least = max(_WHITE, _CHANCE / math.sqrt(max(count, 1.0)))
        correlated = power > least * power[0]
        reach = int(np.argmin(correlated)) - 1 if not correlated.all() else _LAGS
        if reach:
            power = np.where(np.arange(power.size) <= reach + 1, power, 0)
            found[axis] = tuple(float(p) for p in power[1 : reach + 2] / power[0])
            flat = max(power[0] + 2 * power[1:].sum(), 0.0)
            loss *= flat / max(corner_power(power, taps), 1e-9 * power[0])
    return Spectrum(correlations=(found[0], found[1], found[2])), loss


def _autocovariance(
    samples: list[Sample], axis: int, others: Stencil, middle: float
) -> tuple[Float64Array, float]:
    """Return the autocovariance along an axis, at 0 to 4 voxels, of other axes' differences.

    And of how many pairs of voxels it is.
    """
    total, count = np.zeros(_LAGS + 1), np.zeros(_LAGS + 1)
    for sample in samples:
        value = others.differences(sample.values)
        dark = others.believed(sample.seen) & (others.means(sample.values) <= middle)
        most = 3 / 1.645 * float(np.quantile(np.abs(value[dark]), 0.9)) if dark.any() else 0.0
        value = np.where(dark, value.clip(-most, most) if most > 0 else value, 0)
        for lag in range(_LAGS + 1):
            a, b = _apart(axis, lag, value.shape[axis])
            total[lag] += float((value[a] * value[b]).sum(dtype=np.float64))
            count[lag] += np.count_nonzero(dark[a] & dark[b])
    return total / np.maximum(count, 1), float(count[0])


def _apart(axis: int, lag: int, n: int) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """Return slices that pair the voxels of an axis of n with those some voxels on."""
    around = (slice(None),) * axis
    return (*around, slice(None, n - lag)), (*around, slice(lag, None))
