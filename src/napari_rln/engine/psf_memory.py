"""Memory for a PSF on the voxels of an image, checked before either is read."""

from napari_rln.core.device import resolve_device
from napari_rln.core.machine import Allowance, MemoryGb
from napari_rln.core.volume import OnGrid, shape_on
from napari_rln.deconvolution.method import Method
from napari_rln.psf.resampling import check_preparation


def check_psf_memory(
    psf: OnGrid, image: OnGrid, method: Method, memory_gb: MemoryGb = "auto"
) -> None:
    """Raise unless there is memory for preparing a PSF and for transforming the smallest tile.

    Parameters
    ----------
    psf
        Unprepared PSF; its values are not read.
    image
        Image to deconvolve; its values are not read.
    method
        Method of the deconvolution.
    memory_gb
        Memory limit of this process, GB; auto is all that is free.

    Raises
    ------
    RlnError
        If the memory does not suffice.
    """
    z, y, x = shape_on(psf, image.voxel_um)
    if image.shape[0] == 1:  # only the PSF's middle plane is used
        z = 1
    least, stage = 0, method.tiles
    if stage is not None and resolve_device(method.device).type == "cpu":
        least = stage.memory_bytes((1, 1, 1), (z, y, x))
    left = None
    if memory_gb != "auto":
        left = Allowance(memory_gb).left_bytes
        if left <= 0:  # the run refuses a limit that the program alone exceeds, whatever the PSF
            left = int(memory_gb * 1e9)
    check_preparation(psf, image.voxel_um, least_bytes=least, left_bytes=left)
