"""The box in a plane that marks the magnified inset."""

import numpy as np
import pyqtgraph as pg
from qtpy.QtCore import Signal

from napari_rln.core.volume import VoxelUm
from napari_rln.gui.views.sections import SectionColumn

_COLOUR = "#40c0ff"
_FRACTION = 0.25  # of the shorter side, until the user resizes it


class InsetBox(pg.RectROI):
    """A box around the crosshair, which follows when the box is dragged."""

    dragged = Signal(float, float)  # its middle, y and x
    dropped = Signal()

    def __init__(self) -> None:
        super().__init__((0, 0), (1, 1), pen=_COLOUR)
        self._is_sized = self._is_held = False
        self.sigRegionChangeStarted.connect(lambda: self._hold(True))
        self.sigRegionChanged.connect(self._on_change)
        self.sigRegionChangeFinished.connect(lambda: self._hold(False))

    @property
    def middle(self) -> tuple[float, float]:
        """Middle of the box, y and x."""
        (x, y), (height, width) = self.pos(), self.sides
        return y + height / 2, x + width / 2

    @property
    def sides(self) -> tuple[float, float]:
        """Height and width."""
        width, height = self.size()
        return height, width

    def centre(self, column: SectionColumn, position: VoxelUm) -> None:
        """Centre it on a position, but within the plane of a column."""
        if self._is_held:
            return
        _, *extent = column.extent
        _, *corner = column.corner
        wanted = self.sides if self._is_sized else (_FRACTION * min(extent),) * 2
        size = np.minimum(wanted, extent)
        y, x = np.clip(position[1:] - size / 2, corner, np.add(corner, extent) - size)
        self.blockSignals(True)
        self.setSize(size[::-1])
        self.setPos((x, y))
        self.blockSignals(False)

    def _on_change(self) -> None:
        self._is_sized = True
        self.dragged.emit(*self.middle)

    def _hold(self, held: bool) -> None:
        self._is_held = held
        if not held:
            self.dropped.emit()
