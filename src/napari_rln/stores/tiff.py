"""TIFF by boxes: reading what lies in a file or a folder of planes, writing one large OME-TIFF.

Values that lie one after another are mapped into memory. Compressed or tiled ones are read strip by
strip or tile by tile.
"""

import os
import re
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tifffile
import zarr

from napari_rln.errors import RlnError
from napari_rln.io import (
    image_series,
    mapped,
    named_axes,
    ome_metadata,
    stem,
    warn_if_cut_short,
)
from napari_rln.metadata import read_record, read_voxel_um
from napari_rln.record import Record
from napari_rln.stores.lazy import Held, Lazy
from napari_rln.tiles import Box, Shape
from napari_rln.volume import VoxelUm

_NAMES = (".tif", ".tiff")


def open_lazily(path: Path, series: int = 0, planes: int | None = None) -> Held:
    """Return what a TIFF holds.

    Parameters
    ----------
    path
        The file.
    series
        Which of its images, from 0.
    planes
        How many there are of it elsewhere and here together; as many as it holds when none.

    Raises
    ------
    RlnError
        If it is no TIFF, or cut short.

    Warns
    -----
    RlnWarning
        If the file names further planes that it does not hold.
    """
    try:
        tif = tifffile.TiffFile(path)
        try:
            held = _held(tif, series, path, planes)
        except BaseException:
            tif.close()
            raise
    except RlnError:
        raise
    except Exception as error:  # a damaged file can make the parser raise anything
        raise RlnError(
            f"{path.name} cannot be read as TIFF ({error}); it may be cut short or of another "
            "format: open and save it again in Fiji."
        ) from error
    if isinstance(held.array, np.memmap):
        tif.close()
    else:  # strips and tiles are read from the open file
        weakref.finalize(held.array, tif.close)
    return held


def _held(tif: tifffile.TiffFile, number: int, path: Path, planes: int | None) -> Held:
    series = image_series(tif, number, path.name)
    warn_if_cut_short(tif, path.name)
    axes = named_axes(series.axes)
    planes = planes or dict(zip(axes, series.shape, strict=True)).get("Z", 1)
    try:
        voxel_um = read_voxel_um(tif, number, planes, path.name)
    except RlnError:  # whoever asked may know it
        voxel_um = None
    return Held(_array(series), axes, voxel_um, stem(path), read_record(tif))


def open_folder(path: Path) -> Held:
    """Return the stack whose planes are the TIFFs of a folder, in the order of their numbers.

    Raises
    ------
    RlnError
        If there are none, or they are not planes of one size and type.
    """
    files = [f for f in path.iterdir() if f.suffix.lower() in _NAMES and f.name[0] != "."]
    files.sort(key=_natural)
    if not files:
        raise RlnError(f"{path} holds no .tif or .tiff and is no Zarr; name a file, or such one.")
    # Of a plane alone it does not matter how far the next one is; here it does.
    first = open_lazily(files[0], planes=len(files) + 1)
    planes = _Planes(files, _squeezed(first.array.shape), first.array.dtype)
    return Held(planes, "ZYX", first.voxel_um, path.name)


class _Planes:
    """Planes in files of their own, as one array (Z, Y, X)."""

    def __init__(self, files: list[Path], shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        if len(shape) != 2:
            raise RlnError(
                f"{files[0].name} is of shape {shape}, no plane; a folder is read as one stack of "
                "planes: name one of its files to read that."
            )
        self._files, self.shape, self.dtype = files, (len(files), *shape), dtype

    def __getitem__(self, index: tuple[slice, slice, slice]) -> npt.NDArray[Any]:
        planes, y, x = index
        files = self._files[planes]
        parts = []
        for file in files:
            with tifffile.TiffFile(file) as tif:
                array = _array(tif.series[0])
                if array.dtype != self.dtype or _squeezed(array.shape) != self.shape[1:]:
                    raise RlnError(
                        f"{file.name} is {array.dtype} {_squeezed(array.shape)} but the first "
                        f"plane {self.dtype} {self.shape[1:]}; planes of a stack are alike."
                    )
                lead = (0,) * (len(array.shape) - 2)
                parts.append(np.array(array[(*lead, y, x)]))
        return np.stack(parts)


def _squeezed(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(n for n in shape[:-2] if n != 1) + tuple(shape[-2:])


def _natural(path: Path) -> list[int | str]:
    """Return a key by which plane 10 comes after plane 9."""
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", path.name)]


def _array(series: tifffile.TiffPageSeries) -> Lazy:
    """Return an image of an open file without reading it."""
    whole = mapped(series)
    if whole is not None:
        return whole
    return zarr.open_array(series.aszarr(level=0), mode="r")


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
