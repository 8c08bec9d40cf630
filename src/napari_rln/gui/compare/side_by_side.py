"""Layers side by side in napari's grid, without taking the view away from the user."""

from collections.abc import Sequence
from weakref import WeakSet

from napari.components import ViewerModel
from napari.layers import Image, Layer
from qtpy.QtCore import QObject, QTimer, Signal

from napari_rln.gui.compare.names import common_size, panel_width, show_names
from napari_rln.gui.events import follow
from napari_rln.gui.layers import is_image, is_psf

_PAUSE_MS = 10  # between two names
_ONE_ROW = 4  # most panels in one row; more are arranged in several


class SideBySide(QObject):
    """Panels of some layers; the others are hidden meanwhile, and shown again afterwards."""

    ended = Signal()  # by the user, with napari's own button

    def __init__(self, viewer: ViewerModel, parent: QObject) -> None:
        super().__init__(parent)
        self._viewer = viewer
        self._hidden: WeakSet[Layer] = WeakSet()
        self._named: WeakSet[Layer] = WeakSet()
        self._is_shown = self._keeps_camera = False
        self._panels: list[list[Layer]] = []
        self._to_name: list[Layer] = []
        self._size = 0.0  # of the names, points
        self._timer = QTimer(self, singleShot=True, interval=_PAUSE_MS)
        self._timer.timeout.connect(self._name_next)
        follow(self, viewer.canvas.grid.events.enabled, self._on_grid)
        follow(self, viewer.layers.events.inserted, self._on_inserted)

    def show(self, panels: Sequence[Sequence[Image]], *, keep_camera: bool = False) -> None:
        """Show panels of layers side by side, in the order of the layers in napari.

        All panels have the same number of layers, such as the channels of an image.

        The camera stays at its place, and its zoom follows the size of the panels, so that each
        shows what the whole canvas did. With ``keep_camera`` it stays in any case.
        """
        viewer, grid, before = self._viewer, self._viewer.canvas.grid, self._fit()
        self._panels = [[*panel] for panel in panels]
        layers = [layer for panel in panels for layer in panel]
        for layer in viewer.layers:
            if layer in layers:
                layer.visible = True
            elif layer.visible:
                self._hide(layer)
        grid.stride = len(panels[0])
        grid.shape = (1, -1) if len(panels) <= _ONE_ROW else (-1, -1)
        self._is_shown, self._keeps_camera = True, keep_camera
        grid.enabled = True
        self._name([panel[0] for panel in panels])
        if not keep_camera:
            viewer.scene.camera.zoom *= self._fit() / before

    def stop(self) -> None:
        """Show layers on top of each other, and those that were hidden."""
        if not self._is_shown:
            return
        before, self._is_shown = self._fit(), False
        self._viewer.canvas.grid.enabled = False
        if not self._keeps_camera:
            self._viewer.scene.camera.zoom *= self._fit() / before
        self._end()

    def _fit(self) -> float:
        """Return the size of a panel, as a fraction of the canvas's narrower side."""
        grid = self._viewer.canvas.grid
        return 1 / max(grid.actual_shape(self._viewer.layers)) if grid.enabled else 1.0

    def _hide(self, layer: Layer) -> None:
        self._hidden.add(layer)
        layer.visible = False

    def _take_new(self) -> None:
        """Give a layer that was added meanwhile, such as a result, a panel of its own."""
        if not self._is_shown:
            return
        panels = [[each for each in panel if each in self._viewer.layers] for panel in self._panels]
        panels = [panel for panel in panels if panel]
        known = {layer for panel in panels for layer in panel}
        new = [layer for layer in self._viewer.layers if layer.visible and layer not in known]
        for layer in [layer for layer in new if is_psf(layer) or not is_image(layer)]:
            self._hide(layer)
            new.remove(layer)
        if new and self._viewer.canvas.grid.stride == 1:
            self.show([*panels, *([layer] for layer in new)], keep_camera=self._keeps_camera)

    def _name(self, layers: Sequence[Layer]) -> None:
        """Show the names of layers on their panels, and of no others.

        napari takes 30 ms for each: other events are handled in between.
        """
        show_names(set(self._named) - {*layers}, False)
        self._named = WeakSet(layers)
        self._to_name = [*layers]
        self._size = common_size(layers, panel_width(self._viewer))
        self._timer.start()

    def _name_next(self) -> None:
        if self._to_name:
            layer = self._to_name.pop(0)
            if layer in self._named and layer in self._viewer.layers:
                show_names([layer], True, size=self._size)
            self._timer.start()

    def _end(self) -> None:
        self._name(())
        hidden, self._hidden = self._hidden, WeakSet()
        for layer in hidden:
            if layer in self._viewer.layers:
                layer.visible = True

    def _on_inserted(self) -> None:
        QTimer.singleShot(0, self._take_new)

    def _on_grid(self) -> None:
        if self._is_shown and not self._viewer.canvas.grid.enabled:
            self._is_shown = False
            self._end()
            self.ended.emit()


def fit_grid(viewer: ViewerModel, panels: Sequence[Sequence[Layer]]) -> bool:
    """Return whether napari's grid can show panels of several layers.

    A panel takes as many layers as the others that follow each other in the list, hidden ones too.
    """
    stride, layers = len(panels[0]), viewer.layers
    places = [{layers.index(layer) // stride for layer in panel} for panel in panels]
    firsts = [min(place) for place in places]
    return all(len(place) == 1 for place in places) and firsts == sorted(set(firsts))
