"""Channels of one file, deconvolved in one run with a PSF each."""

from napari.components import ViewerModel
from napari.layers import Image, Layer
from qtpy.QtCore import Signal
from qtpy.QtWidgets import QCheckBox, QFormLayout, QLabel, QVBoxLayout, QWidget

from napari_rln.gui.events import follow
from napari_rln.gui.layers import CHANNEL, SERIES, is_image, is_psf, optics_of
from napari_rln.gui.layouts import fill
from napari_rln.gui.pickers import LayerPicker

FROM_FILE = "computed from the file"
_AS_ABOVE = "as above"
_MOST_LETTERS = 16  # of a channel's label


class Channels(QWidget):
    """Rows of the channels beside the chosen one, with a PSF each; hidden where there are none.

    The chosen channel is deconvolved with the PSF above these rows.
    """

    changed = Signal()

    def __init__(self, viewer: ViewerModel) -> None:
        super().__init__()
        self._viewer = viewer
        self._image: Layer | None = None
        self._file: str | None = None  # whose channels were last shown
        self._by_hand = False  # whether the user has ticked or unticked the box for it
        self._others: list[Image] = []
        self.psfs: dict[Image, LayerPicker] = {}  # by the layer of a channel
        tip = (
            "<p>Deconvolve every channel of the file, each with its own PSF. Untick it to "
            "deconvolve the chosen channel alone.</p>"
        )
        self.all = QCheckBox(toolTip=tip)
        self._rows = QWidget()
        self._form = fill(QFormLayout(self._rows), margin=0, spacing=2)
        fill(QVBoxLayout(self), self.all, self._rows, margin=0, spacing=2)
        self.setVisible(False)
        self.all.toggled.connect(self._on_all)
        self.all.clicked.connect(self._on_hand)
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

    def _refresh(self) -> None:
        others = [] if self._image is None else siblings(self._viewer, self._image)
        if others == self._others and self._others:
            return
        has_more = len(others) > len(self._others)  # napari adds the layers of a file one by one
        self._others = others
        # Rows of other files stay, hidden: what was chosen there is not lost.
        for layer in [each for each in self.psfs if each not in self._viewer.layers]:
            self._form.removeRow(self.psfs.pop(layer))
        for layer in others:
            if layer not in self.psfs:
                self._add_row(layer)
        for layer, picker in self.psfs.items():
            self._form.setRowVisible(picker, layer in others)
        file = None if self._image is None else self._image.source.path
        if file != self._file:
            self._file, self._by_hand, has_more = file, False, True
        if has_more and not self._by_hand:
            self.all.setChecked(bool(others) and all(map(_is_known, (self._image, *others))))
        self.all.setText(f"All {len(others) + 1} channels of the file")
        self.setVisible(bool(others))
        self._on_all()

    def _add_row(self, layer: Image) -> None:
        none = FROM_FILE if _is_known(layer) else _AS_ABOVE
        picker = LayerPicker(self._viewer, prefer=lambda _: False, optional=none)
        picker.setToolTip("<p>The PSF of this channel. Choose its layer.</p>")
        picker.changed.connect(self.changed)
        self.psfs[layer] = picker
        self._form.addRow(QLabel(_short(layer.name), toolTip=f"<p>{layer.name}</p>"), picker)

    def _on_hand(self) -> None:
        self._by_hand = True

    def _on_all(self) -> None:
        self._rows.setVisible(self.all.isChecked())
        self.changed.emit()


def siblings(viewer: ViewerModel, image: Layer) -> list[Image]:
    """Return layers of the other channels of an image's file, one for each."""
    path, own = image.source.path, image.metadata.get(CHANNEL)
    if path is None or own is None:
        return []
    found: dict[int, Image] = {}
    for layer in viewer.layers:
        channel = layer.metadata.get(CHANNEL)
        if (
            is_image(layer)
            and not is_psf(layer)
            and layer.source.path == path
            and layer.metadata.get(SERIES) == image.metadata.get(SERIES)
            and channel not in (None, own)
            and layer.data.shape == image.data.shape
        ):
            found.setdefault(channel, layer)
    return [*found.values()]


def _is_known(layer: Layer | None) -> bool:
    """Return whether a layer's file states enough for a PSF."""
    optics = None if layer is None else optics_of(layer)
    return optics is not None and optics.is_known


def _short(name: str) -> str:
    """Return the end of a name, which differs between channels."""
    return name if len(name) <= _MOST_LETTERS else f"\N{HORIZONTAL ELLIPSIS}{name[-_MOST_LETTERS:]}"
