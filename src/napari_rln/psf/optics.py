"""Optics of one channel as a file states them, and the microscope settings that follow."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self

from napari_rln.core.errors import RlnError
from napari_rln.core.limits import as_dict, from_dict
from napari_rln.psf.dyes import dye_named
from napari_rln.psf.microscope import MicroscopeSettings

Modality = Literal["widefield", "confocal", "two-photon", "light-sheet"]

_STOKES_SHIFT_UM = 0.025  # from the excitation to the emission of an unknown dye
_OIL, _WATER, _AIR = 1.515, 1.33, 1.0


@dataclass(frozen=True, kw_only=True)
class Optics:
    """Optics of one channel; None for what the file does not state.

    Parameters
    ----------
    modality
        Type of microscope.
    na
        Numerical aperture of the objective.
    immersion_index, sample_index
        Refractive indices of the immersion and of the mounting medium.
    wavelength_um, excitation_um
        Emission and excitation wavelengths in vacuum.
    pinhole_au
        Confocal pinhole diameter in Airy units.
    objective, channel
        Names of the objective, and of the channel or its dye, for display and to look up the dye.
    """

    modality: Modality | None = None
    na: float | None = None
    immersion_index: float | None = None
    sample_index: float | None = None
    wavelength_um: float | None = None
    excitation_um: float | None = None
    pinhole_au: float | None = None
    objective: str = ""
    channel: str = ""

    @property
    def is_known(self) -> bool:
        """Whether nothing is missing for a PSF."""
        return not self.missing

    @property
    def missing(self) -> tuple[str, ...]:
        """Settings that a PSF needs and that neither follow from the file nor may be assumed."""
        scanned = self.modality in ("confocal", "two-photon")
        lacking = {
            "na": self.na is None,
            "wavelength_um": self.emission_um is None,
            "excitation_um": scanned and self.excitation_um is None and self._laser() is None,
        }
        return tuple(name for name, is_missing in lacking.items() if is_missing)

    @property
    def emission_um(self) -> float | None:
        """Emission wavelength as stated, or by the dye or the excitation; None if unknown."""
        known = self._emission()
        return known and known[0]

    @property
    def stated(self) -> dict[str, Any]:
        """The settings of :class:`MicroscopeSettings` that the file states."""
        names = {field.name for field in dataclasses.fields(MicroscopeSettings)}
        values = as_dict(self).items()
        return {name: value for name, value in values if name in names and value is not None}

    def microscope(
        self, sheet_fwhm_um: float | None = None
    ) -> tuple[MicroscopeSettings, tuple[str, ...]]:
        """Return the microscope, and a sentence for everything that was assumed.

        No file states the thickness of a light sheet; the user may.

        Raises :class:`RlnError` if the aperture or the wavelength is not known, or what the file
        states contradicts itself.
        """
        emission = self._emission()
        if self.na is None or emission is None:
            missing = "numerical aperture" if self.na is None else "emission wavelength"
            raise RlnError(
                f"the file does not state the {missing}; choose a PSF, or compute one from the "
                "objective's data."
            )
        settings, assumed = self.stated, []
        if self.wavelength_um is None:
            settings["wavelength_um"], why = emission
            assumed.append(f"emission {1000 * settings['wavelength_um']:.0f} nm, {why}")
        if self.modality is None:
            settings["modality"] = "widefield"
            assumed.append("widefield, as the file does not state the type of microscope")
        if self.immersion_index is None:
            settings["immersion_index"], medium = _immersion(self.na)
            assumed.append(f"{medium} immersion, as usual at NA {self.na:g}")
        laser = self._laser()
        if settings["modality"] == "confocal" and self.excitation_um is None and laser is not None:
            settings["excitation_um"], why = laser
            assumed.append(f"excitation {1000 * settings['excitation_um']:.0f} nm, {why}")
        if settings["modality"] in ("confocal", "two-photon") and "excitation_um" not in settings:
            raise RlnError(
                f"the file states a {settings['modality']} microscope without the laser's "
                "wavelength; choose a PSF, or compute one from the objective's data."
            )
        if settings["modality"] == "confocal" and self.pinhole_au is None:
            assumed.append("a pinhole of 1 Airy unit, as the file does not state it")
        if sheet_fwhm_um is not None:
            settings["sheet_fwhm_um"] = sheet_fwhm_um
        elif settings["modality"] == "light-sheet":
            thickness = MicroscopeSettings.sheet_fwhm_um
            assumed.append(f"a light sheet {thickness:g} µm thick, as the file does not state it")
        return MicroscopeSettings(**settings), tuple(assumed)

    def as_json(self) -> dict[str, Any]:
        """Return what is known, in JSON's types."""
        plain = Optics()
        fields = as_dict(self).items()
        return {name: value for name, value in fields if value != getattr(plain, name)}

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> Self:
        """Return the optics from their JSON fields; raise an RlnError if a field is unknown."""
        return from_dict(cls, fields)

    def _emission(self) -> tuple[float, str] | None:
        """Return the emission wavelength and where it is from; None if nothing states it."""
        if self.wavelength_um is not None:
            return self.wavelength_um, "as the file states"
        dye = dye_named(self.channel)
        if dye is not None:
            return dye.emission_um, f"that of {dye.name}, the name of the channel"
        if self.excitation_um is not None and self.modality != "two-photon":
            shown = f"{1000 * _STOKES_SHIFT_UM:.0f} nm above the excitation"
            return self.excitation_um + _STOKES_SHIFT_UM, shown
        return None

    def _laser(self) -> tuple[float, str] | None:
        """Return the excitation of a confocal by the dye's name, and why; None without one."""
        dye, emission = dye_named(self.channel), self.emission_um
        if self.modality != "confocal" or dye is None or emission is None:
            return None
        if dye.excitation_um >= emission:
            return None
        return dye.excitation_um, f"that of {dye.name}, the name of the channel"


MISSING = {
    "na": "numerical aperture",
    "wavelength_um": "emission wavelength",
    "excitation_um": "laser's wavelength",
}
"""Words for :attr:`Optics.missing`."""

_WORDS = {
    "modality": "{}",
    "na": "NA {:g}",
    "immersion_index": "immersion index {:g}",
    "sample_index": "sample index {:g}",
    "wavelength_um": "emission {:.0f} nm",
    "excitation_um": "excitation {:.0f} nm",
    "pinhole_au": "pinhole {:.3g} Airy units",
    "depth_um": "{:g} µm below the coverslip",
    "sheet_fwhm_um": "light sheet {:g} µm thick",
}


def as_words(settings: Mapping[str, Any]) -> str:
    """Return settings of a microscope as words, such as "confocal, NA 1.4, emission 518 nm"."""
    shown = ((name, settings[name]) for name in _WORDS if settings.get(name) is not None)
    return ", ".join(
        _WORDS[name].format(1000 * value if "nm" in _WORDS[name] else value)
        for name, value in shown
    )


def common_optics(optics: Sequence[Optics]) -> Optics:
    """Return what holds for all channels; nothing without any."""
    if not optics:
        return Optics()
    first, *others = (as_dict(one) for one in optics)
    plain = as_dict(Optics())
    return Optics(
        **{
            name: value if all(other[name] == value for other in others) else plain[name]
            for name, value in first.items()
        }
    )


def _immersion(na: float) -> tuple[float, str]:
    """Return the usual immersion of an aperture: its refractive index, and its name."""
    if na < 1.0:
        return _AIR, "air"
    return (_WATER, "water") if na < 1.27 else (_OIL, "oil")
