"""Choice of a microscope among templates, and saving and deleting of the user's own."""

from collections.abc import Callable
from typing import Any

from qtpy.QtCore import Signal
from qtpy.QtWidgets import (
    QComboBox,
    QHBoxLayout,
    QInputDialog,
    QMenu,
    QMessageBox,
    QToolButton,
    QWidget,
)

from napari_rln.core.errors import RlnError
from napari_rln.gui.layouts import fill
from napari_rln.gui.narrow_box import make_narrow
from napari_rln.psf.templates import MicroscopeTemplate, Templates

_TIP = (
    "<p>Microscopes with their objectives. Choose one to fill in the rows below, or type them and "
    "save them under a name.</p>"
)
_MENU_TIP = "<p>Click to save the rows below as a microscope of your own, or to delete one.</p>"


class TemplateChoice(QWidget):
    """A combo box of templates, and a menu.

    ``make`` returns the template to save under a name, and ``attempt`` calls a function and shows
    its errors.
    """

    chosen = Signal(object)  # the template that the user chose

    def __init__(
        self,
        make: Callable[[str], MicroscopeTemplate],
        attempt: Callable[[Callable[[], None]], None],
    ) -> None:
        super().__init__()
        self._make, self._attempt = make, attempt
        self._known: dict[str, MicroscopeTemplate] = {}  # without damaged ones
        self.box = QComboBox(toolTip=_TIP)
        self.box.setPlaceholderText("choose")
        make_narrow(self.box, 8)
        self.button = QToolButton(text="\N{HORIZONTAL ELLIPSIS}", toolTip=_MENU_TIP)
        self.button.setStyleSheet("QToolButton::menu-indicator { image: none; }")
        self.button.setPopupMode(QToolButton.ToolButtonPopupMode.InstantPopup)
        menu = QMenu(self.button)
        menu.addAction("Save as\N{HORIZONTAL ELLIPSIS}", lambda: self._try(self.save))
        self._delete_action = menu.addAction("Delete", lambda: self._try(self.delete))
        self.button.setMenu(menu)
        fill(QHBoxLayout(self), (self.box, 1), self.button, margin=0)
        self.setToolTip(_TIP)
        self.setFocusProxy(self.box)
        menu.aboutToShow.connect(self._allow)
        self.box.activated.connect(lambda: self._try(self._choose))
        self._fill()

    @property
    def template(self) -> MicroscopeTemplate | None:
        """The chosen template."""
        return self._known.get(self.box.currentText())

    def show_optics(self, optics: dict[str, Any]) -> None:
        """Show the template with these settings as chosen, or none."""
        names = (self.box.currentText(), *self._known)
        fitting = (n for n in names if n in self._known and self._known[n].optics == optics)
        self.box.setCurrentIndex(self.box.findText(next(fitting, "")))

    def save(self) -> None:
        """Ask for a name and save the template; see :meth:`Templates.save` for errors."""
        own = self.template is not None and Templates().is_own(self.template.name)
        text = self.template.name if self.template is not None and own else ""
        name, accepted = QInputDialog.getText(self, "Save microscope", "Name:", text=text)
        if not accepted:
            return
        known = Templates().is_own(name)
        if known and not self._confirmed("Save microscope", f"Replace {name}?"):
            return
        Templates().save(self._make(name), replace=known)
        self._fill()
        self.box.setCurrentText(name)

    def delete(self) -> None:
        """Delete the chosen template, if the user agrees."""
        name = self.box.currentText()
        if self._confirmed("Delete microscope", f"Delete {name} and its file?"):
            Templates().delete(name)
            self._fill()

    def _choose(self) -> None:
        self.chosen.emit(Templates().load(self.box.currentText()))

    def _confirmed(self, title: str, question: str) -> bool:
        answer = QMessageBox.StandardButton
        buttons = answer.Yes | answer.No
        return QMessageBox.question(self, title, question, buttons, answer.No) == answer.Yes

    def _allow(self) -> None:
        self._delete_action.setEnabled(Templates().is_own(self.box.currentText()))

    def _try(self, action: Callable[[], None]) -> None:
        def checked() -> None:
            try:
                action()
            except OSError as error:
                raise RlnError(
                    f"the folder of microscopes cannot be written ({error.strerror}); check "
                    f"{Templates().folder}."
                ) from error

        self._attempt(checked)

    def _fill(self) -> None:
        chosen, templates = self.box.currentText(), Templates()
        self._known = {}
        self.box.clear()
        for name in templates.names():
            self.box.addItem(name)
            try:
                self._known[name] = templates.load(name)
            except RlnError:  # damaged: said why when it is chosen
                continue
        self.box.setCurrentIndex(self.box.findText(chosen))
