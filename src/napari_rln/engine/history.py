"""Durations of earlier runs on this machine, for a rough estimate of the next one."""

import json
import statistics
from pathlib import Path
from typing import Any

import filelock
import platformdirs

from napari_rln.deconvolution.method import Method
from napari_rln.io.paths import atomic

_KEPT = 5  # runs per method and device


def expected_seconds(method: Method, device: str, voxels: int) -> float | None:
    """Return the approximate duration of a run; None without an earlier one of its kind."""
    rates = _read().get(_key(method, device), [])
    return statistics.median(rates) * voxels if rates else None


def remember(method: Method, device: str, voxels: int, summary: dict[str, Any]) -> None:
    """Store the duration of a run; a failure to write the file is ignored."""
    path = _path()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(path.with_suffix(".lock"), timeout=1):
            known = _read()
            rates = [*known.get(_key(method, device), []), summary["seconds"] / voxels]
            known[_key(method, device)] = rates[-_KEPT:]
            with atomic(path) as temporary:
                temporary.write_text(json.dumps(known))
    except (OSError, filelock.Timeout):
        return


def _key(method: Method, device: str) -> str:
    iterations = getattr(method, "iterations", "")  # of a classical method
    return " ".join(filter(None, (method.kind, str(iterations), device)))


def _path() -> Path:
    return (
        Path(platformdirs.user_cache_dir("napari-rln", appauthor=False)) / "seconds-per-voxel.json"
    )


def _read() -> dict[str, list[float]]:
    """Return seconds per voxel of earlier runs; empty if the file is absent or damaged."""
    try:
        known = json.loads(_path().read_text())
        return {str(key): [float(rate) for rate in rates] for key, rates in known.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}
