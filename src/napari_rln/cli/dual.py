"""``napari-rln dual``."""

from pathlib import Path
from typing import Annotated, Literal

from napari_rln.cli.options import Flat, ImageSource, Out, PsfSource
from napari_rln.cli.terminal import Terminal, number
from napari_rln.dual import DualSettings, iterate_views, pair_views
from napari_rln.io import OutputType, check_writable, write_volume
from napari_rln.rld import RldSettings


def dual(
    image: Path,
    image_b: Path,
    *,
    psf: Path,
    psf_b: Path | None = None,
    out: Out,
    registered: Path | None = None,
    repair: bool = True,
    dtype: OutputType = "float32",
    channel_b: int | None = None,
    image_source: Annotated[ImageSource, Flat] = ImageSource(),
    psf_source: Annotated[PsfSource, Flat] = PsfSource(),
    views: Annotated[DualSettings, Flat] = DualSettings(),
    settings: Annotated[RldSettings, Flat] = RldSettings(),
    terminal: Annotated[Terminal, Flat] = Terminal(),
) -> None:
    """Deconvolve two views of one object together, as of a diSPIM, by Richardson-Lucy.

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
    registered
        File for the second view as it was brought onto the first, to be looked at.
    repair
        Repair what is wrong with a PSF and say what was done.
    dtype
        Type of the written values; uint16 and uint8 round and clip.
    channel_b
        Which channel of the second view, where it is not that of the first.
    """
    check_writable(out)
    if registered is not None:
        check_writable(registered)
    first = image_source.read(image)
    other = ImageSource(
        voxel_um=image_source.voxel_um,
        channel=image_source.channel if channel_b is None else channel_b,
        time=image_source.time,
    )
    second = other.read(image_b)
    fitted, _ = psf_source.fitted(psf, first, terminal, repair=repair)
    fitted_b, _ = psf_source.fitted(psf_b or psf, second, terminal, repair=repair)
    levels: tuple[float | Literal["auto"], Literal["error", "clip"]]
    levels = settings.background, settings.negatives
    pair = terminal.follow(pair_views(first, second, fitted, fitted_b, *levels, settings=views))
    if registered is not None:
        write_volume(pair.second, registered)
    result = terminal.follow(iterate_views(pair, settings))
    write_volume(result, out, dtype=dtype)
    assert result.record is not None
    facts = result.record.facts
    found = facts.get("registration")
    alike = "" if found is None else f", views correlate by {number(found['similarity_after'])}"
    terminal.say(
        f"{out}: {facts['iterations']} iterations on {facts['device']} in "
        f"{facts['seconds']:.1f} s, "
        f"backgrounds {facts['background']:.4g} and {facts['background_b']:.4g}{alike}"
    )
    terminal.report({"out": str(out), "facts": facts})
