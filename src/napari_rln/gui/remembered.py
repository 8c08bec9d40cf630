"""What the docks remember between sessions, in a file of the user's configuration folder."""

import json
from pathlib import Path
from typing import Any

import filelock
import platformdirs
from napari.layers import Layer

from napari_rln.core.errors import warn
from napari_rln.gui.layers import CHANNEL
from napari_rln.io.paths import atomic

_KEPT = 300  # values; the longest unused go first


def remember(key: str, value: dict[str, Any]) -> None:
    """Store a value of JSON's types; a failure to write the file is ignored."""
    path = _path()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(path.with_suffix(".lock"), timeout=1):
            known = _read()
            known.pop(key, None)  # the order is that of storing
            known[key] = value
            with atomic(path) as temporary:
                kept = dict([*known.items()][-_KEPT:])
                temporary.write_text(json.dumps(kept), encoding="utf-8")
    except (OSError, filelock.Timeout):
        return


def remembered(key: str) -> dict[str, Any] | None:
    """Return the value stored last; None without one.

    A damaged file counts as empty, with a warning.
    """
    value = _read().get(key)
    return value if isinstance(value, dict) else None


def layer_key(layer: Layer) -> str:
    """Return a key of a layer: its file and channel, or without a file its name and shape."""
    path = layer.source.path
    if not path:
        shape = layer.data.shape  # of all axes
        return f"{layer.name} {' '.join(map(str, shape))}"
    channel = layer.metadata.get(CHANNEL)
    return str(Path(path).absolute()) + ("" if channel is None else f" channel {channel}")


def _path() -> Path:
    return platformdirs.user_config_path("napari-rln", appauthor=False) / "remembered.json"


def _read() -> dict[str, Any]:
    path = _path()
    try:
        known = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        warn(f"the settings of earlier sessions in {path} are damaged and ignored ({error}).")
        return {}
    return known if isinstance(known, dict) else {}
