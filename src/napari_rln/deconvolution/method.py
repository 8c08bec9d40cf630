"""What a method of deconvolution has to offer, so that every part of the program can run it.

An image goes through a method in at most two stages. The first works on tiles that overlap and are
blended where they meet, such as the iterations of Richardson-Lucy. The second works on blocks that
read a few voxels more than they write, such as a network. A method has one of them, or both. An
image that fits into the memory goes through both whole.
"""

import time
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Protocol, Self

import torch

from napari_rln.core.device import Peak
from napari_rln.core.machine import MemoryGb
from napari_rln.core.report import Report
from napari_rln.core.tiles import Shape, TileSide
from napari_rln.core.volume import Box, FloatArray, OnGrid, Volume, VoxelUm
from napari_rln.deconvolution.calibration import Calibration, Gain, Level, Mask, Negatives
from napari_rln.deconvolution.settings import Seen
from napari_rln.deconvolution.shared import Shared
from napari_rln.deconvolution.stopping_trial import Trial

Json = dict[str, Any]
"""Values that JSON can hold, by name."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Scene:
    """An image, or several views of one object, to be deconvolved whole.

    Attributes
    ----------
    views
        On one grid, which is that of the result.
    original
        The first view on its own voxels.
    shared
        What other methods have found out about the image.
    device
        Where to compute.
    tile, memory_gb
        Side in voxels of what is computed at once, and memory that may be taken.
    watched
        Whether somebody looks at the reports.
    began
        ``time.perf_counter()`` from which reports count.
    memory
        The peak so far.
    """

    views: tuple[Seen, ...]
    original: Seen
    shared: Shared
    device: torch.device
    tile: TileSide
    memory_gb: MemoryGb
    watched: bool
    began: float
    memory: Peak

    @classmethod
    def of(cls, view: Seen, device: torch.device, shared: Shared | None = None) -> Self:
        """Return the scene of one image, for which nobody waits."""
        return cls(
            views=(view,), original=view, shared=shared or Shared(), device=device, tile="auto",
            memory_gb="auto", watched=False, began=time.perf_counter(), memory=Peak(device),
        )  # fmt: skip

    @property
    def image(self) -> Volume:
        """The first view on the result's grid."""
        return self.views[0].image

    @property
    def psf(self) -> Volume | None:
        """PSF of the first view; none where there is none."""
        return self.views[0].psf

    @property
    def calibration(self) -> Calibration:
        """Camera and background of the first view."""
        return self.views[0].calibration

    @property
    def on_own_voxels(self) -> bool:
        """Whether the result is on the voxels of the image as it was taken."""
        return self.image.shape == self.original.image.shape


class Whole(NamedTuple):
    """What a method makes of a whole image.

    Attributes
    ----------
    data
        (Z, Y, X) float32, image units, background removed.
    facts
        What the record says of the way there; JSON types.
    outside
        (Z, Y, X), light in the image from beyond its field of view, image units; none where it is
        not known.
    """

    data: FloatArray
    facts: Json
    outside: FloatArray | None = None


class Crop(NamedTuple):
    """Part of an image as it is deconvolved, and where it is a measurement (all where none)."""

    image: Volume
    seen: Mask | None


class TileStage(Protocol):
    """A stage whose tiles overlap by a halo and are blended where they meet."""

    def memory_bytes(self, shape: Shape, psf_shape: Shape) -> int:
        """Return the bytes that computing a tile takes, with its halo."""

    def search_bytes(self, shape: Shape, psf_shape: Shape) -> int:
        """Return the bytes that :meth:`search` takes for a part of that shape."""

    def search(
        self, crop: Crop, psf: Volume, calibration: Calibration, device: torch.device, began: float
    ) -> Generator[Report, None, tuple[Json, Trial | None]]:
        """Yield reports; return what all tiles share, and the trial that it was found by."""

    def sample(
        self,
        crops: Sequence[Crop],
        psf: Volume,
        calibration: Calibration,
        shared: Json,
        level: float | None,
        device: torch.device,
        began: float,
    ) -> Generator[Report, None, tuple[Json, list[FloatArray]]]:
        """Yield reports; return what else all tiles share, and the estimates of the crops.

        ``level`` is the mean light above the background of the whole image, in image units; none
        where a crop is the whole image.
        """

    def halo(self, psf: Volume, shared: Json) -> Shape:
        """Return by how many voxels (z, y, x) tiles reach beyond their cores."""

    def margin(self, psf_shape: Shape) -> Shape:
        """Return by how many voxels (z, y, x) a tile is extended before it is transformed."""

    def check_division(self) -> None:
        """Raise if it cannot be done in tiles."""

    def tile(
        self,
        crop: Crop,
        psf: Volume,
        calibration: Calibration,
        shared: Json,
        level: float | None,
        device: torch.device,
        part: Box,
    ) -> FloatArray:
        """Return the result of a tile in a part of its window, image units, background removed."""

    def expected(self, *, most: bool = False) -> Json:
        """Return what tiles share as far as it can be known before the image is looked at.

        ``most`` asks for what takes the widest halo that there can be.
        """

    @property
    def depends_on_image(self) -> bool:
        """Whether :meth:`expected` may be another than what :meth:`search` returns."""

    def facts(self, shared: Json) -> Json:
        """Return what the record says of what tiles share."""


class BlockComputer(Protocol):
    """The second stage, ready to compute."""

    def __call__(
        self, crop: Crop, estimate: FloatArray | None, calibration: Calibration, inner: Box
    ) -> FloatArray:
        """Return the result of a block in the inner part of its window.

        ``estimate`` is the result of the first stage in the window; none where there is none.
        """


class BlockStage(Protocol):
    """A stage whose blocks read some voxels more than they write."""

    @property
    def reach(self) -> int:
        """Voxels that are read more on either side."""

    @property
    def learns_from_estimates(self) -> bool:
        """Whether :meth:`learn_range` asks for estimates of several parts of the image."""

    def voxel_bytes(self, kind: str) -> float:
        """Return the bytes per voxel of a block on a kind of device."""

    def learn(self, trial: Trial | None, device: torch.device, memory_gb: MemoryGb) -> Json:
        """Return what is learnt from the trial of the first stage."""

    def learn_range(
        self,
        parts: Sequence[FloatArray],
        background: float,
        crops: Sequence[FloatArray],
        estimates: Sequence[FloatArray],
        *,
        whole: bool,
    ) -> Json:
        """Return what is learnt from samples of the image and from estimates of crops.

        ``parts`` stand for the image. The only crop is the whole image where ``whole`` says so.
        """

    def ready(self, psf: Volume | None, learnt: Json, device: torch.device) -> BlockComputer:
        """Return it ready to compute with what was learnt."""

    def facts(self, learnt: Json) -> Json:
        """Return what the record says of what was learnt."""


class Described(NamedTuple):
    """What is to be known of a method.

    Attributes
    ----------
    settings
        For a record, and for JSON.
    identity
        All that its result depends on.
    inputs
        Hashes of what it uses, such as a model.
    facts
        What else a record says.
    """

    settings: Json
    identity: Json
    inputs: dict[str, str]
    facts: Json


class Method(Protocol):
    """A way to deconvolve an image, with its settings; a frozen dataclass."""

    kind: ClassVar[str]
    """Name of the method in commands, records and files."""

    @property
    def background(self) -> Level:
        """Light that is not of the object, image units."""

    @property
    def offset(self) -> Level:
        """What the camera gives without light, image units."""

    @property
    def gain(self) -> Gain:
        """Image units per photon."""

    @property
    def repair_image(self) -> bool:
        """Whether isolated hot and cold voxels are replaced."""

    @property
    def negatives(self) -> Negatives:
        """What to do with negative voxels."""

    @property
    def device(self) -> str:
        """Where to compute."""

    @property
    def title(self) -> str:
        """What results are called in tables and layers."""

    @property
    def needs_psf(self) -> bool:
        """Whether there is no result without a PSF."""

    @property
    def tiles(self) -> TileStage | None:
        """The first stage; none where there is none."""

    @property
    def blocks(self) -> BlockStage | None:
        """The second stage; none where there is none."""

    def check(self, image: OnGrid, psf: Volume | None, *, views: int = 1) -> None:
        """Raise unless image and PSF can be used, and go together; their values do not matter."""

    def check_in_parts(self) -> None:
        """Raise unless an image can be deconvolved in parts."""

    def warnings(self, *psfs: Volume | None) -> tuple[str, ...]:
        """Return what speaks against using it with the PSFs of the views."""

    def of_views(self, views: int) -> Self:
        """Return it as it is applied to so many views."""

    def grid_of(self, image: OnGrid) -> VoxelUm:
        """Return the voxel size (z, y, x) in micrometres on which it computes."""

    def needed_bytes(self, shape: Shape, psf_shape: Shape | None) -> int:
        """Return the memory that a whole image takes, beside what the process has before."""

    def whole(self, scene: Scene) -> Generator[Report, None, Whole | None]:
        """Deconvolve a whole image; yield reports, return the result.

        None where its first stage does not fit into the memory whole.
        """

    def described(self) -> Described:
        """Return what is to be known of it."""

    def as_json(self) -> Json:
        """Return its settings in JSON's types.

        Raises
        ------
        RlnError
            If it uses what lies in no file.
        """

    @classmethod
    def from_json(cls, fields: Json, folder: Path) -> Self:
        """Return the method that :meth:`as_json` gave; files that it uses are named from a folder.

        Raises
        ------
        RlnError
            If a setting cannot be.
        """

    def provide(self, folder: Path) -> Self:
        """Write the files that it uses into a folder; return it with these."""
