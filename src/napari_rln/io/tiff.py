"""TIFF by boxes: reading what lies in a file, writing one large OME-TIFF.

Values that lie one after another are mapped into memory. Compressed or tiled ones are read strip by
strip or tile by tile. What a file promises and does not hold is found before anything is read.
"""

import itertools
import logging
import math
import os
import re
import struct
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tifffile

from napari_rln.core.errors import RlnError, warn
from napari_rln.core.record import Record
from napari_rln.core.tiles import Shape
from napari_rln.core.volume import Box, VoxelUm
from napari_rln.io.lazy import MOST_PLANES, Held, Lazy, Pieces, choose_image
from napari_rln.io.metadata import (
    RECORD_NAMESPACE,
    files_named,
    images_in,
    read_record,
    read_voxel_um,
)
from napari_rln.io.paths import title
from napari_rln.io.plane_files import Plane, Planes, is_companion, open_companion, tiffs_in

# What tifffile notes of a file is said by the errors here; without a handler it would be printed.
logging.getLogger("tifffile").addHandler(logging.NullHandler())

# Tags: width, length, bits, compression, predictor, size of tiles, format of the values.
_LAYOUT = frozenset({256, 257, 258, 259, 317, 322, 323, 339})
_MANAGER = {"Z": "Slices", "C": "Channels", "T": "Frames"}  # how Micro-Manager calls the axes
_ZEROS_BYTES = 100_000_000  # at most, that are looked at behind the last plane


def open_lazily(path: Path, series: int | None = None, folder: bool = False) -> Held:
    """Return what a TIFF holds, or the set of files that it is one of.

    Parameters
    ----------
    path
        The file, or a companion.ome that describes a set.
    series
        Which of its images, from 0; the only one when none.
    folder
        Whether all images of the set in its folder are meant, rather than those in the file.

    Raises
    ------
    RlnError
        If it is no TIFF, RGB, or damaged, or holds several images and none is chosen.
    """
    if is_companion(path):
        return open_companion(path, series)
    try:
        tif = tifffile.TiffFile(path)
        try:
            companion = _companion_of(tif, path)
            held = (
                open_companion(companion, series, path)
                if companion
                else _held(tif, series, path, folder)
            )
        except BaseException:
            tif.close()
            raise
    except RlnError:
        raise
    except MemoryError as error:
        raise RlnError(f"{path.name} does not fit into the memory ({error}); crop it.") from error
    except Exception as error:  # a damaged file can make the parser raise anything
        if "keyframe" in str(error):
            raise _mixed(path.name) from error
        raise RlnError(
            f"{path.name} cannot be read as TIFF ({error}); it may be cut short or of another "
            "format: open and save it again in Fiji."
        ) from error
    if isinstance(held.array, np.memmap | Planes):
        tif.close()
    else:  # strips and tiles are read from the open file
        weakref.finalize(held.array, tif.close)
    return held


def open_set(folder: Path, series: int | None = None) -> Held | None:
    """Return the image of a folder that holds a set of OME-TIFFs; none where it does not.

    Raises
    ------
    RlnError
        As :func:`open_lazily`.
    """
    files = tiffs_in(folder)
    if len(files) < 2:
        return None
    try:
        with tifffile.TiffFile(files[0]) as tif:
            named = files_named(tif.ome_metadata or "")
    except Exception:  # what is wrong with it is said where it is read
        return None
    among = len(named & {file.name for file in files}) > 1
    return open_lazily(files[0], series, folder=True) if among else None


def _held(tif: tifffile.TiffFile, wanted: int | None, path: Path, folder: bool) -> Held:
    _check_promise(tif, path.name)
    own = _images_of(tif, folder)
    if len(own) > 1 and _names_more(tif):
        raise _mixed(path.name)
    chosen = choose_image([_size_of(tif.series[n]) for n in own], wanted, path.name)
    number = own[chosen]
    series = tif.series[number]
    if "S" in series.axes:
        raise RlnError(
            f"{path.name} is an RGB image; convert it to grey values or split its channels."
        )
    found = _cut_hyperstack(tif, path) if number == 0 else None
    if found is None:
        _check_planes(tif, series, path.name)
        array, axes = _array(series), named_axes(series.axes, series.shape)
        pieces = _pieces(tif, series, axes)
    else:
        array, axes, pieces = found
    planes = dict(zip(axes, array.shape, strict=True)).get("Z", 1)
    files = sorted(
        {path, *(Path(page.parent.filehandle.path) for page in series.pages if page is not None)}
    )
    return Held(
        array,
        axes,
        read_voxel_um(tif, _described_as(tif, own, chosen, path, folder), planes),
        title(path),
        read_record(tif),
        pieces,
        lambda: files,
        _piece_bytes(array),
        images=len(own),
    )


def _images_of(tif: tifffile.TiffFile, folder: bool) -> list[int]:
    """Return the numbers of the images of which something lies in a file, or in its folder.

    A set of files may be of several images, each in files of its own. Small copies, for a quick
    look, are none.
    """
    found = [
        number
        for number, series in enumerate(tif.series)
        if not (series.keyframe is not None and series.keyframe.is_reduced)
    ]
    own = [
        number
        for number in found
        if any(page is not None and page.parent is tif for page in tif.series[number].pages)
    ]
    return found if folder or not own else own


def _size_of(series: tifffile.TiffPageSeries) -> str:
    return " x ".join(map(str, series.shape))


def _described_as(
    tif: tifffile.TiffFile, own: Sequence[int], chosen: int, path: Path, folder: bool
) -> int:
    """Return which of the images that OME metadata describe is one of a file.

    Images of which no file is there are described, and are none of tifffile's.
    """
    names = {file.name for file in path.parent.iterdir()} if folder else {path.name}
    described = images_in(tif.ome_metadata or "", names)
    return described[chosen] if len(described) == len(own) else own[chosen]


def _check_planes(tif: tifffile.TiffFile, series: tifffile.TiffPageSeries, name: str) -> None:
    """Raise if planes are stored in another way than the first, which tifffile takes for granted.

    Raises
    ------
    RlnError
        If one has another size, type, or compression, or other tiles.

    Warns
    -----
    RlnWarning
        If there are more than the description knows.
    """
    held = {each: [page for page in each.pages if page is not None] for each in tif.series}
    own = all(page.parent is tif for pages in held.values() for page in pages)
    more = len(tif.pages) - sum(map(len, held.values()))
    if own and more > 0 and series.kind in ("ome", "imagej") and len(series.pages) > 1:
        warn(f"{name} holds {more} planes more than its description says; they are left out.")
    mine = [page for page in held[series] if page.parent is tif]
    if len(mine) > 1 and len({_layout(page) for page in mine}) > 1:
        raise _mixed(name)


def _layout(page: Any) -> bytes:
    """Return the tags, as they are in the file, that say how a plane is stored."""
    order = f"{page.parent.tiff.byteorder}H"
    return b"".join(tag for tag in _tags(page) if struct.unpack(order, tag[:2])[0] in _LAYOUT)


def _tags(page: Any) -> list[bytes]:
    """Return the tags of a plane as they are in the file, also where it ends among them."""
    form, file = page.parent.tiff, page.parent.filehandle
    file.seek(page.offset)
    count = struct.unpack(form.tagnoformat, file.read(form.tagnosize))[0]
    tags = file.read(count * form.tagsize)
    return [tags[at : at + form.tagsize] for at in range(0, len(tags), form.tagsize)]


def _mixed(name: str) -> RlnError:
    return RlnError(
        f"the planes of {name} are not all stored in the same way (type, size or compression), or "
        "its end is damaged; copy it again, or open and save it in Fiji."
    )


def _companion_of(tif: tifffile.TiffFile, path: Path) -> Path | None:
    """Return the file that describes the set of which a TIFF is one; none where it is whole.

    Raises
    ------
    RlnError
        If it is not there.
    """
    named = re.search(r'<BinaryOnly[^>]*MetadataFile="([^"]+)"', tif.ome_metadata or "")
    if named is None:
        return None
    companion = path.parent / Path(named[1]).name
    if not companion.is_file():
        raise RlnError(
            f"{path.name} is one file of a set that {companion.name} describes, which is not "
            "beside it; copy the whole set."
        )
    return companion


def _check_promise(tif: tifffile.TiffFile, name: str) -> None:
    """Raise if a file promises more planes than could ever be there, before they are listed."""
    for pixels in re.findall(r"<(?:\w+:)?Pixels\b[^>]*>", tif.ome_metadata or ""):
        sizes = re.findall(r'\bSize[ZCT]="(\d+)"', pixels)
        if math.prod(map(int, sizes)) > MOST_PLANES:
            raise RlnError(
                f"{name} promises {' x '.join(sizes)} planes, more than any file holds; its "
                "description is damaged."
            )


def named_axes(axes: str, shape: Sequence[int]) -> str:
    """Return axes with the unnamed one (Q or I), of a stack without metadata, taken for z.

    Parameters
    ----------
    axes
        As tifffile has them.
    shape
        Of the array; unnamed axes of one entry count for nothing.
    """
    unnamed = [at for at, axis in enumerate(axes) if axis in "QI"]
    several = [at for at in unnamed if shape[at] > 1] or unnamed[-1:]
    if "Z" in axes or len(several) != 1:
        return axes
    return "".join("Z" if at == several[0] else axis for at, axis in enumerate(axes))


def _array(series: tifffile.TiffPageSeries) -> Lazy:
    """Return an image of an open file without reading it."""
    if series.dataoffset is not None:  # values lie one after another
        holder = series.keyframe.parent  # another file than this one where OME metadata say so
        dtype, file = series.dtype.newbyteorder(holder.byteorder), holder.filehandle
        if series.dataoffset + series.nbytes <= file.size:
            return np.memmap(
                file.path, dtype, mode="r", offset=series.dataoffset, shape=series.shape
            )
        return _flat(Path(file.path), dtype, series.dataoffset, series.shape, file.size)
    import zarr  # takes a while to load, and most files do without

    array: Lazy = zarr.open_array(series.aszarr(level=0), mode="r")
    return array


def _flat(path: Path, dtype: np.dtype[Any], offset: int, shape: tuple[int, ...], end: int) -> Lazy:
    """Return an array of planes that lie one after another in a file, as far as that goes."""
    *lead, height, width = shape
    each = height * width * dtype.itemsize
    parts = [
        Plane(path, offset=offset + number * each) if offset + (number + 1) * each <= end else None
        for number in range(math.prod(lead))
    ]
    return Planes(parts, tuple(lead), (height, width), dtype)


def _pieces(tif: tifffile.TiffFile, series: tifffile.TiffPageSeries, axes: str) -> Pieces:
    """Return which planes of an image are there, of those that its descriptions promise."""
    *lead, height, width = series.shape
    grid = list(itertools.product(*map(range, lead)))
    if series.dataoffset is not None:
        each = height * width * series.dtype.itemsize
        end = series.keyframe.parent.filehandle.size - series.dataoffset
        there = [(number + 1) * each <= end for number in range(len(grid))]
    else:
        there = [page is not None and _is_whole(page) for page in series.pages]
        if len(there) != len(grid):  # a page holds several planes
            there = [all(there)] * len(grid)
    promised = _promised(tif, series, axes)
    more = _names_more(tif) or any(axis not in axes and n > 1 for axis, n in promised.items())
    shape = tuple(max(n, promised.get(axis, 1)) for axis, n in zip(axes, series.shape, strict=True))
    return Pieces(
        kind="planes",
        axes=axes,
        shape=shape,
        size=(*(1 for _ in lead), height, width),
        present={(*where, 0, 0) for where, is_there in zip(grid, there, strict=True) if is_there},
        more=more,
    )


def _promised(tif: tifffile.TiffFile, series: tifffile.TiffPageSeries, axes: str) -> dict[str, int]:
    """Return how many planes, channels and times a file says that it has."""
    said: dict[str, Any] = {}
    if tif.is_micromanager:
        summary = (tif.micromanager_metadata or {}).get("Summary") or {}
        said = {axis: summary.get(key) for axis, key in _MANAGER.items()}
    elif tif.is_imagej and series.kind != "imagej":  # a cut one is read as pages without meaning
        said = {"Z": (tif.imagej_metadata or {}).get("images")}
    return {axis: n for axis, n in said.items() if isinstance(n, int) and 1 < n <= MOST_PLANES}


def _is_whole(page: Any) -> bool:
    """Tell whether a page says where its data are, and a file goes that far."""
    ends = list(zip(page.dataoffsets, page.databytecounts, strict=True))
    size = page.parent.filehandle.size
    return bool(ends) and all(offset > 0 and offset + count <= size for offset, count in ends)


def _names_more(tif: tifffile.TiffFile) -> bool:
    """Tell whether the last plane names another one: a cut file of whole planes looks whole.

    It does too where the other one is there but empty, as of a copy whose length was reserved; and
    where that copy ended just before the name, so that nothing but zeros follows.
    """
    form, file = tif.tiff, tif.filehandle
    link = tif.pages.next_page_offset
    if link is None:
        return False
    codes = [tag[:2] for tag in _tags(tif.pages[len(tif.pages) - 1])]
    if not codes or bytes(2) in codes:
        return True
    file.seek(link)
    held = file.read(form.offsetsize)
    if len(held) < form.offsetsize or struct.unpack(form.offsetformat, held)[0] != 0:
        return True
    return _zeros_follow(tif, link + form.offsetsize)


def _zeros_follow(tif: tifffile.TiffFile, end: int) -> bool:
    """Tell whether zeros follow all that a file speaks of, as much of them as half a plane.

    Parameters
    ----------
    tif
        A file.
    end
        Of its last list of tags.
    """
    last = tif.pages[len(tif.pages) - 1].aspage()
    pages: list[tifffile.TiffPage | tifffile.TiffFrame] = [last]
    joined = []
    for series in tif.series:
        if series.dataoffset is None:
            pages += [page for page in series.pages if page is not None and page.parent is tif]
        else:  # in one piece: to read the tags of each plane would take long
            joined.append(series.dataoffset + series.nbytes)
    values = (tag.valueoffset + tag.valuebytecount for tag in last.tags)
    end = max(end, *map(_end_of, pages), *joined, *values)
    planes = [sum(page.databytecounts) for page in pages]
    if not 0 < min(planes) / 2 <= tif.filehandle.size - end:
        return False
    tif.filehandle.seek(end)
    return not any(tif.filehandle.read(min(max(planes), _ZEROS_BYTES)))


def _end_of(page: Any) -> int:
    """Return where the data of a page end in the file."""
    parts = zip(page.dataoffsets, page.databytecounts, strict=False)
    return max((offset + count for offset, count in parts), default=0)


def _cut_hyperstack(tif: tifffile.TiffFile, path: Path) -> tuple[Lazy, str, Pieces] | None:
    """Return an ImageJ hyperstack whose planes lie one after another, but not all of them.

    Of such a file tifffile gives the first plane only.
    """
    said = tif.imagej_metadata or {}
    page = tif.pages.first
    planes = said.get("images", 1)
    if len(tif.pages) > 1 or not isinstance(planes, int) or planes < 2 or not page.is_contiguous:
        return None
    if tif.series[0].shape[:-2] or planes > MOST_PLANES:
        return None
    sizes = [said.get(key, 1) for key in ("frames", "slices", "channels")]
    axes = "".join(a for a, n in zip("TZC", sizes, strict=True) if n > 1) + "YX"
    lead = tuple(n for n in sizes if n > 1)
    if math.prod(lead) != planes:
        axes, lead = "ZYX", (planes,)
    shape = (*lead, *page.shape)
    dtype = np.dtype(page.dtype).newbyteorder(tif.byteorder)
    array = _flat(path, dtype, page.dataoffsets[0], shape, tif.filehandle.size)
    assert isinstance(array, Planes)
    return array, axes, array.pieces(axes)


def _piece_bytes(array: Lazy) -> int:
    """Return how much is read for a single voxel."""
    chunks = getattr(array, "chunks", None)
    return math.prod(chunks) * array.dtype.itemsize if chunks else 0


def ome_metadata(axes: str, voxel_um: VoxelUm, name: str, record: Record | None) -> dict[str, Any]:
    """Return what an OME-TIFF is to say of itself, as tifffile takes it."""
    metadata: dict[str, Any] = {"axes": axes, "Name": name}
    for axis, size in zip("ZYX", voxel_um, strict=True):
        metadata[f"PhysicalSize{axis}"] = size
        metadata[f"PhysicalSize{axis}Unit"] = "µm"
    if record:
        metadata["MapAnnotation"] = {"Namespace": RECORD_NAMESPACE, "record": record.to_json()}
    return metadata


class TiffTarget:
    """One large OME-TIFF, written by boxes: uncompressed, each value at a place of its own.

    Boxes that do not overlap may be written by several processes at once. Nothing is mapped into
    memory: on a full disk that would kill the process, where writing raises an error.

    Parameters
    ----------
    path
        Of a file that :meth:`create` made.
    shape
        (Z, Y, X) of a volume.
    times
        Number of volumes; none where there is no axis of time.
    """

    def __init__(self, path: Path, shape: Shape, times: int | None) -> None:
        self._path, self.shape = path, shape
        self._whole = (times or 1, *shape)
        with tifffile.TiffFile(path) as tif:
            series = tif.series[0]
            assert series.dataoffset is not None
            self._offset, self.dtype = series.dataoffset, series.dtype
            self._stored = self.dtype.newbyteorder(tif.byteorder)

    @classmethod
    def create(
        cls,
        path: Path,
        shape: Shape,
        times: int | None,
        dtype: npt.DTypeLike,
        voxel_um: VoxelUm,
        name: str,
        record: Record,
    ) -> "TiffTarget":
        """Make a file and reserve its place on the disk.

        Parameters
        ----------
        path
            Where.
        shape
            (Z, Y, X) of a volume.
        times
            Number of volumes; no axis of time where none.
        dtype
            Of the values.
        voxel_um
            Voxel size (z, y, x) in micrometres.
        name, record
            What the file is to say of itself.

        Raises
        ------
        OSError
            If the disk is full.
        """
        axes = "ZYX" if times is None else "TZYX"
        tifffile.imwrite(
            path,
            shape=shape if times is None else (times, *shape),
            dtype=dtype,
            bigtiff=True,
            ome=True,
            photometric="minisblack",
            metadata=ome_metadata(axes, voxel_um, name, record),
        )
        if hasattr(os, "posix_fallocate"):  # a file with holes would fill the disk half-way
            with path.open("r+b") as file:
                os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
        return cls(path, shape, times)

    def write(self, box: Box, data: npt.NDArray[Any], time: int = 0) -> None:
        """Write a part of a volume, (z, y, x) of the file's type."""
        stored = np.ascontiguousarray(data, dtype=self._stored)
        planes, rows, columns = box
        _, height, width = self.shape
        size = self._stored.itemsize
        whole_rows = columns == slice(0, width)
        with self._path.open("r+b", buffering=0) as file:
            for z, plane in zip(range(planes.start, planes.stop), stored, strict=True):
                before = (time * self.shape[0] + z) * height
                parts = [plane] if whole_rows else plane
                for y, part in zip(range(rows.start, rows.stop), parts, strict=False):
                    start = (before + y) * width + columns.start
                    file.seek(self._offset + size * start)
                    _write_all(file, part)

    def read(self, box: Box, time: int = 0) -> npt.NDArray[Any]:
        """Return what was written, (z, y, x)."""
        values = np.memmap(self._path, self._stored, "r", self._offset, self._whole)
        return np.array(values[(time, *box)], dtype=self.dtype)


def _write_all(file: Any, data: npt.NDArray[Any]) -> None:
    """Write bytes to a file without a buffer, which may take them bit by bit."""
    left = memoryview(np.ascontiguousarray(data).view(np.uint8).reshape(-1))  # type: ignore[arg-type]
    while left:
        left = left[file.write(left) :]
