"""Reading of volumes from any format, and writing to TIFF, with voxel size and record."""

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import tifffile

from napari_rln.core.errors import RlnError, warn
from napari_rln.core.record import Record
from napari_rln.core.volume import Volume, VoxelUm, check_finite
from napari_rln.io.image import ImageFile, open_image
from napari_rln.io.paths import atomic, check_room, check_tiff_output, is_ome_name, stem
from napari_rln.io.tiff import ome_metadata

OutputType = Literal["float32", "uint16", "uint8"]

IMAGEJ_LIMIT = 2**32 - 2**16
"""Largest TIFF for ImageJ, bytes: it reads classic TIFF only, with 32-bit offsets."""


def read(path: str | Path | ImageFile, **part: Any) -> Volume:
    """Return one volume of a file or folder.

    Formats: TIFF, ImageJ and OME-TIFF, Zeiss LSM, OME-Zarr, Zarr, a folder of TIFF planes, Zeiss
    CZI, Leica LIF, Nikon ND2, Olympus OIB and OIF.

    Parameters
    ----------
    path
        File or folder.
    **part
        Part of the file, as for :class:`napari_rln.io.image.ImagePart`: ``voxel_um``, ``channel``,
        ``time``, ``series``, ``planes_are``, ``missing``, ``crop``.

    Raises
    ------
    RlnError
        If the file is absent, of another format, truncated, RGB, or lacks planes or chunks; if it
        has several channels or time points and none is chosen; if the voxel size is unknown; or if
        the volume does not fit into the memory.

    Warns
    -----
    RlnWarning
        If the voxel size is unlikely, or missing parts are accepted.
    """
    image = open_image(path, **part)
    image.check_one_channel()
    if image.times > 1:
        raise RlnError(
            f"{image.name} has {image.times} entries along time; choose one with "
            f"`time`=0..{image.times - 1}."
        )
    try:
        return image.volume()
    except OSError as error:
        raise RlnError(f"{error}; copy the file again, or save it anew in Fiji.") from error


def write(
    volume: Volume, path: str | Path, *, dtype: OutputType = "float32", replace: bool = True
) -> None:
    """Write a volume with its voxel size and record, atomically.

    A name ending in ``.ome.tif`` or ``.ome.tiff`` makes an OME-TIFF, any other ``.tif`` or
    ``.tiff`` an ImageJ hyperstack; float values keep their scale.

    Parameters
    ----------
    volume
        Volume to write.
    path
        Path of the file; an existing one is replaced only when the new one is complete.
    dtype
        ``uint16`` and ``uint8`` round to the nearest integer and clip to the type's range.
    replace
        Whether an existing file may be replaced.

    Raises
    ------
    RlnError
        If the name, the folder or the free space does not allow it, an existing file may not be
        replaced, or the values are not finite.
    OSError
        If the system fails on the way; no partial file is left.

    Warns
    -----
    RlnWarning
        If voxels are clipped, with their number.
    """
    path = Path(path)
    check_tiff_output(path)
    check_finite(volume.data, volume.name)
    data, low, high = converted(volume.data, dtype)
    if low or high:
        warn(
            f"{low + high} of {data.size} voxels were clipped to {dtype} ({low} below 0, {high} "
            f"above {np.iinfo(dtype).max}); write float32 to keep them."
        )
    check_room(path, data.nbytes)
    ome = is_ome_name(path)
    if not ome and data.nbytes > IMAGEJ_LIMIT:
        raise RlnError(
            f"{path.name} would hold {data.nbytes / 1e9:.1f} GB, more than an ImageJ TIFF can; "
            f"name it {stem(path)}.ome.tif."
        )
    if ome:
        options = _ome_options("ZYX", data.nbytes, volume)
    else:
        limits = float(data.min()), float(data.max())
        options = imagej_options(volume.voxel_um, limits, volume.record)
    with atomic(path, replace=replace) as temporary:
        tifffile.imwrite(temporary, data, **options)


def write_channels(
    volumes: Sequence[Volume],
    path: str | Path,
    *,
    dtype: OutputType = "float32",
    replace: bool = True,
) -> None:
    """Write volumes of one size as the channels of one OME-TIFF, atomically.

    Options and errors are those of :func:`write`; an RlnError is also raised if the sizes differ,
    or the name does not end in ``.ome.tif`` or ``.ome.tiff``.
    """
    path, first = Path(path), volumes[0]
    check_channels_output(path)
    if len({volume.shape for volume in volumes}) > 1:
        raise RlnError("channels of one file need volumes of one size; crop them.")
    shape = len(volumes), *first.shape
    size = math.prod(shape) * np.dtype(dtype).itemsize
    check_room(path, size)
    # Plane by plane, to avoid a second copy of the channels in memory.
    planes = (converted(plane, dtype)[0] for volume in volumes for plane in volume.data)
    records = [volume.record for volume in volumes]
    record = None
    if records[0] is not None:
        each = [None if one is None else one.as_dict() for one in records]
        record = dataclasses.replace(records[0], facts={"channels": each})
    options = _ome_options("CZYX", size, dataclasses.replace(first, name=stem(path), record=record))
    options["metadata"]["Channel"] = {"Name": [volume.name for volume in volumes]}
    with atomic(path, replace=replace) as temporary:
        tifffile.imwrite(temporary, planes, shape=shape, dtype=dtype, **options)


def check_channels_output(path: Path) -> None:
    """Raise an RlnError unless an OME-TIFF of several channels can be written at a path."""
    if not is_ome_name(path):
        raise RlnError(f"{path.name} must end in .ome.tif to hold several channels.")
    check_tiff_output(path)


def converted(
    data: npt.NDArray[np.float32], dtype: OutputType
) -> tuple[npt.NDArray[Any], int, int]:
    """Return values converted to a type, and the numbers clipped below and above.

    ``uint16`` and ``uint8`` round to the nearest integer.
    """
    if dtype == "float32":
        return data, 0, 0
    limits = np.iinfo(dtype)
    rounded = np.rint(data)
    low, high = int((rounded < limits.min).sum()), int((rounded > limits.max).sum())
    return rounded.clip(limits.min, limits.max).astype(dtype), low, high


def _ome_options(axes: str, size: int, volume: Volume) -> dict[str, Any]:
    """Return tifffile's options for an OME-TIFF of ``size`` bytes with a volume's metadata."""
    metadata = ome_metadata(axes, volume.voxel_um, volume.name, volume.record)
    big = size > IMAGEJ_LIMIT
    return {"ome": True, "photometric": "minisblack", "metadata": metadata, "bigtiff": big}


def imagej_options(
    voxel_um: VoxelUm, limits: tuple[float, float], record: Record | None
) -> dict[str, Any]:
    """Return tifffile's options for an ImageJ hyperstack of one volume.

    ``limits`` are the values initially shown black and white.
    """
    z, y, x = voxel_um
    metadata: dict[str, Any] = {
        "axes": "ZYX", "spacing": z, "unit": "um", "min": limits[0], "max": limits[1],
    }  # fmt: skip
    if record:
        metadata["Info"] = record.to_json()
    return {
        "imagej": True,
        "resolution": (_resolution(x), _resolution(y)),
        "metadata": metadata,
    }


def _resolution(size_um: float) -> tuple[int, int]:
    """Return pixels per micrometre as a TIFF rational exact to nine digits."""
    exponent = 9 - max(0, math.ceil(math.log10(size_um)))
    return round(10**exponent), round(size_um * 10**exponent)
