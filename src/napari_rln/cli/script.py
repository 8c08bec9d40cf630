"""Work on a PSF, or a training, as text: the command, and the Python, that do it without a window.

Both say only what differs from the defaults, and have the names and defaults from the command line
itself and from the settings.
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
Given = dict[str, Any]

# Namespaces of the package in which settings are offered, where these are not called as their room.
_ROOMS = {"deconvolution": "views"}


def command(verb: Verb, **given: Any) -> str:
    """Return the line for a shell that does a run.

    Parameters
    ----------
    verb
        What to do.
    **given
        What that command takes, by its parameters' names in :mod:`napari_rln.cli`: files
        (``image``, ``psf``, ``out``, ``beads``, ``like``, ``pairs``) and how they are read
        (``voxel_um``, ``channel``, ``time``, ``psf_voxel_um``), ``model``, ``repair``, ``dtype``,
        ``structures``, ``imaging`` and ``settings``, and ``positions`` of beads. Those of a
        training are what became of ``preset``, ``variant`` and ``begin``. None is as good as not
        given.

    Returns
    -------
    str
        Settings for which there is no option are in a line of their own, before, after a ``#``.

    Raises
    ------
    TypeError
        If the command has no such parameter, or one that it needs is missing.
    RlnError
        If the model that a training begins with is not there, or of another variant.
    """
    plain = _without_none(given)
    if verb == "train":
        changed = _of_training(plain)
        plain.pop("settings", None)
    else:
        changed = {"positions": plain.pop("positions")} if "positions" in plain else {}
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
    left = ", ".join(f"{name}={_literal(value)}" for name, value in changed.items())
    note = f"# not an option of the command line: {left}\n" if left else ""
    return note + shlex.join(words)


def python(verb: Verb, **given: Any) -> str:
    """Return the Python that does a run; the parameters are those of :func:`command`."""
    plain = _without_none(given)
    imports = ["from pathlib import Path", ""] if "pairs" in plain else []
    return "\n".join([*imports, "import napari_rln as rln", "", *_PYTHON[verb](plain), ""])


def job_command(job: Job) -> str:
    """Return the lines for a shell that do a job."""
    text = json.dumps(job.as_json(), indent=2)
    return f"napari-rln run - <<'END'\n{text}\nEND"


def job_python(job: Job) -> str:
    """Return the Python that does a job."""
    fields = pprint.pformat(job.as_json(), sort_dicts=False, width=96)
    return f"import napari_rln as rln\n\nrln.run(rln.Job.from_json({fields}))\n"


def _without_none(given: Given) -> Given:
    return {name: value for name, value in given.items() if value is not None}


def _differences(settings: Any, base: Any = None) -> Given:
    """Return the fields of a settings dataclass that differ from the defaults, or from a base."""
    base = base or type(settings)()
    values = ((f.name, getattr(settings, f.name)) for f in dataclasses.fields(settings))
    return {name: value for name, value in values if value != getattr(base, name)}


def _training(given: Given) -> tuple[TrainSettings, TrainSettings, Model | None]:
    """Return a training's settings, what they began as, and the model to begin with.

    Where the settings are of another variant than what they began as, it is given from now on.
    """
    told: TrainSettings | None = given.get("settings")
    views = told.views if told is not None and told.views != "single" else None
    named = {name: given.get(name) for name in ("preset", "variant", "begin")}
    base, first = choose_settings(**named, views=views)
    settings: TrainSettings = given.get("settings", base)
    if settings.variant != base.variant:
        given["variant"] = settings.variant
        return _training(given)
    return settings, base, first


def _of_training(given: Given) -> Given:
    """Return how a training's settings differ from what they began as."""
    settings, base, _ = _training(given)
    changed = _differences(settings, base)
    if settings.views != "single":
        changed["views"] = settings.views  # by which the base was chosen
    if settings.steps is not None:
        changed.pop("minutes", None)  # mean nothing then
    elif base.steps is not None:
        changed["minutes"] = settings.minutes  # take the place of the preset's steps
    return changed


def _command_line(verb: Verb) -> list[Any]:
    """Return the arguments of a command, positional ones first, settings by their fields."""
    found = app
    for word in verb.split():
        found = found[word]
    # Settings as a whole are among them under this name, beside their fields.
    return [each for each in found.assemble_argument_collection() if each.name != "*"]


def _words(value: Any) -> list[str]:
    """Return what a value is on the command line, which takes a leading - for an option."""
    if isinstance(value, tuple):
        return [str(item) for item in value]
    return [f"./{value}" if isinstance(value, Path) and str(value).startswith("-") else str(value)]


class _Code(str):
    """Python that stands for itself."""

    __slots__ = ()


def _literal(value: Any) -> str:
    """Return a value as Python."""
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
        kind = type(value)
        room = kind.__module__.removeprefix("napari_rln.").partition(".")[0]
        name = "DualSettings" if kind is DualSettings else kind.__name__
        return _call(f"{_ROOMS.get(room, room)}.{name}", **_differences(value))
    return repr(value)


def _call(function: str, *values: Any, **named: Any) -> _Code:
    """Return a call; named values that are none or settings as they are by default are left out."""
    words = [_literal(value) for value in values]
    for name, value in named.items():
        default = dataclasses.is_dataclass(value) and not _differences(value)
        if value is not None and not default:
            words.append(f"{name}={_literal(value)}")
    return _Code(f"rln.{function}({', '.join(words)})")


_IMAGE, _PSF = _Code("image"), _Code("psf")
_VOXELS = _Code("image.voxel_um")


def _read_image(given: Given, key: str = "image") -> list[str]:
    if key not in given:
        return []
    how = {name: given.get(name) for name in ("voxel_um", "channel", "time")}
    return [f"image = {_call('read_volume', given[key], **how)}"]


def _read_psf(given: Given) -> _Code:
    return _call("read_volume", given["psf"], voxel_um=given.get("psf_voxel_um"))


def _fit_psf(given: Given, *image: _Code) -> list[str]:
    if "psf" not in given:
        return []
    mend = None if given.get("repair", True) else False
    return [f"psf, _ = {_call('psf.fit_psf', _read_psf(given), *image, mend=mend)}"]


def _write(what: _Code, given: Given) -> str:
    return _call("write_volume", what, given["out"], dtype=given.get("dtype"))


def _psf_compute(given: Given) -> list[str]:
    settings = given.get("settings", MicroscopeSettings())
    where: tuple[Any, Any] = (given.get("voxel_um"), None)
    if "image" in given:
        where = (_VOXELS, _Code("image.shape[0]"))
    psf = _call("psf.compute_psf", settings, where[0], planes=where[1])
    return [*_read_image(given), f"psf = {psf}", _write(_PSF, given)]


def _psf_measure(given: Given) -> list[str]:
    settings, positions = given.get("settings", MeasureSettings()), given.get("positions")
    psf = _call("psf.measure_psf", _IMAGE, settings, positions=positions)
    return [*_read_image(given, "beads"), f"psf = {psf}", _write(_PSF, given)]


def _psf_repair(given: Given) -> list[str]:
    image, voxels = (_IMAGE, _VOXELS) if "image" in given else (None, None)
    settings = given.get("settings")
    lines = [*_read_image(given), f"psf = {_read_psf(given)}"]
    if given.get("everything") or (settings and _differences(settings)):
        mended = _call("psf.prepare_psf", _PSF, settings=settings, image_voxel_um=voxels)
    else:
        lines.append(f"report = {_call('psf.examine_psf', _PSF, image=image)}")
        mended = _call("psf.repair_psf", _PSF, _Code("report"), image_voxel_um=voxels)
    return [*lines, f"psf = {mended}", _write(_PSF, given)]


def _train(given: Given) -> list[str]:
    settings, _, first = _training(given)
    like = _IMAGE if "like" in given else None
    parts = {
        "psf": _PSF if "psf" in given else None,
        "any_psf": given.get("any_psf") or None,
        "pairs": given.get("pairs") and _Code(f"Path({_literal(given['pairs'])})"),
        "pairs_voxel_um": given.get("voxel_um") if "pairs" in given else None,
        "like": like,
        "structures": given.get("structures"),
        "imaging": given.get("imaging"),
        "begin": first and _call("load_model", given.get("begin", UNIVERSAL)),
    }
    name = Path(given["out"]).stem
    second = []
    if settings.views != "single":
        dual = DualSettings(turn=given.get("turn", "none"), voxels=given.get("voxels", "isotropic"))
        voxels = given.get("psf_b_voxel_um", given.get("psf_voxel_um"))
        read = _call("read_volume", given.get("psf_b", given["psf"]), voxel_um=voxels)
        pair = _call("views.psfs_of_views", _PSF, _Code("psf_b"), dual)
        second = [f"psf_b, _ = {_call('psf.fit_psf', read)}", f"psf, psf_b = {pair}"]
        parts["psf_b"] = _Code("psf_b")
    return [
        *_read_image(given, "like"),
        *_fit_psf(given, *([like] if like else [])),
        *second,
        f"settings = {_call('train.TrainSettings', **_differences(settings))}",
        f"setting = {_call('train.setting_of', _Code('settings'), **parts)}",
        f"model = {_call('train.train_model', _Code('setting'), _Code('settings'), name=name)}",
        f"model.save({_literal(given['out'])})",
    ]


_PYTHON: dict[Verb, Callable[[Given], list[str]]] = {
    "psf compute": _psf_compute,
    "psf measure": _psf_measure,
    "psf repair": _psf_repair,
    "train": _train,
}
