"""Intensity profiles of all layers along a line in a plane, with widths."""

from collections.abc import Sequence
from itertools import cycle

import numpy as np
import pyqtgraph as pg
from napari.components import ViewerModel
from qtpy.QtCore import Signal
from qtpy.QtWidgets import QFrame

from napari_rln.core.errors import RlnError
from napari_rln.core.volume import VoxelUm
from napari_rln.evaluate.profiles import profile_between
from napari_rln.gui.events import follow
from napari_rln.gui.theme import paint_axes, paint_background
from napari_rln.gui.views.sections import SectionColumn

_COLORS = ("#b0b0b0", "#ff7f0e", "#2ca0ff", "#33c56b", "#e377c2", "#e6c229")
# Heights in pixels: minimum of the plot, axis, margin below it, line of the legend.
_HEIGHT, _AXIS, _BELOW, _LINE = 180, 40, 6, 21


class LineProfile(pg.PlotWidget):
    """A plot of the intensity along a line, which lies in a plane of the first column."""

    moved = Signal()

    def __init__(self, viewer: ViewerModel) -> None:
        super().__init__(enableMenu=False)
        self._viewer = viewer
        self._line: pg.LineSegmentROI | None = None
        self._plane = ""
        self.getAxis("bottom").enableAutoSIPrefix(False)
        self.unit = ""
        self.setLabel("left", "normalised")
        self._legend = self.addLegend(offset=(-10, 5), labelTextSize="8pt")
        self.setMouseEnabled(False, False)
        self.getAxis("left").setTicks([[(value, f"{value:g}") for value in (0, 0.5, 1)]])
        self.getAxis("bottom").setHeight(_AXIS)
        self.getPlotItem().layout.setContentsMargins(0, 0, 0, _BELOW)  # the label overlaps it
        self.setMinimumHeight(_HEIGHT)
        self.setFrameShape(QFrame.Shape.NoFrame)
        follow(self, viewer.events.theme, self._paint)
        self._paint()
        self.setVisible(False)
        self.widths: dict[str, float | None] = {}

    def _paint(self) -> None:
        """Apply the colours of the theme."""
        colour = paint_background(self, self._viewer)
        paint_axes(self.getPlotItem(), colour, "bottom", "left")
        self._legend.setLabelTextColor(colour)

    def draw_on(self, column: SectionColumn, plane: str, position: VoxelUm) -> None:
        """Draw the line in a plane of a column, through a position; no line without a plane."""
        self._plane = plane
        self.setVisible(bool(plane))
        if not plane:
            self._line = None
            return
        rect, section = column.rect(plane), column.sections[plane]
        down = position[1] if plane == "xy" else position[0]
        ends = (rect.left() + 0.25 * rect.width(), rect.left() + 0.75 * rect.width())
        self._line = pg.LineSegmentROI([(end, down) for end in ends], pen=_COLORS[1])
        self._line.sigRegionChanged.connect(lambda *_: self.moved.emit())
        section.addItem(self._line)

    def move(self, start: tuple[float, float], stop: tuple[float, float]) -> None:
        """Set the ends of the line (across, down)."""
        assert self._line is not None
        for handle, at in zip(self._line.getHandles(), (start, stop), strict=True):
            handle.setPos(self._line.mapFromParent(pg.Point(*at)))
        self._line.stateChanged()

    def draw(self, columns: Sequence[SectionColumn], position: VoxelUm) -> None:
        """Plot the profiles of all columns along the line, in the plane at a position."""
        self.clear()
        self.widths = {}
        if self._line is None or not columns:
            return
        section = columns[0].sections[self._plane]
        ends = []
        for _, at in self._line.getSceneHandlePositions():
            end = section.mapSceneToView(at)
            point = section.point(end.y(), end.x())
            ends.append([p if q is None else q for p, q in zip(position, point, strict=True)])
        self.unit = section.unit
        self.setLabel("bottom", f"along the line ({self.unit})")
        curves = self.height() - _AXIS - _BELOW
        legend = min(_LINE * (len(columns) + 1), 0.7 * curves)
        self.setYRange(0, curves / (curves - legend), padding=0.03)  # legend above the curves
        for column, color in zip(columns, cycle(_COLORS), strict=False):
            first = np.add(column.corner, np.divide(column.voxel, 2))
            start, stop = (np.subtract(end, first).tolist() for end in ends)
            try:
                profile = profile_between(column.data, column.voxel, start, stop)
            except RlnError:  # both ends coincide
                return
            name, width = column.layer.name, profile.fwhm_um
            self.widths[name] = width
            label = name if width is None else f"{name}, FWHM {width:.3g} {self.unit}"
            self.plot(profile.offset_um, profile.value, pen=pg.mkPen(color, width=2), name=label)
