"""Intensity profiles of all layers along a line in a plane, with widths."""

import html
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyqtgraph as pg
from napari.components import ViewerModel
from qtpy.QtCore import Signal
from qtpy.QtWidgets import QFrame, QLabel, QVBoxLayout, QWidget

from napari_rln.core.errors import RlnError
from napari_rln.core.volume import VoxelUm
from napari_rln.evaluate.figure_content import Line
from napari_rln.evaluate.profiles import LINE_COLOUR, curve_colours, profile_between
from napari_rln.gui.events import follow
from napari_rln.gui.layouts import fill
from napari_rln.gui.theme import paint_axes, paint_background
from napari_rln.gui.views.sections import SectionColumn

_HEIGHT, _AXIS = 150, 48  # pixels, of the plot at least and of its lower axis


class LineProfile(QWidget):
    """A plot of the intensity along a line in a plane of the first column, and its legend."""

    moved = Signal()

    def __init__(self, viewer: ViewerModel) -> None:
        super().__init__()
        self._viewer = viewer
        self._line: pg.LineSegmentROI | None = None
        self._plane = ""
        self.unit = ""
        self.widths: dict[str, float | None] = {}
        self.plot, self.legend = pg.PlotWidget(enableMenu=False), QLabel(wordWrap=True)
        self.plot.setLabel("left", "normalised")
        self.plot.setMouseEnabled(False, False)
        self.plot.setYRange(0, 1, padding=0.03)
        self.plot.getAxis("left").setTicks([[(value, f"{value:g}") for value in (0, 0.5, 1)]])
        self.plot.getAxis("bottom").enableAutoSIPrefix(False)
        self.plot.getAxis("bottom").setHeight(_AXIS)
        self.plot.setMinimumHeight(_HEIGHT)
        self.plot.setFrameShape(QFrame.Shape.NoFrame)
        fill(QVBoxLayout(self), (self.plot, 1), self.legend, margin=0, spacing=2)
        follow(self, viewer.events.theme, self._paint)
        self._paint()
        self.setVisible(False)

    def _paint(self) -> None:
        """Apply the colours of the theme."""
        colour = paint_background(self.plot, self._viewer)
        paint_axes(self.plot.getPlotItem(), colour, "bottom", "left")

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
        self._line = pg.LineSegmentROI([(end, down) for end in ends], pen=LINE_COLOUR)
        self._line.sigRegionChanged.connect(lambda *_: self.moved.emit())
        section.addItem(self._line)

    def move(self, start: tuple[float, float], stop: tuple[float, float]) -> None:
        """Set the ends of the line (across, down)."""
        assert self._line is not None
        for handle, at in zip(self._line.getHandles(), (start, stop), strict=True):
            self._line.movePoint(handle, pg.Point(*at))

    def line_in(self, column: SectionColumn, position: VoxelUm) -> Line | None:
        """Return the line in the plane of the first column at a position, as for a figure."""
        ends = self._ends(column, position)
        if ends is None:
            return None
        (z0, y0, x0), (z1, y1, x1) = (np.subtract(end, column.corner).tolist() for end in ends)
        return (z0, y0, x0), (z1, y1, x1)

    def _ends(self, column: SectionColumn, position: VoxelUm) -> Line | None:
        """Return the ends (z, y, x) of the line in the world; None without a line."""
        if self._line is None:
            return None
        section = column.sections[self._plane]
        ends = []
        for _, at in self._line.getSceneHandlePositions():
            end = section.mapSceneToView(at)
            point = section.point(end.y(), end.x())
            z, y, x = (p if q is None else q for p, q in zip(position, point, strict=True))
            ends.append((z, y, x))
        start, stop = ends
        return start, stop

    def draw(self, columns: Sequence[SectionColumn], position: VoxelUm) -> None:
        """Plot the profiles of all columns along the line, in the plane at a position."""
        self.plot.clear()
        self.legend.clear()
        self.widths = {}
        ends = self._ends(columns[0], position) if columns else None
        if ends is None:
            return
        self.unit = columns[0].sections[self._plane].unit
        self.plot.setLabel("bottom", f"along the line ({self.unit})")
        rows = []
        for column, color in zip(columns, curve_colours(len(columns)), strict=True):
            first = np.add(column.corner, np.divide(column.voxel, 2))
            start, stop = (np.subtract(end, first).tolist() for end in ends)
            try:
                profile = profile_between(column.data, column.voxel, start, stop)
            except RlnError:  # both ends coincide
                return
            name, width = column.layer.name, profile.fwhm_um
            self.widths[name] = width
            label = _breakable(name)
            if width is not None:
                label = f"{label}, FWHM&nbsp;{width:.3g}&nbsp;{self.unit}"
            rows.append(
                f'<span style="color: {color}">\N{BOX DRAWINGS HEAVY HORIZONTAL}</span> {label}'
            )
            self.plot.plot(profile.offset_um, profile.value, pen=pg.mkPen(color, width=2))
        self.legend.setText("<br>".join(rows))
        self._fit_legend()

    def resizeEvent(self, event: Any) -> None:
        """Fit the legend to the width."""
        super().resizeEvent(event)
        self._fit_legend()

    def _fit_legend(self) -> None:
        """Give the legend the height of its lines, which a splitter does not."""
        height = self.legend.heightForWidth(self.width())
        self.legend.setMinimumHeight(max(height, 0))  # -1 without a text


def _breakable(name: str) -> str:
    """Return a name as HTML that may be wrapped between its parts."""
    return re.sub(r"([_\-./])", "\\1\N{ZERO WIDTH SPACE}", html.escape(name))
