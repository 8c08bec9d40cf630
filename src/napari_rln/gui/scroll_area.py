"""A dock's content in an area that scrolls up and down, and is never cut at its sides."""

from qtpy.QtCore import QEvent, QObject, Qt
from qtpy.QtWidgets import QAbstractSpinBox, QComboBox, QScrollArea, QWidget


class Area(QScrollArea):
    """Holds a widget as wide as itself; it cannot be made narrower than that needs.

    A turn of the wheel scrolls, and changes no number or choice that happens to lie below the
    pointer, unless that has the focus.

    Parameters
    ----------
    inside
        The widget.
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
        """Become as wide as the content needs, whenever that changes; keep the wheel to itself."""
        inside = self.widget()
        if watched is inside and event.type() == QEvent.Type.LayoutRequest:
            self._fit()
        elif watched is not inside and event.type() == QEvent.Type.Wheel:
            assert isinstance(watched, QWidget)
            if not watched.hasFocus():
                event.ignore()  # which leaves it to the widgets around
                return True
        return bool(super().eventFilter(watched, event))

    def _fit(self) -> None:
        needed = self.widget().minimumSizeHint().width()
        self.setMinimumWidth(needed + self.verticalScrollBar().sizeHint().width())
        for kind in (QAbstractSpinBox, QComboBox):
            for box in self.widget().findChildren(kind):
                box.setFocusPolicy(Qt.FocusPolicy.StrongFocus)  # else a turn gives it the focus
                box.installEventFilter(self)
