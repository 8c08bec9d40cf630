"""Sections of a volume, and the position of its brightest structure."""

from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy.ndimage import gaussian_filter

from napari_rln.core.volume import FloatArray, Volume, VoxelUm

Limits = tuple[float, float]
Projection = Literal["slice", "max"]

PLANES = {"xy": 0, "xz": 1, "yz": 2}
"""Axis of a volume that is normal to a plane."""

ACROSS_DOWN = {"xy": (2, 1), "xz": (2, 0), "yz": (1, 0)}
"""Axes of a volume that run across and down the picture of a plane."""


def round_length(longest: float) -> float:
    """Return the largest 1, 2 or 5 times a power of ten up to a length."""
    power = 10.0 ** np.floor(np.log10(longest))
    step = max(s for s in (1, 2, 5) if s <= longest / power * (1 + 1e-9))
    return float(f"{step * power:.1g}")


def brightest(volume: Volume, box_um: npt.ArrayLike = (0.0, 0.0, 0.0)) -> tuple[int, int, int]:
    """Return the brightest voxel (z, y, x) of the plane with the highest contrast.

    Smoothing by one voxel excludes single hot voxels. The box ``box_um`` (z, y, x) around the
    voxel, at least a tenth of the volume along each axis, lies inside the volume.
    """
    extent = np.multiply(volume.shape, volume.voxel_um)
    margin_box_um = np.maximum(box_um, 0.1 * extent)
    smooth = gaussian_filter(volume.data, [1.0 if n > 1 else 0.0 for n in volume.shape])
    margins = [
        min(int(b / d / 2), (n - 1) // 2)
        for b, d, n in zip(margin_box_um, volume.voxel_um, volume.shape, strict=True)
    ]
    margins[0] = min(margins[0], volume.shape[0] // 10)
    inner = smooth[tuple(slice(m, n - m) for m, n in zip(margins, volume.shape, strict=True))]
    z = int(np.argmax(inner.std(axis=(1, 2))))
    y, x = np.unravel_index(int(np.argmax(inner[z])), inner.shape[1:])
    return z + margins[0], int(y) + margins[1], int(x) + margins[2]


def section(
    data: FloatArray,
    voxel_um: VoxelUm,
    axis: int,
    position: tuple[int, int, int],
    projection: Projection = "slice",
    slab_um: float | None = None,
) -> FloatArray:
    """Return a plane of a volume, or the mean or projection of a slab, normal to an axis.

    The axis is 0 for the xy plane, 1 for xz and 2 for yz; the planes cross at voxel ``position``
    (z, y, x). Projection and thickness are those of :class:`FigureSettings`.
    """
    slab = data[slab_of(data.shape, voxel_um, axis, position, projection, slab_um)]
    picture: FloatArray = slab.max(axis) if projection == "max" else slab.mean(axis)
    return picture


def slab_of(
    shape: tuple[int, ...],
    voxel_um: VoxelUm,
    axis: int,
    position: tuple[int, int, int],
    projection: Projection,
    slab_um: float | None,
) -> tuple[slice, ...]:
    """Return the slab of a volume that :func:`section` averages or projects."""
    n, step, at = shape[axis], voxel_um[axis], position[axis]
    thickness = slab_um
    if thickness is None:
        thickness = n * step if projection == "max" else 0.0
    half = round(thickness / step / 2) if thickness < n * step else n
    index = [slice(0, size) for size in shape]
    index[axis] = slice(max(at - half, 0), min(at + half + 1, n))
    return tuple(index)
