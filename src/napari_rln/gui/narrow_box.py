"""Combo boxes that are narrower than their entries, as in a dock."""

import html
from typing import Any

from qtpy.QtCore import QEvent, QObject, Qt
from qtpy.QtWidgets import QComboBox, QStyle, QStyleOptionComboBox, QStylePainter, QToolTip

_OPENING = (QEvent.Type.MouseButtonPress, QEvent.Type.KeyPress, QEvent.Type.Wheel)
_PADDING = 4  # pixels between the text and the edge of its field


def make_narrow(box: QComboBox, letters: int = 12) -> None:
    """Let a box become narrower than its entries, down to a number of letters.

    A name without room is shortened in the middle and whole in the tooltip; the list of the
    entries is as wide as they are.
    """
    box.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
    box.setMinimumContentsLength(letters)
    box.view().setTextElideMode(Qt.TextElideMode.ElideMiddle)
    box.installEventFilter(_Shortener(box))


class _Shortener(QObject):
    """Filter of the events of a box, which may be one of magicgui's."""

    def __init__(self, box: QComboBox) -> None:
        super().__init__(box)
        self._box = box

    def eventFilter(self, watched: QObject, event: Any) -> bool:
        if event.type() == QEvent.Type.Paint:
            self._paint()
            return True
        if event.type() == QEvent.Type.ToolTip and self._shown() != self._box.currentText():
            name = f"<p>{html.escape(self._box.currentText())}</p>"
            QToolTip.showText(event.globalPos(), name + self._box.toolTip(), self._box)
            return True
        if event.type() in _OPENING:
            view = self._box.view()
            bar = view.verticalScrollBar().sizeHint().width()
            view.setMinimumWidth(view.sizeHintForColumn(0) + bar)
        return False

    def _shown(self) -> str:
        """Return the text that there is room for."""
        box, option = self._box, QStyleOptionComboBox()
        box.initStyleOption(option)
        room = box.style().subControlRect(
            QStyle.ComplexControl.CC_ComboBox,
            option,
            QStyle.SubControl.SC_ComboBoxEditField,
            box,
        )
        metrics, middle = box.fontMetrics(), Qt.TextElideMode.ElideMiddle
        return str(metrics.elidedText(option.currentText, middle, room.width() - _PADDING))

    def _paint(self) -> None:
        painter, option = QStylePainter(self._box), QStyleOptionComboBox()
        self._box.initStyleOption(option)
        painter.drawComplexControl(QStyle.ComplexControl.CC_ComboBox, option)
        if self._box.currentIndex() < 0:
            option.currentText = self._box.placeholderText()
        else:
            option.currentText = self._shown()
        painter.drawControl(QStyle.ControlElement.CE_ComboBoxLabel, option)
        painter.end()
