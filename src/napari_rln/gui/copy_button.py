"""A run as text, onto the clipboard."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from qtpy.QtWidgets import QApplication, QMenu, QPushButton

from napari_rln.cli import script
from napari_rln.engine.job import Job
from napari_rln.gui.layer_jobs import image_file, psf_file
from napari_rln.gui.layers import LayerImage

Run = tuple[script.Verb, dict[str, Any]] | Job

# Of what a run is given, the files that it reads.
_READ = ("image", "psf", "psf_b", "beads", "like")


class CopyButton(QPushButton):
    """Copies what would be run now, as a command or as Python.

    Parameters
    ----------
    runs
        Returns jobs, or verbs and what they take; see :func:`napari_rln.cli.script.command`.
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
        self._attempt(lambda: self._copy(script.command, script.job_command))

    def copy_python(self) -> None:
        """Copy the Python."""
        self._attempt(lambda: self._copy(script.python, script.job_python))

    def _copy(self, of_verb: Callable[..., str], of_job: Callable[[Job], str]) -> None:
        runs = self._runs()
        files: dict[Path, None] = {}
        for run in runs:
            read = run.files if isinstance(run, Job) else [run[1].get(key) for key in _READ]
            files |= dict.fromkeys(path for path in read if path)
        lines = [f"# first save the layer as {path}" for path in files if not path.exists()]
        lines += [
            of_job(run) if isinstance(run, Job) else of_verb(run[0], **run[1]) for run in runs
        ]
        QApplication.clipboard().setText("\n".join(lines))


def image_of(image: LayerImage, key: str = "image") -> dict[str, Any]:
    """Return what a command is given for it to read an image as it is seen.

    Raises
    ------
    RlnError
        If no command reads that.
    """
    file = image_file(image)
    given = {key: Path(file.path), "voxel_um": file.voxel_um}
    others = {"channel": file.channel, "time": file.time}
    return given | {name: value for name, value in others.items() if value is not None}


def psf_of(psf: LayerImage | None) -> dict[str, Any]:
    """Return what a command is given for it to read a PSF; nothing for none.

    Raises
    ------
    RlnError
        If it is one of several in a layer.
    """
    if psf is None:
        return {}
    file = psf_file(psf, repair=True).file
    return {"psf": Path(file.path), "psf_voxel_um": file.voxel_um}


def psf_b_of(psf: LayerImage, first: dict[str, Any]) -> dict[str, Any]:
    """Return what a command is given for it to read a second view's PSF, where that is another.

    Parameters
    ----------
    psf
        Of the second view.
    first
        What the command is given of the first view's, by :func:`psf_of`.
    """
    its = psf_of(psf)
    names = {"psf_b": "psf", "psf_b_voxel_um": "psf_voxel_um"}
    return {name: its[key] for name, key in names.items() if its[key] != first[key]}
