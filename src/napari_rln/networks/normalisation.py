"""Normalisation: one affine map per volume, to the range of the network and back.

Image and initial estimate are mapped equally, the network's output by the inverse, in training and
in application, so that results are in image units. Zero is the background; one is the brightness of
structures in the initial estimate.
"""

import math
from dataclasses import dataclass
from typing import Literal, Self

import numpy as np

from napari_rln.core.errors import RlnError
from napari_rln.core.volume import FloatArray

NormalisationMethod = Literal["brightness", "percentiles"]

LOW, HIGH = 0.01, 99.5
"""Percentiles that become 0 and 1 in the paper's normalisation."""

_HOT = 99.99  # percentile above which values are clipped, as they may be hot voxels
_PIECE = 1 << 20  # values to square at once


@dataclass(frozen=True, kw_only=True)
class Normalisation:
    """The map ``(value - offset) / scale``.

    Attributes
    ----------
    offset
        Value that becomes 0, image units.
    scale
        Difference from the offset that becomes 1, image units.

    Raises
    ------
    RlnError
        If the scale is 0: the image is flat.
    """

    offset: float
    scale: float

    def __post_init__(self) -> None:
        if not self.scale > 0:
            raise RlnError("the image is flat; there is nothing to deconvolve.")

    @classmethod
    def of(
        cls, image: FloatArray, estimate: FloatArray, background: float, method: NormalisationMethod
    ) -> Self:
        """Return the map for an image and its initial estimate, (Z, Y, X), image units.

        The estimate has its background removed, and is that of the image if the network starts from
        it. ``"brightness"`` maps the background to 0 and the intensity-weighted mean intensity of
        the estimate, which is independent of empty space in the volume, to 1; ``"percentiles"`` is
        the paper's map, by percentiles of the image.

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
        return cls(offset=low, scale=scale)

    def apply(self, image: FloatArray) -> FloatArray:
        """Return image values on the network's scale."""
        return ((image - self.offset) / self.scale).astype(np.float32)

    def undo(self, output: FloatArray) -> FloatArray:
        """Return values on the network's scale in image units."""
        return (output * self.scale + self.offset).astype(np.float32)


def brightness(data: FloatArray) -> float:
    """Return the mean of positive values, weighted by themselves, of data without background."""
    positive = data[data > 0]
    if not positive.size:
        return 0.0
    np.minimum(positive, np.percentile(positive, _HOT, method="lower"), out=positive)
    pieces = np.array_split(positive, 1 + positive.size // _PIECE)  # squares take twice the memory
    squares = math.fsum(float(np.square(piece, dtype=np.float64).sum()) for piece in pieces)
    return squares / float(positive.sum(dtype=np.float64))
