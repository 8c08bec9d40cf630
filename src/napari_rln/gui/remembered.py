"""What the docks remember between sessions, in a file of the user's configuration folder."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import platformdirs
from napari.layers import Layer

from napari_rln.core.errors import warn
from napari_rln.gui.layers import CHANNEL, SERIES
from napari_rln.io.json_file import change_json

_KEPT = 300  # values; the longest unused go first


def remember(key: str, value: dict[str, Any]) -> None:
    """Store a value of JSON's types; a failure to read or write the file is ignored."""
    change(key, lambda _: value)


def change(key: str, changed: Callable[[dict[str, Any] | None], dict[str, Any]]) -> None:
    """Store what a function makes of the value stored last, also by another process.

    A failure to read or write the file is ignored.
    """

    def all_changed(known: dict[str, Any]) -> dict[str, Any]:
        before = known.pop(key, None)  # the order is that of storing
        known[key] = changed(before if isinstance(before, dict) else None)
        return dict([*known.items()][-_KEPT:])

    change_json(_path(), _read, all_changed)


def remembered(key: str) -> dict[str, Any] | None:
    """Return the value stored last; None without one.

    A damaged file counts as empty, with a warning.
    """
    try:
        value = _read().get(key)
    except OSError:
        return None
    return value if isinstance(value, dict) else None


def layer_key(layer: Layer) -> str:
    """Return a key of a layer: file, image and channel, or without a file its name and shape."""
    path = layer.source.path
    if not path:
        shape = layer.data.shape  # of all axes
        return f"{layer.name} {' '.join(map(str, shape))}"
    parts = {"image": layer.metadata.get(SERIES), "channel": layer.metadata.get(CHANNEL)}
    numbers = (f"{name} {number}" for name, number in parts.items() if number is not None)
    return " ".join([str(Path(path).absolute()), *numbers])


def _path() -> Path:
    return platformdirs.user_config_path("napari-rln", appauthor=False) / "remembered.json"


def _read() -> dict[str, Any]:
    """Return all values; empty if the file is absent or damaged.

    Raises :class:`OSError` if it exists but cannot be read, as it must not be replaced then.
    """
    path = _path()
    try:
        known = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except ValueError as error:
        warn(f"the settings of earlier sessions in {path} are damaged and ignored ({error}).")
        return {}
    return known if isinstance(known, dict) else {}
