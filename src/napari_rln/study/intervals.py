"""Mean of a few scores with its spread, and its bootstrap interval."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from napari_rln.core.volume import Float64Array

FEWEST = 3
"""Smallest number of values with an interval: of two values it would be the two values."""

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
    mean, sd
        Their mean, and standard deviation (n - 1); NaN of too few.
    lower, upper
        Bounds of the 95 % percentile bootstrap interval of the mean; NaN of fewer than
        :data:`FEWEST` values.
    """

    n: int = 0
    mean: float = math.nan
    sd: float = math.nan
    lower: float = math.nan
    upper: float = math.nan

    @property
    def bounded(self) -> bool:
        """Whether there were enough values for an interval."""
        return self.n >= FEWEST

    def includes(self, value: float) -> bool:
        """Tell whether the interval includes a value; false without an interval."""
        return self.lower <= value <= self.upper


def interval(values: Iterable[float | None]) -> Interval:
    """Return mean, spread and bootstrap interval of the finite ones of some values.

    The same values give the same interval, in whatever order they come.
    """
    x = np.array(sorted(v for v in values if v is not None and math.isfinite(v)))
    if x.size == 0:
        return Interval()
    mean, sd = float(x.mean()), float(x.std(ddof=1)) if x.size > 1 else math.nan
    if x.size < FEWEST:
        return Interval(n=x.size, mean=mean, sd=sd)
    # Deviations, so that equal values have bounds equal to their mean, without a rounding error.
    means = mean + _weights(x.size) @ (x - mean)
    lower, upper = np.quantile(means, ((1 - COVERAGE) / 2, (1 + COVERAGE) / 2))
    return Interval(n=x.size, mean=mean, sd=sd, lower=float(lower), upper=float(upper))


def rounded(value: float) -> str:
    """Return a number with about three digits, without an exponent if it is large."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


@lru_cache(maxsize=4)
def _weights(n: int) -> Float64Array:
    """Return the weight of each of n values in each resampled mean, (resamples, n)."""
    random = np.random.default_rng((_SEED, n))
    return random.multinomial(n, np.full(n, 1 / n), size=_RESAMPLES) / n
