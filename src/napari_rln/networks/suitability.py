"""Suitability of a model for a PSF and an image: warnings and errors."""

import math

from napari_rln.core.errors import RlnError, warn
from napari_rln.core.volume import OnGrid, Volume, on_one_grid
from napari_rln.networks.model import Model, psf_difference
from napari_rln.psf.shape import fwhm_um

_UNLIKE = 0.15  # fraction of different light above which PSFs differ
_BEYOND = 1.15  # factor on the widths of a family of PSFs beyond which a PSF is outside


def widths_in_voxels(psf: Volume) -> dict[str, float]:
    """Return a PSF's FWHM in voxels, ``"axial"`` and ``"lateral"``; nan if undefined."""
    z, y, x = fwhm_um(psf.data, psf.voxel_um)
    return {
        "axial": z / psf.voxel_um[0],
        "lateral": (y / psf.voxel_um[1] + x / psf.voxel_um[2]) / 2,
    }


def psf_warnings(model: Model, psf: Volume | None) -> tuple[str, ...]:
    """Return warnings about using a model with a PSF on the voxels of the computation, if any."""
    if psf is None:
        return ()
    sentences = []
    if model.psf is not None and on_one_grid(model.psf, psf):
        fraction = psf_difference(model.psf, psf)
        if fraction > _UNLIKE:
            sentences.append(
                f"model {model.name} was trained for another PSF ({model.psf.name}): "
                f"{fraction:.0%} of the light lies elsewhere. Adapt it to this PSF (`napari-rln "
                "train`), or use the universal one."
            )
    if model.psf_widths:
        for axis, width in widths_in_voxels(psf).items():
            low, high = model.psf_widths[axis]
            if math.isfinite(width) and not low / _BEYOND <= width <= high * _BEYOND:
                sentences.append(
                    f"the PSF is {width:.1f} voxels wide ({axis} FWHM) but model {model.name} was "
                    f"trained on {low:.1f} to {high:.1f}; adapt it to this PSF (`napari-rln "
                    "train`)."
                )
    return tuple(sentences)


def grid_error(model: Model, image: OnGrid) -> RlnError:
    """Return the error for an image with voxels other than the model's."""
    assert model.psf is not None
    return RlnError(
        f"{image.name} has voxels of {image.voxel_um} um but model {model.name} was trained for "
        f"{model.psf.voxel_um} um (z, y, x); resample the image for it (`grid=resample`), use the "
        "universal model, or train one for these voxels."
    )


def warn_of_seams(model: Model) -> None:
    """Warn that an image is computed in tiles which differ from the whole."""
    warn(
        f"{model.network.title} looks farther than around a tile, but the image is computed in "
        "tiles, whose seams may show; deconvolve a smaller region for a result without them."
    )
