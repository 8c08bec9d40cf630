"""Folder of a study.

It holds ``study.json``, the keys of the planned cells ``plan.json``, the results
``cells/KEY.json``, the trained models ``models/KEY.safetensors`` with their times and the
checkpoints of interrupted trainings, and for the first seed the planes of results, images and
truths, ``planes/KEY.npz``, ``image-HASH.npz`` and ``truth-HASH.npz``. While processes run, their
claims are in ``locks``.
"""

import json
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from napari_rln import __version__
from napari_rln.core.device import resolve_device
from napari_rln.core.errors import RlnError
from napari_rln.core.machine import available_bytes, cores
from napari_rln.io.paths import atomic, make_folder
from napari_rln.study.plan import StudyPlan

STUDY = "study.json"
"""Name of the file with configuration, version and machine, in the folder of a study."""

PLAN = "plan.json"
"""Name of the file with the keys of the cells that are planned."""

_FOLDERS = ("cells", "planes", "models", "locks")


def prepare_folder(plan: StudyPlan, folder: Path, *, overwrite: bool = False) -> None:
    """Make the folder of a study, with the file of its configuration.

    Raises
    ------
    RlnError
        If it holds a study of another configuration or version, and its configuration is not to be
        replaced.
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
    with atomic(folder / PLAN) as temporary:
        temporary.write_text(json.dumps([planned.key for planned in plan.cells]), encoding="utf-8")
    facts = {"versions": versions(), "machine": machine_facts(plan.settings.device)}
    with atomic(folder / STUDY) as temporary:
        temporary.write_text(json.dumps(config | facts, indent=1), encoding="utf-8")


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
