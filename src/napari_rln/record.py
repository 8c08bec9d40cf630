"""How a result was made: a small record that travels with every volume and file."""

import dataclasses
import hashlib
import json
import math
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from napari_rln import __version__


def array_hash(array: npt.NDArray[Any]) -> str:
    """Return the first 16 hexadecimal digits of the SHA-256 of an array's shape, type and values.

    Parameters
    ----------
    array
        Any shape and type; the hash does not depend on byte order or memory layout.
    """
    little = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
    digest = hashlib.sha256(f"{little.shape}{little.dtype.str}".encode())
    digest.update(little.data)
    return digest.hexdigest()[:16]


def jsonable(value: Any) -> Any:
    """Return a value with every NaN and infinity in it replaced by None, which JSON can hold."""
    if isinstance(value, dict):
        return {key: jsonable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [jsonable(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


@dataclass(frozen=True, kw_only=True)
class Record:
    """What made a volume: method, settings, inputs, version and time.

    Attributes
    ----------
    method
        The verb, such as ``"rld"`` or ``"psf compute"``.
    settings
        The settings as used, after every automatic choice; JSON types only.
    facts
        What was found on the way: iterations done, background, shift, number of beads.
    inputs
        Names and hashes of what went in, such as ``{"psf": "9f0c..."}``.
    version
        Version of napari-rln.
    time
        When the record was made, UTC, ISO 8601.
    """

    method: str
    settings: dict[str, Any] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)
    inputs: dict[str, str] = field(default_factory=dict)
    version: str = __version__
    time: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))

    def to_json(self) -> str:
        """Return the record as one line of JSON."""
        return json.dumps(jsonable(dataclasses.asdict(self)), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Return the record that :meth:`to_json` wrote.

        Raises
        ------
        ValueError
            If the text is something else.
        """
        values = json.loads(text)
        names = {field.name for field in dataclasses.fields(cls)}
        if not isinstance(values, dict) or set(values) != names:
            raise ValueError(f"a record holds {', '.join(sorted(names))}, not {text[:40]!r}")
        return cls(**values)
