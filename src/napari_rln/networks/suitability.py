"""Whether a model suits a PSF and an image, in sentences for the user."""

import math

from napari_rln.core.errors import RlnError
from napari_rln.core.volume import OnGrid, Volume, on_one_grid
from napari_rln.networks.model import Model, unlikeness
from napari_rln.psf.shape import fwhm_um

_UNLIKE = 0.15  # share of light elsewhere from which a PSF is another
_BEYOND = 1.15  # factor beyond the family's widths from which a PSF is outside of it


def widths_in_voxels(psf: Volume) -> dict[str, float]:
    """Return a PSF's FWHM in voxels, ``"axial"`` and ``"lateral"``; nan where it has no such."""
    z, y, x = fwhm_um(psf.data, psf.voxel_um)
    return {
        "axial": z / psf.voxel_um[0],
        "lateral": (y / psf.voxel_um[1] + x / psf.voxel_um[2]) / 2,
    }


def doubts(model: Model, psf: Volume | None) -> tuple[str, ...]:
    """Return what speaks against using a model with a PSF; nothing where nothing does.

    Parameters
    ----------
    model
        To be used.
    psf
        On the voxels that the model will see; none where it is not known.
    """
    if psf is None:
        return ()
    found = []
    if model.psf is not None and on_one_grid(model.psf, psf):
        share = unlikeness(model.psf, psf)
        if share > _UNLIKE:
            found.append(
                f"model {model.name} was trained for another PSF ({model.psf.name}): {share:.0%} "
                "of the light lies elsewhere. Adapt it to this PSF (napari-rln train), or use the "
                "universal one."
            )
    if model.reach:
        for axis, width in widths_in_voxels(psf).items():
            low, high = model.reach[axis]
            if math.isfinite(width) and not low / _BEYOND <= width <= high * _BEYOND:
                found.append(
                    f"the PSF is {width:.1f} voxels wide ({axis} FWHM) but model {model.name} was "
                    f"trained on {low:.1f} to {high:.1f}; adapt it to this PSF (napari-rln train)."
                )
    return tuple(found)


def refuse_grid(model: Model, image: OnGrid) -> RlnError:
    """Return the error that an image on other voxels is refused with."""
    assert model.psf is not None
    return RlnError(
        f"{image.name} has voxels of {image.voxel_um} um but model {model.name} was trained for "
        f"{model.psf.voxel_um} um (z, y, x); resample the image for it (`grid=resample`), use the "
        "universal model, or train one for these voxels."
    )
