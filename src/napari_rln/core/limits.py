"""Settings dataclasses: validation, and conversion to and from JSON.

A command's settings are one frozen, keyword-only dataclass, which also defines the command line and
forms. A field that has limits carries them in
``Annotated[float, {"min": 0.0, "max": 1.0, "label": "Tolerance", "unit": "um"}]``: the dictionary
is what magicgui takes, and :func:`check_limits` reads the same dictionary. ``"none"`` in it is the
word of a form for None, and ``"words"`` has those for choices.
"""

import dataclasses
import math
from collections import ChainMap
from collections.abc import Mapping
from functools import cache
from numbers import Real
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from napari_rln.core.errors import RlnError

T = TypeVar("T")

NUMBER_TYPES = {
    "float32": "single (32 bit)",
    "float64": "double (64 bit)",
    "float16": "half (16 bit)",
}
"""Words of forms for the number types of computations."""


def check_limits(settings: Any) -> None:
    """Raise an RlnError for the first field of a settings dataclass with an invalid value.

    Fields may be annotated with ``min``, ``max`` and ``unit``, or with choices (``Literal``).
    """
    kind: Any = type(settings)
    hints = _hints(kind)
    for field in dataclasses.fields(settings):
        hint, value = hints[field.name], getattr(settings, field.name)
        choices = _choices(hint)
        if choices and isinstance(value, str) and value not in choices:
            raise RlnError(f"`{field.name}` is {value!r}; give {', '.join(choices)}.")
        if get_origin(hint) is not Annotated or not isinstance(value, Real):
            continue
        extras = [extra for extra in get_args(hint)[1:] if isinstance(extra, dict)]
        limits: dict[str, Any] = dict(ChainMap(*extras))
        low, high = limits.get("min", float("-inf")), limits.get("max", float("inf"))
        if not (low <= value <= high and math.isfinite(value)):
            unit = f" {limits['unit']}" if "unit" in limits else ""
            span = (
                f"be at least {low}" if "max" not in limits
                else f"be at most {high}" if "min" not in limits
                else f"lie between {low} and {high}"
            )  # fmt: skip
            raise RlnError(f"`{field.name}` is {value}{unit} but must {span}{unit}.")


@cache
def _hints(kind: Any) -> dict[str, Any]:
    """Return the annotations of a class, whose evaluation takes a millisecond."""
    return get_type_hints(kind, include_extras=True)


def _choices(hint: Any) -> tuple[str, ...]:
    """Return the choices of an annotation, alone or in a union; empty where all are allowed."""
    if get_origin(hint) is Literal:
        return get_args(hint)
    if get_origin(hint) is Annotated:
        return _choices(get_args(hint)[0])
    if get_origin(hint) in (Union, UnionType):
        return tuple(word for member in get_args(hint) for word in _choices(member))
    return ()


def as_dict(settings: Any) -> dict[str, Any]:
    """Return a settings dataclass as a dictionary in JSON's types."""
    return {f.name: _jsonable(getattr(settings, f.name)) for f in dataclasses.fields(settings)}


def _jsonable(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_jsonable(item) for item in value]
    return str(value) if isinstance(value, Path) else value


def from_dict(kind: type[T], fields: Mapping[str, Any]) -> T:
    """Return the settings from the dictionary of :func:`as_dict`, with lists as tuples.

    Missing fields have their defaults. Raise an RlnError if a name is unknown, or a value is
    invalid.
    """
    known = {field.name for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    unknown = sorted(set(fields) - known)
    if unknown:
        raise RlnError(
            f"{kind.__name__} has no setting {', '.join(unknown)}; its settings are "
            f"{', '.join(sorted(known))}."
        )
    hints = get_type_hints(kind)
    for name, value in fields.items():
        if not _is_of(_tuples(value), hints[name]):
            kind_name = getattr(hints[name], "__name__", hints[name])
            raise RlnError(f"`{name}` is {value!r}, of the wrong type; it must be {kind_name}.")
    try:
        return kind(**{name: _tuples(value) for name, value in fields.items()})
    except TypeError as error:
        raise RlnError(
            f"{kind.__name__} cannot be created from {dict(fields)} ({error})."
        ) from error


def _is_of(value: Any, hint: Any) -> bool:
    """Tell whether a JSON value is of an annotated type; choices are checked elsewhere."""
    origin, members = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return any(_is_of(value, member) for member in members)
    if origin is Literal:
        return isinstance(value, tuple({type(word) for word in members}))
    if origin is tuple:
        if not isinstance(value, tuple):
            return False
        members = members[:1] * len(value) if members[1:] == (...,) else members
        return len(value) == len(members) and all(map(_is_of, value, members))
    if hint in (int, float):
        return isinstance(value, int | hint) and not isinstance(value, bool)
    return isinstance(value, str | Path if hint is Path else hint)


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list) else value
