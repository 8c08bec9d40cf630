"""List of the methods to run, with their settings."""

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QHBoxLayout, QMenu, QPushButton, QVBoxLayout, QWidget

from napari_rln.core.errors import RlnError
from napari_rln.gui.deconvolve.chosen_method import ChosenMethod
from napari_rln.gui.deconvolve.method_row import CLASSICAL, MethodRow, State
from napari_rln.gui.field_errors import FieldError
from napari_rln.gui.layouts import fill
from napari_rln.gui.library_watcher import LibraryWatcher
from napari_rln.networks.library import Entry
from napari_rln.networks.model import UNIVERSAL


class MethodList(QWidget):
    """Rows of methods, to which others can be added; RLD and the universal network at first."""

    changed = Signal()

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[MethodRow] = []
        self.add_button = QPushButton("Add a method")
        self.add_button.setToolTip(
            "<p>All ticked methods run on the image one after the other. Add those to compare, the "
            "same one with other settings too.</p>"
        )
        menu = QMenu(self)
        menu.setToolTipsVisible(True)
        menu.aboutToShow.connect(lambda: self._fill_menu(menu))
        self.add_button.setMenu(menu)
        self._rows = fill(QVBoxLayout(), margin=0, spacing=2)
        buttons = fill(QHBoxLayout(), self.add_button, margin=0)
        buttons.addStretch(1)
        fill(QVBoxLayout(self), self._rows, buttons, margin=0, spacing=4)
        self.library_watcher = LibraryWatcher(self)
        self.library_watcher.changed.connect(self._name_networks)
        for key in ("rld", UNIVERSAL):
            self.add(key)

    def add(self, key: str) -> MethodRow:
        """Add a row for a classical method, or for a model, by its key; return the row."""
        row = MethodRow(key)
        row.name_by(self._entries())
        row.changed.connect(self.changed)
        row.removed.connect(lambda: self.remove(row))
        self.rows.append(row)
        self._rows.addWidget(row)
        self.changed.emit()
        return row

    def add_model(self, name: str) -> None:
        """Add a model, or tick it if it is in the list."""
        self.library_watcher.check()
        known = next((row for row in self.rows if row.key == name), None)
        (known or self.add(name)).check.setChecked(True)

    def remove(self, row: MethodRow) -> None:
        """Remove a row."""
        self.rows.remove(row)
        self._rows.removeWidget(row)
        row.setVisible(False)
        row.deleteLater()
        self.changed.emit()

    def chosen(self) -> list[ChosenMethod]:
        """Return the ticked methods.

        Raises :class:`RlnError` if none is ticked, two are the same, or settings are not valid.
        """
        entries = self._entries()
        methods = [row.chosen(entries) for row in self.rows if row.is_checked]
        if not methods:
            raise FieldError("tick at least one method, or add one.", self.add_button)
        for i, method in enumerate(methods):
            if method in methods[:i]:
                raise FieldError(
                    f"{method.name} is in the list twice with the same settings; change them, or "
                    "remove one.",
                    [row for row in self.rows if row.is_checked][i].check,
                )
        return methods

    def state(self) -> list[State]:
        """Return the rows in JSON's types; raise a :class:`RlnError` if a setting is not valid."""
        return [row.state() for row in self.rows]

    def restore(self, states: list[State]) -> None:
        """Replace the rows by those of :meth:`state`.

        Raises :class:`RlnError` if a setting is unknown, as of another version; the rows stay.
        """
        before = [*self.rows]
        try:
            for state in states:
                self.add(str(state["key"])).restore(state)
        except (RlnError, KeyError, TypeError) as error:
            for row in self.rows[len(before) :]:
                self.remove(row)
            raise RlnError(f"these settings are of another version ({error}).") from error
        for row in before:
            self.remove(row)

    def _entries(self) -> dict[str, Entry]:
        return {entry.name: entry for entry in self.library_watcher.entries if not entry.error}

    def _name_networks(self) -> None:
        entries = self._entries()
        for row in self.rows:
            row.name_by(entries)
        self.changed.emit()

    def _fill_menu(self, menu: QMenu) -> None:
        self.library_watcher.check()
        menu.clear()
        for key, kind in CLASSICAL.items():
            menu.addAction(kind.name, lambda key=key: self.add(key)).setToolTip(kind.tip)
        menu.addSeparator()
        for name, entry in self._entries().items():
            menu.addAction(f"{entry.architecture} {name}", lambda name=name: self.add(name))
