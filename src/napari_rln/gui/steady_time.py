"""Time left of long work, steadied for display."""

import math

_MEMORY_S = 15.0  # over which the end of the work is averaged
_RISE = 1.25  # factor by which the time must have risen before more is shown
# Times in seconds, and the steps in which times up to them are shown.
_STEPS = ((10, 1), (60, 5), (180, 15), (1800, 60), (7200, 300))
_LONGEST_STEP = 1800


class SteadyTime:
    """Time left, from estimates that vary: averaged, in coarse steps, and seldom rising."""

    def __init__(self) -> None:
        self._end: float | None = None  # expected, averaged
        self._at = 0.0  # of the last estimate
        self._shown = math.inf

    def update(self, seconds: float | None, now: float) -> float | None:
        """Return the seconds left to show, by another estimate at a time; None for none.

        The next one after None starts anew.
        """
        if seconds is None:
            self._end, self._shown = None, math.inf
            return None
        end = now + seconds
        weight = 1 - math.exp(-(now - self._at) / _MEMORY_S)
        self._end = end if self._end is None else self._end + weight * (end - self._end)
        self._at = now
        left = max(self._end - now, 0.0)
        if left < self._shown or left > _RISE * self._shown:
            step = next((step for most, step in _STEPS if left <= most), _LONGEST_STEP)
            self._shown = step * math.ceil(left / step)
        return self._shown
