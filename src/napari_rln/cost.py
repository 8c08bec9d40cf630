"""What a run will cost, before it is started: how long it takes and how much memory.

Times are what the real code took on small volumes of this machine, carried over to what a run has
to do. Where the image's noise will decide how much that is, other images' numbers are taken.
"""

import math
import time
from collections.abc import Generator
from dataclasses import dataclass, fields, replace
from statistics import median
from typing import Any

import numpy as np
import torch
from scipy import ndimage

from napari_rln.application import _MOST_VOXELS, _SHARE, RlnSettings, apply_steps
from napari_rln.deconvolution import iterate
from napari_rln.device import free_bytes, resolve_device
from napari_rln.errors import RlnError
from napari_rln.forward import padded_shape
from napari_rln.model import Model, load_model
from napari_rln.networks.folded import Folded
from napari_rln.networks.rln import REACH
from napari_rln.psf.compute import compute_psf
from napari_rln.psf.microscope import MicroscopeSettings
from napari_rln.rld import RldSettings, memory_bytes
from napari_rln.start import StartSettings, _core
from napari_rln.steps import relay
from napari_rln.stop import telling_shape
from napari_rln.tiles import Shape, largest_core, plan_tiles
from napari_rln.volume import Volume

Line = tuple[float, float]
"""Seconds whatever the size, and seconds per voxel."""

_Measured = dict[str, tuple[int, float]]  # voxels and seconds of the parts of a run

# Iterations at which images stop by themselves, and for how many that is sought, by whether the
# back projector is the matched one and whether it is accelerated: the middle of those that
# rld_cost names.
_STOPS = {
    (True, True): (40, 40), (True, False): (100, 100),
    (False, True): (10, 17), (False, False): (19, 25),
}  # fmt: skip

# Seconds over those of an accelerated, matched iteration in float32, of the setting up for the
# matched back projector, and of the network in float32; measured on a CPU.
_UNACCELERATED, _TV, _FLOAT64 = 0.93, 2.0, 2.05
_FILTER = 3.0
_NETWORK = {"float32": 1.0, "float64": 50.0, "float16": 1.0}

# Sizes (z, y, x) to measure with: larger than the caches, and than what a GPU needs to start.
_SIZES = {"cpu": ((16, 32, 32), (64, 160, 160)), "gpu": ((32, 96, 96), (64, 256, 256))}
_STEPS = 6
_CHECK_BYTES = 56  # per voxel transformed, where a network's result is held against the image
_VOXEL_UM = (0.2, 0.1, 0.1)
_PSF = MicroscopeSettings(modality="gaussian", size=(17, 17, 17))


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
                value = tuple(value)  # JSON has lists
                object.__setattr__(self, field.name, value)
            numbers = value if isinstance(value, tuple) else (value,)
            if not all(0 <= number < math.inf for number in numbers):
                raise RlnError(f"{field.name} is {value}, which is no speed; measure it again.")


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What a run will take.

    Attributes
    ----------
    seconds
        As far as can be told.
    bytes
        Memory beside image and result.
    free_bytes
        Memory that the device has free now.
    """

    seconds: float
    bytes: int
    free_bytes: int

    @property
    def fits(self) -> bool:
        """Whether there is memory enough."""
        return self.bytes <= self.free_bytes


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

    It takes a second or two, some more where the network's kernels are compiled for the first
    time. Closing the generator cancels.

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
        **{part: _line(*few[part], *many[part]) for part in few},
    )


def rld_cost(image_shape: Shape, psf_shape: Shape, settings: RldSettings, speed: Speed) -> Cost:
    """Return what a Richardson-Lucy deconvolution will take.

    Where it stops by itself, 40 iterations are taken for granted, after a search as long; 10 after
    17 with an unmatched back projector, more without acceleration. Real images stopped at 35
    (nucleus), 38 and 43 (filaments), 38 (bead), 84 (embryo) and 9 (noisy pollen).

    How good that is, on these volumes of 0.5 to 4 million voxels and two threads of a CPU, right
    after measuring: they took 1.2 (nucleus), 1.1 and 1.25 (filaments) and 0.9 times (bead) what was
    predicted, and where the stop was not the usual one 2.8 (embryo) and 0.3 times (pollen). With an
    unmatched back projector it was 1.1 to 1.7 times, with total variation or float64 0.5 to 1.8.
    What other factors there are was measured on a CPU and holds less on a GPU.

    Parameters
    ----------
    image_shape, psf_shape
        (Z, Y, X).
    settings
        Of the run. A tolerance is not foreseen.
    speed
        Of the settings' device.

    Raises
    ------
    RlnError
        If a shape is none, or the speed is another device's.
    """
    device = _device(settings.device, speed, image_shape, psf_shape)
    work = math.prod(padded_shape(image_shape, psf_shape, settings.border))
    iterations, seconds = _iterations(image_shape, psf_shape, settings, speed)
    seconds += _setup(work, settings, speed) + iterations * _step(work, settings, speed)
    return Cost(
        seconds=seconds,
        bytes=memory_bytes(image_shape, psf_shape, settings),
        free_bytes=free_bytes(device),
    )


def rln_cost(
    image_shape: Shape,
    psf_shape: Shape | None,
    model: Model,
    settings: RlnSettings,
    speed: Speed,
) -> Cost:
    """Return what the application of a network will take.

    On the volumes of :func:`rld_cost` it took 0.95 to 1.3 times what was predicted, where the stop
    was the usual one; elsewhere it is as far off as there.

    Parameters
    ----------
    image_shape, psf_shape
        (Z, Y, X), on the voxels that the model takes; no PSF where there is none.
    model
        To be applied.
    settings
        Of the run.
    speed
        Of the settings' device.

    Raises
    ------
    RlnError
        If a shape is none, the speed is another device's, the model needs a PSF and there is none,
        or no tile of its first estimate is small enough for the memory.
    """
    device = _device(settings.device, speed, image_shape, psf_shape or (1, 1, 1))
    if psf_shape is None and model.start.needs_psf:
        raise RlnError(f"model {model.name} starts from a deconvolution; give the PSF's shape.")
    free = free_bytes(device)
    most = int(_SHARE * free if settings.memory_gb == "auto" else settings.memory_gb * 1e9)
    per_voxel = speed.network_voxel_bytes
    if settings.precision != "float32":
        per_voxel = Folded(model.network, device, settings.precision).bytes_per_voxel
    voxels, largest = _windows(image_shape, settings, most // per_voxel)
    seconds = _at(speed.network, voxels) * _NETWORK[settings.precision]
    needed = largest * per_voxel
    if psf_shape is not None and model.start.needs_psf:
        more, started = _first_estimate(image_shape, psf_shape, model.start, most, speed)
        seconds, needed = seconds + more, max(needed, started)
    if psf_shape is not None:
        work = math.prod(padded_shape(image_shape, psf_shape, "extended"))
        seconds += _at(speed.check, work)
        if device.type != "cuda":  # of which the check takes nothing
            needed = max(needed, _CHECK_BYTES * work)
    if settings.memory_gb != "auto":  # a run insists on all of it
        needed = max(needed, most)
    return Cost(seconds=seconds, bytes=needed, free_bytes=free)


def _first_estimate(
    image_shape: Shape, psf_shape: Shape, start: StartSettings, most: int, speed: Speed
) -> tuple[float, int]:
    """Return seconds and bytes of the deconvolution that a network starts from, tile by tile."""
    told = start.rld()
    iterations, seconds = _iterations(image_shape, psf_shape, told, speed)
    if told.iterations == "auto":
        iterations = max(1, round(start.beyond * iterations))
    z, y, x = (n // 2 + n // 2 % 2 for n in psf_shape)
    psf = Volume(data=np.broadcast_to(np.float32(0), psf_shape), voxel_um=_VOXEL_UM)
    core = _core(image_shape, psf, (z, y, x), told, most)
    largest = 0
    for tile in plan_tiles(image_shape, core, (z, y, x)):
        work = math.prod(padded_shape(tile.shape, psf_shape, told.border))
        seconds += _setup(work, told, speed) + iterations * _step(work, told, speed)
        largest = max(largest, memory_bytes(tile.shape, psf_shape, told))
    return seconds, largest


def _windows(image_shape: Shape, settings: RlnSettings, most_voxels: int) -> tuple[int, int]:
    """Return the voxels of all tiles that the network is applied to, and of the largest."""
    core = largest_core(image_shape, (REACH,) * 3, min(most_voxels, _MOST_VOXELS))
    if settings.tile != "auto":
        core = (settings.tile,) * 3
    along = [
        [tile.shape[0] for tile in plan_tiles((n, 1, 1), (c, 1, 1), (REACH, 0, 0))]
        for n, c in zip(image_shape, core, strict=True)
    ]
    return math.prod(map(sum, along)), math.prod(map(max, along))


def _iterations(
    image_shape: Shape, psf_shape: Shape, settings: RldSettings, speed: Speed
) -> tuple[int, float]:
    """Return how many iterations there will be, and the seconds in which that is found out."""
    if settings.iterations != "auto":
        return settings.iterations, 0.0
    matched, plain = settings.back_projector == "matched", settings.acceleration == "none"
    kept, sought = _STOPS[matched, not plain]
    part = telling_shape(image_shape, psf_shape)
    work = math.prod(padded_shape(part, psf_shape, settings.border))
    steps = min(sought, settings.max_iterations) + 1
    seconds = _at(speed.search, math.prod(part)) + _setup(work, settings, speed)
    seconds += steps * _step(work, settings, speed)
    return min(kept, settings.max_iterations), seconds


def _setup(work: int, settings: RldSettings, speed: Speed) -> float:
    """Return the seconds before the first iteration."""
    return _at(speed.setup, work) * (1.0 if settings.back_projector == "matched" else _FILTER)


def _step(work: int, settings: RldSettings, speed: Speed) -> float:
    """Return the seconds of an iteration."""
    factor = 1.0 if settings.acceleration == "biggs-andrews" else _UNACCELERATED
    factor *= _TV if settings.tv else 1.0
    factor *= _FLOAT64 if settings.precision == "float64" else 1.0
    return factor * _at(speed.iteration, work)


def _device(name: str, speed: Speed, *shapes: Shape) -> torch.device:
    """Return the device of a run, after a look at what it is to be computed from.

    Raises
    ------
    RlnError
        If a shape is none, or the speed is another device's.
    """
    for shape in shapes:
        if len(shape) != 3 or min(shape) < 1:
            raise RlnError(f"{shape} is no shape; give three sizes (z y x) of at least one voxel.")
    device = resolve_device(name)
    if device != resolve_device(speed.device):
        raise RlnError(
            f"the speed was measured on {speed.device} but the run is for {device}; measure there."
        )
    return device


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


def _line(few: int, short: float, many: int, long: float) -> Line:
    """Return the line through two times; through the origin where noise would make it fall."""
    slope = (long - short) / (many - few)
    if slope <= 0:
        return 0.0, max(0.0, float(long)) / many
    return max(0.0, float(short - slope * few)), float(slope)


def _at(line: Line, voxels: int) -> float:
    return line[0] + line[1] * voxels
