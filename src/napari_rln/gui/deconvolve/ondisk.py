"""Deconvolution from disk to disk, with the growing result in a layer."""

import contextlib
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from napari_rln.core.errors import RlnError
from napari_rln.core.generators import interruptible
from napari_rln.core.record import Record
from napari_rln.core.report import Report, duration
from napari_rln.core.tiles import blocks, plan_tiles
from napari_rln.core.volume import Box, Shape, Volume, check_finite
from napari_rln.deconvolution.shared import Shared
from napari_rln.engine.execution import Execution, Output
from napari_rln.engine.progress import Progress
from napari_rln.gui.deconvolve.chosen_method import ChosenMethod, Inputs
from napari_rln.gui.deconvolve.result_destination import file_name
from napari_rln.gui.deconvolve.streams import LayerStream
from napari_rln.gui.jobs import Steps, Update, streamed
from napari_rln.gui.layer_jobs import image_file
from napari_rln.gui.layers import KEY, LayerImage, contrast_limits
from napari_rln.psf.examine import fit_psf

# Modules that import Zarr are imported where they are used: napari opens the dock faster.
if TYPE_CHECKING:
    from napari_rln.engine.task import Task
    from napari_rln.io.image import ImageFile

_CHUNK = (32, 256, 256)  # maximum chunk of an image that is copied to disk
# Block size, and number of blocks of an image on disk, for comparing a layer with its file.
_COMPARED, _SAMPLES = (16, 64, 64), 27
_OUT = "napari-rln result"  # metadata key of a layer: path of its result on disk
_PREVIEW = (32, 128, 128)  # chunks of the preview


@dataclass(frozen=True, eq=False)
class Written:
    """Levels of a result that is being written, and contrast limits of its parts so far."""

    levels: list[Any]  # the finest first
    limits: tuple[float, float]


class DiskResult(NamedTuple):
    """Result on disk: path, levels with the finest first, and record."""

    out: Path
    levels: list[Any]
    record: Record


@dataclass(frozen=True, kw_only=True, eq=False)
class DiskRun:
    """Deconvolution of a layer to an OME-Zarr file; the part ``first`` is deconvolved first.

    ``shared`` is common to the methods of an image, which then warn once.
    """

    inputs: Inputs
    chosen: ChosenMethod
    output: Output
    execution: Execution
    shared: Shared
    first: Box | None = None

    def deconvolve(self) -> Steps[DiskResult]:
        """Yield updates of the deconvolution; return its result.

        Raises :class:`RlnError` if it cannot run, or another result exists at its path.
        """
        from napari_rln.engine.in_parts import run_task_iter
        from napari_rln.engine.journal import RunFolder
        from napari_rln.io.ome_zarr import image_levels, open_lazily

        self.inputs.check_psf_memory(self.chosen.method, self.execution.memory_gb)
        out, image = self.output.path, self.inputs.image
        self.inputs.warn_of_planes(self.shared)
        file = file_of(image) or (yield from _copy_to_disk(image, out.parent))
        folder = RunFolder(out.absolute())
        is_plane, preview = image.data.ndim == 2, None
        levels: list[Any] = []

        def content(report: Report) -> Written | None:
            nonlocal preview, levels
            if report.phase == "plan":
                state, stored = folder.state(), image_levels(folder.result)
                assert state is not None
                preview = _Preview(stored, state.plan.levels, folder.part)
                levels = _lazy([stored[0], *preview.levels], is_plane)
            if report.box is None or preview is None:
                return None
            return Written(levels, preview.update(report.box))

        def always(report: Report) -> bool:
            return report.phase == "plan" or report.box is not None

        yield Update(Progress(activity="preparing the PSF"))
        task = yield from interruptible(lambda: self._task(file))
        yield from streamed(run_task_iter(task), content, always=always)
        record = open_lazily(out).record
        assert record is not None
        return DiskResult(out, _lazy(image_levels(out), is_plane), record)

    def needs(self) -> str:
        """Return approximate time, memory and disk space as text.

        Raises :class:`RlnError` if it cannot run.
        """
        from napari_rln.engine.forecast import forecast

        image = self.inputs.image
        file = file_of(image)
        if file is None:
            size = image.data.dtype.itemsize * np.prod(image.shape, dtype=float) / 1e9
            return f"known once the image is on disk; {size:.2g} GB are written first"
        expected = forecast(self._task(file))
        seconds = expected.seconds
        time = "" if seconds is None else f"{duration(seconds, approximate=True)}, "
        memory, disk = expected.workers * expected.memory_bytes / 1e9, expected.most_bytes / 1e9
        missing = "".join(f"; missing: {what}" for what in expected.missing)
        return f"{time}{memory:.2g} GB, {disk:.2g} GB on disk{missing}"

    def _task(self, file: "ImageFile") -> "Task":
        from napari_rln.engine.task import Task

        psf = self.inputs.psf
        return Task(
            image=file,
            psf=fit_psf_to(file, psf.read(), self.inputs.repair) if psf else None,
            method=self.chosen.method,
            output=self.output,
            execution=self.execution,
            first=self.first,
        )


def fit_psf_to(file: "ImageFile", psf: Volume, repair: bool) -> Volume:
    """Return a PSF fitted to an image on disk."""
    from napari_rln.io.image import open_image

    return fit_psf(psf, open_image(file), repair=repair)[0]


def file_of(image: LayerImage) -> "ImageFile | None":
    """Return the file of a layer; None if there is none, or the layer differs from it."""
    from napari_rln.io.image import open_image

    try:
        file = image_file(image)
        return file if _matches(open_image(file), image) else None
    except (RlnError, OSError):
        return None


def _matches(opened: Any, image: LayerImage) -> bool:
    """Return whether a file and a layer are equal: all voxels if in memory, else samples.

    Samples of one single value, such as an empty background, prove nothing.
    """
    if opened.shape != image.shape or opened.times > 1:
        return False
    most = opened.voxels if image.in_memory else _SAMPLES
    varies = False
    for box in blocks(opened.shape, _COMPARED, most):
        block = np.asarray(_stack(image)[box]).astype(np.float32)
        if not np.array_equal(opened.read(box).reshape(block.shape), block):
            return False
        varies = varies or bool(block.min() < block.max())
    return varies


def _copy_to_disk(image: LayerImage, folder: Path) -> Steps["ImageFile"]:
    """Write the data of a layer to a Zarr array, chunk by chunk; return the file.

    Raises :class:`RlnError` if another image exists at its path, or the data are complex, NaN or
    infinite.
    """
    import zarr

    from napari_rln.io.image import ImageFile, open_image

    out = folder / f"{file_name(image.name)}.image.zarr"
    file = ImageFile(path=str(out), voxel_um=image.voxel_um)
    if out.exists():
        if not _matches(open_image(file), image):
            raise RlnError(
                f"{out} exists and holds another image; delete it, or choose another folder."
            )
        return file
    data = _stack(image)
    if data.dtype.kind not in "buif":
        raise RlnError(f"{image.name} is of type {data.dtype}; give integers or floats.")
    partial = out.with_name(f"{out.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    z, y, x = getattr(data, "chunksize", None) or _CHUNK
    sides = zip((z, y, x), _CHUNK, data.shape, strict=True)
    array = zarr.create_array(
        partial, shape=data.shape, dtype=data.dtype, fill_value=0, dimension_names="zyx",
        chunks=tuple(max(1, min(each)) for each in sides),
        config={"write_empty_chunks": True},  # so that a missing chunk is an error
    )  # fmt: skip
    # Whole chunks of a computed image: a part of one takes as long to compute.
    tiles = plan_tiles(image.shape, (z, y, x), (0, 0, 0))
    try:
        for done, tile in enumerate(tiles):
            yield Update(
                Progress(activity="writing the image to disk", done=done, total=len(tiles))
            )
            part = np.asarray(data[tile.core])
            check_finite(part, image.name)
            array[tile.core] = part
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    partial.rename(out)
    return file


def _stack(image: LayerImage) -> Any:
    """Return the data of a layer with three axes (Z, Y, X)."""
    return image.data if image.data.ndim == 3 else image.data[None]


class _Preview:
    """Coarser levels of a growing result, for zooming out before the real ones are written.

    They hold single voxels instead of means, are on disk, as they may be large, and are deleted
    with the folder of the run.
    """

    def __init__(self, levels: Sequence[Any], factors: Sequence[Shape], folder: Path) -> None:
        import zarr

        self._finest, self._factors = levels[0], factors[1:]
        self._folder = TemporaryDirectory(
            prefix=".preview-", dir=folder, ignore_cleanup_errors=True
        )
        self.levels = [
            zarr.create_array(
                Path(self._folder.name) / str(number), shape=level.shape, dtype=level.dtype,
                chunks=tuple(min(c, n) for c, n in zip(_PREVIEW, level.shape, strict=True)),
                fill_value=0,
            )
            for number, level in enumerate(levels[1:])
        ]  # fmt: skip
        self._low, self._high = np.inf, -np.inf

    def update(self, box: Box) -> tuple[float, float]:
        """Add a part of the finest level; return the contrast limits of all parts so far."""
        data = np.asarray(self._finest[box])
        with contextlib.suppress(OSError):  # a full disk is reported by the run itself
            for level, factors in zip(self.levels, self._factors, strict=True):
                starts = [-(-part.start // f) for part, f in zip(box, factors, strict=True)]
                picks = zip(starts, factors, box, strict=True)
                some = data[tuple(slice(s * f - part.start, None, f) for s, f, part in picks)]
                if some.size:
                    ends = zip(starts, some.shape, strict=True)
                    level[tuple(slice(start, start + n) for start, n in ends)] = some
        low, high = contrast_limits([data])
        self._low, self._high = min(self._low, low), max(self._high, high)
        return self._low, self._high


def _lazy(levels: Sequence[Any], is_plane: bool) -> list[Any]:
    """Return dask arrays of arrays on disk; without the z axis for a plane."""
    import dask.array as da

    arrays = [da.from_zarr(level) for level in levels]  # type: ignore[no-untyped-call]
    return [array[0] for array in arrays] if is_plane else arrays


class DiskResultStream(LayerStream):
    """Layer of a result on disk, added with the first written part."""

    def update(self, content: Written, draw: bool) -> None:
        """Take new data, and draw them if ``draw``, or as the first."""
        if self.layer is None:
            self._show(content.levels, content.limits)
        elif draw:
            self.layer.contrast_limits = content.limits
            self.layer.refresh()

    def finish(self, result: DiskResult) -> None:
        """Show the result, with its record; remove the layer of a result that it replaces."""
        for layer in list(self._viewer.layers):
            if layer is not self.layer and layer.metadata.get(_OUT) == str(result.out):
                self._viewer.layers.remove(layer)
        self._rename(self._title)  # whose layer was there until now
        limits = contrast_limits([np.asarray(result.levels[-1])])
        if self.layer is None or self.layer not in self._viewer.layers:
            self._show(result.levels, limits)
        assert self.layer is not None
        self.layer.data = result.levels if self.layer.multiscale else result.levels[0]
        self.layer.contrast_limits = limits
        self.layer.metadata = {KEY: result.record.as_dict(), _OUT: str(result.out)}

    def _show(self, levels: Sequence[Any], limits: tuple[float, float]) -> None:
        multiscale = len(levels) > 1
        data = levels if multiscale else levels[0]
        # Without napari's cache, which would hide what is written later.
        self._add(data, multiscale=multiscale, cache=False, contrast_limits=limits)
