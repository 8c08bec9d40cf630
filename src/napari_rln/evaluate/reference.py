"""Comparison of results with a reference: an image of the same object by another microscope.

A reference has a blur, noise and an offset of its own. So correlations and errors are taken after a
fit of scale and offset, and the error is relative to the standard deviation of the reference.
"""

from dataclasses import dataclass
from typing import Literal, Self

import numpy as np
from scipy import ndimage
from skimage.filters import threshold_otsu

from napari_rln.core.errors import RlnError
from napari_rln.core.grid import resample_onto, translation
from napari_rln.core.metrics import fitted, pearson
from napari_rln.core.volume import Box, FloatArray, Mask, Volume
from napari_rln.evaluate.half_photons import correlate

_SOFT = 1.5  # voxels over which the mask of a correlation fades
_COVERED = 0.98  # of the best covered plane, for a plane to belong to the part compared


@dataclass(frozen=True, kw_only=True, eq=False)
class Reference:
    """A reference within a box, and where it was measured and is inside the object there.

    Attributes
    ----------
    data
        (Z, Y, X), the reference in the box.
    covered, inside
        (Z, Y, X) bool, where it was measured, and where it exceeds the threshold.
    box
        The box in the grid of the image.
    threshold
        Value above which a voxel is inside the object, in the unit of the reference.
    """

    data: FloatArray
    covered: Mask
    inside: Mask
    box: Box
    threshold: float

    @classmethod
    def of(
        cls,
        reference: Volume,
        box: Box,
        *,
        covered: Mask | None = None,
        threshold: float | Literal["auto"] = "auto",
    ) -> Self:
        """Return a reference ready for comparison.

        Parameters
        ----------
        reference
            (Z, Y, X), on the grid of the image.
        box
            Part to compare.
        covered
            (Z, Y, X) bool, where it was measured; everywhere if None.
        threshold
            Value above which a voxel is inside the object; auto separates two classes by Otsu's
            method.

        Raises
        ------
        RlnError
            If the reference is constant there, or was not measured.
        """
        data = reference.data[box]
        measured = np.ones(data.shape, bool) if covered is None else covered[box]
        if not measured.any() or np.ptp(data[measured]) == 0:
            raise RlnError(f"{reference.name} has no contrast in the box; choose another (`box`).")
        if isinstance(threshold, str):
            threshold = float(threshold_otsu(data[measured]))  # type: ignore[no-untyped-call]
        inside = measured & (data > threshold)
        return cls(data=data, covered=measured, inside=inside, box=box, threshold=threshold)

    def scores(self, volume: Volume) -> dict[str, float | None]:
        """Return how much a volume on the image's grid is like the reference.

        ``r`` is Pearson's correlation; ``nrmse`` the error after the best scale and offset over the
        standard deviation of the reference, the square root of 1 - r^2; ``reference_lateral_um``
        and ``reference_axial_um`` the resolution by the Fourier shell correlation at 1/7, none
        where there are too few voxels. The same inside the object, fitted there, with
        ``_inside``; these are absent where it is too small.
        """
        data = volume.data[self.box]
        scores: dict[str, float | None] = {}
        for end, part in (("", self.covered), ("_inside", self.inside)):
            a, b = data[part], self.data[part]
            if b.size < 2 or np.ptp(b) == 0:
                continue
            error, deviation = np.linalg.norm(fitted(a, b) - b), np.linalg.norm(b - b.mean())
            scores[f"r{end}"] = pearson(a, b)
            scores[f"nrmse{end}"] = float(error / deviation)
            weight = _faded(part)
            pair = (
                volume.with_data(weight * (v - np.average(v, weights=weight)).astype(np.float32))
                for v in (data, self.data)
            )
            for name, curve in zip(("lateral", "axial"), correlate(*pair), strict=True):
                value = None if curve is None else curve.resolution_um
                scores[f"reference_{name}{end}_um"] = value
        return scores


def covered_by(reference: Volume, registered: Volume) -> Mask:
    """Return where a registered reference was measured, (Z, Y, X) bool.

    ``reference`` is the volume that was registered, ``registered`` the result of
    :func:`napari_rln.registration.register.register`.
    """
    assert registered.record is not None
    centred = np.array(registered.record.facts["matrix"])
    half, other = (np.divide(volume.voxel_um, 2) for volume in (registered, reference))
    matrix = translation(other) @ centred @ translation(-half)
    everywhere = reference.with_data(np.ones_like(reference.data))
    return np.isfinite(resample_onto(everywhere, registered, matrix))


def box_of(covered: Mask) -> Box:
    """Return the box (z, y, x) of the planes that are almost as covered as the best.

    Raises
    ------
    RlnError
        If nothing is covered.
    """
    if not covered.any():
        raise RlnError("the reference covers no part of the image; check the registration.")
    parts = []
    for axis in range(3):
        share = covered.mean(axis=tuple(a for a in range(3) if a != axis))
        best = np.flatnonzero(share >= _COVERED * share.max())
        parts.append(slice(int(best[0]), int(best[-1]) + 1))
    z, y, x = parts
    return z, y, x


def _faded(part: Mask) -> FloatArray:
    """Return a mask that fades over some voxels at its border; 1 if whole.

    A sharp border would carry what correlates at low frequencies to all frequencies.
    """
    if part.all():
        return np.ones(part.shape, np.float32)
    soft: FloatArray = ndimage.gaussian_filter(part.astype(np.float32), _SOFT)
    return soft
