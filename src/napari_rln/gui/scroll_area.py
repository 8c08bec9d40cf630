"""Vertically scrolling area of a dock's content."""

from qtpy.QtCore import QEvent, QObject, Qt
from qtpy.QtWidgets import QAbstractSpinBox, QComboBox, QScrollArea, QWidget


class ScrollArea(QScrollArea):
    """A vertically scrolling area, at least as wide as its content.

    The wheel scrolls; it changes a number or choice below the pointer only if that has the focus.
    """

    def __init__(self, inside: QWidget) -> None:
        super().__init__()
        self.setWidget(inside)
        self.setWidgetResizable(True)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.setFrameShape(QScrollArea.Shape.NoFrame)
        inside.installEventFilter(self)
        self._fit()

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        """Follow the width of the content, and filter wheel events of inputs without focus."""
        inside = self.widget()
        if watched is inside and event.type() == QEvent.Type.LayoutRequest:
            self._fit()
        elif watched is not inside and event.type() == QEvent.Type.Wheel:
            assert isinstance(watched, QWidget)
            if not watched.hasFocus():
                event.ignore()  # so that the parents get it
                return True
        return bool(super().eventFilter(watched, event))

    def _fit(self) -> None:
        needed = self.widget().minimumSizeHint().width()
        self.setMinimumWidth(needed + self.verticalScrollBar().sizeHint().width())
        for kind in (QAbstractSpinBox, QComboBox):
            for box in self.widget().findChildren(kind):
                box.setFocusPolicy(Qt.FocusPolicy.StrongFocus)  # no focus by the wheel
                box.installEventFilter(self)
