"""Settings that are remembered: of the methods for each image, and all for the next session."""

import contextlib
from typing import Any

from napari.layers import Layer
from qtpy.QtCore import QObject
from qtpy.QtWidgets import QCheckBox

from napari_rln.core.errors import RlnError
from napari_rln.gui.deconvolve.method_list import MethodList
from napari_rln.gui.deconvolve.method_row import State
from napari_rln.gui.remembered import layer_key, remember, remembered

_LAST = "deconvolve"  # key of the last run's; those of an image have its key after it


class Session(QObject):
    """The settings of the last run at first, and of an image when it is chosen.

    What the user has changed in this session is not replaced.
    """

    def __init__(self, methods: MethodList, repair: QCheckBox, autosave: QCheckBox) -> None:
        super().__init__(methods)
        self._methods, self._repair, self._autosave = methods, repair, autosave
        self._restore(_LAST)
        self._autosave.setChecked(bool((remembered(_LAST) or {}).get("autosave")))
        self._is_touched = False
        methods.changed.connect(self._on_change)

    def store(self, image: Layer, states: list[State]) -> None:
        """Store the settings of a run of an image."""
        value: dict[str, Any] = {"methods": states, "repair": self._repair.isChecked()}
        remember(_LAST, value | {"autosave": self._autosave.isChecked()})
        remember(_key(image), value)

    def show_for(self, image: Layer) -> None:
        """Show the settings of the last run of an image, unless the user has changed some."""
        if not self._is_touched:
            self._restore(_key(image))
            self._is_touched = False

    def _restore(self, key: str) -> None:
        """Show stored settings; those of another version are left out."""
        value = remembered(key)
        if value is not None:
            with contextlib.suppress(RlnError, KeyError, TypeError):
                self._methods.restore(value["methods"])
                self._repair.setChecked(bool(value["repair"]))

    def _on_change(self) -> None:
        self._is_touched = True


def _key(image: Layer) -> str:
    return f"{_LAST} {layer_key(image)}"
