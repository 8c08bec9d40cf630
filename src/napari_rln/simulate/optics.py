"""Random PSFs of common microscopes, for training a universal network.

Each draw consists of a true PSF, which blurs, and of an assumed PSF, as a user has it: computed
from slightly wrong parameters, or measured on noisy beads of finite size.
"""

from dataclasses import replace
from typing import NamedTuple

import numpy as np
from scipy import ndimage

from napari_rln.core.volume import Shape, Volume, VoxelUm
from napari_rln.psf.compute import compute_psf
from napari_rln.psf.microscope import MicroscopeSettings, theoretical_fwhm_um

# Range of numerical apertures for each refractive index of the immersion.
_MEDIA = {1.515: (0.9, 1.45), 1.47: (0.8, 1.3), 1.333: (0.6, 1.2), 1.0: (0.3, 0.9)}
_MODALITIES = ("widefield", "confocal", "two-photon", "light-sheet")
_FREQUENCIES = (0.45, 0.2, 0.15, 0.2)  # widefield is deconvolved most
_LATERAL = (1.3, 6.0)  # voxels per lateral FWHM: undersampled to oversampled
_AXIAL = (1.2, 11.0)  # voxels per axial FWHM
_STEP = (0.8, 4.0)  # z step over lateral voxel

LARGEST_PSF: Shape = (47, 39, 39)
"""Maximum size (z, y, x) of the random PSFs, in voxels."""

FAMILY_WIDTHS = {"axial": (1.3, 11.5), "lateral": (1.5, 6.5)}
"""Lowest and highest FWHM in voxels of the random PSFs, except for a few per cent."""


class DrawnPsf(NamedTuple):
    """A true PSF, which blurs, and the PSF of the same size assumed for deconvolution."""

    psf: Volume
    assumed: Volume


def draw_psf(
    *, seed: int | tuple[int, ...], mismatch: float = 1.0, largest: Shape = LARGEST_PSF
) -> DrawnPsf:
    """Return a random PSF of the family, true and assumed; the same seed gives the same PSFs.

    ``mismatch`` is the deviation of the assumed PSF from the true one, 1 as for careful users and
    0 none. PSFs above the largest size (z, y, x) in voxels are cropped.
    """
    rng = np.random.default_rng(seed)
    microscope, voxel_um = _microscope(rng)
    whole = compute_psf(microscope, voxel_um).shape
    z, y, x = (min(n, m - 1 + m % 2) for n, m in zip(whole, largest, strict=True))
    psf = compute_psf(replace(microscope, size=(z, y, x)), voxel_um, name="true")
    return DrawnPsf(psf, _assumed(rng, microscope, psf, mismatch))


def _microscope(rng: np.random.Generator) -> tuple[MicroscopeSettings, VoxelUm]:
    modality = str(rng.choice(_MODALITIES, p=_FREQUENCIES))
    index = float(rng.choice(list(_MEDIA)))
    na = float(rng.uniform(*_MEDIA[index]))
    sample = index
    depth = 0.0
    if rng.random() < 0.4 and index > 1.0:  # an index mismatch has an effect only at depth
        sample = float(rng.uniform(1.333, index))
        depth = float(rng.uniform(0.0, 15.0))
        na = min(na, sample - 0.03)
    emission = float(rng.uniform(0.42, 0.72))
    excitation = None
    if modality == "confocal":
        excitation = emission - float(rng.uniform(0.02, 0.05))
    elif modality == "two-photon":
        excitation = float(rng.uniform(0.75, 1.1))
        na = min(na, 1.1)
    axial, lateral = theoretical_fwhm_um(na, index, emission)
    sheet = axial * float(rng.uniform(0.5, 2.0))
    settings = MicroscopeSettings(
        modality=modality,  # type: ignore[arg-type]
        na=na,
        immersion_index=index,
        sample_index=sample,
        wavelength_um=emission,
        excitation_um=excitation,
        depth_um=depth,
        pinhole_au=float(rng.uniform(0.4, 2.0)),
        sheet_fwhm_um=float(np.clip(sheet, 0.1, 200.0)),
        z_order="from coverslip" if rng.random() < 0.5 else "to coverslip",
    )
    pixel = lateral / _log_uniform(rng, *_LATERAL)
    step = axial / _log_uniform(rng, *_AXIAL)
    step = float(np.clip(step, _STEP[0] * pixel, _STEP[1] * pixel))
    return settings, (step, pixel, pixel)


def _log_uniform(rng: np.random.Generator, low: float, high: float) -> float:
    return float(low * (high / low) ** rng.random())


def _assumed(
    rng: np.random.Generator, true: MicroscopeSettings, psf: Volume, mismatch: float
) -> Volume:
    """Return an assumed PSF, computed or measured, with equal probability."""
    if mismatch == 0:
        return psf
    if rng.random() < 0.5:
        errors = rng.normal(size=4) * mismatch
        na = float(np.clip(true.na * (1 + 0.015 * errors[0]), 0.1, true.immersion_index - 0.02))
        sample = true.sample_index or true.immersion_index
        changed = replace(
            true,
            na=na,
            wavelength_um=true.wavelength_um * float(1 + 0.01 * np.clip(errors[1], -3, 3)),
            sample_index=float(np.clip(sample + 0.003 * errors[2], 1.0, 1.7)),
            depth_um=max(0.0, true.depth_um * float(1 + 0.15 * errors[3])),
            size=psf.shape,
        )
        if changed.excitation_um and true.modality == "confocal":
            shorter = min(changed.excitation_um, changed.wavelength_um)
            changed = replace(changed, excitation_um=shorter)
        return compute_psf(changed, psf.voxel_um, name="assumed")
    # Average of beads of finite size: broader, slightly off centre, noisy.
    width = float(rng.uniform(0.0, 0.7)) * mismatch  # lateral voxels
    z_width = width * psf.voxel_um[1] / psf.voxel_um[0]
    data = ndimage.gaussian_filter(psf.data, (z_width, width, width), mode="constant")
    shift = rng.normal(size=3) * 0.05 * mismatch
    data = ndimage.shift(data, shift, order=1, mode="constant")
    peak = float(data.max())
    data = data + peak * float(rng.uniform(0.0, 0.004)) * mismatch * rng.normal(size=data.shape)
    # Residual noise is clipped with the background, as by psf.prepare.
    data = np.where(data > 0.006 * mismatch * peak, data, np.maximum(data, 0) * 0.5)
    return Volume.from_array(data / data.sum(), psf.voxel_um, name="assumed")
