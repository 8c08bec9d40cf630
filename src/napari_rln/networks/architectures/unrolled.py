"""Unrolled networks: iterations with the blur by the PSF whose other parts are learnt."""

from typing import ClassVar

from napari_rln.core.errors import RlnError
from napari_rln.core.volume import FloatArray
from napari_rln.networks.architectures.base import Architecture
from napari_rln.networks.architectures.blur import Blur


class Unrolled(Architecture):
    """An architecture with the blur by the PSF as an operator."""

    needs_psf: ClassVar[bool] = True

    def __init__(self) -> None:
        super().__init__()
        self._blur: Blur | None = None

    def bind(self, psf: FloatArray) -> None:
        """Set the PSF, (z, y, x) with sum 1."""
        self._blur = Blur(psf)

    @property
    def blur(self) -> Blur:
        """The blur by the PSF.

        Raises
        ------
        RlnError
            If no PSF has been set.
        """
        if self._blur is None:
            raise RlnError(f"{self.title} needs the PSF; give one (`psf`).")
        return self._blur
