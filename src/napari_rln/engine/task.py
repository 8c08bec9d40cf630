"""A run from disk to disk with its inputs, and its validation."""

from dataclasses import dataclass, field
from pathlib import Path

from napari_rln.core.errors import RlnError
from napari_rln.core.volume import Box, Volume
from napari_rln.deconvolution.classical import RichardsonLucy
from napari_rln.deconvolution.method import Method
from napari_rln.engine.execution import Execution, Output
from napari_rln.engine.imagej import check_plain, is_plain_name
from napari_rln.engine.plan import Format
from napari_rln.io.image import Image, ImageFile, files_read
from napari_rln.io.paths import check_apart, check_place, is_ome_name, is_zarr_name


@dataclass(frozen=True, kw_only=True)
class Task:
    """A run from disk to disk.

    Attributes
    ----------
    image
        Image file.
    psf
        On the image's voxels, sum 1; None for a method without a PSF.
    method
        Method of the deconvolution.
    output
        Path and format of the result.
    execution
        Memory, tiles and workers.
    first
        Part (z, y, x) of the image to compute before the rest, such as a part on display; the
        result does not depend on it.

    Raises
    ------
    RlnError
        If the method cannot be applied in parts.
    """

    image: ImageFile
    psf: Volume | None = None
    method: Method = field(default_factory=RichardsonLucy)
    output: Output
    execution: Execution = field(default_factory=Execution)
    first: Box | None = None

    def __post_init__(self) -> None:
        self.method.check_tiled()

    @property
    def out(self) -> Path:
        """Path of the result."""
        return self.output.path

    @property
    def form(self) -> Format:
        """Format of the result."""
        return "zarr" if is_zarr_name(self.out) else "tiff"


def can_write_in_parts(out: Path) -> bool:
    """Tell whether a result of a name can be written in parts."""
    return is_zarr_name(out) or is_ome_name(out) or is_plain_name(out)


def check_output_name(out: Path) -> None:
    """Raise unless a result can be written in parts under a name.

    Raises
    ------
    RlnError
        If the ending is another, or the folder is absent or not writable.
    """
    if not can_write_in_parts(out):
        raise RlnError(f"{out.name} must end in .ome.zarr, .ome.tif or .tif.")
    check_place(out)


def check_task(task: Task, image: Image) -> None:
    """Raise unless image, PSF, method and result match, before anything is read.

    Raises
    ------
    RlnError
        If they do not.
    """
    check_output_name(task.out)
    for file in files_read([Path(task.image.path)]):
        check_apart(task.out, file)
    image.check_one_channel()
    check_plain(task.out, image, task.output.dtype)
    task.method.check(image, task.psf)
