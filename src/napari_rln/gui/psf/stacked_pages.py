"""Tabbed pages with the height of the visible page."""

from qtpy.QtWidgets import QFrame, QTabBar, QVBoxLayout, QWidget

from napari_rln.gui.layouts import fill


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
