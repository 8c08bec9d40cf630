"""Reading a volume by boxes, whatever it lies in and however large it is."""

import dataclasses
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_rln.errors import RlnError
from napari_rln.io import volume_index
from napari_rln.record import Record
from napari_rln.stores import ngff, tiff
from napari_rln.stores.lazy import Held, Lazy
from napari_rln.tiles import Box, Shape, as_text
from napari_rln.volume import FloatArray, VoxelUm, check_finite, check_voxel_um


@dataclasses.dataclass(frozen=True, kw_only=True)
class Origin:
    """What a source is opened from: small, so that other processes can open it too.

    Attributes
    ----------
    path
        File or folder.
    voxel_um
        Voxel size (z, y, x) in micrometres, where the file does not say it or is wrong.
    channel
        Which channel, from 0, where there are several.
    time
        Which time point, from 0; all of them when none.
    series
        Which image of a file with several, from 0.
    """

    path: str
    voxel_um: VoxelUm | None = None
    channel: int | None = None
    time: int | None = None
    series: int = 0


class Source:
    """One channel of an image, all or one of its time points, read by boxes.

    Parameters
    ----------
    array
        Of any number of axes.
    axes
        A letter for each, of T, C, Z, Y and X; others must have the length 1.
    voxel_um
        Voxel size (z, y, x) in micrometres.
    name
        What to call it in messages and results.
    channel, time
        As in :class:`Origin`.
    record
        How it was made, where that is known.

    Attributes
    ----------
    shape : tuple of int
        (Z, Y, X) of a volume.
    times : int
        Number of volumes.
    timed : bool
        Whether it has an axis of time: of one volume there may still be one.

    Raises
    ------
    RlnError
        If it is empty, RGB, of complex values, or has several channels and none is chosen.
    """

    def __init__(
        self,
        array: Lazy,
        axes: str,
        voxel_um: VoxelUm,
        *,
        name: str = "image",
        channel: int | None = None,
        time: int | None = None,
        record: Record | None = None,
    ) -> None:
        axes, shape = axes.upper(), tuple(int(n) for n in array.shape)
        sizes = dict(zip(axes, shape, strict=True))
        check_voxel_um(voxel_um, name)
        if 0 in shape:
            raise RlnError(f"{name} is empty: its shape is {shape}.")
        if array.dtype.kind not in "buif":
            raise RlnError(f"{name} is of type {array.dtype}; it must be integer or float.")
        self.timed = time is None and "T" in axes
        chosen = {"C": channel, "T": 0 if self.timed else time}
        self._index = volume_index(axes, shape, chosen, name)
        self._array, self._time_axis = array, axes.find("T")
        space = [n for n, i in zip(shape, self._index, strict=True) if isinstance(i, slice)]
        self._plane = len(space) == 2
        z, y, x = [1, *space] if self._plane else space
        self.shape: Shape = (z, y, x)
        self.times = sizes.get("T", 1) if self.timed else 1
        self.dtype, self.voxel_um, self.name, self.record = array.dtype, voxel_um, name, record

    @property
    def voxels(self) -> int:
        """Of a volume."""
        return self.shape[0] * self.shape[1] * self.shape[2]

    def read(self, box: Box, time: int = 0) -> FloatArray:
        """Return a part of a volume, (z, y, x) float32.

        Raises
        ------
        RlnError
            If it holds NaN or infinities.
        OSError
            If it cannot be read.
        """
        index: list[Any] = list(self._index)
        if self.timed:
            index[self._time_axis] = time
        space = iter(box[1:] if self._plane else box)
        where = tuple(next(space) if isinstance(part, slice) else part for part in index)
        try:
            found = np.asarray(self._array[where])
        except (MemoryError, OSError, RlnError):
            raise
        except Exception as error:  # codecs and stores can raise anything for a damaged chunk
            raise OSError(f"{self.name} cannot be read at {as_text(box)}: {error}") from error
        if self._plane:
            found = found[None]
        with np.errstate(over="ignore"):  # what float32 cannot hold is reported as infinite
            data = np.ascontiguousarray(found, dtype=np.float32)
        if not data.flags.owndata:  # a view of the file, or of somebody's array
            data = data.copy()
        check_finite(data, f"{self.name} at {as_text(box)}")
        return data


def open_source(origin: Origin) -> Source:
    """Return an image on disk, of which nothing is read yet but what it says of itself.

    OME-Zarr (0.4 and 0.5, the finest level), other Zarr arrays, TIFF, ImageJ and OME-TIFF, and
    folders of TIFF planes.

    Raises
    ------
    RlnError
        If there is none, it cannot be read or is of another kind, or its voxel size is not known.
    """
    held = _held(origin)
    voxel_um = origin.voxel_um or held.voxel_um
    if voxel_um is None:
        raise RlnError(
            f"{Path(origin.path).name} does not say its voxel size; give it as z y x in "
            "micrometres, for instance 0.3 0.13 0.13 (--voxel-um)."
        )
    return Source(
        held.array,
        held.axes,
        voxel_um,
        name=held.name,
        channel=origin.channel,
        time=origin.time,
        record=held.record,
    )


def channel_count(origin: Origin) -> int:
    """Return how many channels an image on disk has.

    Raises
    ------
    RlnError
        As :func:`open_source`.
    """
    held = _held(origin)
    return dict(zip(held.axes, held.array.shape, strict=True)).get("C", 1)


def _held(origin: Origin) -> Held:
    """Return what lies at a place."""
    path = Path(origin.path)
    if not path.exists():
        raise RlnError(f"there is no file {path}; check the name and the folder.")
    if path.is_file():
        return tiff.open_lazily(path, origin.series)
    return ngff.open_lazily(path) if ngff.is_zarr(path) else tiff.open_folder(path)


def checksum(data: npt.NDArray[Any]) -> str:
    """Return eight hexadecimal digits that tell whether values are still what was written."""
    little = np.ascontiguousarray(data, dtype=data.dtype.newbyteorder("<"))
    return f"{zlib.crc32(little.data):08x}"
