"""The box in a plane that marks the magnified inset."""

import numpy as np
import pyqtgraph as pg
from qtpy.QtCore import Signal

from napari_rln.core.volume import VoxelUm
from napari_rln.gui.views.sections import SectionColumn

_COLOUR = "#40c0ff"
_FRACTION = 0.25  # of the shorter side, until the user resizes it


class InsetBox(pg.RectROI):
    """A box around the crosshair, linked to it in both directions."""

    dragged = Signal(float, float)  # its middle, y and x
    dropped = Signal()

    def __init__(self) -> None:
        super().__init__((0, 0), (1, 1), pen=_COLOUR)
        self._is_sized = self._is_dragged = False
        self.sigRegionChangeStarted.connect(lambda: self._drag(True))
        self.sigRegionChanged.connect(self._on_change)
        self.sigRegionChangeFinished.connect(lambda: self._drag(False))

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
        """Centre it on a position, as far as the plane of a column allows."""
        if self._is_dragged:
            return
        _, *extent = column.extent
        _, *corner = column.corner
        sides = self.sides if self._is_sized else (_FRACTION * min(extent),) * 2
        size = np.minimum(sides, extent)
        y, x = np.clip(position[1:] - size / 2, corner, np.add(corner, extent) - size)
        self.blockSignals(True)
        self.setSize(size[::-1])
        self.setPos((x, y))
        self.blockSignals(False)

    def _on_change(self) -> None:
        self._is_sized = True
        self.dragged.emit(*self.middle)

    def _drag(self, is_dragged: bool) -> None:
        self._is_dragged = is_dragged
        if not is_dragged:
            self.dropped.emit()
