"""An ImageJ hyperstack (plain ``.tif``) of a volume that was written in parts.

The display range comes before the values in such a file but is known last. So the parts are written
as an OME-TIFF, which is copied plane by plane at the end.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tifffile

from napari_rln.core.errors import RlnError
from napari_rln.core.record import Record
from napari_rln.core.volume import Shape, VoxelUm
from napari_rln.io.image import Image
from napari_rln.io.paths import atomic, is_ome_name, is_tiff_name, stem
from napari_rln.io.tiff import TiffTarget
from napari_rln.io.volumes import IMAGEJ_LIMIT, imagej_options


def is_plain_name(path: Path) -> bool:
    """Tell whether a name is that of an ImageJ hyperstack."""
    return is_tiff_name(path) and not is_ome_name(path)


def check_plain(out: Path, image: Image, dtype: npt.DTypeLike) -> None:
    """Raise unless an ImageJ hyperstack can hold a result.

    Raises
    ------
    RlnError
        If the result is too large, or a time series.
    """
    if not is_plain_name(out):
        return
    size = image.voxels * np.dtype(dtype).itemsize
    if size > IMAGEJ_LIMIT:
        raise RlnError(
            f"{out.name} would hold {size / 1e9:.1f} GB, more than an ImageJ TIFF can; name it "
            f"{stem(out)}.ome.tif."
        )
    if image.times > 1:
        raise RlnError(
            f"{image.name} has {image.times} time points but {out.name} would hold one volume; "
            f"choose one (`time`), or name the result {stem(out)}.ome.tif."
        )


def write_plain(path: Path, shape: Shape, voxel_um: VoxelUm, record: Record) -> None:
    """Replace an OME-TIFF of one volume by an ImageJ hyperstack, whole or not at all.

    Raises
    ------
    OSError
        If the disk is full.
    """
    target = TiffTarget(path, shape, None)

    def planes() -> Iterator[npt.NDArray[Any]]:
        depth, height, width = target.shape
        for z in range(depth):
            yield target.read((slice(z, z + 1), slice(0, height), slice(0, width)))[0]

    low, high = np.array([(plane.min(), plane.max()) for plane in planes()]).T
    options = imagej_options(voxel_um, (float(low.min()), float(high.max())), record)
    with atomic(path) as temporary:
        tifffile.imwrite(temporary, planes(), shape=target.shape, dtype=target.dtype, **options)
