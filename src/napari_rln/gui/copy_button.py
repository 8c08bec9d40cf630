"""A run as text, onto the clipboard."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from napari.layers import Layer
from qtpy.QtWidgets import QApplication, QMenu, QPushButton

from napari_rln.cli import script
from napari_rln.core.errors import RlnError
from napari_rln.gui.layers import CHANNEL, LayerImage

Run = tuple[script.Verb, dict[str, Any]]

# Of what a run is given, the files that it reads.
_READ = ("image", "image_b", "psf", "psf_b", "beads", "like")
_TIMES, _CHANNELS = ("t", "time"), ("c", "channel")


class CopyButton(QPushButton):
    """Copies what would be run now, as a command or as Python.

    Parameters
    ----------
    runs
        Returns verbs and what they take; see :func:`napari_rln.cli.script.command`.
    attempt
        Calls an action and shows what it raises.
    """

    def __init__(
        self, runs: Callable[[], Sequence[Run]], attempt: Callable[[Callable[[], None]], None]
    ) -> None:
        super().__init__()
        self._runs, self._attempt = runs, attempt
        self.setText("Copy as")
        self.setToolTip("<p>Copies the line for a shell, or the Python, that does the same.</p>")
        menu = QMenu(self)
        menu.addAction("Copy as command", self.copy_command)
        menu.addAction("Copy as Python", self.copy_python)
        self.setMenu(menu)

    def copy_command(self) -> None:
        """Copy the line for a shell."""
        self._attempt(lambda: self._copy(script.command))

    def copy_python(self) -> None:
        """Copy the Python."""
        self._attempt(lambda: self._copy(script.python))

    def _copy(self, text: Callable[..., str]) -> None:
        runs = self._runs()
        files = dict.fromkeys(given[key] for _, given in runs for key in _READ if given.get(key))
        lines = [f"# first save the layer as {path}" for path in files if not path.exists()]
        lines += [text(verb, **given) for verb, given in runs]
        QApplication.clipboard().setText("\n".join(lines))


def image_of(source: LayerImage, key: str = "image") -> dict[str, Any]:
    """Return what a run is given for it to read an image as it is seen: file, voxels, which part.

    Raises
    ------
    RlnError
        If no command reads that.
    """
    given: dict[str, Any] = {key: path_of(source.layer), "voxel_um": source.voxel_um}
    if CHANNEL in source.layer.metadata:
        given["channel"] = source.layer.metadata[CHANNEL]
    for label, i in source.at.items():
        if label.lower() in _CHANNELS:
            given["channel"] = i
        elif label.lower() in _TIMES or len(source.at) == 1:
            given["time"] = i
        else:
            raise RlnError(
                f"{source.layer.name} has an axis {label}; a command reads channels (c) and time "
                "points (t) of a file: call the axes so, or save what is seen."
            )
    return given


def psf_of(source: LayerImage | None) -> dict[str, Any]:
    """Return what a run is given for it to read a PSF; nothing for none.

    Raises
    ------
    RlnError
        If it is one of several in a layer.
    """
    if source is None:
        return {}
    if source.at or CHANNEL in source.layer.metadata:
        raise RlnError(
            f"{source.name} is one of several volumes in its file; a command reads a PSF from a "
            "file of its own: save it first."
        )
    return {"psf": path_of(source.layer), "psf_voxel_um": source.voxel_um}


def psf_b_of(source: LayerImage, first: dict[str, Any]) -> dict[str, Any]:
    """Return what a run is given for it to read a second view's PSF, where that is another.

    Parameters
    ----------
    source
        Of that PSF.
    first
        What the run is given of the first view's, by :func:`psf_of`.
    """
    its = psf_of(source)
    names = {"psf_b": "psf", "psf_b_voxel_um": "psf_voxel_um"}
    return {name: its[key] for name, key in names.items() if its[key] != first[key]}


def path_of(layer: Layer) -> Path:
    """Return the file that a layer was read from; of others the name that it could have."""
    if layer.source.path:
        return Path(layer.source.path)
    data = layer.data[0] if getattr(layer, "multiscale", False) else layer.data
    root = getattr(
        getattr(data, "store", None), "root", None
    )  # a Zarr array that was added as it is
    return Path(root, data.path) if root else Path(f"{layer.name}.tif")
