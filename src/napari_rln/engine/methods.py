"""The methods of deconvolution, by the names that commands and files have for them.

A further method is a frozen dataclass that has what :class:`napari_rln.deconvolution.method.Method`
asks for, and a place in this tuple.
"""

from pathlib import Path

from napari_rln.core.errors import RlnError
from napari_rln.deconvolution.classical import RichardsonLucy
from napari_rln.deconvolution.method import Json, Method
from napari_rln.networks.network import Network

METHODS: dict[str, type[Method]] = {method.kind: method for method in (RichardsonLucy, Network)}


def method_as_json(method: Method) -> Json:
    """Return a method in JSON's types."""
    return {"kind": method.kind, **method.as_json()}


def method_from_json(fields: Json, folder: Path) -> Method:
    """Return the method that :func:`method_as_json` gave.

    Parameters
    ----------
    fields
        As JSON holds them.
    folder
        From which files are named that the method uses.

    Raises
    ------
    RlnError
        If there is no such method, or a setting cannot be.
    """
    kind = fields.get("kind")
    if kind not in METHODS:
        raise RlnError(f"`kind` is {kind!r}; give {', '.join(METHODS)}.")
    settings = {name: value for name, value in fields.items() if name != "kind"}
    return METHODS[kind].from_json(settings, folder)
