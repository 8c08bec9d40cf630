"""Registry of deconvolution methods, by their names in commands and files.

A further method is a frozen dataclass with the protocol
:class:`napari_rln.deconvolution.method.Method`, and an entry in this tuple.
"""

from pathlib import Path

from napari_rln.core.errors import RlnError
from napari_rln.deconvolution.classical import RichardsonLucy
from napari_rln.deconvolution.method import Json, Method
from napari_rln.deconvolution.wiener import Wiener
from napari_rln.networks.network import Network

METHODS: dict[str, type[Method]] = {
    method.kind: method for method in (RichardsonLucy, Wiener, Network)
}


def method_as_json(method: Method, folder: Path | None = None) -> Json:
    """Return a method in JSON's types, with file names as seen from a folder."""
    return {"kind": method.kind, **method.as_json(folder)}


def method_from_json(fields: Json, folder: Path) -> Method:
    """Return the method that :func:`method_as_json` gave.

    Raises
    ------
    RlnError
        If the method is unknown, or a setting is invalid.
    """
    kind = fields.get("kind")
    if kind not in METHODS:
        raise RlnError(f"`kind` is {kind!r}; give {', '.join(METHODS)}.")
    settings = {name: value for name, value in fields.items() if name != "kind"}
    return METHODS[kind].from_json(settings, folder)
