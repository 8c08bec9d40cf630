"""Folder of a study.

It holds ``study.json``, the keys of the planned cells ``plan.json``, the results
``cells/KEY.json``, the trained models ``models/KEY.safetensors`` with their times and what they are
trained for, ``models/KEY.json``, and the checkpoints of interrupted trainings, and for the first
seed the planes of results, images and truths, ``planes/KEY.npz``, ``image-HASH.npz`` and
``truth-HASH.npz``. While processes run, their claims are in ``locks``.
"""

import json
import platform
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

import filelock
import numpy as np
import torch

from napari_rln import __version__
from napari_rln.core.device import resolve_device
from napari_rln.core.errors import RlnError, warn
from napari_rln.core.machine import available_bytes, cores
from napari_rln.io.paths import atomic, make_folder
from napari_rln.study.plan import StudyPlan

STUDY = "study.json"
"""Name of the file with configuration, version and machine, in the folder of a study."""

PLAN = "plan.json"
"""Name of the file with the keys of the cells that are planned."""

_LOCKS = "locks"
_FOLDERS = ("cells", "planes", "models", _LOCKS)


def prepare_folder(plan: StudyPlan, folder: Path, *, overwrite: bool = False) -> None:
    """Make the folder of a study, with the file of its configuration.

    Raises
    ------
    RlnError
        If it holds a study of another configuration or version, and its configuration is not to be
        replaced, or cannot be, as another process runs it.
    """
    for name in _FOLDERS:
        make_folder(folder / name)
    config = json.loads(json.dumps(plan.settings.as_json()))
    differ = _differences(folder, config)
    if differ and not overwrite:
        raise RlnError(
            f"{folder} holds another study: {', '.join(differ)} differ; name another folder, or "
            "replace it with `overwrite`, which deletes no finished cell."
        )
    if differ:
        _check_unused(folder)
    with atomic(folder / PLAN) as temporary:
        temporary.write_text(json.dumps([planned.key for planned in plan.cells]), encoding="utf-8")
    facts = {"versions": versions(), "machine": machine_facts(plan.settings.device)}
    with atomic(folder / STUDY) as temporary:
        temporary.write_text(json.dumps(config | facts, indent=1), encoding="utf-8")


@contextmanager
def claimed(folder: Path, key: str) -> Iterator[bool]:
    """Claim the training or the image of a key, and tell whether no other process has it.

    A claim ends with its process, however that ends.
    """
    path = folder / _LOCKS / key
    lock = filelock.FileLock(path, thread_local=False)
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        yield False
        return
    except OSError as error:  # as on some network file systems
        _warn_of_no_locks(folder, str(error))
        yield True
        return
    try:
        yield True
    finally:
        with suppress(OSError):  # Windows removes no open file
            path.unlink()
        lock.release()


@cache
def _warn_of_no_locks(folder: Path, error: str) -> None:
    warn(f"{folder} cannot be locked ({error}); run the study in one process only.")


def _check_unused(folder: Path) -> None:
    """Raise if another process has claimed anything."""
    for path in (folder / _LOCKS).iterdir():
        with claimed(folder, path.name) as free:
            if not free:
                raise RlnError(
                    f"another process runs the study in {folder}; end it before its configuration "
                    "is replaced."
                )


def versions() -> dict[str, str]:
    """Return the versions of the program and of what it computes with."""
    return {
        "napari-rln": __version__,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "torch": str(torch.__version__),
    }


def machine_facts(device: str) -> dict[str, Any]:
    """Return what the times of a study depend on, JSON types."""
    chosen = resolve_device(device)
    facts: dict[str, Any] = {
        "system": platform.platform(),
        "processor": platform.processor() or platform.machine(),
        "cores": cores(),
        "threads": torch.get_num_threads(),
        "memory_gb": round(available_bytes() / 1e9, 1),
        "device": str(chosen),
    }
    if chosen.type == "cuda":
        facts["gpu"] = torch.cuda.get_device_name(chosen)
    return facts


def _differences(folder: Path, config: Mapping[str, Any]) -> list[str]:
    """Return in what the study in a folder differs; empty if it does not, or there is none."""
    path = folder / STUDY
    if not path.is_file():
        return []
    try:
        other = json.loads(path.read_text(encoding="utf-8"))
        version = other.pop("versions")["napari-rln"]
        del other["machine"]
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise RlnError(
            f"{path} is damaged ({error}); delete it, or name another folder."
        ) from error
    keys = [key for key in {**config, **other} if config.get(key) != other.get(key)]
    if version != __version__:
        keys.append(f"the versions {version} and {__version__}")
    return keys
