"""Combo boxes narrower than their entries."""

import pytest
from qtpy.QtCore import QEvent, Qt
from qtpy.QtGui import QHelpEvent
from qtpy.QtWidgets import QApplication, QComboBox, QToolTip

from napari_rln.gui.narrow_box import make_narrow

NAME = "2024-03-11 a long name of an experiment \N{MIDDLE DOT} RLD 21 (crop)"


@pytest.mark.parametrize(("width", "is_cut"), [(120, True), (900, False)])
def test_long_names_are_cut_in_the_middle_and_whole_elsewhere(qtbot, width, is_cut):
    box = QComboBox(toolTip="<p>Choose it.</p>")
    make_narrow(box)
    box.addItems([NAME, "short"])
    qtbot.addWidget(box)
    assert box.minimumSizeHint().width() < 250
    box.resize(width, 24)
    box.show()
    drawn = box.grab().toImage()
    box.setItemText(0, NAME[:-6] + "(all!)")  # the end is drawn
    assert box.grab().toImage() != drawn
    box.setItemText(0, NAME[:25] + "-" + NAME[26:])  # the middle only where there is room
    assert (box.grab().toImage() == drawn) is is_cut
    box.setItemText(0, NAME)

    event = QHelpEvent(QEvent.Type.ToolTip, box.rect().center(), box.mapToGlobal(box.pos()))
    QApplication.sendEvent(box, event)
    assert (NAME in QToolTip.text()) is is_cut
    assert "Choose it." in QToolTip.text()
    qtbot.mousePress(box, Qt.MouseButton.LeftButton)
    assert box.view().width() >= box.fontMetrics().horizontalAdvance(NAME)
    box.hidePopup()
    QToolTip.hideText()
