"""Volumes from and to TIFF, ImageJ hyperstacks and OME-TIFF, with voxel size and record."""

import contextlib
import math
import os
import shutil
import struct
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import tifffile

from napari_rln.errors import RlnError, warn
from napari_rln.metadata import RECORD_NAMESPACE, read_record, read_voxel_um
from napari_rln.record import Record
from napari_rln.volume import Volume, VoxelUm, check_finite

OutputType = Literal["float32", "uint16", "uint8"]

_LABELS = {"C": "channel", "T": "time"}
_IMAGEJ_LIMIT = 2**32 - 2**16  # ImageJ reads classic TIFF only, with 32-bit offsets


def read_volume(
    path: str | Path,
    *,
    voxel_um: VoxelUm | None = None,
    channel: int | None = None,
    time: int | None = None,
    series: int = 0,
) -> Volume:
    """Return one volume of a TIFF, ImageJ or OME-TIFF file.

    Parameters
    ----------
    path
        The file.
    voxel_um
        Voxel size (z, y, x) in micrometres; overrides what the file says.
    channel, time
        Which channel and time point, counted from 0; needed only where there are several.
    series
        Which image of a file with several, counted from 0.

    Raises
    ------
    RlnError
        If the file is absent, is no TIFF or is cut short; if it is RGB; if it has several channels
        or time points and none is chosen; if neither the file nor the caller gives a voxel size.

    Warns
    -----
    RlnWarning
        If the file names further planes that it does not hold.
    """
    path = Path(path)
    if not path.is_file():
        raise RlnError(f"there is no file {path}; check the name and the folder.")
    try:
        with tifffile.TiffFile(path) as tif:
            data = _select(tif, series, {"C": channel, "T": time}, path)
            warn_if_cut_short(tif, path.name)
            record = read_record(tif)
            if voxel_um is None:
                planes = 1 if data.ndim == 2 else len(data)
                voxel_um = read_voxel_um(tif, series, planes, path.name)
    except RlnError:
        raise
    except MemoryError as error:
        raise RlnError(
            f"{path.name} does not fit into this machine's memory ({error}); crop it."
        ) from error
    except Exception as error:  # a damaged file can make the parser and the codecs raise anything
        raise RlnError(
            f"{path.name} cannot be read as TIFF ({error}); it may be cut short or of another "
            "format: open and save it again in Fiji."
        ) from error
    return Volume.from_array(data, voxel_um, name=stem(path), record=record)


class Contents(NamedTuple):
    """What a file holds: channels, time points, and its voxel size where it states one."""

    channels: int
    times: int
    voxel_um: VoxelUm | None


def contents(path: str | Path, series: int = 0) -> Contents:
    """Return what a TIFF holds, without reading it.

    Raises
    ------
    RlnError
        If it is absent, no TIFF, or RGB.
    """
    name = Path(path).name
    try:
        with tifffile.TiffFile(path) as tif:
            held = tif.series[series]
            sizes = dict(zip(held.axes, held.shape, strict=True))
            volume_index(held.axes, held.shape, {"C": 0, "T": 0}, name)  # raises for RGB
            try:
                voxel_um = read_voxel_um(tif, series, sizes.get("Z", 1), name)
            except RlnError:
                voxel_um = None
    except RlnError:
        raise
    except Exception as error:  # as for read_volume
        raise RlnError(f"{name} cannot be read as TIFF ({error}).") from error
    return Contents(sizes.get("C", 1), sizes.get("T", 1), voxel_um)


def write_volume(volume: Volume, path: str | Path, *, dtype: OutputType = "float32") -> None:
    """Write a volume with its voxel size and record, whole or not at all.

    A name ending in ``.ome.tif`` or ``.ome.tiff`` makes an OME-TIFF, any other ``.tif`` or
    ``.tiff`` an ImageJ hyperstack; float values keep their scale.

    Parameters
    ----------
    volume
        What to write.
    path
        Where; an existing file is replaced only when the new one is complete.
    dtype
        ``uint16`` and ``uint8`` round to the nearest integer and clip to the type's range.

    Raises
    ------
    RlnError
        If the name, the folder or the free space does not allow it, or the values are not finite.
    OSError
        If the system fails on the way; then nothing is left.

    Warns
    -----
    RlnWarning
        With the number of voxels that were clipped.
    """
    path = Path(path)
    check_writable(path)
    check_finite(volume.data, volume.name)
    data, low, high = converted(volume.data, dtype)
    if low or high:
        warn(
            f"{low + high} of {data.size} voxels were clipped to {dtype} ({low} below 0, {high} "
            f"above {np.iinfo(dtype).max}); write float32 to keep them."
        )
    free = shutil.disk_usage(path.parent).free
    if data.nbytes > free:
        raise RlnError(
            f"{path.name} needs {data.nbytes / 1e9:.2f} GB but {free / 1e9:.2f} GB are free in "
            f"{path.parent}; make room or name another folder."
        )
    ome = is_ome_name(path)
    if not ome and data.nbytes > _IMAGEJ_LIMIT:
        raise RlnError(
            f"{path.name} would hold {data.nbytes / 1e9:.1f} GB, more than an ImageJ TIFF can; "
            f"name it {stem(path)}.ome.tif."
        )
    write = _write_ome if ome else _write_imagej
    with atomic(path) as temporary:
        write(temporary, data, volume)


def check_writable(path: str | Path) -> None:
    """Raise unless a TIFF can be written at a path; to be called before the long work.

    Raises
    ------
    RlnError
        If the ending is not a TIFF's, or the folder is absent or not writable.
    """
    path = Path(path)
    if path.suffix.lower() not in (".tif", ".tiff"):
        raise RlnError(f"{path.name} must end in .tif, .tiff, .ome.tif or .ome.tiff.")
    if path.is_dir():
        raise RlnError(f"{path} is a folder; name a file in it.")
    check_folder(path)


def check_folder(path: Path) -> None:
    """Raise unless a file can be made at a path.

    Raises
    ------
    RlnError
        If its folder is absent or not writable.
    """
    if not path.parent.is_dir():
        raise RlnError(f"there is no folder {path.parent}; make it first.")
    if not os.access(path.parent, os.W_OK):
        raise RlnError(f"{path.parent} is not writable; name another folder.")


@contextlib.contextmanager
def atomic(path: str | Path) -> Iterator[Path]:
    """Give a temporary name beside a path, renamed to it when the block ends without an error.

    The ending stays, so that writers that look at it behave. On any error, Ctrl-C included,
    the temporary file is removed and the old file is untouched.
    """
    path = Path(path)
    temporary = path.with_name(f".{uuid.uuid4().hex[:8]}-{path.name}")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def is_ome_name(path: Path) -> bool:
    """Tell whether a file name asks for OME-TIFF."""
    return path.name.lower().endswith((".ome.tif", ".ome.tiff"))


def stem(path: Path) -> str:
    """Return the name of a file or Zarr folder without its ending."""
    return path.stem[: -len(".ome")] if path.stem.lower().endswith(".ome") else path.stem


def _select(
    tif: tifffile.TiffFile, number: int, chosen: dict[str, int | None], path: Path
) -> npt.NDArray[Any]:
    """Return the (Z, Y, X) or (Y, X) part of a series at the chosen channel and time."""
    series = image_series(tif, number, path.name)
    index = volume_index(series.axes, series.shape, chosen, path.name)
    whole = mapped(series)
    if whole is not None:  # read no more than the chosen volume
        return np.array(whole[index])
    selected: npt.NDArray[Any] = series.asarray()[index]
    return selected


def image_series(tif: tifffile.TiffFile, number: int, name: str) -> tifffile.TiffPageSeries:
    """Return one of the images of an open file.

    Raises
    ------
    RlnError
        If there is none of that number.
    """
    if not 0 <= number < len(tif.series):
        raise RlnError(
            f"{name} has {len(tif.series)} images; {number} is not among 0 to "
            f"{len(tif.series) - 1}."
        )
    return tif.series[number]


def mapped(series: tifffile.TiffPageSeries) -> npt.NDArray[Any] | None:
    """Return an image whose values lie one after another, mapped into memory; else none."""
    if series.dataoffset is None:
        return None
    holder = series.keyframe.parent  # another file than this one where OME metadata say so
    dtype, file = series.dtype.newbyteorder(holder.byteorder), holder.filehandle.path
    return np.memmap(file, dtype, mode="r", offset=series.dataoffset, shape=series.shape)


def named_axes(axes: str) -> str:
    """Return axes with the unnamed one (Q or I), of a stack without metadata, taken for z."""
    if "Z" not in axes and sum(axes.count(c) for c in "QI") == 1:
        axes = axes.replace("Q", "Z").replace("I", "Z")
    return axes


def volume_index(
    axes: str, shape: tuple[int, ...], chosen: dict[str, int | None], name: str
) -> tuple[int | slice, ...]:
    """Return the index of a volume in an array: a channel and a time, with all of z, y and x.

    Parameters
    ----------
    axes, shape
        Of the array; letters as tifffile has them.
    chosen
        The entries along ``"C"`` and ``"T"``; needed only where there are several.
    name
        What to call it in messages.

    Raises
    ------
    RlnError
        If it is RGB, or what is to be chosen is not, or not there.
    """
    if "S" in axes:
        raise RlnError(f"{name} is an RGB image; convert it to grey values or split its channels.")
    axes = named_axes(axes)
    index: list[int | slice] = []
    for axis, length in zip(axes, shape, strict=True):
        if axis in "ZYX":
            index.append(slice(None))
            continue
        label = _LABELS.get(axis, axis)
        wanted = chosen.get(axis)
        if wanted is None:
            if length > 1:
                how = f"choose one with {label}=0..{length - 1}" if axis in _LABELS else "split it"
                if "Z" not in axes:  # as ImageJ takes the planes of a plain TIFF for times
                    how += ", or if these are the planes of a stack, make them z in Fiji"
                raise RlnError(f"{name} has {length} entries along {label}; {how}.")
            wanted = 0
        if not 0 <= wanted < length:
            raise RlnError(
                f"{name} has {length} entries along {label}; {wanted} is not among 0 to "
                f"{length - 1}."
            )
        index.append(wanted)
    for axis, label in _LABELS.items():
        if chosen[axis] not in (None, 0) and axis not in axes:
            raise RlnError(f"{name} has one {label} only; {chosen[axis]} is not there.")
    return tuple(index)


def warn_if_cut_short(tif: tifffile.TiffFile, name: str) -> None:
    """Warn if the last plane names another one: a cut file of whole planes looks whole else."""
    link = tif.pages.next_page_offset
    if link is None:
        return
    tif.filehandle.seek(link)
    (following,) = struct.unpack(tif.tiff.offsetformat, tif.filehandle.read(tif.tiff.offsetsize))
    if following:
        warn(
            f"{name} seems to be cut short: it names more planes than the {len(tif.pages)} that it "
            "holds; copy it again.",
            stacklevel=3,
        )


def converted(
    data: npt.NDArray[np.float32], dtype: OutputType
) -> tuple[npt.NDArray[Any], int, int]:
    """Return values as they are written, and how many were clipped below and above.

    ``uint16`` and ``uint8`` round to the nearest integer.
    """
    if dtype == "float32":
        return data, 0, 0
    limits = np.iinfo(dtype)
    rounded = np.rint(data)
    low, high = int((rounded < limits.min).sum()), int((rounded > limits.max).sum())
    return rounded.clip(limits.min, limits.max).astype(dtype), low, high


def ome_metadata(axes: str, voxel_um: VoxelUm, name: str, record: Record | None) -> dict[str, Any]:
    """Return what an OME-TIFF is to say of itself, as tifffile takes it."""
    metadata: dict[str, Any] = {"axes": axes, "Name": name}
    for axis, size in zip("ZYX", voxel_um, strict=True):
        metadata[f"PhysicalSize{axis}"] = size
        metadata[f"PhysicalSize{axis}Unit"] = "µm"
    if record:
        metadata["MapAnnotation"] = {"Namespace": RECORD_NAMESPACE, "record": record.to_json()}
    return metadata


def _write_ome(path: Path, data: npt.NDArray[Any], volume: Volume) -> None:
    metadata = ome_metadata("ZYX", volume.voxel_um, volume.name, volume.record)
    tifffile.imwrite(
        path, data, ome=True, photometric="minisblack", metadata=metadata,
        bigtiff=data.nbytes > _IMAGEJ_LIMIT,
    )  # fmt: skip


def _write_imagej(path: Path, data: npt.NDArray[Any], volume: Volume) -> None:
    z, y, x = volume.voxel_um
    metadata: dict[str, Any] = {
        "axes": "ZYX", "spacing": z, "unit": "um",
        "min": float(data.min()), "max": float(data.max()),
    }  # fmt: skip
    if volume.record:
        metadata["Info"] = volume.record.to_json()
    tifffile.imwrite(
        path, data, imagej=True, resolution=(_resolution(x), _resolution(y)), metadata=metadata
    )


def _resolution(size_um: float) -> tuple[int, int]:
    """Return pixels per micrometre as a TIFF rational exact to nine digits."""
    exponent = 9 - max(0, math.ceil(math.log10(size_um)))
    return round(10**exponent), round(size_um * 10**exponent)
