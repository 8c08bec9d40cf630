"""A prepared view: an image with what a deconvolution needs to know of it."""

from dataclasses import dataclass

from napari_rln.core.volume import Mask, Shape, Volume
from napari_rln.deconvolution.calibration import Calibration
from napari_rln.deconvolution.stopping import SplitPhotons


@dataclass(frozen=True, kw_only=True, eq=False)
class PreparedView:
    """One view of the object: image, PSF, calibration and mask.

    Attributes
    ----------
    image, psf
        Validated image and PSF; the PSF is none for a method without one.
    calibration
        Camera, background and noise of the image.
    mask
        (Z, Y, X) bool, voxels where the image shows the object; all when none.
    held_out
        Photons held out to score estimates, see :mod:`napari_rln.deconvolution.stopping`.
    origin
        Position (z, y, x) in a larger image that it is a part of, voxels.
    """

    image: Volume
    psf: Volume | None
    calibration: Calibration
    mask: Mask | None = None
    held_out: SplitPhotons | None = None
    origin: Shape = (0, 0, 0)
