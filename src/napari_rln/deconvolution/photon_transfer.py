"""The photon transfer line: variance of an image against its brightness."""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from napari_rln.core.volume import Float64Array, FloatArray
from napari_rln.deconvolution.noise_residuals import Sample, groups_of, stencil_of

_WIDTH = 3.0  # width of a bin, in standard deviations of a local mean
_BRIGHT = 10.0  # photons from which residuals are normally distributed
_QUARTILE = 1.15035  # standard deviations that contain three quarters of normal values
_FLOOR = 0.005  # fraction of voxels at the lowest value from which noise counts as clipped
_MOST = 1e6  # highest plausible number of photons in a voxel
_PRECISE = 0.05  # highest relative uncertainty of a precise gain


@dataclass(frozen=True, kw_only=True)
class Bins:
    """Variances in bins of the local mean, relative to a level, (N,) each.

    ``count`` is the number of independent residuals, ``lowest`` the fraction of voxels at the
    lowest value.
    """

    mean: Float64Array
    variance: Float64Array
    count: Float64Array
    lowest: Float64Array


@dataclass(frozen=True, kw_only=True)
class Line:
    """A line fitted to bins, and its uncertainty, relative to a level."""

    slope: float
    at_level: float
    covariance: Float64Array

    @property
    def zero(self) -> float:
        """Value at which the line is 0, relative to the level."""
        return -self.at_level / self.slope if self.slope else math.inf

    @property
    def zero_uncertainty(self) -> float:
        """Standard deviation of :attr:`zero`."""
        if not self.slope:
            return math.inf
        gradient = np.array([self.at_level / self.slope**2, -1 / self.slope])
        return float(np.sqrt(gradient @ self.covariance @ gradient))


def take_bins(samples: list[Sample]) -> Bins | None:
    """Return the variance in bins of the local mean; none without variance.

    Bins narrower than the noise of a local mean are merged: background sorted by its noise would
    not show how the variance grows with light.
    """
    stencil = stencil_of(samples[0].values.shape)
    inner = stencil.inner()
    valid = [stencil.valid(sample.mask) for sample in samples]

    def pooled(parts: list[FloatArray]) -> FloatArray:
        return np.concatenate([part[mask] for part, mask in zip(parts, valid, strict=True)])

    residuals = pooled([stencil.differences(s.values) for s in samples])
    if not residuals.any():
        return None
    mean = pooled([stencil.means(s.values) for s in samples])
    weighted = pooled([stencil.smoothed(s.values) for s in samples])
    centre = pooled([s.values[inner] for s in samples])
    lowest = min(float(s.values[s.mask].min()) for s in samples if s.mask.any())
    groups: list[npt.NDArray[np.intp]] = []
    start = -math.inf
    for group in groups_of(mean):
        level = float(mean[group].mean(dtype=np.float64))
        noise = math.sqrt(float(np.mean(residuals[group] ** 2)) / stencil.voxels)
        if groups and level - start < _WIDTH * noise:
            groups[-1] = np.concatenate([groups[-1], group])
        else:
            groups.append(group)
            start = level
    return Bins(
        mean=np.array([weighted[g].mean(dtype=np.float64) for g in groups]),
        variance=np.array([_variance(residuals[g], centre[g], lowest) for g in groups]),
        count=np.array([g.size for g in groups]) / stencil.redundancy,
        lowest=np.array([(centre[g] == lowest).mean() for g in groups]),
    )


def _variance(residuals: FloatArray, values: FloatArray, lowest: float) -> float:
    """Return the variance of residuals.

    With enough light for a normal distribution it is computed from their middle three quarters:
    the others include edges of structure and undetected spikes.
    """
    variance = float(np.mean(residuals.astype(np.float64) ** 2))
    light = float(values.mean(dtype=np.float64)) - lowest
    if light**2 < _BRIGHT * variance:
        return variance
    return float(np.quantile(np.abs(residuals), 0.75) / _QUARTILE) ** 2


def is_noiseless(bins: Bins, step: float) -> bool:
    """Return whether bright bins have no more variance than rounding to steps.

    Without steps: less than the photon noise at the capacity of any detector.
    """
    lit = bins.mean > bins.mean[0] + max(3 * step, 0.01 * float(np.ptp(bins.mean)))
    if not lit.any():
        return False
    variance, count = bins.variance[lit], bins.count[lit]
    if float(np.average(variance, weights=count)) < 2 * step**2 / 12:
        return True
    rise = bins.mean[lit] - bins.mean[0]
    return float(np.median(rise**2 / np.maximum(variance, 1e-300))) > _MOST


def fit_line(bins: Bins, darkest: float, gain: float | None) -> Line:
    """Return the line through bin variances.

    Bins with a fraction of voxels at the lowest value may have clipped noise; they are used only
    if the line is not precise without them. The line's zero is not above the darkest voxels,
    unless its slope is so precise that read noise must explain voxels so dark.
    """
    if gain is not None:
        return _through(bins, gain)
    line = _fit(bins)
    calm = bins.lowest < _FLOOR
    if not calm.all() and calm.sum() >= 3:
        unclipped = _fit(Bins(**{name: values[calm] for name, values in vars(bins).items()}))
        if 0 < math.sqrt(unclipped.covariance[0, 0]) < _PRECISE * unclipped.slope:
            line = unclipped
    deviation = math.sqrt(line.covariance[0, 0])
    above = darkest < line.zero < darkest + 3 * line.zero_uncertainty
    if line.slope <= 2 * deviation or (above and line.slope < deviation / _PRECISE):
        return _from(bins, darkest)
    return line


def _fit(bins: Bins) -> Line:
    """Return the weighted fit; a variance of n residuals has a relative precision of sqrt(2 / n).

    Structure as fine as noise, and pixels of different gain, add a variance that grows with the
    square of the light: where a parabola fits much better, its linear part is the noise.
    """
    if bins.mean.size < 2 or np.ptp(bins.mean) == 0:
        return _through(bins, 0.0)
    line, misfit = _polynomial(bins, 1)
    if bins.mean.size < 5 or misfit < 2:
        return line
    parabola, better = _polynomial(bins, 2)
    return parabola if better < 0.5 * misfit and parabola.slope > 0 else line


def _polynomial(bins: Bins, degree: int) -> tuple[Line, float]:
    """Return the linear part of the fit at the darkest bin, and chi squared per bin."""
    start = float(bins.mean[0])
    powers = np.vander(bins.mean - start, degree + 1, increasing=True)
    scale = np.maximum(np.abs(powers).max(axis=0), 1e-300)
    powers = powers / scale
    total = float(np.average(bins.variance, weights=bins.count))
    fitted = np.full_like(bins.variance, total)
    covariance = np.eye(degree + 1)
    for _ in range(8):  # weights follow the fit, so that bright bins do not dominate
        weight = bins.count / 2 / np.maximum(fitted, 1e-3 * total + 1e-100) ** 2
        covariance = np.linalg.pinv(powers.T * weight @ powers)
        solution = covariance @ (powers.T @ (weight * bins.variance))
        fitted = powers @ solution
    misfit = float((weight * (fitted - bins.variance) ** 2).sum())
    misfit /= max(bins.mean.size - degree - 1, 1)
    covariance = covariance[:2, :2] * max(misfit, 1.0) / np.outer(scale[:2], scale[:2])
    at_start, slope = solution[:2] / scale[:2]
    # From (value at the darkest bin, slope) to (slope, value at the level).
    change = np.array([[0.0, 1.0], [1.0, -start]])
    line = Line(
        slope=float(slope),
        at_level=float(at_start - slope * start),
        covariance=change @ covariance @ change.T,
    )
    return line, misfit


def _through(bins: Bins, slope: float) -> Line:
    """Return the fit with a fixed slope."""
    weight = bins.count / np.maximum(bins.variance, 1e-3 * bins.variance.max() + 1e-100) ** 2
    at_level = float(np.average(bins.variance - slope * bins.mean, weights=weight))
    covariance = np.array([[0.0, 0.0], [0.0, 2 / weight.sum()]])
    return Line(slope=slope, at_level=at_level, covariance=covariance)


def _from(bins: Bins, zero: float) -> Line:
    """Return the fit through zero variance at a value, such as that of the darkest voxels.

    Its uncertainty is that of the zero, due to read noise: the distance of the darkest voxels from
    the mean.
    """
    variance = np.maximum(bins.variance, 1e-6 * bins.variance.max() + 1e-100)
    above = np.maximum(bins.mean - zero, 1e-6 * np.sqrt(variance))
    slope = float(np.average(variance / above, weights=bins.count * (above / variance) ** 2))
    middle = float(np.average(bins.mean, weights=bins.count))
    covariance = slope**2 * np.array([[1.0, -middle], [-middle, middle**2]])
    return Line(slope=slope, at_level=-slope * zero, covariance=covariance)
