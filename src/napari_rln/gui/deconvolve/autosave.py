"""Results saved beside their image as soon as they are finished."""

from pathlib import Path

from napari.layers import Image
from qtpy.QtWidgets import QCheckBox

from napari_rln.core.errors import RlnError
from napari_rln.gui.deconvolve.chosen_method import FinishedResult
from napari_rln.gui.deconvolve.result_destination import file_name
from napari_rln.gui.jobs import BackgroundJob, JobQueue, one_step
from napari_rln.gui.layers import source_of
from napari_rln.io.paths import check_folder
from napari_rln.io.volumes import write

_ENDING = ".ome.tif"


class Autosave(QCheckBox):
    """Checkbox: whether each result is written beside its image, as OME-TIFF with its record."""

    def __init__(self) -> None:
        super().__init__("Save results beside the image")
        self.setToolTip(
            "<p>Writes every finished result as OME-TIFF with voxel size and record, under a new "
            "name. Tick it before Run; the image must come from a file.</p>"
        )

    def save(self, result: FinishedResult, jobs: JobQueue) -> None:
        """Queue the writing of a result, if wanted.

        Raises :class:`RlnError` if the image has no file, or its folder is not writable.
        """
        layer, image = result.stream.layer, result.inputs.image.layer
        if not self.isChecked() or not isinstance(layer, Image):
            return
        if not image.source.path:
            raise RlnError(
                f"{layer.name} is not saved, as {image.name} does not come from a file; save the "
                "layer with File > Save Selected Layers."
            )
        path = _free(Path(image.source.path).absolute().parent, file_name(layer.name))
        check_folder(path)
        volume = source_of(layer, (0.0,) * layer.ndim)
        steps = one_step("saving", lambda: write(volume.read(), path))
        note = f"{layer.name} is saved as {path.name}, beside its image."
        jobs.add(BackgroundJob(f"saving {path.name}", steps, key=path, end_note=note))


def _free(folder: Path, name: str) -> Path:
    """Return a path that does not exist yet, with a number if needed."""
    path, number = folder / f"{name}{_ENDING}", 2
    while path.exists():
        path, number = folder / f"{name} ({number}){_ENDING}", number + 1
    return path
