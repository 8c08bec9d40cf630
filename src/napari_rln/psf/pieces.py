"""Computation on pieces of a PSF, so that a large one takes little memory and can be cancelled."""

from collections.abc import Callable

import numpy as np

from napari_rln.core.generators import checkpoint
from napari_rln.core.volume import Float64Array

PIECE = 1 << 21
"""Voxels of a piece; most PSFs are one."""


def in_pieces(
    work: Callable[[Float64Array], Float64Array], data: Float64Array, along: int, voxels: int
) -> Float64Array:
    """Return a function of data (Z, Y, X), called with pieces of about a number of voxels.

    They are cut along an axis on which every index of the result depends on the same one of data.
    """
    count = data.shape[along]
    step = max(1, voxels * count // data.size)
    if step >= count:
        checkpoint()
        return work(data)
    result: Float64Array | None = None
    for start in range(0, count, step):
        checkpoint()
        part = (slice(None),) * along + (slice(start, start + step),)
        piece = work(data[part])
        if result is None:
            result = np.empty([count if a == along else n for a, n in enumerate(piece.shape)])
        result[part] = piece
    assert result is not None
    return result
