"""Simulation of microscope images, and its settings estimated from an image.

The object extends beyond the field of view by the PSF's support, so that light enters from outside
as in a microscope, without periodicity. Each voxel receives a Poisson number of photons, to which
the camera adds Gaussian read noise, gain and offset.
"""

from dataclasses import dataclass
from functools import partial
from typing import Annotated

import numpy as np
import torch

from napari_rln.core.errors import RlnError
from napari_rln.core.limits import as_dict, check_limits
from napari_rln.core.record import Record
from napari_rln.core.volume import FloatArray, Shape, Volume
from napari_rln.deconvolution.calibration import calibrate
from napari_rln.deconvolution.convolution import Convolution, of_one_size
from napari_rln.deconvolution.noise import estimate_noise
from napari_rln.simulate.conditions import FieldConditions
from napari_rln.simulate.ranges import Range, check_range, drawn
from napari_rln.simulate.structures import StructureSettings, draw

_BRIGHT = 99.9  # percentile of the blurred object that defines its brightest voxels
_EXPOSURES = (0.5, 2.0)  # of a second view, relative to the first
_SPREAD = 1.5  # factor by which photons may differ from those of an imitated image


@dataclass(frozen=True, kw_only=True)
class ImagingSettings:
    """Light and camera; values are drawn from ranges for each volume.

    Parameters
    ----------
    photons
        Lowest and highest number of photons in the brightest voxels (the 99.9th percentile),
        background not counted; drawn log-uniformly. Raise them for brighter images.
    background
        Lowest and highest flat background, as a fraction of those photons; drawn log-uniformly.
        Raise it for haze from out-of-focus layers.
    read_noise
        Lowest and highest standard deviation of the camera's noise, in photons. Give that of the
        camera's data sheet.
    gain
        Image units per photon. Give that of the camera to get its grey values.
    offset
        Image value without light. Give that of the camera to get its grey values.
    """

    photons: Range = (15.0, 1500.0)
    background: Range = (0.02, 0.5)
    read_noise: Annotated[Range, {"label": "Read noise (photons)"}] = (0.0, 3.0)
    gain: Annotated[float, {"min": 1e-6, "max": 1e6, "label": "Camera gain"}] = 1.0
    offset: Annotated[float, {"min": 0.0, "max": 1e6, "label": "Camera offset"}] = 0.0

    def __post_init__(self) -> None:
        check_limits(self)
        for name, least in (("photons", 1e-3), ("background", 1e-6), ("read_noise", 0.0)):
            check_range(self, name, least)


@dataclass(frozen=True, kw_only=True, eq=False)
class Pair:
    """A simulated image and its object, on one grid and in one unit.

    Attributes
    ----------
    image
        (Z, Y, X) in image units, non-negative. Its record suffices to repeat it, with the PSF,
        which it identifies by its hash.
    truth
        (Z, Y, X), the object in the field of view: the image without blur, noise, background and
        offset.
    second
        (Z, Y, X), the image of a second view, if any, on the same voxels and in the same unit.
    """

    image: Volume
    truth: Volume
    second: Volume | None = None


def simulate_pair(
    psf: Volume,
    structures: StructureSettings | None = None,
    imaging: ImagingSettings | None = None,
    *,
    shape: Shape = (64, 64, 64),
    seed: int | tuple[int, ...] = 0,
    name: str = "simulated",
    psf_b: Volume | None = None,
    conditions: FieldConditions | None = None,
) -> Pair:
    """Return a simulated image of a random object, and the object.

    Parameters
    ----------
    psf
        PSF on the image's voxels, sum 1, centred on voxel ``n // 2``.
    structures
        Settings of the object; the defaults if None.
    imaging
        Light and camera; the defaults if None.
    shape
        Size (Z, Y, X) of the image.
    seed
        Seed of all random numbers; equal arguments return equal pairs.
    name
        Name of both volumes.
    psf_b
        PSF of a second view, such as from the side, on the same voxels; adds a second image, with
        independent noise and 0.5 to 2 times as much light, in the unit of the first.
    conditions
        Detector, conversion to image units and defects, drawn for each volume. They replace gain,
        offset and read noise of ``imaging``. The truth is bleached and shifted as the image is.

    Raises
    ------
    RlnError
        If a setting or the shape is out of range.
    """
    structures, imaging = structures or StructureSettings(), imaging or ImagingSettings()
    seeds = (seed,) if isinstance(seed, int) else seed
    if min(shape) < 1:
        raise RlnError(f"`shape` is {shape} but must be at least one voxel along every axis.")
    if min(seeds) < 0:
        raise RlnError(f"`seed` is {seed} but must not be negative.")
    kernels = of_one_size([psf.data] if psf_b is None else [psf.data, psf_b.data])
    blur = Convolution(kernels[0], shape, border="extended")
    drawing = draw(
        blur.estimate_shape,
        structures,
        seed=(*seeds, 0),
        z_ratio=psf.voxel_um[0] / psf.voxel_um[1],
        field=blur.window,
    )
    rng = np.random.default_rng((*seeds, 1))
    light = blur.A(torch.from_numpy(drawing.data)).numpy().clip(0)
    level = drawn(rng, imaging.photons, log=True)
    background = level * drawn(rng, imaging.background, log=True)
    read_noise = drawn(rng, imaging.read_noise)
    brightest = float(np.percentile(light, _BRIGHT))
    scale = level / brightest if brightest > 0 else 0.0

    actual = None
    gain, offset = imaging.gain, imaging.offset
    if conditions is not None:
        # Another seed than that of random PSFs in training, (..., 2).
        actual = conditions.draw(
            np.random.default_rng((*seeds, 3)), scale * float(light.max()) + background
        )
        gain, offset, read_noise = actual.gain, actual.offset, actual.read_noise
        background = 0.0 if actual.empty else background

    def exposed(light: FloatArray, exposure: float = 1.0) -> FloatArray:
        if actual is not None:
            return actual.image(scale * light, background, rng, exposure=exposure)
        photons = rng.poisson(exposure * (scale * light + background)).astype(np.float32)
        photons += rng.normal(0.0, read_noise, shape).astype(np.float32)
        image: FloatArray = gain * photons / np.float32(exposure) + offset
        return np.maximum(image, 0)

    data = exposed(light)
    record = Record(
        method="simulate",
        settings={
            "structures": as_dict(structures),
            "imaging": as_dict(imaging),
            "shape": list(shape),
            "seed": list(seeds),
        }
        | ({} if conditions is None else {"conditions": as_dict(conditions)}),
        facts={
            "structures": list(drawing.structures),
            "photons": level,
            "background": gain * background + offset,
            "read_noise": read_noise,
        }
        | ({} if actual is None else {"conditions": as_dict(actual)}),
        inputs={"psf": psf.hash} | ({} if psf_b is None else {"psf_b": psf_b.hash}),
    )
    volume = partial(Volume.from_array, voxel_um=psf.voxel_um, record=record)
    truth = (gain * scale) * drawing.data[blur.window]
    if actual is not None:
        truth = actual.truth(truth)
    second = None
    if psf_b is not None:
        side = Convolution(kernels[1], shape, border="extended")
        light = side.A(torch.from_numpy(drawing.data)).numpy().clip(0)
        data_b = exposed(light, drawn(rng, _EXPOSURES, log=True))
        second = volume(data_b, name=f"{name} · second view")
    return Pair(
        image=volume(data, name=name), truth=volume(truth, name=f"{name} · truth"), second=second
    )


def imaging_like(image: Volume) -> ImagingSettings:
    """Return settings that imitate the light, background and noise of an image.

    Raise an RlnError if the image has no noise from which to estimate photons, or nothing above its
    background.
    """
    if not estimate_noise(image.data).gain > 0:
        raise RlnError(
            f"{image.name} has no noise from which to estimate photons: it was smoothed, or "
            "simulated without noise. Give `photons` and `background` instead of an image."
        )
    calibration = calibrate(image)
    camera, background = calibration.camera, calibration.background
    signal = (float(np.percentile(image.data, _BRIGHT)) - background) / camera.gain
    if signal <= 0:
        raise RlnError(
            f"{image.name} has no signal above its background of {background:g}; give a brighter "
            "image, or `photons` and `background`."
        )
    # A negative offset is due to read noise of a camera without offset.
    offset = max(camera.offset, 0.0)
    read_noise = max(-camera.gain * camera.offset, 0.0) ** 0.5 / camera.gain
    relative = max((background - offset) / camera.gain / signal, 1e-3)
    return ImagingSettings(
        photons=(signal / _SPREAD, signal * _SPREAD),
        background=(relative / _SPREAD, relative * _SPREAD),
        read_noise=(read_noise, read_noise),
        gain=camera.gain,
        offset=offset,
    )
