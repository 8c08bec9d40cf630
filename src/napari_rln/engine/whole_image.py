"""What is known of a whole volume before its first tile."""

from dataclasses import dataclass, replace
from typing import Any

from napari_rln.deconvolution.calibration import Calibration


@dataclass(frozen=True, kw_only=True)
class Statistics:
    """What was found; JSON types only.

    Attributes
    ----------
    hash
        Of the samples, by which an image is known again.
    time
        Of the volume that the samples are of, in a series.
    sampled
        Voxels that were looked at.
    calibration
        Of the image, as :meth:`napari_rln.deconvolution.calibration.Calibration.as_json` gives it.
    mean
        Image units, background included.
    iterations
        Of the classical deconvolution; 0 where there is none.
    momenta
        Of its acceleration; none where it is not accelerated.
    offset, scale
        Of the map to the network's range; 0 and 1 where there is no network.
    consistency
        How a network's output and its first estimate are merged, see
        :class:`napari_rln.networks.data_consistency.Consistency`; none where nothing is known of
        that.
    telling
        (start, stop) along z, y and x of what the stop was found in.
    """

    hash: str
    time: int
    sampled: int
    calibration: dict[str, Any]
    mean: float
    iterations: int = 0
    momenta: list[float] | None = None
    offset: float = 0.0
    scale: float = 1.0
    consistency: dict[str, Any] | None = None
    telling: list[list[int]]

    @property
    def calibrated(self) -> Calibration:
        """Camera and background."""
        return Calibration.from_json(self.calibration)

    def calibrated_at(self, time: int) -> Calibration:
        """Return camera and background for a volume of a series.

        Other volumes than the one that was looked at may lack other planes; those are known by
        their fill value.
        """
        found = self.calibrated
        return found if time == self.time else replace(found, planes=())

    @property
    def background(self) -> float:
        """Image units, camera offset included."""
        return self.calibrated.background
