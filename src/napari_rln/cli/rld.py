"""``napari-rln rld``."""

from pathlib import Path
from typing import Annotated

from napari_rln.cli.options import Flat, ImageSource, Out, PsfSource
from napari_rln.cli.terminal import Terminal
from napari_rln.deconvolution import iterate
from napari_rln.io import OutputType, check_writable, write_volume
from napari_rln.rld import RldSettings


def rld(
    image: Path,
    *,
    psf: Path,
    out: Out,
    repair: bool = True,
    dtype: OutputType = "float32",
    image_source: Annotated[ImageSource, Flat] = ImageSource(),
    psf_source: Annotated[PsfSource, Flat] = PsfSource(),
    settings: Annotated[RldSettings, Flat] = RldSettings(),
    terminal: Annotated[Terminal, Flat] = Terminal(),
) -> None:
    """Deconvolve an image by Richardson-Lucy.

    Parameters
    ----------
    image
        TIFF, ImageJ hyperstack or OME-TIFF.
    psf
        Point spread function, in the same formats; resampled to the image's voxels if need be.
    out
        Result, .tif (ImageJ) or .ome.tif.
    repair
        Repair what is wrong with the PSF (background, centre, ...) and say what was done.
    dtype
        Type of the written values; uint16 and uint8 round and clip.
    """
    check_writable(out)
    volume = image_source.read(image)
    fitted, findings = psf_source.fitted(psf, volume, terminal, repair=repair)
    result = terminal.follow(iterate(volume, fitted, settings))
    write_volume(result, out, dtype=dtype)
    assert result.record is not None
    facts = result.record.facts
    terminal.say(
        f"{out}: {facts['iterations']} iterations ({facts['stopped_by']}) on {facts['device']} in "
        f"{facts['seconds']:.1f} s, background {facts['background']:.4g}"
    )
    terminal.report(
        {"out": str(out), "facts": facts, "psf_findings": [finding.what for finding in findings]}
    )
