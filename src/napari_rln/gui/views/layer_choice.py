"""Which layers are shown side by side."""

from napari.components import ViewerModel
from napari.layers import Image
from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import QListWidget, QListWidgetItem

from napari_rln.gui.events import follow

_HEIGHT = 90


class LayerChoice(QListWidget):
    """The viewer's images with ticks; those that lie as the first one does are ticked by itself."""

    changed = Signal()

    def __init__(self, viewer: ViewerModel) -> None:
        super().__init__()
        self._viewer = viewer
        self._named: set[Image] = set()
        self.setMaximumHeight(_HEIGHT)
        for event in ("inserted", "removed", "reordered"):
            follow(self, getattr(viewer.layers.events, event), self._refresh)
        self.itemChanged.connect(self.changed)
        self._refresh()

    @property
    def images(self) -> list[Image]:
        """The layers that can be shown, in the viewer's order from below."""
        layers = self._viewer.layers
        return [layer for layer in layers if isinstance(layer, Image) and not layer.rgb]

    def chosen(self) -> list[Image]:
        """Return the layers that are ticked, in the viewer's order from below."""
        ticked = self._ticks()
        return [layer for layer in self.images if ticked.get(layer) == Qt.CheckState.Checked]

    def _ticks(self) -> dict[Image, Qt.CheckState]:
        """Return whether they are ticked, of the layers in the list."""
        items = (self.item(i) for i in range(self.count()))
        return {item.data(Qt.ItemDataRole.UserRole): item.checkState() for item in items}

    def _refresh(self) -> None:
        ticked, images = self._ticks(), self.images
        self.blockSignals(True)
        self.clear()
        for layer in images:
            item = QListWidgetItem(layer.name, self)
            item.setFlags(item.flags() | Qt.ItemFlag.ItemIsUserCheckable)
            alike = layer.data.shape == images[0].data.shape and layer.visible
            fresh = Qt.CheckState.Checked if alike else Qt.CheckState.Unchecked
            item.setData(Qt.ItemDataRole.UserRole, layer)
            item.setCheckState(ticked.get(layer, fresh))
        self.blockSignals(False)
        for layer in {*images} - self._named:
            follow(self, layer.events.name, self._refresh)
        self._named = {*images}
        self.changed.emit()
