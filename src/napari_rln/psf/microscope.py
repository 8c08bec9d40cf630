"""Settings of the microscope for computing a point spread function."""

import math
from dataclasses import dataclass
from typing import Annotated, Literal

from napari_rln.core.errors import RlnError
from napari_rln.core.limits import check_limits


@dataclass(frozen=True, kw_only=True)
class MicroscopeSettings:
    """Settings of the optics for computing a PSF.

    Parameters
    ----------
    modality
        Type of microscope; ``gaussian`` uses ``fwhm_um`` instead of the optics.
    model
        Diffraction model: ``vectorial`` is accurate at any aperture; ``scalar`` (Gibson-Lanni) is
        faster and accurate up to about NA 1.
    na
        Numerical aperture of the objective, below the immersion index. Light beyond the sample
        index is evanescent: it contributes within about a wavelength of the coverslip; deeper,
        the effective aperture is the sample index.
    immersion_index
        Refractive index of the immersion medium (oil 1.515, glycerol 1.47, water 1.33, air 1).
    sample_index
        Refractive index of the sample or mounting medium; none: that of the immersion.
    wavelength_um
        Emission wavelength in vacuum.
    excitation_um
        Excitation wavelength in vacuum; required for confocal and two-photon.
    depth_um
        Depth of the structure below the coverslip; relevant where the indices differ.
    pinhole_au
        Confocal pinhole diameter in Airy units (1.22 wavelength / NA); 0: a point.
    sheet_fwhm_um
        Thickness of the light sheet, full width at half maximum.
    fwhm_um
        Full widths at half maximum (z y x) of a Gaussian PSF as it appears in the image.
    z_order
        Order of the planes: the first is nearest to the coverslip (from coverslip) or farthest
        from it (to coverslip).
    size
        Number of voxels (z y x), odd; none: chosen by the energy fraction, at most 127 each.
    energy_fraction
        Fraction of the energy that an automatic size keeps, relative to that within 127 voxels
        per axis and 8 axial widths of the focus.
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
    energy_fraction: Annotated[float, {"min": 0.5, "max": 0.9999}] = 0.99

    def __post_init__(self) -> None:
        for field in ("wavelength_um", "excitation_um"):
            value = getattr(self, field)
            if value is not None and 200 <= value <= 2000:
                raise RlnError(
                    f"`{field}` is {value:g} um; give it in micrometres, {value / 1000:g} for "
                    f"{value:g} nm."
                )
        check_limits(self)
        check_odd_size(self.size)
        if self.modality == "gaussian":
            if not all(0.01 <= width <= 100 for width in self.fwhm_um):
                raise RlnError(
                    f"`fwhm_um` is {self.fwhm_um}; give three widths (z y x) of 0.01 to 100 um."
                )
        else:
            _check_optics(self)


def check_odd_size(size: tuple[int, int, int] | None) -> None:
    """Raise unless a PSF of a size (z, y, x) has a voxel in its centre; none is valid."""
    if size is not None and any(n < 1 or n % 2 == 0 for n in size):
        raise RlnError(
            f"`size` is {size} but must be three positive odd numbers (z y x), so that one voxel "
            f"is the centre; give {tuple(max(1, n) // 2 * 2 + 1 for n in size)}."
        )


def theoretical_fwhm_um(na: float, index: float, wavelength_um: float) -> tuple[float, float]:
    """Return the axial and the lateral FWHM of a widefield PSF, in micrometres.

    0.88 wavelength / (n - sqrt(n^2 - NA^2)) and 0.51 wavelength / NA: scalar theory for an
    aberration-free objective, within about 10 % of the vectorial model.
    """
    return 0.88 * wavelength_um / (index - math.sqrt(index**2 - na**2)), 0.51 * wavelength_um / na


def _check_optics(settings: MicroscopeSettings) -> None:
    """Raise if the settings contradict each other."""
    if settings.na >= settings.immersion_index:
        raise RlnError(
            f"`na` is {settings.na} but must be below `immersion_index` "
            f"{settings.immersion_index}; read both from the objective's engraving."
        )
    if settings.modality not in ("confocal", "two-photon"):
        return
    excitation, emission = settings.excitation_um, settings.wavelength_um
    if excitation is None:
        raise RlnError(
            f"a {settings.modality} PSF needs the laser's wavelength; give `excitation_um`."
        )
    if (settings.modality == "confocal") == (excitation > emission):
        raise RlnError(
            f"`excitation_um` is {excitation} and `wavelength_um` (the emission) {emission}, but "
            f"{settings.modality} excitation is the "
            f"{'shorter' if settings.modality == 'confocal' else 'longer'} one; correct them."
        )
