"""Layers as the files that a job reads."""

from pathlib import Path

from napari.layers import Layer

from napari_rln.core.errors import RlnError
from napari_rln.engine.job import PsfFile
from napari_rln.gui.layers import CHANNEL, LayerImage
from napari_rln.io.image import ImageFile

_TIMES, _CHANNELS = ("t", "time"), ("c", "channel")


def image_file(image: LayerImage) -> ImageFile:
    """Return what a job reads to have an image as it is seen: file, voxels, which part.

    Raises
    ------
    RlnError
        If no job can read that.
    """
    channel, time = image.layer.metadata.get(CHANNEL), None
    for label, i in image.at.items():
        if label.lower() in _CHANNELS:
            channel = i
        elif label.lower() in _TIMES or len(image.at) == 1:
            time = i
        else:
            raise RlnError(
                f"{image.layer.name} has an axis {label}; a job reads channels (c) and time "
                "points (t) of a file: call the axes so, or save what is seen."
            )
    return ImageFile(
        path=str(path_of(image.layer)), voxel_um=image.voxel_um, channel=channel, time=time
    )


def psf_file(psf: LayerImage, *, repair: bool) -> PsfFile:
    """Return what a job reads to have a PSF.

    Raises
    ------
    RlnError
        If it is one of several in a layer.
    """
    if psf.at or CHANNEL in psf.layer.metadata:
        raise RlnError(
            f"{psf.name} is one of several volumes in its file; a job reads a PSF from a file of "
            "its own: save it first."
        )
    file = ImageFile(path=str(path_of(psf.layer)), voxel_um=psf.voxel_um)
    return PsfFile(file=file, repair=repair)


def path_of(layer: Layer) -> Path:
    """Return the file that a layer was read from; of others the name that it could have."""
    if layer.source.path:
        return Path(layer.source.path)
    data = layer.data[0] if getattr(layer, "multiscale", False) else layer.data
    # A Zarr array that was added as it is.
    root = getattr(getattr(data, "store", None), "root", None)
    return Path(root, data.path) if root else Path(f"{layer.name}.tif")
