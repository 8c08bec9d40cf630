"""Shape of a hollow bead: its outer widths, and how dark its centre is."""

from dataclasses import dataclass

import numpy as np

from napari_rln.core.errors import RlnError
from napari_rln.core.volume import FloatArray, Volume


@dataclass(frozen=True, kw_only=True)
class BeadShape:
    """Shape of a hollow bead.

    Attributes
    ----------
    width_z_um, width_y_um, width_x_um
        Outer width at half of the highest value above the lowest, along a line through the centre,
        micrometres; none if the line ends above it, or exceeds it on one side of the centre only.
    contrast
        1 minus the intensity of the centre over the highest: 1 for an empty centre, 0 for a full
        one.
    """

    width_z_um: float | None
    width_y_um: float | None
    width_x_um: float | None
    contrast: float


def bead_centre(image: Volume) -> tuple[int, int, int]:
    """Return the voxel (z, y, x) at the centre of the light above half of the highest value.

    Raises
    ------
    RlnError
        If the image is constant.
    """
    low, high = float(image.data.min()), float(image.data.max())
    if not high > low:
        raise RlnError(f"all voxels of {image.name} are {high:g}; give the image of a bead.")
    bright = np.argwhere(image.data > (low + high) / 2)
    light = image.data[tuple(bright.T)] - low
    z, y, x = np.rint(np.average(bright, axis=0, weights=light)).astype(int).tolist()
    return z, y, x


def bead_shape(volume: Volume, centre: tuple[int, int, int]) -> BeadShape:
    """Return the shape of a bead in a volume, around its centre voxel (z, y, x)."""
    z, y, x = centre
    data = volume.data
    lines = (data[:, y, x], data[z, :, x], data[z, y])
    widths = [
        outer_width(line, at, step)
        for line, at, step in zip(lines, centre, volume.voxel_um, strict=True)
    ]
    highest = float(data.max())
    return BeadShape(
        width_z_um=widths[0],
        width_y_um=widths[1],
        width_x_um=widths[2],
        contrast=1 - float(data[centre]) / highest if highest > 0 else 0.0,
    )


def outer_width(line: FloatArray, at: int, step: float) -> float | None:
    """Return the distance of the outermost crossings of half maximum along a line (N,).

    The half is that between its lowest and highest value, and crossings are linearly interpolated;
    none if the line ends above it, or the crossings do not enclose the voxel ``at``.
    """
    value = np.asarray(line, np.float64) - float(line.min())
    half = float(value.max()) / 2
    above = np.flatnonzero(value >= half)
    first, last = int(above[0]), int(above[-1])
    if not half > 0 or first == 0 or last == value.size - 1:
        return None
    left = first - (value[first] - half) / (value[first] - value[first - 1])
    right = last + (value[last] - half) / (value[last] - value[last + 1])
    return float(right - left) * step if left < at < right else None
