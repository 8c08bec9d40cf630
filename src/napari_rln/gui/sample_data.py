"""Sample data for napari's File > Open Sample."""

from napari_rln import samples
from napari_rln.core.limits import as_dict
from napari_rln.gui.layers import OPTICS, LayerData, layer_data
from napari_rln.psf.compute import compute_psf
from napari_rln.psf.optics import Optics

_SHAPE = (64, 96, 96)
_VOXEL_UM = (0.2, 0.1, 0.1)
_STATED = ("modality", "na", "immersion_index", "wavelength_um")


def bead() -> list[LayerData]:
    """Return the hollow bead and its PSF, which is hidden, as layers."""
    return [
        layer_data(samples.bead_psf(), colormap="magma", visible=False),
        layer_data(samples.bead()),
    ]


def nucleus() -> list[LayerData]:
    """Return widefield and confocal images of a nucleus as layers.

    The widefield one states its optics, as the file of a microscope does. There is no layer of the
    PSF: it has more planes than the image, and would lengthen napari's slider.
    """
    stated = as_dict(samples.NUCLEUS_OPTICS)
    optics = Optics(**{name: stated[name] for name in _STATED})
    return [
        layer_data(samples.nucleus_confocal(), visible=False),
        layer_data(samples.nucleus(), metadata={OPTICS: optics.as_json()}),
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
