"""Plots of planes and profiles."""

import numpy as np
import pyqtgraph as pg

from napari_rln.evaluate.profiles import profile_at
from napari_rln.gui.pictures import PictureBoard, Trace


def test_a_trace_is_legible_after_a_change_of_the_theme(viewer, qtbot):
    board, trace = PictureBoard(viewer), Trace()
    qtbot.addWidget(board)
    board.place(trace, 0, 0)
    line = np.exp(-np.square(np.linspace(-3, 3, 61)))
    trace.add(profile_at(line.astype(np.float32), 30, 0.1, 3.0), "#e8743b")
    trace.set_title("x")
    _, width = trace.listDataItems()
    for theme in ("light", "dark", "light"):
        viewer.theme = theme
        ground = board.backgroundBrush().color().lightnessF()
        axis = trace.getAxis("bottom")
        colours = [pg.mkPen(width.opts["pen"]).color(), axis.textPen().color(), axis.pen().color()]
        colours.append(pg.mkColor(trace.titleLabel.opts["color"]))
        assert min(abs(colour.lightnessF() - ground) for colour in colours) > 0.4
