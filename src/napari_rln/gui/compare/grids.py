"""Results and images on common voxels."""

from napari_rln.core.grid import on_grid
from napari_rln.core.volume import Volume
from napari_rln.gui.layers import LayerImage


def on_voxels_of(image: Volume, result: Volume) -> Volume:
    """Return a result on the voxels of its image; that of two views may have finer ones."""
    if result.shape == image.shape:
        return result
    data = on_grid(result.data, result.voxel_um, image.shape, image.voxel_um)
    return result.with_data(data, voxel_um=image.voxel_um)


def crop_like(image: LayerImage, source: LayerImage) -> LayerImage:
    """Return the part of a volume that an image covers, which may be a region."""
    return source.cropped(image.box) if image.box and source.shape != image.shape else source
