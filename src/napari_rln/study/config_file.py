"""Configuration of a study from a TOML file, or from the JSON of a study.

Errors name the table and the key.
"""

import json
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, get_args

from napari_rln.core.errors import RlnError
from napari_rln.core.limits import from_dict
from napari_rln.core.volume import VoxelUm
from napari_rln.engine.methods import METHODS
from napari_rln.networks.model import shipped_models
from napari_rln.networks.network import Network
from napari_rln.psf.microscope import MicroscopeSettings
from napari_rln.simulate.aberrations import Aberrations
from napari_rln.simulate.structures import Structure
from napari_rln.study.config import (
    TRAIN_KEYS,
    CameraSettings,
    Condition,
    PsfSettings,
    StructureClass,
    StudyMethod,
    StudySettings,
    check_keys,
    is_number,
    is_whole,
    unknown,
    within,
)

_ACCELERATED = (5, 10, 15, 20, 25, 30, 40, 50, 60, 80, 100, 120, 150)
_PLAIN = (10, 20, 30, 50, 70, 100, 150, 200, 300, 400, 600, 800, 1000)
_UNMATCHED = tuple(range(1, 13))
_STRUCTURES: tuple[Structure, ...] = get_args(Structure)
_LISTS = ("psf", "method", "condition")
_PLAIN_KEYS = (
    "name", "shape", "photons", "seeds", "train_photons", "train_seeds", "training_volumes",
    "device", "baseline",
)  # fmt: skip
_FACTS = ("versions", "machine")  # of a run, beside its configuration
_NEEDED = ("name", "photons", "seeds", "test_structures", "psf", "method")
_OPTICS = [f.name for f in fields(MicroscopeSettings)]


def load_study(path: str | Path) -> StudySettings:
    """Return the settings in a TOML file, or in the ``study.json`` of a study.

    Raises
    ------
    RlnError
        If the file is missing, cannot be read, or has a wrong key or value.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
        config = json.loads(text) if path.suffix == ".json" else tomllib.loads(text)
        for fact in _FACTS if path.suffix == ".json" else ():
            config.pop(fact, None)
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise RlnError(f"{path} cannot be read as a study: {error}.") from error
    return study_of(config, path.parent)


def study_of(config: Mapping[str, Any], folder: Path) -> StudySettings:
    """Return the settings from the tables of a file; names of files are seen from a folder.

    Raises
    ------
    RlnError
        If a key is unknown or missing, or a value is invalid; the message names its table.
    """
    tables = ("train_structures", "test_structures", "classes", "budget", "camera")
    check_keys(config, (*_PLAIN_KEYS, *tables, *_LISTS))
    for key in _NEEDED:
        if key not in config:
            raise RlnError(f"the study has no {key}; add it.")
    for key in ("classes", "budget", "camera"):
        if not isinstance(config.get(key, {}), Mapping):
            raise RlnError(f"{key} is {config[key]!r}; make it a table, [{key}].")
    found = {kind: _tables(kind, config.get(kind, [])) for kind in _LISTS}
    classes, camera = config.get("classes", {}), dict(config.get("camera", {}))
    given: dict[str, Any] = {k: _frozen(config[k]) for k in _PLAIN_KEYS if k in config}
    with within("[camera]"):
        check_keys(camera, [f.name for f in fields(CameraSettings)])
        given["camera"] = from_dict(CameraSettings, camera)
    for key in ("train_structures", "test_structures"):
        given[key] = _classes(key, config.get(key, []), classes)
    return StudySettings(
        **given,
        psfs=tuple(_psf(table, folder) for table in found["psf"]),
        methods=tuple(_method(table, folder) for table in found["method"]),
        conditions=tuple(_condition(table, folder) for table in found["condition"]),
        budget=dict(config.get("budget", {})),
    )


def _tables(kind: str, given: Any) -> Sequence[Mapping[str, Any]]:
    """Return the tables of a kind, each of which has a name."""
    if not isinstance(given, list) or not all(isinstance(table, Mapping) for table in given):
        raise RlnError(f"{kind} must be tables, each under [[{kind}]].")
    for number, table in enumerate(given, 1):
        if not isinstance(table.get("name"), str) or not table["name"]:
            raise RlnError(f"[[{kind}]] number {number} has no name; give one.")
    return given


def _classes(key: str, given: Any, named: Mapping[str, Any]) -> tuple[StructureClass, ...]:
    """Return classes of structures from names of kinds or classes, and from lists of kinds."""
    if not isinstance(given, list):
        raise RlnError(f"{key} is {given!r}; give a list of structures.")
    found = []
    for item in given:
        kinds = named.get(item, [item]) if isinstance(item, str) else item
        if not isinstance(kinds, list) or not kinds:
            raise RlnError(f"{key} has {item!r}; give names of structures, or lists of them.")
        for kind in kinds:
            if kind not in _STRUCTURES:
                with within(key):
                    raise unknown("structure", kind, [*named, *_STRUCTURES])
        name = item if isinstance(item, str) else " + ".join(kinds)
        with within(f"{key}, {name}"):
            made = StructureClass(name=name, kinds=tuple(kinds))
            _ = made.settings  # checks the kinds
        found.append(made)
    return tuple(found)


def _psf(table: Mapping[str, Any], folder: Path) -> PsfSettings:
    with within(f"[[psf]] {table['name']}"):
        check_keys(table, ("name", "file", "voxel_um", "aberrations", *_OPTICS))
        return PsfSettings(
            name=table["name"],
            file=_file(table, folder),
            voxel_um=_voxel_um(table),
            optics=from_dict(MicroscopeSettings, {k: table[k] for k in _OPTICS if k in table}),
            aberrations=_aberrations(table),
        )


def _file(table: Mapping[str, Any], folder: Path) -> Path | None:
    file = table.get("file")
    if file is not None and not isinstance(file, str):
        raise RlnError(f"file is {file!r}; give the name of a file.")
    return None if file is None else (folder / file).absolute()


def _voxel_um(table: Mapping[str, Any]) -> VoxelUm | None:
    given = table.get("voxel_um")
    if given is None:
        return None
    if not isinstance(given, list) or len(given) != 3 or not all(map(is_number, given)):
        raise RlnError(f"voxel_um is {given!r}; give three lengths (z, y, x) in micrometres.")
    z, y, x = map(float, given)
    return z, y, x


def _condition(table: Mapping[str, Any], folder: Path) -> Condition:
    with within(f"[[condition]] {table['name']}"):
        check_keys(table, [f.name for f in fields(Condition)])
        for key in ("factors", "optics", "camera"):
            if not isinstance(table.get(key, {}), Mapping):
                raise RlnError(f"{key} is {table[key]!r}; give a table of names and values.")
        check_keys(table.get("optics", {}), [f.name for f in fields(MicroscopeSettings)], "optics.")
        photons, psfs = table.get("photons", []), table.get("psfs", [])
        if not isinstance(photons, list) or not all(map(is_number, photons)):
            raise RlnError(
                f"photons is {photons!r}; give a list of those of the study that it applies to."
            )
        if not isinstance(psfs, list) or not all(isinstance(name, str) for name in psfs):
            raise RlnError(f"psfs is {psfs!r}; give a list of names of PSFs.")
        return Condition(
            name=table["name"],
            file=_file(table, folder),
            voxel_um=_voxel_um(table),
            psfs=tuple(psfs),
            photons=tuple(photons),
            factors=dict(table.get("factors", {})),
            optics=dict(table.get("optics", {})),
            aberrations=_aberrations(table),
            camera=dict(table.get("camera", {})),
        )


def _aberrations(table: Mapping[str, Any]) -> Aberrations | None:
    given = table.get("aberrations")
    if given is None:
        return None
    if not isinstance(given, Mapping):
        raise RlnError(f"aberrations is {given!r}; give a table such as {{ spherical = 0.1 }}.")
    check_keys(given, Aberrations._fields, "aberrations.")
    for name, value in given.items():
        if not is_number(value) or not abs(value) <= 10:
            raise RlnError(f"aberrations.{name} is {value!r}; give a number of waves or radians.")
    return Aberrations(**given)


def _method(table: Mapping[str, Any], folder: Path) -> StudyMethod:
    kinds = [kind for kind in METHODS if kind != Network.kind]
    name, kind = table["name"], table.get("kind")
    with within(f"[[method]] {name}"):
        if kind not in (*kinds, "model", "train"):
            raise RlnError(f"kind is {kind!r}; give {', '.join(kinds)}, model or train.")
        rest = {k: v for k, v in table.items() if k not in ("name", "kind")}
        if kind == "train":
            check_keys(rest, TRAIN_KEYS)
            if {"steps", "minutes"} <= {*rest}:
                raise RlnError("steps and minutes both set the duration; give one of them.")
            return StudyMethod(name=name, kind=kind, settings=rest)
        if kind == "model":
            check_keys(rest, ("model",))
            model = rest.get("model")
            if not isinstance(model, str):
                raise RlnError("give the name or the file of its model, under model.")
            shipped = model in shipped_models()
            where = model if shipped else str((folder / model).absolute())
            return StudyMethod(name=name, kind=kind, model=where)
        return _classical(name, kind, rest)


def _classical(name: str, kind: str, rest: dict[str, Any]) -> StudyMethod:
    """Return a classical method from the keys of its table."""
    own = [f.name for f in fields(METHODS[kind])]  # type: ignore[arg-type]
    iterative = "iterations" in own
    if "iterations" in rest:
        raise RlnError("the number of iterations is that of stop: auto, best, or a number.")
    set_by_study = ("iterations", "device", "report_every")
    more = ("stop", "counts") if iterative else ()
    check_keys(rest, (*more, *(n for n in own if n not in set_by_study)))
    if not iterative:
        return StudyMethod(name=name, kind=kind, settings=rest)
    stop = rest.pop("stop", "auto")
    if stop not in ("auto", "best") and not (is_whole(stop) and 1 <= stop <= 100_000):
        raise RlnError(f"stop is {stop!r}; give auto, best, or a number of iterations.")
    counts = rest.pop("counts", None)
    if counts is not None and stop != "best":
        raise RlnError('counts are for stop = "best"; leave them out.')
    if counts is None:
        counts = _usual_counts(kind, rest) if stop == "best" else ()
    if not isinstance(counts, list | tuple) or not all(is_whole(n) and n >= 1 for n in counts):
        raise RlnError(f"counts is {counts!r}; give a list of numbers of iterations.")
    return StudyMethod(
        name=name, kind=kind, stop=stop, counts=tuple(sorted({*counts})), settings=rest
    )


def _usual_counts(kind: str, settings: Mapping[str, Any]) -> tuple[int, ...]:
    """Return the numbers of iterations among which the best is, by the speed of convergence."""
    made = METHODS[kind].from_json(dict(settings), Path())
    if getattr(made, "back_projector", "matched") != "matched":
        return _UNMATCHED
    return _ACCELERATED if getattr(made, "accelerated", False) else _PLAIN


def _frozen(value: Any) -> Any:
    return tuple(map(_frozen, value)) if isinstance(value, list) else value
