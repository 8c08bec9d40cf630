"""What is found out about an image before it is deconvolved: camera, background, bad voxels.

A camera makes values of photons, ``value = offset + gain * photons``, and adds read noise.
Richardson-Lucy deconvolution is derived for photons, whose variance is their mean. An offset has no
such noise: taken for light, it makes every iteration more timid than the data warrant. So every
run works in photons, and results go back to the image's units.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Annotated, Any, Literal, NamedTuple, Protocol, Self

import numpy as np
import numpy.typing as npt

from napari_rln.core.errors import RlnError, warn
from napari_rln.core.tiles import Shape, blocks
from napari_rln.core.volume import Box, FloatArray, Volume
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
"""A setting in image units that is found in the image where it is auto."""

Negatives = Literal["keep", "clip", "error"]
"""What to do with negative voxels: they are as good as others, once a camera's offset is known."""

Gain = Annotated[float | Literal["auto"], {"min": 1e-9, "max": 1e9}]
"""The same of image units per photon."""

Provenance = Literal["given", "estimated", "assumed"]
Mask = npt.NDArray[np.bool_]

MOST_VOXELS = 1 << 24
"""Images up to this are looked at whole, of larger ones a quarter of it is sampled."""

REPAIR_HALO = HALO + 2
"""Voxels around a part by which what is not believed in it is as in the whole, once repaired."""

WHOLLY = 0.99
"""Share of a voxel that must have been measured where voxels are resampled."""

_BLOCK = (32, 64, 64)


class Known(Protocol):
    """What settings say of an image; auto where it is to be found out."""

    @property
    def background(self) -> float | Literal["auto"]:
        """Light that is not of the object, camera offset included, image units."""

    @property
    def offset(self) -> float | Literal["auto"]:
        """What the camera gives without light, image units."""

    @property
    def gain(self) -> float | Literal["auto"]:
        """Image units per photon."""


@dataclass(frozen=True, kw_only=True)
class Given:
    """What a user says of an image, see :class:`Known`."""

    background: float | Literal["auto"] = "auto"
    offset: float | Literal["auto"] = "auto"
    gain: float | Literal["auto"] = "auto"


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
        offset that much lower: both have the same effect.
    offset_from, gain_from
        ``"given"`` by the user, ``"estimated"`` from the image's noise, or ``"assumed"`` where
        there is no photon noise: then the darkest voxels are without light and a unit is a photon.
    """

    offset: float = 0.0
    gain: float = 1.0
    read_noise: float = 0.0
    offset_from: Provenance = "given"
    gain_from: Provenance = "given"

    @property
    def zero(self) -> float:
        """Value from which the variance of a voxel is ``gain * (value - zero)``, image units.

        It lies below the offset by what read noise takes: Snyder et al. (J. Opt. Soc. Am. A 10,
        1014, 1993) count its variance as that many more photons, of a Poisson distribution too.
        """
        return self.offset - self.read_noise**2 / self.gain

    @property
    def counts_photons(self) -> bool:
        """Whether it is known what a photon is."""
        return self.gain_from != "assumed"

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
    background_doubt
        Why the background may be another; empty where it was given, or the image is empty there.
    levels
        By which voxels that are saturated or filled in are known.
    planes
        Numbers of planes that hold one value only.
    spectrum
        Of the noise.
    """

    camera: Camera = Camera()
    background: float = 0.0
    background_doubt: str = ""
    levels: Levels = field(default_factory=Levels)
    planes: tuple[int, ...] = ()
    spectrum: Spectrum = field(default_factory=Spectrum)

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
        facts = {"background": self.background, "camera": asdict(self.camera)}
        if self.background_doubt:
            facts["background_doubt"] = self.background_doubt
        if not self.spectrum.white:
            facts["noise_correlations"] = [list(lags) for lags in self.spectrum.correlations]
        return facts

    def as_json(self) -> dict[str, Any]:
        """Return all of it in JSON types."""
        levels = {k: v for k, v in asdict(self.levels).items() if v is not None and abs(v) < 1e300}
        return {
            "camera": asdict(self.camera),
            "background": self.background,
            "background_doubt": self.background_doubt,
            "levels": levels,
            "planes": list(self.planes),
            "spectrum": asdict(self.spectrum),
        }

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> Self:
        """Return the calibration that :meth:`as_json` gave."""
        z, y, x = fields["spectrum"]["correlations"]
        made = {
            "camera": Camera(**fields["camera"]),
            "levels": Levels(**fields["levels"]),
            "planes": tuple(fields["planes"]),
            "spectrum": Spectrum(correlations=(tuple(z), tuple(y), tuple(x))),
        }
        return cls(**fields | made)


def calibrate(image: Volume, known: Known | None = None) -> Calibration:
    """Return what is found out about an image, from all of it or from blocks of a large one.

    Parameters
    ----------
    image
        (Z, Y, X).
    known
        What a user says of it; nothing when none.

    Raises
    ------
    RlnError
        If nothing of the image stands above its background.
    """
    parts = [image.data[box] for box in sample_boxes(image.shape)]
    return calibrate_parts(parts, image.name, known, image.fill)


def sample_boxes(shape: Shape) -> list[Box]:
    """Return the parts (z, y, x) of an image that stand for the whole: all of a small one."""
    if shape[0] * shape[1] * shape[2] <= MOST_VOXELS:
        z, y, x = (slice(0, n) for n in shape)
        return [(z, y, x)]
    return list(blocks(shape, _BLOCK, MOST_VOXELS // (4 * _BLOCK[0] * _BLOCK[1] * _BLOCK[2])))


def calibrate_parts(
    parts: Sequence[FloatArray],
    name: str,
    known: Known | None = None,
    fill: float | None = None,
) -> Calibration:
    """Return what is found out about an image from parts of it; see :func:`calibrate`.

    Parameters
    ----------
    parts
        (Z, Y, X) each, of the image.
    name
        What to call it in messages.
    known
        What a user says of it; nothing when none.
    fill
        Value of voxels that are known not to be measured; found from the image when none.
    """
    known = known or Given()
    noise = estimate_noise(*parts, gain=None if known.gain == "auto" else known.gain)
    doubt = ""
    if known.background == "auto":
        zero = None if known.offset == "auto" else min(known.offset, noise.darkest)
        found = estimate_background(*parts, noise=noise, zero=zero)
        level = found.level
        doubt = "" if found.sure or not noise.gain > 0 else found.reason
    else:
        level = float(known.background)
    # Without noise a value that many voxels have is no sign of anything.
    levels = find_levels(*parts) if noise.gain > 0 else Levels()
    if fill is not None:
        levels = replace(levels, fill=fill)
    mean = _mean(parts, levels)
    if not level < mean:
        raise RlnError(
            f"the background is {level:g} but {name} is {mean:g} on average, so nothing "
            "stands above it; give a lower one, such as the camera's offset (`background`)."
        )
    return Calibration(
        camera=_camera(noise, level, known),
        background=level,
        background_doubt=doubt,
        levels=levels,
        planes=constant_planes(parts[0]) if noise.gain > 0 and len(parts) == 1 else (),
        spectrum=noise.spectrum,
    )


def _mean(parts: Sequence[FloatArray], levels: Levels) -> float:
    """Return the mean of what was measured, image units."""
    shown = [part if levels.fill is None else part[~filled(part, levels)] for part in parts]
    total = sum(float(part.sum(dtype=np.float64)) for part in shown)
    return total / max(1, sum(part.size for part in shown))


def _camera(noise: Noise, background: float, known: Known) -> Camera:
    """Return the camera, from what is given and from the noise of the image."""
    found: Provenance = "estimated" if noise.gain > 0 else "assumed"
    gain = known.gain
    if gain == "auto":
        gain = noise.gain if noise.gain > 0 else 1.0
    read_variance = 0.0
    if known.offset == "auto":
        offset = min(noise.zero, background)
    else:
        offset = known.offset
        if noise.gain > 0:
            # Where noise is known best: most voxels are background.
            variance = noise.gain * background + noise.intercept
            read_variance = max(variance - gain * (background - offset), 0.0)
    return Camera(
        offset=offset,
        gain=gain,
        read_noise=read_variance**0.5,
        offset_from=found if known.offset == "auto" else "given",
        gain_from=found if known.gain == "auto" else "given",
    )


class Measured(NamedTuple):
    """An image as it is deconvolved.

    Attributes
    ----------
    data
        (Z, Y, X) float32, with isolated hot and cold voxels repaired.
    seen
        (Z, Y, X) bool, voxels that are measurements; all when none.
    defects
        What was found.
    """

    data: FloatArray
    seen: Mask | None
    defects: Defects


def measured(
    data: FloatArray,
    psf: FloatArray | None,
    calibration: Calibration,
    *,
    repair: bool = True,
    planes: Sequence[int] | None = None,
) -> Measured:
    """Return an image, or a part of one, without what cannot be believed.

    Parameters
    ----------
    data
        (Z, Y, X), image units.
    psf
        (z, y, x) sum 1, on the image's voxels: a point of light is no sharper, a hot voxel is.
    calibration
        Of the whole image.
    repair
        Whether isolated hot and cold voxels are replaced by what is around them.
    planes
        Those of the calibration as they are numbered in a part.
    """
    camera = calibration.camera
    # Without photons nothing is called hot: an image that was deconvolved may be as sharp.
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
    seen = defects.seen
    if defects.isolated.any():
        data = repaired(data, defects.isolated, others=~seen)
    return Measured(data, None if seen.all() else seen, defects)


def measured_volume(
    image: Volume, psf: Volume | None, calibration: Calibration, *, repair: bool = True
) -> tuple[Volume, Mask | None, dict[str, Any]]:
    """Return an image without what cannot be believed, where it is seen, and what a record says.

    Warns
    -----
    RlnWarning
        Of what was found, and of a background that is not sure.
    """
    found = measured(image.data, None if psf is None else psf.data, calibration, repair=repair)
    said = found.defects.sentences()
    for sentence in said:
        warn(f"{image.name}: {sentence}.")
    facts = {"defects": list(said)} if said else {}
    clean = image if found.data is image.data else image.with_data(found.data)
    return clean, found.seen, facts
