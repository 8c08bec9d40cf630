"""``napari-rln dual``."""

import dataclasses
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from napari_rln.cli.options import Flat, ImageSource, Out, Overwrite, PsfSource, bytes_of
from napari_rln.cli.terminal import Terminal, number
from napari_rln.core.errors import RlnError
from napari_rln.core.volume import VoxelUm
from napari_rln.deconvolution.rld_settings import RldSettings
from napari_rln.deconvolution.views import DualSettings, iterate_views, pair_views
from napari_rln.io.image import files_read
from napari_rln.io.paths import check_outputs, check_tiff_output
from napari_rln.io.volumes import OutputType, write_volume
from napari_rln.networks.model import load_model
from napari_rln.networks.network_views import apply_views_steps, check_views_model
from napari_rln.networks.rln_settings import RlnSettings

_SHARED = (
    "background",
    "offset",
    "gain",
    "repair_image",
    "negatives",
    "device",
    "precision",
)  # of both methods


def dual(
    image: Path,
    image_b: Path,
    *,
    psf: Path,
    psf_b: Path | None = None,
    out: Out,
    model: Annotated[str | None, Parameter(name=["--model", "-m"])] = None,
    tile: int | Literal["auto"] = "auto",
    memory_gb: float | Literal["auto"] = "auto",
    registered: Path | None = None,
    repair: bool = True,
    dtype: OutputType = "float32",
    overwrite: Overwrite = False,
    channel_b: int | None = None,
    voxel_um_b: VoxelUm | None = None,
    psf_b_voxel_um: VoxelUm | None = None,
    image_source: Annotated[ImageSource, Flat] = ImageSource(),
    psf_source: Annotated[PsfSource, Flat] = PsfSource(),
    views: Annotated[DualSettings, Flat] = DualSettings(),
    settings: Annotated[RldSettings, Flat] = RldSettings(),
    terminal: Annotated[Terminal, Flat] = Terminal(),
) -> None:
    """Deconvolve two views of one object together, as of a diSPIM.

    By Richardson-Lucy, or by a network where a model is named.

    Parameters
    ----------
    image
        First view: TIFF, ImageJ hyperstack or OME-TIFF. The result is as it lies.
    image_b
        Second view, as its camera took it.
    psf
        Point spread function of the first view; of both, each in its own direction, if it is the
        only one.
    psf_b
        Of the second view, as its camera would take it.
    out
        Result, .tif (ImageJ) or .ome.tif.
    model
        Name of a model that comes with the package, such as universal, or a model file.
    tile
        Side in voxels of the network's tiles; auto takes the largest that the memory allows.
    memory_gb
        Memory that the program may have with a network; auto takes half of what is free.
    registered
        File for the second view as it was brought onto the first, to be looked at.
    repair
        Repair what is wrong with a PSF and say what was done.
    dtype
        Type of the written values; uint16 and uint8 round and clip.
    overwrite
        Replace files of the results if they are there.
    channel_b
        Which channel of the second view, where it is not that of the first.
    voxel_um_b
        Voxel size z y x of the second view in micrometres, as --voxel-um of the first, where it is
        another one.
    psf_b_voxel_um
        The same of its PSF.
    """
    chosen = None if model is None else load_model(model)
    if chosen is not None:
        check_views_model(chosen)
        _check_settings(settings)
    elif (tile, memory_gb) != ("auto", "auto"):
        raise RlnError("`tile` and `memory_gb` are of a network; name its `model` too.")
    outputs = [out] if registered is None else [out, registered]
    for output in outputs:
        check_tiff_output(output)
    check_outputs(
        outputs,
        inputs=files_read([image, image_b, psf, psf_b]),
        overwrite=overwrite,
        room=bytes_of(image_source.origin(image)),
    )
    first = image_source.read(image)
    other = dataclasses.replace(
        image_source,
        voxel_um=voxel_um_b or image_source.voxel_um,
        channel=image_source.channel if channel_b is None else channel_b,
    )
    second = other.read(image_b)
    fitted, _ = psf_source.fitted(psf, first, terminal, channel=image_source.channel, repair=repair)
    source_b = dataclasses.replace(
        psf_source, psf_voxel_um=psf_b_voxel_um or psf_source.psf_voxel_um
    )
    fitted_b, _ = source_b.fitted(
        psf_b or psf, second, terminal, channel=other.channel, repair=repair
    )
    pair = terminal.follow(
        pair_views(
            first,
            second,
            fitted,
            fitted_b,
            settings.background,
            settings.negatives,
            settings=views,
            offset=settings.offset,
            gain=settings.gain,
            repair_image=settings.repair_image,
        )
    )
    if registered is not None:
        write_volume(pair.second, registered, replace=overwrite)
    if chosen is None:
        result = terminal.follow(iterate_views(pair, settings))
    else:
        told = RlnSettings(
            device=settings.device, precision=settings.precision, tile=tile, memory_gb=memory_gb
        )
        result = terminal.follow(apply_views_steps(pair, chosen, told))
    write_volume(result, out, dtype=dtype, replace=overwrite)
    assert result.record is not None
    facts = result.record.facts
    found = facts.get("registration")
    alike = "" if found is None else f", views correlate by {number(found['similarity_after'])}"
    how = f"model {chosen.name}" if chosen else f"{facts['iterations']} iterations"
    terminal.say(
        f"{out}: {how} on {facts['device']} in "
        f"{facts['seconds']:.1f} s, "
        f"backgrounds {facts['background']:.4g} and {facts['background_b']:.4g}{alike}"
    )
    terminal.report({"out": str(out), "facts": facts})


def _check_settings(settings: RldSettings) -> None:
    """Raise if something is set of a classical deconvolution that a model does not take part in."""
    plain = RldSettings(**{name: getattr(settings, name) for name in _SHARED})
    changed = [
        f"--{field.name.replace('_', '-')}"
        for field in dataclasses.fields(settings)
        if getattr(settings, field.name) != getattr(plain, field.name)
    ]
    if changed:
        raise RlnError(
            f"{', '.join(changed)} is of Richardson-Lucy, but a model has its own start; leave it "
            "out, or leave out `model`."
        )
