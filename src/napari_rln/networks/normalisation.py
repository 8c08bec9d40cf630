"""One affine map per volume, to the range in which the network works and back.

The network's image and first estimate go through the same map, its output through the inverse, in
training as in application, so that intensities are those of the image. Zero is the background;
one is the brightness of the structures in the first estimate.
"""

import math
from dataclasses import dataclass
from typing import Literal, Self

import numpy as np

from napari_rln.core.errors import RlnError
from napari_rln.core.volume import FloatArray

Method = Literal["brightness", "percentiles"]

LOW, HIGH = 0.01, 99.5
"""Percentiles that the paper's authors map to 0 and 1."""

_HOT = 99.99  # percentile above which a voxel's value does not count: it may be a hot one
_PIECE = 1 << 20  # values that are squared at once


@dataclass(frozen=True, kw_only=True)
class Normalisation:
    """The map ``(value - offset) / scale``.

    Attributes
    ----------
    offset
        What becomes 0, in image units.
    scale
        What becomes 1 above it.
    """

    offset: float
    scale: float

    @classmethod
    def of(cls, image: FloatArray, estimate: FloatArray, background: float, method: Method) -> Self:
        """Return the map for an image and the first estimate of its object.

        Parameters
        ----------
        image
            (Z, Y, X), image units.
        estimate
            (Z, Y, X), image units less background; the image itself less background where the
            network starts from that.
        background
            Image units.
        method
            ``"brightness"`` takes the background for 0 and the mean intensity of the estimate,
            weighted with intensity, for 1: it does not depend on how much of the volume is empty.
            ``"percentiles"`` is the paper's map, of the image's percentiles.

        Raises
        ------
        RlnError
            If the volume is flat.
        """
        if method == "percentiles":
            low, high = (float(v) for v in np.percentile(image, (LOW, HIGH)))
            scale = high - low
        else:
            low, scale = background, brightness(estimate)
        if not scale > 0:
            raise RlnError("the image is flat; there is nothing to deconvolve.")
        return cls(offset=low, scale=scale)

    def apply(self, image: FloatArray) -> FloatArray:
        """Return image values on the network's scale."""
        return ((image - self.offset) / self.scale).astype(np.float32)

    def undo(self, output: FloatArray) -> FloatArray:
        """Return the network's values in image units."""
        return (output * self.scale + self.offset).astype(np.float32)


def brightness(data: FloatArray) -> float:
    """Return the mean of the values weighted with the values themselves, negative ones left out.

    Parameters
    ----------
    data
        Any shape, background removed.
    """
    positive = data[data > 0]
    if not positive.size:
        return 0.0
    np.minimum(positive, np.percentile(positive, _HOT, method="lower"), out=positive)
    pieces = np.array_split(positive, 1 + positive.size // _PIECE)  # squares take twice the memory
    squares = math.fsum(float(np.square(piece, dtype=np.float64).sum()) for piece in pieces)
    return squares / float(positive.sum(dtype=np.float64))
