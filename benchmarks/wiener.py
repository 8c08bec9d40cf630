"""Loss of Wiener's automatic noise-to-signal ratio against the best one of a grid.

Simulated: seven PSFs, two classes of structures (`cells.py`), three light levels, and four cases.
The loss is the PSNR, without a fit, of the best ratio less that of the automatic one. Real: the
shipped bead and nucleus. The reduced chi squared of the raw image and of the result, blurred
again, with the light from beyond the border as Richardson-Lucy estimates it (`napari-rln check`)
or as the filter itself puts it there; and Pearson's r of the nucleus with its confocal image.

    python benchmarks/wiener.py           # some five minutes on two cores
    python benchmarks/wiener.py --quick   # one PSF, one class: less than two
"""

import argparse
import itertools
import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor
from statistics import fmean, median
from typing import NamedTuple

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from cells import NEW_PSF, SEED, Cell
from cells import psf as true_psf
from field import INSIDE, NUCLEUS_BOX
from rich.console import Console
from rich.table import Table
from scipy import ndimage
from tables import markdown

from napari_rln import samples
from napari_rln.core.generators import finish
from napari_rln.core.metrics import pearson, psnr
from napari_rln.core.volume import FloatArray, Volume
from napari_rln.deconvolution.calibration import calibrate, prepare_image
from napari_rln.deconvolution.convolution import Convolution
from napari_rln.deconvolution.prepared_view import PreparedView
from napari_rln.deconvolution.residual import reconvolution_residual
from napari_rln.deconvolution.wiener import RATIOS, Wiener, wiener_filter
from napari_rln.evaluate.check import outside_light_iter
from napari_rln.psf.prepare import prepare_psf
from napari_rln.simulate.imaging import simulate_pair

PSFS = (
    "widefield oil 1.4", "widefield water 1.2, 15 um deep", "confocal 1.4", "light sheet 0.8",
    "Gaussian, wide", "spherical and coma", NEW_PSF,
)  # fmt: skip
CLASSES = ("nuclei", "filaments")
PHOTONS = (30, 300, 3000)
CASES = ("exact PSF", "PSF slightly wrong", "cut by the border", "PSF 20 % too wide")
GRID = RATIOS[20:141:2]  # 1e-6 to 1, ten in a decade
SCENE = (64, 96, 96)  # voxels (z, y, x)
INNER = np.s_[8:56, 16:80, 16:80]  # what is left of a scene that is cut
SAMPLES = {
    "bead": (samples.bead, lambda: prepare_psf(samples.bead_psf())),
    "nucleus": (samples.nucleus, samples.nucleus_psf),
}
CPU = torch.device("cpu")


class Row(NamedTuple):
    """What the automatic ratio of a cell lost, and the ratio over the best one."""

    cell: Cell
    case: str
    loss_db: float
    over_best: float


def wider(psf: Volume) -> Volume:
    """Return a PSF stretched by a fifth about its centre, sum 1."""
    away = (np.array(psf.shape) // 2) / 6
    data = ndimage.affine_transform(psf.data, np.full(3, 5 / 6), away, order=1)
    return psf.with_data(data / data.sum())


def made(cell: Cell, case: str) -> tuple[Volume, Volume, FloatArray]:
    """Return a cell's image, the PSF that the filter uses, and the truth."""
    true = true_psf(cell.psf)
    box = INNER if case == "cut by the border" else np.s_[:48, :64, :64]
    shape = SCENE if box is INNER else tuple(s.stop for s in box)
    seed = (SEED, cell.first, CLASSES.index(cell.structure))
    pair = simulate_pair(true, cell.structures, cell.imaging, shape=shape, seed=seed)
    image, truth = (np.ascontiguousarray(v.data[box]) for v in (pair.image, pair.truth))
    psf = wider(true) if case == "PSF 20 % too wide" else cell.assumed
    return pair.image.with_data(image), psf, truth


def prepared(image: Volume, psf: Volume) -> tuple[PreparedView, float]:
    """Return an image as the method gets it, and its automatic ratio."""
    calibration = calibrate(image, Wiener())
    clean, mask, _ = prepare_image(image, psf, calibration)
    view = PreparedView(image=clean, psf=psf, calibration=calibration, mask=mask)
    return view, Wiener().ratio_for(view)["noise_to_signal"]


def row(cell: Cell, case: str) -> Row:
    """Return the row of a cell."""
    torch.set_num_threads(1)
    image, psf, truth = made(cell, case)
    view, ratio = prepared(image, psf)
    scores = {r: psnr(Wiener().filtered(view, r, CPU), truth) for r in (*GRID, ratio)}
    best = max(scores, key=lambda r: scores[r])
    return Row(cell, case, scores[best] - scores[ratio], ratio / best)


def sample(name: str) -> list[str]:
    """Return the texts of a shipped sample's row."""
    torch.set_num_threads(1)
    image, psf = (make() for make in SAMPLES[name])
    view, ratio = prepared(image, psf)
    clean, calibration, mask = view.image, view.calibration, view.mask
    raw = clean.data - np.float32(calibration.background)
    result = Wiener().filtered(view, ratio, CPU)

    blur = Convolution(psf.data, image.shape)
    beyond = blur.filter(torch.from_numpy(raw), wiener_filter(blur, ratio), joined=True).clone()
    beyond[blur.window] = 0
    own = blur.A(beyond).numpy()
    outside = finish(outside_light_iter(clean, psf, calibration, "cpu", mask=mask))
    texts = [name, f"{ratio:.1e}"]
    for data, light in ((raw, outside), (result, outside), (result, own)):
        residual = reconvolution_residual(
            clean.data, data, psf.data, calibration, outside=light, mask=mask
        )
        texts.append(f"{residual.chi2:.3g}")
    if name != "nucleus":
        return [*texts, ""]
    truth = samples.nucleus_confocal().data[NUCLEUS_BOX]
    inside = truth > INSIDE

    def agreement(data: FloatArray) -> float:
        return pearson(data[NUCLEUS_BOX][inside], truth[inside])

    best, at = max((agreement(Wiener().filtered(view, r, CPU)), r) for r in GRID)
    return [*texts, f"{agreement(raw):.3f}, {agreement(result):.3f}, {best:.3f} at {at:.1e}"]


def losses(rows: list[Row]) -> Table:
    """Return the table of the simulations, the means over PSFs and classes."""
    table = Table(
        "photons", "case", "n", "loss dB: mean, max", "ratio / best: median, range",
        title="Simulated: loss of the automatic ratio", title_justify="left",
    )  # fmt: skip
    for photons, case in itertools.product(PHOTONS, CASES):
        of = [r for r in rows if r.case == case and r.cell.photons == photons]
        loss, ratio = [r.loss_db for r in of], [r.over_best for r in of]
        table.add_row(
            str(photons), case, str(len(of)), f"{fmean(loss):.2f}, {max(loss):.2f}",
            f"{median(ratio):.2f}, {min(ratio):.2f} to {max(ratio):.2f}",
        )  # fmt: skip
    return table


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one PSF, one class")
    parser.add_argument("--workers", type=int, default=2, help="processes of one thread each")
    parser.add_argument("--markdown", action="store_true", help="print tables as Markdown")
    given = parser.parse_args()
    psfs, classes = (PSFS[:1], CLASSES[:1]) if given.quick else (PSFS, CLASSES)
    work = [
        (Cell(psf=p, photons=n, structure=s, seeds=1, mismatch=c == CASES[1]), c)
        for n, c, p, s in itertools.product(PHOTONS, CASES, psfs, classes)
    ]
    with ProcessPoolExecutor(given.workers, multiprocessing.get_context("spawn")) as pool:
        real = pool.map(sample, SAMPLES)
        rows = list(pool.map(row, *zip(*work, strict=True)))
        shown = Table(
            "sample", "ratio", "chi2 raw", "chi2", "chi2, light of the filter",
            "r inside with confocal: raw, result, best",
            title="Real: the shipped samples", title_justify="left",
        )  # fmt: skip
        for texts in real:
            shown.add_row(*texts)
    show = Console(width=140)
    for table in (losses(rows), shown):
        print(markdown(table)) if given.markdown else show.print(table)
    for case in CASES:
        r = max((r for r in rows if r.case == case), key=lambda r: r.loss_db)
        print(f"- worst, {case}: {r.cell}: {r.loss_db:.2f} dB at {r.over_best:.2g} of the best")


if __name__ == "__main__":
    main()
