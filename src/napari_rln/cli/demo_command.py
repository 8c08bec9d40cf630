"""The command ``napari-rln demo``."""

from pathlib import Path

from napari_rln import samples
from napari_rln.cli.compare_command import show, written
from napari_rln.cli.options import Out, Overwrite
from napari_rln.cli.terminal import Terminal
from napari_rln.deconvolution.classical import RichardsonLucy
from napari_rln.deconvolution.shared import Shared
from napari_rln.engine.in_memory import deconvolve_iter
from napari_rln.evaluate.comparison import CompareSettings
from napari_rln.evaluate.figure_content import FigureSettings
from napari_rln.io.paths import check_outputs, make_folder
from napari_rln.io.volumes import write
from napari_rln.networks.inference import compile_in_background
from napari_rln.networks.network import Network
from napari_rln.psf.examine import fit_psf
from napari_rln.psf.findings import HARMFUL

_MODELS = ("universal", "bead-paper")
_MIDDLE = (25, 31, 32)  # centre of the bead, so that the cuts show the hollow


def demo(
    *,
    out: Out = Path("demo"),
    overwrite: Overwrite = False,
    terminal: Terminal = Terminal(),
) -> None:
    """Deconvolve the shipped sample, a hollow bead, and show raw, RLD and RLN side by side.

    Parameters
    ----------
    out
        Folder for the results, the table and the figure; created if absent.
    overwrite
        Replace the files of an earlier demo.
    """
    make_folder(out)
    methods = [RichardsonLucy(), *(Network(model=name) for name in _MODELS)]
    files = [out / f"bead-{name}.ome.tif" for name in ("rld", *(f"rln-{m}" for m in _MODELS))]
    check_outputs([*files, *written(out, ("png",))], overwrite=overwrite)
    compile_in_background()  # while Richardson-Lucy runs
    image = samples.bead()
    terminal.say(
        f"A hollow fluorescent bead, widefield, {image.shape} voxels (EPFL; voxel size nominal)."
    )
    psf, findings = fit_psf(samples.bead_psf(), image)
    terminal.findings(findings, repaired=HARMFUL)
    shared = Shared(mark for method in methods for mark in method.marks)
    results = []
    for method, file in zip(methods, files, strict=True):
        result = terminal.follow(deconvolve_iter(image, psf, method, shared=shared))
        write(result, file)
        results.append(result)
    look = FigureSettings(position=_MIDDLE)
    show(image, results, out, None, psf, CompareSettings(), look, ("png",), terminal, shared)
