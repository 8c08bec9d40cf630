"""Notification of changes of the model library."""

from qtpy.QtCore import QFileSystemWatcher, QObject, Signal

from napari_rln.gui import preferences
from napari_rln.networks.library import Entry


class LibraryWatcher(QObject):
    """Tells when models come or go, whoever made or deleted them.

    Where the system cannot tell, such as on a network drive, :meth:`check` when it matters.
    """

    changed = Signal()

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._watcher = QFileSystemWatcher(self)
        self._entries: tuple[Entry, ...] = ()
        self._watcher.directoryChanged.connect(self.check)
        self.check()

    @property
    def entries(self) -> tuple[Entry, ...]:
        """The models that there were at the last look."""
        return self._entries

    def check(self) -> None:
        """Look now."""
        library = preferences.library()
        # Until the first model is saved there is no such folder.
        folders = [library.folder, *library.folder.parents]
        folder = str(next(each for each in folders if each.is_dir()))
        watched = self._watcher.directories()
        if watched != [folder]:
            if watched:
                self._watcher.removePaths(watched)
            self._watcher.addPath(folder)
        entries = library.entries()
        if entries != self._entries:
            self._entries = entries
            self.changed.emit()
