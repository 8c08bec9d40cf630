"""The light in an image that comes from beyond its field of view.

A Richardson-Lucy deconvolution on an extended grid finds it beside the object. Whoever judges a
result needs it, always the same: it is taken where it is steady, and how many iterations a method
does has no part in that.
"""

import numpy as np

from napari_rln.core.volume import FloatArray, Volume
from napari_rln.deconvolution.calibration import Calibration
from napari_rln.deconvolution.richardson_lucy import RichardsonLucyIteration

EVERY = 10
"""Iterations between two looks."""

MOST = 60
"""Iterations after which it is taken as it is."""

_STEADY = 1e-2  # of the image's light, by which it may change between two looks


class Outside:
    """Watches a matched, accelerated run from a flat start until the light from outside is steady.

    Parameters
    ----------
    image
        (Z, Y, X), as it is deconvolved.
    calibration
        Of the image.

    Attributes
    ----------
    light
        (Z, Y, X) float32, image units; zeros before the first look.
    settled
        Whether it is steady.
    """

    def __init__(self, image: Volume, calibration: Calibration) -> None:
        whole = float(image.data.sum(dtype=np.float64)) - calibration.background * image.data.size
        self.light: FloatArray = np.zeros_like(image.data)
        self.settled = False
        self._least, self._next = _STEADY * whole, EVERY

    def look(self, run: RichardsonLucyIteration) -> bool:
        """Take note of a run; return whether there is no more to see."""
        if not self.settled and run.done >= self._next:
            self._next = run.done + EVERY
            now = run.outside()
            moved = float(np.abs(now - self.light).sum(dtype=np.float64))
            self.light = now
            self.settled = moved < self._least or run.done >= MOST
        return self.settled
