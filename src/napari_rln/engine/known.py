"""What is known of a whole image before its first tile."""

from dataclasses import dataclass, field, replace
from typing import Any

from napari_rln.deconvolution.calibration import Calibration
from napari_rln.deconvolution.method import Json


@dataclass(frozen=True, kw_only=True)
class Known:
    """What is known of a whole image, so that all of its tiles are treated as one; JSON types.

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
    structure
        (start, stop) along z, y and x of the part with most structure.
    tiles
        What all tiles of a method's first stage share.
    blocks
        What all blocks of its second stage share.
    """

    hash: str
    time: int
    sampled: int
    calibration: dict[str, Any]
    mean: float
    structure: list[list[int]]
    tiles: Json = field(default_factory=dict)
    blocks: Json = field(default_factory=dict)

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

    @property
    def level(self) -> float:
        """Mean light above the background, image units."""
        return self.mean - self.background
