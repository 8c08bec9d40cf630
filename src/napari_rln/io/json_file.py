"""JSON files that several processes keep, such as settings of the user."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import filelock

from napari_rln.io.paths import atomic

_WAIT_S = 1  # for another process


def change_json(
    path: Path,
    read: Callable[[], dict[str, Any]],
    changed: Callable[[dict[str, Any]], dict[str, Any]],
) -> None:
    """Write what a function makes of the contents of a file, which no other process changes then.

    The file is small and of convenience: a failure to read, lock or write it is ignored.

    Parameters
    ----------
    path
        The file; its folder is made.
    read
        Returns the contents; an OSError leaves the file as it is.
    changed
        Returns the new contents.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(path.with_suffix(".lock"), timeout=_WAIT_S):
            contents = changed(read())
            with atomic(path) as temporary:
                temporary.write_text(json.dumps(contents), encoding="utf-8")
    except (OSError, NotImplementedError, filelock.Timeout):  # also a file system without locks
        return
