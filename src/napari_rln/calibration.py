"""What is found out about an image before it is deconvolved: its camera and its background.

A camera makes values of photons, ``value = offset + gain * photons``, and adds read noise.
Richardson-Lucy deconvolution is derived for photons, whose variance is their mean. An offset has no
such noise: taken for light, it makes every iteration more timid than the data warrant. So every
run works in photons, and results go back to the image's units.
"""

from dataclasses import asdict, dataclass, replace
from typing import Annotated, Any, Literal, Self

import numpy as np
import numpy.typing as npt

from napari_rln.errors import RlnError
from napari_rln.noise import estimate_background, estimate_noise
from napari_rln.tiles import blocks
from napari_rln.volume import FloatArray, Volume

Level = Annotated[float | Literal["auto"], {"min": 0.0}]
"""A setting in image units that is found in the image where it is auto."""

Gain = Annotated[float | Literal["auto"], {"min": 1e-9, "max": 1e9}]
"""The same of image units per photon."""

Source = Literal["given", "estimated", "assumed"]

MOST_VOXELS = 1 << 24
"""Images up to this are looked at whole, of larger ones this much is sampled."""

_BLOCK = (32, 64, 64)
_DARKEST = 1e-4  # share of voxels that may be darker than no light: dead pixels, read noise


@dataclass(frozen=True, kw_only=True)
class Camera:
    """How values come of photons.

    Attributes
    ----------
    offset
        Value without light, image units.
    gain
        Image units per photon.
    read_noise
        Standard deviation, image units. Where it cannot be told from the offset it is 0, and the
        offset that much lower: the two act alike.
    offset_from, gain_from
        ``"given"`` by the user, ``"estimated"`` from the image's noise, or ``"assumed"`` where
        there is no photon noise: then the darkest voxels are without light and a unit is a photon.
    """

    offset: float = 0.0
    gain: float = 1.0
    read_noise: float = 0.0
    offset_from: Source = "given"
    gain_from: Source = "given"

    @property
    def zero(self) -> float:
        """Value from which the variance of a voxel is ``gain * (value - zero)``, image units.

        It lies below the offset by what read noise takes: Snyder et al. (J. Opt. Soc. Am. A 10,
        1014, 1993) count its variance as that many more photons, of a Poisson distribution too.
        """
        return self.offset - self.read_noise**2 / self.gain

    def photons(self, values: npt.ArrayLike) -> FloatArray:
        """Return image values in photons, float32, at least 0."""
        shifted = np.subtract(values, np.float32(self.zero), dtype=np.float32)
        shifted /= np.float32(self.gain)
        counted: FloatArray = np.maximum(shifted, 0.0, out=shifted)
        return counted

    def in_units_of(self, unit: float) -> "Camera":
        """Return a camera whose photons are of so many image units, with the same zero.

        Views of one object are counted in one unit: their estimate is one.
        """
        if unit == self.gain:
            return self
        return replace(self, offset=self.zero, gain=unit, read_noise=0.0)


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """What holds for all of an image.

    Attributes
    ----------
    camera
        How its values come of photons.
    background
        Light that is not of the object, camera offset included, image units.
    """

    camera: Camera
    background: float

    @property
    def background_photons(self) -> float:
        """The background as a run in photons has it."""
        return max(0.0, (self.background - self.camera.zero) / self.camera.gain)

    def scaled(self, factor: float) -> Self:
        """Return the calibration of the image times a factor."""
        camera = replace(
            self.camera,
            offset=factor * self.camera.offset,
            gain=factor * self.camera.gain,
            read_noise=factor * self.camera.read_noise,
        )
        return replace(self, camera=camera, background=factor * self.background)

    def facts(self) -> dict[str, Any]:
        """Return what a record says."""
        return {"background": self.background, "camera": asdict(self.camera)}

    @classmethod
    def of(cls, fields: dict[str, Any]) -> Self:
        """Return the calibration that JSON holds."""
        return cls(camera=Camera(**fields["camera"]), background=fields["background"])


def calibrate(
    image: Volume,
    *,
    background: float | Literal["auto"] = "auto",
    offset: float | Literal["auto"] = "auto",
    gain: float | Literal["auto"] = "auto",
) -> Calibration:
    """Return what is found out about an image, from all of it or from blocks of a large one.

    Parameters
    ----------
    image
        (Z, Y, X).
    background, offset, gain
        As a user gives them, image units and image units per photon.

    Raises
    ------
    RlnError
        If nothing of the image stands above its background.
    """
    boxes = sample_boxes(image.shape)
    parts = [image.data[box] for box in boxes]
    return calibrate_parts(parts, image.name, background=background, offset=offset, gain=gain)


def sample_boxes(shape: tuple[int, int, int]) -> list[tuple[slice, slice, slice]]:
    """Return the parts (z, y, x) of an image that stand for the whole: all of a small one."""
    if shape[0] * shape[1] * shape[2] <= MOST_VOXELS:
        z, y, x = (slice(0, n) for n in shape)
        return [(z, y, x)]
    return list(blocks(shape, _BLOCK, MOST_VOXELS // (_BLOCK[0] * _BLOCK[1] * _BLOCK[2])))


def calibrate_parts(
    parts: list[FloatArray],
    name: str,
    *,
    background: float | Literal["auto"] = "auto",
    offset: float | Literal["auto"] = "auto",
    gain: float | Literal["auto"] = "auto",
) -> Calibration:
    """Return what is found out about an image from parts of it; see :func:`calibrate`."""
    level = estimate_background(*parts) if background == "auto" else float(background)
    mean = sum(float(p.sum(dtype=np.float64)) for p in parts) / sum(p.size for p in parts)
    if not level < mean:
        raise RlnError(
            f"the background is {level:g} but {name} is {mean:g} on average, so nothing "
            "stands above it; give a lower one, such as the camera's offset (--background)."
        )
    camera = _camera(parts, level, offset, gain)
    return Calibration(camera=camera, background=max(level, camera.zero))


def _camera(
    parts: list[FloatArray],
    background: float,
    offset: float | Literal["auto"],
    gain: float | Literal["auto"],
) -> Camera:
    """Return the camera, from what is given and from the noise of the image."""
    noise = estimate_noise(*parts)
    if noise.gain <= 0:
        dark = min(float(np.quantile(part, _DARKEST)) for part in parts)
        return Camera(
            offset=dark if offset == "auto" else offset,
            gain=1.0 if gain == "auto" else gain,
            offset_from="assumed" if offset == "auto" else "given",
            gain_from="assumed" if gain == "auto" else "given",
        )
    per_photon = noise.gain if gain == "auto" else gain
    # Where noise is known best: most voxels are background.
    variance = max(noise.gain * background + noise.intercept, 0.0)
    if offset == "auto":
        zero = min(background - variance / per_photon, noise.zero if gain == "auto" else background)
        return Camera(
            offset=zero,
            gain=per_photon,
            offset_from="estimated",
            gain_from="estimated" if gain == "auto" else "given",
        )
    read_variance = max(variance - per_photon * (background - offset), 0.0)
    return Camera(
        offset=offset,
        gain=per_photon,
        read_noise=read_variance**0.5,
        offset_from="given",
        gain_from="estimated" if gain == "auto" else "given",
    )
