"""Times left, steadied for display."""

import numpy as np
import pytest

from napari_rln.gui.steady_time import SteadyTime


def test_noisy_estimates_give_a_time_that_falls_in_coarse_steps():
    rng, left = np.random.default_rng(4), SteadyTime()
    shown = []
    for now in range(600):
        true = 600.0 - now
        shown.append(left.update(true * rng.uniform(0.7, 1.3), 1000.0 + now))
    steps = np.diff(shown)
    assert (steps <= 0).all()
    assert len(set(shown)) < 40
    after = np.array(shown[60:540])  # once it has seen enough, and before the end
    true = np.arange(540, 60, -1)
    assert (np.abs(after - true) <= 0.2 * true + 30).all()


def test_what_takes_much_longer_is_shown_and_a_pause_starts_anew():
    left = SteadyTime()
    assert left.update(60, 0.0) == 60
    shown = [left.update(240, float(now)) for now in range(1, 90)]
    assert shown[0] == 60  # one estimate is not believed
    assert shown[-1] == pytest.approx(240, abs=15)
    assert left.update(None, 91.0) is None
    assert left.update(7, 92.0) == 7
