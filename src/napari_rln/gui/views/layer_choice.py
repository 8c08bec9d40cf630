"""Choice of the layers to show side by side."""

import html

from napari.components import ViewerModel
from napari.layers import Image
from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import QListWidget, QListWidgetItem

from napari_rln.gui.events import follow
from napari_rln.gui.layers import is_image, is_psf

_ROWS = 4


class LayerChoice(QListWidget):
    """The viewer's images with checkboxes; by default visible ones with the shape of the first."""

    changed = Signal()

    def __init__(self, viewer: ViewerModel) -> None:
        super().__init__()
        self._viewer = viewer
        self.setTextElideMode(Qt.TextElideMode.ElideMiddle)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        for event in ("inserted", "removed", "reordered", "renamed"):
            follow(self, getattr(viewer.layers.events, event), self._refresh)
        self.itemChanged.connect(self.changed)
        self._refresh()

    @property
    def images(self) -> list[Image]:
        """The images, from bottom to top of the viewer's list."""
        layers = self._viewer.layers
        return [layer for layer in layers if is_image(layer) and not layer.rgb]

    def chosen(self) -> list[Image]:
        """Return the checked images, from bottom to top of the viewer's list."""
        states = self._states()
        return [layer for layer in self.images if states.get(layer) == Qt.CheckState.Checked]

    def _states(self) -> dict[Image, Qt.CheckState]:
        """Return the check state of each layer in the list."""
        items = (self.item(i) for i in range(self.count()))
        return {item.data(Qt.ItemDataRole.UserRole): item.checkState() for item in items}

    def _refresh(self) -> None:
        states, images = self._states(), self.images
        self.blockSignals(True)
        self.clear()
        shown = [layer for layer in images if layer.visible and not is_psf(layer)]
        for layer in images:
            item = QListWidgetItem(layer.name, self)
            item.setToolTip(f"<p>{html.escape(layer.name)}: tick it to show it.</p>")
            item.setFlags(item.flags() | Qt.ItemFlag.ItemIsUserCheckable)
            comparable = layer in shown and layer.data.shape == shown[0].data.shape
            default = Qt.CheckState.Checked if comparable else Qt.CheckState.Unchecked
            item.setData(Qt.ItemDataRole.UserRole, layer)
            item.setCheckState(states.get(layer, default))
        self.blockSignals(False)
        rows = min(max(self.count(), 2), _ROWS)
        line = self.sizeHintForRow(0) if images else self.fontMetrics().height()
        self.setFixedHeight(rows * line + 2 * self.frameWidth())
        self.changed.emit()
