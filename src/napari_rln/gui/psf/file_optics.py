"""Settings of the microscope that the file of an image states, and what follows from them."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from napari.layers import Layer

from napari_rln.core.errors import RlnError
from napari_rln.gui.forms import with_labels
from napari_rln.gui.layers import optics_of
from napari_rln.psf.dyes import Dye, dye_named
from napari_rln.psf.optics import Optics

_FORMS = {
    "modality": "{}", "na": "NA {:g}", "immersion_index": "immersion index {:g}",
    "sample_index": "sample index {:g}", "wavelength_um": "emission {:.0f} nm",
    "excitation_um": "excitation {:.0f} nm", "pinhole_au": "pinhole {:.3g} Airy units",
}  # fmt: skip
_IN_NM = ("wavelength_um", "excitation_um")
_NEEDS_LASER = ("confocal", "two-photon")


@dataclass(frozen=True, kw_only=True)
class FileOptics:
    """What the file of an image says about the microscope.

    Attributes
    ----------
    stated, assumed
        Settings by name, from the file and from what it states.
    dye
        That which the channel is named after; none if it is not.
    text
        All of this in words, and what is missing.
    """

    stated: dict[str, Any]
    assumed: dict[str, Any] = field(default_factory=dict)
    dye: Dye | None = None
    text: str

    @property
    def settings(self) -> dict[str, Any]:
        """The stated and the assumed settings."""
        return self.stated | self.assumed


def file_optics(layer: Layer) -> FileOptics | None:
    """Return what a layer's file states; None if it states nothing."""
    optics = optics_of(layer)
    if optics is None or not optics.stated:
        return None
    stated, assumed, rest = optics.stated, {}, ""
    try:
        settings, assumptions = optics.microscope()
    except RlnError as error:
        missing = _missing(optics)
        rest = f"Not in the file: {missing}; type it here." if missing else f"But {error}"
    else:
        names = ["modality", "immersion_index", "wavelength_um"]
        names += ["pinhole_au"] if settings.modality == "confocal" else []
        assumed = {name: getattr(settings, name) for name in names if name not in stated}
        if assumptions:
            rest = f"Assumed: {'; '.join(assumptions)}."
    found = ", ".join(_words(name, stated[name]) for name in _FORMS if name in stated)
    text = with_labels(f"From {Path(layer.source.path or layer.name).name}: {found}. {rest}")
    return FileOptics(
        stated=stated, assumed=assumed, dye=dye_named(optics.channel), text=text.strip()
    )


def _words(name: str, value: Any) -> str:
    return _FORMS[name].format(1000 * value if name in _IN_NM else value)


def _missing(optics: Optics) -> str:
    """Return the names of what a microscope needs and the file does not state."""
    missing = []
    if optics.na is None:
        missing.append("the numerical aperture")
    if optics.modality in _NEEDS_LASER and optics.excitation_um is None:
        missing.append("the laser's wavelength")
    if optics.na is not None and not optics.is_known:
        missing.append("the emission wavelength")
    return " and ".join(missing)
