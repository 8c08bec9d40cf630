"""Light in an image from beyond its field of view.

A Richardson-Lucy deconvolution on an extended grid estimates it with the object. Residuals of
results need it, independent of a method's number of iterations: it is taken once it has converged.
"""

import numpy as np

from napari_rln.core.volume import FloatArray, Volume
from napari_rln.deconvolution.calibration import Calibration
from napari_rln.deconvolution.richardson_lucy import RichardsonLucyIteration

EVERY = 10
"""Iterations between two comparisons."""

MOST = 60
"""Iterations after which it is taken without convergence."""

_STEADY = 1e-2  # highest change between comparisons, as a fraction of the image's light


class OutsideLight:
    """Convergence of the light from outside in a matched, accelerated run from a flat start."""

    def __init__(self, image: Volume, calibration: Calibration) -> None:
        whole = float(image.data.sum(dtype=np.float64)) - calibration.background * image.data.size
        self.light: FloatArray = np.zeros_like(image.data)
        """Image units; zeros before the first comparison."""
        self.settled = False
        """Whether it has converged."""
        self._least, self._next = _STEADY * whole, EVERY

    def update(self, run: RichardsonLucyIteration) -> bool:
        """Update the light from a run, if due; return whether it has converged."""
        if not self.settled and run.done >= self._next:
            self._next = run.done + EVERY
            now = run.outside()
            moved = float(np.abs(now - self.light).sum(dtype=np.float64))
            self.light = now
            self.settled = moved < self._least or run.done >= MOST
        return self.settled
