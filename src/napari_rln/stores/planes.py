"""Stacks whose planes lie in files of their own: folders of TIFFs, and OME-TIFF with a companion.

Microscope programs export a file for every plane, channel and time, and say which is which in the
names. The known patterns are read; where names do not tell, the folder is refused rather than
planes of two channels mixed.
"""

import itertools
import math
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree import ElementTree

import numpy as np
import numpy.typing as npt
import tifffile

from napari_rln.errors import RlnError
from napari_rln.files import TIFF_SUFFIXES, title
from napari_rln.metadata import read_voxel_um, voxel_um_of_pixels
from napari_rln.stores.lazy import MOST_PLANES, Held, Pieces

_COMPANION = ".companion.ome"
_AXES = "TCZ"

# What comes before a number in names of exported planes, and the axis that the number is along.
_LABELS = {
    "z": "Z", "slice": "Z", "plane": "Z", "zstack": "Z", "zslice": "Z", "stack": "Z",
    "c": "C", "ch": "C", "channel": "C", "w": "C", "wave": "C", "wavelength": "C",
    "t": "T", "time": "T", "tp": "T", "timepoint": "T", "frame": "T",
    "xy": "position", "pos": "position", "position": "position", "s": "position",
    "p": "position", "f": "position", "field": "position", "fov": "position", "m": "position",
    "tile": "position", "x": "position", "y": "position",
}  # fmt: skip
_LETTERS = {"s", "p", "f", "m", "x", "y"}  # that may also stand for slice, plane, frame, ...


class Plane(NamedTuple):
    """Where a plane lies.

    Attributes
    ----------
    path
        Its file.
    page
        Its number there.
    offset
        Where its values begin, uncompressed, instead of a page.
    """

    path: Path
    page: int = 0
    offset: int | None = None


class Planes:
    """Planes of one size and type as one array of leading axes, y and x.

    Parameters
    ----------
    parts
        In C order of the leading axes; none for planes that are not there, which are read as 0.
    lead
        Lengths of the leading axes.
    size
        (Y, X) of a plane.
    dtype
        Of its values.
    """

    def __init__(
        self,
        parts: Sequence[Plane | None],
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
        found = np.zeros((numbers.size, rows, columns), self.dtype)
        for at, number in enumerate(numbers.ravel()):
            part = self._parts[number]
            if part is not None:
                found[at] = read_plane(part, self._size, self.dtype)[y, x]
        return found.reshape(*numbers.shape, rows, columns)

    def pieces(self, axes: str) -> Pieces:
        """Return which planes are there."""
        grid = itertools.product(*map(range, self._lead))
        present = {
            (*where, 0, 0)
            for where, part in zip(grid, self._parts, strict=True)
            if part is not None
        }
        size = (*(1 for _ in self._lead), *self._size)
        return Pieces(kind="planes", axes=axes, shape=self.shape, size=size, present=present)


def read_plane(part: Plane, size: tuple[int, int], dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    """Return a plane, (Y, X).

    Raises
    ------
    RlnError
        If its file holds a plane of another size or type.
    """
    if part.offset is not None:
        return np.memmap(part.path, dtype, mode="r", offset=part.offset, shape=size)
    with tifffile.TiffFile(part.path) as tif:
        page = tif.pages[part.page]
        if page.dtype != dtype or _squeezed(page.shape) != size:
            raise RlnError(
                f"{part.path.name} is {page.dtype} {_squeezed(page.shape)} but the first plane is "
                f"{dtype} {size}; all planes of a stack have one size and type."
            )
        data: npt.NDArray[Any] = page.asarray().reshape(size)
        return data


def open_folder(path: Path) -> Held:
    """Return the stack whose planes are the TIFFs of a folder.

    Files with one number that varies are planes in its order. With several, names such as
    ``Series001_z00_ch01.tif``, ``img_t001_z002.tif`` or ``cellxy01c1z01.tif`` tell which is which.

    Raises
    ------
    RlnError
        If there are none, names do not tell their order, or they are not planes of one size.
    """
    files = [f for f in path.iterdir() if f.suffix.lower() in TIFF_SUFFIXES and f.name[0] != "."]
    companions = [f for f in path.iterdir() if is_companion(f)]
    if len(companions) == 1:
        return open_companion(companions[0])
    if not files:
        raise RlnError(f"{path} holds no .tif or .tiff and is no Zarr; name a file, or such one.")
    axes, numbers, keys = _ordered(files, path)
    try:
        size, dtype, voxel_um = _plane_of(files[0], len(numbers["Z"]) if "Z" in axes else 1)
    except RlnError:
        raise
    except Exception as error:  # a damaged file can make the parser raise anything
        raise RlnError(f"{files[0].name} cannot be read as TIFF ({error}).") from error
    places = {key: Plane(file) for key, file in zip(keys, files, strict=True)}
    lead = tuple(len(numbers[axis]) for axis in axes)
    parts = [places.get(key) for key in itertools.product(*(numbers[axis] for axis in axes))]
    planes = Planes(parts, lead, size, dtype)
    letters = f"{axes}YX"
    return Held(
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

    Numbers that are left out between others are among those of an axis: planes that are not there.
    """
    split = {file: _split(file.name) for file in files}
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
        raise _unclear(files, folder, "the names hold no numbers that tell their order")
    found = {at: _LABELS.get(labels[at]) for at in varying}
    if len(varying) == 1 and (found[varying[0]] is None or labels[varying[0]] in _LETTERS):
        found[varying[0]] = "Z"  # a single number: the planes' own
    if any(axis == "position" for axis in found.values()):
        raise _unclear(files, folder, "there are several positions")
    if None in found.values() or len(set(found.values())) < len(found):
        raise _unclear(files, folder, "several numbers vary and the names do not say of what")
    axes = "".join(axis for axis in _AXES if axis in found.values())
    numbers = {axis: _filled(columns[at]) for at, axis in found.items() if axis is not None}
    order = [next(at for at, axis in found.items() if axis == letter) for letter in axes]
    own = {file: tuple(split[file][at][1] for at in order) for file in files}
    files.sort(key=own.__getitem__)
    keys = [own[file] for file in files]
    _checked_twice(files, keys, folder)
    return axes, numbers, keys


def _split(name: str) -> list[tuple[str, int]]:
    """Return the numbers in a file's name, each with the letters before it."""
    parts = re.split(r"(\d+)", name.lower())
    return [
        (re.search(r"[a-z]*$", text.rstrip("_- =."))[0], int(number))  # type: ignore[index]
        for text, number in zip(parts[::2], parts[1::2], strict=False)
    ]


def _filled(column: Sequence[int]) -> list[int]:
    """Return the numbers along an axis, those left out between others among them.

    Only where they follow each other in one step with few exceptions: numbers may be times.
    """
    numbers = sorted(set(column))
    steps = Counter(b - a for a, b in itertools.pairwise(numbers))
    if not steps:
        return numbers
    step = min(steps, key=lambda s: (-steps[s], s))
    regular = all(s % step == 0 for s in steps)
    whole = list(range(numbers[0], numbers[-1] + 1, step))
    return whole if regular and len(whole) < 2 * len(numbers) else numbers


def _checked_twice(files: Sequence[Path], keys: Sequence[tuple[int, ...]], folder: Path) -> None:
    """Raise if two files are the same plane."""
    for (one, first), (other, second) in itertools.pairwise(zip(files, keys, strict=True)):
        if first == second:
            raise _unclear([one, other], folder, "two files are the same plane")


def _unclear(files: Sequence[Path], folder: Path, why: str) -> RlnError:
    few = ", ".join(file.name for file in files[:4])
    more = f" and {len(files) - 4} more" if len(files) > 4 else ""
    return RlnError(
        f"{folder} holds {few}{more}: {why}; keep the planes of one stack in a folder, numbered, "
        "or named like name_t00_z00_ch00.tif."
    )


def _plane_of(
    file: Path, planes: int
) -> tuple[tuple[int, int], np.dtype[Any], tuple[float, float, float] | None]:
    """Return the size and type of a plane in a file, and the voxel size that it states."""
    with tifffile.TiffFile(file) as tif:
        series = tif.series[0]
        if "S" in series.axes:
            raise RlnError(
                f"{file.name} is an RGB image; convert it to grey values or split its channels."
            )
        shape = _squeezed(series.shape)
        if len(shape) != 2:
            raise RlnError(
                f"{file.name} is of shape {shape}, no plane; a folder is read as one stack of "
                "planes: name one of its files to read that."
            )
        # Of a plane alone it does not matter how far the next one is; here it does.
        return (shape[0], shape[1]), series.dtype, read_voxel_um(tif, 0, planes)


def _squeezed(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(n for n in shape[:-2] if n != 1) + tuple(shape[-2:])


def is_companion(path: Path) -> bool:
    """Tell whether a file describes a set of OME-TIFFs and holds no image itself."""
    return path.name.lower().endswith(_COMPANION)


def open_companion(path: Path, series: int = 0) -> Held:
    """Return the image that a companion file describes.

    Raises
    ------
    RlnError
        If it cannot be read, or describes none.
    """
    try:
        root = ElementTree.parse(path).getroot()
        images = [each for each in root.iter() if _tag(each) == "Pixels"]
        if not 0 <= series < len(images):
            raise RlnError(f"{path.name} describes {len(images)} images; {series} is not there.")
        return _described(images[series], path)
    except (OSError, ElementTree.ParseError, KeyError, ValueError) as error:
        if isinstance(error, RlnError):
            raise
        raise RlnError(
            f"{path.name} cannot be read as the description of a set ({error})."
        ) from error


def _described(pixels: ElementTree.Element, path: Path) -> Held:
    """Return the image of an element Pixels, whose planes lie in files beside a path."""
    order = pixels.attrib.get("DimensionOrder", "XYZCT")
    sizes = {axis: int(pixels.attrib[f"Size{axis}"]) for axis in "XYZCT"}
    axes = "".join(axis for axis in "TCZ" if sizes[axis] > 1) or "Z"
    lead = tuple(sizes[axis] for axis in axes)
    if math.prod(lead) > MOST_PLANES:
        raise RlnError(f"{path.name} promises {' x '.join(map(str, lead))} planes; it is damaged.")
    places: dict[tuple[int, ...], Plane] = {}
    for data in (each for each in pixels if _tag(each) == "TiffData"):
        where = {axis: int(data.attrib.get(f"First{axis}", 0)) for axis in "ZCT"}
        uuid = next((each for each in data if _tag(each) == "UUID"), None)
        if uuid is None or "FileName" not in uuid.attrib:
            raise RlnError(f"{path.name} does not say in which files its planes are.")
        file = path.parent / Path(uuid.attrib["FileName"]).name
        first = int(data.attrib.get("IFD", 0))
        for count in range(int(data.attrib.get("PlaneCount", 1))):
            if file.is_file():
                places[tuple(where[axis] for axis in axes)] = Plane(file, first + count)
            _advance(where, sizes, order)
    if not places:
        raise RlnError(f"none of the files that {path.name} describes is beside it.")
    parts = [places.get(key) for key in itertools.product(*map(range, lead))]
    size = sizes["Y"], sizes["X"]
    some = next(iter(places.values()))
    with tifffile.TiffFile(some.path) as tif:
        dtype = np.dtype(tif.pages[some.page].dtype)
    planes, letters = Planes(parts, lead, size, dtype), f"{axes}YX"
    files = sorted({path, *(part.path for part in places.values())})
    return Held(
        planes,
        letters,
        voxel_um_of_pixels(pixels.attrib, sizes["Z"]),
        path.name[: -len(_COMPANION)],
        pieces=planes.pieces(letters),
        files=lambda: files,
    )


def _advance(where: dict[str, int], sizes: dict[str, int], order: str) -> None:
    """Go on to the next plane in the order in which a file holds them."""
    for axis in order[2:]:
        where[axis] += 1
        if where[axis] < sizes[axis]:
            return
        where[axis] = 0


def _tag(element: ElementTree.Element) -> str:
    """Return an element's name without its namespace."""
    return element.tag.rpartition("}")[2]
