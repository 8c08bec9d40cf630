"""Brightness of structures."""

import math

import numpy as np

from napari_rln.core.volume import FloatArray

_HOT = 99.99  # percentile above which values are clipped, as they may be hot voxels
_PIECE = 1 << 20  # values to square at once


def brightness(data: FloatArray) -> float:
    """Return the mean of positive values, weighted by themselves, of data without background.

    It does not depend on empty space in the volume.
    """
    positive = data[data > 0]
    if not positive.size:
        return 0.0
    np.minimum(positive, np.percentile(positive, _HOT, method="lower"), out=positive)
    pieces = np.array_split(positive, 1 + positive.size // _PIECE)  # squares take twice the memory
    squares = math.fsum(float(np.square(piece, dtype=np.float64).sum()) for piece in pieces)
    return squares / float(positive.sum(dtype=np.float64))
