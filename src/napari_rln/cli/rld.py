"""``napari-rln rld``."""

from pathlib import Path
from typing import Annotated, Literal

from napari_rln.cli.large import LargeOptions, Memory, foretell, go, in_parts, origin_of
from napari_rln.cli.options import Flat, ImageSource, Out, PsfSource
from napari_rln.cli.terminal import Terminal, exposure
from napari_rln.deconvolution import iterate
from napari_rln.io import OutputType, check_writable, write_volume
from napari_rln.large.request import LargeRun, likeness
from napari_rln.rld import RldSettings
from napari_rln.stores.source import open_source


def rld(
    image: Path,
    *,
    psf: Path,
    out: Out,
    repair: bool = True,
    dtype: OutputType = "float32",
    memory_gb: Memory = "auto",
    tile: int | Literal["auto"] = "auto",
    image_source: Annotated[ImageSource, Flat] = ImageSource(),
    psf_source: Annotated[PsfSource, Flat] = PsfSource(),
    settings: Annotated[RldSettings, Flat] = RldSettings(),
    large: Annotated[LargeOptions, Flat] = LargeOptions(),
    terminal: Annotated[Terminal, Flat] = Terminal(),
) -> None:
    """Deconvolve an image by Richardson-Lucy.

    Parameters
    ----------
    image
        TIFF, ImageJ hyperstack, OME-TIFF, OME-Zarr, or a folder of planes.
    psf
        Point spread function, in the same formats; resampled to the image's voxels if need be.
    out
        Result, .tif (ImageJ), .ome.tif or .ome.zarr. It is written in parts where the volume
        outgrows the memory, and gone on with where that was interrupted.
    repair
        Repair what is wrong with the PSF (background, centre, ...) and say what was done.
    dtype
        Type of the written values; uint16 and uint8 round and clip.
    memory_gb
        Memory that may be taken, by the program and all workers of a machine together; auto takes
        half of what is free. Volumes that need more are deconvolved in parts.
    tile
        Side in voxels of these parts; auto takes the largest that the memory allows.
    """
    if tile != "auto" or in_parts(
        image, image_source, out, large, memory_gb, psf, psf_source, settings
    ):
        origin = origin_of(image, image_source)
        like = likeness(open_source(origin))
        fitted, _ = psf_source.fitted(psf, like, terminal, repair=repair)
        run = LargeRun(
            origin=origin,
            psf=fitted,
            settings=settings,
            out=out,
            dtype=dtype,
            memory_gb=memory_gb,
            tile=tile,
            large=large.settings,
        )
        go(run, large, terminal)
        return
    check_writable(out)
    if large.dry_run:
        like = likeness(open_source(origin_of(image, image_source)))
        fitted, _ = psf_source.fitted(psf, like, terminal, repair=repair)
        foretell(image, image_source, out, dtype, memory_gb, fitted, settings, terminal)
        return
    volume = image_source.read(image)
    fitted, findings = psf_source.fitted(psf, volume, terminal, repair=repair)
    result = terminal.follow(iterate(volume, fitted, settings))
    write_volume(result, out, dtype=dtype)
    assert result.record is not None
    facts = result.record.facts
    terminal.say(
        f"{out}: {facts['iterations']} iterations ({facts['stopped_by']}) on {facts['device']} in "
        f"{facts['seconds']:.1f} s, {exposure(facts)}"
    )
    terminal.report(
        {"out": str(out), "facts": facts, "psf_findings": [finding.what for finding in findings]}
    )
