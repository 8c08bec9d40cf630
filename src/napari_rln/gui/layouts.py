"""Layouts in one call, and containers of widgets."""

from collections.abc import Callable
from typing import Any, TypeVar

from qtpy.QtCore import QEvent, QObject, Qt
from qtpy.QtWidgets import (
    QAbstractSpinBox,
    QComboBox,
    QFormLayout,
    QFrame,
    QLayout,
    QPushButton,
    QScrollArea,
    QTabBar,
    QToolButton,
    QVBoxLayout,
    QWidget,
)

PAGE_MARGIN = 5
"""Margin of a page of the dock in pixels."""

L = TypeVar("L", bound=QLayout)


def fill(
    layout: L,
    *parts: QWidget | QLayout | tuple[Any, ...],
    margin: int | None = None,
    spacing: int | None = None,
) -> L:
    """Add widgets and layouts to a box or form layout, and return it.

    Parameters
    ----------
    layout
        The layout.
    *parts
        Widgets and layouts, each alone, or with its stretch factor in a box, or after its label in
        a form.
    margin, spacing
        Pixels; the style's by default.
    """
    if margin is not None:
        layout.setContentsMargins(margin, margin, margin, margin)
    if spacing is not None:
        layout.setSpacing(spacing)
    for part in parts:
        arguments = part if isinstance(part, tuple) else (part,)
        if isinstance(layout, QFormLayout):
            layout.addRow(*arguments)
        elif isinstance(arguments[0], QLayout):
            layout.addLayout(*arguments)
        else:
            layout.addWidget(*arguments)
    return layout


def button(text: str, tip: str, action: Callable[[], Any]) -> QPushButton:
    """Return a button with a tooltip, which calls a function when it is clicked."""
    made = QPushButton(text, toolTip=f"<p>{tip}</p>")
    made.clicked.connect(lambda: action())
    return made


class Collapsible(QWidget):
    """A collapsible part of a form, collapsed at first, below a button with a text."""

    def __init__(self, text: str, body: QWidget) -> None:
        super().__init__()
        self.button = QToolButton()
        self.button.setText(text)
        self.button.setCheckable(True)
        self.button.setToolButtonStyle(Qt.ToolButtonStyle.ToolButtonTextBesideIcon)
        self.button.setAutoRaise(True)
        self._body = body
        fill(QVBoxLayout(self), self.button, body, margin=0)
        self.button.toggled.connect(self._show)
        self._show(False)

    def open(self) -> None:
        """Expand it."""
        self.button.setChecked(True)

    def _show(self, on: bool) -> None:
        arrow = Qt.ArrowType.DownArrow if on else Qt.ArrowType.RightArrow
        self.button.setArrowType(arrow)
        self._body.setVisible(on)


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


class StackedPages(QWidget):
    """Tabbed pages; Qt's tab widget always has the height of its tallest page."""

    def __init__(self) -> None:
        super().__init__()
        self.tabs = QTabBar()
        self.tabs.setExpanding(False)
        self.tabs.setDrawBase(False)
        frame = QFrame()
        frame.setFrameShape(QFrame.Shape.StyledPanel)
        self._inside = fill(QVBoxLayout(frame), margin=0)
        self._pages: list[QWidget] = []
        fill(QVBoxLayout(self), self.tabs, frame, margin=0, spacing=0)
        self.tabs.currentChanged.connect(self._show_current)

    def add(self, title: str, page: QWidget) -> None:
        """Add a page."""
        self._pages.append(page)
        self._inside.addWidget(page)
        self.tabs.addTab(title)
        self._show_current()

    def _show_current(self) -> None:
        for i, page in enumerate(self._pages):
            page.setVisible(i == self.tabs.currentIndex())
