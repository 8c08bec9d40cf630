"""What an image tells about its own noise and background, and splitting it into independent parts.

Cameras are described by the photon transfer line: the variance of a voxel is
``gain * value + intercept``. Its slope is the camera's gain, its intercept holds both the
read noise (which raises it) and the camera's offset (which lowers it).
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from napari_rln.errors import RlnError
from napari_rln.unmeasured import constant_planes, filled, find_levels, saturated
from napari_rln.volume import FloatArray

Mask = npt.NDArray[np.bool_]
Float64Array = npt.NDArray[np.float64]

_SAMPLE = 2**20  # voxels to tell noise by: more would not move the answer
_CHUNK = (32, 64, 64)  # voxels of a part of a large image that is looked at
_BINS = 24
_LEAST = 50  # residuals in a bin
_WIDTH = 3.0  # of a bin, in standard deviations of a local mean
_BRIGHT = 10.0  # photons from which residuals are normally distributed
_QUARTILE = 1.15035  # standard deviations that three quarters of normal values are within
_SPIKE = 4.5  # standard deviations of a residual that noise does not reach
_DARKEST = 1e-4  # share of voxels that may be darker than the darkest: dead ones
_LAGS = 4  # voxels to follow correlated noise along an axis
_WHITE = 0.05  # correlation of neighbours up to which noise is called white
_LOST = 2000.0  # power lost in the corner beyond which nothing is left to tell noise by
_ALIKE = 1 + 2 * (4 / 9 + 1 / 36)  # residuals along an axis for one that is independent
_EMPTY = 1.5  # times the noise's variance up to which a part of an image is called empty
_FLOOR = 0.005  # share of voxels at the lowest value that noise was clipped in
_TOLD = 0.05  # relative uncertainty of a gain that is well known


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
    reach
        (z, y, x), how many voxels the noise reaches along an axis: 0 where neighbours are
        independent, 1 after a linear interpolation, more after a smoothing.
    """

    gain: float
    intercept: float
    darkest: float = math.inf
    gain_uncertainty: float = 0.0
    zero_uncertainty: float = 0.0
    reach: tuple[int, int, int] = (0, 0, 0)

    @property
    def zero(self) -> float:
        """The value, in image units, at which the variance is 0, never above the darkest voxels.

        That is the camera's offset less its read variance over its gain. Without a gain it is the
        darkest voxels' value.
        """
        at_line = -self.intercept / self.gain if self.gain > 0 else math.inf
        lowest = min(at_line, self.darkest)
        return lowest if math.isfinite(lowest) else 0.0

    @property
    def correlated(self) -> bool:
        """Whether the noise of neighbouring voxels is alike, as after an interpolation."""
        return any(self.reach)

    def variance(self, value: npt.ArrayLike) -> Float64Array:
        """Return the variance of voxels of an expected value: that of one photon or more."""
        line = self.gain * np.asarray(value, dtype=np.float64) + self.intercept
        return np.maximum(line, self.gain**2)

    def counts(self, image: npt.ArrayLike) -> Float64Array:
        """Return the image in photons, shifted so that its variance equals its mean.

        Snyder et al., J. Opt. Soc. Am. A 10, 1014 (1993): Gaussian read noise is taken for that
        of a few more photons.

        Raises
        ------
        RlnError
            If the gain is 0: without noise there is no telling what a photon is.
        """
        if self.gain <= 0:
            raise RlnError(
                f"the gain is {self.gain} image units per photon but must be above 0; give a gain, "
                "or an image that was not smoothed."
            )
        return np.maximum((np.asarray(image, dtype=np.float64) - self.zero) / self.gain, 0.0)


@dataclass(frozen=True, kw_only=True)
class _Sample:
    """A part of an image, relative to a level, and which of it are measurements."""

    values: FloatArray
    seen: Mask


@dataclass(frozen=True, kw_only=True)
class _Residuals:
    """Second differences of a sample where voxels have all neighbours, and what goes with them."""

    value: FloatArray
    mean: FloatArray
    believed: Mask


@dataclass(frozen=True, kw_only=True)
class _Bins:
    """Variances by local means, relative to a level, (N,) each.

    ``count`` is of independent residuals, ``lowest`` the share of voxels at the lowest value.
    """

    mean: Float64Array
    variance: Float64Array
    count: Float64Array
    lowest: Float64Array

    def chosen(self, which: Mask) -> Self:
        return replace(
            self,
            mean=self.mean[which],
            variance=self.variance[which],
            count=self.count[which],
            lowest=self.lowest[which],
        )


@dataclass(frozen=True, kw_only=True)
class _Line:
    """A line through bins and how well it is known, relative to a level."""

    slope: float
    at_level: float
    covariance: Float64Array

    @property
    def zero(self) -> float:
        return -self.at_level / self.slope

    @property
    def zero_uncertainty(self) -> float:
        towards = np.array([self.at_level / self.slope**2, -1 / self.slope])
        return float(np.sqrt(towards @ self.covariance @ towards))


def estimate_noise(
    *images: FloatArray,
    seen: Mask | Sequence[Mask] | None = None,
    gain: float | None = None,
) -> Noise:
    """Return the photon transfer line of an image, from its highest spatial frequencies.

    The second difference along every axis passes the corner of the spectrum, where no microscope
    passes an image; what is left there is noise. Its variance is collected in bins of the local
    mean, and the line fitted to them. Residuals of more than five standard deviations are hot
    voxels or cosmic rays, and whatever touches those, or voxels that are saturated, filled in or
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
    Noise that an interpolation or a smoothing made alike in neighbours is weaker in the corner.
    Along each axis, the other two differenced, its correlation tells by how much; the line is
    given for the noise that it was before. An image smoothed so much that nothing is left there
    has gain 0, like one that never had noise.
    """
    level, darkest, samples = _samples(images, seen)
    if not any(sample.seen.any() for sample in samples) or not _axes(samples[0].values):
        return Noise(gain=0.0, intercept=0.0)
    samples = _without_spikes(samples, darkest - level)
    bins = _bins(samples)
    reach, loss = _correlation(samples)
    none = Noise(gain=0.0, intercept=0.0, darkest=darkest, reach=reach)
    step = _step(samples)
    rounding = step**2 / 12
    if bins is None or loss > _LOST or _is_rounding(bins, step):
        return none
    if loss != 1:
        if float(np.median(bins.variance)) < 3 * rounding:
            return none
        bins = replace(bins, variance=loss * np.maximum(bins.variance - rounding, 0))
    line = _line(bins, darkest - level, gain)
    if not line.slope > 0:
        return replace(none, intercept=max(line.at_level, 0.0))
    return replace(
        none,
        gain=line.slope,
        intercept=line.at_level - line.slope * level,
        gain_uncertainty=math.sqrt(line.covariance[0, 0]),
        zero_uncertainty=line.zero_uncertainty,
    )


def _samples(
    images: Sequence[FloatArray], seen: Mask | Sequence[Mask] | None
) -> tuple[float, float, list[_Sample]]:
    """Return a level, the value of the darkest voxels, and parts of images less that level.

    Around a level float32 is exact enough, whatever the camera's offset.
    """
    room = max(_SAMPLE // len(images), math.prod(_CHUNK))
    parts = [
        (image[where], None if mask is None else mask[where])
        for image, mask in zip(images, _each(images, seen), strict=True)
        for where in _chunks(image, room)
    ]
    levels = find_levels(*[part for part, _ in parts])
    found = []
    for part, mask in parts:
        measured = ~filled(part, levels) & ~saturated(part, levels)
        measured[list(constant_planes(part))] = False
        found.append((part, measured if mask is None else measured & mask))
    known = np.concatenate([part[mask] for part, mask in found]).astype(np.float64)
    if not known.size:
        return 0.0, 0.0, []
    level = float(np.median(known[:: max(1, known.size // 2**18) | 1]))
    darkest = float(np.quantile(known, _DARKEST, method="lower"))
    samples = [
        _Sample(values=np.nan_to_num(part.astype(np.float64) - level).astype(np.float32), seen=mask)
        for part, mask in found
    ]
    return level, darkest, samples


def _chunks(image: FloatArray, room: int) -> list[tuple[slice, ...]]:
    """Return parts of an image that together have at most so many voxels, dark to bright ones."""
    if image.size <= room:
        return [(slice(None),) * image.ndim]
    starts = [range(0, max(n - c // 2, 1), c) for n, c in zip(image.shape, _CHUNK, strict=True)]
    chunks = [
        tuple(slice(a, a + c) for a, c in zip(corner, _CHUNK, strict=True))
        for corner in itertools.product(*starts)
    ]
    light = [float(np.nanmean(image[chunk][::2, ::4, ::4])) for chunk in chunks]
    count = max(1, room // math.prod(_CHUNK))
    picked = np.unique(np.linspace(0, len(chunks) - 1, count).round().astype(int))
    order = np.argsort(light)
    return [chunks[i] for i in order[picked]]


def _differenced(values: FloatArray, axes: Sequence[int]) -> FloatArray:
    """Return second differences along axes, of a voxel's variance where voxels are independent."""
    for axis in axes:
        a, b, c = _three(values, axis)
        values = (a - 2 * b + c) / np.float32(math.sqrt(6))
    return values


def _averaged(values: FloatArray, axes: Sequence[int]) -> FloatArray:
    """Return means of three voxels along axes, which second differences are orthogonal to."""
    for axis in axes:
        a, b, c = _three(values, axis)
        values = (a + b + c) / np.float32(3)
    return values


def _smoothed(values: FloatArray, axes: Sequence[int]) -> FloatArray:
    """Return means of three voxels along axes, each weighted as in the variance of a residual."""
    for axis in axes:
        a, b, c = _three(values, axis)
        values = (a + 4 * b + c) / np.float32(6)
    return values


def _three(values: npt.NDArray[Any], axis: int) -> list[npt.NDArray[Any]]:
    """Return the voxels before, at and after each voxel but the first and last along an axis."""
    around = (slice(None),) * axis
    ends = (slice(None, -2), slice(1, -1), slice(2, None))
    return [values[(*around, end)] for end in ends]


def _believed(seen: Mask, axes: Sequence[int]) -> Mask:
    """Return where all of three voxels along each of the axes are seen."""
    for axis in axes:
        a, b, c = _three(seen, axis)
        seen = a & b & c
    return seen


def _axes(values: npt.NDArray[Any]) -> list[int]:
    return [axis for axis, n in enumerate(values.shape) if n >= 3]


def _inner(values: npt.NDArray[Any]) -> tuple[slice, ...]:
    return tuple(slice(1, -1) if n >= 3 else slice(None) for n in values.shape)


def _without_spikes(samples: list[_Sample], darkest: float) -> list[_Sample]:
    """Return samples in which isolated voxels that noise does not explain count as not seen.

    A spike is told by the scale of the residuals in bins of the level beside it, which it is no
    part of. In the dark, where a photon is much, a few photons are no spike.
    """
    for _ in range(2):
        residuals = [_residuals(sample) for sample in samples]
        around = [_beside(sample.values) for sample in samples]
        value = np.concatenate([r.value[r.believed] for r in residuals])
        mean = np.concatenate([a[r.believed] for a, r in zip(around, residuals, strict=True)])
        if value.size < _LEAST:
            return samples
        x, limit = _limits(value, mean, darkest)
        kept = []
        for sample, residual, neighbours in zip(samples, residuals, around, strict=True):
            spike = np.abs(residual.value) > np.interp(neighbours, x, limit)
            seen = sample.seen.copy()
            seen[_inner(seen)] &= ~(spike & residual.believed)
            kept.append(_Sample(values=sample.values, seen=seen))
        samples = kept
    return samples


def _beside(values: FloatArray) -> FloatArray:
    """Return the least of the mean before and after each voxel along each axis.

    A hot voxel or a streak leaves one of them as it is, at the voxel and at those beside it.
    """
    axes = _axes(values)
    means = []
    for axis in axes:
        wide = _averaged(values, [a for a in axes if a != axis])
        before, _, after = _three(wide, axis)
        means.append((before + after) / np.float32(2))
    return np.asarray(np.minimum.reduce(means))


def _limits(
    value: FloatArray, mean: FloatArray, darkest: float
) -> tuple[Float64Array, Float64Array]:
    """Return local means, rising, and the residuals there that noise does not reach."""
    thin = slice(None, None, max(1, value.size // 2**18) | 1)
    value, mean = np.abs(value[thin]), mean[thin]
    x, limit = [], []
    for group in _groups(mean):
        size = value[group]
        scale = float(np.quantile(size, 0.9)) / 1.645
        if scale == 0:  # fewer photons than residuals
            scale = float(np.sqrt(np.mean(size**2, dtype=np.float64)))
        level = float(mean[group].mean(dtype=np.float64))
        photon = scale**2 / max(level - darkest, 0.2 * scale) if scale > 0 else 0.0
        x.append(level)
        limit.append(_SPIKE * scale + photon)
    return np.array(x), np.array(limit)


def _groups(mean: FloatArray) -> list[npt.NDArray[np.intp]]:
    """Return indices of bins of local means, rising.

    Bins of equal count are bins of background mostly; half of them, of equal range, reach up.
    """
    order = np.argsort(mean)
    edges = np.unique(
        np.concatenate(
            [
                np.linspace(0, mean.size, _BINS + 1).astype(int),
                np.searchsorted(mean[order], np.linspace(mean.min(), mean.max(), _BINS + 1)),
                [mean.size],
            ]
        )
    )
    groups = [order[a:b] for a, b in itertools.pairwise(edges) if b - a >= _LEAST]
    return groups if groups else [order]


def _residuals(sample: _Sample) -> _Residuals:
    axes = _axes(sample.values)
    return _Residuals(
        value=_differenced(sample.values, axes),
        mean=_averaged(sample.values, axes),
        believed=_believed(sample.seen, axes),
    )


def _bins(samples: list[_Sample]) -> _Bins | None:
    """Return the variance in bins of the local mean.

    Bins narrower than the noise of a local mean are joined: sorting background by its noise
    would tell nothing of how the variance grows with light.
    """
    axes = _axes(samples[0].values)
    residuals = [_residuals(s) for s in samples]
    value = np.concatenate([r.value[r.believed] for r in residuals])
    if not value.any():
        return None
    mean = np.concatenate([r.mean[r.believed] for r in residuals])
    weighted = np.concatenate(
        [_smoothed(s.values, axes)[r.believed] for s, r in zip(samples, residuals, strict=True)]
    )
    centre = np.concatenate(
        [s.values[_inner(s.values)][r.believed] for s, r in zip(samples, residuals, strict=True)]
    )
    lowest = min(float(s.values[s.seen].min()) for s in samples if s.seen.any())
    groups: list[npt.NDArray[np.intp]] = []
    start = -math.inf
    for group in _groups(mean):
        level = float(mean[group].mean(dtype=np.float64))
        noise = math.sqrt(float(np.mean(value[group] ** 2)) / 3 ** len(axes))
        if groups and level - start < _WIDTH * noise:
            groups[-1] = np.concatenate([groups[-1], group])
        else:
            groups.append(group)
            start = level
    return _Bins(
        mean=np.array([weighted[g].mean(dtype=np.float64) for g in groups]),
        variance=np.array([_variance(value[g], centre[g], lowest) for g in groups]),
        count=np.array([g.size for g in groups]) / _ALIKE ** len(axes),
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


def _correlation(samples: list[_Sample]) -> tuple[tuple[int, int, int], float]:
    """Return how many voxels the noise reaches along (z, y, x) and what it lost in the corner.

    Along each axis the autocorrelation of the other two axes' second differences is taken in the
    darker half of the voxels. Its sum is the power of noise at frequency 0, which neither
    interpolation nor smoothing changes; its second difference that in the corner. What is alike
    however far apart is a fixed pattern of the camera's, not noise that reaches so far.
    """
    reach, loss = [0, 0, 0], 1.0
    axes = _axes(samples[0].values)
    middle = float(np.median(np.concatenate([s.values[s.seen][::7] for s in samples])))
    for axis in axes:
        others = [a for a in axes if a != axis]
        if samples[0].values.shape[axis] < 2 * _LAGS or not others:
            continue
        power = _autocorrelation(samples, axis, others, middle)
        power -= min(max(power[-1], 0.0), 0.5 * power[0])
        if not power[0] > 0:
            continue
        alike = np.abs(power) > _WHITE * power[0]
        reach[axis] = int(np.argmin(alike)) - 1 if not alike.all() else _LAGS
        if reach[axis]:
            power = np.where(np.arange(power.size) <= reach[axis] + 1, power, 0)
            corner = (6 * power[0] - 8 * power[1] + 2 * power[2]) / 6
            loss *= max(power[0] + 2 * power[1:].sum(), 0) / max(corner, 1e-9 * power[0])
    return (reach[0], reach[1], reach[2]), loss


def _autocorrelation(
    samples: list[_Sample], axis: int, others: Sequence[int], middle: float
) -> Float64Array:
    """Return the autocovariance along an axis, at 0 to 4 voxels, of other axes' differences."""
    total, count = np.zeros(_LAGS + 1), np.zeros(_LAGS + 1)
    for sample in samples:
        twice = [a for a in others if sample.values.shape[a] >= 5]
        value = _differenced(_differenced(sample.values, others), twice)
        inner = tuple(
            slice(1, -1) if a in twice else slice(None) for a in range(sample.values.ndim)
        )
        mean = _averaged(sample.values, others)[inner]
        dark = _believed(_believed(sample.seen, others), twice) & (mean <= middle)
        most = 3 / 1.645 * float(np.quantile(np.abs(value[dark]), 0.9)) if dark.any() else 0.0
        value = np.where(dark, value.clip(-most, most) if most > 0 else value, 0)
        for lag in range(_LAGS + 1):
            a, b = _apart(axis, lag, value.shape[axis])
            total[lag] += float((value[a] * value[b]).sum(dtype=np.float64))
            count[lag] += np.count_nonzero(dark[a] & dark[b])
    return total / np.maximum(count, 1)


def _step(samples: list[_Sample]) -> float:
    """Return the step between values of an image of whole numbers, 0 where there is none."""
    values = np.concatenate([s.values[s.seen] for s in samples])
    values = values[:: max(1, values.size // 2**16) | 1]
    distinct = np.unique(values)
    if distinct.size < 2 or distinct.size > 0.25 * values.size:
        return 0.0
    step = float(np.diff(distinct).min())
    return step if step > 1e-6 * float(np.ptp(distinct)) else 0.0


def _is_rounding(bins: _Bins, step: float) -> bool:
    """Return whether there is no more noise than rounding makes, as bright as the image gets."""
    wide = float(np.ptp(bins.mean)) > 3 * step
    return wide and float(bins.variance.max()) < 2 * step**2 / 12


def _apart(axis: int, lag: int, n: int) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """Return slices that pair the voxels of an axis of n with those some voxels on."""
    around = (slice(None),) * axis
    return (*around, slice(None, n - lag)), (*around, slice(lag, None))


def _line(bins: _Bins, darkest: float, gain: float | None) -> _Line:
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


def _fit(bins: _Bins) -> _Line:
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


def _polynomial(bins: _Bins, degree: int) -> tuple[_Line, float]:
    """Return the fit's linear part at the level of the dark bins, and chi squared per bin."""
    start = float(bins.mean[0])
    powers = np.vander(bins.mean - start, degree + 1, increasing=True)
    scale = np.abs(powers).max(axis=0)
    powers = powers / scale
    total = float(np.average(bins.variance, weights=bins.count))
    fitted = np.full_like(bins.variance, total)
    covariance = np.eye(degree + 1)
    for _ in range(8):  # weights follow the fit, so that bright bins do not rule
        weight = bins.count / 2 / np.maximum(fitted, 1e-3 * total) ** 2
        covariance = np.linalg.pinv(powers.T * weight @ powers)
        solution = covariance @ (powers.T @ (weight * bins.variance))
        fitted = powers @ solution
    misfit = float((weight * (fitted - bins.variance) ** 2).sum())
    misfit /= max(bins.mean.size - degree - 1, 1)
    covariance = covariance[:2, :2] * max(misfit, 1.0) / np.outer(scale[:2], scale[:2])
    at_start, slope = solution[:2] / scale[:2]
    # From (value at the darkest bin, slope) to (slope, value at the level).
    turn = np.array([[0.0, 1.0], [1.0, -start]])
    line = _Line(
        slope=float(slope),
        at_level=float(at_start - slope * start),
        covariance=turn @ covariance @ turn.T,
    )
    return line, misfit


def _through(bins: _Bins, slope: float) -> _Line:
    """Return the line of a known slope."""
    weight = bins.count / np.maximum(bins.variance, 1e-3 * bins.variance.max() + 1e-300) ** 2
    at_level = float(np.average(bins.variance - slope * bins.mean, weights=weight))
    covariance = np.array([[0.0, 0.0], [0.0, 2 / weight.sum()]])
    return _Line(slope=slope, at_level=at_level, covariance=covariance)


def _from(bins: _Bins, zero: float) -> _Line:
    """Return the line of no variance at a value, such as that of the darkest voxels.

    Its uncertainty is that of where read noise puts it: as far as the darkest voxels lie below
    the mean.
    """
    above = np.maximum(bins.mean - zero, 1e-12 * np.ptp(bins.mean) + 1e-300)
    ratio = bins.variance / above
    slope = float(np.average(ratio, weights=bins.count / np.maximum(ratio, 1e-300) ** 2))
    middle = float(np.average(bins.mean, weights=bins.count))
    covariance = slope**2 * np.array([[1.0, -middle], [-middle, middle**2]])
    return _Line(slope=slope, at_level=-slope * zero, covariance=covariance)


@dataclass(frozen=True, kw_only=True)
class Background:
    """The light beside the object's: haze, autofluorescence, and with it the camera's offset.

    Attributes
    ----------
    level
        Image units.
    uncertainty
        By how much it may be wrong, image units.
    sure
        Whether the darkest parts are empty as far as noise lets one see.
    reason
        Why so, in a sentence.
    """

    level: float
    uncertainty: float
    sure: bool
    reason: str


def estimate_background(
    *images: FloatArray,
    seen: Mask | Sequence[Mask] | None = None,
    noise: Noise | None = None,
    zero: float | None = None,
) -> Background:
    """Return the level of the darkest parts of an image, and whether they are empty.

    The darkest parts are the 0.5th percentile of means over blocks of up to 4 x 8 x 8 voxels: low
    enough to leave dim structures their light, averaged enough not to follow the noise. Where the
    darkest blocks vary more than noise makes them, they hold structure. Then the background lies
    between them and the level without light, and as near to the former as noise explains the
    standard deviation within them: half-way, for blocks that vary twice as much as noise.

    Parameters
    ----------
    *images
        (Z, Y, X): the image, or samples of it.
    seen
        Bool, of the shape of the image, or one for each: which voxels can be believed. Those
        filled in where nothing was imaged, and absent planes, are left out in any case.
    noise
        Of the image; estimated when none.
    zero
        Level without light, such as the camera's offset; that of the noise when none.

    Notes
    -----
    An image without photon noise has nothing to compare with: its darkest parts are taken.
    """
    noise = estimate_noise(*images, seen=seen) if noise is None else noise
    zero = noise.zero if zero is None else zero
    parts = [
        _blocks(image, mask) for image, mask in zip(images, _measured(images, seen), strict=True)
    ]
    means, variances, counts = (np.concatenate(rows) for rows in zip(*parts, strict=True))
    if not means.size:
        return Background(
            level=zero, uncertainty=math.inf, sure=False, reason="no voxel can be believed"
        )
    level = float(np.percentile(means, 0.5))
    scatter = math.sqrt(float(np.median(variances / counts)))
    if not noise.gain > 0:
        return Background(
            level=level,
            uncertainty=scatter,
            sure=False,
            reason="there is no noise by which to tell whether the darkest parts are empty",
        )
    dark = means <= np.percentile(means, 5)
    excess = float(np.median(variances[dark] / noise.variance(means[dark])))
    if excess <= _EMPTY:
        return Background(
            level=max(level, zero),
            uncertainty=scatter,
            sure=True,
            reason="the darkest parts vary no more than noise makes them",
        )
    between = max(level - zero, 0.0)
    share = math.sqrt(_EMPTY / excess)
    return Background(
        level=zero + share * between,
        uncertainty=max(share, 1 - share) * between,
        sure=False,
        reason=(
            f"the darkest parts, {level:.6g}, vary {math.sqrt(excess):.1f} times as much as noise "
            f"makes them, so there is structure in them; without light it would be {zero:.6g}"
        ),
    )


def _measured(
    images: Sequence[FloatArray], seen: Mask | Sequence[Mask] | None
) -> list[Mask | None]:
    """Return which voxels of images are measurements, none where all are."""
    chunks = [image[where] for image in images for where in _chunks(image, _SAMPLE)]
    levels = replace(find_levels(*chunks), saturation=None)
    measured: list[Mask | None] = []
    for image, mask in zip(images, _each(images, seen), strict=True):
        absent = list(constant_planes(image))
        unknown = bool(np.isnan(image.sum(dtype=np.float64)))
        if mask is None and levels.fill is None and not absent and not unknown:
            measured.append(None)
            continue
        known = ~filled(image, levels)
        known[absent] = False
        measured.append(known if mask is None else known & mask)
    return measured


def _each(
    images: Sequence[FloatArray], seen: Mask | Sequence[Mask] | None
) -> Sequence[Mask | None]:
    """Return a mask or none for each image."""
    if seen is None:
        return [None] * len(images)
    return [seen] if isinstance(seen, np.ndarray) else seen


def _blocks(
    image: FloatArray, seen: Mask | None
) -> tuple[Float64Array, Float64Array, Float64Array]:
    """Return mean, variance and number of the voxels of blocks of which half or more are seen."""
    sizes = tuple(min(n, block) for n, block in zip(image.shape, (4, 8, 8), strict=True))
    whole = tuple(slice(n - n % s) for n, s in zip(image.shape, sizes, strict=True))
    z, y, x = (n // s for n, s in zip(image.shape, sizes, strict=True))

    def total(values: npt.NDArray[Any]) -> Float64Array:
        blocks = values[whole].reshape(z, sizes[0], y, sizes[1], x, sizes[2])
        sums: Float64Array = blocks.sum((1, 3, 5), dtype=np.float64).ravel()
        return sums

    size = math.prod(sizes)
    level = image.dtype.type(np.nanmedian(image[::4, ::8, ::8]))  # sums of squares stay exact
    above = image - level
    if seen is not None:
        above = np.where(seen, above, 0)
    count = np.full(z * y * x, float(size)) if seen is None else total(seen)
    use = count >= size / 2
    count = count[use]
    mean = total(above)[use] / count
    variance = np.maximum(total(above**2)[use] / count - mean**2, 0)
    return mean + float(level), variance * count / np.maximum(count - 1, 1), count


def split(
    image: FloatArray, noise: Noise, share: float, seed: int
) -> tuple[FloatArray, FloatArray]:
    """Return two images of independent noise, holding ``share`` and ``1 - share`` of the photons.

    Every photon is sent to one of the two by chance (binomial thinning): both are again Poisson,
    and independent of each other.

    Parameters
    ----------
    image
        (Z, Y, X) in camera units.
    noise
        Its photon transfer line, with a gain above 0.
    share
        Share of the first, between 0 and 1.
    seed
        Of the random numbers.

    Returns
    -------
    tuple of ndarray
        (Z, Y, X) float32 each, in photons.
    """
    rng = np.random.default_rng(seed)
    counts = noise.counts(image)
    whole = np.floor(counts + rng.random(counts.shape)).astype(np.int64)
    first = rng.binomial(whole, share)
    return first.astype(np.float32), (whole - first).astype(np.float32)
