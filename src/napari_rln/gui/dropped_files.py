"""Files dragged from a file manager."""

from pathlib import Path

from qtpy.QtCore import QMimeData


def dropped_file(data: QMimeData) -> Path | None:
    """Return the only file that is dragged; None if there is none, or several."""
    paths = [Path(url.toLocalFile()) for url in data.urls() if url.isLocalFile()]
    return paths[0] if len(paths) == 1 else None
