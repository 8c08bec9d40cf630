"""Calibration and shared state of a whole image, made before its first tile."""

from dataclasses import dataclass, field, replace
from typing import Any

from napari_rln.deconvolution.calibration import Calibration
from napari_rln.deconvolution.method import Json


@dataclass(frozen=True, kw_only=True)
class ImageState:
    """Calibration and shared state of a whole image for all of its tiles; JSON types.

    Attributes
    ----------
    hash
        Hash of the samples, which identifies an image.
    time
        Time point of the samples, in a series.
    sampled
        Number of sampled voxels.
    calibration
        From :meth:`napari_rln.deconvolution.calibration.Calibration.as_json`.
    mean
        Mean of the image, image units, background included.
    structure
        (start, stop) along z, y and x of the part with most structure.
    tiles
        State common to all tiles of a method's first stage.
    blocks
        State common to all blocks of its second stage.
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

        Volumes other than the sampled one may lack other planes; those have the fill value.
        """
        calibration = self.calibrated
        return calibration if time == self.time else replace(calibration, planes=())

    @property
    def background(self) -> float:
        """Background, image units, camera offset included."""
        return self.calibrated.background

    @property
    def level(self) -> float:
        """Mean light above the background, image units."""
        return self.mean - self.background
