"""What to do first, shown while napari has no image."""

from napari.components import ViewerModel
from qtpy.QtWidgets import QLabel, QPushButton, QVBoxLayout, QWidget

from napari_rln.gui.events import follow
from napari_rln.gui.layers import is_image
from napari_rln.gui.layouts import fill


class FirstContact(QWidget):
    """A sentence, and a button that opens the sample; hidden once there is an image."""

    def __init__(self, viewer: ViewerModel) -> None:
        super().__init__()
        self._viewer = viewer
        text = (
            "Open a stack: drop its file onto napari, or use <i>File > Open</i>. The files of most "
            "microscopes state the optics, and then <i>Run</i> is all that is left to do."
        )
        self.button = QPushButton("Try it: open a bead with its PSF")
        self.button.setToolTip(
            "<p>Press it for a widefield image of a hollow bead, then press Run.</p>"
        )
        fill(QVBoxLayout(self), QLabel(text, wordWrap=True), self.button, margin=0)
        self.button.clicked.connect(self._open)
        for event in (viewer.layers.events.inserted, viewer.layers.events.removed):
            follow(self, event, self._refresh)
        if self._has_image():  # shown alone it would be a window
            self.setVisible(False)

    def _open(self) -> None:
        self._viewer.open_sample("napari-rln", "bead")

    def _has_image(self) -> bool:
        return any(is_image(layer) for layer in self._viewer.layers)

    def _refresh(self) -> None:
        self.setVisible(not self._has_image())
