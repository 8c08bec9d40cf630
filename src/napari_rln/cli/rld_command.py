"""``napari-rln rld``."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

from napari_rln.cli.channels import channels_of
from napari_rln.cli.options import Flat, ImageSource, Out, PsfSource
from napari_rln.cli.parts import (
    LargeOptions,
    Memory,
    check_channels,
    check_result,
    foretell,
    go,
    in_parts,
)
from napari_rln.cli.terminal import Terminal, exposure, judgement
from napari_rln.core.volume import Volume
from napari_rln.deconvolution.loop import iterate
from napari_rln.deconvolution.rld_settings import RldSettings
from napari_rln.engine.request import LargeRun
from napari_rln.io.image import open_image
from napari_rln.io.volumes import OutputType, write_channels, write_volume


def rld(
    image: Path,
    *,
    psf: list[Path],
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
        TIFF, ImageJ hyperstack, OME-TIFF, OME-Zarr, LSM, or a folder of planes.
    psf
        Point spread function, in the same formats; resampled to the image's voxels if need be. One
        for each channel, or a file with as many channels, deconvolves them all into one .ome.tif.
    out
        Result, .tif (ImageJ), .ome.tif or .ome.zarr. It is written in parts where the volume
        outgrows the memory; a run that was interrupted goes on from where it was.
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
    channels = channels_of(image, image_source, psf)
    first = replace(image_source, channel=channels[0][0]) if channels else image_source
    parts = not channels and (
        tile != "auto" or in_parts(image, image_source, out, large, memory_gb, psf[0], settings)
    )
    if parts or large.dry_run:
        origin = first.origin(image)
        if parts:
            check_result(out, [image, *psf], large)
        fitted, _ = psf_source.fitted(
            psf[0], open_image(origin), terminal, channel=first.channel, repair=repair
        )
        if not parts:
            count = len(channels) or 1
            foretell(
                image, first, out, dtype, memory_gb, fitted, settings, terminal, channels=count
            )
            return
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
    if channels:
        check_channels(image, image_source, channels, memory_gb, settings)
    check_result(out, [image, *psf], large, image_source.origin(image), len(channels) or 1)
    reported: list[dict[str, Any]] = []

    def one(source: ImageSource, file: Path) -> Volume:
        volume = source.read(image)
        fitted, findings = psf_source.fitted(
            file, volume, terminal, channel=source.channel, repair=repair
        )
        result = terminal.follow(iterate(volume, fitted, settings))
        assert result.record is not None
        facts = result.record.facts
        where = f"{out}, channel {source.channel}" if channels else str(out)
        terminal.say(
            f"{where}: {facts['iterations']} iterations ({facts['stopped_by']}) on "
            f"{facts['device']} in {facts['seconds']:.1f} s, {exposure(facts)}, {judgement(facts)}"
        )
        said = [finding.what for finding in findings]
        reported.append({"out": str(out), "facts": facts, "psf_findings": said})
        return result

    if channels:
        results = [one(replace(image_source, channel=n), file) for n, file in channels]
        write_channels(results, out, dtype=dtype, replace=large.settings.overwrite)
    else:
        result = one(image_source, psf[0])
        write_volume(result, out, dtype=dtype, replace=large.settings.overwrite)
    terminal.report({"out": str(out), "channels": reported} if channels else reported[0])
