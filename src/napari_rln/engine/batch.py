"""Many images, one after the other: what is to be done with each, and what became of it.

An image that fails does not stop the others. What is complete is left alone when a batch is
started again, what was interrupted goes on.
"""

import contextlib
import csv
import glob
import io
import os
import time
from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, TypeVar

from napari_rln.core.errors import RlnError, listening
from napari_rln.core.volume import VoxelUm
from napari_rln.engine.execution import LargeSettings
from napari_rln.engine.executors import engine
from napari_rln.engine.job import Folder
from napari_rln.engine.reports import BatchReport
from napari_rln.engine.request import LargeRun
from napari_rln.engine.run import run_large
from napari_rln.io.image import Crop, ImageFile, Missing, PlanesAre, files_read, held
from napari_rln.io.paths import atomic, is_tiff_name, is_zarr, stem
from napari_rln.io.volumes import contents

Ending = Literal["ome.tif", "ome.zarr"]

T = TypeVar("T")

REPORT = "batch.csv"
"""Name of the table, in the folder of the results."""

_COLUMNS = ("image", "psf", "model", "channel", "time", "series", "voxel_um", "psf_voxel_um", "out")


@dataclass(frozen=True, kw_only=True)
class Item:
    """One image of a batch.

    Attributes
    ----------
    image
        File or folder.
    out
        Its result.
    psf, model
        For it; none where there is none.
    channel, time, series
        Of the image, where there are several; all times when none.
    voxel_um, psf_voxel_um
        Voxel sizes (z, y, x) in micrometres, where the files do not say them.
    planes_are, missing, crop
        As in :class:`napari_rln.ImageFile`.
    problem
        Why it cannot be done, where that is known.
    """

    image: Path
    out: Path
    psf: Path | None = None
    model: str | None = None
    channel: int | None = None
    time: int | None = None
    series: int | None = None
    voxel_um: VoxelUm | None = None
    psf_voxel_um: VoxelUm | None = None
    planes_are: PlanesAre | None = None
    missing: Missing = "error"
    crop: Crop | None = None
    problem: str = ""

    @property
    def origin(self) -> ImageFile:
        """Where it is read from."""
        return ImageFile(
            path=str(self.image),
            voxel_um=self.voxel_um,
            channel=self.channel,
            time=self.time,
            series=self.series,
            planes_are=self.planes_are,
            missing=self.missing,
            crop=self.crop,
        )


@dataclass(frozen=True, kw_only=True)
class Ended:
    """What became of an image.

    Attributes
    ----------
    item
        The image.
    error
        Why it failed; empty where it did not.
    seconds
        It took.
    summary
        What was found.
    made
        Whether it was made now; else it was there, complete.
    warnings
        What the user should know.
    """

    item: Item
    error: str = ""
    seconds: float = 0.0
    summary: dict[str, Any] = field(default_factory=dict)
    made: bool = True
    warnings: tuple[str, ...] = ()

    @property
    def status(self) -> Literal["done", "there before", "failed"]:
        """In a word."""
        return "failed" if self.error else "done" if self.made else "there before"


@dataclass(frozen=True, kw_only=True)
class BatchSettings:
    """What all images of a batch have in common, where a table does not say otherwise.

    Parameters
    ----------
    folder
        Of the results.
    method
        By which a result's name tells how it was made.
    ending
        Of the results.
    psfs, models
        One for all channels, or one for each, in their order.
    voxel_um, psf_voxel_um
        Voxel sizes (z, y, x) in micrometres, where files do not say them.
    time
        Which time point; all of them when none.
    planes_are, missing, crop
        As in :class:`napari_rln.ImageFile`.
    """

    folder: Path
    method: str
    ending: Ending = "ome.tif"
    psfs: Sequence[Path] = ()
    models: Sequence[str] = ()
    voxel_um: VoxelUm | None = None
    psf_voxel_um: VoxelUm | None = None
    time: int | None = None
    planes_are: PlanesAre | None = None
    missing: Missing = "error"
    crop: Crop | None = None


def listed(inputs: Sequence[str], settings: BatchSettings) -> list[Item]:
    """Return the images of a batch, each once for every channel, and positions apart.

    Parameters
    ----------
    inputs
        Files, folders of files, patterns such as ``plate/*.tif``, and tables (``.csv``) with a
        column ``image`` and, where wanted, ``psf``, ``model``, ``channel``, ``time``, ``series``,
        ``voxel_um``, ``psf_voxel_um`` and ``out``; its images and PSFs are named from where it
        lies, ``out`` within the folder of the results.
    settings
        What they have in common.

    Raises
    ------
    RlnError
        If there are none, a table cannot be read, or two results would have the same name.
    """
    found: list[Item] = []
    for word in inputs:
        if Path(word).suffix.lower() == ".csv":
            named = _of_table(Path(word), settings)
        else:
            named = [Item(image=image, out=settings.folder) for image in _expanded(word)]
        for item in named:
            for image in _positions(item):
                found += _channels(image, settings)
    if not found:
        raise RlnError(f"there are no images in {', '.join(inputs)}; name others.")
    read = {os.path.realpath(path) for item in found for path in (item.image, item.psf) if path}
    names: dict[Path, Item] = {}
    for item in found:
        if os.path.realpath(item.out) in read:
            raise RlnError(
                f"the result {item.out} would replace what is read; name another folder, or "
                "another result in the table (column out)."
            )
        other = names.setdefault(item.out, item)
        if other is not item:
            raise RlnError(
                f"{other.image} and {item.image} would both become {item.out}; rename one, or name "
                "the results in a table (column out)."
            )
    return found


def _expanded(given: str) -> list[Path]:
    """Return the images that a word of the command line stands for."""
    path = Path(given)
    if path.is_dir() and not is_zarr(path):
        return _sets_once(sorted(p for p in path.iterdir() if _is_image(p)))
    if path.exists() or not glob.has_magic(given):
        return [path]  # one that is not there will be said to be so
    matching = map(Path, glob.glob(given, recursive=True))  # noqa: PTH207
    return _sets_once(sorted(p for p in matching if _is_image(p)))


def _sets_once(images: Sequence[Path]) -> list[Path]:
    """Return images without the further files of sets of which one is there already."""
    kept, within = [], set()
    for image in images:
        if os.path.realpath(image) not in within:
            kept.append(image)
            within |= {os.path.realpath(file) for file in files_read([image])}
    return kept


def _positions(item: Item) -> list[Item]:
    """Return an image once for each of those, of one size, that its file holds."""
    if item.series is None:
        with contextlib.suppress(ValueError, OSError):  # said where it is read
            first = held(replace(item.origin, series=0))
            others = (held(replace(item.origin, series=n)) for n in range(1, first.images))
            if first.images > 1 and all(h.array.shape == first.array.shape for h in others):
                return [replace(item, series=number) for number in range(first.images)]
    return [item]


def _is_image(path: Path) -> bool:
    if path.name.startswith(".") or path.name.endswith(".part"):
        return False
    if Folder(path).manifest.exists():  # a result of an earlier batch
        return False
    return is_zarr(path) if path.is_dir() else is_tiff_name(path)


def _of_table(path: Path, settings: BatchSettings) -> list[Item]:
    """Return the images that a table names."""
    if path.resolve() == (settings.folder / REPORT).resolve():
        raise RlnError(
            f"{path} would be overwritten by the report of the batch; call it otherwise, or name "
            "another folder for the results."
        )
    try:
        text = path.read_text(encoding="utf-8-sig")  # as spreadsheets write it
    except (OSError, UnicodeError) as error:
        raise RlnError(f"{path} cannot be read as a table ({error}).") from error
    table = csv.DictReader(io.StringIO(text))
    rows, columns = list(table), set(table.fieldnames or ())
    if "image" not in columns or not columns <= set(_COLUMNS):
        odd = ", ".join(sorted(str(c) for c in columns - set(_COLUMNS))) or "no image"
        raise RlnError(f"{path.name} has {odd}; its columns may be {', '.join(_COLUMNS)}.")
    found: list[Item] = []
    for number, row in enumerate(rows, 2):
        if None in row:
            raise RlnError(f"{path.name}, line {number} has more cells than there are columns.")
        words = {name: (value or "").strip() for name, value in row.items()}
        if not any(words.values()):
            continue
        if not words["image"]:
            raise RlnError(f"{path.name}, line {number} names no image.")

        def place(word: str) -> Path:
            return path.parent / word

        try:
            if any("\0" in word for word in words.values()):
                raise ValueError("there is a character NUL in it")
            item = Item(
                image=place(words["image"]),
                out=settings.folder / words.get("out", ""),
                psf=place(words["psf"]) if words.get("psf") else None,
                model=words.get("model") or None,
                channel=int(words["channel"]) if words.get("channel") else None,
                time=int(words["time"]) if words.get("time") else None,
                series=int(words["series"]) if words.get("series") else None,
                voxel_um=_voxel_um(words.get("voxel_um")),
                psf_voxel_um=_voxel_um(words.get("psf_voxel_um")),
            )
        except ValueError as error:
            raise RlnError(f"{path.name}, line {number}: {error}") from error
        found.append(item)
    return found


def _voxel_um(words: str | None) -> VoxelUm | None:
    if not words:
        return None
    sizes = [float(word) for word in words.replace(",", " ").split()]
    if len(sizes) != 3:
        raise ValueError(f"{words!r} is no voxel size; write three numbers, z y x in micrometres")
    z, y, x = sizes
    return z, y, x


def _channels(item: Item, settings: BatchSettings) -> list[Item]:
    """Return an image once for each of its channels, with what belongs to that."""
    voxel_um = item.voxel_um or settings.voxel_um
    count, problem = 1, ""
    try:
        whole = settings.planes_are == "channel"
        count = 1 if whole else contents(item.image, item.series).channels
    except (ValueError, OSError) as error:  # also a name that no file can have
        problem = str(error)
    for name, words in (("PSFs", settings.psfs), ("models", settings.models)):
        if len(words) > 1 and len(words) != count and not problem:
            problem = f"it has {count} channels but there are {len(words)} {name}"
    found = []
    for channel in range(count) if item.channel is None else [item.channel]:
        mark = "" if item.series is None else f"-s{item.series}"
        mark += f"-c{channel}" if count > 1 else ""
        name = f"{stem(item.image)}{mark}-{settings.method}.{settings.ending}"
        found.append(
            replace(
                item,
                out=item.out if item.out != settings.folder else settings.folder / name,
                psf=item.psf or _of_channel(settings.psfs, channel),
                model=item.model or _of_channel(settings.models, channel),
                channel=channel if count > 1 else item.channel,
                time=settings.time if item.time is None else item.time,
                voxel_um=voxel_um,
                psf_voxel_um=item.psf_voxel_um or settings.psf_voxel_um,
                planes_are=settings.planes_are,
                missing=settings.missing,
                crop=settings.crop,
                problem=problem,
            )
        )
    return found


def _of_channel(words: Sequence[T], channel: int) -> T | None:
    """Return the one for a channel, where there is one for each; else the one for all."""
    if not words:
        return None
    return words[channel] if len(words) > 1 and channel < len(words) else words[0]


def run_batch(
    items: Sequence[Item],
    prepare: Callable[[Item], LargeRun],
    folder: Path,
    large: LargeSettings,
    device: str = "auto",
) -> Generator[BatchReport, None, list[Ended]]:
    """Do a batch; yield reports, return what became of every image.

    Parameters
    ----------
    items
        The images.
    prepare
        Makes of an item what is to be run: reads its PSF and model.
    folder
        Of the results, where the table of what became of them is written, after every image.
    large
        Who works.
    device
        On what.

    Raises
    ------
    RlnError
        If the workers cannot be had.
    OSError
        If the table cannot be written.
    """
    ended: list[Ended] = []
    with engine(large, device, folder.absolute()) as workers:
        for number, item in enumerate(items):
            began = time.perf_counter()
            told: list[str] = []
            error, summary, made = "", {}, True
            try:
                if item.problem:
                    raise RlnError(item.problem)
                with listening(told.append):
                    steps = run_large(prepare(item), workers=workers)
                with contextlib.closing(steps):
                    while True:
                        with listening(told.append):
                            report = next(steps)
                        yield BatchReport(done=number, total=len(items), item=item, inner=report)
            except StopIteration as stop:
                _, summary, made = stop.value
            except Exception as failure:  # whatever it is, the others are still to be done
                error = str(failure) or type(failure).__name__
            lasted = time.perf_counter() - began
            ended.append(
                Ended(
                    item=item,
                    error=error,
                    seconds=lasted,
                    summary=summary,
                    made=made,
                    warnings=tuple(dict.fromkeys(told)),
                )
            )
            _write(folder / REPORT, ended)
            yield BatchReport(done=number + 1, total=len(items), item=item, ended=ended[-1])
    return ended


def _write(path: Path, ended: Iterable[Ended]) -> None:
    """Write the table of what became of a batch."""
    found = ("iterations", "background", "chi2", "flux_ratio", "clipped")
    head = ("image", "channel", "time", "result", "status", "seconds", *found, "error", "warnings")
    with (
        atomic(path) as temporary,
        temporary.open("w", newline="", encoding="utf-8", errors="backslashreplace") as file,
    ):
        table = csv.writer(file)
        table.writerow(head)
        for one in ended:
            item = one.item
            channel, when = ("" if n is None else n for n in (item.channel, item.time))
            row = [item.image, channel, when, item.out, one.status, f"{one.seconds:.1f}"]
            row += [one.summary.get(name, "") for name in found]
            table.writerow([*row, one.error, " ".join(one.warnings)])
