"""What a run will cost, before it is started: how long it takes and how much memory.

Times are those of :mod:`napari_rln.engine.speed`, carried over to what a run has to do. Where the
image's noise will decide how much that is, other images' numbers are taken.
"""

import math
from dataclasses import dataclass

import torch

from napari_rln.core.device import free_bytes, resolve_device
from napari_rln.core.errors import RlnError
from napari_rln.core.machine import taken_bytes
from napari_rln.core.tiles import Shape
from napari_rln.deconvolution.convolution import padded_shape
from napari_rln.deconvolution.rld_settings import RldSettings, memory_bytes
from napari_rln.deconvolution.stopping import telling_shape
from napari_rln.engine.speed import Speed
from napari_rln.networks.inference import Folded
from napari_rln.networks.initial_estimate import StartSettings, start_tiles
from napari_rln.networks.model import Model
from napari_rln.networks.rln_settings import (
    CHECK_BYTES,
    RlnSettings,
    bytes_allowed,
    check_allowed,
    checking_bytes,
    kept_bytes,
    network_tiles,
    seeking_bytes,
)

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
READ_BYTES = 12
"""Per voxel of an image: as read and as float32, and the result; measured."""

NETWORK_FACTOR = {"float32": 1.0, "float64": 50.0, "float16": 1.0}


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
    seconds += setup_seconds(work, settings, speed) + iterations * step_seconds(
        work, settings, speed
    )
    needed = memory_bytes(image_shape, psf_shape, settings)
    if device.type != "cuda":  # of which the check takes nothing
        needed += checking_bytes(image_shape, psf_shape)
    return Cost(seconds=seconds, bytes=needed, free_bytes=free_bytes(device))


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
        or the memory that was allowed is too little for the whole, or for any tile.
    """
    device = _device(settings.device, speed, image_shape, psf_shape or (1, 1, 1))
    if psf_shape is None and model.start.needs_psf:
        raise RlnError(f"model {model.name} starts from a deconvolution; give the PSF's shape.")
    free = free_bytes(device)
    most = bytes_allowed(settings, device)
    if settings.memory_gb != "auto" and device.type != "cuda":
        most -= kept_bytes(image_shape, psf_shape, model)
        check_allowed(image_shape, psf_shape, settings, most)
    per_voxel = speed.network_voxel_bytes
    if settings.precision != "float32":
        per_voxel = Folded(model.network, device, settings.precision).bytes_per_voxel
    tiles = network_tiles(image_shape, settings, per_voxel, most)
    voxels = [math.prod(tile.shape) for tile in tiles]
    seconds = speed.network.at(sum(voxels)) * NETWORK_FACTOR[settings.precision]
    needed = max(voxels) * per_voxel
    if psf_shape is not None and model.start.needs_psf:
        more, started = _first_estimate(image_shape, psf_shape, model.start, most, speed)
        seconds, needed = seconds + more, max(needed, started)
    if psf_shape is not None:
        work = math.prod(padded_shape(image_shape, psf_shape, "extended"))
        seconds += speed.check.at(work)
        if device.type != "cuda":  # of which the check takes nothing
            needed = max(needed, CHECK_BYTES * work)
    if settings.memory_gb != "auto" and most > free:  # which a run insists on
        needed = max(needed, most)
    return Cost(seconds=seconds, bytes=needed, free_bytes=free)


def whole_bytes(
    image_shape: Shape,
    psf_shape: Shape | None,
    settings: RldSettings | RlnSettings,
    model: Model | None = None,
) -> int:
    """Return what this process will have at least to deconvolve a volume whole, in bytes.

    That is as the system counts it: with what the process has now, and with the image as it is
    read. Of what a network can do tile by tile nothing is counted.

    Parameters
    ----------
    image_shape, psf_shape
        (Z, Y, X); no PSF where there is none.
    settings
        Of the classical deconvolution, or of the application of a network.
    model
        The network's.
    """
    kept = taken_bytes() + READ_BYTES * math.prod(image_shape)
    if isinstance(settings, RldSettings):
        assert psf_shape is not None
        kept += seeking_bytes(image_shape, psf_shape, settings)
        # The result is held against the image while the iterations' arrays are still there.
        kept += checking_bytes(image_shape, psf_shape)
        return kept + memory_bytes(image_shape, psf_shape, settings)
    assert model is not None
    kept += kept_bytes(image_shape, psf_shape, model)
    if resolve_device(settings.device).type == "cuda":
        return kept
    return kept + checking_bytes(image_shape, psf_shape)


def _first_estimate(
    image_shape: Shape, psf_shape: Shape, start: StartSettings, most: int, speed: Speed
) -> tuple[float, int]:
    """Return seconds and bytes of the deconvolution that a network starts from, tile by tile."""
    told = start.rld()
    iterations, seconds = _iterations(image_shape, psf_shape, told, speed)
    if told.iterations == "auto":
        iterations = start.after(iterations)
    largest = 0
    for tile in start_tiles(image_shape, psf_shape, told, most):
        work = math.prod(padded_shape(tile.shape, psf_shape, told.border))
        seconds += setup_seconds(work, told, speed) + iterations * step_seconds(work, told, speed)
        largest = max(largest, memory_bytes(tile.shape, psf_shape, told))
    return seconds, largest


def _iterations(
    image_shape: Shape, psf_shape: Shape, settings: RldSettings, speed: Speed
) -> tuple[int, float]:
    """Return how many iterations there will be, and the seconds in which that is found out."""
    if settings.iterations != "auto":
        return settings.iterations, 0.0
    part = telling_shape(image_shape, psf_shape)
    work = math.prod(padded_shape(part, psf_shape, settings.border))
    steps = sought_iterations(settings)
    seconds = speed.search.at(math.prod(part)) + setup_seconds(work, settings, speed)
    seconds += steps * step_seconds(work, settings, speed)
    return usual_iterations(settings), seconds


def usual_iterations(settings: RldSettings) -> int:
    """Return how many iterations there will be: those of most images, if they decide it."""
    if settings.iterations != "auto":
        return settings.iterations
    kept, _ = _STOPS[settings.back_projector == "matched", settings.accelerated]
    return min(kept, settings.max_iterations)


def sought_iterations(settings: RldSettings) -> int:
    """Return in how many iterations of a part it is found out when to stop most images."""
    _, sought = _STOPS[settings.back_projector == "matched", settings.accelerated]
    return min(sought, settings.max_iterations) + 1


def setup_seconds(work: int, settings: RldSettings, speed: Speed) -> float:
    """Return the seconds before the first iteration, of so many voxels transformed."""
    return speed.setup.at(work) * (1.0 if settings.back_projector == "matched" else _FILTER)


def step_seconds(work: int, settings: RldSettings, speed: Speed) -> float:
    """Return the seconds of an iteration, of so many voxels transformed."""
    factor = 1.0 if settings.accelerated else _UNACCELERATED
    factor *= _TV if settings.tv else 1.0
    factor *= _FLOAT64 if settings.precision == "float64" else 1.0
    return factor * speed.iteration.at(work)


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
