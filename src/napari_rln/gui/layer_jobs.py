"""Conversion of layers to the files that a job reads."""

from pathlib import Path

from napari.layers import Layer

from napari_rln.core.errors import RlnError
from napari_rln.engine.job import PsfFile
from napari_rln.gui.layers import CHANNEL, CHANNELS, SAVED, SERIES, TIMES, LayerImage
from napari_rln.io.image import ImageFile


def image_file(image: LayerImage) -> ImageFile:
    """Return the file of an image, with voxel size, channel and time point.

    Raises :class:`RlnError` if the layer has axes other than channel and time.
    """
    channel, time = image.layer.metadata.get(CHANNEL), None
    for label, i in image.indices.items():
        if label.lower() in CHANNELS:
            channel = i
        elif label.lower() in TIMES or len(image.indices) == 1:
            time = i
        else:
            raise RlnError(
                f"{image.layer.name} has an axis {label}; a job reads channels (c) and time "
                "points (t) of a file: rename the axes, or save the displayed volume."
            )
    return ImageFile(
        path=str(path_of(image.layer)),
        voxel_um=image.voxel_um,
        channel=channel,
        time=time,
        series=image.layer.metadata.get(SERIES),
    )


def psf_file(psf: LayerImage, *, repair: bool) -> PsfFile:
    """Return the file of a PSF.

    Raises :class:`RlnError` if it is one of several volumes of a layer.
    """
    facts = psf.layer.metadata
    if psf.indices or (CHANNEL in facts and SAVED not in facts):
        raise RlnError(
            f"{psf.name} is one of several volumes in its file; a job reads a PSF from a file of "
            "its own: save it first."
        )
    file = ImageFile(path=str(path_of(psf.layer)), voxel_um=psf.voxel_um)
    return PsfFile(file=file, repair=repair)


def path_of(layer: Layer) -> Path:
    """Return the file that a layer was saved in or read from, or else a file name for it."""
    if SAVED in layer.metadata:
        return Path(layer.metadata[SAVED])
    if layer.source.path:
        return Path(layer.source.path)
    data = layer.data[0] if getattr(layer, "multiscale", False) else layer.data
    root = getattr(getattr(data, "store", None), "root", None)  # of a Zarr array
    return Path(root, data.path) if root else Path(f"{layer.name}.tif")
