"""The command ``napari-rln check``."""

from pathlib import Path
from typing import Annotated

from napari_rln.cli.options import (
    Flat,
    ImageOptions,
    Overwrite,
    PsfOptions,
    check_optics_apply,
    psf_of_optics,
)
from napari_rln.cli.terminal import Terminal
from napari_rln.evaluate.check import check as check_result
from napari_rln.io.image import files_read
from napari_rln.io.paths import check_outputs, check_tiff_output
from napari_rln.io.volumes import write
from napari_rln.psf.from_optics import GivenOptics


def check(
    image: Path,
    result: Path,
    *,
    psf: Path | None = None,
    residual: Path | None = None,
    background: float | None = None,
    repair: bool = True,
    device: str = "auto",
    overwrite: Overwrite = False,
    image_options: ImageOptions = ImageOptions(),
    psf_options: PsfOptions = PsfOptions(),
    optics: Annotated[GivenOptics, Flat] = GivenOptics(),
    terminal: Terminal = Terminal(),
) -> None:
    """Check how well a deconvolved image, blurred again, explains the raw one.

    Parameters
    ----------
    image
        Raw image.
    result
        Deconvolved image, of any method or program.
    psf
        Point spread function; by default computed from the optics that the image's file states.
    residual
        Map of the residual in units of the noise, .tif or .ome.tif: above 0 where the result lacks
        light, below 0 where it has too much.
    background
        Background of the image; by default that of the result's record, or of the darkest parts.
    repair
        Repair defects of the PSF, as rld and rln do.
    device
        auto, cpu, cuda, cuda:1, mps.
    overwrite
        Replace an existing map.
    """
    check_optics_apply([psf] if psf else [], optics)
    if residual is not None:
        check_tiff_output(residual)
        check_outputs([residual], inputs=files_read([image, result, psf]), overwrite=overwrite)
    raw = image_options.read(image)
    volume = image_options.read_beside(result)
    if psf is None:
        blur = psf_of_optics(image_options.of(image), raw, optics, terminal)
    else:
        channel = image_options.channel
        blur, _ = psf_options.fitted(psf, raw, terminal, channel=channel, repair=repair)
    trust = check_result(raw, volume, blur, background=background, device=device)
    if residual is not None:
        write(trust.residual, residual, replace=overwrite)
    terminal.say(
        f"{result.name}: chi2 {trust.chi2:.3g} (1 explains the image to within its noise), flux "
        f"ratio {trust.flux_ratio:.3g}, scale {trust.scale:.3g}"
    )
    terminal.report(
        {
            "chi2": trust.chi2,
            "flux_ratio": trust.flux_ratio,
            "scale": trust.scale,
            "residual": residual and str(residual),
        }
    )
