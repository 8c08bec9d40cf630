"""List of models with their PSFs and quality."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import (
    QDialog,
    QFileDialog,
    QHBoxLayout,
    QHeaderView,
    QInputDialog,
    QLabel,
    QMessageBox,
    QPlainTextEdit,
    QPushButton,
    QTreeWidget,
    QVBoxLayout,
    QWidget,
)

from napari_rln.core.errors import RlnError
from napari_rln.gui import preferences
from napari_rln.gui.layouts import fill
from napari_rln.gui.library_watcher import LibraryWatcher
from napari_rln.gui.training.model_summary import COLUMNS, describe, row
from napari_rln.networks.library import Entry
from napari_rln.networks.model import SUFFIX, read_card

_FILTER = f"Models (*{SUFFIX})"
_TIPS = {
    "Rename": "<p>Press it to give the model another name.</p>",
    "Delete": "<p>Press it to delete the model and its file.</p>",
}
_SHIPPED = "<p>This model is a part of napari-rln. Choose one of your own.</p>"


class ModelList(QWidget):
    """A table of the models, the validation of the chosen one, and buttons."""

    changed = Signal()
    use_requested = Signal(str)  # name of the model

    def __init__(self, show_message: Callable[..., None]) -> None:
        super().__init__()
        self._show_message = show_message
        self.library_watcher = LibraryWatcher(self)
        self.tree = QTreeWidget(rootIsDecorated=False, uniformRowHeights=True)
        self.tree.setHeaderLabels(COLUMNS)
        self.tree.setTextElideMode(Qt.TextElideMode.ElideMiddle)
        header = self.tree.header()
        header.setStretchLastSection(False)
        header.setSectionResizeMode(QHeaderView.ResizeMode.Stretch)
        header.setSectionResizeMode(len(COLUMNS) - 1, QHeaderView.ResizeMode.ResizeToContents)
        header.setMinimumSectionSize(40)
        selectable = Qt.TextInteractionFlag.TextSelectableByMouse
        self.details = QLabel(wordWrap=True, textInteractionFlags=selectable)
        self.details.setTextFormat(Qt.TextFormat.RichText)
        self.use_button = self._button(
            "Use this model", self._use, "Press it to add the model to the methods of Deconvolve."
        )
        self.show_button = self._button(
            "Details", self._show, "How it was trained, and on what. Press it to read them all."
        )
        self.rename_button = self._button("Rename", self._rename)
        self.export_button = self._button(
            "Export",
            self._export,
            "Press it to copy the file of the model to another folder, as for somebody else.",
        )
        self.delete_button = self._button("Delete", self._delete)
        self.import_button = self._button(
            "Import", self._import, "Press it to add a model file to the list."
        )
        first = fill(QHBoxLayout(), (self.use_button, 1), (self.show_button, 1))
        files = (self.rename_button, self.export_button, self.delete_button, self.import_button)
        parts = (self.details, first, fill(QHBoxLayout(), *files))
        fill(QVBoxLayout(self), (self.tree, 1), *parts, margin=4)
        self.tree.currentItemChanged.connect(self._on_choice)
        self.tree.itemDoubleClicked.connect(lambda item, column: self._show())
        self.library_watcher.changed.connect(self._fill)
        self._fill()

    @property
    def selected(self) -> str | None:
        """Name of the chosen model."""
        entry = self._entry()
        return entry.name if entry else None

    def select(self, name: str) -> None:
        """Choose a model, if its name is known."""
        for item in self.tree.findItems(name, Qt.MatchFlag.MatchExactly, 0):
            self.tree.setCurrentItem(item)

    def showEvent(self, event: Any) -> None:
        """Update the list."""
        self.library_watcher.check()
        super().showEvent(event)

    def _button(self, text: str, action: Callable[[], None], tip: str = "") -> QPushButton:
        button = QPushButton(text, toolTip=f"<p>{tip}</p>" if tip else "")
        button.clicked.connect(lambda: self._attempt(action))
        return button

    def _attempt(self, action: Callable[[], None]) -> None:
        try:
            action()
        except (RlnError, OSError) as error:
            self._show_message(str(error), error=True)
        self.library_watcher.check()

    def _entry(self) -> Entry | None:
        item = self.tree.currentItem()
        return None if item is None else item.data(0, Qt.ItemDataRole.UserRole)

    def _fill(self) -> None:
        chosen = self.selected
        self.tree.blockSignals(True)
        self.tree.clear()
        for entry in self.library_watcher.entries:
            self.tree.addTopLevelItem(row(entry))
        self.tree.blockSignals(False)
        self.tree.setCurrentItem(self.tree.topLevelItem(0))
        if chosen is not None:
            self.select(chosen)
        self._on_choice()
        self.changed.emit()

    def _on_choice(self, *_: Any) -> None:
        entry = self._entry()
        is_own = entry is not None and entry.path is not None
        for button in (self.rename_button, self.delete_button):
            button.setEnabled(is_own)
            button.setToolTip(_TIPS[button.text()] if is_own else _SHIPPED)
        for button in (self.use_button, self.show_button, self.export_button):
            button.setEnabled(entry is not None and not entry.error)
        self.details.setText(describe(entry) if entry else "")

    def _chosen(self) -> Entry:
        entry = self._entry()
        if entry is None:
            raise RlnError("choose a model in the list.")
        return entry

    def _use(self) -> None:
        self.use_requested.emit(self._chosen().name)

    def _show(self) -> None:
        entry = self._chosen()
        card = read_card(entry.path or entry.name)
        dialog = QDialog(self, windowTitle=entry.name)
        dialog.resize(560, 600)
        text = QPlainTextEdit(json.dumps(card, indent=2, ensure_ascii=False), readOnly=True)
        fill(QVBoxLayout(dialog), QLabel(describe(entry)), (text, 1))
        dialog.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        dialog.open()

    def _rename(self) -> None:
        entry = self._chosen()
        name, accepted = QInputDialog.getText(self, "Rename", "New name:", text=entry.name)
        if accepted and name != entry.name:
            preferences.library().rename(entry.name, name)
            self.library_watcher.check()
            self.select(name)

    def _export(self) -> None:
        entry = self._chosen()
        path, _ = QFileDialog.getSaveFileName(self, "Export", f"{entry.name}{SUFFIX}", _FILTER)
        if path:
            target = Path(path if path.endswith(SUFFIX) else f"{path}{SUFFIX}")
            preferences.library().load(entry.name).save(target)
            self._show_message(f"{entry.name} is exported to {target}")

    def _delete(self) -> None:
        entry = self._chosen()
        answer, question = QMessageBox.StandardButton, f"Delete {entry.name} and its file?"
        buttons = answer.Yes | answer.No
        if QMessageBox.question(self, "Delete", question, buttons, answer.No) == answer.Yes:
            preferences.library().delete(entry.name)

    def _import(self) -> None:
        path, _ = QFileDialog.getOpenFileName(self, "Import", "", _FILTER)
        if path:
            added = preferences.library().add(path)
            self.library_watcher.check()
            self.select(added.name.removesuffix(SUFFIX))
