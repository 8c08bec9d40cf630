"""The shipped samples: a hollow bead with its PSF, and a nucleus taken twice (see NOTICE)."""

from importlib.resources import as_file, files

import numpy as np

from napari_rln.core.volume import Volume, VoxelUm
from napari_rln.io.volumes import read_volume
from napari_rln.psf.compute import compute_psf
from napari_rln.psf.microscope import MicroscopeSettings

# The bead's data set states cubic voxels but not their size; this one gives the pictures a scale.
NOMINAL_VOXEL_UM: VoxelUm = (0.1, 0.1, 0.1)

NUCLEUS_OPTICS = MicroscopeSettings(na=1.2, immersion_index=1.333, wavelength_um=0.455)
"""With which the nucleus was taken by the camera: C-Apochromat 40x, water."""

_MOVED = (-2, 0, 4)  # voxels (z, y, x) by which the confocal image lies beside the camera's


def bead() -> Volume:
    """Return the image of the hollow bead, (64, 64, 64), voxel size nominal."""
    return _read("bead.tif", NOMINAL_VOXEL_UM)


def bead_psf() -> Volume:
    """Return the PSF that goes with the bead, (64, 64, 64), as published: its sum is not 1."""
    return _read("bead_psf.tif", NOMINAL_VOXEL_UM)


def nucleus() -> Volume:
    """Return the widefield image of a nucleus, (45, 130, 133), counts with the camera's offset."""
    return _read("nucleus.tif")


def nucleus_psf() -> Volume:
    """Return the PSF of the widefield image, computed."""
    image = nucleus()
    return compute_psf(NUCLEUS_OPTICS, image.voxel_um, planes=image.shape[0])


def nucleus_confocal() -> Volume:
    """Return the confocal image of the same nucleus, moved onto the widefield one.

    By whole voxels; what is moved in at the sides is the nearest plane there was.
    """
    image = _read("nucleus_confocal.tif")
    data = np.pad(image.data, [(abs(n), abs(n)) for n in _MOVED], mode="edge")
    inner = tuple(
        slice(abs(m) - m, abs(m) - m + n) for m, n in zip(_MOVED, image.shape, strict=True)
    )
    return image.with_data(data[inner])


def _read(name: str, voxel_um: VoxelUm | None = None) -> Volume:
    with as_file(files("napari_rln.samples") / name) as path:
        return read_volume(path, voxel_um=voxel_um)
