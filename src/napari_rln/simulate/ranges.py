"""Ranges of settings, from which a value is drawn for each volume."""

from typing import Any

import numpy as np

from napari_rln.core.errors import RlnError

Range = tuple[float, float]
"""Lowest and highest value."""


def check_range(settings: Any, name: str, least: float, most: float = 1e7) -> None:
    """Raise an RlnError unless a field of the settings is a range within the limits."""
    span = getattr(settings, name)
    whole = isinstance(span, tuple) and len(span) == 2
    if not (whole and all(isinstance(v, int | float) for v in span)) or not (
        least <= span[0] <= span[1] <= most
    ):
        raise RlnError(
            f"`{name}` is {span}; give its lowest and highest value, between {least:g} and "
            f"{most:g}."
        )


def drawn(rng: np.random.Generator, span: Range, *, log: bool = False) -> float:
    """Return a random value of a range, uniform or log-uniform."""
    low, high = span
    fraction = float(rng.random())
    return low * (high / low) ** fraction if log else low + (high - low) * fraction
