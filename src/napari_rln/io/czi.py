"""Zeiss CZI by boxes: planes and tiles of a mosaic at full resolution, and the optics.

A file is a chain of segments, of which a directory lists the sub-blocks of pixels with their place
along every axis (published as "CZI file format" by Carl Zeiss). Sub-blocks are decoded one by one.
Tiles of a mosaic lie where the file places them, later ones above earlier ones.
"""

import math
import os
import struct
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple
from xml.etree import ElementTree

import imagecodecs
import numpy as np
import numpy.typing as npt

from napari_rln.core.errors import RlnError, warn
from napari_rln.core.volume import VoxelUm
from napari_rln.io.lazy import MOST_PLANES, OpenedImage, Pieces, choose_image, places_of, rgb_error
from napari_rln.io.metadata import completed
from napari_rln.io.paths import title
from napari_rln.io.stated_optics import (
    channel_name,
    modality_of,
    number,
    optics_of,
    per_channel,
    stated_index,
    um_of_nm,
)
from napari_rln.psf.optics import Optics

_SEGMENT = struct.Struct("<16sqq")  # name, reserved and used size
_FILE = struct.Struct("<ii8x16s16siqqiq")  # after the segment's head
_ENTRY = struct.Struct("<2siqiiB5xi")
_DIMENSION = struct.Struct("<4siifi")
_GREY = {0: "<u1", 1: "<u2", 2: "<f4", 12: "<u4", 13: "<f8"}
_COLOURED = {3, 4, 8, 9}
_RAW, _ZSTD, _PACKED_ZSTD = 0, 5, 6
_DECODE: dict[int, Callable[[bytes], Any]] = {
    1: imagecodecs.jpeg_decode, 2: imagecodecs.lzw_decode, 4: imagecodecs.jpegxr_decode,
    _ZSTD: imagecodecs.zstd_decode,
}  # fmt: skip
_NOT_AXES = "MSB"  # tiles of a mosaic, scenes, blocks


class _Block(NamedTuple):
    """A sub-block: its place in the file, and the start and size along its axes in voxels."""

    position: int
    pixels: int
    compression: int
    start: dict[str, int]
    size: dict[str, int]
    is_fine: bool  # not a coarser level of a pyramid


class SubBlocks:
    """The sub-blocks of one scene as an array of some axes, y and x; what is not there is 0."""

    def __init__(self, path: Path, blocks: Sequence[_Block]) -> None:
        extent = {axis: _extent(blocks, axis) for axis in blocks[0].start if axis not in _NOT_AXES}
        lead = [a for a in "TCZRIHV" if a in extent and (a in "TCZ" or extent[a][1] > 1)]
        self.axes = "".join(lead) + "YX"
        self.shape = tuple(extent[axis][1] for axis in self.axes)
        if math.prod(self.shape[:-2]) > MOST_PLANES:
            raise ValueError(f"it describes {' x '.join(map(str, self.shape))} voxels")
        self.dtype = np.result_type(*{np.dtype(_GREY[block.pixels]) for block in blocks})
        self._path, self._origin = path, {axis: extent[axis][0] for axis in extent}
        self._planes: dict[tuple[int, ...], list[_Block]] = defaultdict(list)
        for block in blocks:
            if any(block.size[axis] != 1 for axis in lead):
                raise RlnError(f"{path.name} stores several planes together; export it again.")
            place = tuple(block.start[axis] - self._origin[axis] for axis in lead)
            self._planes[place].append(block)
        self.chunks = (
            *(1 for _ in lead),
            *(min(max(block.size[axis] for block in blocks), extent[axis][1]) for axis in "YX"),
        )

    def pieces(self) -> Pieces:
        """Return the planes, with the numbers of the existing ones."""
        size = (*(1 for _ in self.shape[:-2]), *self.shape[-2:])
        present = {(*place, 0, 0) for place in self._planes}
        return Pieces(kind="planes", axes=self.axes, shape=self.shape, size=size, present=present)

    @property
    def is_covered(self) -> bool:
        """Whether the tiles of the first plane may cover it."""
        first = next(iter(self._planes.values()))
        return sum(b.size["Y"] * b.size["X"] for b in first) >= math.prod(self.shape[-2:])

    def __getitem__(self, index: tuple[Any, ...]) -> npt.NDArray[Any]:
        *lead, y, x = index
        places, shape = places_of(lead, self.shape[:-2])
        rows, columns = (range(*s.indices(n)) for s, n in zip((y, x), self.shape[-2:], strict=True))
        values = np.zeros((len(places), len(rows), len(columns)), self.dtype)
        with self._path.open("rb") as file:
            for plane, place in zip(values, places, strict=True):
                for block in self._planes.get(place, ()):
                    self._paste(file, block, plane, (rows, columns))
        return values.reshape(*shape, len(rows), len(columns))

    def _paste(
        self, file: BinaryIO, block: _Block, plane: npt.NDArray[Any], spans: tuple[range, range]
    ) -> None:
        """Write the part of a sub-block that lies in the spans (y, x) into their plane."""
        inside, outside = [], []
        for axis, span in zip("YX", spans, strict=True):
            first = block.start[axis] - self._origin[axis]
            start, stop = max(first, span.start), min(first + block.size[axis], span.stop)
            if stop <= start:
                return
            inside.append(slice(start - first, stop - first))
            outside.append(slice(start - span.start, stop - span.start))
        plane[tuple(outside)] = _decoded(file, block)[tuple(inside)]


def open_lazily(path: Path, series: int | None = None) -> OpenedImage:
    """Return a scene of a CZI; its only one if ``series`` is None.

    Raise an RlnError if it is RGB, or one of several and none is chosen; a ValueError, OSError or
    another error of Python where the file is damaged.
    """
    with path.open("rb") as file:
        end = file.seek(0, 2)
        directory, described = _places(file)
        blocks = [block for block in _directory(file, directory, end) if block.is_fine]
        root = ElementTree.fromstring(_metadata(file, described))
    if any(block.pixels in _COLOURED for block in blocks):
        raise rgb_error(path.name)
    if any(block.pixels not in _GREY for block in blocks):
        raise ValueError("its values are neither integers nor real numbers")
    scenes: dict[int, list[_Block]] = defaultdict(list)
    for block in blocks:
        scenes[block.start.get("S", 0)].append(block)
    arrays = [SubBlocks(path, scenes[scene]) for scene in sorted(scenes)]
    sizes = [" x ".join(map(str, array.shape)) for array in arrays]
    array = arrays[choose_image(sizes, series, path.name)]
    if not array.is_covered:
        warn(
            f"the tiles of {path.name} leave parts of the field empty, which are read as zeros; "
            "take a part without (`crop`)."
        )
    lengths = dict(zip(array.axes, array.shape, strict=True))
    return OpenedImage(
        array,
        array.axes,
        _voxel_um(root, lengths.get("Z", 1)),
        title(path),
        pieces=array.pieces(),
        files=lambda: (path,),
        piece_bytes=math.prod(array.chunks) * array.dtype.itemsize,
        images=len(arrays),
        optics=per_channel(_optics(root), lengths.get("C", 1)),
    )


def _places(file: BinaryIO) -> tuple[int, int]:
    """Return the places in a file of the directory and of the metadata."""
    file.seek(0)
    name, _, _ = _SEGMENT.unpack(file.read(_SEGMENT.size))
    if not name.startswith(b"ZISRAWFILE"):
        raise ValueError("it does not begin as a CZI")
    _, _, _, _, part, directory, metadata, pending, _ = _FILE.unpack(file.read(_FILE.size))
    if part:
        raise ValueError("it is one of several parts of an image")
    if pending or not directory or not metadata:
        raise ValueError("the acquisition or the copy did not end")
    return directory, metadata


def _segment(file: BinaryIO, position: int, kind: bytes) -> None:
    """Go to the content of a segment at a place in a file."""
    file.seek(position)
    name, _, _ = _SEGMENT.unpack(file.read(_SEGMENT.size))
    if not name.startswith(kind):
        raise ValueError(f"it has no {kind.decode()} where it should be")


def _directory(file: BinaryIO, position: int, end: int) -> Iterator[_Block]:
    """Yield the sub-blocks that lie before the end of a file."""
    _segment(file, position, b"ZISRAWDIRECTORY")
    (count,) = struct.unpack("<i124x", file.read(128))
    if not 0 < count <= MOST_PLANES:
        raise ValueError(f"it lists {count} parts")
    for _ in range(count):
        block = _entry(file)
        if block.position < end:
            yield block


def _entry(file: BinaryIO) -> _Block:
    kind, pixels, position, _, compression, _, dimensions = _ENTRY.unpack(file.read(_ENTRY.size))
    if kind != b"DV" or not 2 <= dimensions <= 40:
        raise ValueError("its directory is damaged")
    start, size, is_fine = {}, {}, True
    for _ in range(dimensions):
        name, first, length, _, stored = _DIMENSION.unpack(file.read(_DIMENSION.size))
        axis = name.rstrip(b"\0").decode()
        if length < 1 or stored < 0:
            raise ValueError("its directory is damaged")
        start[axis], size[axis] = first, length
        is_fine &= axis not in "XY" or stored in (0, length)
    return _Block(position, pixels, compression, start, size, is_fine)


def _metadata(file: BinaryIO, position: int) -> bytes:
    _segment(file, position, b"ZISRAWMETADATA")
    (size,) = struct.unpack("<i252x", file.read(256))
    return file.read(size)


def _extent(blocks: Sequence[_Block], axis: str) -> tuple[int, int]:
    """Return the start and the length of all sub-blocks along an axis."""
    first = min(block.start[axis] for block in blocks)
    return first, max(block.start[axis] + block.size[axis] for block in blocks) - first


def _decoded(file: BinaryIO, block: _Block) -> npt.NDArray[Any]:
    """Return the values of a sub-block, (Y, X)."""
    _segment(file, block.position, b"ZISRAWSUBBLOCK")
    begin = file.tell()
    metadata, _, size = struct.unpack("<iiq", file.read(16))
    entry = _ENTRY.size + _DIMENSION.size * len(block.start)
    file.seek(begin + 16 + max(240, entry) + metadata)
    if not 0 <= size <= os.fstat(file.fileno()).st_size - file.tell():
        raise OSError("the file ends within a plane; copy it again")
    data = file.read(size)
    dtype, shape = np.dtype(_GREY[block.pixels]), (block.size["Y"], block.size["X"])
    if block.compression == _PACKED_ZSTD:
        values = _unpacked(data, dtype)
    elif block.compression in _DECODE:
        values = _DECODE[block.compression](data)
    elif block.compression == _RAW:
        values = data
    else:
        raise OSError(f"its compression {block.compression} is not known; save it uncompressed")
    if isinstance(values, np.ndarray):  # of codecs of images
        return values.reshape(shape)
    return np.frombuffer(values, dtype, count=math.prod(shape)).reshape(shape)


def _unpacked(data: bytes, dtype: np.dtype[Any]) -> bytes:
    """Return values that ZEN compressed, mostly with all low bytes before all high bytes."""
    head = data[0]
    plain = bytes(imagecodecs.zstd_decode(data[head:]))
    if head < 3 or data[1] != 1 or not data[2] & 1 or dtype.itemsize != 2:
        return plain
    half = len(plain) // 2
    low, high = (np.frombuffer(plain, np.uint8, half, offset) for offset in (0, half))
    return np.stack([low, high], axis=1).tobytes()


def _voxel_um(root: ElementTree.Element, planes: int) -> VoxelUm | None:
    """Return the voxel size (z, y, x) that the metadata state in metres."""
    sizes = {
        item.get("Id"): number(item.findtext("Value"))
        for item in root.iterfind("Metadata/Scaling/Items/Distance")
    }
    return completed(
        [round(1e6 * abs(n), 9) if (n := sizes.get(a)) else None for a in "ZYX"], planes
    )


def _optics(root: ElementTree.Element) -> list[Optics]:
    """Return the optics of every channel."""
    information = root.find("Metadata/Information")
    if information is None:
        return []
    settings = information.find("Image/ObjectiveSettings")
    settings = ElementTree.Element("none") if settings is None else settings
    used = settings.find("ObjectiveRef")
    objectives = information.findall("Instrument/Objectives/Objective")
    named = [o for o in objectives if used is not None and o.get("Id") == used.get("Id")]
    objective = next(iter(named or objectives[:1]), ElementTree.Element("none"))
    shown = {c.get("Id"): c for c in root.iterfind("Metadata/DisplaySetting/Channels/Channel")}
    found = []
    for channel in information.iterfind("Image/Dimensions/Channels/Channel"):
        pinhole = channel.findtext("PinholeSizeAiry")
        modality = modality_of(channel.findtext("AcquisitionMode"), pinhole)
        display = shown.get(channel.get("Id"), channel)
        medium = objective.findtext("Immersion") or settings.findtext("Medium")
        found.append(
            optics_of(
                modality=modality,
                na=objective.findtext("LensNA"),
                immersion_index=stated_index(settings.findtext("RefractiveIndex"), medium),
                wavelength_um=um_of_nm(channel.findtext("EmissionWavelength")),
                excitation_um=um_of_nm(channel.findtext("ExcitationWavelength")),
                pinhole_au=pinhole if modality == "confocal" else None,
                objective=objective.get("Name") or objective.findtext("Manufacturer/Model"),
                channel=channel_name(
                    channel.findtext("Fluor"), display.findtext("DyeName"), channel.get("Name")
                ),
            )
        )
    return found
