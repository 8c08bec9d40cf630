"""Intensity profiles along lines, and the full width at half maximum of their peaks."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle, islice

import numpy as np
import numpy.typing as npt
from scipy.ndimage import map_coordinates

from napari_rln.core.errors import RlnError
from napari_rln.core.volume import FloatArray, VoxelUm

LINE_COLOUR = "#ff7f0e"
"""Colour of the line of a profile, on pictures."""

_RAW = "#8c8c8c"
_RESULTS = ("#1d86d1", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")  # on any ground

_RISE = 0.15
"""Rise on a flank, as a fraction of the peak, above which a profile has several peaks."""


def curve_colours(count: int) -> list[str]:
    """Return the colours of the profiles of an image and then of its results, in their order."""
    return [_RAW, *islice(cycle(_RESULTS), max(count - 1, 0))][:count]


@dataclass(frozen=True, kw_only=True, eq=False)
class Profile:
    """Intensity (N,) along a line, from 0 to 1, by the offset (N,) from a position in micrometres.

    The full width at half maximum is that of the peak next to the position; None if the profile
    ends, or rises again, before falling to half on both sides.
    """

    offset_um: npt.NDArray[np.float64]
    value: npt.NDArray[np.float64]
    fwhm_um: float | None


def profile_at(line: FloatArray, at: int, step_um: float, half_um: float) -> Profile:
    """Return the profile along a line (N,) of voxels, around one of them.

    Its half length ``half_um`` is at least two voxels, and shorter at the ends of the line.
    """
    half = max(round(half_um / step_um), 2)
    first = max(at - half, 0)
    part = np.asarray(line[first : at + half + 1], np.float64)
    value = (part - part.min()) / max(float(np.ptp(part)), 1e-30)
    return Profile(
        offset_um=(np.arange(part.size, dtype=np.float64) + first - at) * step_um,
        value=value,
        fwhm_um=_fwhm(value, at - first, step_um),
    )


def profile_between(
    data: FloatArray,
    voxel_um: VoxelUm,
    start_um: Sequence[float],
    stop_um: Sequence[float],
) -> Profile:
    """Return the profile between two points of a volume, linearly interpolated.

    The points (z, y, x) are in micrometres from the centre of the first voxel, the offsets from the
    start; the width is that of the highest peak. The intensity outside the volume is 0. Raise an
    RlnError if the points coincide.
    """
    start, stop = np.asarray(start_um, np.float64), np.asarray(stop_um, np.float64)
    length = float(np.linalg.norm(stop - start))
    if length == 0:
        raise RlnError("the line has length 0; draw it between two different points.")
    step = min(voxel_um) / 2  # no voxel is skipped
    count = max(round(length / step), 2) + 1
    points = start + np.linspace(0, 1, count)[:, None] * (stop - start)
    at = points / voxel_um
    # Only the box around the line is read: the volume may be on disk.
    first = np.clip(np.floor(at.min(0)), 0, data.shape).astype(int)
    last = np.clip(np.ceil(at.max(0)) + 1, 0, data.shape).astype(int)
    part = np.asarray(data[tuple(slice(a, max(a, b)) for a, b in zip(first, last, strict=True))])
    line = np.zeros(count)
    if part.size:
        map_coordinates(part, (at - first).T, output=line, order=1, mode="constant")
    value = (line - line.min()) / max(float(np.ptp(line)), 1e-30)
    step = length / (count - 1)
    return Profile(
        offset_um=np.linspace(0.0, length, count),
        value=value,
        fwhm_um=_fwhm(value, int(np.argmax(value)), step),
    )


def flanks(value: npt.NDArray[np.float64], peak: int) -> tuple[float, float] | None:
    """Return the positions at half height to the left and to the right of a peak.

    Fractional indices of values (N,) with a minimum of 0, linearly interpolated; None if the
    profile ends above half height.
    """
    half = value[peak] / 2
    below = np.flatnonzero(value < half)
    left, right = below[below < peak], below[below > peak]
    if not (left.size and right.size):
        return None
    a, b = int(left[-1]), int(right[0])
    start = a + (half - value[a]) / (value[a + 1] - value[a])
    stop = b - (half - value[b]) / (value[b - 1] - value[b])
    return float(start), float(stop)


def _fwhm(value: npt.NDArray[np.float64], at: int, step_um: float) -> float | None:
    """Return the full width at half maximum of the peak uphill from a sample."""
    peak = at
    while True:
        near = range(max(peak - 1, 0), min(peak + 2, value.size))
        best = max(near, key=lambda i: value[i])
        if value[best] <= value[peak]:
            break
        peak = best
    ends = flanks(value, peak)
    if ends is None:
        return None
    start, stop = ends
    for flank in (value[int(start) : peak + 1][::-1], value[peak : int(np.ceil(stop)) + 1]):
        if (flank - np.minimum.accumulate(flank)).max() > _RISE * value[peak]:
            return None  # several peaks: the width would depend on their distance
    return (stop - start) * step_um
