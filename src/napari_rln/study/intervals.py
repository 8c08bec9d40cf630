"""Mean of a few scores with its spread, and its bootstrap interval."""

import math
from collections import defaultdict
from collections.abc import Hashable, Iterable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy.special import stdtrit

from napari_rln.core.volume import Float64Array

FEWEST = 3
"""Smallest number of objects with an interval: of two values it would be the two values."""

COVERAGE = 0.95
"""Coverage of the intervals."""

_RESAMPLES = 2000
_SEED = 20


@dataclass(frozen=True, kw_only=True)
class Interval:
    """Mean, standard deviation and bootstrap interval of the mean.

    Attributes
    ----------
    n
        Number of finite values.
    objects
        Number of independent objects that they are of.
    mean, sd
        Their mean, and standard deviation (n - 1); NaN of too few.
    lower, upper
        Bounds of the 95 % bootstrap interval of the mean, over the objects; NaN of fewer than
        :data:`FEWEST` objects.
    """

    n: int = 0
    objects: int = 0
    mean: float = math.nan
    sd: float = math.nan
    lower: float = math.nan
    upper: float = math.nan

    @property
    def bounded(self) -> bool:
        """Whether there were enough objects for an interval."""
        return self.objects >= FEWEST

    def includes(self, value: float) -> bool:
        """Tell whether the interval includes a value; false without an interval."""
        return self.lower <= value <= self.upper


def interval(values: Iterable[float | None], objects: Iterable[Hashable] | None = None) -> Interval:
    """Return mean, spread and bootstrap interval of the finite ones of some values.

    The percentiles of the resampled means include the true mean too rarely when there are few
    objects, of six in 86 of 100 cases. They are widened by what Student's t and the degrees of
    freedom add for a normal distribution. The same values give the same interval, in whatever order
    they come.

    Parameters
    ----------
    values
        The values.
    objects
        What each value is of; by default, each of its own. Values of one object, such as those of
        its images through several PSFs, rise and fall together: whole objects are drawn, not values
        (a cluster bootstrap).
    """
    groups: defaultdict[Hashable, list[float]] = defaultdict(list)
    pairs = enumerate(values) if objects is None else zip(objects, values, strict=True)
    for which, value in pairs:
        if value is not None and math.isfinite(value):
            groups[which].append(value)
    own = sorted(sorted(group) for group in groups.values())
    x = np.array(sorted(value for group in own for value in group))
    if x.size == 0:
        return Interval()
    mean, sd = float(x.mean()), float(x.std(ddof=1)) if x.size > 1 else math.nan
    if len(own) < FEWEST:
        return Interval(n=x.size, objects=len(own), mean=mean, sd=sd)
    # Deviations, so that equal values have bounds equal to their mean, without a rounding error.
    off = np.array([sum(value - mean for value in group) for group in own])
    drawn = _draws(len(own))
    means = mean + drawn @ off / (drawn @ np.array([len(group) for group in own]))
    ends = np.quantile(means, ((1 - COVERAGE) / 2, (1 + COVERAGE) / 2))
    lower, upper = (mean + _widening(len(own)) * float(end - mean) for end in ends)
    return Interval(n=x.size, objects=len(own), mean=mean, sd=sd, lower=lower, upper=upper)


def rounded(value: float) -> str:
    """Return a number with about three digits, without an exponent if it is large."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _widening(n: int) -> float:
    """Return the factor on the half widths of an interval of n objects."""
    end = (1 + COVERAGE) / 2
    return float(stdtrit(n - 1, end) / stdtrit(np.inf, end) * math.sqrt(n / (n - 1)))


@lru_cache(maxsize=4)
def _draws(n: int) -> Float64Array:
    """Return how often each of n objects is in each resampled set, (resamples, n)."""
    random = np.random.default_rng((_SEED, n))
    return random.multinomial(n, np.full(n, 1 / n), size=_RESAMPLES).astype(float)
