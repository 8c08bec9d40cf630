"""Sample data for napari's File > Open Sample."""

from napari_rln import samples
from napari_rln.gui.layers import LayerData, layer_data
from napari_rln.psf.compute import compute_psf

_SHAPE = (64, 96, 96)
_VOXEL_UM = (0.2, 0.1, 0.1)


def bead() -> list[LayerData]:
    """Return the hollow bead and its PSF, which is hidden, as layers."""
    return [
        layer_data(samples.bead_psf(), colormap="magma", visible=False),
        layer_data(samples.bead()),
    ]


def nucleus() -> list[LayerData]:
    """Return widefield and confocal images of a nucleus, and the widefield PSF, as layers."""
    return [
        layer_data(samples.nucleus_psf(), colormap="magma", visible=False),
        layer_data(samples.nucleus_confocal(), visible=False),
        layer_data(samples.nucleus()),
    ]


def synthetic() -> list[LayerData]:
    """Return a widefield PSF, synthetic objects and their image; always the same."""
    # Imports torch, which the other samples do not need.
    from napari_rln.psf.microscope import MicroscopeSettings
    from napari_rln.simulate.imaging import ImagingSettings, simulate_pair
    from napari_rln.simulate.structures import StructureSettings

    optics = MicroscopeSettings(na=1.2, immersion_index=1.33, size=(63, 63, 63))
    psf = compute_psf(optics, _VOXEL_UM, name="synthetic PSF")
    structures = StructureSettings(structures=("filaments", "shells", "dots"), at_once=0)
    imaging = ImagingSettings(photons=(300, 300), background=(0.1, 0.1), read_noise=(1, 1))
    pair = simulate_pair(psf, structures, imaging, shape=_SHAPE, seed=3, name="synthetic")
    return [
        layer_data(psf, colormap="magma", visible=False),
        layer_data(pair.truth, visible=False),
        layer_data(pair.image),
    ]
