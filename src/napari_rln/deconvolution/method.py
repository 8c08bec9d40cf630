"""The protocol of a deconvolution method: whole images, overlapping tiles, blocks.

A method has at most two stages. The first computes overlapping tiles that are blended, such as
Richardson-Lucy iterations. The second computes blocks that read a few voxels more than they write,
such as a network. A method has one of them, or both. An image that fits into memory is computed
whole.
"""

import time
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Protocol, Self

import torch

from napari_rln.core.device import PeakMemory, bytes_allowed, has_memory
from napari_rln.core.limits import as_dict, from_dict
from napari_rln.core.machine import MemoryGb
from napari_rln.core.report import Report
from napari_rln.core.tiles import TileSide
from napari_rln.core.volume import Box, FloatArray, OnGrid, Shape, Volume, VoxelUm
from napari_rln.deconvolution.calibration import Calibration, CalibrationSettings, Negatives
from napari_rln.deconvolution.prepared_view import PreparedView
from napari_rln.deconvolution.shared import Shared
from napari_rln.deconvolution.stopping_trial import Trial

Json = dict[str, Any]
"""Values of JSON types, by name."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Observation:
    """An image, or several views of one object, to deconvolve whole.

    Attributes
    ----------
    views
        Views on the grid of the result.
    original
        First view on its own voxels.
    shared
        Results that methods share, such as calibrations.
    device
        Compute device.
    tile, memory_gb
        Side of tiles in voxels, and memory limit.
    shows_estimates
        Whether reports are displayed.
    started
        ``time.perf_counter()`` at the start, for the seconds of reports.
    memory
        Peak memory so far.
    """

    views: tuple[PreparedView, ...]
    original: PreparedView
    shared: Shared
    device: torch.device
    tile: TileSide
    memory_gb: MemoryGb
    shows_estimates: bool
    started: float
    memory: PeakMemory

    @classmethod
    def of(cls, view: PreparedView, device: torch.device, shared: Shared | None = None) -> Self:
        """Return the observation of one image, without displayed reports."""
        return cls(
            views=(view,), original=view, shared=shared or Shared(), device=device, tile="auto",
            memory_gb="auto", shows_estimates=False, started=time.perf_counter(),
            memory=PeakMemory(device),
        )  # fmt: skip

    @property
    def image(self) -> Volume:
        """First view on the grid of the result."""
        return self.views[0].image

    @property
    def psf(self) -> Volume | None:
        """PSF of the first view; none for a method without one."""
        return self.views[0].psf

    @property
    def calibration(self) -> Calibration:
        """Camera and background of the first view."""
        return self.views[0].calibration

    @property
    def on_own_voxels(self) -> bool:
        """Whether the result has the voxels of the original image."""
        return self.image.shape == self.original.image.shape

    def fits_whole(self, needed: int) -> bool:
        """Return whether it may be deconvolved whole with this memory, in bytes."""
        if self.tile != "auto" and len(self.views) == 1:
            return self.tile >= max(self.image.shape)
        if self.memory_gb == "auto":
            return has_memory(needed, self.device)
        return needed <= bytes_allowed(self.memory_gb, self.device)


class WholeResult(NamedTuple):
    """Result of a method for a whole image.

    Attributes
    ----------
    data
        (Z, Y, X) float32, image units, background removed.
    facts
        Facts for the record, JSON types.
    outside
        (Z, Y, X), light in the image from beyond its field of view, image units; none if unknown.
    """

    data: FloatArray
    facts: Json
    outside: FloatArray | None = None


class SampleEstimates(NamedTuple):
    """Estimates of samples of an image.

    Attributes
    ----------
    shared
        Parameters that tiles share.
    estimates
        Estimates of the crops, (Z, Y, X) or several each.
    outsides
        Light in the crops from beyond them, (Z, Y, X), image units; empty if unknown.
    """

    shared: Json
    estimates: Sequence[FloatArray]
    outsides: Sequence[FloatArray] = ()


class TileStage(Protocol):
    """A stage of tiles that overlap by a halo and are blended."""

    @property
    def estimates(self) -> int:
        """Number of estimates of a tile; several are (n, z, y, x)."""

    def memory_bytes(self, shape: Shape, psf_shape: Shape) -> int:
        """Return the memory for a tile with its halo, in bytes."""

    def search_bytes(self, shape: Shape, psf_shape: Shape) -> int:
        """Return the memory of :meth:`search` for a part of a shape, in bytes."""

    def search(
        self, crop: PreparedView, device: torch.device, started: float
    ) -> Generator[Report, None, tuple[Json, Trial | None]]:
        """Yield reports; return parameters that tiles share, and the trial that determined them."""

    def sample(
        self,
        crops: Sequence[PreparedView],
        shared: Json,
        level: float | None,
        device: torch.device,
        started: float,
    ) -> Generator[Report, None, SampleEstimates]:
        """Yield reports; return further shared parameters, and the estimates of the crops.

        ``level`` is the mean of the whole image above the background, image units; none if a crop
        is the whole image.
        """

    def halo(self, psf: Volume, shared: Json) -> Shape:
        """Return the halo of tiles in voxels (z, y, x)."""

    def margin(self, psf_shape: Shape) -> Shape:
        """Return the padding of a tile for its transform, in voxels (z, y, x)."""

    def check_division(self) -> None:
        """Raise if tiles are impossible."""

    def tile(
        self,
        crop: PreparedView,
        shared: Json,
        level: float | None,
        device: torch.device,
        part: Box,
    ) -> FloatArray:
        """Return the result in a part of a tile's window, image units, background removed.

        (z, y, x) float32, or several estimates.
        """

    def expected(self, *, most: bool = False) -> Json:
        """Return those expected before the image is read; with ``most``, of the widest halo."""

    @property
    def depends_on_image(self) -> bool:
        """Whether :meth:`search` may return other parameters than :meth:`expected`."""

    def facts(self, shared: Json) -> Json:
        """Return the shared parameters of the tiles for the record."""


class BlockComputer(Protocol):
    """The second stage, initialised for one image."""

    def __call__(self, crop: PreparedView, estimate: FloatArray | None, inner: Box) -> FloatArray:
        """Return the result in the inner part of a block's window.

        ``estimate`` is the result of the first stage in the window, (z, y, x) or several; none
        without a first stage.
        """


class BlockStage(Protocol):
    """A stage of blocks that read more voxels than they write."""

    @property
    def receptive_field(self) -> int:
        """Halo of a block in voxels on either side."""

    @property
    def fits_estimates(self) -> bool:
        """Whether :meth:`fit_range` needs estimates of several parts of the image."""

    def voxel_bytes(self, kind: str) -> float:
        """Return the memory per voxel of a block on a type of device, in bytes."""

    def fit(self, trial: Trial | None, device: torch.device, memory_gb: MemoryGb) -> Json:
        """Return parameters from the trial of the first stage."""

    def fit_range(
        self,
        parts: Sequence[FloatArray],
        background: float,
        crops: Sequence[PreparedView],
        sampled: SampleEstimates,
        device: torch.device,
        *,
        whole: bool,
    ) -> Json:
        """Return parameters from samples of the image and from estimates of crops.

        ``parts`` are samples of the image. With ``whole`` the only crop is the whole image.
        """

    def ready(self, psf: Volume | None, fitted: Json, device: torch.device) -> BlockComputer:
        """Return a computer of blocks with these parameters."""

    def facts(self, fitted: Json) -> Json:
        """Return the parameters for the record."""


class Description(NamedTuple):
    """Description of a method in records.

    Attributes
    ----------
    settings
        Settings, JSON types.
    identity
        All settings that the result depends on.
    inputs
        Hashes of inputs, such as a model.
    facts
        Further facts.
    """

    settings: Json
    identity: Json
    inputs: dict[str, str]
    facts: Json


class Method(CalibrationSettings, Protocol):
    """A deconvolution method with its settings: a frozen dataclass that inherits from this class.

    Methods with a body are defaults.
    """

    kind: ClassVar[str]
    """Name of the method in commands, records and files."""

    @property
    def repair_image(self) -> bool:
        """Whether isolated hot and cold voxels are replaced."""

    @property
    def negatives(self) -> Negatives:
        """Treatment of negative voxels."""

    @property
    def device(self) -> str:
        """Compute device."""

    @property
    def title(self) -> str:
        """Name of results in tables and layers."""

    @property
    def needs_psf(self) -> bool:
        """Whether the method needs a PSF."""

    @property
    def files(self) -> tuple[Path, ...]:
        """Files that the method reads, which results must not replace."""

    @property
    def tiles(self) -> TileStage | None:
        """The first stage, if any."""

    @property
    def blocks(self) -> BlockStage | None:
        """The second stage, if any."""

    def check(self, image: OnGrid, psf: Volume | None, *, views: int = 1) -> None:
        """Raise unless image and PSF are usable and match; values are not read."""

    @property
    def marks(self) -> tuple[int, ...]:
        """Numbers of iterations whose estimates the method needs, beside the last."""
        return ()

    def check_tiled(self) -> None:
        """Raise unless images can be deconvolved in parts."""
        return

    def warnings(self, *psfs: Volume | None) -> tuple[str, ...]:
        """Return warnings about its use with the PSFs of the views."""
        return ()

    def of_views(self, views: int) -> Self:
        """Return the method for a number of views."""
        return self

    def grid_of(self, image: OnGrid) -> VoxelUm:
        """Return the voxel size (z, y, x) of the computation, micrometres."""
        return image.voxel_um

    def needed_bytes(self, shape: Shape, psf_shape: Shape | None) -> int:
        """Return the memory for a whole image, bytes, beside that already in use."""

    def whole(self, observation: Observation) -> Generator[Report, None, WholeResult | None]:
        """Deconvolve a whole image; yield reports, return the result.

        None if its first stage does not fit into memory whole.
        """

    def describe(self) -> Description:
        """Return settings, identity, inputs and facts."""
        return Description(as_dict(self), as_dict(self), {}, {})

    def as_json(self, folder: Path | None = None) -> Json:
        """Return the settings in JSON types, with file names as seen from a folder.

        Raises
        ------
        RlnError
            If it uses an object without a file.
        """
        return as_dict(self)

    @classmethod
    def from_json(cls, fields: Json, folder: Path) -> Self:
        """Return a method from the fields of :meth:`as_json`; file names are relative to a folder.

        Raises
        ------
        RlnError
            If a setting is invalid.
        """
        return from_dict(cls, fields)

    def save_files(self, folder: Path) -> Self:
        """Write the files of the method into a folder; return the method that uses these."""
        return self
