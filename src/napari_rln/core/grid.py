"""Images on other voxels: for models that know one voxel size only."""

import numpy as np
from scipy import ndimage

from napari_rln.core.tiles import Shape
from napari_rln.core.volume import FloatArray, Volume, VoxelUm


def resampled_image(image: Volume, voxel_um: VoxelUm) -> Volume:
    """Return an image on voxels (z, y, x) of another size in micrometres, the same corner first."""
    z, y, x = (
        max(1, round(n * v / t))
        for n, v, t in zip(image.shape, image.voxel_um, voxel_um, strict=True)
    )
    return image.with_data(
        on_grid(image.data, image.voxel_um, (z, y, x), voxel_um), voxel_um=voxel_um
    )


def on_grid(data: FloatArray, voxel_um: VoxelUm, shape: Shape, target_um: VoxelUm) -> FloatArray:
    """Return data at the voxels of another grid, linearly interpolated.

    Parameters
    ----------
    data
        (Z, Y, X), light per volume.
    voxel_um, target_um
        Voxel sizes (z, y, x) of the two grids in micrometres; their first corners coincide.
    shape
        (Z, Y, X) of the other grid.
    """
    scale = [t / v for t, v in zip(target_um, voxel_um, strict=True)]
    offset = [(s - 1) / 2 for s in scale]  # from centres of voxels to the corner and back
    found: FloatArray = ndimage.affine_transform(
        data, scale, offset, shape, np.float32, order=1, mode="nearest"
    )
    return found
