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
        Type of microscope; ``gaussian`` is a PSF of a given width, without optics. Choose yours.
    model
        Computation of the diffraction: ``vectorial`` is accurate at any aperture; ``scalar``
        (Gibson-Lanni) is faster and accurate up to about NA 1. Leave vectorial.
    na
        Numerical aperture of the objective, below the index of the immersion. Light beyond the
        index of the sample is evanescent: it contributes within about a wavelength of the
        coverslip; deeper, the effective aperture is that index. Read it from the objective.
    immersion_index
        Refractive index of the medium between objective and coverslip; give 1.515 for oil, 1.47 for
        glycerol, 1.33 for water, 1 for air.
    sample_index
        Refractive index of the sample or mounting medium; by default that of the immersion. Give
        1.33 for living cells, or that of the mounting medium.
    wavelength_um
        Wavelength of the fluorescence (emission) in vacuum; give the middle of the emission filter.
    excitation_um
        Wavelength of the laser in vacuum; give it for confocal and two-photon.
    depth_um
        Depth of the structure below the coverslip. Give it where sample and immersion have
        different indices; elsewhere it has no effect.
    pinhole_au
        Diameter of the confocal pinhole in Airy units (AU), 1.22 wavelength / NA; 0: a point. Read
        it in the software of the microscope.
    sheet_fwhm_um
        Thickness of the light sheet, full width at half maximum; give that of the microscope.
    fwhm_um
        Full widths at half maximum (z y x) of a Gaussian PSF as it appears in the image; measure
        them on a small bead.
    z_order
        Order of the planes: the first is nearest to the coverslip (from coverslip) or farthest from
        it (to coverslip). Choose that of the image.
    size
        Number of voxels (z y x), odd; by default chosen by the fraction of light kept, at most 127
        each. Leave it out unless a program needs a certain size.
    energy_fraction
        Fraction of the light that an automatic size keeps, relative to that within 127 voxels per
        axis and 8 axial widths of the focus. Lower it for a smaller PSF.
    """

    modality: Annotated[
        Literal["widefield", "confocal", "two-photon", "light-sheet", "gaussian"],
        {"label": "Type", "words": {"gaussian": "Gaussian"}},
    ] = "widefield"
    model: Annotated[Literal["vectorial", "scalar"], {"label": "Diffraction"}] = "vectorial"
    na: Annotated[float, {"min": 0.05, "max": 1.7, "label": "Objective NA"}] = 1.4
    immersion_index: Annotated[float, {"min": 1.0, "max": 1.8}] = 1.515
    sample_index: Annotated[float | None, {"min": 1.0, "max": 1.8, "none": "as immersion"}] = None
    wavelength_um: Annotated[float, {"min": 0.2, "max": 2.0, "unit": "um", "label": "Emission"}] = (
        0.52
    )
    excitation_um: Annotated[
        float | None,
        {"min": 0.2, "max": 2.0, "unit": "um", "label": "Excitation", "none": "type it"},
    ] = None
    depth_um: Annotated[float, {"min": 0.0, "max": 2000.0, "unit": "um", "label": "Depth"}] = 0.0
    pinhole_au: Annotated[float, {"min": 0.0, "max": 20.0}] = 1.0
    sheet_fwhm_um: Annotated[
        float, {"min": 0.1, "max": 200.0, "unit": "um", "label": "Light sheet"}
    ] = 2.0
    fwhm_um: Annotated[tuple[float, float, float], {"label": "FWHM z, y, x"}] = (0.7, 0.25, 0.25)
    z_order: Annotated[Literal["from coverslip", "to coverslip"], {"label": "Planes go"}] = (
        "from coverslip"
    )
    size: Annotated[tuple[int, int, int] | None, {"label": "Size (voxels)", "none": "auto"}] = None
    energy_fraction: Annotated[float, {"min": 0.5, "max": 0.9999, "label": "Light kept"}] = 0.99

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
