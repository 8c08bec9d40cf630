"""Applying a trained network to volumes of any size.

The first estimate, one affine map for the whole volume, the network tile by tile, and back to the
image's units. Tiles overlap by what the network sees, so that they give what the whole would.
"""

import time
from collections.abc import Generator
from dataclasses import asdict, dataclass, field
from typing import Annotated, Any, Literal

import numpy as np
import torch

from napari_rln.device import Peak, check_memory, computing, free_bytes, resolve_device
from napari_rln.errors import RlnError, warn
from napari_rln.model import Model, load_model
from napari_rln.networks.folded import Folded, Precision
from napari_rln.networks.rln import REACH
from napari_rln.noise import estimate_noise
from napari_rln.normalisation import Normalisation
from napari_rln.psf.prepare import AS_IT_IS, prepare_psf
from napari_rln.record import Record
from napari_rln.resampling import on_grid, resampled_image
from napari_rln.residual import reconvolution_residual
from napari_rln.rld import RldReport, check_image, check_pair, resolve_background
from napari_rln.settings import as_dict, check_limits
from napari_rln.start import FirstEstimate, first_estimate
from napari_rln.steps import finish, relay
from napari_rln.suitability import check_grid, doubts, refuse_grid
from napari_rln.tiles import Shape, Tile, even_sized, largest_core, plan_tiles
from napari_rln.volume import FloatArray, Volume

_SHARE = 0.5  # of the free memory that is taken unless said otherwise
_LEAST_SIDE = 16  # of a tile's core: smaller ones are halo for the most part
_MOST_VOXELS = 1 << 24  # of a tile: larger ones are no faster, and come seldom
_ADVICE = "take less memory at once (--memory-gb), or use another device."


@dataclass(frozen=True, kw_only=True)
class RlnSettings:
    """Settings of the application of a network.

    Parameters
    ----------
    background
        Light that is not of the object, camera offset included, in image units; auto takes
        the darkest parts of the image.
    negatives
        What to do with negative voxels: error, or clip to set them to 0.
    grid
        What to do with an image on other voxels than the model was trained for: refuse it, or
        resample it and the result.
    tile
        Side in voxels of the tiles' cores; auto takes the largest that the memory allows.
    memory_gb
        Memory that may be taken beside image and result; auto takes half of what is free.
    precision
        Of the network.
    device
        auto, cpu, cuda, cuda:1, mps.
    """

    background: Annotated[float | Literal["auto"], {"min": 0.0}] = "auto"
    negatives: Literal["error", "clip"] = "error"
    grid: Literal["refuse", "resample"] = "refuse"
    tile: Annotated[int | Literal["auto"], {"min": 16, "max": 65_536}] = "auto"
    memory_gb: Annotated[float | Literal["auto"], {"min": 0.01, "max": 100_000.0}] = "auto"
    precision: Precision = "float32"
    device: str = "auto"

    def __post_init__(self) -> None:
        check_limits(self)


@dataclass(frozen=True, kw_only=True, eq=False)
class RlnReport:
    """Where an application stands.

    Attributes
    ----------
    phase
        ``"stop"`` while it is sought where to stop the classical deconvolution, ``"start"`` while
        that makes the first estimate, then ``"network"``.
    done, total
        Iterations, or tiles.
    seconds
        Since the beginning.
    tile
        Where the piece lies that was just finished.
    piece
        (z, y, x) float32, the result in the tile's core, image units, background removed.
    """

    phase: Literal["stop", "start", "network"]
    done: int
    total: int
    seconds: float
    tile: Tile | None = None
    piece: FloatArray | None = None
    _start: RldReport | None = field(default=None, repr=False)

    @property
    def part(self) -> tuple[slice, ...]:
        """Of the image (z, y, x), that :meth:`estimate` is of."""
        return self._start.part if self._start else (slice(None),) * 3

    def estimate(self) -> FloatArray | None:
        """Return a copy of the first estimate as it is now, (z, y, x) float32, image units.

        None while the network is applied, and where the estimate is on other voxels than the
        image. To be called before the next report.
        """
        return self._start.estimate() if self._start else None


def apply_model(
    image: Volume,
    psf: Volume | None = None,
    model: Model | None = None,
    settings: RlnSettings | None = None,
) -> Volume:
    """Return the image deconvolved by a network; see :func:`apply_steps`, whose last word it is."""
    return finish(apply_steps(image, psf, model, settings))


def apply_steps(
    image: Volume,
    psf: Volume | None = None,
    model: Model | None = None,
    settings: RlnSettings | None = None,
) -> Generator[RlnReport, None, Volume]:
    """Deconvolve an image by a network; yield reports with finished tiles, return the result.

    Closing the generator cancels.

    Parameters
    ----------
    image
        (Z, Y, X), non-negative, in any unit proportional to photons.
    psf
        On the image's voxel grid, sum 1, centre on voxel ``n // 2``; a model of the paper's
        variant needs none.
    model
        The universal one when none.
    settings
        The defaults when none.

    Returns
    -------
    Volume
        (Z, Y, X) float32 in the image's unit, background removed, with a record. Its facts hold
        ``chi2``, the reduced chi squared of the blurred result against the image in units of the
        image's noise, and ``flux_ratio``, output over input flux, where they can be told.

    Raises
    ------
    RlnError
        For an image, PSF or model that cannot be used or do not go together, a missing device or
        too little memory.
    ComputeError
        If the computation fails on the way.

    Warns
    -----
    RlnWarning
        If the PSF is unlike those that the model was trained for.
    """
    began = time.perf_counter()
    settings = settings or RlnSettings()
    model = model or load_model()
    image = check_inputs(image, psf, model, settings)
    original, given = image, psf
    if not check_grid(model, image):
        if settings.grid == "refuse":
            raise refuse_grid(model, image)
        assert model.psf is not None
        image = resampled_image(image, model.psf.voxel_um)
        psf = psf and prepare_psf(psf, AS_IT_IS, image_voxel_um=image.voxel_um)
    for doubt in doubts(model, psf):
        warn(doubt)
    device = resolve_device(settings.device)
    most = bytes_allowed(settings, device)
    if settings.memory_gb != "auto":
        check_memory(most, device, _ADVICE)
    background = resolve_background(settings.background, image)
    facts: dict[str, Any] = {"background": background, "device": str(device)}
    memory = Peak(device)
    with computing(most, device, _ADVICE):
        shown = image.shape == original.shape
        start = yield from _start(image, psf, background, model, device, most, began, shown)
        facts |= {"start_iterations": start.iterations}
        memory.look()
        data = yield from _network(image, start, background, model, settings, facts, most, began)
        memory.look()
    outside = start.outside
    if image is not original:
        data = on_grid(data, image.voxel_um, original.shape, original.voxel_um)
        outside = None  # is not on this grid
    facts |= _trust(original, data, given, background, outside)
    facts |= {
        "seconds": round(time.perf_counter() - began, 3),
        "peak_mb": round(memory.peak / 1e6),
        "model": model.card()["record"],
    }
    if given is not None and given.record:
        facts["psf"] = asdict(given.record)
    return original.with_data(
        data,
        name=f"{original.name} · RLN {model.name}",
        record=Record(
            method="rln",
            settings=as_dict(settings) | {"model": model.name, "start": as_dict(model.start)},
            facts=facts,
            inputs={"image": original.hash, "model": model.hash}
            | ({"psf": given.hash} if given is not None else {}),
        ),
    )


def check_inputs(image: Volume, psf: Volume | None, model: Model, settings: RlnSettings) -> Volume:
    """Return the image fit for the model: unchanged, or clipped where asked for.

    Raises
    ------
    RlnError
        If it, or the PSF, cannot be used with the model.
    """
    if model.network.settings.views != "single":
        raise RlnError(f"model {model.name} takes two views of the object, not one image.")
    if psf is not None:
        return check_pair(image, psf, settings.negatives)
    if model.start.needs_psf:
        raise RlnError(
            f"model {model.name} starts from a classical deconvolution and needs the PSF; give "
            "one (--psf), or use a model of the paper's variant."
        )
    return check_image(image, settings.negatives)


def bytes_allowed(settings: RlnSettings, device: torch.device) -> int:
    """Return how much memory an application may take, in bytes; not whether it is there."""
    if settings.memory_gb == "auto":
        return int(_SHARE * free_bytes(device))
    return int(settings.memory_gb * 1e9)


def network_tiles(
    shape: Shape, settings: RlnSettings, bytes_per_voxel: float, most: int
) -> tuple[Tile, ...]:
    """Return the tiles by which a network is applied, with its reach.

    Parameters
    ----------
    shape
        (Z, Y, X) of the image.
    settings
        Of the application.
    bytes_per_voxel
        Memory that the network takes.
    most
        Bytes that it may take.

    Raises
    ------
    RlnError
        If no tile is small enough.
    """
    halo = (REACH,) * 3
    if settings.tile != "auto":
        return plan_tiles(shape, (settings.tile,) * 3, halo)
    core = largest_core(shape, halo, min(int(most // bytes_per_voxel), _MOST_VOXELS))
    if max(core) < min(_LEAST_SIDE, max(shape)):
        raise RlnError(
            f"the network needs more than the {most / 1e9:.2f} GB that may be taken; {_ADVICE}"
        )
    return plan_tiles(shape, core, halo)


def _start(
    image: Volume,
    psf: Volume | None,
    background: float,
    model: Model,
    device: torch.device,
    most: int,
    began: float,
    shown: bool,
) -> Generator[RlnReport, None, FirstEstimate]:
    def told(report: RldReport) -> RlnReport:
        return RlnReport(
            phase="stop" if report.phase == "stop" else "start",
            done=report.iteration,
            total=report.total,
            seconds=time.perf_counter() - began,
            _start=report if shown else None,
        )

    steps = first_estimate(image, psf, background, model.start, device, most_bytes=most)
    return (yield from relay(steps, told))


def _network(
    image: Volume,
    start: FirstEstimate,
    background: float,
    model: Model,
    settings: RlnSettings,
    facts: dict[str, Any],
    most: int,
    began: float,
) -> Generator[RlnReport, None, FloatArray]:
    """Yield the tiles as they are finished, return the whole, image units."""
    scaling = Normalisation.of(image.data, start.data, background, model.normalisation)
    facts |= {"normalisation": asdict(scaling)}
    device = resolve_device(settings.device)
    network = Folded(model.network, device, settings.precision)
    tiles = network_tiles(image.shape, settings, network.bytes_per_voxel, most)
    core = [part.stop - part.start for part in tiles[0].core]
    facts |= {"tiles": len(tiles), "tile": core, "network": network.path}
    whole = np.empty_like(image.data)
    for number, tile in enumerate(tiles, 1):
        x = even_sized(scaling.apply(image.data[tile.window]))
        E0 = even_sized(scaling.apply(start.data[tile.window] + np.float32(background)))
        output = network(torch.from_numpy(x)[None], torch.from_numpy(E0)[None])[0]
        piece = output.to("cpu", torch.float32).numpy()[tile.inner]
        # The offset is part of the map; the background is not part of a result.
        piece = scaling.undo(piece * np.float32(model.output_scale)) - np.float32(background)
        if model.share:
            piece += np.float32(model.share) * (start.data[tile.core] - piece)
        whole[tile.core] = piece
        yield RlnReport(
            phase="network",
            done=number,
            total=len(tiles),
            seconds=time.perf_counter() - began,
            tile=tile,
            piece=piece,
        )
    return whole


def _trust(
    image: Volume,
    data: FloatArray,
    psf: Volume | None,
    background: float,
    outside: FloatArray | None,
) -> dict[str, float]:
    """Return how far the result explains the image, and how much of its light it holds."""
    flux = float(image.data.sum(dtype=np.float64)) - background * image.data.size
    facts = {"flux_ratio": float(data.sum(dtype=np.float64)) / flux} if flux > 0 else {}
    noise = estimate_noise(image.data)
    if psf is None or noise.gain <= 0:
        return facts
    try:
        residual = reconvolution_residual(
            image.data,
            data,
            psf.data,
            gain=noise.gain,
            intercept=noise.intercept,
            outside=outside,
        )
    except RlnError:  # too few voxels to tell the noise by; the result is there all the same
        return facts
    return facts | {"chi2": residual.chi2, "gain": noise.gain, "intercept": noise.intercept}
