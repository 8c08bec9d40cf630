"""Errors of one field, which gets visible and focused."""

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QScrollArea, QTabWidget, QWidget

from napari_rln.core.errors import RlnError
from napari_rln.gui.layouts import Collapsible


class FieldError(RlnError):
    """An error in the value of one field, with its widget."""

    def __init__(self, message: str, field: QWidget) -> None:
        super().__init__(message)
        self.field = field


def show_field(field: QWidget) -> None:
    """Open the collapsed parts and tabs around a field, scroll to it and focus it."""
    parent = field.parentWidget()
    while parent is not None and not parent.isWindow():
        if isinstance(parent, Collapsible):
            parent.open()
        elif isinstance(parent, QTabWidget):
            pages = (parent.widget(i) for i in range(parent.count()))
            parent.setCurrentWidget(next(page for page in pages if page.isAncestorOf(field)))
        elif isinstance(parent, QScrollArea):
            parent.ensureWidgetVisible(field)
        parent = parent.parentWidget()
    field.setFocus(Qt.FocusReason.OtherFocusReason)
