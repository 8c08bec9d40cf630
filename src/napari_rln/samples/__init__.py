"""The shipped sample: a hollow fluorescent bead, widefield, with its PSF (see NOTICE)."""

from importlib.resources import as_file, files

from napari_rln.io import read_volume
from napari_rln.volume import Volume, VoxelUm

# The data set states cubic voxels but not their size; this one gives the pictures a scale.
NOMINAL_VOXEL_UM: VoxelUm = (0.1, 0.1, 0.1)


def bead() -> Volume:
    """Return the image of the hollow bead, (64, 64, 64), voxel size nominal."""
    return _read("bead.tif")


def bead_psf() -> Volume:
    """Return the PSF that goes with the bead, (64, 64, 64), as published: its sum is not 1."""
    return _read("bead_psf.tif")


def _read(name: str) -> Volume:
    with as_file(files("napari_rln.samples") / name) as path:
        return read_volume(path, voxel_um=NOMINAL_VOXEL_UM)
