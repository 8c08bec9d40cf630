"""Background level, noise and brightest spot of a PSF."""

from typing import Any, cast

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from napari_rln.core.generators import checkpoint
from napari_rln.core.volume import Float64Array
from napari_rln.psf.pieces import PIECE, in_pieces

MAD_TO_SD = 1.4826  # standard deviation of Gaussian noise over its median absolute deviation


def background_level(data: npt.NDArray[Any]) -> tuple[float, float]:
    """Return the constant background of a PSF (Z, Y, X) and the standard deviation of its noise.

    Measured at the lateral border of the planes around the brightest, where the cones of
    out-of-focus light are narrowest. Since light only adds, the background cannot exceed the
    darkest voxels by more than the noise explains; this bound keeps the tails of a noise-free or
    tightly cropped PSF from being counted as background.
    """
    data = np.asarray(data, dtype=np.float64)
    depth, height, width = data.shape
    spot = brightest_spot(data)
    planes = max(1, depth // 16)
    near = data[max(0, spot[0] - planes) : spot[0] + planes + 1]
    rim_y, rim_x = max(1, height // 10), max(1, width // 10)
    outside = np.ones(near.shape, dtype=bool)
    outside[:, rim_y : height - rim_y, rim_x : width - rim_x] = False
    border = near[outside]
    noise_sd = noise_among(near, outside)
    for _ in range(5):  # clipping only the high side (light, hot voxels) would leave a bias
        middle = float(np.median(border))
        spread = MAD_TO_SD * float(np.median(np.abs(border - middle)))
        kept = border[np.abs(border - middle) <= 3 * spread]
        if kept.size == border.size:
            break
        border = kept
    quarters = np.quantile(border, [0.25, 0.75])  # their mean: a non-integer median
    middle = float(border[(border >= quarters[0]) & (border <= quarters[1])].mean())
    return min(middle, _dark_limit(data, noise_sd)), noise_sd


def brightest_spot(data: Float64Array) -> tuple[int, int, int]:
    """Return the brightest voxel after a median and a mean over 3 voxels, robust to hot voxels."""
    filtered = median_in_planes(data)
    checkpoint()
    if filtered.max() == filtered.min():  # narrower than the median's window
        filtered = data
    size = tuple(min(3, n) for n in data.shape)
    checkpoint()
    filtered = ndimage.uniform_filter(filtered, size=size, mode="nearest") + 1e-6 * filtered
    checkpoint()
    return cast("tuple[int, int, int]", np.unravel_index(int(filtered.argmax()), data.shape))


def median_in_planes(data: Float64Array) -> Float64Array:
    """Return the median of 3 x 3 voxels in each plane; the voxels at the border are repeated."""
    return rank_in_planes(data, 4)


def rank_in_planes(data: Float64Array, rank: int) -> Float64Array:
    """Return the 3 x 3 voxels' value of a rank, from 0, the lowest, in each plane.

    Planes are filtered a few at a time: a filter of scipy can neither be cancelled nor lets
    other threads run.
    """

    def ranked(planes: Float64Array) -> Float64Array:
        filtered: Float64Array = ndimage.rank_filter(planes, rank, (1, 3, 3), mode="nearest")
        return filtered

    return in_pieces(ranked, data, 0, PIECE // 2)


def _dark_limit(data: Float64Array, noise_sd: float) -> float:
    """Return the upper limit of the background, from the darkest voxels.

    The 0.1, 1 and 5 % quantiles of Gaussian noise lie 3.1, 2.3 and 1.6 sd below its mean: the two
    distances are similar and the mean is four of them higher, here with a margin. The dark parts
    of a noise-free PSF spread evenly above its lowest value instead, which is then the limit.
    """
    checkpoint()
    lowest, low, lower = np.quantile(data, [0.001, 0.01, 0.05], method="lower")
    coarse = low == lowest and np.array_equal(data, np.rint(data))  # few photons: equal quantiles
    if not coarse and lower - low > 2.5 * (low - lowest):
        return float(lowest)
    return float(lowest + max(3.4 * noise_sd, 5 * (low - lowest)))


def noise_among(data: Float64Array, among: npt.NDArray[np.bool_]) -> float:
    """Return the noise of selected voxels from second differences along the smoothest axis."""
    spreads = []
    for axis in (a for a in range(3) if data.shape[a] >= 3):
        checkpoint()
        second = np.abs(np.diff(data, n=2, axis=axis)) / np.sqrt(6)
        middle = [slice(None)] * 3
        middle[axis] = slice(1, -1)
        checkpoint()
        chosen = second[among[tuple(middle)]]
        if chosen.size:
            spreads.append(MAD_TO_SD * float(np.median(chosen)))
    return min(spreads, default=0.0)
