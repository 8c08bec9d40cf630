"""What the application of a network is told, what it reports, and how it is divided.

:mod:`napari_rln.networks.application` holds the run made from that.
"""

import math
from dataclasses import dataclass, field
from typing import Literal

import torch

from napari_rln.core.device import free_bytes
from napari_rln.core.errors import RlnError
from napari_rln.core.machine import LIBRARIES_BYTES, SHARE, Allowance, MemoryGb
from napari_rln.core.settings import check_limits
from napari_rln.core.tiles import Shape, Tile, TileSide, largest_core, plan_tiles
from napari_rln.core.volume import FloatArray, Volume
from napari_rln.deconvolution.calibration import Gain, Level, Negatives
from napari_rln.deconvolution.convolution import padded_shape
from napari_rln.deconvolution.rld_settings import (
    RldReport,
    RldSettings,
    check_image,
    check_pair,
    memory_bytes,
)
from napari_rln.deconvolution.stopping import telling_shape
from napari_rln.networks.data_consistency import REACH as MERGE_REACH
from napari_rln.networks.data_consistency import VOXEL_BYTES as MERGE_BYTES
from napari_rln.networks.inference import Precision
from napari_rln.networks.model import Model
from napari_rln.networks.rln import REACH as NETWORK_REACH

ADVICE = "take less memory at once (`memory_gb`), or use another device."
"""For who has not the memory."""

REACH = NETWORK_REACH + MERGE_REACH
"""Voxels on either side, from an even position on, that a voxel of a result depends on."""

CHECK_BYTES = 56
"""Per voxel transformed, where a network's result is held against the image."""

SPLIT_BYTES = 40
"""Per voxel of a part whose photons were split, beside its deconvolution; measured."""

_VOLUME_BYTES = 28  # measured: per voxel of the image, of all that is kept of its size on the way
_WINDOW_BYTES = 60  # measured: per voxel of a tile, of what is cut out for it and comes of it
_LEAST_SIDE = 16  # of a tile's core: smaller ones are halo for the most part
_MOST_VOXELS = 1 << 24  # of a tile: larger ones are no faster, and come seldom


@dataclass(frozen=True, kw_only=True)
class RlnSettings:
    """Settings of the application of a network.

    Parameters
    ----------
    background
        Light that is not of the object, camera offset included, in image units; auto takes
        the darkest parts of the image.
    offset
        What the camera gives without light, in image units; auto tells it by the image's noise.
    gain
        Image units per photon of the camera; auto tells it by the image's noise.
    repair_image
        Replace isolated hot and cold voxels, which no light can make, by what is around them.
    negatives
        What to do with negative voxels, such as of a subtracted background: keep them, as the
        camera's offset is found below them; clip, to set them to 0; or error.
    grid
        What to do with an image on other voxels than the model was trained for: refuse it, or
        resample it and the result.
    tile
        Side in voxels of the tiles' cores; auto takes the largest that the memory allows.
    memory_gb
        Memory that the process may have, with its libraries, image and result; on a CUDA device,
        memory of that. auto takes half of what is free.
    precision
        Of the network.
    device
        auto, cpu, cuda, cuda:1, mps.
    """

    background: Level = "auto"
    offset: Level = "auto"
    gain: Gain = "auto"
    repair_image: bool = True
    negatives: Negatives = "keep"
    grid: Literal["refuse", "resample"] = "refuse"
    tile: TileSide = "auto"
    memory_gb: MemoryGb = "auto"
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
        that makes the first estimate, then ``"network"``; before that ``"compile"`` where its
        kernels are not yet compiled on this machine, which takes some twenty seconds, once.
    done, total
        Iterations, or tiles.
    seconds
        Since the beginning.
    tile
        Where the piece lies that was just finished.
    piece
        (z, y, x) float32, the result in the tile's core, image units, background removed.
    """

    phase: Literal["stop", "start", "compile", "network"]
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


def check_inputs(image: Volume, psf: Volume | None, model: Model, settings: RlnSettings) -> Volume:
    """Return the image fit for the model: unchanged, or clipped where asked for.

    Raises
    ------
    RlnError
        If it, or the PSF, cannot be used with the model.
    """
    check_model(model, psf)
    return (
        check_image(image, settings.negatives)
        if psf is None
        else check_pair(image, psf, settings.negatives)
    )


def check_model(model: Model, psf: Volume | None) -> None:
    """Raise unless a model can be applied to a single image with a PSF, or without one.

    Raises
    ------
    RlnError
        If it cannot.
    """
    if model.network.settings.views != "single":
        raise RlnError(
            f"model {model.name} takes two views of the object, not one image; give both "
            "(napari-rln dual)."
        )
    if psf is None and model.start.needs_psf:
        raise RlnError(
            f"model {model.name} starts from a classical deconvolution and needs the PSF; give "
            "one (`psf`), or use a model of the paper's variant."
        )


def bytes_allowed(settings: RlnSettings, device: torch.device) -> int:
    """Return how much memory an application may still take, in bytes; not whether it is there."""
    if device.type != "cuda":
        return Allowance(settings.memory_gb).left_bytes
    if settings.memory_gb == "auto":
        return int(SHARE * free_bytes(device))
    return int(settings.memory_gb * 1e9)


def kept_bytes(shape: Shape, psf_shape: Shape | None, model: Model) -> int:
    """Return what an application comes to have beside the image, whatever its tiles, in bytes.

    Parameters
    ----------
    shape, psf_shape
        (Z, Y, X) of image and PSF; no PSF where there is none.
    model
        To be applied.
    """
    kept = LIBRARIES_BYTES + _VOLUME_BYTES * math.prod(shape)
    if psf_shape is not None and model.start.needs_psf:
        kept += seeking_bytes(shape, psf_shape, model.start.rld())
    return kept


def seeking_bytes(shape: Shape, psf_shape: Shape, settings: RldSettings) -> int:
    """Return what is kept of the search for the stop of a whole volume, in bytes."""
    if settings.iterations != "auto":
        return 0
    part = telling_shape(shape, psf_shape)
    return memory_bytes(part, psf_shape, settings) + SPLIT_BYTES * math.prod(part)


def checking_bytes(shape: Shape, psf_shape: Shape | None) -> int:
    """Return what it takes to hold a result against the image, of a whole volume, in bytes."""
    if psf_shape is None:
        return 0
    return CHECK_BYTES * math.prod(padded_shape(shape, psf_shape, "extended"))


def check_allowed(shape: Shape, psf_shape: Shape | None, settings: RlnSettings, most: int) -> None:
    """Raise unless a whole volume fits into the memory that was allowed.

    Parameters
    ----------
    shape, psf_shape
        As of :func:`kept_bytes`.
    settings
        Of the application.
    most
        Bytes that may be taken beside what is kept.

    Raises
    ------
    RlnError
        If it does not.
    """
    needed = checking_bytes(shape, psf_shape)
    if settings.memory_gb != "auto" and needed > most:
        more = settings.memory_gb + (needed - most) / 1e9
        raise RlnError(
            f"the whole image takes {more:.2f} GB with the program but `memory_gb` is "
            f"{settings.memory_gb:g}; allow more, or deconvolve it in parts from disk to disk "
            "(run_large), as the command line does."
        )


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
    voxels = int(most // (max(bytes_per_voxel, MERGE_BYTES) + _WINDOW_BYTES))
    core = largest_core(shape, halo, min(voxels, _MOST_VOXELS))
    if max(core) < min(_LEAST_SIDE, max(shape)):
        raise RlnError(
            f"the network needs more than the {most / 1e9:.2f} GB that may be taken; {ADVICE}"
        )
    return plan_tiles(shape, core, halo)
