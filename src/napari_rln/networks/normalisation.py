"""Normalisation: one map per volume, to the range of the network and back.

Image and initial estimate are mapped equally, the network's output by the inverse, in training and
in application, so that results are in image units. Zero is the background.

Two maps are affine, by the brightness of structures or by percentiles. The third is the square root
of the photons (Anscombe, Biometrika 35, 246, 1948), which stabilises the variance: the noise of the
image is the same in every image and at every brightness, so that a network knows it.
"""

from dataclasses import dataclass, replace
from typing import Literal, Self

import numpy as np
import torch

from napari_rln.core.brightness import brightness
from napari_rln.core.errors import RlnError
from napari_rln.core.volume import FloatArray
from napari_rln.deconvolution.calibration import Calibration

NormalisationMethod = Literal["brightness", "percentiles", "photons"]

LOW, HIGH = 0.01, 99.5
"""Percentiles that become 0 and 1 in the paper's normalisation."""

_ANSCOMBE = 3 / 8  # photons
_ROOT = 10.0  # square root of photons that becomes 1
_MANY_PHOTONS = 3000.0  # photons of structures where the noise is unknown


@dataclass(frozen=True, kw_only=True)
class Normalisation:
    """The map ``(value - offset) / scale``, or the square root of photons.

    Attributes
    ----------
    offset
        Value that becomes 0, image units.
    scale
        Difference from the offset that becomes 1, image units; of the square root, the brightness
        of structures.
    gain
        Image units per photon, for the square root; 0 for the affine map.
    background
        Photons at the offset, for the square root.

    Raises
    ------
    RlnError
        If the scale is 0: the image is flat.
    """

    offset: float
    scale: float
    gain: float = 0.0
    background: float = 0.0

    def __post_init__(self) -> None:
        if not self.scale > 0:
            raise RlnError("the image is flat; there is nothing to deconvolve.")

    @classmethod
    def of(
        cls, image: FloatArray, estimate: FloatArray, background: float, method: NormalisationMethod
    ) -> Self:
        """Return the map for an image and its initial estimate, (Z, Y, X), image units.

        The estimate has its background removed, and is that of the image if the network starts from
        it. ``"brightness"`` maps the background to 0 and the intensity-weighted mean intensity of
        the estimate, which is independent of empty space in the volume, to 1; ``"percentiles"`` is
        the paper's map, by percentiles of the image.

        Raises
        ------
        RlnError
            If the volume is flat.
        """
        if method == "percentiles":
            low, high = (float(v) for v in np.percentile(image, (LOW, HIGH)))
            scale = high - low
        else:
            low, scale = background, brightness(estimate)
        return cls(offset=low, scale=scale)

    def of_photons(self, calibration: Calibration) -> Self:
        """Return the square root of photons, with the same offset and scale.

        Where the noise is unknown, structures count as bright.
        """
        known = calibration.camera.counts_photons
        gain = calibration.camera.gain if known else self.scale / _MANY_PHOTONS
        background = max(0.0, self.offset - calibration.camera.zero) / gain
        return replace(self, gain=gain, background=background)

    @property
    def photons(self) -> float:
        """Photons of the brightness of structures."""
        return self.scale / self.gain

    @property
    def _dark(self) -> float:
        return self.background + _ANSCOMBE

    def apply(self, image: FloatArray) -> FloatArray:
        """Return image values on the network's scale."""
        if not self.gain:
            return ((image - self.offset) / self.scale).astype(np.float32)
        values: FloatArray = np.subtract(image, self.offset, dtype=np.float32)
        values *= np.float32(1 / self.gain)
        values += np.float32(self._dark)
        np.sqrt(np.maximum(values, 0, out=values), out=values)
        values -= np.float32(self._dark**0.5)
        values *= np.float32(1 / _ROOT)
        return values

    def undo(self, output: FloatArray) -> FloatArray:
        """Return values on the network's scale in image units."""
        if self.gain:
            root = np.float32(_ROOT) * output + np.float32(self._dark**0.5)
            values: FloatArray = np.square(root) - np.float32(self._dark)
            values *= np.float32(self.gain)
            values += np.float32(self.offset)
            return values
        return (output * self.scale + self.offset).astype(np.float32)


def root_of_photons(photons: torch.Tensor, background: torch.Tensor) -> torch.Tensor:
    """Return photons above a background on the scale of their square root, as a tensor."""
    dark = background + _ANSCOMBE
    return ((photons + dark).clamp_min(0).sqrt() - dark.sqrt()) / _ROOT


def photons_of_root(values: torch.Tensor, background: torch.Tensor) -> torch.Tensor:
    """Return the inverse of :func:`root_of_photons`."""
    dark = background + _ANSCOMBE
    return (_ROOT * values + dark.sqrt()).square() - dark
