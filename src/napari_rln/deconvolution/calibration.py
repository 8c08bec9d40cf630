"""Calibration of an image before deconvolution: camera, background, defective voxels.

A camera converts photons to values, ``value = offset + gain * photons``, and adds read noise.
Richardson-Lucy deconvolution is derived for photon counts, whose variance equals their mean. An
offset has no such noise: counted as light, it makes every iteration smaller than the data warrant.
So every run works in photons, and results are converted back to image units.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Annotated, Any, Literal, Protocol, Self

import numpy as np
import numpy.typing as npt

from napari_rln.core.errors import RlnError, warn
from napari_rln.core.tiles import blocks
from napari_rln.core.volume import Box, FloatArray, Mask, Shape, Volume
from napari_rln.deconvolution.background import estimate_background
from napari_rln.deconvolution.defective_voxels import Defects, find_defects, repaired
from napari_rln.deconvolution.noise import Noise, estimate_noise
from napari_rln.deconvolution.noise_spectrum import Spectrum
from napari_rln.deconvolution.unmeasured_voxels import (
    HALO,
    Levels,
    constant_planes,
    filled,
    find_levels,
)

Level = Annotated[float | Literal["auto"], {"min": -1e9, "max": 1e9}]
"""A setting in image units; auto estimates it from the image."""

Offset = Annotated[Level, {"label": "Camera offset"}]
"""The value without light, image units; auto estimates it from the image."""

RepairImage = Annotated[bool, {"label": "Repair hot pixels"}]
"""Whether to replace hot and cold voxels."""

Negatives = Annotated[
    Literal["keep", "clip", "error"],
    {"label": "Negative values", "words": {"clip": "set to 0", "error": "error message"}},
]
"""Treatment of negative voxels, which are valid once the camera offset is known."""

Gain = Annotated[float | Literal["auto"], {"min": 1e-9, "max": 1e9, "label": "Camera gain"}]
"""A setting in image units per photon; auto estimates it from the image."""

Provenance = Literal["given", "estimated", "assumed"]

MOST_VOXELS = 1 << 24
"""Largest image that is calibrated whole; of larger ones a quarter of this is sampled."""

REPAIR_HALO = HALO + 2
"""Margin in voxels for a part of an image to have the masks and repairs of the whole."""

LEAST_MEASURED = 0.99
"""Fraction of a resampled voxel that must have been measured."""

_BLOCK = (32, 64, 64)


class CalibrationSettings(Protocol):
    """Background, offset and gain from settings; auto where they are to be estimated."""

    @property
    def background(self) -> float | Literal["auto"]:
        """Background level, camera offset included, image units."""

    @property
    def offset(self) -> float | Literal["auto"]:
        """Camera offset, the value without light, image units."""

    @property
    def gain(self) -> float | Literal["auto"]:
        """Camera gain, image units per photon."""


@dataclass(frozen=True, kw_only=True)
class UserCalibration:
    """Background, offset and gain set by the user, see :class:`CalibrationSettings`."""

    background: float | Literal["auto"] = "auto"
    offset: float | Literal["auto"] = "auto"
    gain: float | Literal["auto"] = "auto"


@dataclass(frozen=True, kw_only=True)
class Camera:
    """Conversion of photons to image values.

    Attributes
    ----------
    offset
        Value without light, image units.
    gain
        Image units per photon.
    read_noise
        Standard deviation, image units. Where it cannot be separated from the offset it is 0 and
        the offset lower, which has the same effect.
    offset_from, gain_from
        ``"given"`` by the user, ``"estimated"`` from the noise, or ``"assumed"`` in an image
        without photon noise: the darkest voxels are without light, and a unit is a photon.
    """

    offset: float = 0.0
    gain: float = 1.0
    read_noise: float = 0.0
    offset_from: Provenance = "given"
    gain_from: Provenance = "given"

    @property
    def zero(self) -> float:
        """Value from which the variance of a voxel is ``gain * (value - zero)``, image units.

        Read noise lowers it below the offset: Snyder et al. (J. Opt. Soc. Am. A 10, 1014, 1993)
        count the read variance as additional Poisson-distributed photons.
        """
        return self.offset - self.read_noise**2 / self.gain

    @property
    def counts_photons(self) -> bool:
        """Whether the gain is known, by the user or from the noise."""
        return self.gain_from != "assumed"

    def photons(self, values: npt.ArrayLike) -> FloatArray:
        """Return image values in photons, float32, at least 0."""
        shifted = np.subtract(values, np.float32(self.zero), dtype=np.float32)
        shifted /= np.float32(self.gain)
        counted: FloatArray = np.maximum(shifted, 0.0, out=shifted)
        return counted

    def in_units_of(self, unit: float) -> "Camera":
        """Return a camera with a gain of ``unit`` and the same zero.

        Views of one object share a unit, as they share an estimate.
        """
        if unit == self.gain:
            return self
        return replace(self, offset=self.zero, gain=unit, read_noise=0.0)


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """Camera, background and noise of a whole image.

    Attributes
    ----------
    camera
        Conversion of photons to image values.
    background
        Background level, camera offset included, image units.
    background_warning
        Reason why the background is uncertain; empty where it was set or the darkest regions are
        empty.
    levels
        Values of saturated and filled voxels.
    planes
        Indices of planes with a single value.
    spectrum
        Spectrum of the noise.
    """

    camera: Camera = Camera()
    background: float = 0.0
    background_warning: str = ""
    levels: Levels = field(default_factory=Levels)
    planes: tuple[int, ...] = ()
    spectrum: Spectrum = field(default_factory=Spectrum)

    @property
    def background_photons(self) -> float:
        """The background in photons."""
        return max(0.0, (self.background - self.camera.zero) / self.camera.gain)

    def scaled(self, factor: float) -> Self:
        """Return the calibration of the image multiplied by a factor."""
        camera = replace(
            self.camera,
            offset=factor * self.camera.offset,
            gain=factor * self.camera.gain,
            read_noise=factor * self.camera.read_noise,
        )
        return replace(self, camera=camera, background=factor * self.background)

    def facts(self) -> dict[str, Any]:
        """Return background, camera and noise for a record."""
        facts = {"background": self.background, "camera": asdict(self.camera)}
        if self.background_warning:
            facts["background_warning"] = self.background_warning
        if not self.spectrum.white:
            facts["noise_correlations"] = [list(lags) for lags in self.spectrum.correlations]
        return facts

    def as_json(self) -> dict[str, Any]:
        """Return all fields in JSON types."""
        levels = {k: v for k, v in asdict(self.levels).items() if v is not None and abs(v) < 1e300}
        return asdict(self) | {"levels": levels, "planes": list(self.planes)}

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> Self:
        """Return a calibration from the fields of :meth:`as_json`."""
        z, y, x = fields["spectrum"]["correlations"]
        values = {
            "camera": Camera(**fields["camera"]),
            "levels": Levels(**fields["levels"]),
            "planes": tuple(fields["planes"]),
            "spectrum": Spectrum(correlations=(tuple(z), tuple(y), tuple(x))),
        }
        return cls(**fields | values)


def calibrate(image: Volume, settings: CalibrationSettings | None = None) -> Calibration:
    """Return the calibration of an image, from all of it or, if large, from blocks.

    Values that the settings do not set are estimated.

    Raises
    ------
    RlnError
        If the mean of the image is not above its background.
    """
    parts = [image.data[box] for box in sample_boxes(image.shape)]
    return calibrate_parts(parts, image.name, settings, image.fill)


def sample_boxes(shape: Shape) -> list[Box]:
    """Return the boxes (z, y, x) to sample an image by: all of a small one."""
    if shape[0] * shape[1] * shape[2] <= MOST_VOXELS:
        z, y, x = (slice(0, n) for n in shape)
        return [(z, y, x)]
    return list(blocks(shape, _BLOCK, MOST_VOXELS // (4 * _BLOCK[0] * _BLOCK[1] * _BLOCK[2])))


def calibrate_parts(
    parts: Sequence[FloatArray],
    name: str,
    settings: CalibrationSettings | None = None,
    fill: float | None = None,
) -> Calibration:
    """Return the calibration of an image from parts of it, (Z, Y, X) each, see :func:`calibrate`.

    ``name`` is that of the image in messages, ``fill`` the value of voxels without a measurement,
    which is detected when none.
    """
    settings = settings or UserCalibration()
    noise = estimate_noise(*parts, gain=None if settings.gain == "auto" else settings.gain)
    warning = ""
    if settings.background == "auto":
        zero = None if settings.offset == "auto" else min(settings.offset, noise.darkest)
        estimated = estimate_background(*parts, noise=noise, zero=zero)
        level = estimated.level
        warning = "" if estimated.certain or not noise.gain > 0 else estimated.reason
    else:
        level = float(settings.background)
    # Without noise, a frequent value does not indicate saturation or filling.
    levels = find_levels(*parts) if noise.gain > 0 else Levels()
    if fill is not None:
        levels = replace(levels, fill=fill)
    mean = _mean(parts, levels)
    if not level < mean:
        raise RlnError(
            f"the background is {level:g} but the mean of {name} is {mean:g}; set a lower "
            "background (`background`), such as the camera's offset."
        )
    return Calibration(
        camera=_camera(noise, level, settings),
        background=level,
        background_warning=warning,
        levels=levels,
        planes=constant_planes(parts[0]) if noise.gain > 0 and len(parts) == 1 else (),
        spectrum=noise.spectrum,
    )


def _mean(parts: Sequence[FloatArray], levels: Levels) -> float:
    """Return the mean of the measured voxels, image units."""
    shown = [part if levels.fill is None else part[~filled(part, levels)] for part in parts]
    total = sum(float(part.sum(dtype=np.float64)) for part in shown)
    return total / max(1, sum(part.size for part in shown))


def _camera(noise: Noise, background: float, settings: CalibrationSettings) -> Camera:
    """Return the camera, from the values set by the user and the noise of the image."""
    provenance: Provenance = "estimated" if noise.gain > 0 else "assumed"
    gain = settings.gain
    if gain == "auto":
        gain = noise.gain if noise.gain > 0 else 1.0
    read_variance = 0.0
    if settings.offset == "auto":
        offset = min(noise.zero, background)
    else:
        offset = settings.offset
        if noise.gain > 0:
            # At the background, where most voxels are and the noise is known best.
            variance = noise.gain * background + noise.intercept
            read_variance = max(variance - gain * (background - offset), 0.0)
    return Camera(
        offset=offset,
        gain=gain,
        read_noise=read_variance**0.5,
        offset_from=provenance if settings.offset == "auto" else "given",
        gain_from=provenance if settings.gain == "auto" else "given",
    )


def prepare_data(
    data: FloatArray,
    psf: FloatArray | None,
    calibration: Calibration,
    *,
    repair: bool = True,
    planes: Sequence[int] | None = None,
) -> tuple[FloatArray, Mask | None, Defects]:
    """Return an image, or a part of one, repaired; the mask of measured voxels; and the defects.

    The mask is none if all voxels are measured.

    Parameters
    ----------
    data
        (Z, Y, X), image units.
    psf
        (z, y, x), sum 1, on the image's voxels: hot voxels are sharper than it.
    calibration
        Calibration of the whole image.
    repair
        Whether to replace isolated hot and cold voxels by the median of their neighbours.
    planes
        Indices within ``data`` of the planes with a single value; those of the calibration when
        none.
    """
    camera = calibration.camera
    # Without photon noise no voxel counts as hot: a deconvolved image may be as sharp.
    noise = Noise(
        gain=camera.gain if camera.counts_photons and repair else 0.0,
        intercept=-camera.gain * camera.zero,
    )
    defects = find_defects(
        data,
        noise=noise,
        psf=psf,
        levels=calibration.levels,
        planes=calibration.planes if planes is None else planes,
        background=calibration.background,
    )
    mask = defects.mask
    if defects.isolated.any():
        data = repaired(data, defects.isolated, others=~mask)
    return data, None if mask.all() else mask, defects


def prepare_image(
    image: Volume, psf: Volume | None, calibration: Calibration, *, repair: bool = True
) -> tuple[Volume, Mask | None, dict[str, Any]]:
    """Return an image with its defects repaired, the mask of measured voxels, and facts.

    Warns
    -----
    RlnWarning
        For each kind of defective voxels.
    """
    kernel = None if psf is None else psf.data
    data, mask, defects = prepare_data(image.data, kernel, calibration, repair=repair)
    sentences = defects.sentences()
    for sentence in sentences:
        warn(f"{image.name}: {sentence}.")
    facts = {"defects": list(sentences)} if sentences else {}
    return image if data is image.data else image.with_data(data), mask, facts
