"""The PSF of a microscope on the voxels of an image."""

from napari_rln.core.volume import Volume
from napari_rln.gui.layers import LayerImage
from napari_rln.psf.compute import compute_psf
from napari_rln.psf.microscope import MicroscopeSettings


def psf_for(image: LayerImage, settings: MicroscopeSettings) -> Volume:
    """Return the PSF on an image's voxels and for its depth, named as its microscope.

    It takes seconds: call it in a worker thread. Raises :class:`RlnError` if the pixels are not
    square.
    """
    planes = image.shape[0]
    return compute_psf(settings, image.voxel_um, planes=planes, name=name_of(settings))


def name_of(settings: MicroscopeSettings) -> str:
    """Return the name of a microscope's PSF."""
    if settings.modality == "gaussian":
        return "PSF gaussian"
    return f"PSF {settings.modality} NA {settings.na:g}"
