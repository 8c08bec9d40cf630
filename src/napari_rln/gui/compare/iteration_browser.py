"""Slider through the kept iterations of results."""

from collections.abc import Collection

import numpy as np
from napari.components import ViewerModel
from napari.layers import Layer
from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import QComboBox, QHBoxLayout, QLabel, QSlider, QVBoxLayout, QWidget

from napari_rln.core.report import plural
from napari_rln.gui.deconvolve.streams import ResultStream
from napari_rln.gui.layers import record_of
from napari_rln.gui.layouts import fill
from napari_rln.gui.narrow_box import make_narrow


class IterationBrowser(QWidget):
    """Choice of a result with kept iterations, and a slider that shows them; hidden without one."""

    browsed = Signal()

    def __init__(self, viewer: ViewerModel) -> None:
        super().__init__()
        self._viewer = viewer
        self._streams: list[ResultStream] = []
        self._listed: list[ResultStream] = []
        self.setToolTip("<p>Drag to see the result after fewer iterations.</p>")
        self.box, self.label = QComboBox(), QLabel()
        make_narrow(self.box, 8)
        self.slider = QSlider(Qt.Orientation.Horizontal)
        row = fill(QHBoxLayout(), (self.slider, 1), self.label)
        fill(QVBoxLayout(self), self.box, row, margin=0)
        self.setVisible(False)
        self.box.currentIndexChanged.connect(self._on_choice)
        self.slider.valueChanged.connect(self._browse)

    def add(self, stream: ResultStream) -> None:
        """Take a result, if it has kept iterations; :meth:`list_among` lists it."""
        if stream.iterates:
            self._streams.append(stream)

    def list_among(self, layers: Collection[Layer]) -> None:
        """List the results that are among some layers, and free those of removed ones."""
        chosen = self._chosen()
        self._streams = [s for s in self._streams if s.layer in self._viewer.layers]
        self._listed = [s for s in self._streams if s.layer in layers]
        self.box.blockSignals(True)
        self.box.clear()
        self.box.addItems([s.layer.name for s in self._listed if s.layer is not None])
        if chosen in self._listed:
            self.box.setCurrentIndex(self._listed.index(chosen))
        self.box.blockSignals(False)
        self.setVisible(self.box.count() > 0)
        self._on_choice()

    def _chosen(self) -> ResultStream | None:
        index = self.box.currentIndex()
        return self._listed[index] if 0 <= index < len(self._listed) else None

    def _on_choice(self) -> None:
        stream = self._chosen()
        if stream is None or stream.layer is None:
            return
        iterations = sorted(stream.iterates)
        record = record_of(stream.layer)
        now = record.facts["iterations"] if record else iterations[-1]
        self.slider.blockSignals(True)
        self.slider.setRange(0, len(iterations) - 1)
        self.slider.setValue(int(np.searchsorted(iterations, now)))
        self.slider.blockSignals(False)
        self.label.setText(plural(now, "iteration"))

    def _browse(self, index: int) -> None:
        stream = self._chosen()
        if stream is not None and stream.layer is not None:
            iteration = sorted(stream.iterates)[index]
            stream.browse(iteration)
            self.label.setText(plural(iteration, "iteration"))
            self.box.setItemText(self.box.currentIndex(), stream.layer.name)
            self.browsed.emit()
