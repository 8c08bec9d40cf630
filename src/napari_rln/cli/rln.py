"""``napari-rln rln``."""

from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from napari_rln.application import apply_steps
from napari_rln.cli.channels import channels_of, each_channel
from napari_rln.cli.large import LargeOptions, check_result, foretell, go, in_parts
from napari_rln.cli.options import Flat, ImageSource, Out, PsfSource
from napari_rln.cli.terminal import Terminal, exposure, judgement
from napari_rln.errors import RlnError
from napari_rln.files import check_outputs, make_folder
from napari_rln.io import OutputType, write_volume
from napari_rln.large.request import LargeRun, likeness
from napari_rln.model import UNIVERSAL, load_model
from napari_rln.rln import RlnSettings
from napari_rln.stages import STAGES, network_stages
from napari_rln.stores.source import open_source
from napari_rln.volume import Volume


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
        outgrows the memory, and gone on with where that was interrupted.
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
    first = psfs[0] if psfs else None
    memory = settings.memory_gb
    read = [image, *psfs, Path(model)]
    channels = channels_of(image, image_source, psfs)
    if channels and stages is not None:
        raise RlnError("stages are of one channel; choose one with `channel`.")
    if not channels and in_parts(
        image, image_source, out, large, memory, first, psf_source, settings, chosen
    ):
        if stages is not None:
            raise RlnError("stages are of a whole volume; crop the image for them.")
        origin = image_source.origin(image)
        check_result(out, read, large)
        fitted = None
        if first is not None:
            like = likeness(open_source(origin))
            fitted, _ = psf_source.fitted(
                first, like, terminal, channel=image_source.channel, repair=repair
            )
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
    if large.dry_run and not channels:
        fitted = None
        if first is not None:
            like = likeness(open_source(image_source.origin(image)))
            fitted, _ = psf_source.fitted(
                first, like, terminal, channel=image_source.channel, repair=repair
            )
        foretell(image, image_source, out, dtype, memory, fitted, settings, terminal, chosen)
        return
    check_result(out, read, large, image_source.origin(image), len(channels) or 1)
    if stages is not None:
        make_folder(stages)
        kept = [stages / f"{name}.ome.tif" for name in STAGES]
        check_outputs(kept, inputs=read, overwrite=large.settings.overwrite)
    reported: list[dict[str, Any]] = []

    def one(source: ImageSource, psf_source: PsfSource, file: Path | None) -> Volume:
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
        each_channel(image_source, psf_source, channels, one, out, dtype)
    else:
        write_volume(one(image_source, psf_source, first), out, dtype=dtype)
    terminal.report({"out": str(out), "channels": reported} if channels else reported[0])
