"""Plots of planes with scale bars and of profiles, in the colours of the viewer."""

import html
from typing import Any

import numpy as np
import numpy.typing as npt
import pyqtgraph as pg
from napari.components import ViewerModel
from napari.utils.colormaps import ensure_colormap
from qtpy.QtCore import QRectF, Qt
from qtpy.QtGui import QFontMetrics
from qtpy.QtWidgets import QFrame

from napari_rln.evaluate.plane_sections import Limits, round_length
from napari_rln.evaluate.profiles import Profile, flanks
from napari_rln.gui.events import follow
from napari_rln.gui.theme import paint_axes, paint_background

MICROMETRE = "\N{MICRO SIGN}m"

_SHADE = 100  # opacity behind a text, up to 255
_SPACING, _TITLE = 4, 20  # pixels between rows, and of a row of titles
_BAR = 0.4  # longest scale bar, as a fraction of a picture's width


class PictureBoard(pg.GraphicsLayoutWidget):
    """A grid of planes and traces, in the colours of the viewer's theme."""

    def __init__(self, viewer: ViewerModel) -> None:
        super().__init__()
        self._viewer = viewer
        self._row_weights: dict[int, float] = {}
        self.setFrameShape(QFrame.Shape.NoFrame)
        self.ci.setContentsMargins(0, 0, 0, 0)
        self.ci.setSpacing(_SPACING)
        follow(self, viewer.events.theme, self.paint)
        self.paint()

    def place(self, item: "Plane | Trace | ColumnTitle", row: int, column: int) -> None:
        """Add an item at a cell."""
        self.addItem(item, row, column)
        self.paint()

    def set_row_weights(self, weights: dict[int, float]) -> None:
        """Divide the height left by other rows by weights; stretch factors would not be exact."""
        self._row_weights = dict.fromkeys(self._row_weights, 0.0) | weights  # 0: empty
        self._fit_rows()

    def resizeEvent(self, event: Any) -> None:
        """Fit the heights of the rows."""
        super().resizeEvent(event)
        if hasattr(self, "_row_weights"):  # not within the constructor
            self._fit_rows()

    def _fit_rows(self) -> None:
        layout, whole = self.ci.layout, sum(self._row_weights.values())
        others = (row for row in range(layout.rowCount()) if row not in self._row_weights)
        left = self.height() - sum(layout.rowMinimumHeight(row) or _TITLE for row in others)
        left -= _SPACING * (layout.rowCount() - 1)
        for row, weight in self._row_weights.items():
            layout.setRowFixedHeight(row, max(1.0, left * weight / whole))

    def paint(self) -> None:
        """Apply the colours of the theme."""
        colour = paint_background(self, self._viewer)
        for item in self.ci.items:
            if isinstance(item, Trace | ColumnTitle):
                item.paint_in(colour)


class ColumnTitle(pg.LabelItem):
    """A name, shortened in the middle to the width of its column, and whole in its tooltip."""

    def __init__(self, name: str) -> None:
        self._name = name
        super().__init__(html.escape(name))
        self.setToolTip(f"<p>{html.escape(name)}</p>")

    def updateMin(self) -> None:
        """Request the height of the text and no width."""
        super().updateMin()
        self.setMinimumWidth(1)
        self.setPreferredWidth(1)

    def resizeEvent(self, event: Any) -> None:
        """Shorten the name to the width."""
        if event is not None:
            elided, metrics = Qt.TextElideMode.ElideMiddle, QFontMetrics(self.item.font())
            self.setText(html.escape(metrics.elidedText(self._name, elided, int(self.width()))))
        super().resizeEvent(event)

    def paint_in(self, colour: str) -> None:
        """Draw the name in a colour."""
        self.setText(self.text, color=colour)


class Plane(pg.ViewBox):
    """A plane of a volume: equal aspect, y or z downwards, title in the corner, scale bar.

    The scale bar is in micrometres unless :attr:`unit` is set.
    """

    def __init__(self, title: str = "") -> None:
        super().__init__(lockAspect=True, invertY=True, enableMenu=False, enableMouse=False)
        self.setDefaultPadding(0)
        self.image = pg.ImageItem(axisOrder="row-major")
        self.cross = [pg.InfiniteLine(angle=angle) for angle in (90, 0)]
        for item in (self.image, *self.cross):
            self.addItem(item)
        self._bar = pg.ScaleBar(1.0, width=3, suffix="", offset=(-8, -8))
        self._bar.setParentItem(self)
        self.unit = MICROMETRE
        self._title, self._label = title, pg.LabelItem(justify="left")
        self._label.setParentItem(self)
        self._label.anchor(itemPos=(0, 0), parentPos=(0, 0), offset=(2, 0))
        self.sigRangeChanged.connect(self._fit_bar)
        self.clear_picture()

    def clear_picture(self) -> None:
        """Hide the picture."""
        self.image.clear()
        for item in (*self.cross, self._bar, self._label):
            item.setVisible(False)
        self.setBackgroundColor(None)

    def show_picture(
        self,
        picture: npt.NDArray[Any],
        size_um: tuple[float, float],
        limits: Limits,
        colormap: Any = "gray",
        *,
        corner_um: tuple[float, float] = (0.0, 0.0),
        gamma: float = 1.0,
    ) -> None:
        """Show a picture, (rows, columns); the visible part stays as :meth:`look_at` set it.

        Sizes and positions are vertical and horizontal; ``limits`` are the intensities of the
        darkest and brightest colour.
        """
        table = ensure_colormap(colormap).map(np.linspace(0, 1, 256) ** gamma)
        self.image.setLookupTable((255 * table).astype(np.uint8))
        self.image.setImage(picture, levels=limits, autoLevels=False)
        (top, left), (height, width) = corner_um, size_um
        self.image.setRect(QRectF(left, top, width, height))
        self.setBackgroundColor(pg.mkColor((255 * table[0, :3]).astype(int)))
        # Visible on dark parts, and by the shade behind it on bright ones.
        colour, shade = ("w", 0) if table[0, :3].mean() < 0.5 else ("k", 255)
        behind = pg.mkColor(shade, shade, shade, _SHADE)
        for item in (self.image, self._bar, self._label):
            item.setVisible(True)
        css = f"background-color: rgba({shade}, {shade}, {shade}, {_SHADE})"
        text = f'<span style="{css}">&nbsp;{self._title}&nbsp;</span>' if self._title else ""
        self._label.setText(text, color=colour, size="8pt")
        self._bar.bar.setBrush(pg.mkBrush(colour))
        self._bar.bar.setPen(pg.mkPen(behind))
        self._bar.text.setColor(colour)
        self._bar.text.fill = pg.mkBrush(behind)

    def look_at(self, centre_um: tuple[float, float], size_um: tuple[float, float]) -> None:
        """Show a region, extended to the shape of the pane."""
        (y, x), (height, width) = centre_um, size_um
        self.setRange(QRectF(x - width / 2, y - height / 2, width, height), padding=0)

    def mark(self, position_um: tuple[float, float], colour: str) -> None:
        """Draw a cross at a position, vertical and horizontal."""
        for line, at in zip(self.cross, position_um[::-1], strict=True):
            line.setValue(at)
            line.setPen(pg.mkPen(colour, width=1, style=Qt.PenStyle.DotLine))
            line.setVisible(True)

    def _fit_bar(self) -> None:
        self._bar.size = round_length(_BAR * self.viewRect().width())
        self._bar.text.setText(f"{self._bar.size:g} {self.unit}")
        self._bar.updateBar()


class Trace(pg.PlotItem):
    """Profiles along an axis, with a title above."""

    def __init__(self) -> None:
        super().__init__(enableMenu=False)
        self._title, self._colour = "", "w"
        self._widths: list[pg.PlotDataItem] = []
        self.hideButtons()
        self.hideAxis("left")
        self.setMouseEnabled(False, False)
        self.getViewBox().setDefaultPadding(0.02)
        self.setYRange(0, 1.05)
        axis = self.getAxis("bottom")
        axis.setStyle(tickLength=4, tickTextOffset=2)
        axis.enableAutoSIPrefix(False)
        axis.setHeight(18)

    def set_title(self, title: str) -> None:
        """Set the title."""
        self._title = title
        self.setTitle(title, color=self._colour, size="8pt")
        self.titleLabel.item.setTextWidth(-1)

    def add(self, profile: Profile, colour: str) -> None:
        """Draw a profile, and its width at half maximum as a line."""
        self.plot(profile.offset_um, profile.value, pen=pg.mkPen(colour, width=1.5))
        peak = int(profile.value.argmax())
        ends = flanks(profile.value, peak) if profile.fwhm_um is not None else None
        if ends:
            at_um = np.interp(ends, np.arange(profile.value.size), profile.offset_um)
            self._widths.append(self.plot(at_um, [profile.value[peak] / 2] * 2))
            self._paint_widths()

    def clear(self) -> None:
        """Remove the profiles."""
        super().clear()
        self._widths = []

    def paint_in(self, colour: str) -> None:
        """Draw axis, title and widths in a colour."""
        self._colour = colour
        self._paint_widths()
        paint_axes(self, colour, "bottom")
        self.set_title(self._title)

    def _paint_widths(self) -> None:
        for line in self._widths:
            line.setPen(pg.mkPen(self._colour, width=1, style=Qt.PenStyle.DashLine))
