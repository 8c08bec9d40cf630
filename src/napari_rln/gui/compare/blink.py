"""Two layers, with their channels, in one canvas one after the other."""

from collections.abc import Sequence

from napari.components import ViewerModel
from napari.layers import Layer
from qtpy.QtCore import QObject, Signal

from napari_rln.gui.compare.names import panel_width, show_names
from napari_rln.gui.compare.stage import Sides, Stage, check_sides
from napari_rln.gui.events import follow


class Blink(QObject):
    """Two sides in turn, at the same place; the names of their layers show which one it is."""

    ended = Signal()

    def __init__(self, viewer: ViewerModel, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._viewer = viewer
        self._sides: Sides | None = None
        self._stage: Stage | None = None
        follow(self, viewer.layers.events.removed, self._on_removed)

    @property
    def is_on(self) -> bool:
        """Whether two sides are compared."""
        return self._sides is not None

    def start(self, before: Sequence[Layer | None], after: Sequence[Layer | None]) -> None:
        """Show layers, and hide others until :meth:`toggle`.

        Raises :class:`RlnError` if they are not images.
        """
        sides = check_sides(before, after)
        self.stop()
        both = [*sides[0], *sides[1]]
        self._sides, self._stage = sides, Stage(self._viewer, both)
        self._show(0)
        coloured = len(both) > 2
        show_names(both, True, width=panel_width(self._viewer), coloured=coloured)

    def toggle(self) -> None:
        """Show the other side."""
        if self._sides is not None:
            self._show(int(self._sides[0][0].visible))

    def stop(self) -> None:
        """Show again what was shown before."""
        if self._sides is None or self._stage is None:
            return
        before, after = self._sides
        show_names([*before, *after], False)
        stage, self._sides, self._stage = self._stage, None, None
        stage.end()
        self.ended.emit()

    def _show(self, shown: int) -> None:
        assert self._sides is not None
        for i, layers in enumerate(self._sides):
            for layer in layers:
                layer.visible = i == shown

    def _on_removed(self) -> None:
        layers = self._viewer.layers
        if self._sides and not all(layer in layers for side in self._sides for layer in side):
            self.stop()
