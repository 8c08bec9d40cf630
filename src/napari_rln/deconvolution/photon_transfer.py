"""The photon transfer line: how the variance of an image grows with its brightness."""

import math
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import numpy.typing as npt

from napari_rln.core.volume import FloatArray
from napari_rln.deconvolution.noise_residuals import (
    Float64Array,
    Mask,
    Sample,
    groups_of,
    stencil_of,
)

_WIDTH = 3.0  # of a bin, in standard deviations of a local mean
_BRIGHT = 10.0  # photons from which residuals are normally distributed
_QUARTILE = 1.15035  # standard deviations that three quarters of normal values are within
_FLOOR = 0.005  # share of voxels at the lowest value that noise was clipped in
_MOST = 1e6  # photons in a voxel beyond which there was no noise
_TOLD = 0.05  # relative uncertainty of a gain that is well known


@dataclass(frozen=True, kw_only=True)
class Bins:
    """Variances by local means, relative to a level, (N,) each.

    ``count`` is of independent residuals, ``lowest`` the share of voxels at the lowest value.
    """

    mean: Float64Array
    variance: Float64Array
    count: Float64Array
    lowest: Float64Array

    def chosen(self, which: Mask) -> Self:
        """Return some of the bins."""
        return replace(
            self,
            mean=self.mean[which],
            variance=self.variance[which],
            count=self.count[which],
            lowest=self.lowest[which],
        )


@dataclass(frozen=True, kw_only=True)
class Line:
    """A line through bins and how well it is known, relative to a level."""

    slope: float
    at_level: float
    covariance: Float64Array

    @property
    def zero(self) -> float:
        """Where the line is 0, relative to the level."""
        return -self.at_level / self.slope if self.slope else math.inf

    @property
    def zero_uncertainty(self) -> float:
        """Standard deviation of :attr:`zero`."""
        if not self.slope:
            return math.inf
        towards = np.array([self.at_level / self.slope**2, -1 / self.slope])
        return float(np.sqrt(towards @ self.covariance @ towards))


def take_bins(samples: list[Sample]) -> Bins | None:
    """Return the variance in bins of the local mean, none where there is no variance.

    Bins narrower than the noise of a local mean are joined: sorting background by its noise
    would tell nothing of how the variance grows with light.
    """
    stencil = stencil_of(samples[0].values.shape)
    inner = stencil.inner()
    believed = [stencil.believed(sample.seen) for sample in samples]

    def pooled(parts: list[FloatArray]) -> FloatArray:
        return np.concatenate([part[mask] for part, mask in zip(parts, believed, strict=True)])

    residuals = pooled([stencil.differences(s.values) for s in samples])
    if not residuals.any():
        return None
    mean = pooled([stencil.means(s.values) for s in samples])
    weighted = pooled([stencil.smoothed(s.values) for s in samples])
    centre = pooled([s.values[inner] for s in samples])
    lowest = min(float(s.values[s.seen].min()) for s in samples if s.seen.any())
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
        count=np.array([g.size for g in groups]) / stencil.alike,
        lowest=np.array([(centre[g] == lowest).mean() for g in groups]),
    )


def _variance(residuals: FloatArray, values: FloatArray, lowest: float) -> float:
    """Return the variance of residuals.

    Where there is light enough for them to be normally distributed it is told by their middle
    three quarters: edges of structure, and spikes that none could tell, are in the rest.
    """
    variance = float(np.mean(residuals.astype(np.float64) ** 2))
    light = float(values.mean(dtype=np.float64)) - lowest
    if light**2 < _BRIGHT * variance:
        return variance
    return float(np.quantile(np.abs(residuals), 0.75) / _QUARTILE) ** 2


def is_noiseless(bins: Bins, step: float) -> bool:
    """Return whether where there is light there is no more noise than rounding to steps makes.

    Or, in an image of no steps, less than that of any light that a detector could hold.
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

    Where a share of voxels is at the lowest value, noise may have been cut off; such bins count
    only if the line is not well known without them. The variance is not 0 above the darkest
    voxels, unless bright voxels tell the slope so well that read noise must make them so dark.
    """
    if gain is not None:
        return _through(bins, gain)
    line = _fit(bins)
    calm = bins.lowest < _FLOOR
    if not calm.all() and calm.sum() >= 3:
        unclipped = _fit(bins.chosen(calm))
        if 0 < math.sqrt(unclipped.covariance[0, 0]) < _TOLD * unclipped.slope:
            line = unclipped
    deviation = math.sqrt(line.covariance[0, 0])
    above = darkest < line.zero < darkest + 3 * line.zero_uncertainty
    if line.slope <= 2 * deviation or (above and line.slope < deviation / _TOLD):
        return _from(bins, darkest)
    return line


def _fit(bins: Bins) -> Line:
    """Return the best line, each variance known to a relative precision of sqrt(2 / n).

    Structure that is too fine to be told from noise, and pixels of unlike gain, add a variance
    that grows with the square of the light: where a parabola fits much better, its linear part
    is the noise.
    """
    if bins.mean.size < 2 or np.ptp(bins.mean) == 0:
        return _through(bins, 0.0)
    line, misfit = _polynomial(bins, 1)
    if bins.mean.size < 5 or misfit < 2:
        return line
    parabola, better = _polynomial(bins, 2)
    return parabola if better < 0.5 * misfit and parabola.slope > 0 else line


def _polynomial(bins: Bins, degree: int) -> tuple[Line, float]:
    """Return the fit's linear part at the level of the dark bins, and chi squared per bin."""
    start = float(bins.mean[0])
    powers = np.vander(bins.mean - start, degree + 1, increasing=True)
    scale = np.maximum(np.abs(powers).max(axis=0), 1e-300)
    powers = powers / scale
    total = float(np.average(bins.variance, weights=bins.count))
    fitted = np.full_like(bins.variance, total)
    covariance = np.eye(degree + 1)
    for _ in range(8):  # weights follow the fit, so that bright bins do not rule
        weight = bins.count / 2 / np.maximum(fitted, 1e-3 * total + 1e-100) ** 2
        covariance = np.linalg.pinv(powers.T * weight @ powers)
        solution = covariance @ (powers.T @ (weight * bins.variance))
        fitted = powers @ solution
    misfit = float((weight * (fitted - bins.variance) ** 2).sum())
    misfit /= max(bins.mean.size - degree - 1, 1)
    covariance = covariance[:2, :2] * max(misfit, 1.0) / np.outer(scale[:2], scale[:2])
    at_start, slope = solution[:2] / scale[:2]
    # From (value at the darkest bin, slope) to (slope, value at the level).
    turn = np.array([[0.0, 1.0], [1.0, -start]])
    line = Line(
        slope=float(slope),
        at_level=float(at_start - slope * start),
        covariance=turn @ covariance @ turn.T,
    )
    return line, misfit


def _through(bins: Bins, slope: float) -> Line:
    """Return the line of a known slope."""
    weight = bins.count / np.maximum(bins.variance, 1e-3 * bins.variance.max() + 1e-100) ** 2
    at_level = float(np.average(bins.variance - slope * bins.mean, weights=weight))
    covariance = np.array([[0.0, 0.0], [0.0, 2 / weight.sum()]])
    return Line(slope=slope, at_level=at_level, covariance=covariance)


def _from(bins: Bins, zero: float) -> Line:
    """Return the line of no variance at a value, such as that of the darkest voxels.

    Its uncertainty is that of where read noise puts it: as far as the darkest voxels lie below
    the mean.
    """
    variance = np.maximum(bins.variance, 1e-6 * bins.variance.max() + 1e-100)
    above = np.maximum(bins.mean - zero, 1e-6 * np.sqrt(variance))
    slope = float(np.average(variance / above, weights=bins.count * (above / variance) ** 2))
    middle = float(np.average(bins.mean, weights=bins.count))
    covariance = slope**2 * np.array([[1.0, -middle], [-middle, middle**2]])
    return Line(slope=slope, at_level=-slope * zero, covariance=covariance)
