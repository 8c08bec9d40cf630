"""Sample data: a hollow bead with its PSF, and a nucleus, widefield and confocal (see NOTICE)."""

from importlib.resources import as_file, files

import numpy as np

from napari_rln.core.volume import Volume, VoxelUm
from napari_rln.io.volumes import read
from napari_rln.psf.compute import compute_psf
from napari_rln.psf.microscope import MicroscopeSettings

# The bead's data set states cubic voxels but not their size; a nominal size provides a scale.
NOMINAL_VOXEL_UM: VoxelUm = (0.1, 0.1, 0.1)

NUCLEUS_OPTICS = MicroscopeSettings(na=1.2, immersion_index=1.333, wavelength_um=0.455)
"""Optics of the widefield image of the nucleus: C-Apochromat 40x, water."""

_SHIFT = (-2, 0, 4)  # voxels (z, y, x): shift of the confocal image relative to the widefield one


def bead() -> Volume:
    """Return the image of the hollow bead, (64, 64, 64), nominal voxel size."""
    return _read("bead.tif", NOMINAL_VOXEL_UM)


def bead_psf() -> Volume:
    """Return the published PSF of the bead's image, (64, 64, 64), its sum not 1."""
    return _read("bead_psf.tif", NOMINAL_VOXEL_UM)


def nucleus() -> Volume:
    """Return the widefield image of a nucleus, (45, 130, 133), in counts including the offset."""
    return _read("nucleus.tif")


def nucleus_psf() -> Volume:
    """Return the computed PSF of the widefield image."""
    image = nucleus()
    return compute_psf(NUCLEUS_OPTICS, image.voxel_um, planes=image.shape[0])


def nucleus_confocal() -> Volume:
    """Return the confocal image of the same nucleus, aligned with the widefield one.

    Shifted by whole voxels; borders are filled with the nearest plane.
    """
    image = _read("nucleus_confocal.tif")
    data = np.pad(image.data, [(abs(n), abs(n)) for n in _SHIFT], mode="edge")
    inner = tuple(
        slice(abs(m) - m, abs(m) - m + n) for m, n in zip(_SHIFT, image.shape, strict=True)
    )
    return image.with_data(data[inner])


def _read(name: str, voxel_um: VoxelUm | None = None) -> Volume:
    with as_file(files("napari_rln.samples") / name) as path:
        return read(path, voxel_um=voxel_um)
