"""PSFs with aberrations, by the Fourier transform of the pupil.

Scalar theory: without aberrations a PSF is that of the scalar model of ``psf.compute``, for a
point in a sample of the immersion's index.
"""

import math
from dataclasses import dataclass, replace
from typing import NamedTuple, Self

import numpy as np
import scipy.fft
from scipy import optimize, special

from napari_rln.core.limits import as_dict
from napari_rln.core.record import Record
from napari_rln.core.volume import Float64Array, FloatArray, Shape, Volume, VoxelUm
from napari_rln.psf.microscope import MicroscopeSettings

# Distance of samples, of wavelength / NA: a quarter for light, an eighth for its square. The light
# of a laser through a pinhole is as fine as the square, but only weakly.
_FINE = {"widefield": 0.24, "light-sheet": 0.24, "confocal": 0.2, "two-photon": 0.125}
_FEWEST, _MOST = 96, 256  # samples of the light along one axis


class Aberrations(NamedTuple):
    """RMS amplitudes in waves of the light that limits the modality, and angles in radians."""

    spherical: float = 0.0
    coma: float = 0.0
    astigmatism: float = 0.0
    trefoil: float = 0.0
    coma_angle: float = 0.0
    astigmatism_angle: float = 0.0
    trefoil_angle: float = 0.0

    def waves(self, rho: Float64Array, angle: Float64Array) -> Float64Array:
        """Return the sum of Zernike polynomials at polar coordinates of the pupil, in waves."""
        coma, fold_2, fold_3 = (
            np.cos(m * (angle - turn))
            for m, turn in (
                (1, self.coma_angle),
                (2, self.astigmatism_angle),
                (3, self.trefoil_angle),
            )
        )
        return (
            self.spherical * math.sqrt(5) * (6 * rho**4 - 6 * rho**2 + 1)
            + self.coma * math.sqrt(8) * (3 * rho**3 - 2 * rho) * coma
            + self.astigmatism * math.sqrt(6) * rho**2 * fold_2
            + self.trefoil * math.sqrt(8) * rho**3 * fold_3
        )


def aberrated_psf(
    settings: MicroscopeSettings,
    voxel_um: VoxelUm,
    aberrations: Aberrations,
    *,
    size: Shape,
    name: str = "aberrated PSF",
) -> Volume:
    """Return a PSF of odd size (z, y, x) and sum 1 with its main lobe centred on ``n // 2``.

    Of any microscope but a Gaussian one. Voxels are integrated over their lateral area, a square.
    """
    limit, laser_um = settings.wavelength_um, settings.excitation_um
    if laser_um and settings.modality == "two-photon":
        limit = laser_um
    confocal = settings.modality == "confocal"
    finest = min(limit, laser_um) if laser_um and confocal else limit
    step = _FINE[settings.modality] * finest / settings.na
    z_um = (np.arange(size[0]) - size[0] // 2) * voxel_um[0]
    # Light that leaves the grid on one side comes in on the other, but not as far as the PSF;
    # except for a per cent of it, in the outermost planes of undersampled PSFs.
    steepest = settings.na / math.sqrt(settings.immersion_index**2 - settings.na**2)
    across = max(size[1:]) * voxel_um[1] + z_um.max() * steepest
    count = 2 * scipy.fft.next_fast_len(math.ceil(across / step / 2))
    count = min(_MOST, max(_FEWEST, count))

    def pupil(wavelength_um: float) -> _Pupil:
        return _Pupil.of(settings, aberrations, limit / wavelength_um, wavelength_um, step, count)

    main = pupil(limit)
    centre = main.peak_um()
    laser = pupil(laser_um) if laser_um and confocal else None
    pinhole = _pinhole(settings, step, count) if laser else None
    rows, columns = (_on_pixels(n, voxel_um[1], step, count) for n in size[1:])
    data = np.empty(size)
    for plane, z in enumerate(z_um):
        light = main.light(z, centre)
        if settings.modality == "two-photon":
            light *= light
        elif laser and pinhole is not None:
            seen = scipy.fft.irfft2(scipy.fft.rfft2(light) * pinhole, s=light.shape)
            light = seen * laser.light(z, centre)
        data[plane] = rows @ light @ columns.T
    if settings.modality == "light-sheet":
        data *= np.exp(-4 * math.log(2) * (z_um / settings.sheet_fwhm_um) ** 2)[:, None, None]
    data = np.maximum(data, 0)
    if settings.z_order == "to coverslip":
        data = data[::-1]
    used = replace(settings, size=size, model="scalar")
    terms = {key: round(float(value), 4) for key, value in aberrations._asdict().items()}
    record = Record(method="aberrated psf", settings=as_dict(used), facts=terms)
    return Volume.from_array(data / data.sum(), voxel_um, name=name, record=record)


@dataclass(frozen=True)
class _Pupil:
    """The pupil for one wavelength, sampled for the Fourier transform."""

    inside: Float64Array  # (K, K): 1 in the aperture, 0 outside
    waves: Float64Array  # (K, K): the aberrations
    axial: Float64Array  # (K, K): waves per micrometre of defocus
    lateral: Float64Array  # (K,): waves per micrometre, of both axes
    count: int

    @classmethod
    def of(
        cls,
        settings: MicroscopeSettings,
        aberrations: Aberrations,
        scale: float,
        wavelength_um: float,
        step_um: float,
        count: int,
    ) -> Self:
        """Return the pupil; ``scale`` converts the aberrations to waves of this wavelength."""
        k = scipy.fft.fftshift(scipy.fft.fftfreq(count, step_um))
        edge = settings.na / wavelength_um
        k = k[np.abs(k) < edge + k[1] - k[0]]
        radius = np.hypot(k[:, None], k)
        # The edge is as wide as a sample, so the aperture does not depend on the samples.
        inside = np.clip((edge - radius) / (k[1] - k[0]) + 0.5, 0, 1)
        waves = scale * aberrations.waves(radius / edge, np.arctan2(k[:, None], k))
        axial = np.sqrt(np.maximum((settings.immersion_index / wavelength_um) ** 2 - radius**2, 0))
        return cls(inside, waves, -axial, k, count)

    def peak_um(self) -> Float64Array:
        """Return the position (z, y, x) of highest intensity, in micrometres."""
        sparse = slice(None, None, max(1, self.lateral.size // 40))
        inside = self.inside[sparse, sparse] > 0.5
        k = np.broadcast_to(self.lateral[sparse], inside.shape)
        waves, axial = (a[sparse, sparse][inside] for a in (self.waves, self.axial))
        slopes = np.stack([axial - axial.mean(), k.T[inside], k[inside]])
        unit = slopes.std(axis=1)  # waves RMS per micrometre
        slopes /= unit[:, None]
        # The wave that is flattest is nearly that of the brightest light.
        start = np.linalg.lstsq(slopes.T, waves.mean() - waves, rcond=None)[0]

        def darkness(at: Float64Array) -> float:
            return -float(abs(np.exp(2j * np.pi * (waves + at @ slopes)).mean()))

        corners = start + np.vstack([np.zeros(3), 0.05 * np.eye(3)])
        options = {"initial_simplex": corners, "xatol": 1e-3, "fatol": 1e-5}
        found = optimize.minimize(darkness, start, method="Nelder-Mead", options=options)
        return np.asarray(found.x / unit)

    def light(self, z_um: float, centre_um: Float64Array) -> FloatArray:
        """Return the intensity in a plane around the centre, (N, N); the axis is at voxel 0."""
        z, y, x = centre_um
        tilt = y * self.lateral[:, None] + x * self.lateral
        waves = self.waves + (z_um + z) * self.axial + tilt
        phase = (2 * np.pi * waves).astype(np.float32)
        pupil = (np.cos(phase) + 1j * np.sin(phase)) * self.inside.astype(np.float32)
        # The transform along y only where there is light; shifts of the frequencies only turn the
        # phase of the field.
        half = np.zeros((self.count, self.lateral.size), np.complex64)
        half[: self.lateral.size] = pupil
        field = np.zeros((self.count, self.count), np.complex64)
        field[:, : self.lateral.size] = scipy.fft.ifft(half, axis=0, overwrite_x=True)
        field = scipy.fft.ifft(field, axis=1, overwrite_x=True)
        light: FloatArray = field.real**2 + field.imag**2
        return light


def _pinhole(settings: MicroscopeSettings, step_um: float, count: int) -> FloatArray:
    """Return the transfer function of the pinhole's disk, (N, N // 2 + 1)."""
    radius = settings.pinhole_au * 0.61 * settings.wavelength_um / settings.na
    k = np.hypot(scipy.fft.fftfreq(count, step_um)[:, None], scipy.fft.rfftfreq(count, step_um))
    x = 2 * np.pi * radius * k
    disk: Float64Array = 2 * np.divide(special.j1(x), x, out=np.full_like(x, 0.5), where=x > 1e-9)
    transfer: FloatArray = disk.astype(np.float32)
    return transfer


def _on_pixels(size: int, pixel_um: float, step_um: float, count: int) -> FloatArray:
    """Return the matrix (size, N) that averages samples over pixels, centred on voxel 0.

    Samples of band-limited light are a Fourier series, of which the pixel damps each term.
    """
    k = scipy.fft.rfftfreq(count, step_um)
    weight = np.where(k > 0, 2.0, 1.0) * np.sinc(k * pixel_um) / count
    at = (np.arange(size) - size // 2) * pixel_um
    phase = 2 * np.pi * k
    one = np.exp(1j * at[:, None] * phase) * weight
    other = np.exp(-1j * (np.arange(count) * step_um)[:, None] * phase)
    matrix: FloatArray = (one @ other.T).real.astype(np.float32)
    return matrix
