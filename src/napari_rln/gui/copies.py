"""A run as text, onto the clipboard."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from napari.layers import Layer
from qtpy.QtWidgets import QApplication, QMenu, QPushButton

from napari_rln import script

Run = tuple[script.Verb, dict[str, Any]]


class CopyButton(QPushButton):
    """Copies what would be run now, as a command or as Python.

    Parameters
    ----------
    runs
        Returns verbs and what they take; see :func:`napari_rln.script.command`.
    attempt
        Calls an action and shows what it raises.
    """

    def __init__(
        self, runs: Callable[[], Sequence[Run]], attempt: Callable[[Callable[[], None]], None]
    ) -> None:
        super().__init__()
        self._runs, self._attempt = runs, attempt
        self.setText("Copy as")
        self.setToolTip("<p>Copies the line for a shell, or the Python, that does the same.</p>")
        menu = QMenu(self)
        menu.addAction("Copy as command", self.copy_command)
        menu.addAction("Copy as Python", self.copy_python)
        self.setMenu(menu)

    def copy_command(self) -> None:
        """Copy the line for a shell."""
        self._attempt(lambda: self._copy(script.command))

    def copy_python(self) -> None:
        """Copy the Python."""
        self._attempt(lambda: self._copy(script.python))

    def _copy(self, text: Callable[..., str]) -> None:
        lines = (text(verb, **given) for verb, given in self._runs())
        QApplication.clipboard().setText("\n".join(lines))


def path_of(layer: Layer) -> Path:
    """Return the file that a layer was read from; of others the name that it could have."""
    return Path(layer.source.path or f"{layer.name}.tif")
