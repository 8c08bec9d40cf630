"""``napari-rln rln``."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from napari_rln.application import apply_steps
from napari_rln.cli.large import LargeOptions, foretell, go, in_parts, origin_of
from napari_rln.cli.options import Flat, ImageSource, Out, PsfSource
from napari_rln.cli.terminal import Terminal, exposure, number
from napari_rln.errors import RlnError
from napari_rln.io import OutputType, check_writable, write_volume
from napari_rln.large.request import LargeRun, likeness
from napari_rln.model import UNIVERSAL, load_model
from napari_rln.rln import RlnSettings
from napari_rln.stages import network_stages
from napari_rln.stores.source import open_source


def rln(
    image: Path,
    *,
    out: Out,
    psf: Path | None = None,
    model: Annotated[str, Parameter(name=["--model", "-m"])] = UNIVERSAL,
    stages: Path | None = None,
    repair: bool = True,
    dtype: OutputType = "float32",
    image_source: Annotated[ImageSource, Flat] = ImageSource(),
    psf_source: Annotated[PsfSource, Flat] = PsfSource(),
    settings: Annotated[RlnSettings, Flat] = RlnSettings(),
    large: Annotated[LargeOptions, Flat] = LargeOptions(),
    terminal: Annotated[Terminal, Flat] = Terminal(),
) -> None:
    """Deconvolve an image by a Richardson-Lucy Network.

    Parameters
    ----------
    image
        TIFF, ImageJ hyperstack, OME-TIFF, OME-Zarr, or a folder of planes.
    out
        Result, .tif (ImageJ), .ome.tif or .ome.zarr. It is written in parts where the volume
        outgrows the memory, and gone on with where that was interrupted.
    psf
        Point spread function, in the same formats; resampled to the image's voxels if need be. A
        model of the paper's variant needs none.
    model
        Name of a model that comes with the package, or a model file.
    stages
        Folder for what the network computes on its way (FP1, DV1, BP1, e, E1, ...), on its own
        scale and untiled; made if it is not there.
    repair
        Repair what is wrong with the PSF (background, centre, ...) and say what was done.
    dtype
        Type of the written values; uint16 and uint8 round and clip.
    """
    chosen = load_model(model)
    memory = settings.memory_gb
    if in_parts(image, image_source, out, large, memory, psf, psf_source, settings, chosen):
        if stages is not None:
            raise RlnError("stages are of a whole volume; crop the image for them.")
        origin = origin_of(image, image_source)
        fitted = None
        if psf is not None:
            like = likeness(open_source(origin))
            fitted, _ = psf_source.fitted(psf, like, terminal, repair=repair)
        run = LargeRun(
            origin=origin,
            psf=fitted,
            model=chosen,
            settings=settings,
            out=out,
            dtype=dtype,
            memory_gb=memory,
            tile=settings.tile,
            large=large.settings,
        )
        go(run, large, terminal)
        return
    check_writable(out)
    fitted = None
    if large.dry_run:
        if psf is not None:
            like = likeness(open_source(origin_of(image, image_source)))
            fitted, _ = psf_source.fitted(psf, like, terminal, repair=repair)
        foretell(image, image_source, out, dtype, memory, fitted, settings, terminal, chosen)
        return
    volume = image_source.read(image)
    if psf is not None:
        fitted, _ = psf_source.fitted(psf, volume, terminal, repair=repair)
    result = terminal.follow(apply_steps(volume, fitted, chosen, settings))
    write_volume(result, out, dtype=dtype)
    if stages is not None:
        stages.mkdir(parents=True, exist_ok=True)
        for name, stage in network_stages(volume, fitted, chosen, settings).items():
            write_volume(stage, stages / f"{name}.ome.tif")
    assert result.record is not None
    facts = result.record.facts
    terminal.say(
        f"{out}: model {chosen.name} on {facts['device']} in {facts['seconds']:.1f} s, "
        f"{exposure(facts)}, chi2 {number(facts.get('chi2')) or 'unknown'}, scale "
        f"{number(facts.get('reblur_scale')) or 'unknown'}, flux ratio "
        f"{number(facts.get('flux_ratio')) or 'unknown'}"
    )
    terminal.report({"out": str(out), "facts": facts})
