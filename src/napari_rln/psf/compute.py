"""Point spread functions computed from the optics.

Conventions. The axial positions of a computed PSF are those of the microscope's focus, as the
focus drive counts them, and increase away from the coverslip, into the sample; plane 0 is nearest
to the coverslip unless ``z_order`` says that the stack was taken the other way round. So a PSF
is the stack that a point would give, and an image is the object convolved with it, unmirrored.

Every voxel holds the light over its lateral area, as a camera pixel collects it; a plane is a
focal plane, sharp in z. With an index mismatch at depth the focus lies elsewhere than the drive
says; the PSF is centred on its main lobe all the same and the shift is recorded.

The diffraction integrals are those of psfmodels, which is the only packaged implementation with
both the Gibson-Lanni and the vectorial model and refractive indices per layer that does not
bring a tensor library: F. Aguet et al., Opt. Express 17, 6829 (2009); S. F. Gibson and F. Lanni,
J. Opt. Soc. Am. A 8, 1601 (1991). All calls to it are in one function, :func:`_point_stack`.
"""

import dataclasses
import math
from dataclasses import dataclass
from typing import Annotated, Any, Literal, cast

import numpy as np
import numpy.typing as npt
import psfmodels
from scipy import fft, special

from napari_rln.errors import RlnError
from napari_rln.psf.shape import energy_box, fwhm_um, peak_centre
from napari_rln.record import Record
from napari_rln.settings import as_dict, check_limits
from napari_rln.volume import Volume, VoxelUm, check_voxel_um

Float64Array = npt.NDArray[np.float64]
Size = tuple[int, int, int]

_MAX_VOXELS = 127  # per axis, of an automatic size: larger PSFs are asked for by size
_LATERAL_STEP = 0.06  # of wavelength / NA; errors below 0.3 % of the peak
_BLOCK = 8  # planes at a time, for memory


@dataclass(frozen=True, kw_only=True)
class MicroscopeSettings:
    """The optics that a PSF is computed from.

    Parameters
    ----------
    modality
        How the sample is lit and its light collected. ``gaussian`` takes ``fwhm_um`` and nothing
        of the optics.
    model
        ``vectorial`` treats light as an electromagnetic wave, right at any aperture; ``scalar``
        (Gibson-Lanni) is faster and good to about NA 1.
    na
        Numerical aperture of the objective; below the immersion index. Where it exceeds the
        sample index, the light beyond is evanescent: it counts within a wavelength of the
        coverslip and fades with depth, so that deeper the sample index is the effective aperture.
    immersion_index
        Refractive index of the immersion medium (oil 1.515, glycerol 1.47, water 1.33, air 1).
    sample_index
        Refractive index of the sample or mounting medium; none: the same as the immersion.
    wavelength_um
        Emission wavelength, vacuum.
    excitation_um
        Excitation wavelength, vacuum; needed for confocal and two-photon.
    depth_um
        Depth of the structure below the coverslip; matters when the indices differ.
    pinhole_au
        Confocal pinhole diameter in Airy units (1.22 wavelength / NA); 0 is a point.
    sheet_fwhm_um
        Thickness of the light sheet, full width at half maximum.
    fwhm_um
        Full widths at half maximum (z y x) of a Gaussian PSF as it appears in the image.
    z_order
        Whether plane 0 of the stack is the one nearest to the coverslip.
    size
        Number of voxels (z y x), odd; none: as many as hold the energy share, at most 127 each.
    energy_share
        Share of the light that an automatic size holds, of that within 127 voxels and, for
        widefield, whose light never ends, within 8 axial widths of the focus.
    """

    modality: Literal["widefield", "confocal", "two-photon", "light-sheet", "gaussian"] = (
        "widefield"
    )
    model: Literal["vectorial", "scalar"] = "vectorial"
    na: Annotated[float, {"min": 0.05, "max": 1.7}] = 1.4
    immersion_index: Annotated[float, {"min": 1.0, "max": 1.8}] = 1.515
    sample_index: Annotated[float | None, {"min": 1.0, "max": 1.8}] = None
    wavelength_um: Annotated[float, {"min": 0.2, "max": 2.0, "unit": "um"}] = 0.52
    excitation_um: Annotated[float | None, {"min": 0.2, "max": 2.0, "unit": "um"}] = None
    depth_um: Annotated[float, {"min": 0.0, "max": 2000.0, "unit": "um"}] = 0.0
    pinhole_au: Annotated[float, {"min": 0.0, "max": 20.0}] = 1.0
    sheet_fwhm_um: Annotated[float, {"min": 0.1, "max": 200.0, "unit": "um"}] = 2.0
    fwhm_um: tuple[float, float, float] = (0.7, 0.25, 0.25)
    z_order: Literal["from coverslip", "to coverslip"] = "from coverslip"
    size: tuple[int, int, int] | None = None
    energy_share: Annotated[float, {"min": 0.5, "max": 0.9999}] = 0.99

    def __post_init__(self) -> None:
        for field in ("wavelength_um", "excitation_um"):
            value = getattr(self, field)
            if value is not None and 200 <= value <= 2000:
                raise RlnError(
                    f"{field} is {value:g}; did you mean {value / 1000:g} ({value:g} nm)? "
                    "Wavelengths are in micrometres."
                )
        check_limits(self)
        if self.size is not None and any(n < 1 or n % 2 == 0 for n in self.size):
            raise RlnError(
                f"size is {self.size}, but each of z, y, x must be a positive odd number so that "
                f"one voxel is the centre; take {tuple(max(1, n) // 2 * 2 + 1 for n in self.size)}."
            )
        if self.modality == "gaussian":
            if not all(0.01 <= width <= 100 for width in self.fwhm_um):
                raise RlnError(
                    f"fwhm_um is {self.fwhm_um}; give three widths (z y x) of 0.01 to 100 um."
                )
        else:
            _check_optics(self)


def compute(
    settings: MicroscopeSettings, voxel_um: VoxelUm, *, name: str = "computed PSF"
) -> Volume:
    """Return the PSF of a microscope: odd sizes, sum 1, main lobe centred on voxel ``n // 2``.

    Parameters
    ----------
    settings
        The optics.
    voxel_um
        Voxel size (z, y, x) in micrometres, that of the image to deconvolve; y and x alike
        except for a Gaussian.
    name
        What to call it.

    Returns
    -------
    Volume
        Its record states the focal shift in micrometres (how much further from the coverslip the
        focus drive stands than the structure it shows sharpest), the widths and, for an automatic
        size, the energy share that it holds of the light that was computed.

    Raises
    ------
    RlnError
        If the voxel size is no voxel size, or not square laterally.
    """
    check_voxel_um(voxel_um, name)
    facts: dict[str, Any] = {}
    full = settings.size or _largest_size(settings, voxel_um)
    if settings.modality == "gaussian":
        data = _gaussian(settings.fwhm_um, voxel_um, full)
    else:
        _check_square(voxel_um)
        data, focus = _centred(settings, voxel_um, full)
        facts["focal_shift_um"] = round(_focal_shift(settings, focus), 4)
    size = settings.size or _square_sided(energy_box(data, settings.energy_share), voxel_um)
    cropped = _centre_crop(data, size)
    if settings.size is None:
        facts["energy_share"] = round(float(cropped.sum() / data.sum()), 5)
    if settings.z_order == "to coverslip":
        cropped = cropped[::-1]
    normal = cropped / cropped.sum()
    widths = fwhm_um(normal, voxel_um, tuple(n // 2 for n in size))  # type: ignore[arg-type]
    facts["fwhm_um"] = [round(w, 4) if math.isfinite(w) else None for w in widths]
    used = dataclasses.replace(settings, size=size, sample_index=_sample_index(settings))
    record = Record(method="psf compute", settings=as_dict(used), facts=facts)
    return Volume.from_array(normal, voxel_um, name=name, record=record)


def theoretical_fwhm_um(na: float, index: float, wavelength_um: float) -> tuple[float, float]:
    """Return the axial and the lateral FWHM of a widefield PSF in micrometres.

    0.88 wavelength / (n - sqrt(n^2 - NA^2)) and 0.51 wavelength / NA: formulas of scalar theory
    for an aberration-free objective, within some 10 % of the vectorial model.
    """
    return 0.88 * wavelength_um / (index - math.sqrt(index**2 - na**2)), 0.51 * wavelength_um / na


def _sample_index(settings: MicroscopeSettings) -> float:
    return settings.sample_index or settings.immersion_index


def _check_optics(settings: MicroscopeSettings) -> None:
    """Raise where the optics contradict each other."""
    if settings.na >= settings.immersion_index:
        raise RlnError(
            f"na is {settings.na} but must be below the immersion index "
            f"{settings.immersion_index}; check both on the objective's barrel."
        )
    if settings.modality not in ("confocal", "two-photon"):
        return
    excitation, emission = settings.excitation_um, settings.wavelength_um
    if excitation is None:
        raise RlnError(f"A {settings.modality} PSF needs excitation_um, the laser's wavelength.")
    if (settings.modality == "confocal") == (excitation > emission):
        raise RlnError(
            f"excitation_um is {excitation} and wavelength_um (the emission) {emission}: "
            f"{settings.modality} excitation is the "
            f"{'shorter' if settings.modality == 'confocal' else 'longer'} one; swap or mend them."
        )


def _check_square(voxel_um: VoxelUm) -> None:
    if abs(voxel_um[1] - voxel_um[2]) > 1e-3 * voxel_um[2]:
        raise RlnError(
            f"voxel_um is {voxel_um}; a PSF of the optics needs square pixels (y equal to x). "
            "Compute it with square ones and resample it."
        )


def _largest_size(settings: MicroscopeSettings, voxel_um: VoxelUm) -> Size:
    """Return odd sizes (z, y, x) from which an automatic one is cut."""
    if settings.modality == "gaussian":
        reach = tuple(2 * width for width in settings.fwhm_um)  # 4.7 standard deviations
    else:
        axial, _ = _axial_lateral(settings)
        depth = 8 * axial
        if settings.modality == "light-sheet":
            depth = min(depth, 2 * settings.sheet_fwhm_um)
        reach = (depth, math.inf, math.inf)
    half = (min(_MAX_VOXELS // 2, r / v) for r, v in zip(reach, voxel_um, strict=True))
    return cast("Size", tuple(2 * max(1, math.ceil(h)) + 1 for h in half))


def _axial_lateral(settings: MicroscopeSettings) -> tuple[float, float]:
    """Return the theoretical axial and lateral FWHM of the light that limits the modality."""
    limit = settings.excitation_um if settings.modality == "two-photon" else settings.wavelength_um
    return theoretical_fwhm_um(settings.na, settings.immersion_index, cast("float", limit))


def _square_sided(size: Size, voxel_um: VoxelUm) -> Size:
    """Return the size with y and x alike where the pixels are square."""
    side = max(size[1:])
    return (size[0], side, side) if voxel_um[1] == voxel_um[2] else size


def _centre_crop(data: Float64Array, size: Size) -> Float64Array:
    """Return the middle of odd-sized data, odd-sized too."""
    return data[
        tuple(slice((f - n) // 2, (f + n) // 2) for f, n in zip(data.shape, size, strict=True))
    ]


def _gaussian(widths: VoxelUm, voxel_um: VoxelUm, size: Size) -> Float64Array:
    """Return a Gaussian of given FWHMs (z, y, x) sampled at the voxel centres."""
    lines = [
        np.exp(-4 * math.log(2) * ((np.arange(n) - n // 2) * v / w) ** 2)
        for n, v, w in zip(size, voxel_um, widths, strict=True)
    ]
    data: Float64Array = np.einsum("i,j,k->ijk", *lines)
    return data


def _centred(
    settings: MicroscopeSettings, voxel_um: VoxelUm, size: Size
) -> tuple[Float64Array, float]:
    """Return the PSF with its main lobe on the centre, and the focus position of its mid plane."""
    focus = _brightest_focus(settings)
    for _ in range(4):  # an asymmetric lobe's centre lies off its brightest plane
        z_um: Float64Array = focus + np.linspace(-1, 1, size[0]) * (size[0] // 2) * voxel_um[0]
        data = _stack(settings, z_um, focus, size[1:], voxel_um[1])
        shift = peak_centre(data)[0] - size[0] // 2 if size[0] > 1 else 0.0
        if abs(shift) < 0.005:
            break
        focus += shift * voxel_um[0]
    return data, focus


def _brightest_focus(settings: MicroscopeSettings) -> float:
    """Return the focus position, in micrometres from the coverslip, with the brightest axis."""
    axial, lateral = _axial_lateral(settings)
    reach = 4 * axial + 0.5 * settings.depth_um  # the shift grows in proportion to the depth
    points = 2 * math.ceil(10 * reach / axial) + 1
    z_um: Float64Array = settings.depth_um + np.linspace(-reach, reach, points)
    detection_only = dataclasses.replace(settings, modality="widefield")
    # A sheet is set to where the detection is sharpest; it has no say in where that is.
    scanned = detection_only if settings.modality == "light-sheet" else settings
    axis = _stack(scanned, z_um, settings.depth_um, (1, 1), lateral / 3)
    return float(z_um[int(axis.argmax())])


def _focal_shift(settings: MicroscopeSettings, focus: float) -> float:
    """Return how much further the focus drive stands than the structure it shows sharpest, in um.

    psfmodels counts the focus so that it equals the depth where paraxial rays meet; the drive
    then stands at depth x immersion index / sample index (axial scaling of a flat interface).
    """
    depth = settings.depth_um
    return depth * (settings.immersion_index / _sample_index(settings) - 1) + focus - depth


def _stack(
    settings: MicroscopeSettings,
    z_um: Float64Array,
    sheet_um: float,
    size: tuple[int, int],
    pixel_um: float,
) -> Float64Array:
    """Return the PSF at focus positions ``z_um``, integrated over pixels; (Z, Y, X)."""
    blocks = np.array_split(z_um, math.ceil(len(z_um) / _BLOCK))
    data = np.concatenate([_planes(settings, block, size, pixel_um) for block in blocks])
    if settings.modality == "light-sheet":
        profile = np.exp(-4 * math.log(2) * ((z_um - sheet_um) / settings.sheet_fwhm_um) ** 2)
        data *= profile[:, None, None]
    return data


def _planes(
    settings: MicroscopeSettings, z_um: Float64Array, size: tuple[int, int], pixel_um: float
) -> Float64Array:
    """Return excitation times detection on a fine lateral grid, summed over pixels."""
    emission, excitation = settings.wavelength_um, settings.excitation_um or math.inf
    finest = _LATERAL_STEP * min(emission, excitation) / settings.na
    fine = max(3, 2 * math.ceil((pixel_um / finest - 1) / 2) + 1)  # odd: the centre stays one
    step, n = pixel_um / fine, max(size) * fine
    if settings.modality == "two-photon":
        light = _point_stack(settings, excitation, z_um, n, step) ** 2
    elif settings.modality == "confocal":
        light = _point_stack(settings, excitation, z_um, n, step)
        light *= _through_pinhole(settings, z_um, n, step)
    else:
        light = _point_stack(settings, emission, z_um, n, step)
    binned = light.reshape(len(z_um), max(size), fine, max(size), fine).sum(axis=(2, 4))
    return _centre_crop(binned, (len(z_um), *size))


def _through_pinhole(
    settings: MicroscopeSettings, z_um: Float64Array, n: int, step_um: float
) -> Float64Array:
    """Return the emission PSF convolved laterally with the pinhole, (Z, n, n).

    The disk's transfer function is the Airy amplitude 2 J1(x) / x: no stair-cased disk edge.
    """
    diameter = settings.pinhole_au * 1.22 * settings.wavelength_um / settings.na
    margin = math.ceil(diameter / 2 / step_um)  # keeps the periodic convolution's seam outside
    wide = _point_stack(settings, settings.wavelength_um, z_um, n + 2 * margin, step_um)
    ky = fft.fftfreq(wide.shape[1], step_um)[:, None]
    kx = fft.rfftfreq(wide.shape[2], step_um)
    x = np.maximum(math.pi * diameter * np.hypot(ky, kx), 1e-9)
    passed = fft.irfft2(fft.rfft2(wide) * (2 * special.j1(x) / x), s=wide.shape[1:])
    inner = slice(margin, margin + n)
    return np.maximum(cast("Float64Array", passed[:, inner, inner]), 0)


def _point_stack(
    settings: MicroscopeSettings, wavelength_um: float, z_um: Float64Array, n: int, step_um: float
) -> Float64Array:
    """Return the intensity (Z, n, n) at points ``step_um`` apart for focus positions ``z_um``.

    The coverslip and the immersion medium are those that the objective is designed for.
    """
    models: dict[str, Any] = {
        "vectorial": psfmodels.vectorial_psf,
        "scalar": psfmodels.scalar_psf,
    }
    index, glass = settings.immersion_index, max(1.515, settings.immersion_index)
    optics = {"NA": settings.na, "ni": index, "ni0": index, "ng": glass, "ng0": glass}
    optics |= {"ns": _sample_index(settings), "sf": 1}
    data: Float64Array = models[settings.model](
        z_um, n, step_um, settings.depth_um, wavelength_um, optics, normalize=False
    )
    return data
