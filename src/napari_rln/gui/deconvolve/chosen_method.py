"""A chosen method with its settings, its inputs, and its run in memory."""

from collections.abc import Generator, Hashable
from dataclasses import dataclass

import numpy as np

from napari_rln.core.errors import warn
from napari_rln.core.generators import interruptible
from napari_rln.core.machine import MemoryGb
from napari_rln.core.record import Record
from napari_rln.core.report import Report, plural
from napari_rln.core.tiles import TileSide
from napari_rln.core.volume import FloatArray, Shape, Volume, VoxelUm
from napari_rln.deconvolution.classical import RichardsonLucy
from napari_rln.deconvolution.method import Method
from napari_rln.deconvolution.settings import check_image
from napari_rln.deconvolution.shared import Shared
from napari_rln.engine.in_memory import deconvolve_iter
from napari_rln.engine.progress import Progress
from napari_rln.engine.psf_memory import check_psf_memory
from napari_rln.gui.deconvolve.history import PastRun
from napari_rln.gui.deconvolve.streams import Estimate, FinishedPart, LayerStream
from napari_rln.gui.jobs import Steps, Update, streamed
from napari_rln.gui.layers import LayerImage
from napari_rln.psf.compute import LARGEST
from napari_rln.psf.examine import fit_psf
from napari_rln.psf.from_optics import CompletedOptics
from napari_rln.psf.prepare import check_psf

_ONE_PLANE = (
    "{}: it is a single plane, which cannot be deconvolved along z: light from other depths stays "
    "in it. Open the whole stack where there is one."
)
_FEW_PLANES = 5  # a volume of fewer may be one of channels or time points, taken as planes
_AXES = (
    "{}: its axes, {}, have no labels, so it is taken as {} time points of {} each. If these are "
    "not its planes, open the file with Richardson-Lucy Network (File > Open with Plugin), which "
    "reads the order of the axes, or move the axis z before y and x."
)


@dataclass(frozen=True, kw_only=True)
class ChosenMethod:
    """Ticked method with its settings, named for its results."""

    method: Method
    name: str
    needs_psf: bool = True
    kept_iterations: tuple[int, ...] = ()  # for browsing
    tile: TileSide = "auto"  # side in voxels of a network's tiles in memory

    @property
    def described(self) -> str:
        """The name, with the number of iterations if it has one."""
        method = self.method
        if not isinstance(method, RichardsonLucy):
            return self.name
        if method.iterations == "auto":
            return f"{self.name}, {method.max_iterations} iterations at most"
        return f"{self.name}, {method.iterations} iterations"

    def updates(self, steps: Generator[Report, None, Volume], shape: Shape) -> Steps[Volume]:
        """Yield the reports of an image's deconvolution as updates; return its result."""

        def is_kept(report: Report) -> bool:
            return report.phase == "deconvolve" and report.done in self.kept_iterations

        def content(report: Report) -> Estimate | FinishedPart | None:
            if report.tile is not None and report.piece is not None:
                return FinishedPart(report.tile, report.piece)
            estimate = report.estimate()
            data = None if estimate is None else _embed(estimate, report.part, shape)
            if data is None:
                return None
            from_search = report.phase == "stop"
            return Estimate(report.done, data, keep=is_kept(report), from_stop_search=from_search)

        return streamed(
            steps, content, always=lambda report: report.tile is not None or is_kept(report)
        )


def _embed(data: FloatArray, part: tuple[slice, ...], shape: Shape) -> FloatArray | None:
    """Return the estimate of a part of an image in an array of zeros of the image's shape.

    None if it is on another grid, as that of a first view in the search for the stop.
    """
    if data.shape == shape:
        return data
    whole = np.zeros(shape, np.float32)
    if whole[part].shape != data.shape:
        return None
    whole[part] = data
    return whole


@dataclass(kw_only=True, eq=False)
class StatedPsf:
    """PSF by the optics that an image's file states, computed when it is first read."""

    image: LayerImage
    known: CompletedOptics
    _volume: Volume | None = None

    @property
    def key(self) -> Hashable:
        """Identity of the PSF."""
        return self.known.settings, self.image.voxel_um, self.image.shape[0]

    @property
    def name(self) -> str:
        """Name of the PSF."""
        return f"PSF of {self.image.name}"

    @property
    def is_computed(self) -> bool:
        """Whether it has been read."""
        return self._volume is not None

    def read(self) -> Volume:
        """Return the PSF, which takes a while at first: call it in a worker thread."""
        if self._volume is None:
            self._volume = self.known.psf(self.image.voxel_um, self.image.shape[0], self.name)
        return self._volume

    def shape_on(self, voxel_um: VoxelUm) -> Shape:
        """Return the number of voxels (z, y, x); the most that there can be before it is read."""
        if self._volume is not None:
            return self._volume.shape
        z, y, x = (min(2 * n, LARGEST) for n in self.image.shape)
        return z, y, x


@dataclass(frozen=True, kw_only=True, eq=False)
class Inputs:
    """Image, or a part of it, and PSF of a deconvolution, not read yet."""

    image: LayerImage
    psf: LayerImage | StatedPsf | None
    repair: bool  # of the PSF

    @property
    def key(self) -> Hashable:
        """Identity of the inputs."""
        return self.image.key, self.psf and self.psf.key, self.repair

    def check_psf_memory(self, method: Method, memory_gb: MemoryGb = "auto") -> None:
        """Raise an RlnError if there is not enough memory for the PSF on the image's voxels."""
        if isinstance(self.psf, LayerImage):
            check_psf_memory(self.psf, self.image, method, memory_gb)

    def warn_of_planes(self, shared: Shared) -> None:
        """Warn of a single plane, or of other axes taken as planes, once for all methods."""
        image = self.image
        text = _other_axes(image) or (_ONE_PLANE.format(image.name) if image.shape[0] == 1 else "")
        if text:
            shared.cached(("warned", image.key), lambda: warn(text))

    def fitted_psf(self, image: Volume, shared: Shared) -> Volume | None:
        """Return the PSF on the image's voxels, fitted once for all methods."""
        if self.psf is None:
            return None
        psf, repair = self.psf.read(), self.repair
        key = ("fit", psf.hash, psf.voxel_um, image.shape, image.voxel_um, repair)

        def fit() -> Volume:
            fitted, _ = fit_psf(psf, image, repair=repair)
            check_psf(fitted)  # here, where it can be cancelled; methods repeat it at no cost
            return fitted

        return shared.cached(key, fit)

    def deconvolve(
        self, chosen: ChosenMethod, shared: Shared, hashes: dict[str, str]
    ) -> Steps[Volume]:
        """Yield updates of a deconvolution in memory; return its result.

        ``hashes`` gets those of the inputs, as in a record, once they are read.
        """
        self.check_psf_memory(chosen.method)
        yield Update(Progress(activity="reading the image"))
        image = check_image(self.image.read(), chosen.method.negatives)
        hashes["image"] = image.hash
        self.warn_of_planes(shared)
        if isinstance(self.psf, StatedPsf) and not self.psf.is_computed:
            yield Update(Progress(activity="computing the PSF"))
            yield from interruptible(self.psf.read)
        yield Update(Progress(activity="preparing the PSF"))
        psf = yield from interruptible(lambda: self.fitted_psf(image, shared))
        if psf is not None:
            hashes["psf"] = psf.hash
        yield Update(Progress(activity="measuring background and noise"))
        steps = deconvolve_iter(image, psf, chosen.method, tile=chosen.tile, shared=shared)
        return (yield from chosen.updates(steps, image.shape))


def _other_axes(image: LayerImage) -> str:
    """Return how axes without labels are taken, where that may be wrong; else nothing."""
    lengths, times = image.layer.data.shape, image.unlabelled
    if not times or lengths[-3] >= min(_FEW_PLANES, max(times)):
        return ""
    stored, points = (" \N{MULTIPLICATION SIGN} ".join(map(str, n)) for n in (lengths, times))
    return _AXES.format(image.name, stored, points, plural(lengths[-3], "plane"))


@dataclass(frozen=True, eq=False)
class FinishedResult:
    """A finished result, with the inputs that it is compared within."""

    stream: LayerStream
    record: Record
    inputs: Inputs
    run: PastRun
    shared: Shared | None = None  # what the methods of its run on the image share
