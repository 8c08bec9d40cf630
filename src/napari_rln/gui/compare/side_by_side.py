"""Layers side by side in napari's grid, without taking the view away from the user."""

from collections.abc import Sequence
from weakref import WeakSet

from napari.components import ViewerModel
from napari.layers import Image, Layer
from qtpy.QtCore import QObject, QTimer, Signal

from napari_rln.gui.compare.names import panel_width, show_names
from napari_rln.gui.events import follow

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
        self._is_shown = False
        self._to_name: list[Layer] = []
        self._timer = QTimer(self, singleShot=True, interval=_PAUSE_MS)
        self._timer.timeout.connect(self._name_next)
        follow(self, viewer.canvas.grid.events.enabled, self._on_grid)

    @property
    def is_shown(self) -> bool:
        """Whether layers stand side by side."""
        return self._is_shown

    def show(self, panels: Sequence[Sequence[Image]], *, keep_camera: bool = False) -> None:
        """Show panels of layers side by side, in the order of the layers in napari.

        All panels have the same number of layers, such as the channels of an image.

        When they stand side by side already the camera stays at its place, and its zoom changes
        only with the size of the panels. With ``keep_camera`` it stays in any case.
        """
        viewer, grid = self._viewer, self._viewer.canvas.grid
        layers = [layer for panel in panels for layer in panel]
        was_shown, before = self._is_shown and grid.enabled, self._cells()
        for layer in viewer.layers:
            if layer in layers:
                layer.visible = True
            elif layer.visible:
                self._hidden.add(layer)
                layer.visible = False
        grid.stride = len(panels[0])
        grid.shape = (1, -1) if len(panels) <= _ONE_ROW else (-1, -1)
        self._is_shown = True
        grid.enabled = True
        self._name([panel[0] for panel in panels])
        if keep_camera:
            return
        if not was_shown:
            viewer.reset_view()
        else:
            # Cells keep their field of view: napari would keep the size of a voxel on the screen.
            ratios = (old / new for old, new in zip(before, self._cells(), strict=True))
            viewer.scene.camera.zoom *= min(1.0, *ratios)

    def stop(self, *, keep_camera: bool = False) -> None:
        """Show layers on top of each other, and those that were hidden."""
        if not self._is_shown:
            return
        self._is_shown = False
        self._viewer.canvas.grid.enabled = False
        self._end()
        if not keep_camera:
            self._viewer.reset_view()

    def _cells(self) -> tuple[int, int]:
        rows, columns = self._viewer.canvas.grid.actual_shape(self._viewer.layers)
        return rows, columns

    def _name(self, layers: Sequence[Layer]) -> None:
        """Show the names of layers on their panels, and of no others.

        napari takes 30 ms for each: other events are handled in between.
        """
        show_names(set(self._named) - {*layers}, False)
        self._named = WeakSet(layers)
        self._to_name = [*layers]
        self._timer.start()

    def _name_next(self) -> None:
        if self._to_name:
            layer = self._to_name.pop(0)
            if layer in self._named and layer in self._viewer.layers:
                show_names([layer], True, width=panel_width(self._viewer))
            self._timer.start()

    def _end(self) -> None:
        self._name(())
        hidden, self._hidden = self._hidden, WeakSet()
        for layer in hidden:
            if layer in self._viewer.layers:
                layer.visible = True

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
