"""Work on a PSF, or a training, as text: the equivalent command line, and Python code.

Both contain only values that differ from the defaults of the command line and the settings.
"""

import dataclasses
import json
import math
import pprint
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np

from napari_rln.cli import app
from napari_rln.deconvolution.views import DualSettings
from napari_rln.engine.job import Job
from napari_rln.networks.model import UNIVERSAL, Model
from napari_rln.psf.measure import MeasureSettings
from napari_rln.psf.microscope import MicroscopeSettings
from napari_rln.train.training_set import choose_settings
from napari_rln.train.training_settings import TrainSettings

Verb = Literal["psf compute", "psf measure", "psf repair", "train"]
Value = dict[str, Any]


def command(verb: Verb, **arguments: Any) -> str:
    """Return the command line of a run.

    Parameters
    ----------
    verb
        Command.
    **arguments
        Arguments by their parameters' names in :mod:`napari_rln.cli`: files (``image``, ``psf``,
        ``out``, ``beads``, ``like``, ``pairs``) and their reading (``voxel_um``, ``channel``,
        ``time``, ``psf_voxel_um``), ``everything``, ``structures``, ``imaging`` and ``settings``,
        and ``positions`` of beads. The settings of a training are those after
        ``preset``, ``variant`` and ``initial_model`` were applied. None is the default.

    Returns
    -------
    str
        Settings without an option are in a comment line before the command.

    Raises
    ------
    TypeError
        If the command has no such parameter, or a required one is missing.
    RlnError
        If the initial model of a training does not exist, or is of another variant.
    """
    plain = _without_none(arguments)
    if verb == "train":
        changed = _of_training(plain)
        plain.pop("settings", None)
    else:
        changed = {"positions": plain.pop("positions")} if "positions" in plain else {}
    if verb == "psf compute" and "image" in plain:
        changed |= _optics(plain.get("settings", MicroscopeSettings()))
    for name in ("settings", "structures", "imaging"):
        changed |= _differences(plain.pop(name)) if name in plain else {}
    words = ["napari-rln", *verb.split()]
    for argument in _command_line(verb):
        field = argument.field_info
        value = changed.pop(field.name, plain.pop(field.name, None))
        if value is None and argument.required:
            raise TypeError(f"{verb} needs {field.name}")
        if value is None or value == field.default:
            continue
        if isinstance(value, bool):
            words.append(argument.name if value else argument.negatives[0])
        else:
            words += _words(value) if field.is_positional else [argument.name, *_words(value)]
    if plain:
        raise TypeError(f"{verb} has no {', '.join(plain)}")
    others = ", ".join(f"{name}={_literal(value)}" for name, value in changed.items())
    note = f"# not an option of the command line: {others}\n" if others else ""
    return note + shlex.join(words)


def python(verb: Verb, **arguments: Any) -> str:
    """Return the Python code of a run; the parameters are those of :func:`command`."""
    plain = _without_none(arguments)
    imports = ["from pathlib import Path", ""] if "pairs" in plain else []
    return "\n".join([*imports, "import napari_rln as rln", "", *_PYTHON[verb](plain), ""])


def job_command(job: Job) -> str:
    """Return the shell lines of a job."""
    text = json.dumps(job.as_json(), indent=2)
    return f"napari-rln run - <<'END'\n{text}\nEND"


def job_python(job: Job) -> str:
    """Return the Python code of a job."""
    fields = pprint.pformat(job.as_json(), sort_dicts=False, width=96)
    return f"import napari_rln as rln\n\nrln.run(rln.Job.from_json({fields}))\n"


def _without_none(arguments: Value) -> Value:
    return {name: value for name, value in arguments.items() if value is not None}


def _differences(settings: Any, base: Any = None) -> Value:
    """Return the fields of a settings dataclass that differ from the defaults, or from a base."""
    base = base or type(settings)()
    values = ((f.name, getattr(settings, f.name)) for f in dataclasses.fields(settings))
    return {name: value for name, value in values if value != getattr(base, name)}


def _optics(settings: MicroscopeSettings) -> Value:
    """Return the optics that would else be those of the image's file."""
    names = ["modality", "na", "immersion_index", "wavelength_um"]
    names += ["pinhole_au"] if settings.modality == "confocal" else []
    if settings.modality == "gaussian":
        names = ["modality"]
    return {name: getattr(settings, name) for name in names}


def _training(arguments: Value) -> tuple[TrainSettings, TrainSettings, Model | None]:
    """Return a training's settings, the base that they began as, and the initial model.

    If the settings have another architecture or variant than the base, that is added to the
    arguments.
    """
    chosen: TrainSettings | None = arguments.get("settings")
    views = chosen.views if chosen is not None and chosen.views != "single" else None
    named = {
        name: arguments.get(name) for name in ("preset", "variant", "initial_model", "architecture")
    }
    base, first = choose_settings(**named, views=views)
    settings: TrainSettings = arguments.get("settings", base)
    for name in ("architecture", "variant"):
        if getattr(settings, name) != getattr(base, name):
            arguments[name] = getattr(settings, name)
            return _training(arguments)
    return settings, base, first


def _of_training(arguments: Value) -> Value:
    """Return the differences of a training's settings from their base."""
    settings, base, _ = _training(arguments)
    changed = _differences(settings, base)
    if settings.views != "single":
        changed["views"] = settings.views  # determined the base
    if settings.steps is not None:
        changed.pop("minutes", None)  # without effect then
    elif base.steps is not None:
        changed["minutes"] = settings.minutes  # replace the preset's steps
    return changed


def _command_line(verb: Verb) -> list[Any]:
    """Return the arguments of a command, positional ones first, settings by their fields."""
    command_app = app
    for word in verb.split():
        command_app = command_app[word]
    # Whole settings are listed under this name, beside their fields.
    return [each for each in command_app.assemble_argument_collection() if each.name != "*"]


def _words(value: Any) -> list[str]:
    """Return a value as command line words; a leading - would be taken for an option."""
    if isinstance(value, tuple):
        return [str(item) for item in value]
    return [f"./{value}" if isinstance(value, Path) and str(value).startswith("-") else str(value)]


class _Code(str):
    """Python code, inserted literally."""

    __slots__ = ()


def _literal(value: Any) -> str:
    """Return a value as Python code."""
    match value:
        case _Code():
            return str(value)
        case Path():
            return repr(str(value))
        case np.generic():
            return repr(value.item())
        case tuple():
            items = ", ".join(map(_literal, value))
            return f"({items},)" if len(value) == 1 else f"({items})"
        case float() if math.isnan(value):
            return 'float("nan")'
    if dataclasses.is_dataclass(value):
        package = type(value).__module__.split(".")[1].replace("deconvolution", "views")
        return _call(f"{package}.{type(value).__name__}", **_differences(value))
    return repr(value)


def _call(function: str, *values: Any, **named: Any) -> _Code:
    """Return a call; named values that are None or default settings are omitted."""
    words = [_literal(value) for value in values]
    for name, value in named.items():
        default = dataclasses.is_dataclass(value) and not _differences(value)
        if value is not None and not default:
            words.append(f"{name}={_literal(value)}")
    return _Code(f"rln.{function}({', '.join(words)})")


_IMAGE, _PSF = _Code("image"), _Code("psf")
_VOXELS = _Code("image.voxel_um")


def _read_image(arguments: Value, key: str = "image") -> list[str]:
    if key not in arguments:
        return []
    how = {name: arguments.get(name) for name in ("voxel_um", "channel", "time")}
    return [f"image = {_call('read', arguments[key], **how)}"]


def _read_psf(arguments: Value) -> _Code:
    return _call("read", arguments["psf"], voxel_um=arguments.get("psf_voxel_um"))


def _fit_psf(arguments: Value, *image: _Code) -> list[str]:
    if "psf" not in arguments:
        return []
    return [f"psf, _ = {_call('psf.fit_psf', _read_psf(arguments), *image)}"]


def _write(arguments: Value) -> str:
    return _call("write", _PSF, arguments["out"])


def _psf_compute(arguments: Value) -> list[str]:
    voxels, planes = arguments.get("voxel_um"), None
    if "image" in arguments:
        voxels, planes = _VOXELS, _Code("image.shape[0]")
    settings = arguments.get("settings", MicroscopeSettings())
    psf = _call("psf.compute_psf", settings, voxels, planes=planes)
    return [*_read_image(arguments), f"psf = {psf}", _write(arguments)]


def _psf_measure(arguments: Value) -> list[str]:
    settings = arguments.get("settings", MeasureSettings())
    psf = _call("psf.measure_psf", _IMAGE, settings, positions=arguments.get("positions"))
    return [*_read_image(arguments, "beads"), f"psf = {psf}", _write(arguments)]


def _psf_repair(arguments: Value) -> list[str]:
    image, voxels = (_IMAGE, _VOXELS) if "image" in arguments else (None, None)
    settings = arguments.get("settings")
    lines = [*_read_image(arguments), f"psf = {_read_psf(arguments)}"]
    if arguments.get("everything") or (settings and _differences(settings)):
        repaired = _call("psf.prepare_psf", _PSF, settings=settings, image_voxel_um=voxels)
    else:
        lines.append(f"report = {_call('psf.examine_psf', _PSF, image=image)}")
        repaired = _call("psf.repair_psf", _PSF, _Code("report"), image_voxel_um=voxels)
    return [*lines, f"psf = {repaired}", _write(arguments)]


def _train(arguments: Value) -> list[str]:
    settings, _, first = _training(arguments)
    like = _IMAGE if "like" in arguments else None
    parts = {
        "psf": _PSF if "psf" in arguments else None,
        "any_psf": arguments.get("any_psf") or None,
        "pairs": arguments.get("pairs") and _Code(f"Path({_literal(arguments['pairs'])})"),
        "pairs_voxel_um": arguments.get("voxel_um") if "pairs" in arguments else None,
        "like": like,
        "structures": arguments.get("structures"),
        "imaging": arguments.get("imaging"),
        "initial_model": first and _call("load_model", arguments.get("initial_model", UNIVERSAL)),
    }
    name = Path(arguments["out"]).stem
    second = []
    if settings.views != "single":
        dual = DualSettings(
            rotation=arguments.get("rotation", "none"), voxels=arguments.get("voxels", "isotropic")
        )
        voxels = arguments.get("psf_b_voxel_um", arguments.get("psf_voxel_um"))
        read = _call("read", arguments.get("psf_b", arguments["psf"]), voxel_um=voxels)
        pair = _call("views.psfs_of_views", _PSF, _Code("psf_b"), dual)
        second = [f"psf_b, _ = {_call('psf.fit_psf', read)}", f"psf, psf_b = {pair}"]
        parts["psf_b"] = _Code("psf_b")
    return [
        *_read_image(arguments, "like"),
        *_fit_psf(arguments, *([like] if like else [])),
        *second,
        f"settings = {_call('train.TrainSettings', **_differences(settings))}",
        f"setting = {_call('train.training_set_of', _Code('settings'), **parts)}",
        f"model = {_call('train.train_model', _Code('setting'), _Code('settings'), name=name)}",
        f"model.save({_literal(arguments['out'])})",
    ]


_PYTHON: dict[Verb, Callable[[Value], list[str]]] = {
    "psf compute": _psf_compute,
    "psf measure": _psf_measure,
    "psf repair": _psf_repair,
    "train": _train,
}
