"""PSFs computed from what the files of the images state about the microscope."""

import html
from weakref import WeakKeyDictionary

from napari.components import ViewerModel
from napari.layers import Image, Layer
from qtpy.QtCore import Signal
from qtpy.QtWidgets import QLabel, QPushButton, QVBoxLayout, QWidget

from napari_rln.core.errors import RlnError
from napari_rln.core.volume import Volume
from napari_rln.gui.deconvolve.channels import FROM_FILE
from napari_rln.gui.deconvolve.chosen_method import StatedPsf
from napari_rln.gui.forms import with_labels
from napari_rln.gui.layers import COMPUTED, LayerImage, is_psf, layer_data, optics_of
from napari_rln.gui.layouts import fill
from napari_rln.gui.pickers import VolumePicker
from napari_rln.psf.from_optics import CompletedOptics, GivenOptics, complete_optics

_NONE = "none"
_NO_PSF = "No PSF yet: choose its layer above, or get one."


class StatedPsfs(QWidget):
    """The PSFs of images for which none is chosen, and a note on that of the chosen image.

    Where its file states too little there is a button to get one.
    """

    page_requested = Signal(str)
    psf_shown = Signal(object)  # its layer, for the page PSF

    def __init__(self, viewer: ViewerModel, image: VolumePicker, psf: VolumePicker) -> None:
        super().__init__()
        self._viewer, self._image, self._psf = viewer, image, psf
        self._known: WeakKeyDictionary[Layer, StatedPsf] = WeakKeyDictionary()  # by image
        self.note = QLabel(wordWrap=True)
        self.button = QPushButton("Get a PSF")
        self.button.setToolTip("<p>Go to the page PSF to compute, measure or open one.</p>")
        tip = "<p>Click to look at the computed PSF on the page PSF.</p>"
        self.show_button = QPushButton("Show PSF", toolTip=tip)
        self.show_button.clicked.connect(self._show)
        fill(QVBoxLayout(self), self.note, self.button, self.show_button, margin=0)
        self.setVisible(False)
        self.button.clicked.connect(lambda: self.page_requested.emit("PSF"))
        image.changed.connect(self._on_image)
        psf.changed.connect(self.refresh)

    def psf_of(self, image: LayerImage) -> StatedPsf | None:
        """Return the PSF by the optics that an image's file states; None if it states too little.

        Raises :class:`RlnError` if the file contradicts itself.
        """
        found = stated_psf(image)
        if found is None:
            return None
        before = self._known.get(image.layer)
        if before is not None and before.key == found.key:
            return before
        self._known[image.layer] = found
        return found

    def refresh(self) -> None:
        """Show what is known now, as after a PSF was computed."""
        image = self._image.layer
        shown = image is not None and self._psf.layer is None
        if self.parent() is not None:  # else it would be a window
            self.setVisible(shown)
        if image is not None:
            self.note.setText(_note(image))
            self.button.setVisible(not is_known(image))
            psf = self._known.get(image)
            self.show_button.setVisible(psf is not None and psf.is_computed)

    def _show(self) -> None:
        """Show the computed PSF of the image on the page PSF, as a layer that is hidden."""
        psf = self._known[self._image.layer].read()
        layer = next((each for each in self._viewer.layers if each.data is psf.data), None)
        if layer is None:
            layer = self._viewer.add_layer(psf_layer(psf))
        self.psf_shown.emit(layer)

    def _on_image(self) -> None:
        """Leave a PSF that the user has not chosen for an image with its own; and take it again."""
        image = self._image.layer
        has_own = image is not None and is_known(image)
        self._psf.set_none(FROM_FILE if has_own else _NONE)
        if not self._psf.is_chosen_by_hand:
            if has_own:
                self._psf.suggest(None)
            elif self._psf.layer is None:
                self._psf.suggest_preferred()
        self.refresh()


def psf_layer(psf: Volume) -> Image:
    """Return a layer of a PSF that was computed for its image, hidden so as not to lie over it."""
    data, options, _ = layer_data(psf, colormap="magma")
    options["metadata"] |= {COMPUTED: True}
    return Image(data, **options, visible=False)


def is_offered(layer: Layer) -> bool:
    """Return whether a layer is a PSF for any image, not one that was computed for its own."""
    return is_psf(layer) and COMPUTED not in layer.metadata


def stated_psf(image: LayerImage) -> StatedPsf | None:
    """Return the PSF by the optics that an image's file states; None if it states too little.

    Raises :class:`RlnError` if the file contradicts itself.
    """
    known = _completed(image.layer)
    return None if known is None else StatedPsf(image=image, known=known)


def is_known(layer: Layer) -> bool:
    """Return whether a layer's file states enough to compute the PSF."""
    try:
        return _completed(layer) is not None
    except RlnError:
        return False


def _completed(layer: Layer) -> CompletedOptics | None:
    """Return the microscope of a layer; None if too little is known.

    Raises :class:`RlnError` if the file contradicts itself.
    """
    optics = optics_of(layer)
    if optics is None or not optics.is_known:
        return None
    return complete_optics(optics, GivenOptics(), name=layer.name)


def _note(layer: Layer) -> str:
    """Return what the file states, what is assumed, or what is missing, as rich text."""
    optics = optics_of(layer)
    if optics is None:
        return _NO_PSF
    try:
        advice = " on the page PSF, or choose a PSF"
        known = complete_optics(optics, GivenOptics(), name=layer.name, otherwise=advice)
    except RlnError as error:
        return html.escape(f"{_NO_PSF} {with_labels(str(error))}")
    lines = (html.escape(f"{line[:1].upper()}{line[1:]}.") for line in known.lines())
    return " ".join(["<i>Run</i> computes the PSF.", *lines])
