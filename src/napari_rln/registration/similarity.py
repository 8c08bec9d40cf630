"""How alike two volumes are at a placement, on levels from coarse to fine.

What is compared are the square roots of both volumes, smoothed alike, so that neither noise, nor a
few bright spots, nor the finer detail of the sharper one decides. A placement is a matrix, 4 x 4
for (z, y, x, 1), that leads from a place in the image to the same in the reference, in micrometres
from the first corner of either: that one stays when voxels are joined.
"""

import math
from collections.abc import Generator
from dataclasses import dataclass, replace
from typing import NamedTuple, Self

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from skimage.registration import phase_cross_correlation

from napari_rln.core.grid import resampled_image
from napari_rln.core.metrics import pearson
from napari_rln.core.volume import FloatArray, Volume

Float64 = npt.NDArray[np.float64]

TOLERANCE = 0.1
"""What Fisher's z of the correlation may lose: in small matters mutual information is right."""

LARGEST_STRETCH = 1.4
"""Along any direction, or its inverse; beyond it unlike structures are made to fit."""

COARSE_VOXELS, FINE_VOXELS = 2**15, 2**22
"""How many voxels the coarsest level of the pyramid has, about, and the finest at most."""

OVERLAPS = (0.5, 0.25, 0.1)
"""Least shares of the smaller field that are common to both, one candidate for the shift each."""


class Match(NamedTuple):
    """Correlation of two volumes in their overlap, and the overlap's share of the image."""

    correlation: float
    share: float

    @property
    def score(self) -> float:
        """Fisher's z of the correlation, in its standard errors but for a constant factor.

        Small overlaps correlate well by chance, so the correlation alone does not say which of two
        placements is better.
        """
        return _z(self.correlation) * math.sqrt(self.share)


@dataclass(frozen=True, eq=False)
class Pair:
    """Reference and image, smoothed by one width: a level of the pyramid."""

    reference: Volume
    image: Volume
    width_um: float

    @classmethod
    def level(cls, reference: Volume, image: Volume, width_um: float) -> Self:
        """Return both volumes, smoothed by a width, on voxels that suit it."""
        voxel_um = _voxel_um(reference, image, width_um)
        moving, fixed = (_smoothed(volume, voxel_um, width_um) for volume in (reference, image))
        return cls(moving, fixed, width_um)

    def mirrored(self, axis: int) -> Self:
        """Return the pair with the reference mirrored along an axis."""
        data = np.flip(self.reference.data, axis)
        return replace(self, reference=self.reference.with_data(data))

    def match(self, matrix: Float64) -> Match:
        """Return how well a placement matches."""
        found = on_image(self.reference, self.image, matrix)
        seen = np.isfinite(found)
        correlation = pearson(found[seen], self.image.data[seen]) if seen.any() else 0.0
        return Match(correlation, float(seen.mean()))

    def accepts(self, new: Float64, old: Float64) -> bool:
        """Tell whether a placement is plausible and matches no worse than one before it."""
        stretch = np.linalg.svd(new[:3, :3], compute_uv=False)
        a, b = (on_image(self.reference, self.image, matrix) for matrix in (new, old))
        seen = np.isfinite(a) & np.isfinite(b)  # other regions have other correlations
        image = self.image.data[seen]
        return bool(
            max(stretch.max(), 1 / stretch.min()) < LARGEST_STRETCH
            and seen.sum() > 0.75 * np.isfinite(b).sum()  # none wins by showing less
            and _z(pearson(a[seen], image)) > _z(pearson(b[seen], image)) - TOLERANCE
        )


def _voxel_um(reference: Volume, image: Volume, width_um: float) -> Float64:
    """Return the voxel (z, y, x) of a level: its width, or the coarser of the two if larger."""
    voxel_um: Float64 = np.max([reference.voxel_um, image.voxel_um, [width_um] * 3], axis=0)
    return voxel_um


def widths_um(reference: Volume, image: Volume) -> list[float]:
    """Return the widths by which the levels are smoothed, from coarse to fine."""
    largest = max(size_um(reference).prod(), size_um(image).prod())
    finest = float(_voxel_um(reference, image, 0.0).min())

    def voxels(width: float) -> float:
        return float(largest / _voxel_um(reference, image, width).prod())

    widths = [finest]
    while voxels(widths[0]) > COARSE_VOXELS:
        widths[0] *= 1.1
    while widths[-1] > finest and voxels(half := max(widths[-1] / 2, finest)) < FINE_VOXELS:
        widths.append(half)
    return widths


def _smoothed(volume: Volume, voxel_um: Float64, width_um: float) -> Volume:
    """Return the square root of a volume on voxels of about another size, smoothed."""
    joined = [
        max(1, min(round(t / v), n // 4))  # of few planes some must remain
        for t, v, n in zip(voxel_um, volume.voxel_um, volume.shape, strict=True)
    ]
    (z, i), (y, j), (x, k) = ((n // m, m) for n, m in zip(volume.shape, joined, strict=True))
    data = volume.data[: z * i, : y * j, : x * k].reshape(z, i, y, j, x, k).mean((1, 3, 5))
    data = np.sqrt(np.maximum(data - np.percentile(data, 1), 0))
    reached = np.multiply(joined, volume.voxel_um)
    data = ndimage.gaussian_filter(data, width_um / reached, mode="nearest")
    return volume.with_data(data, voxel_um=reached)


def on_image(reference: Volume, image: Volume, matrix: Float64) -> FloatArray:
    """Return the reference at the voxels of an image, linearly interpolated, NaN outside."""
    linear, shift = matrix[:3, :3], matrix[:3, 3]
    voxel_um = np.array(reference.voxel_um)
    found: FloatArray = ndimage.affine_transform(
        reference.data,
        linear * image.voxel_um / voxel_um[:, None],
        (linear @ np.divide(image.voxel_um, 2) + shift) / voxel_um - 0.5,
        image.shape,
        np.float32,
        order=1,
        cval=np.nan,
    )
    return found


def moved(shift_um: npt.ArrayLike) -> Float64:
    """Return the matrix of a shift."""
    matrix = np.eye(4)
    matrix[:3, 3] = shift_um
    return matrix


def best_shift(pair: Pair) -> Generator[Match, None, Float64]:
    """Yield how well each candidate for the shift matches, return the matrix of the best."""
    voxel_um = _voxel_um(pair.reference, pair.image, 0.0)
    z, y, x = voxel_um.tolist()
    parts = [resampled_image(part, (z, y, x)).data for part in (pair.image, pair.reference)]
    shape = np.max([part.shape for part in parts], axis=0)
    pads = [[(0, n) for n in shape - part.shape] for part in parts]
    fixed, moving = (np.pad(part, pad) for part, pad in zip(parts, pads, strict=True))
    seen, known = (np.pad(np.ones(a.shape, bool), pad) for a, pad in zip(parts, pads, strict=True))
    matches = []
    for overlap in OVERLAPS:
        shift, *_ = phase_cross_correlation(  # type: ignore[no-untyped-call]
            fixed, moving, reference_mask=seen, moving_mask=known, overlap_ratio=overlap
        )
        matrix = moved(-shift * voxel_um)
        match = pair.match(matrix)
        matches.append((match.score, matrix))
        yield match
    return max(matches, key=lambda found: found[0])[1]


def size_um(volume: Volume) -> Float64:
    """Return the size of a field (z, y, x) in micrometres."""
    return np.multiply(volume.shape, volume.voxel_um)


def _z(correlation: float) -> float:
    """Return Fisher's z, whose error is the same for all correlations."""
    return math.atanh(min(max(correlation, -0.9999), 0.9999))
