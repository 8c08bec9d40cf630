"""Files dragged from a file manager."""

from collections.abc import Callable
from pathlib import Path

from qtpy.QtCore import QEvent, QMimeData, QObject
from qtpy.QtGui import QDragEnterEvent, QDropEvent
from qtpy.QtWidgets import QWidget


class FileDrops(QObject):
    """Calls a function with the path of a single file that is dropped on a widget."""

    def __init__(self, widget: QWidget, opened: Callable[[Path], None]) -> None:
        super().__init__(widget)
        self._opened = opened
        widget.setAcceptDrops(True)
        widget.installEventFilter(self)

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        """Accept a file that is dragged, and pass on one that is dropped."""
        if not isinstance(event, QDragEnterEvent | QDropEvent):
            return False
        if event.type() not in (QEvent.Type.DragEnter, QEvent.Type.Drop):
            return False
        path = dropped_file(event.mimeData())
        if path is not None:
            event.acceptProposedAction()
            if event.type() == QEvent.Type.Drop:
                self._opened(path)
        return True


def dropped_file(data: QMimeData) -> Path | None:
    """Return the only file that is dragged; None if there is none, or several."""
    paths = [Path(url.toLocalFile()) for url in data.urls() if url.isLocalFile()]
    return paths[0] if len(paths) == 1 else None
