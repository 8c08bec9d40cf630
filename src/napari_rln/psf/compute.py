"""Computation of point spread functions from the optics.

Conventions. The axial positions of a computed PSF are those of the microscope's focus, as the
focus drive counts them, and increase away from the coverslip, into the sample; plane 0 is nearest
to the coverslip unless ``z_order`` states the opposite direction. So a PSF
is the stack that a point source would give; an image is the object convolved with it, unmirrored.

Every voxel is the intensity integrated over its lateral area, as by a camera pixel; in z it is
sampled at the focal plane. With an index mismatch at depth the focus differs from the position of
the drive; the PSF is centred on its main lobe, and the shift is recorded.

The intensity is rotationally symmetric before integration over pixels. It is therefore computed as
one radial profile per plane, and a spline of it is averaged over pinhole and pixels.
"""

import dataclasses
import math
from typing import Any, cast

import numpy as np
from scipy import special
from scipy.interpolate import make_interp_spline

from napari_rln.core.errors import RlnError
from napari_rln.core.limits import as_dict
from napari_rln.core.record import Record
from napari_rln.core.volume import Float64Array, Shape, Volume, VoxelUm, check_voxel_um
from napari_rln.psf.diffraction import Optics, intensity
from napari_rln.psf.microscope import MicroscopeSettings, theoretical_fwhm_um
from napari_rln.psf.peak import peak_centre
from napari_rln.psf.shape import centre_crop, energy_box, fwhm_um

LARGEST = 127
"""Most voxels per axis of an automatic size."""
_RADIAL_STEP = 0.02  # of wavelength / NA: error of the spline at most 1e-6 of the peak
_CYCLES = 2.0  # per wavelength / NA: highest lateral frequency of the intensity
_LOBE = 6.0  # lateral FWHMs around the axis, from which the main lobe is centred


def compute_psf(
    settings: MicroscopeSettings,
    voxel_um: VoxelUm,
    *,
    planes: int | None = None,
    name: str = "computed PSF",
) -> Volume:
    """Return the PSF of a microscope, of odd size and sum 1, centred on voxel ``n // 2``.

    Parameters
    ----------
    settings
        The optics.
    voxel_um
        Voxel size (z, y, x) in micrometres of the image to deconvolve; y equal to x except for
        a Gaussian.
    planes
        Number of planes of the image. An automatic size of a widefield PSF then spans from the
        first plane to the last, up to 127 planes: out-of-focus light is not attenuated, and
        beyond a shorter PSF haze would be restored as structure.
    name
        Name of the PSF.

    Returns
    -------
    Volume
        Its record states the focal shift in micrometres (position of the focus drive at best focus
        minus the depth of the structure), the widths and, for an automatic size, the fraction of
        the computed energy that it keeps.

    Raises
    ------
    RlnError
        If the voxel size is invalid, or not square laterally.
    """
    check_voxel_um(voxel_um, name)
    facts: dict[str, Any] = {}
    deep = min(2 * planes - 1, LARGEST) if planes and settings.modality == "widefield" else 0
    full = settings.size or _largest_size(settings, voxel_um)
    if not settings.size:
        full = (max(full[0], deep), *full[1:])
    if settings.modality == "gaussian":
        data = _gaussian(settings.fwhm_um, voxel_um, full)
    else:
        if abs(voxel_um[1] - voxel_um[2]) > 1e-3 * voxel_um[2]:
            raise RlnError(
                f"`voxel_um` is {voxel_um}; a PSF computed from the optics needs square pixels (y "
                "equal to x). Compute it with square pixels and resample it."
            )
        data, focus = _centred(settings, voxel_um, full)
        facts["focal_shift_um"] = round(focus - settings.depth_um, 4) + 0.0  # no -0
    size = settings.size
    if size is None:
        box = energy_box(data, settings.energy_fraction)
        side = max(box[1:])
        size = max(box[0], deep), *((side, side) if voxel_um[1] == voxel_um[2] else box[1:])
    cropped = centre_crop(data, size)
    if settings.size is None:
        facts["energy_fraction"] = round(float(cropped.sum() / data.sum()), 5)
    if settings.z_order == "to coverslip":
        cropped = cropped[::-1]
    normal = cropped / cropped.sum()
    widths = fwhm_um(normal, voxel_um, tuple(n // 2 for n in size))  # type: ignore[arg-type]
    facts["fwhm_um"] = [round(w, 4) if math.isfinite(w) else None for w in widths]
    used = dataclasses.replace(settings, size=size, sample_index=_sample_index(settings))
    record = Record(method="psf compute", settings=as_dict(used), facts=facts)
    return Volume.from_array(normal, voxel_um, name=name, record=record)


def _sample_index(settings: MicroscopeSettings) -> float:
    return settings.sample_index or settings.immersion_index


def _largest_size(settings: MicroscopeSettings, voxel_um: VoxelUm) -> Shape:
    """Return the odd size (z, y, x) from which an automatic one is cropped."""
    if settings.modality == "gaussian":
        extent = tuple(2 * width for width in settings.fwhm_um)  # 4.7 standard deviations
    else:
        axial, _ = _axial_lateral(settings)
        depth = 8 * axial
        if settings.modality == "light-sheet":
            depth = min(depth, 2 * settings.sheet_fwhm_um)
        extent = (depth, math.inf, math.inf)
    half = (min(LARGEST // 2, r / v) for r, v in zip(extent, voxel_um, strict=True))
    return cast("Shape", tuple(2 * max(1, math.ceil(h)) + 1 for h in half))


def _axial_lateral(settings: MicroscopeSettings) -> tuple[float, float]:
    """Return the theoretical axial and lateral FWHM of the light that limits the modality."""
    limit = settings.excitation_um if settings.modality == "two-photon" else settings.wavelength_um
    return theoretical_fwhm_um(settings.na, settings.immersion_index, cast("float", limit))


def _gaussian(widths: VoxelUm, voxel_um: VoxelUm, size: Shape) -> Float64Array:
    """Return a Gaussian of given FWHMs (z, y, x) sampled at the voxel centres."""
    lines = [
        np.exp(-4 * math.log(2) * ((np.arange(n) - n // 2) * v / w) ** 2)
        for n, v, w in zip(size, voxel_um, widths, strict=True)
    ]
    data: Float64Array = np.einsum("i,j,k->ijk", *lines)
    return data


def _centred(
    settings: MicroscopeSettings, voxel_um: VoxelUm, size: Shape
) -> tuple[Float64Array, float]:
    """Return the PSF with its main lobe centred, and the focus position of its middle plane."""
    depth = size[0] // 2 * voxel_um[0]
    planes: Float64Array = np.linspace(-depth, depth, size[0])
    focus = _brightest_focus(settings)
    half = math.ceil(_LOBE * _axial_lateral(settings)[1] / voxel_um[1])
    lobe = min(size[1], 2 * half + 1), min(size[2], 2 * half + 1)
    for _ in range(4):  # the centre of an asymmetric lobe is off its brightest plane
        data = _stack(settings, focus + planes, focus, lobe, voxel_um[1])
        shift = peak_centre(data)[0] - size[0] // 2 if size[0] > 1 else 0.0
        if abs(shift) < 0.005:
            break
        focus += shift * voxel_um[0]
    return _stack(settings, focus + planes, focus, size[1:], voxel_um[1]), focus


def _brightest_focus(settings: MicroscopeSettings) -> float:
    """Return the focus position of highest axial intensity, in micrometres from the coverslip."""
    axial, _ = _axial_lateral(settings)
    index, sample = settings.immersion_index, _sample_index(settings)
    # Foci of paraxial rays, and of rays near the margin of the aperture that the sample transmits.
    ray = 0.9 * min(settings.na, sample)
    scale = index / sample, math.sqrt((index**2 - ray**2) / (sample**2 - ray**2))
    near, far = (
        settings.depth_um * min(scale) - 4 * axial,
        settings.depth_um * max(scale) + 4 * axial,
    )
    z_um: Float64Array = np.linspace(near, far, 2 * math.ceil(5 * (far - near) / axial) + 1)
    # The light sheet is placed at the detection focus, so it does not count here.
    axis = _profiles(settings, z_um, np.zeros(1))
    return float(z_um[int(axis.argmax())])


def _stack(
    settings: MicroscopeSettings,
    z_um: Float64Array,
    sheet_um: float,
    size: tuple[int, int],
    pixel_um: float,
) -> Float64Array:
    """Return the PSF at focus positions ``z_um``, integrated over pixels; (Z, Y, X)."""
    corner = math.hypot(size[0] // 2 + 0.5, size[1] // 2 + 0.5) * pixel_um
    radii = _radii_um(settings, corner)
    data = _on_pixels(settings, radii, _profiles(settings, z_um, radii), size, pixel_um)
    if settings.modality == "light-sheet":
        profile = np.exp(-4 * math.log(2) * ((z_um - sheet_um) / settings.sheet_fwhm_um) ** 2)
        data *= profile[:, None, None]
    return data


def _profiles(
    settings: MicroscopeSettings, z_um: Float64Array, radii_um: Float64Array
) -> Float64Array:
    """Return the intensity of a point source before pixels and light sheet; (Z, R)."""
    if settings.modality not in ("confocal", "two-photon"):
        return _light(settings, settings.wavelength_um, z_um, radii_um)
    excitation = _light(settings, cast("float", settings.excitation_um), z_um, radii_um)
    if settings.modality == "two-photon":
        return excitation**2
    return excitation * _through_pinhole(settings, z_um, radii_um)


def _through_pinhole(
    settings: MicroscopeSettings, z_um: Float64Array, radii_um: Float64Array
) -> Float64Array:
    """Return the emission averaged over the pinhole around each radius; (Z, R).

    By the divergence theorem the light in a disk is the flux of the radial field ``F(r) / r``
    through its rim, where F is the integral of light times r from the axis. On the rim, a circle,
    equal steps converge exponentially.
    """
    wavelength = settings.wavelength_um
    pinhole = settings.pinhole_au * 0.61 * wavelength / settings.na  # its radius
    if pinhole == 0:
        return _light(settings, wavelength, z_um, radii_um)
    wide_um = _radii_um(settings, radii_um.max() + pinhole)
    light = _light(settings, wavelength, z_um, wide_um)
    flux = make_interp_spline(wide_um, light * wide_um, axis=1).antiderivative()
    count = 2 * _nodes(settings, pinhole)
    total = np.zeros((len(z_um), len(radii_um)))
    for angle in (np.arange(count) + 0.5) * math.pi / count:
        square = radii_um**2 + pinhole**2 + 2 * radii_um * pinhole * math.cos(angle)
        total += flux(np.sqrt(square)) / square * (radii_um * math.cos(angle) + pinhole)
    return 2 / (pinhole * count) * total


def _on_pixels(
    settings: MicroscopeSettings,
    radii_um: Float64Array,
    profiles: Float64Array,
    size: tuple[int, int],
    pixel_um: float,
) -> Float64Array:
    """Return profiles (Z, R) averaged over the square pixels around the axis; (Z, Y, X)."""
    spline = make_interp_spline(radii_um, profiles, axis=1)
    nodes, weights = special.roots_legendre(_nodes(settings, pixel_um / 2))
    y, x = (np.arange(n // 2 + 1) * pixel_um for n in size)  # one quadrant, by symmetry
    quadrant = np.zeros((len(profiles), y.size, x.size))
    for dy, dx in np.ndindex(nodes.size, nodes.size):
        offset_y, offset_x = nodes[[dy, dx]] * pixel_um / 2
        radius = np.hypot(y[:, None] + offset_y, x + offset_x)
        quadrant += weights[dy] * weights[dx] / 4 * spline(radius)
    rows, columns = (np.abs(np.arange(n) - n // 2) for n in size)
    whole: Float64Array = np.maximum(quadrant, 0)[:, rows[:, None], columns]
    return whole


def _light(
    settings: MicroscopeSettings, wavelength_um: float, z_um: Float64Array, radii_um: Float64Array
) -> Float64Array:
    """Return the intensity of one wavelength around the focus; (Z, R)."""
    optics = Optics(
        model=settings.model,
        na=settings.na,
        wavelength_um=wavelength_um,
        immersion_index=settings.immersion_index,
        sample_index=_sample_index(settings),
        depth_um=settings.depth_um,
    )
    return intensity(optics, z_um, radii_um)


def _finest_um(settings: MicroscopeSettings) -> float:
    """Return wavelength / NA of the shortest wavelength."""
    return min(settings.wavelength_um, settings.excitation_um or math.inf) / settings.na


def _radii_um(settings: MicroscopeSettings, outer_um: float) -> Float64Array:
    """Return radii (R,) from the axis to beyond the outer one, fine enough for a spline."""
    step = _RADIAL_STEP * _finest_um(settings)
    count = math.ceil(outer_um / step) + 4  # needed by a cubic spline
    return np.linspace(0, (count - 1) * step, count)


def _nodes(settings: MicroscopeSettings, half_um: float) -> int:
    """Return the number of Gauss-Legendre nodes for averaging the light over ``2 half_um``."""
    phase = 2 * math.pi * _CYCLES * half_um / _finest_um(settings)
    return math.ceil(phase / 2) + 3
