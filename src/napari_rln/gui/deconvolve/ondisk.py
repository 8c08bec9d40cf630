"""Runs from disk to disk: what is read, and how the result grows in a layer while it is written."""

import contextlib
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from napari.components import ViewerModel

from napari_rln.core.errors import RlnError
from napari_rln.core.record import Record
from napari_rln.core.report import Report
from napari_rln.core.tiles import plan_tiles
from napari_rln.core.volume import Box, Shape, Volume, check_finite
from napari_rln.engine.execution import Execution, Output
from napari_rln.engine.progress import Progress
from napari_rln.gui.deconvolve.method_list import ChosenMethod
from napari_rln.gui.deconvolve.result_place import file_name
from napari_rln.gui.jobs import Steps, Update, streamed
from napari_rln.gui.layer_jobs import image_file
from napari_rln.gui.layers import KEY, LayerImage, contrast_limits
from napari_rln.gui.runbar import duration
from napari_rln.psf.examine import fit_psf

# What reads and writes Zarr is imported where it is needed: napari opens the dock faster.
if TYPE_CHECKING:
    from napari.layers import Image

    from napari_rln.engine.task import Task
    from napari_rln.io.image import ImageFile

_CHUNK = (32, 256, 256)  # of what is copied, where it has no chunks of its own
# Blocks by which a layer is held to be what its file holds, and how many of one on disk.
_COMPARED, _SAMPLES = (16, 64, 64), 27
_OUT = "napari-rln result"  # of a layer's metadata: where on disk what it shows lies
_PREVIEW = (32, 128, 128)  # chunks of the preview


@dataclass(frozen=True, eq=False)
class Begun:
    """The levels of a result that is being written, the finest first."""

    levels: list[Any]


@dataclass(frozen=True, eq=False)
class Written:
    """A part has been written; what to show darkest and brightest by now."""

    limits: tuple[float, float]


class Stored(NamedTuple):
    """A result on disk: its levels, the finest first, and how it was made."""

    out: Path
    levels: list[Any]
    record: Record


def stored(
    image: LayerImage,
    psf: LayerImage | None,
    chosen: ChosenMethod,
    repair: bool,
    output: Output,
    execution: Execution,
    first: Box | None,
) -> Steps[Stored]:
    """Deconvolve an image to a result on disk; yield what is there by then, return the result.

    Parameters
    ----------
    image, psf
        Of them the PSF is read here, in the thread.
    chosen
        How.
    repair
        Whether to repair what is wrong with the PSF.
    output, execution
        The result, ``.ome.zarr``, and by what it is computed.
    first
        What of the image to begin with.

    Raises
    ------
    RlnError
        If it cannot be done, or another result is there.
    """
    from napari_rln.engine.in_parts import run_task_iter
    from napari_rln.engine.journal import RunFolder
    from napari_rln.io.ome_zarr import image_levels, open_lazily

    out = output.path
    file = file_of(image) or (yield from _copied(image, out.parent))
    task = task_for(file, psf, chosen, repair, output, execution, first)
    folder = RunFolder(out.absolute())
    plane, preview = image.data.ndim == 2, None

    def shown(report: Report) -> Begun | Written | None:
        nonlocal preview
        if report.phase == "plan":
            state = folder.state()
            assert state is not None
            levels = image_levels(folder.result)
            preview = _Preview(levels, state.plan.levels, folder.part)
            return Begun(_lazily([levels[0], *preview.levels], plane))
        if report.box is None or preview is None:
            return None
        return Written(preview.take(report.box))

    def always(report: Report) -> bool:
        return report.phase == "plan" or report.box is not None

    yield from streamed(run_task_iter(task), shown, always=always)
    held = open_lazily(out)
    assert held.record is not None
    return Stored(out, _lazily(image_levels(out), plane), held.record)


def needs_on_disk(
    image: LayerImage,
    psf: LayerImage | None,
    chosen: ChosenMethod,
    repair: bool,
    output: Output,
    execution: Execution,
) -> str:
    """Return how much memory and disk :func:`stored` will take, and about how long.

    Raises
    ------
    RlnError
        If it cannot be done.
    """
    from napari_rln.engine.forecast import forecast

    file = file_of(image)
    if file is None:
        size = image.data.dtype.itemsize * np.prod(image.shape, dtype=float) / 1e9
        return f"known once the image is on disk; {size:.2g} GB are written first"
    ahead = forecast(task_for(file, psf, chosen, repair, output, execution))
    time = f"about {duration(ahead.seconds)}, " if ahead.seconds is not None else ""
    return (
        f"{time}{ahead.workers * ahead.memory_bytes / 1e9:.2g} GB, "
        f"{ahead.most_bytes / 1e9:.2g} GB on disk"
        + "".join(f"; missing: {what}" for what in ahead.missing)
    )


def task_for(
    file: "ImageFile",
    psf: LayerImage | None,
    chosen: ChosenMethod,
    repair: bool,
    output: Output,
    execution: Execution,
    first: Box | None = None,
) -> "Task":
    """Return the run from disk to disk, with the PSF read and fit for the image."""
    from napari_rln.engine.task import Task

    return Task(
        image=file,
        psf=fit_to(file, psf.read(), repair) if psf else None,
        method=chosen.method,
        output=output,
        execution=execution,
        first=first,
    )


def fit_to(file: "ImageFile", psf: Volume, repair: bool) -> Volume:
    """Return a PSF, as it was read, fit for an image on disk."""
    from napari_rln.io.image import open_image

    return fit_psf(psf, open_image(file), repair=repair)[0]


def file_of(image: LayerImage) -> "ImageFile | None":
    """Return where a layer's volume is read from; none where no file holds what is seen.

    Parameters
    ----------
    image
        Held against the file at a few voxels: a layer may have been changed, or read otherwise.
    """
    from napari_rln.io.image import open_image

    try:
        file = image_file(image)
        return file if _shows(open_image(file), image) else None
    except (RlnError, OSError):
        return None


def _shows(opened: Any, image: LayerImage) -> bool:
    """Tell whether a file holds what a layer shows: all of what is in memory, else in samples.

    Samples that are all of one value, such as nothing, tell nothing.
    """
    from napari_rln.core.tiles import blocks

    if opened.shape != image.shape or opened.times > 1:
        return False
    most = opened.voxels if image.in_memory else _SAMPLES
    told = False
    for box in blocks(opened.shape, _COMPARED, most):
        shown = np.asarray(image.data[box[-image.data.ndim :]]).astype(np.float32)
        if not np.array_equal(opened.read(box).reshape(shown.shape), shown):
            return False
        told = told or bool(shown.min() < shown.max())
    return told


def _copied(image: LayerImage, folder: Path) -> Steps["ImageFile"]:
    """Write a layer's data to disk, chunk by chunk, for others to read; return where they are.

    Raises
    ------
    RlnError
        If there are other data under its name, or they hold NaN or infinities.
    """
    import zarr

    from napari_rln.io.image import ImageFile, open_image

    out = folder / f"{file_name(image.name)}.image.zarr"
    file = ImageFile(path=str(out), voxel_um=image.voxel_um)
    if out.exists():
        if not _shows(open_image(file), image):
            raise RlnError(
                f"{out} is there and holds another image; delete it, or choose another folder."
            )
        return file
    if image.data.dtype.kind not in "buif":
        raise RlnError(f"{image.name} is of type {image.data.dtype}; take integers or floats.")
    partial = out.with_name(f"{out.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    ndim = image.data.ndim
    own = tuple(getattr(image.data, "chunksize", None) or _CHUNK[-ndim:])
    array = zarr.create_array(
        partial, shape=image.data.shape, dtype=image.data.dtype, fill_value=0,
        config={"write_empty_chunks": True},  # one that is not there is a lost one
        chunks=tuple(max(1, min(c, n)) for c, n in zip(own, _CHUNK[-ndim:], strict=True)),
        dimension_names="zyx"[-ndim:],
    )  # fmt: skip
    # By the chunks in which they are computed: half of one would take as long.
    z, y, x = (1,) * (3 - ndim) + own
    tiles = plan_tiles(image.shape, (z, y, x), (0, 0, 0))
    try:
        for done, tile in enumerate(tiles):
            yield Update(
                Progress(activity="writing the image to disk", done=done, total=len(tiles))
            )
            part: Any = tile.core[-ndim:]
            data = np.asarray(image.data[part])
            check_finite(data, image.name)
            array[part] = data
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    partial.rename(out)
    return file


class _Preview:
    """What zooming out shows of a result before its coarser levels are there.

    Every so-manieth voxel of what is written. It lies on the disk too, as it may be large, and goes
    with the run's folder.
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

    def take(self, box: Box) -> tuple[float, float]:
        """Take what was written of the finest level; return the contrast limits by now."""
        data = np.asarray(self._finest[box])
        with contextlib.suppress(OSError):  # on a full disk the run says so, for what it writes
            for level, factors in zip(self.levels, self._factors, strict=True):
                begins = [-(-part.start // f) for part, f in zip(box, factors, strict=True)]
                picks = zip(begins, factors, box, strict=True)
                some = data[tuple(slice(b * f - part.start, None, f) for b, f, part in picks)]
                into = zip(begins, some.shape, strict=True)
                if some.size:
                    level[tuple(slice(begin, begin + n) for begin, n in into)] = some
        low, high = contrast_limits([data])
        self._low, self._high = min(self._low, low), max(self._high, high)
        return self._low, self._high


def _lazily(levels: Sequence[Any], plane: bool) -> list[Any]:
    """Return arrays on disk as napari takes them; of a single plane without the axis z."""
    import dask.array as da

    arrays = [da.from_zarr(level) for level in levels]  # type: ignore[no-untyped-call]
    return [array[0] for array in arrays] if plane else arrays


class Growing:
    """One result on disk in its layer, which is there from the first written part on.

    Parameters
    ----------
    viewer
        Where it is shown.
    source
        What it is of: it lies there, and is shown in its colours.
    title
        What to call it.
    """

    def __init__(self, viewer: ViewerModel, source: LayerImage, title: str) -> None:
        self._viewer, self._source, self._title = viewer, source, title
        self.layer: Image | None = None
        self._levels: list[Any] = []

    def take(self, content: Begun | Written, draw: bool) -> None:
        """Take what is there now, and show it where there is time to draw it."""
        if isinstance(content, Begun):
            self._levels = content.levels
        elif self.layer is None:
            self._show(self._levels, content.limits)
        elif draw:
            self.layer.contrast_limits = content.limits
            self.layer.refresh()

    def finish(self, result: Stored) -> None:
        """Show the result, with its record; a layer of what it replaced goes."""
        for layer in list(self._viewer.layers):
            if layer is not self.layer and layer.metadata.get(_OUT) == str(result.out):
                self._viewer.layers.remove(layer)
        limits = contrast_limits([np.asarray(result.levels[-1])])
        if self.layer is None or self.layer not in self._viewer.layers:
            self._show(result.levels, limits)
        assert self.layer is not None
        self.layer.data = result.levels if self.layer.multiscale else result.levels[0]
        self.layer.contrast_limits = limits
        self.layer.metadata = {KEY: result.record.as_dict(), _OUT: str(result.out)}

    def leave(self) -> None:
        """End before the result is there: what is written is kept on disk, to go on with."""
        if self.layer is not None and self.layer in self._viewer.layers:
            self._viewer.layers.remove(self.layer)

    def _show(self, levels: list[Any], limits: tuple[float, float]) -> None:
        several = len(levels) > 1
        # What napari keeps of an array would not change while that is written.
        self.layer = self._source.result_layer(
            levels if several else levels[0], multiscale=several, cache=False, name=self._title,
            contrast_limits=limits,
        )  # fmt: skip
        self._viewer.add_layer(self.layer)
