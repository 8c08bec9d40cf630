"""Button that copies a run as a command line or as Python."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from qtpy.QtWidgets import QApplication, QMenu, QPushButton

from napari_rln.cli import script
from napari_rln.engine.job import Job
from napari_rln.gui.layer_jobs import image_file, psf_file
from napari_rln.gui.layers import LayerImage
from napari_rln.gui.runbar import RunBar

Run = tuple[script.Verb, dict[str, Any]] | Job
"""A job, or a command and its arguments; see :func:`napari_rln.cli.script.command`."""

_FILES = ("image", "psf", "psf_b", "beads", "like")  # arguments that are files to read


class CopyButton(QPushButton):
    """Button with a menu: copy the runs as command lines or as Python.

    The bar shows that they are copied, or why not.
    """

    def __init__(self, runs: Callable[[], Sequence[Run]], bar: RunBar) -> None:
        super().__init__("Copy as")
        self._runs, self._bar = runs, bar
        self.setToolTip("<p>Click to copy a command line, or Python code, that does the same.</p>")
        menu = QMenu(self)
        menu.addAction("Copy as command", self.copy_command)
        menu.addAction("Copy as Python", self.copy_python)
        self.setMenu(menu)

    def copy_command(self) -> None:
        """Copy the command line."""
        self._bar.attempt(
            lambda: self._copy(
                "command; paste it into a terminal", script.command, script.job_command
            )
        )

    def copy_python(self) -> None:
        """Copy the Python code."""
        self._bar.attempt(
            lambda: self._copy(
                "Python code; paste it into a script", script.python, script.job_python
            )
        )

    def _copy(
        self, what: str, verb_text: Callable[..., str], job_text: Callable[[Job], str]
    ) -> None:
        texts: list[str] = []
        files: dict[Path, None] = {}
        for run in self._runs():
            if isinstance(run, Job):
                texts.append(job_text(run))
                files |= dict.fromkeys(run.files)
            else:
                verb, arguments = run
                texts.append(verb_text(verb, **arguments))
                files |= dict.fromkeys(arguments[key] for key in _FILES if arguments.get(key))
        notes = [f"# first save the layer as {path}" for path in files if not path.exists()]
        QApplication.clipboard().setText("\n".join([*notes, *texts]))
        first = " Its first lines name the layers to save before." if notes else ""
        self._bar.show_message(f"Copied the {what}.{first}")


def image_arguments(image: LayerImage, key: str = "image") -> dict[str, Any]:
    """Return the arguments of a command that reads an image; see :func:`image_file` for errors."""
    file = image_file(image)
    arguments = {
        key: Path(file.path), "voxel_um": file.voxel_um, "channel": file.channel, "time": file.time
    }  # fmt: skip
    return {name: value for name, value in arguments.items() if value is not None}


def psf_arguments(psf: LayerImage | None) -> dict[str, Any]:
    """Return the arguments of a command that reads a PSF; errors as in :func:`psf_file`."""
    if psf is None:
        return {}
    file = psf_file(psf, repair=True).file
    return {"psf": Path(file.path), "psf_voxel_um": file.voxel_um}


def second_psf_arguments(psf: LayerImage, first: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments for a second view's PSF that differ from the first view's."""
    arguments = psf_arguments(psf)
    names = {"psf_b": "psf", "psf_b_voxel_um": "psf_voxel_um"}
    return {name: arguments[key] for name, key in names.items() if arguments[key] != first[key]}
