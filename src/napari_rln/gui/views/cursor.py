"""Crosshair at the position of napari's sliders, and the box of the magnified inset around it."""

from collections.abc import Sequence
from typing import Any
from weakref import ref

import numpy as np
import numpy.typing as npt
import pyqtgraph as pg
from napari.components import ViewerModel
from qtpy.compat import isalive
from qtpy.QtCore import QObject, Signal

from napari_rln.core.volume import VoxelUm
from napari_rln.gui.layers import units_um
from napari_rln.gui.views.sections import SectionColumn

_COLOUR = "#40c0ff"
_FRACTION = 0.25  # of the shorter side, until the user resizes the box


class Crosshair(QObject):
    """The position of the viewer's sliders; Shift and the mouse over the canvas move it."""

    def __init__(self, viewer: ViewerModel, parent: QObject) -> None:
        super().__init__(parent)
        self._viewer = viewer
        self.own_units: npt.NDArray[np.float64] | None = None
        callbacks, weak = viewer.mouse_move_callbacks, ref(self)

        def moved(viewer: Any, event: Any) -> None:
            crosshair = weak()
            if crosshair is None or not isalive(crosshair):
                callbacks.remove(moved)
            else:
                crosshair._follow_mouse(viewer, event)

        callbacks.append(moved)

    @property
    def position(self) -> VoxelUm:
        """Position (z, y, x)."""
        point = [float(p) for p in self._viewer.dims.point[-3:]]
        z, y, x = ([0.0] * (3 - len(point)) + point) * self._units()
        return float(z), float(y), float(x)

    def move(self, point: Sequence[float | None]) -> None:
        """Move to a point (z, y, x); None keeps the position on an axis."""
        ndim = self._viewer.dims.ndim
        places = {
            axis: at / unit
            for axis, at, unit in zip(range(ndim - 3, ndim), point, self._units(), strict=True)
            if at is not None and axis >= 0  # a plane has no z
        }
        if places:
            self._viewer.dims.set_point([*places], [*places.values()])

    def _units(self) -> npt.NDArray[np.float64]:
        """Return the viewer's units (z, y, x) in those of the columns.

        If its layers have no common unit, napari ignores units, and those of the columns apply.
        """
        units = units_um(self._viewer.layers.units)
        if units is None:
            units = self.own_units
        return np.ones(3) if units is None else np.concatenate([np.ones(3 - len(units)), units])

    def _follow_mouse(self, viewer: Any, event: Any) -> None:
        if "Shift" in event.modifiers:
            at = viewer.cursor.position[-3:]
            here = at * self._units()[-len(at) :]
            self.move([*[None] * (3 - len(at)), *(float(p) for p in here)])


class InsetBox(pg.RectROI):
    """A square around the crosshair, linked to it in both directions."""

    dragged = Signal(float, float)  # its middle, y and x
    dropped = Signal()

    def __init__(self) -> None:
        super().__init__((0, 0), (1, 1), pen=_COLOUR, aspectLocked=True)
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
