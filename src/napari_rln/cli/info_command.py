"""The command ``napari-rln info``."""

from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from napari_rln.cli.options import Flat
from napari_rln.cli.terminal import Terminal, number
from napari_rln.core.errors import RlnError
from napari_rln.io.image import open_contents
from napari_rln.psf.from_optics import GivenOptics, complete_optics
from napari_rln.psf.optics import Optics


def info(
    image: Annotated[Path, Parameter(allow_leading_hyphen=True)],
    *,
    series: int | None = None,
    optics: Annotated[GivenOptics, Flat] = GivenOptics(),
    terminal: Terminal = Terminal(),
) -> None:
    """Describe an image's file: its sizes, its channels, and the optics of a PSF.

    Parameters
    ----------
    image
        File or folder, of any format that is read.
    series
        Image, from 0, of a file with several; the first by default.
    """
    opened = open_contents(image, series or 0)
    sizes = dict(zip(opened.axes.lower(), opened.array.shape, strict=True))
    voxel = opened.voxel_um
    rows = [
        ("size", " x ".join(map(str, sizes.values())) + f" ({' '.join(sizes)})"),
        ("values", str(opened.array.dtype)),
        ("voxel size", " x ".join(map(number, voxel)) + " um (z y x)" if voxel else "not stated"),
    ]
    if opened.images > 1:
        rows.append(("images", f"{opened.images}; this is number {series or 0} (--series)"))
    terminal.table(opened.name, ("", ""), rows)
    described: list[dict[str, Any]] = []
    for channel in range(opened.channels):
        stated = opened.optics[channel] if channel < len(opened.optics) else Optics()
        report: dict[str, Any] = {"name": stated.channel, "objective": stated.objective}
        try:
            known = complete_optics(stated, optics, channel=channel, name=image.name)
        except RlnError as problem:
            terminal.say(str(problem))
            report |= {"stated": stated.stated, "problem": str(problem)}
        else:
            terminal.optics(known, channel)
            report |= {"stated": known.stated, "assumed": list(known.assumed)}
        described.append(report)
    terminal.report(
        {
            "sizes": sizes, "voxel_um": voxel, "type": str(opened.array.dtype),
            "images": opened.images, "channels": described,
        }
    )  # fmt: skip
