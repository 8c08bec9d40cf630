"""Tabbed pages, as high as the visible one."""

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QFrame, QTabBar, QVBoxLayout, QWidget


class StackedPages(QWidget):
    """Tabbed pages; Qt's tab widget is always as high as its highest page."""

    changed = Signal()

    def __init__(self) -> None:
        super().__init__()
        self.tabs = QTabBar()
        self.tabs.setExpanding(False)
        self.tabs.setDrawBase(False)
        frame = QFrame()
        frame.setFrameShape(QFrame.Shape.StyledPanel)
        self._inside = QVBoxLayout(frame)
        self._inside.setContentsMargins(0, 0, 0, 0)
        self._pages: list[QWidget] = []
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(0)
        layout.addWidget(self.tabs)
        layout.addWidget(frame)
        self.tabs.currentChanged.connect(self._show_current)

    def add(self, title: str, page: QWidget) -> None:
        """Add a page."""
        self._pages.append(page)
        self._inside.addWidget(page)
        self.tabs.addTab(title)
        self._show_current()

    def show_page(self, page: QWidget) -> None:
        """Show a page."""
        self.tabs.setCurrentIndex(self._pages.index(page))

    def _show_current(self) -> None:
        for i, page in enumerate(self._pages):
            page.setVisible(i == self.tabs.currentIndex())
