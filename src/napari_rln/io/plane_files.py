"""Stacks with one file per plane: folders of TIFFs, and OME-TIFF with a companion.

Microscope programs export a file for every plane, channel and time, with their numbers in its name.
Known patterns are read; a folder with ambiguous names is refused, rather than mixing planes of two
channels.
"""

import itertools
import math
import re
from collections.abc import Sequence
from pathlib import Path, PureWindowsPath
from typing import Any, NamedTuple
from xml.etree import ElementTree

import numpy as np
import numpy.typing as npt
import tifffile

from napari_rln.core.errors import RlnError, warn
from napari_rln.io.lazy import MOST_PLANES, OpenedImage, Pieces, choose_image, rgb_error
from napari_rln.io.metadata import (
    file_of_planes,
    files_of_pixels,
    read_voxel_um,
    voxel_um_of_pixels,
)
from napari_rln.io.paths import is_tiff_name, title
from napari_rln.io.stated_optics import per_channel
from napari_rln.io.tiff_optics import ome_optics

_COMPANION = ".companion.ome"
_AXES = "TCZ"

# Text before a number in names of exported planes, and the axis of the number.
_LABELS = {
    "z": "Z", "slice": "Z", "plane": "Z", "zstack": "Z", "zslice": "Z", "stack": "Z",
    "c": "C", "ch": "C", "channel": "C", "w": "C", "wave": "C", "wavelength": "C",
    "t": "T", "time": "T", "tp": "T", "timepoint": "T", "frame": "T",
    "xy": "position", "pos": "position", "position": "position", "s": "position",
    "p": "position", "f": "position", "field": "position", "fov": "position", "m": "position",
    "tile": "position", "x": "position", "y": "position",
}  # fmt: skip
_MANAGER = re.compile(r"img_(\d{9})_(.+)_(\d{3,})\.tiff?")  # of Micro-Manager: time, channel, z
_SPARSE = 4  # ratio of numbers to planes above which the numbers are not an index
_LETTERS = {"s", "p", "f", "m", "x", "y"}  # may also stand for slice, plane, frame, ...


class PlaneLocation(NamedTuple):
    """Place of a plane in a file: a page, or the start of uncompressed values, bytes."""

    path: Path
    page: int = 0
    offset: int | None = None


class Planes:
    """Planes of one size (Y, X) and type as one array of axes of lengths ``lead``, y and x.

    The parts are in C order of those axes; None for missing ones, which are read as 0.
    """

    def __init__(
        self,
        parts: Sequence[PlaneLocation | None],
        lead: tuple[int, ...],
        size: tuple[int, int],
        dtype: np.dtype[Any],
    ) -> None:
        self._parts, self._lead, self._size = parts, lead, size
        self.shape, self.dtype = (*lead, *size), dtype
        self.chunks = (*(1 for _ in lead), *size)

    def __getitem__(self, index: tuple[Any, ...]) -> npt.NDArray[Any]:
        *lead, y, x = index
        numbers = np.arange(len(self._parts)).reshape(self._lead)[tuple(lead)]
        rows, columns = (len(range(*s.indices(n))) for s, n in zip((y, x), self._size, strict=True))
        values = np.zeros((numbers.size, rows, columns), self.dtype)
        for at, number in enumerate(numbers.ravel()):
            part = self._parts[number]
            if part is not None:
                values[at] = self._plane(part)[y, x]
        return values.reshape(*numbers.shape, rows, columns)

    def _plane(self, part: PlaneLocation) -> npt.NDArray[Any]:
        """Return a plane, (Y, X); raise an RlnError if it is of another size or type."""
        size, dtype = self._size, self.dtype
        if part.offset is not None:
            return np.memmap(part.path, dtype, mode="r", offset=part.offset, shape=size)
        with tifffile.TiffFile(part.path) as tif:
            page = tif.pages[part.page]
            if page.dtype != dtype or _squeezed(page.shape) != size:
                raise RlnError(
                    f"{part.path.name} is {page.dtype} {_squeezed(page.shape)} but the first plane "
                    f"is {dtype} {size}; all planes of a stack have one size and type."
                )
            data: npt.NDArray[Any] = page.asarray().reshape(size)
            return data

    def pieces(self, axes: str) -> Pieces:
        """Return the planes, with the numbers of the existing ones."""
        grid = itertools.product(*map(range, self._lead))
        present = {
            (*where, 0, 0)
            for where, part in zip(grid, self._parts, strict=True)
            if part is not None
        }
        return Pieces(kind="planes", axes=axes, shape=self.shape, size=self.chunks, present=present)


def tiffs_in(folder: Path) -> list[Path]:
    """Return the TIFFs of a folder in order of their names, without hidden ones."""
    return sorted(f for f in folder.iterdir() if is_tiff_name(f) and not f.name.startswith("."))


def open_folder(path: Path, series: int | None = None) -> OpenedImage:
    """Return the stack whose planes are the TIFFs of a folder.

    Files with one varying number are planes in its order. With several, the numbers are identified
    by names such as ``Series001_z00_ch01.tif``, ``img_t001_z002.tif`` or ``cellxy01c1z01.tif``.
    Raise an RlnError if there are no TIFFs, the order is not clear from their names, or the sizes
    differ.
    """
    files = tiffs_in(path)
    companions = sorted(f for f in path.iterdir() if is_companion(f))
    if len(companions) == 1:
        return open_companion(companions[0], series)
    if companions:
        names = ", ".join(companion.name for companion in companions)
        raise RlnError(f"{path} contains several sets; name one of {names}.")
    if not files:
        raise RlnError(f"{path} is a folder without TIFFs and not a Zarr; name another folder.")
    axes, numbers, keys = _ordered(files, path)
    try:
        first = next((file for file in files if file.stat().st_size), files[0])
        size, dtype, voxel_um = _plane_of(first, len(numbers["Z"]) if "Z" in axes else 1)
    except RlnError:
        raise
    except Exception as error:  # a damaged file can make the parser raise anything
        raise RlnError(f"{first.name} cannot be read as TIFF ({error}).") from error
    # Empty files are left by an interrupted copy.
    places = {
        key: PlaneLocation(file)
        for key, file in zip(keys, files, strict=True)
        if file.stat().st_size
    }
    lead = tuple(len(numbers[axis]) for axis in axes)
    parts = [places.get(key) for key in itertools.product(*(numbers[axis] for axis in axes))]
    planes = Planes(parts, lead, size, dtype)
    letters = f"{axes}YX"
    return OpenedImage(
        planes,
        letters,
        voxel_um,
        title(path),
        pieces=planes.pieces(letters),
        files=lambda: files,
    )


def _ordered(
    files: list[Path], folder: Path
) -> tuple[str, dict[str, list[int]], list[tuple[int, ...]]]:
    """Sort files in place; return their axes, the numbers along each, and each file's own.

    Numbers that are skipped between others belong to an axis too, as missing planes.
    """
    split = _numbered(files)
    files.sort(key=lambda file: [n for _, n in split[file]])
    shapes = {tuple(label for label, _ in parts) for parts in split.values()}
    if len(files) == 1:
        return "Z", {"Z": [0]}, [(0,)]
    if len(shapes) > 1:
        raise _unclear(files, folder, "the names are of several kinds")
    (labels,) = shapes
    columns = [[split[file][at][1] for file in files] for at in range(len(labels))]
    varying = [at for at, column in enumerate(columns) if len(set(column)) > 1]
    if not varying:
        raise _unclear(files, folder, "the names contain no numbers for the order")
    axis_of = {at: _LABELS.get(labels[at]) for at in varying}
    if len(varying) == 1 and (axis_of[varying[0]] is None or labels[varying[0]] in _LETTERS):
        axis_of[varying[0]] = "Z"  # a single number: the planes' own
    if any(axis == "position" for axis in axis_of.values()):
        raise _unclear(files, folder, "there are several positions")
    if None in axis_of.values() or len(set(axis_of.values())) < len(axis_of):
        raise _unclear(files, folder, "several numbers vary, without known labels")
    axes = "".join(axis for axis in _AXES if axis in axis_of.values())
    numbers = {axis: _filled(columns[at]) for at, axis in axis_of.items() if axis is not None}
    order = [next(at for at, axis in axis_of.items() if axis == letter) for letter in axes]
    own = {file: tuple(split[file][at][1] for at in order) for file in files}
    files.sort(key=own.__getitem__)
    keys = [own[file] for file in files]
    for (one, first), (other, second) in itertools.pairwise(zip(files, keys, strict=True)):
        if first == second:
            raise _unclear([one, other], folder, "two files are the same plane")
    return axes, numbers, keys


def _numbered(files: Sequence[Path]) -> dict[Path, list[tuple[str, int]]]:
    """Return the numbers in the names of files, each with the letters before it."""
    managed = [_MANAGER.fullmatch(file.name) for file in files]
    if all(managed):
        channels = sorted({match[2] for match in managed if match})
        return {
            file: [
                ("time", int(match[1])),
                ("channel", channels.index(match[2])),
                ("z", int(match[3])),
            ]
            for file, match in zip(files, managed, strict=True)
            if match
        }
    split = {file: re.findall(r"(\D*)(\d+)", file.name.lower()) for file in files}
    # A dash before only some of the numbers is a minus sign.
    depth = min(map(len, split.values()), default=0)
    dashes = [{parts[at][0].endswith("-") for parts in split.values()} for at in range(depth)]
    signed = {at for at, match in enumerate(dashes) if len(match) == 2}
    return {
        file: [
            (
                re.search(r"[a-z]*$", text.rstrip("_- =."))[0],  # type: ignore[index]
                -int(number) if at in signed and text.endswith("-") else int(number),
            )
            for at, (text, number) in enumerate(parts)
        ]
        for file, parts in split.items()
    }


def _filled(column: Sequence[int]) -> list[int]:
    """Return the numbers along an axis, including those skipped between others.

    Where most would be skipped only the existing numbers are returned, as they may be times; with a
    warning.
    """
    numbers = sorted(set(column))
    steps = {b - a for a, b in itertools.pairwise(numbers)}
    if len(steps) < 2:
        return numbers
    whole = range(numbers[0], numbers[-1] + 1, math.gcd(*steps))
    if (whole.stop - whole.start) // whole.step < _SPARSE * len(numbers):
        return list(whole)
    warn(
        f"the numbers of the planes are irregular ({', '.join(map(str, numbers[:4]))}, ...); they "
        "are treated as neighbours."
    )
    return numbers


def _unclear(files: Sequence[Path], folder: Path, why: str) -> RlnError:
    few = ", ".join(file.name for file in files[:4])
    more = f" and {len(files) - 4} more" if len(files) > 4 else ""
    return RlnError(
        f"{folder} contains {few}{more}: {why}; keep the planes of one stack in a folder, "
        "numbered, or named like name_t00_z00_ch00.tif."
    )


def _plane_of(
    file: Path, planes: int
) -> tuple[tuple[int, int], np.dtype[Any], tuple[float, float, float] | None]:
    """Return the size and type of a plane in a file, and the stated voxel size."""
    with tifffile.TiffFile(file) as tif:
        series = tif.series[0]
        if "S" in series.axes:
            raise rgb_error(file.name)
        shape = _squeezed(series.shape)
        if len(shape) != 2:
            raise RlnError(
                f"{file.name} is of shape {shape}, not a plane; a folder is read as one stack "
                "of planes: name one of its files to read it alone."
            )
        # The z step does not matter for a single plane, but for this stack.
        return (shape[0], shape[1]), series.dtype, read_voxel_um(tif, 0, planes)


def _squeezed(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(n for n in shape[:-2] if n != 1) + tuple(shape[-2:])


def is_companion(path: Path) -> bool:
    """Tell whether a file describes a set of OME-TIFFs without an image of its own."""
    return path.name.lower().endswith(_COMPANION)


def open_companion(
    path: Path, series: int | None = None, member: Path | None = None
) -> OpenedImage:
    """Return the image that a companion file describes: its only one, unless ``series`` is given.

    ``member`` is a named file of the set, whose image is the default. Raise an RlnError if the file
    is unreadable, or describes no image.
    """
    try:
        root = ElementTree.parse(path).getroot()
        images = root.findall(".//{*}Pixels")
        if member is not None and series is None:
            own = [each for each in images if member.name in files_of_pixels(each)]
            images = own or images
        sizes = [" x ".join(each.attrib[f"Size{axis}"] for axis in "TCZYX") for each in images]
        chosen = images[choose_image(sizes, series, (member or path).name)]
        image = next(each for each in root.iter() if chosen in each)
        opened = _described(chosen, path)._replace(images=len(images))
        return opened._replace(optics=per_channel(ome_optics(root, image), opened.channels))
    except (OSError, ElementTree.ParseError, KeyError, ValueError) as error:
        if isinstance(error, RlnError):
            raise
        raise RlnError(
            f"{path.name} cannot be read as the description of a set ({error})."
        ) from error


def _described(pixels: ElementTree.Element, path: Path) -> OpenedImage:
    """Return the image of an element Pixels, with planes in files beside a path."""
    order = pixels.attrib.get("DimensionOrder", "XYZCT")[:1:-1]  # the slowest first, as in numpy
    sizes = {axis: int(pixels.attrib[f"Size{axis}"]) for axis in "XYZCT"}
    axes = "".join(axis for axis in "TCZ" if sizes[axis] > 1) or "Z"
    lead = tuple(sizes[axis] for axis in axes)
    if math.prod(lead) > MOST_PLANES:
        raise RlnError(f"{path.name} describes {' x '.join(map(str, lead))} planes; it is damaged.")
    extent = tuple(sizes[axis] for axis in order)
    places: dict[tuple[int, ...], PlaneLocation] = {}
    lengths: dict[Path, int] = {}  # of files that hold several planes
    names: dict[Path, str] = {}  # as in the description
    for data in pixels.iterfind("{*}TiffData"):
        at = [int(data.attrib.get(f"First{axis}", 0)) for axis in order]
        if not all(0 <= n < size for n, size in zip(at, extent, strict=True)):
            continue
        start = np.ravel_multi_index(at, extent)
        name = file_of_planes(data)
        if name is None:
            raise RlnError(f"{path.name} names no files of its planes; export it again.")
        file = path.parent / name
        if not file.is_file():  # sets are moved out of their original folders
            file = path.parent / PureWindowsPath(name).name
        if names.setdefault(file, name) != name:
            raise RlnError(
                f"several files of the set are called {file.name}; keep them in the folders in "
                f"which {path.name} has them."
            )
        first = int(data.attrib.get("IFD", 0))
        count = min(int(data.attrib.get("PlaneCount", 1)), math.prod(lead))
        whole = "IFD" not in data.attrib and "PlaneCount" not in data.attrib
        pages = int(file.is_file() and file.stat().st_size > 0)
        if pages and (whole or first + count > 1):
            if file not in lengths:
                with tifffile.TiffFile(file) as tif:
                    lengths[file] = len(tif.pages)
            pages = lengths[file]
        for number in range(first, pages if whole else min(pages, first + count)):
            plane = np.unravel_index((start + number - first) % math.prod(extent), extent)
            where = dict(zip(order, map(int, plane), strict=True))
            places[tuple(where[axis] for axis in axes)] = PlaneLocation(file, number)
    if not places:
        raise RlnError(f"none of the files that {path.name} describes is beside it; copy the set.")
    parts = [places.get(key) for key in itertools.product(*map(range, lead))]
    size = sizes["Y"], sizes["X"]
    present = next(iter(places.values()))
    with tifffile.TiffFile(present.path) as tif:
        dtype = np.dtype(tif.pages[present.page].dtype)
    planes, letters = Planes(parts, lead, size, dtype), f"{axes}YX"
    files = sorted({path, *(part.path for part in places.values())})
    return OpenedImage(
        planes,
        letters,
        voxel_um_of_pixels(pixels.attrib, sizes["Z"]),
        path.name[: -len(_COMPANION)],
        pieces=planes.pieces(letters),
        files=lambda: files,
    )
