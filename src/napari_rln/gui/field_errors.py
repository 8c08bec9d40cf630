"""Errors of one field, which is then opened, scrolled to and focused."""

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QScrollArea, QTabWidget, QToolButton, QVBoxLayout, QWidget

from napari_rln.core.errors import RlnError


class FieldError(RlnError):
    """An error in the value of one field.

    Parameters
    ----------
    sentence
        The problem, and what to do.
    field
        The widget of the value.
    """

    def __init__(self, sentence: str, field: QWidget) -> None:
        super().__init__(sentence)
        self.field = field


class Fold(QWidget):
    """A collapsible part of a form, collapsed at first.

    Parameters
    ----------
    text
        Text of the button above it.
    body
        Content.
    """

    def __init__(self, text: str, body: QWidget) -> None:
        super().__init__()
        self.button = QToolButton()
        self.button.setText(text)
        self.button.setCheckable(True)
        self.button.setToolButtonStyle(Qt.ToolButtonStyle.ToolButtonTextBesideIcon)
        self.button.setAutoRaise(True)
        self._body = body
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.button)
        layout.addWidget(body)
        self.button.toggled.connect(self._show)
        self._show(False)

    def open(self) -> None:
        """Expand it."""
        self.button.setChecked(True)

    def _show(self, on: bool) -> None:
        arrow = Qt.ArrowType.DownArrow if on else Qt.ArrowType.RightArrow
        self.button.setArrowType(arrow)
        self._body.setVisible(on)


def point_at(field: QWidget) -> None:
    """Open the collapsed parts and tabs around a field, scroll to it, and focus it."""
    parent = field.parentWidget()
    while parent is not None:
        if isinstance(parent, Fold):
            parent.open()
        elif isinstance(parent, QTabWidget):
            pages = (parent.widget(i) for i in range(parent.count()))
            parent.setCurrentWidget(next(page for page in pages if page.isAncestorOf(field)))
        elif isinstance(parent, QScrollArea):
            parent.ensureWidgetVisible(field)
        parent = parent.parentWidget()
    field.setFocus(Qt.FocusReason.OtherFocusReason)
