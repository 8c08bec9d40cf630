"""Images on disk, read lazily by boxes, of any format and size."""

import contextlib
import dataclasses
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import numpy.typing as npt

from napari_rln.core.errors import RlnError, warn
from napari_rln.core.limits import as_dict, from_dict
from napari_rln.core.machine import available_bytes
from napari_rln.core.tiles import as_text
from napari_rln.core.volume import (
    Box,
    FloatArray,
    Shape,
    Volume,
    VoxelUm,
    check_finite,
    check_voxel_um,
    voxel_um_problem,
)
from napari_rln.io import plane_files, tiff
from napari_rln.io.lazy import Lazy, OpenedImage, Pieces, rgb_error, stamp
from napari_rln.io.paths import is_microscope_name, is_tiff_name, is_zarr, zarr_around
from napari_rln.psf.optics import Optics

Missing = Literal["error", "zero", "mask"]
PlanesAre = Literal["z", "time", "channel"]
Crop = tuple[tuple[int, int], tuple[int, int], tuple[int, int]]
"""Start and stop along z, y and x, in voxels."""

_LABELS = {"C": "channel", "T": "time"}
_MOST_PIECE = 0.25  # fraction of the free memory that reading a single voxel may take


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImagePart:
    """Part of a file to read, and metadata that the file lacks.

    Parameters
    ----------
    voxel_um
        Voxel size z y x in micrometres, where the file does not state it or is wrong.
    channel
        Channel, from 0, of a file with several.
    time
        Time point, from 0, of a file with several; all by default where a result can hold them.
    series
        Image, from 0, of a file with several, such as positions.
    planes_are
        Axis that holds the planes of a stack, in a file without an axis z: time or channel for
        planes that are stored as such, z for single planes.
    missing
        Treatment of planes or chunks that are missing in the file: error, mask (not measured) or
        zero (measured as zeros).
    crop
        Part of the image for a quick try, as Z0:Z1 Y0:Y1 X0:X1 in voxels.
    """

    voxel_um: VoxelUm | None = None
    channel: int | None = None
    time: int | None = None
    series: int | None = None
    planes_are: PlanesAre | None = None
    missing: Missing = "error"
    crop: Crop | None = None

    def of(self, path: str | Path) -> "ImageFile":
        """Return this part of a file."""
        names = (field.name for field in dataclasses.fields(ImagePart))
        return ImageFile(path=str(path), **{name: getattr(self, name) for name in names})


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImageFile(ImagePart):
    """A file or folder and the part of it to read, which other processes can open too.

    Parameters
    ----------
    path
        File or folder; other parameters as for :class:`ImagePart`.
    """

    path: str

    def as_json(self) -> dict[str, Any]:
        """Return the fields that differ from the defaults, in JSON's types."""
        plain = ImageFile(path="")
        fields = as_dict(self).items()
        return {name: value for name, value in fields if value != getattr(plain, name)}

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> Self:
        """Return the file from its JSON fields; raise an RlnError if a field is unknown."""
        return from_dict(cls, fields)


class Image:
    """A lazy image of all or one of its channels and time points, read by boxes.

    Parameters
    ----------
    opened
        The array with its axes and metadata. Axes are letters of T, C, Z, Y and X, in any order;
        others must have the length 1.
    file
        Part of the file to read.

    Attributes
    ----------
    shape : tuple of int
        (Z, Y, X) of a volume.
    axes : str
        Letters of the stored axes: T, C, Z, Y, X.
    channels, times : int
        Number of channels, and of volumes of each.
    timed : bool
        Whether there is a time axis, possibly of length 1.
    fill : float or None
        Value of voxels that are missing on the disk, where there may be any.
    optics : tuple of Optics
        Optics of every channel as the file states them; empty if it states nothing.

    Raises
    ------
    RlnError
        If the image is empty, RGB, of complex values, or parts of it are missing.

    Warns
    -----
    RlnWarning
        If the voxel size is unlikely, or missing parts are accepted.
    """

    def __init__(self, opened: OpenedImage, file: ImageFile) -> None:
        name = Path(file.path).name or opened.name  # in messages
        axes, shape = opened.axes, tuple(int(n) for n in opened.array.shape)
        voxel_um = file.voxel_um or opened.voxel_um
        if voxel_um is None:
            raise RlnError(
                f"{name} does not say its voxel size; give it as z y x in micrometres, for "
                "instance 0.3 0.13 0.13 (`voxel_um`)."
            )
        check_voxel_um(voxel_um, name)
        problem = voxel_um_problem(voxel_um)
        if problem:
            warn(f"{name}: {problem}; if that is wrong, give the size (`voxel_um`).")
        if 0 in shape:
            raise RlnError(f"{name} is empty: its shape is {shape}.")
        if opened.array.dtype.kind not in "buif":
            raise RlnError(f"{name} is of type {opened.array.dtype}; it must be integer or float.")
        axes = _with_planes(axes, shape, file.planes_are)
        sizes = dict(zip(axes, shape, strict=True))
        self._file, self.name, self.record = name, opened.name, opened.record
        self.timed = file.time is None and "T" in axes
        self.channels = sizes.get("C", 1) if file.channel is None else 1
        self.optics = _optics_of(opened, axes, file.channel)
        channel = 0 if self.channels > 1 else file.channel
        chosen = {"C": channel, "T": 0 if self.timed else file.time}
        # Zarr arrays, files of microscopes and results of napari-rln have a reliable time axis.
        is_plain = opened.record is None and not is_microscope_name(Path(file.path))
        if is_plain and opened.pieces is not None and opened.pieces.kind == "planes":
            self._check_planes(sizes, file)
        self._index = volume_index(axes, shape, chosen, name)
        self.axes, self._stored_shape = axes, shape
        self._array = opened.array
        whole: Shape = (sizes.get("Z", 1), sizes.get("Y", 1), sizes["X"])
        self.times = sizes.get("T", 1) if self.timed else 1
        self.dtype = opened.array.dtype
        z, y, x = voxel_um
        self.voxel_um: VoxelUm = (float(z), float(y), float(x))
        self.files = opened.files
        self.fill: float | None = None
        pieces = opened.pieces and dataclasses.replace(opened.pieces, axes=axes)
        planes = self._check_pieces(pieces, file, whole)
        self._offset, self.shape = _cropped(file.crop, (planes, *whole[1:]), name)
        if opened.piece_bytes > _MOST_PIECE * available_bytes():
            raise RlnError(
                f"{name} is stored in pieces of {opened.piece_bytes / 1e9:.1f} GB, more than "
                "fits into the memory; save it with smaller strips, tiles or chunks."
            )

    def _check_planes(self, sizes: dict[str, int], file: ImageFile) -> None:
        """Raise if single planes are stored as times, as some programs do for those of a stack."""
        times = sizes.get("T", 1)
        if self.timed and times > 1 and sizes.get("Z", 1) == 1 and file.planes_are is None:
            raise RlnError(
                f"{self._file} has {times} entries along time, each of one plane. Where these are "
                "the planes of a stack give `planes_are=time`; where they are times, choose one "
                f"(`time`, 0 to {times - 1}), or give `planes_are=z` to take all."
            )

    def _check_pieces(self, pieces: Pieces | None, file: ImageFile, whole: Shape) -> int:
        """Return the number of planes; raise if some are missing without consent.

        Of an acquisition that ended early the planes up to the last one are used.
        """
        if pieces is None:
            return whole[0]
        spans = [slice(None)] * 3 if file.crop is None else [slice(*span) for span in file.crop]
        index = self._index_of(spans, slice(None), slice(None))
        missing = pieces.missing(index)
        if not missing:
            return whole[0]
        what = f"{self._file} lacks {missing}"
        unwritten = ", or they are empty and were never written" * (pieces.kind == "chunks")
        if file.missing == "error":
            raise RlnError(
                f"{what}: a copy or an acquisition ended early{unwritten}. Copy it again, or go "
                "on with `missing=mask` where they were not measured, or `missing=zero` where they "
                "are zeros."
            )
        planes = min(whole[0], pieces.last_plane(index))
        if not planes:
            raise RlnError(f"{what}: nothing is left to read; copy it again.")
        warn(f"{what}; the run continues without.")
        if file.missing == "mask":
            self.fill = 0.0
        if pieces.kind == "chunks":
            self._array = _ZeroWhereMissing(self._array, pieces)
        return planes

    def _index_of(
        self, spans: Iterable[slice], time: int | slice, channel: int | slice
    ) -> tuple[int | slice, ...]:
        """Return the index of spans (z, y, x) at a time point and a channel in the stored array."""
        parts: dict[str, int | slice] = dict(zip("ZYX", spans, strict=True))
        if self.timed:
            parts["T"] = time
        if self.channels > 1:
            parts["C"] = channel
        return tuple(map(parts.get, self.axes, self._index))

    @property
    def voxels(self) -> int:
        """Number of voxels of a volume."""
        return self.shape[0] * self.shape[1] * self.shape[2]

    def stamp(self) -> str:
        """Return a stamp of the image's files, which changes when they do."""
        return stamp(self.files())

    def check_one_channel(self) -> None:
        """Raise an RlnError if there are several channels and none was chosen."""
        if self.channels > 1:
            volume_index(self.axes, self._stored_shape, {"C": None, "T": 0}, self._file)

    def volume(self) -> Volume:
        """Return the first volume, in memory.

        Raises
        ------
        RlnError
            If there are several channels, or the volume does not fit into the memory, or holds NaN
            or infinities.
        OSError
            If the file cannot be read.
        """
        self.check_one_channel()
        needed = self.voxels * (4 + self.dtype.itemsize)
        free = available_bytes()
        if needed > free:
            raise RlnError(
                f"{self._file} is {' x '.join(map(str, self.shape))} voxels and takes "
                f"{needed / 1e9:.4g} GB but {free / 1e9:.4g} GB of memory are free; crop it, or "
                "name an .ome.zarr or .ome.tif as the result, which is written in parts."
            )
        z, y, x = (slice(0, n) for n in self.shape)
        return Volume(
            data=self.read((z, y, x)),
            voxel_um=self.voxel_um,
            name=self.name,
            record=self.record,
            fill=self.fill,
        )

    def read(self, box: Box, time: int = 0, channel: int = 0) -> FloatArray:
        """Return a part of a volume, (z, y, x) float32.

        Parameters
        ----------
        box
            Part (z, y, x) of the volume.
        time, channel
            Time point and channel of the volume, from 0.

        Raises
        ------
        RlnError
            If the part holds NaN or infinities.
        OSError
            If the file cannot be read.
        """
        places = (
            slice(part.start + first, part.stop + first)
            for part, first in zip(box, self._offset, strict=True)
        )
        try:
            values = np.asarray(self._array[self._index_of(places, time, channel)])
        except (MemoryError, OSError, RlnError):
            raise
        except Exception as error:  # codecs and stores can raise anything for a damaged chunk
            raise OSError(f"{self._file} cannot be read at {as_text(box)}: {error}") from error
        stored = "".join(axis for axis in self.axes if axis in "ZYX")
        values = values.transpose([stored.index(axis) for axis in "ZYX" if axis in stored])
        values = values.reshape([part.stop - part.start for part in box])
        with np.errstate(over="ignore"):  # what float32 cannot hold is reported as infinite
            data = np.ascontiguousarray(values, dtype=np.float32)
        if not data.flags.owndata:  # a view of the file, or of another array
            data = data.copy()
        check_finite(data, f"{self.name} at {as_text(box)}")
        return data


class _ZeroWhereMissing:
    """An array whose missing chunks are 0, whatever its fill value.

    They are not read, since some exist as empty files.
    """

    def __init__(self, array: Lazy, pieces: Pieces) -> None:
        self._array, self._pieces = array, pieces
        self.shape, self.dtype = array.shape, array.dtype

    def __getitem__(self, index: Any) -> npt.NDArray[Any]:
        if not self._pieces.missing(index):
            return np.asarray(self._array[index])
        spans = zip(index, self.shape, strict=True)
        sizes = [len(range(*part.indices(n))) for part, n in spans if isinstance(part, slice)]
        values = np.zeros(sizes, self.dtype)
        for stored, within in self._pieces.existing(index):
            values[within] = self._array[stored]
        return values


def _optics_of(opened: OpenedImage, axes: str, channel: int | None) -> tuple[Optics, ...]:
    """Return the optics of the channels, or of a chosen one; ``axes`` are those of the image."""
    if "C" in axes and channel is None:
        return opened.optics
    number = channel or 0  # of planes stored as channels, too
    return opened.optics[number : number + 1]


def _with_planes(axes: str, shape: tuple[int, ...], planes_are: PlanesAre | None) -> str:
    """Return the axes of an array, z being the one with the planes; raise if it has a z as well."""
    letter = {"time": "T", "channel": "C"}.get(planes_are or "")
    if letter is None or letter not in axes:
        return axes
    planes = dict(zip(axes, shape, strict=True)).get("Z", 1)
    if planes > 1:
        raise RlnError(f"it has {planes} planes along z; leave out `planes_are`.")
    return axes.replace("Z", "_").replace(letter, "Z")


def volume_index(
    axes: str, shape: tuple[int, ...], chosen: dict[str, int | None], name: str
) -> tuple[int | slice, ...]:
    """Return the index of a volume in an array: a channel and a time, with all of z, y and x.

    ``chosen`` has the entries along ``"C"`` and ``"T"``, which are needed only where there are
    several. Raise an RlnError if the array is RGB, or such an entry is not chosen or not there.
    """
    if "S" in axes:
        raise rgb_error(name)
    index: list[int | slice] = []
    for axis, length in zip(axes, shape, strict=True):
        if axis in "ZYX":
            index.append(slice(None))
            continue
        label = _LABELS.get(axis, "an axis without a name")
        entry = chosen.get(axis)
        if entry is None:
            if length > 1:
                how = (
                    f"choose one with `{label}`=0..{length - 1}" if axis in _LABELS else "split it"
                )
                if axis == "C" and "Z" not in axes:
                    how += ", or give `planes_are=channel` where these are the planes of a stack"
                raise RlnError(f"{name} has {length} entries along {label}; {how}.")
            entry = 0
        if not 0 <= entry < length:
            raise RlnError(
                f"{name} has {length} entries along {label}; {entry} is not among 0 to "
                f"{length - 1}."
            )
        index.append(entry)
    for axis, label in _LABELS.items():
        if chosen[axis] not in (None, 0) and axis not in axes:
            raise RlnError(f"{name} has one {label} only; {chosen[axis]} is not there.")
    if "X" not in axes or "Y" not in axes:
        raise RlnError(f"{name} has the axes {axes.lower()}; a plane or a stack is needed.")
    return tuple(index)


def _cropped(crop: Crop | None, shape: Shape, name: str) -> tuple[Shape, Shape]:
    """Return the start and the size of a part of a volume; raise if it does not lie within."""
    if crop is None:
        return (0, 0, 0), shape
    if not all(0 <= start < stop <= n for (start, stop), n in zip(crop, shape, strict=True)):
        spans = " ".join(f"{start}:{stop}" for start, stop in crop)
        within = " ".join(f"0:{n}" for n in shape)
        raise RlnError(f"`crop` is {spans} but {name} is {within} (z y x); take a part of that.")
    (z, _), (y, _), (x, _) = crop
    depth, height, width = (stop - start for start, stop in crop)
    return (z, y, x), (depth, height, width)


def open_image(path: str | Path | ImageFile, **part: Any) -> Image:
    """Return a lazy image on disk, of which only the metadata are read.

    TIFF, ImageJ and OME-TIFF (also in several files, or with a companion.ome), Zeiss LSM, OME-Zarr
    (0.1 to 0.6, the finest level), other Zarr arrays, folders of TIFF planes, and the files of
    microscopes: Zeiss CZI, Leica LIF, Nikon ND2, Olympus OIB and OIF.

    Parameters
    ----------
    path
        File or folder.
    **part
        Part of the file, as for :class:`ImagePart`.

    Raises
    ------
    RlnError
        If the file is absent, unreadable or of another kind, parts of it are missing, or its voxel
        size is unknown.
    """
    file = path if isinstance(path, ImageFile) else ImagePart(**part).of(path)
    return Image(open_contents(file.path, file.series), file)


def open_contents(path: str | Path, series: int | None = None) -> OpenedImage:
    """Return the contents of a file or folder, without reading the values or checking a part.

    Raise an RlnError if it is absent, unreadable, of an unknown format, or RGB.
    """
    path = Path(path)
    try:
        if not path.exists():
            raise RlnError(f"there is no file {path}; check the name and the folder.")
        if path.is_file() and is_microscope_name(path):
            from napari_rln.io import microscopes  # which needs XML and codecs

            return microscopes.open_lazily(path, series)
        group = path if is_zarr(path) else None
        if path.is_file() and not is_tiff_name(path):  # possibly a file within a Zarr
            group = zarr_around(path)
        if group is not None:
            # Slow to import, and not needed for TIFF.
            from napari_rln.io import ome_zarr

            return ome_zarr.open_lazily(group)
        if path.is_dir():
            return tiff.open_set(path, series) or plane_files.open_folder(path, series)
        return tiff.open_lazily(path, series)
    except OSError as error:
        raise RlnError(f"{path} cannot be read ({error.strerror or error}).") from error


def files_read(paths: Iterable[Path | None]) -> list[Path]:
    """Return all files to be read, including the other files of sets; None is ignored."""
    files: list[Path] = []
    for path in paths:
        if path is None:
            continue
        files.append(path)
        if is_zarr(path) or zarr_around(path) is not None:  # not listed by its many chunks
            continue
        with contextlib.suppress(RlnError):  # a model or a table
            files += open_contents(path, 0).files()
    return files


def checksum(data: npt.NDArray[Any]) -> str:
    """Return the CRC-32 of values, eight hexadecimal digits, to detect changes."""
    little = np.ascontiguousarray(data, dtype=data.dtype.newbyteorder("<"))
    return f"{zlib.crc32(little.data):08x}"
