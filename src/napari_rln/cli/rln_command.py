"""``napari-rln rln``."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from napari_rln.cli.channels import channels_of
from napari_rln.cli.options import Flat, ImageSource, Out, PsfSource
from napari_rln.cli.parts import (
    LargeOptions,
    check_channels,
    check_result,
    foretell,
    go,
    in_parts,
)
from napari_rln.cli.terminal import Terminal, exposure, judgement
from napari_rln.core.errors import RlnError
from napari_rln.core.volume import Volume
from napari_rln.engine.request import LargeRun
from napari_rln.io.image import files_read, open_image
from napari_rln.io.paths import check_outputs, make_folder
from napari_rln.io.volumes import OutputType, write_channels, write_volume
from napari_rln.networks.application import apply_steps
from napari_rln.networks.model import UNIVERSAL, load_model
from napari_rln.networks.rln_settings import RlnSettings
from napari_rln.networks.stages import STAGES, network_stages


def rln(
    image: Path,
    *,
    out: Out,
    psf: list[Path] | None = None,
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
        TIFF, ImageJ hyperstack, OME-TIFF, OME-Zarr, LSM, or a folder of planes.
    out
        Result, .tif (ImageJ), .ome.tif or .ome.zarr. It is written in parts where the volume
        outgrows the memory; a run that was interrupted goes on from where it was.
    psf
        Point spread function, in the same formats; resampled to the image's voxels if need be. One
        for each channel, or a file with as many channels, deconvolves them all into one .ome.tif.
        A model of the paper's variant needs none.
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
    psfs = psf or []
    memory = settings.memory_gb
    read = [image, *psfs, Path(model)]
    channels = channels_of(image, image_source, psfs)
    if channels and stages is not None:
        raise RlnError("stages are of one channel; choose one with `channel`.")
    first = replace(image_source, channel=channels[0][0]) if channels else image_source
    kernel = psfs[0] if psfs else None
    parts = not channels and in_parts(
        image, image_source, out, large, memory, kernel, settings, chosen
    )
    if parts or large.dry_run:
        if parts and stages is not None:
            raise RlnError("stages are of a whole volume; crop the image for them.")
        origin = first.origin(image)
        if parts:
            check_result(out, read, large)
        fitted = None
        if kernel is not None:
            like = open_image(origin)
            fitted, _ = psf_source.fitted(
                kernel, like, terminal, channel=first.channel, repair=repair
            )
        if not parts:
            count = len(channels) or 1
            foretell(image, first, out, dtype, memory, fitted, settings, terminal, chosen, count)
            return
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
    if channels:
        check_channels(image, image_source, channels, memory, settings, chosen)
    check_result(out, read, large, image_source.origin(image), len(channels) or 1)
    if stages is not None:
        make_folder(stages)
        kept = [stages / f"{name}.ome.tif" for name in STAGES]
        check_outputs(kept, inputs=files_read(read), overwrite=large.settings.overwrite)
    reported: list[dict[str, Any]] = []

    def one(source: ImageSource, file: Path | None) -> Volume:
        volume = source.read(image)
        fitted = None
        if file is not None:
            fitted, _ = psf_source.fitted(
                file, volume, terminal, channel=source.channel, repair=repair
            )
        result = terminal.follow(apply_steps(volume, fitted, chosen, settings))
        assert result.record is not None
        facts = result.record.facts
        where = f"{out}, channel {source.channel}" if channels else str(out)
        terminal.say(
            f"{where}: model {chosen.name} on {facts['device']} in {facts['seconds']:.1f} s, "
            f"{exposure(facts)}, {judgement(facts)}"
        )
        reported.append({"out": str(out), "facts": facts})
        if stages is not None:
            found = network_stages(volume, fitted, chosen, settings)
            for name, path in zip(STAGES, kept, strict=True):
                write_volume(found[name], path)
        return result

    if channels:
        results = [one(replace(image_source, channel=n), file) for n, file in channels]
        write_channels(results, out, dtype=dtype, replace=large.settings.overwrite)
    else:
        result = one(image_source, kernel)
        write_volume(result, out, dtype=dtype, replace=large.settings.overwrite)
    terminal.report({"out": str(out), "channels": reported} if channels else reported[0])
