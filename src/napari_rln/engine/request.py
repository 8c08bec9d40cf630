"""What is asked of a run from disk to disk, and whether it can be done."""

from dataclasses import dataclass, field
from pathlib import Path

from napari_rln.core.errors import RlnError
from napari_rln.core.machine import MemoryGb
from napari_rln.core.settings import check_limits
from napari_rln.core.tiles import TileSide
from napari_rln.core.volume import Box, Volume
from napari_rln.deconvolution.rld_settings import RldSettings, check_together
from napari_rln.engine.execution import LargeSettings
from napari_rln.engine.imagej import check_plain, is_plain_name
from napari_rln.engine.job import Method, Settings
from napari_rln.engine.plan import Format
from napari_rln.io.image import Image, ImageFile, files_read
from napari_rln.io.paths import check_apart, check_place, is_ome_name, is_zarr_name
from napari_rln.io.volumes import OutputType
from napari_rln.networks.model import Model, load_model
from napari_rln.networks.rln_settings import RlnSettings, check_model
from napari_rln.networks.suitability import check_grid, refuse_grid


@dataclass(frozen=True, kw_only=True)
class LargeRun:
    """A run from disk to disk, as it is asked for.

    Attributes
    ----------
    origin
        The image.
    psf
        On its voxels, sum 1; a model of the paper's variant needs none.
    model
        The network's; none for the classical deconvolution.
    settings
        Of the classical deconvolution, or of the network's application.
    out
        The result, ``.ome.zarr``, ``.zarr``, ``.ome.tif`` or ``.ome.tiff``; or ``.tif``, for
        ImageJ, of one volume of up to 4 GB.
    dtype
        Of its values; integers round and clip.
    memory_gb
        Memory that this process and the workers of one machine may have together, with their
        libraries; auto takes half of what is free.
    tile
        Side in voxels of what is computed at once; auto takes the largest that the memory allows.
    large
        How it is done.
    first
        Part (z, y, x) of the image that is wanted before the rest, such as what somebody looks at;
        the result does not depend on it.

    Raises
    ------
    RlnError
        If the settings are not for that, or a PSF or a model is missing.
    """

    origin: ImageFile
    psf: Volume | None = None
    model: Model | None = None
    settings: Settings = field(default_factory=RldSettings)
    out: Path
    dtype: OutputType = "float32"
    memory_gb: MemoryGb = "auto"
    tile: TileSide = "auto"
    large: LargeSettings = field(default_factory=LargeSettings)
    first: Box | None = None

    def __post_init__(self) -> None:
        check_limits(self)
        if isinstance(self.settings, RlnSettings):
            if self.model is None:
                object.__setattr__(self, "model", load_model())
            if self.settings.grid != "refuse":
                raise RlnError(
                    "a run from disk to disk does not resample; resample the image first, or use "
                    "a model that takes its voxels."
                )
        elif self.psf is None:
            raise RlnError("Richardson-Lucy deconvolution needs the PSF; give one (`psf`).")
        elif self.settings.tolerance:
            raise RlnError(
                "a tolerance would stop every tile elsewhere; give iterations for a run from disk "
                "to disk."
            )

    @property
    def method(self) -> Method:
        """What is done."""
        return "rld" if isinstance(self.settings, RldSettings) else "rln"

    @property
    def form(self) -> Format:
        """Of the result."""
        return "zarr" if is_zarr_name(self.out) else "tiff"

    @property
    def told(self) -> RldSettings | None:
        """Settings of the classical deconvolution; none where there is none."""
        if isinstance(self.settings, RldSettings):
            return self.settings
        assert self.model is not None
        return self.model.start.rld() if self.model.start.needs_psf else None


def has_large_name(out: Path) -> bool:
    """Tell whether a result of that name can be written from disk to disk."""
    return is_zarr_name(out) or is_ome_name(out) or is_plain_name(out)


def check_large_name(out: Path) -> None:
    """Raise unless a result can be written from disk to disk under a name.

    Raises
    ------
    RlnError
        If its ending is another, or the folder is absent or not writable.
    """
    if not has_large_name(out):
        raise RlnError(f"{out.name} must end in .ome.zarr, .ome.tif or .tif.")
    check_place(out)


def check_run(run: LargeRun, source: Image) -> None:
    """Raise unless image, PSF, model and result go together, before anything is read.

    Raises
    ------
    RlnError
        If they do not.
    """
    check_large_name(run.out)
    for file in files_read([Path(run.origin.path)]):
        check_apart(run.out, file)
    check_plain(run.out, source, run.dtype)
    model = run.model
    if model is not None:
        check_model(model, run.psf)
        if not check_grid(model, source):
            raise refuse_grid(model, source)
    if run.psf is not None:
        check_together(source, run.psf)
