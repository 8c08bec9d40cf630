"""``napari-rln demo``."""

from pathlib import Path
from typing import Annotated

from napari_rln import samples
from napari_rln.cli.compare import show
from napari_rln.cli.options import Flat, Out
from napari_rln.cli.terminal import Terminal
from napari_rln.comparison import CompareSettings
from napari_rln.deconvolution import iterate
from napari_rln.io import write_volume
from napari_rln.psf.doctor import HARMFUL, fit_psf
from napari_rln.rld import RldSettings
from napari_rln.view import FigureSettings

_RESULTS = {
    "bead-wiener-butterworth": RldSettings(back_projector="wiener-butterworth"),
    "bead-rld": RldSettings(),
}

_MIDDLE = (25, 31, 32)  # of the bead, so that the cuts go through the hollow


def demo(
    *,
    out: Out = Path("demo"),
    terminal: Annotated[Terminal, Flat] = Terminal(),
) -> None:
    """Deconvolve the shipped sample, a hollow bead, and show raw against deconvolved.

    Parameters
    ----------
    out
        Folder for the results, the table and the figure; made if it is not there.
    """
    out.mkdir(parents=True, exist_ok=True)
    image = samples.bead()
    terminal.say(
        f"A hollow fluorescent bead, widefield, {image.shape} voxels (EPFL; voxel size nominal)."
    )
    psf, findings = fit_psf(samples.bead_psf(), image)
    terminal.findings(findings, mended=HARMFUL)
    results = []
    for name, settings in _RESULTS.items():
        result = terminal.follow(iterate(image, psf, settings))
        write_volume(result, out / f"{name}.ome.tif")
        results.append(result)
    look = FigureSettings(position=_MIDDLE)
    show(image, results, out, None, psf, CompareSettings(), look, ("png",), terminal)
