"""Resampling of images to another voxel size, or to the grid of another image."""

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from napari_rln.core.volume import Float64Array, FloatArray, Shape, Volume, VoxelUm


def resampled_image(image: Volume, voxel_um: VoxelUm) -> Volume:
    """Return an image resampled to a voxel size (z, y, x) in micrometres, with the same corner."""
    z, y, x = (
        max(1, round(n * v / t))
        for n, v, t in zip(image.shape, image.voxel_um, voxel_um, strict=True)
    )
    return image.with_data(
        on_grid(image.data, image.voxel_um, (z, y, x), voxel_um), voxel_um=voxel_um
    )


def on_grid(data: FloatArray, voxel_um: VoxelUm, shape: Shape, target_um: VoxelUm) -> FloatArray:
    """Return data (Z, Y, X), light per volume, resampled to a shape by linear interpolation.

    The first corners of the two grids coincide; their voxel sizes (z, y, x) are in micrometres.
    """
    scale = [t / v for t, v in zip(target_um, voxel_um, strict=True)]
    offset = [(s - 1) / 2 for s in scale]  # from voxel centres to the corner and back
    resampled: FloatArray = ndimage.affine_transform(
        data, scale, offset, shape, np.float32, order=1, mode="nearest"
    )
    return resampled


def size_um(volume: Volume) -> Float64Array:
    """Return the size of a field (z, y, x) in micrometres."""
    return np.multiply(volume.shape, volume.voxel_um)


def translation(shift_um: npt.ArrayLike) -> Float64Array:
    """Return the 4 x 4 matrix of a shift (z, y, x)."""
    matrix = np.eye(4)
    matrix[:3, 3] = shift_um
    return matrix


def resample_onto(reference: Volume, image: Volume, matrix: Float64Array) -> FloatArray:
    """Return a reference resampled to an image's voxels by linear interpolation, NaN outside.

    The matrix, 4 x 4 for (z, y, x, 1), maps micrometres of the image to micrometres of the
    reference, both from the first corner.
    """
    linear, shift = matrix[:3, :3], matrix[:3, 3]
    voxel_um = np.array(reference.voxel_um)
    resampled: FloatArray = ndimage.affine_transform(
        reference.data,
        linear * image.voxel_um / voxel_um[:, None],
        (linear @ np.divide(image.voxel_um, 2) + shift) / voxel_um - 0.5,
        image.shape,
        np.float32,
        order=1,
        cval=np.nan,
    )
    return resampled
