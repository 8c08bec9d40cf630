"""Choice of a dye, for the wavelengths of a channel."""

from collections.abc import Sequence

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QComboBox

from napari_rln.gui.narrow_box import make_narrow
from napari_rln.psf.dyes import DYES, Dye

_TIP = (
    "<p>A dye sets the emission, and the excitation where the microscope needs it, to the peaks "
    "of its spectra. Choose the dye, then correct the wavelengths to those of your filter and "
    "laser.</p>"
)


class DyeChoice(QComboBox):
    """A combo box of common dyes, after those of a microscope; none is chosen at first."""

    chosen = Signal(object)  # the dye that the user chose

    def __init__(self) -> None:
        super().__init__(toolTip=_TIP)
        self.setPlaceholderText("choose")
        make_narrow(self)
        self.list_first(())
        self.activated.connect(lambda: self.chosen.emit(self.dye))

    @property
    def dye(self) -> Dye | None:
        """The chosen dye."""
        return self.currentData()

    def list_first(self, dyes: Sequence[Dye]) -> None:
        """List some dyes before the common ones, and keep the choice."""
        before = self.dye
        self.clear()
        for dye in (*dyes, *(dye for dye in DYES if dye not in dyes)):
            self.addItem(_text(dye), dye)
        if dyes:
            self.insertSeparator(len(dyes))
        self.show_dye(before)

    def show_dye(self, dye: Dye | None) -> None:
        """Show a dye as chosen, or none."""
        self.setCurrentIndex(-1 if dye is None else self.findText(_text(dye)))


def excitation_um(dye: Dye, modality: str) -> float | None:
    """Return the excitation of a dye as a type of microscope needs it; None if it needs none.

    Two photons have twice the wavelength of one.
    """
    factor = {"confocal": 1, "two-photon": 2}.get(modality)
    return factor and factor * dye.excitation_um


def _text(dye: Dye) -> str:
    return f"{dye.name} ({1000 * dye.excitation_um:.0f} / {1000 * dye.emission_um:.0f} nm)"
