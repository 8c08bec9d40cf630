"""The problem of the speed benchmark, and the scores of results.

Filaments, beads and shells on a flat background of 20 photons, brightest about 430, Poisson
noise. The object is larger than the field of view and is blurred without wrap-around, so that
light comes in from outside, as in a microscope. Two PSFs: a widefield one, symmetric, and one with
spherical aberration and coma, by which a mirrored or shifted PSF shows.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt
import scipy.fft
from scipy import ndimage, signal

Array = npt.NDArray[np.float32]

VOXEL_UM = (0.2, 0.1, 0.1)
PSFS = {"sym": {}, "asym": {"spherical": 0.15, "coma": 0.1}}
_PSF_SHAPE = (31, 31, 31)
_BACKGROUND, _BRIGHTEST = 20.0, 410.0  # photons expected


@dataclass(frozen=True, kw_only=True)
class Problem:
    """Images with ground truth.

    Attributes
    ----------
    source
        Where it comes from, for the tables.
    truth
        (Z, Y, X) photons, background included.
    images, psfs
        (Z, Y, X) photons and (z, y, x) with sum 1, for each name in ``PSFS``.
    """

    source: str
    truth: Array
    images: dict[str, Array]
    psfs: dict[str, Array]

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Return the problem in a folder: image_*.tif, psf_*.tif and truth_x16.tif."""
        import tifffile

        def read(name: str) -> Array:
            return tifffile.imread(folder / f"{name}.tif").astype(np.float32)

        psfs = {name: read(f"psf_{name}") for name in PSFS}
        return cls(
            source=f"the files in {folder.name}",
            truth=read("truth_x16") / 16,
            images={name: read(f"image_{name}") for name in PSFS},
            psfs={name: psf / psf.sum() for name, psf in psfs.items()},
        )

    @classmethod
    def generate(cls, seed: int, shape: tuple[int, int, int] = (64, 256, 256)) -> Self:
        """Return a problem like the one in the files, from random numbers."""
        rng = np.random.default_rng(seed)
        psfs = {name: pupil_psf(**aberrations) for name, aberrations in PSFS.items()}
        scene = _scene(tuple(n + p - 1 for n, p in zip(shape, _PSF_SHAPE, strict=True)), rng)
        blurred = {name: signal.fftconvolve(scene, psf, "valid") for name, psf in psfs.items()}
        scale = (_BRIGHTEST - _BACKGROUND) / blurred["sym"].max()
        inside = tuple(slice(p // 2, p // 2 + n) for n, p in zip(shape, _PSF_SHAPE, strict=True))
        return cls(
            source=f"generated, seed {seed}",
            truth=(scale * scene[inside] + _BACKGROUND).astype(np.float32),
            images={
                name: rng.poisson(scale * image.clip(0) + _BACKGROUND).astype(np.float32)
                for name, image in blurred.items()
            },
            psfs=psfs,
        )

    def crop(self, shape: tuple[int, int, int]) -> Self:
        """Return a corner of the problem."""
        corner = tuple(slice(n) for n in shape)
        return type(self)(
            source=f"{self.source}, cropped to {'x'.join(map(str, shape))}",
            truth=self.truth[corner].copy(),
            images={name: image[corner].copy() for name, image in self.images.items()},
            psfs=self.psfs,
        )


def thin(image: Array, share: float, seed: int) -> Array:
    """Return an image with a fraction of its photons."""
    if share == 1:
        return image
    return np.random.default_rng(seed).binomial(image.astype(np.int64), share).astype(np.float32)


def pupil_psf(
    *, spherical: float = 0.0, coma: float = 0.0, na: float = 1.2, wavelength_um: float = 0.52
) -> Array:
    """Return a widefield PSF in water, (31, 31, 31), from its pupil; aberrations in waves RMS."""
    size, index = 256, 1.33  # so wide that defocused light does not come round
    k_y, k_x = np.meshgrid(*[np.fft.fftfreq(size, v) for v in VOXEL_UM[1:]], indexing="ij")
    k, angle = np.hypot(k_y, k_x), np.arctan2(k_y, k_x)
    inside, rho = k <= na / wavelength_um, k * wavelength_um / na
    along = np.sqrt(np.maximum((index / wavelength_um) ** 2 - k**2, 0))
    waves = spherical * np.sqrt(5) * (6 * rho**4 - 6 * rho**2 + 1)
    waves = waves + coma * np.sqrt(8) * (3 * rho**3 - 2 * rho) * np.cos(angle)
    middle = [n // 2 for n in _PSF_SHAPE]
    rows, columns = (slice(size // 2 - m, size // 2 - m + 2 * m + 1) for m in middle[1:])
    planes = []
    for z in (np.arange(_PSF_SHAPE[0]) - middle[0]) * VOXEL_UM[0]:
        field = np.fft.ifft2(inside * np.exp(2j * np.pi * (z * along + waves)))
        planes.append(np.fft.fftshift(np.abs(field) ** 2)[rows, columns])
    psf = np.stack(planes)
    return (psf / psf.sum()).astype(np.float32)


def _scene(shape: tuple[int, ...], rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """Return filaments, beads and shells, in any unit."""
    scene = np.zeros(shape)
    volume_um3 = np.prod(np.multiply(shape, VOXEL_UM))
    for _ in range(round(volume_um3 / 200)):
        turns = ndimage.gaussian_filter1d(rng.normal(size=(600, 3)), 25, axis=0, mode="nearest")
        heading = rng.normal(size=3) * (0.2, 1, 1) + 10 * turns
        heading /= np.linalg.norm(heading, axis=1, keepdims=True)
        path = rng.uniform(0, shape) + np.cumsum(0.5 * heading * (0.5, 1, 1), axis=0)
        _deposit(scene, path, rng.uniform(0.2, 0.4))
    _deposit(scene, rng.uniform(0, shape, (round(volume_um3 / 80), 3)), 1.0)
    scene = ndimage.gaussian_filter(scene, (0.4, 0.7, 0.7))
    for _ in range(round(volume_um3 / 400)):
        centre, radius_um = rng.uniform(0, shape), rng.uniform(0.6, 1.6)
        away = [(np.arange(n) - c) * v for n, c, v in zip(shape, centre, VOXEL_UM, strict=True)]
        reach = [np.flatnonzero(np.abs(a) < radius_um + 0.5) for a in away]
        z, y, x = np.ix_(*[a[near] for a, near in zip(away, reach, strict=True)])
        wall = (np.sqrt(z**2 + y**2 + x**2) - radius_um) / 0.1
        scene[np.ix_(*reach)] += rng.uniform(0.1, 0.3) * np.exp(-(wall**2) / 2)
    return scene


def _deposit(scene: npt.NDArray[np.float64], points: npt.NDArray[np.float64], value: float) -> None:
    voxels = np.rint(points).astype(int)
    inside = ((voxels >= 0) & (voxels < scene.shape)).all(axis=1)
    np.add.at(scene, tuple(voxels[inside].T), value)


def nrmse(result: Array, truth: Array) -> float:
    """Return ``||a x + b - g|| / ||g||`` after the best scale a and offset b."""
    x, g = result.astype(np.float64).ravel(), truth.astype(np.float64).ravel()
    x, centred = x - x.mean(), g - g.mean()
    scale = (x @ centred) / (x @ x)
    return float(np.linalg.norm(scale * x - centred) / np.linalg.norm(g))


def drift(result: Array, truth: Array) -> tuple[float, float, float]:
    """Return by how many voxels (z, y, x) the result lies off the truth.

    It is the shift back that puts the peak of their cross-correlation, under a Hann window, at 0;
    the peak is found between voxels by Newton's method on the Fourier series.
    """
    shape = truth.shape
    grid = np.ix_(*[2 * np.pi * scipy.fft.fftfreq(n) for n in shape])
    grid = (*grid[:2], grid[2][..., : shape[2] // 2 + 1])
    window = np.ones(())
    for n in shape:
        window = window[..., None] * np.hanning(n + 2)[1:-1]
    target = scipy.fft.rfftn(window * (truth - truth.mean(dtype=float))).conj()
    spectrum = scipy.fft.rfftn(result - result.mean(dtype=float))
    shift = np.zeros(3)
    for _ in range(3):  # the window stays where the content moves, so once is 5 % short
        back = scipy.fft.irfftn(spectrum * _phase(grid, shift), s=shape)
        shift += _peak(scipy.fft.rfftn(window * back) * target, grid, shape)
    z, y, x = (float(s) for s in shift)
    return z, y, x


def _phase(grid: tuple[npt.NDArray[np.float64], ...], shift: npt.NDArray[np.float64]):
    return np.exp(1j * sum(k * s for k, s in zip(grid, shift, strict=True)))


def _peak(cross, grid, shape: tuple[int, ...]) -> npt.NDArray[np.float64]:
    correlation = scipy.fft.irfftn(cross, s=shape)
    peak = np.unravel_index(int(correlation.argmax()), shape)
    shift = np.array([p - n if p > n // 2 else p for p, n in zip(peak, shape, strict=True)], float)
    cross[..., 1:] *= 2  # the half of the spectrum that rfftn leaves out
    for _ in range(3):
        turned = cross * _phase(grid, shift)
        gradient = [-float((k * turned.imag).sum()) for k in grid]
        curvature = [[-float((k * q * turned.real).sum()) for q in grid] for k in grid]
        shift -= np.linalg.solve(curvature, gradient)
    return shift
