"""Random PSFs of common microscopes, for training a universal network.

Each draw consists of a true PSF, which blurs, and of an assumed PSF, as a user has it: the true
one, one computed from wrong parameters, or one measured on noisy beads of finite size.
"""

from dataclasses import replace
from typing import NamedTuple

import numpy as np
from scipy import ndimage

from napari_rln.core.volume import Shape, Volume, VoxelUm
from napari_rln.psf.compute import compute_psf
from napari_rln.psf.microscope import MicroscopeSettings, theoretical_fwhm_um
from napari_rln.psf.shape import centre_crop, energy_box
from napari_rln.simulate.aberrations import Aberrations, aberrated_psf

# Range of numerical apertures for each refractive index of the immersion.
_MEDIA = {1.515: (0.9, 1.45), 1.47: (0.8, 1.3), 1.333: (0.6, 1.2), 1.0: (0.3, 0.9)}
_MODALITIES = ("widefield", "confocal", "two-photon", "light-sheet", "gaussian")
_FREQUENCIES = (0.43, 0.19, 0.14, 0.19, 0.05)  # widefield is deconvolved most
# Voxels per theoretical FWHM, undersampled to oversampled: of half of the draws, and of the others.
_LATERAL = (1.5, 5.0), (1.0, 8.0)
_AXIAL = (1.8, 8.0), (1.0, 14.0)
_STEP = (0.8, 4.0)  # z step over lateral voxel
_ENERGY = 0.995  # of that within the largest size: the fraction that a PSF keeps
_ABERRATED = 0.35  # fraction of the draws, except Gaussian ones
_WAVES = 0.05  # standard deviation of an aberration, in waves RMS
_LEAST_WAVES, _MOST_WAVES = 0.03, 0.12  # of all aberrations together
# Fractions of the draws in which the true PSF is assumed, among them measured ones of aberrations.
_EXACT, _EXACT_ABERRATED = 0.33, 0.5
_GROSS = 0.3  # fraction of the computed ones with an error greater than usual

LARGEST_PSF: Shape = (47, 39, 39)
"""Maximum size (z, y, x) of the random PSFs, in voxels."""

FAMILY_WIDTHS = {"axial": (1.4, 11.0), "lateral": (1.25, 7.0)}
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
    z, y, x = (n - 1 + n % 2 for n in largest)
    aberrated = rng.random() < _ABERRATED and microscope.modality != "gaussian"
    if aberrated:
        # Instead of the aberration by a mismatch of the indices.
        microscope = replace(microscope, sample_index=None, depth_um=0.0, model="scalar")
        psf = aberrated_psf(microscope, voxel_um, _aberrations(rng), size=(z, y, x), name="true")
    else:
        psf = compute_psf(replace(microscope, size=(z, y, x)), voxel_um, name="true")
    z, y, x = energy_box(psf.data, _ENERGY)
    data = centre_crop(psf.data, (z, max(y, x), max(y, x)))
    psf = replace(psf, data=data / data.sum())
    return DrawnPsf(psf, _assumed(rng, microscope, psf, aberrated, mismatch))


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
    # The square of the light is narrower by the square root of 2.
    limit = 0.7 * excitation if excitation and modality == "two-photon" else emission
    axial, lateral = theoretical_fwhm_um(na, index, limit)
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
        fwhm_um=(axial, lateral, lateral),
        z_order="from coverslip" if rng.random() < 0.5 else "to coverslip",
    )
    rare = int(rng.random() < 0.5)
    pixel = lateral / _log_uniform(rng, *_LATERAL[rare])
    step = axial / _log_uniform(rng, *_AXIAL[rare])
    step = float(np.clip(step, _STEP[0] * pixel, _STEP[1] * pixel))
    return settings, (step, pixel, pixel)


def _aberrations(rng: np.random.Generator) -> Aberrations:
    """Return one to four aberrations of any direction."""
    waves = _WAVES * rng.normal(size=4) * (rng.random(4) < 0.6)
    total = float(np.linalg.norm(waves))
    if total == 0:
        waves[0] = total = _WAVES
    waves *= np.clip(total, _LEAST_WAVES, _MOST_WAVES) / total
    return Aberrations(*map(float, waves), *map(float, rng.uniform(0, 2 * np.pi, 3)))


def _log_uniform(rng: np.random.Generator, low: float, high: float) -> float:
    return float(low * (high / low) ** rng.random())


def _assumed(
    rng: np.random.Generator,
    true: MicroscopeSettings,
    psf: Volume,
    aberrated: bool,
    mismatch: float,
) -> Volume:
    """Return an assumed PSF: the true one, or computed or measured with equal probability."""
    if mismatch == 0 or rng.random() < (_EXACT_ABERRATED if aberrated else _EXACT):
        return psf
    if rng.random() < 0.5:
        return _computed(rng, true, psf, mismatch)
    return _measured(rng, psf, mismatch)


def _computed(
    rng: np.random.Generator, true: MicroscopeSettings, psf: Volume, mismatch: float
) -> Volume:
    """Return the PSF without aberrations for parameters that are slightly wrong, a few much."""
    errors = np.clip(rng.normal(size=5), -3, 3) * mismatch
    na = true.na * (1 + 0.015 * errors[0])
    depth = true.depth_um * (1 + 0.15 * errors[3])
    sample = true.sample_index or true.immersion_index
    step, y, x = psf.voxel_um
    if rng.random() < _GROSS:
        kinds = rng.random(3) < 0.6
        if kinds[0]:
            na = true.na * (1 - float(rng.uniform(0.02, 0.05)) * mismatch)
        if kinds[1]:
            step *= 1 + float(rng.uniform(-0.03, 0.03)) * mismatch
        if kinds[2] and rng.random() < 0.5:
            depth = true.depth_um + float(rng.uniform(-5, 5)) * mismatch
        elif kinds[2]:  # the mismatch of the indices is ignored
            sample += (true.immersion_index - sample) * min(1.0, mismatch)
    axial, y_width, x_width = true.fwhm_um
    broader = 1 + 0.03 * errors[3:]
    wavelength = true.wavelength_um * float(1 + 0.01 * errors[1])
    excitation = true.excitation_um
    if excitation and true.modality == "confocal":
        excitation = min(excitation, wavelength)
    changed = replace(
        true,
        na=float(np.clip(na, 0.1, true.immersion_index - 0.02)),
        wavelength_um=wavelength,
        excitation_um=excitation,
        sample_index=float(np.clip(sample + 0.003 * errors[2], 1.0, 1.7)),
        depth_um=max(0.0, float(depth)),
        fwhm_um=(axial * broader[0], y_width * broader[1], x_width * broader[1]),
        size=psf.shape,
    )
    computed = compute_psf(changed, (step, y, x), name="assumed")
    return replace(computed, voxel_um=psf.voxel_um)


def _measured(rng: np.random.Generator, psf: Volume, mismatch: float) -> Volume:
    """Return an average of beads of finite size: broader, slightly off centre, noisy."""
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
