"""The record of a result: method, settings, facts and inputs, stored with every volume and file."""

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

SCHEMA = 1
"""Version of the record, raised when the meaning of a field changes, not when one is added."""


def array_hash(array: npt.NDArray[Any]) -> str:
    """Return the first 16 hexadecimal digits of the SHA-256 of an array's shape, type and values.

    It does not depend on byte order or memory layout.
    """
    little = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
    digest = hashlib.sha256(f"{little.shape}{little.dtype.str}".encode())
    digest.update(little.data)
    return digest.hexdigest()[:16]


def jsonable(value: Any) -> Any:
    """Return a value with every NaN and infinity in it replaced by None, for JSON."""
    if isinstance(value, dict):
        return {key: jsonable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [jsonable(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


@dataclass(frozen=True, kw_only=True)
class Record:
    """Record of a volume: method, settings, facts, inputs, version and time.

    Attributes
    ----------
    method
        Command, such as ``"rld"`` or ``"psf compute"``.
    settings
        Settings as used, after every automatic choice; JSON types only.
    facts
        Measured values: iterations, background, shift, number of beads.
    inputs
        Names and hashes of the inputs, such as ``{"psf": "9f0c..."}``.
    version
        Version of napari-rln.
    time
        Time of the record, UTC, ISO 8601.
    schema
        Version of the record.
    more
        Unknown fields of a later version, kept unchanged.
    """

    method: str
    settings: dict[str, Any] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)
    inputs: dict[str, str] = field(default_factory=dict)
    version: str = __version__
    time: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))
    schema: int = SCHEMA
    more: dict[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Return the record in JSON's types."""
        values: dict[str, Any] = jsonable(dataclasses.asdict(self))
        more: dict[str, Any] = values.pop("more")
        return more | values

    def to_json(self) -> str:
        """Return the record as one line of JSON."""
        return json.dumps(self.as_dict(), sort_keys=True)

    @classmethod
    def from_dict(cls, values: Any) -> Self:
        """Return the record from the dictionary of :meth:`as_dict`, also of another version.

        Raise a ValueError if the dictionary is not a record.
        """
        kinds = {
            "method": str, "settings": dict, "facts": dict, "inputs": dict, "version": str,
            "time": str,
        }  # fmt: skip
        if not isinstance(values, dict) or not all(
            isinstance(values.get(name), kind) for name, kind in kinds.items()
        ):
            raise ValueError(f"a record holds {', '.join(kinds)}, not {str(values)[:40]!r}")
        schema = values.get("schema", 1)  # absent in version 1
        known = {name: values[name] for name in kinds}
        more = {k: v for k, v in values.items() if k not in kinds and k != "schema"}
        return cls(**known, schema=schema if isinstance(schema, int) else 1, more=more)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Return the record from the text of :meth:`to_json`.

        Raise a ValueError if the text is not a record.
        """
        return cls.from_dict(json.loads(text))
