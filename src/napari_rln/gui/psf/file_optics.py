"""Settings of the microscope that the file of an image states, and what follows from them."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from napari.layers import Layer

from napari_rln.core.errors import RlnError
from napari_rln.gui.forms import with_labels
from napari_rln.gui.layers import optics_of
from napari_rln.psf.dyes import Dye, dye_named
from napari_rln.psf.optics import MISSING, Optics, as_words


@dataclass(frozen=True, kw_only=True)
class FileOptics:
    """What the file of an image says about the microscope.

    Attributes
    ----------
    optics
        The optics, as the file states them.
    assumed
        Settings by name that follow from what it states.
    dye
        That which the channel is named after; none if it is not.
    text
        All of this in words, and what is missing.
    """

    optics: Optics
    assumed: dict[str, Any] = field(default_factory=dict)
    dye: Dye | None = None
    text: str

    @property
    def stated(self) -> dict[str, Any]:
        """Settings by name, from the file."""
        return self.optics.stated

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
        missing = " and ".join(f"the {MISSING[name]}" for name in optics.missing)
        rest = f"Not in the file: {missing}; type it here." if missing else f"But {error}"
    else:
        names = ["modality", "immersion_index", "wavelength_um"]
        names += ["pinhole_au"] if settings.modality == "confocal" else []
        assumed = {name: getattr(settings, name) for name in names if name not in stated}
        if assumptions:
            rest = f"Assumed: {'; '.join(assumptions)}."
    file = Path(layer.source.path or layer.name).name
    text = with_labels(f"From {file}: {as_words(stated)}. {rest}")
    return FileOptics(
        optics=optics, assumed=assumed, dye=dye_named(optics.channel), text=text.strip()
    )
