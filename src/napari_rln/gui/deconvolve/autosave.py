"""Results written as files: each as soon as it is finished, or those that are compared."""

from collections.abc import Sequence
from pathlib import Path

from napari.layers import Image
from qtpy.QtWidgets import QCheckBox

from napari_rln.core.errors import RlnError, warn
from napari_rln.core.volume import Volume
from napari_rln.engine.progress import Progress
from napari_rln.gui.deconvolve.result_destination import file_name
from napari_rln.gui.field_errors import FieldError
from napari_rln.gui.jobs import BackgroundJob, Steps, Update
from napari_rln.gui.layers import LayerImage, source_of
from napari_rln.io.paths import check_folder
from napari_rln.io.volumes import write

_ENDING = ".ome.tif"


class Autosave(QCheckBox):
    """Checkbox: whether each result is written beside its image, as OME-TIFF with its record.

    If it is ticked since an earlier session, images without a file are left out.
    """

    def __init__(self) -> None:
        super().__init__("Save results beside the image")
        self.setToolTip(
            "<p>Writes every finished result as OME-TIFF with voxel size and record, under a new "
            "name. Tick it before Run; the image must come from a file.</p>"
        )
        self._by_hand = False
        self.clicked.connect(self._on_click)

    def folder_of(self, image: LayerImage) -> Path | None:
        """Return the folder for the results of an image; None if they are not wanted as files.

        Raises :class:`RlnError` if the user has ticked it for an image that has no file, or the
        folder is not writable.
        """
        if not self.isChecked():
            return None
        if not image.layer.source.path:
            if not self._by_hand:
                return None
            raise FieldError(
                f"{image.name} does not come from a file, beside which its results could be saved; "
                "untick it, and press Save results on the page Compare afterwards.",
                self,
            )
        folder = Path(image.layer.source.path).absolute().parent
        check_folder(folder / "result")
        return folder

    def _on_click(self) -> None:
        self._by_hand = True


def saved(steps: Steps[Volume], folder: Path | None) -> Steps[Volume]:
    """Yield the updates of a deconvolution, write its result into a folder, and return it.

    A result that cannot be written is still returned, with a warning.
    """
    result = yield from steps
    if folder is not None:
        yield Update(Progress(activity="saving"))
        path = _free(folder, file_name(result.name))
        try:
            write(result, path)
        except (RlnError, OSError) as error:
            warn(f"{path.name} is not saved: {error}")
    return result


def saving_job(layers: Sequence[Image], folder: Path, window: str = "") -> BackgroundJob:
    """Return a job that writes layers into a folder as OME-TIFF, under names that are not taken.

    Raises :class:`RlnError` if the folder is not writable.
    """
    check_folder(folder / "result")
    sources = [(layer.name, source_of(layer, (0.0,) * layer.ndim)) for layer in layers]

    def steps() -> Steps[None]:
        for done, (name, source) in enumerate(sources):
            yield Update(Progress(activity="saving", done=done, total=len(sources)))
            write(source.read(), _free(folder, file_name(name)))

    names = tuple(name for name, _ in sources)
    saved = f"{names[0]} is saved" if len(names) == 1 else f"{len(names)} results are saved"
    note = f"{saved} in {folder}."
    return BackgroundJob(f"results in {folder}", steps, key=names, end_note=note, window=window)


def _free(folder: Path, name: str) -> Path:
    """Return a path that does not exist yet, with a number if needed."""
    path, number = folder / f"{name}{_ENDING}", 2
    while path.exists():
        path, number = folder / f"{name} ({number}){_ENDING}", number + 1
    return path
