"""Watcher of the model library, which reports new and deleted models."""

from qtpy.QtCore import QFileSystemWatcher, QObject, Signal

from napari_rln.gui import preferences
from napari_rln.networks.library import Entry


class LibraryWatcher(QObject):
    """Signal when models are added or deleted, by any program.

    Call :meth:`check` where the system does not report changes, such as on a network drive.
    """

    changed = Signal()
    entries: tuple[Entry, ...] = ()

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._watcher = QFileSystemWatcher(self)
        self._watcher.directoryChanged.connect(self.check)
        self.check()

    def check(self) -> None:
        """Read the library, and signal changes."""
        library = preferences.library()
        # The folder does not exist before the first model is saved.
        folders = [library.folder, *library.folder.parents]
        folder = str(next(each for each in folders if each.is_dir()))
        watched = self._watcher.directories()
        if watched != [folder]:
            if watched:
                self._watcher.removePaths(watched)
            self._watcher.addPath(folder)
        entries = library.entries()
        if entries != self.entries:
            self.entries = entries
            self.changed.emit()
