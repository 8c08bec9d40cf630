"""TIFF by boxes: reading of TIFF files, and writing of one large OME-TIFF.

Contiguous values are mapped into memory. Compressed or tiled ones are read strip by strip or tile
by tile. Planes that are described but missing are detected before anything is read.
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
from napari_rln.core.volume import Box, Shape, VoxelUm
from napari_rln.io.lazy import MOST_PLANES, Lazy, OpenedImage, Pieces, choose_image, rgb_error
from napari_rln.io.metadata import (
    RECORD_NAMESPACE,
    files_named,
    images_in,
    read_record,
    read_voxel_um,
)
from napari_rln.io.paths import title
from napari_rln.io.plane_files import PlaneLocation, Planes, is_companion, open_companion, tiffs_in
from napari_rln.io.tiff_optics import read_optics

# The errors here replace the log messages of tifffile, which would be printed without a handler.
logging.getLogger("tifffile").addHandler(logging.NullHandler())

# Tags: width, length, bits, compression, predictor, size of tiles, format of the values.
_LAYOUT = frozenset({256, 257, 258, 259, 317, 322, 323, 339})
_MANAGER = {"Z": "Slices", "C": "Channels", "T": "Frames"}  # Micro-Manager's names of the axes
_ZEROS_BYTES = 100_000_000  # at most examined behind the last plane


def open_lazily(path: Path, series: int | None = None, folder: bool = False) -> OpenedImage:
    """Return an image of a TIFF, or of the set of files that it, or a companion.ome, belongs to.

    The only image if ``series`` is None. With ``folder`` all images of the set in the folder are
    numbered, rather than those in the file. Raise an RlnError if the file is not a TIFF, RGB, or
    damaged, or holds several images and none is chosen.
    """
    if is_companion(path):
        return open_companion(path, series)
    try:
        tif = tifffile.TiffFile(path)
        try:
            companion = _companion_of(tif, path)
            opened = (
                open_companion(companion, series, path)
                if companion
                else _opened(tif, series, path, folder)
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
        if "not a TIFF" in str(error):
            raise RlnError(
                f"{path.name} is not a TIFF file, though it is named like one; copy it again, or "
                "export the image as TIFF from the program that made it."
            ) from error
        raise RlnError(
            f"{path.name} cannot be read as TIFF ({error}); it may be cut short or of another "
            "format: open and save it again in Fiji."
        ) from error
    if isinstance(opened.array, np.memmap | Planes):
        tif.close()
    else:  # strips and tiles are read from the open file
        weakref.finalize(opened.array, tif.close)
    return opened


def open_set(folder: Path, series: int | None = None) -> OpenedImage | None:
    """Return the image of a folder with a set of OME-TIFFs; None of another folder."""
    files = tiffs_in(folder)
    if len(files) < 2:
        return None
    try:
        with tifffile.TiffFile(files[0]) as tif:
            named = files_named(tif.ome_metadata or "")
    except Exception:  # reported where it is read
        return None
    among = len(named & {file.name for file in files}) > 1
    return open_lazily(files[0], series, folder=True) if among else None


def _opened(tif: tifffile.TiffFile, requested: int | None, path: Path, folder: bool) -> OpenedImage:
    _check_described(tif, path.name)
    own = _images_of(tif, folder)
    if len(own) > 1 and _names_more(tif):
        raise _mixed(path.name)
    sizes = [" x ".join(map(str, tif.series[number].shape)) for number in own]
    chosen = choose_image(sizes, requested, path.name)
    number = own[chosen]
    series = tif.series[number]
    if "S" in series.axes:
        raise rgb_error(path.name)
    truncated = _cut_hyperstack(tif, path) if number == 0 else None
    if truncated is None:
        _check_planes(tif, series, path.name)
        array, axes = _array(series), named_axes(series.axes, series.shape)
        pieces = _pieces(tif, series, axes)
    else:
        array, axes, pieces = truncated
    lengths = dict(zip(axes, array.shape, strict=True))
    described = _described_as(tif, own, chosen, path, folder)
    files = sorted(
        {path, *(Path(page.parent.filehandle.path) for page in series.pages if page is not None)}
    )
    return OpenedImage(
        array,
        axes,
        read_voxel_um(tif, described, lengths.get("Z", 1)),
        title(path),
        read_record(tif),
        pieces,
        lambda: files,
        math.prod(getattr(array, "chunks", None) or [0]) * array.dtype.itemsize,
        images=len(own),
        optics=read_optics(tif, described, lengths.get("C", 1)),
    )


def _images_of(tif: tifffile.TiffFile, folder: bool) -> list[int]:
    """Return the numbers of the images with planes in a file, or in its folder.

    A set of files may hold several images, each in files of its own. Thumbnails do not count.
    """
    numbers = [
        number
        for number, series in enumerate(tif.series)
        if not (series.keyframe is not None and series.keyframe.is_reduced)
    ]
    own = [
        number
        for number in numbers
        if any(page is not None and page.parent is tif for page in tif.series[number].pages)
    ]
    return numbers if folder or not own else own


def _described_as(
    tif: tifffile.TiffFile, own: Sequence[int], chosen: int, path: Path, folder: bool
) -> int:
    """Return the number in the OME metadata of an image of a file.

    Images without existing files are described there, but omitted by tifffile.
    """
    names = {file.name for file in path.parent.iterdir()} if folder else {path.name}
    described = images_in(tif.ome_metadata or "", names)
    return described[chosen] if len(described) == len(own) else own[chosen]


def _check_planes(tif: tifffile.TiffFile, series: tifffile.TiffPageSeries, name: str) -> None:
    """Raise an RlnError unless all planes are stored as the first, which tifffile assumes.

    Warn if there are more planes than described.
    """
    pages_of = {each: [page for page in each.pages if page is not None] for each in tif.series}
    in_one_file = all(page.parent is tif for pages in pages_of.values() for page in pages)
    more = len(tif.pages) - sum(map(len, pages_of.values()))
    if in_one_file and more > 0 and series.kind in ("ome", "imagej") and len(series.pages) > 1:
        warn(f"{name} contains {more} planes more than it describes; they are ignored.")
    stored = [page for page in pages_of[series] if page.parent is tif]
    if len(stored) > 1 and len({_layout(page) for page in stored}) > 1:
        raise _mixed(name)


def _layout(page: Any) -> bytes:
    """Return the raw tags that define the storage of a plane."""
    order = f"{page.parent.tiff.byteorder}H"
    return b"".join(tag for tag in _tags(page) if struct.unpack(order, tag[:2])[0] in _LAYOUT)


def _tags(page: Any) -> list[bytes]:
    """Return the raw tags of a plane, also where the file ends among them."""
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
    """Return the existing file that describes a TIFF's set; None if the TIFF describes itself."""
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


def _check_described(tif: tifffile.TiffFile, name: str) -> None:
    """Raise if a file describes impossibly many planes, before tifffile lists them."""
    for pixels in re.findall(r"<(?:\w+:)?Pixels\b[^>]*>", tif.ome_metadata or ""):
        sizes = re.findall(r'\bSize[ZCT]="(\d+)"', pixels)
        if math.prod(map(int, sizes)) > MOST_PLANES:
            raise RlnError(
                f"{name} describes {' x '.join(sizes)} planes, more than any file has; its "
                "metadata are damaged: copy it again."
            )


def named_axes(axes: str, shape: Sequence[int]) -> str:
    """Return axes with the unnamed one (Q or I), of a stack without metadata, renamed to z.

    Unnamed axes of length 1 are ignored.
    """
    unnamed = [at for at, axis in enumerate(axes) if axis in "QI"]
    several = [at for at in unnamed if shape[at] > 1] or unnamed[-1:]
    if "Z" in axes or len(several) != 1:
        return axes
    return "".join("Z" if at == several[0] else axis for at, axis in enumerate(axes))


def _array(series: tifffile.TiffPageSeries) -> Lazy:
    """Return an image of an open file without reading it."""
    if series.dataoffset is not None:  # contiguous values
        holder = series.keyframe.parent  # may be another file by OME metadata
        dtype, file = series.dtype.newbyteorder(holder.byteorder), holder.filehandle
        if series.dataoffset + series.nbytes <= file.size:
            return np.memmap(
                file.path, dtype, mode="r", offset=series.dataoffset, shape=series.shape
            )
        return _flat(Path(file.path), dtype, series.dataoffset, series.shape, file.size)
    import zarr  # slow to import, and not needed for most files

    array: Lazy = zarr.open_array(series.aszarr(level=0), mode="r")
    return array


def _flat(path: Path, dtype: np.dtype[Any], offset: int, shape: tuple[int, ...], end: int) -> Lazy:
    """Return an array of contiguous planes in a file, up to its end."""
    *lead, height, width = shape
    each = height * width * dtype.itemsize
    parts = [
        PlaneLocation(path, offset=offset + number * each)
        if offset + (number + 1) * each <= end
        else None
        for number in range(math.prod(lead))
    ]
    return Planes(parts, tuple(lead), (height, width), dtype)


def _pieces(tif: tifffile.TiffFile, series: tifffile.TiffPageSeries, axes: str) -> Pieces:
    """Return the described planes of an image, with those that exist."""
    *lead, height, width = series.shape
    grid = list(itertools.product(*map(range, lead)))
    if series.dataoffset is not None:
        each = height * width * series.dtype.itemsize
        end = series.keyframe.parent.filehandle.size - series.dataoffset
        stored = [(number + 1) * each <= end for number in range(len(grid))]
    else:
        stored = [page is not None and _is_whole(page) for page in series.pages]
        if len(stored) != len(grid):  # a page holds several planes
            stored = [all(stored)] * len(grid)
    described = _sizes_of(tif, series, axes)
    more = _names_more(tif) or any(axis not in axes and n > 1 for axis, n in described.items())
    shape = tuple(
        max(n, described.get(axis, 1)) for axis, n in zip(axes, series.shape, strict=True)
    )
    return Pieces(
        kind="planes",
        axes=axes,
        shape=shape,
        size=(*(1 for _ in lead), height, width),
        present={
            (*where, 0, 0) for where, is_stored in zip(grid, stored, strict=True) if is_stored
        },
        is_incomplete=more,
    )


def _sizes_of(tif: tifffile.TiffFile, series: tifffile.TiffPageSeries, axes: str) -> dict[str, int]:
    """Return the described numbers of planes, channels and times of a file."""
    sizes: dict[str, Any] = {}
    if tif.is_micromanager:
        summary = (tif.micromanager_metadata or {}).get("Summary") or {}
        sizes = {axis: summary.get(key) for axis, key in _MANAGER.items()}
    elif tif.is_imagej and series.kind != "imagej":  # a truncated one is read as pages without axes
        sizes = {"Z": (tif.imagej_metadata or {}).get("images")}
    return {axis: n for axis, n in sizes.items() if isinstance(n, int) and 1 < n <= MOST_PLANES}


def _is_whole(page: Any) -> bool:
    """Tell whether a page locates its data, and the file contains them."""
    ends = list(zip(page.dataoffsets, page.databytecounts, strict=True))
    size = page.parent.filehandle.size
    return bool(ends) and all(offset > 0 and offset + count <= size for offset, count in ends)


def _names_more(tif: tifffile.TiffFile) -> bool:
    """Tell whether the last plane refers to another one, as in a file truncated between planes.

    Also where the other one exists but is empty, as in a copy of reserved length, and where that
    copy ended just before the reference, so that only zeros follow.
    """
    form, file = tif.tiff, tif.filehandle
    link = tif.pages.next_page_offset
    if link is None:
        return False
    codes = [tag[:2] for tag in _tags(tif.pages[len(tif.pages) - 1])]
    if not codes or bytes(2) in codes:
        return True
    file.seek(link)
    reference = file.read(form.offsetsize)
    if len(reference) < form.offsetsize or struct.unpack(form.offsetformat, reference)[0] != 0:
        return True
    return _zeros_follow(tif, link + form.offsetsize)


def _zeros_follow(tif: tifffile.TiffFile, end: int) -> bool:
    """Tell whether at least half a plane of zeros follows the described content of a file.

    ``end`` is the end of its last list of tags, bytes.
    """
    last = tif.pages[len(tif.pages) - 1].aspage()
    pages: list[tifffile.TiffPage | tifffile.TiffFrame] = [last]
    joined = []
    for series in tif.series:
        if series.dataoffset is None:
            pages += [page for page in series.pages if page is not None and page.parent is tif]
        else:  # contiguous: reading the tags of each plane would take long
            joined.append(series.dataoffset + series.nbytes)
    values = (tag.valueoffset + tag.valuebytecount for tag in last.tags)
    parts = (zip(page.dataoffsets, page.databytecounts, strict=False) for page in pages)
    ends = (offset + count for offset, count in itertools.chain.from_iterable(parts))
    end = max(end, *ends, *joined, *values)
    planes = [sum(page.databytecounts) for page in pages]
    if not 0 < min(planes) / 2 <= tif.filehandle.size - end:
        return False
    tif.filehandle.seek(end)
    return not any(tif.filehandle.read(min(max(planes), _ZEROS_BYTES)))


def _cut_hyperstack(tif: tifffile.TiffFile, path: Path) -> tuple[Lazy, str, Pieces] | None:
    """Return an ImageJ hyperstack of contiguous planes, of which some are missing.

    Of such a file tifffile returns the first plane only.
    """
    metadata = tif.imagej_metadata or {}
    page = tif.pages.first
    planes = metadata.get("images", 1)
    if len(tif.pages) > 1 or not isinstance(planes, int) or planes < 2 or not page.is_contiguous:
        return None
    if tif.series[0].shape[:-2] or planes > MOST_PLANES:
        return None
    sizes = [metadata.get(key, 1) for key in ("frames", "slices", "channels")]
    axes = "".join(a for a, n in zip("TZC", sizes, strict=True) if n > 1) + "YX"
    lead = tuple(n for n in sizes if n > 1)
    if math.prod(lead) != planes:
        axes, lead = "ZYX", (planes,)
    shape = (*lead, *page.shape)
    dtype = np.dtype(page.dtype).newbyteorder(tif.byteorder)
    array = _flat(path, dtype, page.dataoffsets[0], shape, tif.filehandle.size)
    assert isinstance(array, Planes)
    return array, axes, array.pieces(axes)


def ome_metadata(axes: str, voxel_um: VoxelUm, name: str, record: Record | None) -> dict[str, Any]:
    """Return the metadata of an OME-TIFF, as tifffile takes them."""
    metadata: dict[str, Any] = {"axes": axes, "Name": name}
    for axis, size in zip("ZYX", voxel_um, strict=True):
        metadata[f"PhysicalSize{axis}"] = size
        metadata[f"PhysicalSize{axis}Unit"] = "µm"
    if record:
        metadata["MapAnnotation"] = {"Namespace": RECORD_NAMESPACE, "record": record.to_json()}
    return metadata


class TiffTarget:
    """One large OME-TIFF, written by boxes: uncompressed, each value at a fixed place.

    Boxes that do not overlap may be written by several processes at once. Nothing is mapped into
    memory: on a full disk that would kill the process, where writing raises an error. The file is
    made by :meth:`create`, for a number of volumes of a shape (Z, Y, X).
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
        """Make a file and reserve its space on the disk; raise an OSError if the disk is full."""
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
        if hasattr(os, "posix_fallocate"):  # a sparse file could fill the disk during the run
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
        with self._path.open("r+b") as file:
            for z, plane in zip(range(planes.start, planes.stop), stored, strict=True):
                before = (time * self.shape[0] + z) * height
                parts = [plane] if whole_rows else plane
                for y, part in zip(range(rows.start, rows.stop), parts, strict=False):
                    start = (before + y) * width + columns.start
                    file.seek(self._offset + size * start)
                    file.write(np.ascontiguousarray(part).data)

    def read(self, box: Box, time: int = 0) -> npt.NDArray[Any]:
        """Return a written part of a volume, (z, y, x)."""
        values = np.memmap(self._path, self._stored, "r", self._offset, self._whole)
        return np.array(values[(time, *box)], dtype=self.dtype)
