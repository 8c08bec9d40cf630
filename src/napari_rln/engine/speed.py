"""How fast this machine is: times of the real code on small volumes, carried over to any size."""

import math
import time
from collections.abc import Generator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, fields, replace
from multiprocessing import get_context
from statistics import median
from typing import Any, NamedTuple

import numpy as np
from scipy import ndimage

from napari_rln.core.device import resolve_device
from napari_rln.core.errors import ComputeError, RlnError
from napari_rln.core.generators import finish, relay
from napari_rln.core.tiles import Shape
from napari_rln.core.volume import Volume
from napari_rln.deconvolution.convolution import padded_shape
from napari_rln.deconvolution.loop import iterate
from napari_rln.deconvolution.rld_settings import RldSettings
from napari_rln.deconvolution.stopping import telling_shape
from napari_rln.networks.application import apply_steps
from napari_rln.networks.inference import Folded
from napari_rln.networks.initial_estimate import StartSettings
from napari_rln.networks.model import Model, load_model
from napari_rln.networks.rln_settings import RlnSettings
from napari_rln.psf.compute import compute_psf
from napari_rln.psf.microscope import MicroscopeSettings

# Sizes (z, y, x) to measure with: larger than the caches, and than what a GPU needs to start.
_SIZES = {"cpu": ((16, 32, 32), (64, 160, 160)), "gpu": ((32, 96, 96), (64, 256, 256))}
_STEPS = 6
_VOXEL_UM = (0.2, 0.1, 0.1)
_PSF = MicroscopeSettings(modality="gaussian", size=(17, 17, 17))

_Measured = dict[str, tuple[int, float]]  # voxels and seconds of the parts of a run


class Line(NamedTuple):
    """A time that grows with the size.

    Attributes
    ----------
    fixed
        Seconds whatever the size.
    per_voxel
        Seconds for each.
    """

    fixed: float
    per_voxel: float

    def at(self, voxels: int) -> float:
        """Return the seconds for that many voxels."""
        return self.fixed + self.per_voxel * voxels

    @classmethod
    def through(cls, few: int, short: float, many: int, long: float) -> "Line":
        """Return the line through two times; through the origin where noise would make it fall."""
        slope = (long - short) / (many - few)
        if slope <= 0:
            return cls(0.0, max(0.0, float(long)) / many)
        return cls(max(0.0, float(short - slope * few)), float(slope))


@dataclass(frozen=True, kw_only=True)
class Speed:
    """How fast a device is; ``dataclasses.asdict`` makes of it what JSON can hold.

    Attributes
    ----------
    device
        That was measured.
    iteration
        Of accelerated Richardson-Lucy in float32; of the voxels that are transformed.
    setup
        What is done once for a deconvolution; of the voxels that are transformed.
    search
        What is done once to find where to stop, setup apart; of the voxels that are looked at.
    network
        Of the voxels that it is applied to, in float32.
    check
        Of a network's result against the image; of the voxels that are transformed.
    network_voxel_bytes
        Memory that the network takes per voxel, in float32.

    Raises
    ------
    RlnError
        If a number is negative or not finite.
    """

    device: str
    iteration: Line
    setup: Line
    search: Line
    network: Line
    check: Line
    network_voxel_bytes: int

    def __post_init__(self) -> None:
        for field in fields(self)[1:]:
            value = getattr(self, field.name)
            if field.type is Line:
                value = Line(*value)  # JSON has lists
                object.__setattr__(self, field.name, value)
            numbers = value if isinstance(value, Line) else (value,)
            if not all(0 <= number < math.inf for number in numbers):
                raise RlnError(f"{field.name} is {value}, which is no speed; measure it again.")


@dataclass(frozen=True, kw_only=True)
class CalibrationReport:
    """Where a calibration stands.

    Attributes
    ----------
    done, total
        Runs of small volumes.
    """

    done: int
    total: int


def calibrate(device: str = "auto") -> Generator[CalibrationReport, None, Speed]:
    """Measure how fast a device is; yield reports after every iteration, return the speed.

    It takes some seconds, more where the network's kernels are compiled for the first time.
    Closing the generator cancels.

    Parameters
    ----------
    device
        auto, cpu, cuda, cuda:1, mps.

    Raises
    ------
    RlnError
        If there is no such device, or too little memory.
    ComputeError
        If the computation fails on the way.
    """
    where = resolve_device(device)
    model = replace(load_model(), start=StartSettings(iterations=2))
    small, large = _SIZES["cpu" if where.type == "cpu" else "gpu"]
    found: list[_Measured] = []
    for shape in (small, small, large):  # the first one loads libraries and compiles kernels
        told = CalibrationReport(done=len(found), total=3)
        found.append((yield from _measure(shape, model, str(where), told)))
    _, few, many = found
    return Speed(
        device=str(where),
        network_voxel_bytes=Folded(model.network, where).bytes_per_voxel,
        **{part: Line.through(*few[part], *many[part]) for part in few},
    )


def calibrate_apart(device: str = "auto") -> Speed:
    """Measure how fast a device is in a process of its own, which gives back the memory it takes.

    Raises
    ------
    RlnError
        As :func:`calibrate`.
    ComputeError
        If the process ends on the way.
    """
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        try:
            return pool.submit(_calibrated, device).result()
        except BrokenProcessPool as error:
            raise ComputeError(f"the speed of {device} could not be measured ({error}).") from error


def _calibrated(device: str) -> Speed:
    return finish(calibrate(device))


def _measure(
    shape: Shape, model: Model, device: str, told: CalibrationReport
) -> Generator[CalibrationReport, None, _Measured]:
    """Return how long the parts of a deconvolution and of a network take on a volume."""
    points = np.random.default_rng(0).random(shape) > 0.999
    light = ndimage.gaussian_filter(points.astype(np.float32), 2)
    photons = np.random.default_rng(1).poisson(50 + 2000 * light / light.max())
    image, psf = Volume.from_array(photons, _VOXEL_UM), compute_psf(_PSF, _VOXEL_UM)
    settings = RldSettings(max_iterations=_STEPS, device=device)
    rld = yield from _timed(iterate(image, psf, settings), told)
    rln = yield from _timed(apply_steps(image, psf, model, RlnSettings(device=device)), told)
    part = telling_shape(shape, psf.shape)
    work, less = (math.prod(padded_shape(s, psf.shape, settings.border)) for s in (shape, part))
    pace = median(np.diff(rld["deconvolve"]))
    begun, ended = rld["deconvolve"][0] - rld["stop"][-1], rld["end"][0] - rld["deconvolve"][-1]
    setup = begun - pace + ended
    searched = rld["stop"][0] - (2 * pace + setup) * less / work  # reports begin with the 2nd step
    return {
        "iteration": (work, pace),
        "setup": (work, setup),
        "search": (math.prod(part), searched),
        "network": (photons.size, rln["network"][-1] - rln["start"][-1]),
        "check": (work, rln["end"][0] - rln["network"][-1]),
    }


def _timed(
    steps: Generator[Any, None, Any], told: CalibrationReport
) -> Generator[CalibrationReport, None, dict[str, list[float]]]:
    """Return the seconds at which reports came, by their phases, and the end."""
    began = time.perf_counter()
    seen: dict[str, list[float]] = {}

    def note(report: Any) -> CalibrationReport:
        seen.setdefault(report.phase, []).append(time.perf_counter() - began)
        return told

    yield from relay(steps, note)
    return seen | {"end": [time.perf_counter() - began]}
