"""Cells of the benchmark of quality: inputs of every method, and scores of its results.

A cell is a PSF, a photon level and a class of structures, and volumes of several seeds. Two classes
of structures are in the training mixture of the universal model. Two are absent from it, but were
looked at while it was developed; two more, and the last PSF, were drawn for this table alone before
the training, and looked at by nobody.
"""

import hashlib
import inspect
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from functools import cache

from problem import pupil_psf
from scipy import ndimage

import napari_rln as rln
from napari_rln.core import metrics
from napari_rln.core.volume import FloatArray, Volume
from napari_rln.deconvolution import (
    classical,
    convolution,
    noise,
    richardson_lucy,
    settings,
    stopping,
    stopping_trial,
)
from napari_rln.psf.microscope import MicroscopeSettings as Microscope
from napari_rln.psf.shape import centre_crop
from napari_rln.simulate.aberrations import Aberrations, aberrated_psf
from napari_rln.simulate.imaging import ImagingSettings, Pair, simulate_pair
from napari_rln.simulate.optics import LARGEST_PSF
from napari_rln.simulate.structures import TRAINING, StructureSettings
from napari_rln.study import scoring

SHAPE = (64, 64, 64)
SEED = 20261301
PHOTONS = (30, 100, 300)
CLASSES = ("filaments", "nuclei", "coils", "bars", "asters", "pollen")
ABSENT = tuple(c for c in CLASSES if c not in TRAINING)
NEW = ABSENT[-2:]
SCORES = ("psnr", "ssim", "psnr_xz", "ssim_xz")

_CODE = (
    classical, convolution, metrics, noise, richardson_lucy, settings, stopping, stopping_trial
)  # fmt: skip
_OIL, _WATER = (0.2, 0.1, 0.1), 1.333
# Microscope and voxels; spherical aberration and coma come from benchmarks/problem.py.
MICROSCOPES = {
    "widefield oil 1.4": (Microscope(na=1.4, wavelength_um=0.52), _OIL),
    "widefield water 1.2, 15 um deep": (
        Microscope(
            na=1.2, immersion_index=_WATER, sample_index=1.37, depth_um=15, wavelength_um=0.6
        ),
        (0.3, 0.11, 0.11),
    ),
    "widefield air 0.75": (
        Microscope(na=0.75, immersion_index=1.0, wavelength_um=0.52),
        (0.8, 0.16, 0.16),
    ),
    "confocal 1.4": (
        Microscope(modality="confocal", na=1.4, wavelength_um=0.52, excitation_um=0.488),
        (0.15, 0.06, 0.06),
    ),
    "two-photon 1.0": (
        Microscope(
            modality="two-photon", na=1.0, immersion_index=_WATER, wavelength_um=0.52,
            excitation_um=0.92,
        ),
        (0.5, 0.15, 0.15),
    ),
    "light sheet 0.8": (
        Microscope(modality="light-sheet", na=0.8, immersion_index=_WATER, wavelength_um=0.52),
        (0.5, 0.16, 0.16),
    ),
    "nucleus": (
        Microscope(na=1.45, immersion_index=1.512, wavelength_um=0.461),
        (0.3, 0.13, 0.13),
    ),
    "Gaussian, wide": (Microscope(modality="gaussian", fwhm_um=(2.4, 0.75, 0.75)), _OIL),
}  # fmt: skip
NEW_PSF = "widefield glycerol 1.3, astigmatic"
PSFS = (*MICROSCOPES, "spherical and coma", NEW_PSF)


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One cell, the number of its volumes, that of the first, and whether the PSF is roughly known.

    Volumes used to choose or tune a model are no longer held out: ``first`` skips them.
    """

    psf: str
    photons: int
    structure: str
    seeds: int
    first: int = 0
    mismatch: bool = False
    background: float = 0.1  # as a fraction of the peak

    def __str__(self) -> str:
        return f"{self.psf}, {self.photons} photons, {self.structure}"

    @property
    def structures(self) -> StructureSettings:
        """Structures of one class, of constant density."""
        return StructureSettings(
            structures=(self.structure,), at_once=1, haze=0.0, density_jitter=(1.0, 1.0)
        )

    @property
    def imaging(self) -> ImagingSettings:
        """Light and camera."""
        return ImagingSettings(
            photons=(self.photons, self.photons),
            background=(self.background, self.background),
            read_noise=(1.0, 1.0),
        )

    @property
    def assumed(self) -> Volume:
        """PSF that the methods use."""
        return believed(self.psf) if self.mismatch else psf(self.psf)

    def key(self, *more: object) -> str:
        """Return a hash of everything that defines the volumes and PSFs, and of further values."""
        parts = [
            asdict(self), SHAPE, SEED, CLASSES, repr(self.structures), repr(self.imaging),
            psf(self.psf).hash, self.assumed.hash, _methods(), *more,
        ]  # fmt: skip
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]

    def pairs(self) -> Iterator[Pair]:
        """Yield the cell's volumes."""
        for number in range(self.first, self.first + self.seeds):
            seed = (SEED, number, CLASSES.index(self.structure))
            yield simulate_pair(
                psf(self.psf), self.structures, self.imaging, shape=SHAPE, seed=seed
            )


@cache
def _methods() -> str:
    """Return a hash of the code that the classical scores depend on."""
    code = "".join(inspect.getsource(module) for module in _CODE)
    return hashlib.sha256(code.encode()).hexdigest()


@cache
def psf(name: str) -> Volume:
    """Return a PSF of the table, of at most the size that the training uses, sum 1."""
    if name == "spherical and coma":
        whole = Volume.from_array(pupil_psf(spherical=0.15, coma=0.1), _OIL)
    elif name == NEW_PSF:
        microscope = Microscope(na=1.3, immersion_index=1.47, wavelength_um=0.6)
        whole = aberrated_psf(
            microscope, (0.25, 0.12, 0.12), Aberrations(astigmatism=0.09), size=LARGEST_PSF
        )
    else:
        whole = rln.psf.compute_psf(*MICROSCOPES[name])
    return _cut(whole, name)


@cache
def believed(name: str) -> Volume:
    """Return the PSF of a careful user, with errors of one sigma of those in the training.

    NA 1.5 % and wavelength 1 % off where a microscope is known, and where the sample's index is
    another than the immersion's that by 0.003 and the depth by 15 %; else as measured on a bead:
    broader by 0.35 lateral voxels and 0.05 voxels off centre.
    """
    true = psf(name)
    microscope, voxel_um = MICROSCOPES.get(name, (None, true.voxel_um))
    if microscope is None or microscope.modality == "gaussian":
        widths = [0.35 * true.voxel_um[2] / v for v in true.voxel_um]
        data = ndimage.shift(ndimage.gaussian_filter(true.data, widths), 0.05, order=1)
        return Volume.from_array(data / data.sum(), true.voxel_um, name=f"{name}, believed")
    wrong = replace(
        microscope,
        na=microscope.na * 1.015,
        wavelength_um=microscope.wavelength_um * 1.01,
        depth_um=microscope.depth_um * 1.15,
        size=true.shape,
    )
    if microscope.sample_index is not None:
        wrong = replace(wrong, sample_index=microscope.sample_index + 0.003)
    return rln.psf.compute_psf(wrong, voxel_um, name=f"{name}, believed")


def _cut(whole: Volume, name: str) -> Volume:
    data = centre_crop(whole.data, LARGEST_PSF)
    return Volume.from_array(data / data.sum(), whole.voxel_um, name=name)


class Judge:
    """The scores of the table, of many results against one truth."""

    def __init__(self, truth: FloatArray) -> None:
        self._judge = scoring.Judge(truth)

    def __call__(self, result: FloatArray) -> dict[str, float]:
        """Return PSNR and SSIM of the volume and as the mean over xz planes, after the fit."""
        found = self._judge.quality(self._judge.fitted(result))
        return {name.removesuffix("_db"): value for name, value in found.items()}
