"""Channels of one file, deconvolved in one run with a PSF each."""

from napari.components import ViewerModel
from napari.layers import Image, Layer
from qtpy.QtCore import Signal
from qtpy.QtWidgets import QCheckBox, QFormLayout, QLabel, QVBoxLayout, QWidget

from napari_rln.gui.events import follow
from napari_rln.gui.layers import CHANNEL, SERIES, is_image, is_psf, optics_of
from napari_rln.gui.layouts import fill
from napari_rln.gui.pickers import LayerPicker

_MOST_LETTERS = 16  # of a channel's label
_FROM_FILE = "computed from the file"
_AS_ABOVE = "as above"


class Channels(QWidget):
    """Rows of the channels beside the chosen one, with a PSF each; hidden where there are none.

    The chosen channel is deconvolved with the PSF above these rows.
    """

    changed = Signal()

    def __init__(self, viewer: ViewerModel) -> None:
        super().__init__()
        self._viewer = viewer
        self._image: Layer | None = None
        self._others: list[Image] = []
        self.psfs: dict[Image, LayerPicker] = {}  # by the layer of a channel
        tip = (
            "<p>Deconvolve every channel of the file, each with its own PSF. Untick it to "
            "deconvolve the chosen channel alone.</p>"
        )
        self.all = QCheckBox(toolTip=tip)
        self._rows = QWidget()
        fill(QFormLayout(self._rows), margin=0, spacing=2)
        fill(QVBoxLayout(self), self.all, self._rows, margin=0, spacing=2)
        self.setVisible(False)
        self.all.toggled.connect(self._on_all)
        for event in (viewer.layers.events.inserted, viewer.layers.events.removed):
            follow(self, event, self._refresh)

    def show_for(self, image: Layer | None) -> None:
        """Show the other channels of an image's file."""
        self._image = image
        self._refresh()

    @property
    def others(self) -> list[Image]:
        """The other channels to deconvolve too."""
        return self._others if self.all.isChecked() else []

    def psf_of(self, channel: Image) -> Layer | None:
        """Return the chosen PSF of another channel; None for that of its file, or the one above."""
        return self.psfs[channel].layer

    def choose_psf(self, channel: Image, psf: Layer) -> None:
        """Choose the PSF of another channel."""
        if channel in self.psfs:
            self.psfs[channel].layer = psf

    def _refresh(self) -> None:
        others = [] if self._image is None else siblings(self._viewer, self._image)
        if others == self._others:
            return
        self._others, self.psfs = others, {}
        rows = self._rows.layout()
        while rows.rowCount():
            rows.removeRow(0)
        for layer in others:
            none = _AS_ABOVE if optics_of(layer) is None else _FROM_FILE
            picker = LayerPicker(self._viewer, prefer=lambda _: False, optional=none)
            picker.setToolTip("<p>The PSF of this channel. Choose its layer.</p>")
            picker.changed.connect(self.changed)
            self.psfs[layer] = picker
            label = QLabel(_short(layer.name), toolTip=f"<p>{layer.name}</p>")
            rows.addRow(label, picker)
        known = [optics_of(layer) for layer in (self._image, *others) if layer is not None]
        self.all.setChecked(bool(others) and all(each and each.is_known for each in known))
        self.all.setText(f"All {len(others) + 1} channels of the file")
        self.setVisible(bool(others))
        self._on_all()

    def _on_all(self) -> None:
        self._rows.setVisible(self.all.isChecked())
        self.changed.emit()


def siblings(viewer: ViewerModel, image: Layer) -> list[Image]:
    """Return the layers with other channels of an image's file."""
    path = image.source.path
    if path is None or CHANNEL not in image.metadata:
        return []
    return [
        layer
        for layer in viewer.layers
        if layer is not image
        and is_image(layer)
        and not is_psf(layer)
        and layer.source.path == path
        and CHANNEL in layer.metadata
        and layer.metadata.get(SERIES) == image.metadata.get(SERIES)
        and layer.data.shape == image.data.shape
    ]


def _short(name: str) -> str:
    """Return the end of a name, which differs between channels."""
    return name if len(name) <= _MOST_LETTERS else f"\N{HORIZONTAL ELLIPSIS}{name[-_MOST_LETTERS:]}"
