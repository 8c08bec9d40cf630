"""Batch of many images: their listing as jobs, and the jobs one after the other."""

import contextlib
import csv
import glob
import io
import os
import time
from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, TypeVar

from napari_rln.core.errors import RlnError, capture_warnings
from napari_rln.core.volume import VoxelUm
from napari_rln.deconvolution.method import Method
from napari_rln.engine.execution import Execution
from napari_rln.engine.executors import start_workers
from napari_rln.engine.in_parts import run_task_iter
from napari_rln.engine.job import Job, PsfFile
from napari_rln.engine.journal import RunFolder
from napari_rln.engine.reports import BatchItem, BatchReport, ItemOutcome
from napari_rln.engine.run import task_of
from napari_rln.engine.task import Task
from napari_rln.io.image import ImageFile, files_read, open_contents
from napari_rln.io.paths import atomic, is_microscope_name, is_tiff_name, is_zarr, stem
from napari_rln.networks.network import NetworkOptions

Ending = Literal["ome.tif", "ome.zarr"]

T = TypeVar("T")

REPORT = "batch.csv"
"""Name of the table of outcomes, in the folder of the results."""

_COLUMNS = ("image", "psf", "model", "channel", "time", "series", "voxel_um", "psf_voxel_um", "out")


@dataclass(frozen=True, kw_only=True)
class BatchSettings:
    """Settings common to all images of a batch, unless a table overrides them.

    Parameters
    ----------
    job
        Job whose image is the part of the files to read, whose PSFs and methods are one for all
        channels or one per channel, in order, and whose output is the folder of the results.
    mark
        Suffix of the results' names for the method.
    ending
        Ending of the results.
    repair, psf_voxel_um
        Options of PSFs named in a table.
    """

    job: Job
    mark: str
    ending: Ending = "ome.tif"
    repair: bool = True
    psf_voxel_um: VoxelUm | None = None

    @property
    def folder(self) -> Path:
        """Folder of the results."""
        return self.job.output.path


@dataclass(frozen=True, kw_only=True)
class _ListedImage:
    """A named image, before it is opened."""

    image: ImageFile
    out: Path | None = None
    psf: ImageFile | None = None
    model: str | None = None
    psf_voxel_um: VoxelUm | None = None


def list_jobs(inputs: Sequence[str], template: BatchSettings) -> list[BatchItem]:
    """Return the images of a batch as jobs, one for every channel and position.

    Parameters
    ----------
    inputs
        Files, folders of files, patterns such as ``plate/*.tif``, and tables (``.csv``) with a
        column ``image`` and optional columns ``psf``, ``model``, ``channel``, ``time``, ``series``,
        ``voxel_um``, ``psf_voxel_um`` and ``out``; images and PSFs are relative to the table's
        folder, ``out`` to the folder of the results.
    template
        Common settings.

    Raises
    ------
    RlnError
        If there are no images, a table is unreadable, or two results would have the same name.
    """
    items: list[BatchItem] = []
    for word in inputs:
        if Path(word).suffix.lower() == ".csv":
            rows = _of_table(Path(word), template)
        else:
            part = template.job.image
            rows = [_ListedImage(image=replace(part, path=str(image))) for image in _expanded(word)]
        for row in rows:
            for position in _positions(row):
                items += _channels(position, template)
    if not items:
        raise RlnError(f"there are no images in {', '.join(inputs)}; name other files or folders.")
    read = {os.path.realpath(path) for item in items for path in item.job.files}
    names: dict[Path, BatchItem] = {}
    for item in items:
        if os.path.realpath(item.out) in read:
            raise RlnError(
                f"the result {item.out} would replace an input; name another folder, or "
                "another result in the table (column out)."
            )
        other = names.setdefault(item.out, item)
        if other is not item:
            raise RlnError(
                f"{other.job.image.path} and {item.job.image.path} have one result {item.out}; "
                "rename one, or name the results in a table (column out)."
            )
    return items


def _expanded(text: str) -> list[Path]:
    """Return the paths of an input of the command line."""
    path = Path(text)
    if path.is_dir() and not is_zarr(path):
        return _sets_once(sorted(p for p in path.iterdir() if _is_image(p)))
    if path.exists() or not glob.has_magic(text):
        return [path]  # a missing file is reported later
    matching = map(Path, glob.glob(text, recursive=True))  # noqa: PTH207
    return _sets_once(sorted(p for p in matching if _is_image(p)))


def _sets_once(images: Sequence[Path]) -> list[Path]:
    """Return images with only the first file of each set."""
    kept, within = [], set()
    for image in images:
        if os.path.realpath(image) not in within:
            kept.append(image)
            within |= {os.path.realpath(file) for file in files_read([image])}
    return kept


def _positions(row: _ListedImage) -> list[_ListedImage]:
    """Return a row for each image, of one size, in a file."""
    image = row.image
    if image.series is None:
        with contextlib.suppress(ValueError, OSError):  # reported where it is read
            first = open_contents(image.path, 0)
            others = (open_contents(image.path, n) for n in range(1, first.images))
            if first.images > 1 and all(h.array.shape == first.array.shape for h in others):
                return [
                    replace(row, image=replace(image, series=number))
                    for number in range(first.images)
                ]
    return [row]


def _is_image(path: Path) -> bool:
    if path.name.startswith(".") or path.name.endswith(".part"):
        return False
    if RunFolder(path).manifest.exists():  # a result of an earlier batch
        return False
    return is_zarr(path) if path.is_dir() else is_tiff_name(path) or is_microscope_name(path)


def _of_table(path: Path, template: BatchSettings) -> list[_ListedImage]:
    """Return the images of a table."""
    if path.resolve() == (template.folder / REPORT).resolve():
        raise RlnError(
            f"{path} would be overwritten by the report of the batch; rename it, or name another "
            "folder for the results."
        )
    try:
        text = path.read_text(encoding="utf-8-sig")  # as written by spreadsheets
    except (OSError, UnicodeError) as error:
        raise RlnError(f"{path} cannot be read as a table ({error}).") from error
    table = csv.DictReader(io.StringIO(text))
    rows, columns = list(table), set(table.fieldnames or ())
    if "image" not in columns or not columns <= set(_COLUMNS):
        problem = ", ".join(sorted(str(c) for c in columns - set(_COLUMNS))) or "no image"
        raise RlnError(f"{path.name} has {problem}; its columns may be {', '.join(_COLUMNS)}.")
    part = template.job.image
    images: list[_ListedImage] = []
    for number, row in enumerate(rows, 2):
        if None in row:
            raise RlnError(f"{path.name}, line {number} has more cells than columns; remove some.")
        cells = {name: (value or "").strip() for name, value in row.items()}
        if not any(cells.values()):
            continue
        if not cells["image"]:
            raise RlnError(f"{path.name}, line {number} names no image; fill in the column image.")
        try:
            if any("\0" in cell for cell in cells.values()):
                raise ValueError("it contains a NUL character; remove it")
            image = replace(
                part,
                path=str(path.parent / cells["image"]),
                channel=_number(cells.get("channel"), part.channel),
                time=_number(cells.get("time"), part.time),
                series=_number(cells.get("series"), part.series),
                voxel_um=_voxel_um(cells.get("voxel_um")) or part.voxel_um,
            )
            psf = None
            psf_voxel_um = _voxel_um(cells.get("psf_voxel_um"))
            if cells.get("psf"):
                common = [its.file.voxel_um for its in template.job.psfs]
                psf = ImageFile(
                    path=str(path.parent / cells["psf"]),
                    voxel_um=psf_voxel_um or (common[0] if common else template.psf_voxel_um),
                )
            images.append(
                _ListedImage(
                    image=image,
                    out=template.folder / cells["out"] if cells.get("out") else None,
                    psf=psf,
                    model=cells.get("model") or None,
                    psf_voxel_um=psf_voxel_um,
                )
            )
        except ValueError as error:
            raise RlnError(f"{path.name}, line {number}: {error}") from error
    return images


def _number(word: str | None, default: int | None) -> int | None:
    return int(word) if word else default


def _voxel_um(text: str | None) -> VoxelUm | None:
    if not text:
        return None
    sizes = [float(size) for size in text.replace(",", " ").split()]
    if len(sizes) != 3:
        raise ValueError(f"{text!r} is not a voxel size; write three numbers, z y x in micrometres")
    z, y, x = sizes
    return z, y, x


def _channels(row: _ListedImage, template: BatchSettings) -> list[BatchItem]:
    """Return an item for each channel of an image, with its PSF and method."""
    image, common = row.image, template.job
    count, problem = 1, ""
    try:
        whole = image.planes_are == "channel"
        count = 1 if whole else open_contents(image.path, image.series).channels
    except (ValueError, OSError) as error:  # also for an invalid file name
        problem = str(error)
    for name, entries in (("PSFs", common.psfs), ("models", common.methods)):
        if len(entries) > 1 and len(entries) != count and not problem:
            problem = f"it has {count} channels but there are {len(entries)} {name}"
    items = []
    for channel in range(count) if image.channel is None else [image.channel]:
        mark = "" if image.series is None else f"-s{image.series}"
        mark += f"-c{channel}" if count > 1 else ""
        name = f"{stem(Path(image.path))}{mark}-{template.mark}.{template.ending}"
        job = replace(
            common,
            image=replace(image, channel=channel if count > 1 else image.channel),
            psfs=_psfs_of(row, template, channel),
            methods=(_method_of(row, common.methods, channel),),
            output=replace(common.output, path=row.out or template.folder / name),
        )
        items.append(BatchItem(job=job, problem=problem))
    return items


def _psfs_of(row: _ListedImage, template: BatchSettings, channel: int) -> tuple[PsfFile, ...]:
    if row.psf is not None:
        return (PsfFile(file=row.psf, repair=template.repair),)
    if not template.job.psfs:
        return ()
    one = _of_channel(template.job.psfs, channel)
    if row.psf_voxel_um is not None:
        one = replace(one, file=replace(one.file, voxel_um=row.psf_voxel_um))
    return (one,)


def _method_of(row: _ListedImage, methods: Sequence[Method], channel: int) -> Method:
    method = _of_channel(methods, channel)
    if row.model is not None and isinstance(method, NetworkOptions):
        return method.of(row.model)
    return method


def _of_channel(entries: Sequence[T], channel: int) -> T:
    """Return the entry of a channel, if there is one per channel; else that for all."""
    return entries[channel] if len(entries) > 1 and channel < len(entries) else entries[0]


def run_batch_iter(
    items: Sequence[BatchItem],
    folder: Path,
    execution: Execution,
    device: str = "auto",
    prepare: Callable[[BatchItem], Task] = lambda item: task_of(item.job),
) -> Generator[BatchReport, None, list[ItemOutcome]]:
    """Run a batch; yield reports, return the outcome of every image.

    Parameters
    ----------
    items
        Images of the batch.
    folder
        Folder of the results, where the table of outcomes is written after every image.
    execution
        Memory, tiles and workers.
    device
        Name of the device.
    prepare
        Function that makes the task of an item: reads its PSF and model.

    Raises
    ------
    RlnError
        If workers are not available.
    OSError
        If the table cannot be written.
    """
    outcomes: list[ItemOutcome] = []
    with start_workers(execution, device, folder.absolute()) as workers:
        for number, item in enumerate(items):
            started = time.perf_counter()
            warnings: list[str] = []
            error, summary, computed = "", {}, True
            try:
                if item.problem:
                    raise RlnError(item.problem)
                with capture_warnings(warnings.append):
                    steps = run_task_iter(prepare(item), workers=workers)
                with contextlib.closing(steps):
                    while True:
                        with capture_warnings(warnings.append):
                            report = next(steps)
                        yield BatchReport(done=number, total=len(items), item=item, inner=report)
            except StopIteration as stop:
                _, summary, computed = stop.value
            except Exception as failure:  # whatever the error, the other images follow
                error = str(failure) or type(failure).__name__
            outcomes.append(
                ItemOutcome(
                    item=item,
                    error=error,
                    seconds=time.perf_counter() - started,
                    summary=summary,
                    computed=computed,
                    warnings=tuple(dict.fromkeys(warnings)),
                )
            )
            _write(folder / REPORT, outcomes)
            yield BatchReport(done=number + 1, total=len(items), item=item, outcome=outcomes[-1])
    return outcomes


def _write(path: Path, outcomes: Iterable[ItemOutcome]) -> None:
    """Write the table of outcomes of a batch."""
    names = ("iterations", "background", "chi2", "flux_ratio", "clipped")
    head = ("image", "channel", "time", "result", "status", "seconds", *names, "error", "warnings")
    with (
        atomic(path) as temporary,
        temporary.open("w", newline="", encoding="utf-8", errors="backslashreplace") as file,
    ):
        table = csv.writer(file)
        table.writerow(head)
        for one in outcomes:
            item, image = one.item, one.item.job.image
            channel, when = ("" if n is None else n for n in (image.channel, image.time))
            row = [image.path, channel, when, item.out, one.status, f"{one.seconds:.1f}"]
            row += [one.summary.get(name, "") for name in names]
            table.writerow([*row, one.error, " ".join(one.warnings)])
