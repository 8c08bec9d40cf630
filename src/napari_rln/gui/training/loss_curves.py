"""Plots of the quality on held-out volumes, with that of classical methods, and of the loss."""

import math
from collections.abc import Sequence

import numpy as np
import pyqtgraph as pg
from napari.components import ViewerModel
from qtpy.QtCore import QSize, Qt
from qtpy.QtWidgets import QLabel, QVBoxLayout, QWidget

from napari_rln.gui.events import follow
from napari_rln.gui.layouts import fill
from napari_rln.gui.theme import paint_axes, paint_background
from napari_rln.train.training_settings import Baseline, Quality

_SMOOTHING = 30  # steps
_COLOURS = {"RLN": "#2f8fe0", "RLD": "#e0782f", "WB": "#3aa657"}  # visible on any theme
_DOT, _DASHES = "\N{BLACK CIRCLE}", "\N{BOX DRAWINGS LIGHT DOUBLE DASH HORIZONTAL}" * 2
_TEST = "Quality on test volumes (dB)"


class _Graphics(pg.GraphicsLayoutWidget):
    """A canvas with a size for docks; pyqtgraph's default is 640 pixels wide."""

    def sizeHint(self) -> QSize:
        return QSize(380, 360)


class Curves(QWidget):
    """A plot of the quality, one of the loss, and a legend with the last values below."""

    def __init__(self, viewer: ViewerModel) -> None:
        super().__init__()
        self._viewer = viewer
        self._graphics = _Graphics()
        self._quality = self._graphics.addPlot(row=0, col=0)
        self._loss = self._graphics.addPlot(row=1, col=0)
        self._quality.setXLink(self._loss)
        self._lines = {"RLD": self._line("RLD"), "WB": self._line("WB")}
        for plot in (self._loss, self._quality):
            plot.setMenuEnabled(False)
            plot.hideButtons()
            plot.setMouseEnabled(x=False, y=False)
            plot.getAxis("left").setWidth(44)  # so that the two align
            plot.getAxis("left").enableAutoSIPrefix(False)
            plot.getAxis("bottom").enableAutoSIPrefix(False)
        self._loss.setLabel("bottom", "Training step")
        self._graphics.ci.layout.setRowStretchFactor(0, 3)
        self._graphics.ci.layout.setRowStretchFactor(1, 2)
        self._raw = self._loss.plot()
        self._smoothed = self._loss.plot(pen=pg.mkPen(_COLOURS["RLN"], width=2), antialias=True)
        symbols = {"symbol": "o", "symbolSize": 6, "symbolPen": None}
        pen, brush = pg.mkPen(_COLOURS["RLN"], width=2), _COLOURS["RLN"]
        self._validated = self._quality.plot(pen=pen, symbolBrush=brush, antialias=True, **symbols)
        self.summary = QLabel(wordWrap=True)
        fill(QVBoxLayout(self), (self._graphics, 1), self.summary, margin=0)
        self._graphics.setMinimumHeight(240)
        follow(self, viewer.events.theme, self._paint)
        self._paint()
        self.clear()

    def clear(self) -> None:
        """Clear the plots."""
        self.steps: list[int] = []
        self.losses: list[float] = []
        self.smoothed: list[float] = []
        self.qualities: list[tuple[int, Quality]] = []
        self._baseline: Baseline | None = None
        self._best_step = 0
        for curve in (self._raw, self._smoothed, self._validated):
            curve.setData([], [])
        for line in self._lines.values():
            line.setVisible(False)
        self.summary.clear()

    def add_losses(self, losses: Sequence[tuple[int, float]], total: int) -> None:
        """Add losses by step to the plot, whose axis has the steps of the whole training."""
        self._loss.setXRange(0, max(total, 1), padding=0.02)
        for step, loss in losses:
            if not math.isfinite(loss):
                continue
            count = min(len(self.losses) + 1, _SMOOTHING)
            before = self.smoothed[-1] if self.smoothed else loss
            self.steps.append(step)
            self.losses.append(loss)
            self.smoothed.append(before + (loss - before) / count)
        # There are fewer pixels than points.
        thin = slice(None, None, 1 + len(self.steps) // 2000)
        self._raw.setData(self.steps[thin], self.losses[thin])
        self._smoothed.setData(self.steps[thin], self.smoothed[thin])
        if self.losses:
            low, high = np.percentile(self.losses[thin], (0.5, 99.5))
            self._loss.setYRange(low, high, padding=0.1)

    def add_quality(self, step: int, quality: Quality, best_step: int) -> None:
        """Add the quality at a step to the plot, and show the best step."""
        self._best_step = best_step
        self.qualities.append((step, quality))
        self._validated.setData(
            [step for step, _ in self.qualities], [q.psnr_db for _, q in self.qualities]
        )
        self._fit()

    def show_baseline(self, baseline: Baseline | None) -> None:
        """Show the quality of classical methods."""
        if baseline is None or baseline == self._baseline:
            return
        self._baseline = baseline
        for name, quality in (("RLD", baseline.rld), ("WB", baseline.wiener_butterworth)):
            if quality is not None:  # none for pairs without a PSF
                self._lines[name].setVisible(True)
                self._lines[name].setValue(quality.psnr_db)
        self._fit()

    def _paint(self) -> None:
        """Apply the colours of the theme."""
        colour = paint_background(self._graphics, self._viewer)
        faint = pg.mkColor(colour)
        faint.setAlpha(70)
        self._raw.setPen(pg.mkPen(faint, width=1))
        for plot, title in ((self._quality, _TEST), (self._loss, "Error on training patches")):
            plot.setTitle(title, color=colour, size="9pt")
            paint_axes(plot, colour, "left", "bottom")

    def _line(self, name: str) -> pg.InfiniteLine:
        pen = pg.mkPen(_COLOURS[name], width=1.5, style=Qt.PenStyle.DashLine)
        line = pg.InfiniteLine(angle=0, pen=pen)
        self._quality.addItem(line, ignoreBounds=True)
        return line

    def _fit(self) -> None:
        """Fit the axis to all qualities but the image's, which is far lower."""
        values, rows = [quality.psnr_db for _, quality in self.qualities], []
        if self.qualities:
            best = f"; best so far: step {self._best_step}" if self._best_step else ""
            rows.append(f"{_mark('RLN', _DOT)} network now {values[-1]:.2f} dB{best}")
        if self._baseline is not None:
            classical = (
                ("RLD", "best RLD", self._baseline.rld),
                ("WB", "best Wiener-Butterworth", self._baseline.wiener_butterworth),
            )
            for name, text, quality in classical:
                if quality is not None:
                    values.append(quality.psnr_db)
                    rows.append(f"{_mark(name, _DASHES)} {text} {quality.psnr_db:.2f} dB")
            values = values or [self._baseline.image.psnr_db]
            rows.append(f"image before deconvolution {self._baseline.image.psnr_db:.2f} dB")
        low, high = min(values), max(values)
        room = max(0.2 * (high - low), 0.15)
        self._quality.setYRange(low - room, high + room, padding=0)
        self.summary.setText("<br>".join(rows))


def _mark(name: str, sign: str) -> str:
    """Return a sign of the legend in the colour of a curve, as rich text."""
    return f"<span style='color: {_COLOURS[name]}'>{sign}</span>"
