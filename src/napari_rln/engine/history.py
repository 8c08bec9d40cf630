"""Durations of earlier runs on this machine, for a rough estimate of the next one."""

import json
import statistics
from pathlib import Path
from typing import Any

import platformdirs

from napari_rln.deconvolution.method import Method
from napari_rln.io.json_file import change_json

_KEPT = 5  # runs per method and device


def expected_seconds(work: Method | str, device: str, voxels: int) -> float | None:
    """Return the approximate duration of a run; None without an earlier one of its kind.

    ``work`` is the method of a deconvolution, or the name of other work.
    """
    rates = _read().get(_key(work, device), [])
    return statistics.median(rates) * voxels if rates else None


def remember(work: Method | str, device: str, voxels: int, summary: dict[str, Any]) -> None:
    """Store the duration of a run; a failure to write the file is ignored."""
    key = _key(work, device)

    def changed(known: dict[str, list[float]]) -> dict[str, list[float]]:
        rates = [*known.get(key, []), summary["seconds"] / voxels]
        return known | {key: rates[-_KEPT:]}

    change_json(_path(), _read, changed)


def _key(work: Method | str, device: str) -> str:
    if isinstance(work, str):
        return f"{work} {device}"
    iterations = getattr(work, "iterations", "")  # of a classical method
    return " ".join(filter(None, (work.kind, str(iterations), device)))


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
