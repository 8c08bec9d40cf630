"""Sample data for napari's File > Open Sample."""

from napari_rln import samples
from napari_rln.gui.layers import LayerData, layer_data


def bead() -> list[LayerData]:
    """Return the hollow bead as a layer."""
    return [layer_data(samples.bead(), colormap="magma")]


def bead_psf() -> list[LayerData]:
    """Return the hollow bead's PSF as a layer."""
    return [layer_data(samples.bead_psf(), colormap="magma")]
