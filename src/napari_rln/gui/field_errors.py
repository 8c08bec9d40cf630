"""Errors of one field, which gets visible and focused."""

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QScrollArea, QTabWidget, QToolButton, QVBoxLayout, QWidget

from napari_rln.core.errors import RlnError
from napari_rln.gui.layouts import fill


class FieldError(RlnError):
    """An error in the value of one field, with its widget."""

    def __init__(self, message: str, field: QWidget) -> None:
        super().__init__(message)
        self.field = field


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


def show_field(field: QWidget) -> None:
    """Open the collapsed parts and tabs around a field, scroll to it and focus it."""
    parent = field.parentWidget()
    while parent is not None:
        if isinstance(parent, Collapsible):
            parent.open()
        elif isinstance(parent, QTabWidget):
            pages = (parent.widget(i) for i in range(parent.count()))
            parent.setCurrentWidget(next(page for page in pages if page.isAncestorOf(field)))
        elif isinstance(parent, QScrollArea):
            parent.ensureWidgetVisible(field)
        parent = parent.parentWidget()
    field.setFocus(Qt.FocusReason.OtherFocusReason)
