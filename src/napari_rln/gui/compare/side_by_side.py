"""Layers side by side in napari's grid, without taking the view away from the user."""

from collections.abc import Collection, Sequence
from weakref import WeakKeyDictionary, WeakSet

from napari.components import ViewerModel
from napari.layers import Image, Layer
from qtpy.QtCore import QObject, QTimer, Signal

from napari_rln.gui.compare.names import common_look, panel_width, show_names
from napari_rln.gui.events import follow
from napari_rln.gui.layers import is_image, is_psf

_PAUSE_MS = 10  # between the names of two panels
_ONE_ROW = 4  # most panels in one row; more are arranged in several


class SideBySide(QObject):
    """Panels of some layers; all are shown or hidden afterwards as they were before."""

    ended = Signal()  # by the user, with napari's own button

    def __init__(self, viewer: ViewerModel, parent: QObject) -> None:
        super().__init__(parent)
        self._viewer = viewer
        self._visible: WeakKeyDictionary[Layer, bool] = WeakKeyDictionary()  # before
        self._named: WeakSet[Layer] = WeakSet()
        self._tiling: str | None = None  # of names at the right, before
        self._is_shown = self._keeps_camera = False
        self._panels: list[list[Layer]] = []
        self._columns = 0  # as of show
        self._to_name: list[tuple[list[Layer], float, str]] = []  # with size in points, and corner
        self._timer = QTimer(self, singleShot=True, interval=_PAUSE_MS)
        self._timer.timeout.connect(self._name_next)
        follow(self, viewer.canvas.grid.events.enabled, self._on_grid)
        follow(self, viewer.layers.events.inserted, self._on_inserted)

    def show(
        self,
        panels: Sequence[Sequence[Image]],
        *,
        columns: int = 0,
        hidden: Collection[Image] = (),
        keep_camera: bool = False,
    ) -> None:
        """Show panels of layers side by side, which follow each other in napari's list.

        All panels have the same number of layers, such as the channels of an image. Some of them
        may be ``hidden``, and only keep the place of those with other layers below.

        The camera stays at its place, and its zoom follows the size of the panels, so that each
        shows what the whole canvas did. With ``keep_camera`` it stays in any case.
        """
        viewer, grid, before = self._viewer, self._viewer.canvas.grid, self._fit()
        self._panels, self._columns = [[*panel] for panel in panels], columns
        layers = {layer for panel in panels for layer in panel} - {*hidden}
        shape = (-1, columns or (len(panels) if len(panels) <= _ONE_ROW else -1))
        if not self._is_arranged(panels, layers, shape):
            self._is_shown = False  # switching it off is not the user's doing
            grid.enabled = False  # each change would arrange it again
            place_for_grid(viewer, panels)
            for layer in viewer.layers:
                self._set_visible(layer, layer in layers)
            grid.stride, grid.shape = len(panels[0]), shape
            grid.enabled = True
        self._is_shown, self._keeps_camera = True, keep_camera
        tiling = viewer.canvas.overlay_tiling
        self._tiling = self._tiling or tiling.top_right
        tiling.top_right = "vertical"  # names of channels one per line
        self._name([[layer for layer in panel if layer in layers] for panel in panels])
        if not keep_camera:
            viewer.scene.camera.zoom *= self._fit() / before

    def _is_arranged(
        self, panels: Sequence[Sequence[Layer]], shown: set[Layer], shape: tuple[int, int]
    ) -> bool:
        """Return whether the viewer shows some layers in panels already."""
        grid, layers = self._viewer.canvas.grid, self._viewer.layers
        return (
            grid.enabled
            and (grid.stride, tuple(grid.shape)) == (len(panels[0]), shape)
            and {layer for layer in layers if layer.visible} == shown
            and fits_grid(self._viewer, panels)
        )

    def stop(self) -> None:
        """Show layers on top of each other, as before."""
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

    def _set_visible(self, layer: Layer, on: bool) -> None:
        if layer.visible != on:
            self._visible.setdefault(layer, layer.visible)
            layer.visible = on

    def _take_new(self) -> None:
        """Give a layer that was added meanwhile, such as a result, a panel of its own."""
        if not self._is_shown:
            return
        panels = [[each for each in panel if each in self._viewer.layers] for panel in self._panels]
        panels = [panel for panel in panels if panel]
        known = {layer for panel in panels for layer in panel}
        new = [layer for layer in self._viewer.layers if layer.visible and layer not in known]
        for layer in [layer for layer in new if is_psf(layer) or not is_image(layer)]:
            self._set_visible(layer, False)
            new.remove(layer)
        if new and self._viewer.canvas.grid.stride == 1:
            panels += [[layer] for layer in new]
            self.show(panels, columns=self._columns, keep_camera=self._keeps_camera)

    def _name(self, panels: Sequence[Sequence[Layer]]) -> None:
        """Show the names of the layers on their panels, and of no others.

        napari draws again for each panel: other events are handled in between.
        """
        layers = [layer for panel in panels for layer in panel]
        show_names(set(self._named) - {*layers}, False)
        self._named = WeakSet(layers)
        row, width = self._columns or len(panels) or 1, panel_width(self._viewer)
        self._to_name = []
        for first in range(0, len(panels), row):
            beside = panels[first : first + row]
            look = common_look([layer for panel in beside for layer in panel], width)
            self._to_name += [([*panel], *look) for panel in beside]
        self._timer.start()

    def _name_next(self) -> None:
        if self._to_name:
            panel, size, corner = self._to_name.pop(0)
            shown = [each for each in panel if each in self._named and each in self._viewer.layers]
            show_names(shown, True, size=size, position=corner, coloured=len(panel) > 1)
            self._timer.start()

    def _end(self) -> None:
        self._name(())
        self._viewer.canvas.overlay_tiling.top_right, self._tiling = self._tiling, None
        visible, self._visible = self._visible, WeakKeyDictionary()
        for layer, was_visible in visible.items():
            if layer in self._viewer.layers:
                layer.visible = was_visible

    def _on_inserted(self) -> None:
        QTimer.singleShot(0, self._take_new)

    def _on_grid(self) -> None:
        if self._is_shown and not self._viewer.canvas.grid.enabled:
            self._is_shown = False
            self._end()
            self.ended.emit()


def fits_grid(viewer: ViewerModel, panels: Sequence[Sequence[Layer]]) -> bool:
    """Return whether napari's grid shows panels of several layers in their order.

    A panel takes as many layers as the others that follow each other in the list, hidden ones too.
    """
    stride, layers = len(panels[0]), viewer.layers
    places = [{layers.index(layer) // stride for layer in panel} for panel in panels]
    firsts = [min(place) for place in places]
    return all(len(place) == 1 for place in places) and firsts == sorted(set(firsts))


def place_for_grid(viewer: ViewerModel, panels: Sequence[Sequence[Layer]]) -> None:
    """Move the layers of panels below all others where napari's grid would mix them up.

    One by one: napari's ``move_multiple`` mixes up layers that do not follow each other.
    """
    if not fits_grid(viewer, panels):
        for place, layer in enumerate(layer for panel in panels for layer in panel):
            viewer.layers.move(viewer.layers.index(layer), place)
