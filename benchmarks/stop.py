"""Loss of the automatic stop against the best number of iterations, on synthetic volumes.

Three microscopes, three light levels and six classes of structures (`cells.py`), raw, after a
linear interpolation by half a voxel in z and x, and after the deskew of a stage scan. The loss is
the PSNR, after the least-squares fit of scale and offset, of the best number of iterations less
that of the automatic stop.

    python benchmarks/stop.py --workers 2
    python benchmarks/stop.py --back-projector wiener-butterworth --state interpolated
    python benchmarks/stop.py --background 2 --state plain     # dim objects on a bright background
"""

import argparse
import multiprocessing
import os
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from statistics import fmean
from typing import NamedTuple

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from cells import CLASSES, PHOTONS, Cell
from scipy import ndimage

import napari_rln as rln
from napari_rln.core.metrics import psnr
from napari_rln.core.volume import FloatArray

PSFS = ("widefield oil 1.4", "confocal 1.4", "light sheet 0.8")
STATES = ("plain", "interpolated", "deskewed")
MOST = {"matched": 120, "wiener-butterworth": 60}
ANGLE_DEG = 31.5  # of the light sheet to the stage


class Row(NamedTuple):
    """The best number of iterations of a cell, where the run stopped, and what that cost."""

    cell: str
    best: int
    stop: int
    best_db: float
    loss_db: float


def processed(data: FloatArray, state: str) -> FloatArray:
    """Return a volume after a user's preprocessing."""
    if state == "interpolated":
        return ndimage.shift(data, (0.5, 0, 0.5), order=1, mode="nearest").astype(np.float32)
    if state == "deskewed":
        # Each plane moves along x by what the stage moved: a shear, linear between voxels.
        planes = [
            ndimage.shift(
                plane, (0, z * np.cos(np.radians(ANGLE_DEG)) % 1), order=1, mode="nearest"
            )
            for z, plane in enumerate(data)
        ]
        return np.asarray(planes, np.float32)
    return data


def row(cell: Cell, projector: str, state: str) -> Row:
    """Return the row of a cell."""
    torch.set_num_threads(1)
    pair = next(cell.pairs())
    image = pair.image.with_data(processed(pair.image.data, state))
    truth = processed(pair.truth.data, state)
    settings = rln.RichardsonLucy(back_projector=projector, device="cpu")
    stop = rln.deconvolve(image, cell.assumed, settings).record.facts["iterations"]
    fixed = rln.RichardsonLucy(
        back_projector=projector, device="cpu", iterations=max(MOST[projector], stop)
    )
    scores: list[float] = []
    for report in rln.deconvolve_iter(image, cell.assumed, fixed):
        scores.append(psnr(report.estimate(), truth, fit=True))
        falling = len(scores) - 1 - int(np.argmax(scores))
        if len(scores) >= stop and falling > max(10, 0.3 * len(scores)):
            break
    best = int(np.argmax(scores))
    return Row(str(cell), best + 1, stop, scores[best], scores[best] - scores[stop - 1])


def rows(cells: list[Cell], projector: str, state: str, workers: int) -> Iterator[Row]:
    """Yield the rows of cells."""
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, spawn) as pool:
        n = len(cells)
        yield from pool.map(row, cells, [projector] * n, [state] * n)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--psf", nargs="+", choices=PSFS, default=PSFS, metavar="NAME")
    parser.add_argument("--photons", nargs="+", type=int, default=PHOTONS)
    parser.add_argument("--classes", nargs="+", choices=CLASSES, default=CLASSES)
    parser.add_argument("--back-projector", nargs="+", choices=MOST, default=list(MOST))
    parser.add_argument("--state", nargs="+", choices=STATES, default=STATES)
    parser.add_argument("--background", type=float, default=0.1, help="fraction of the peak")
    parser.add_argument("--seed", type=int, default=0, help="number of the volume")
    parser.add_argument("--workers", type=int, default=1, help="processes of one thread each")
    given = parser.parse_args()
    cells = [
        Cell(
            psf=p, photons=n, structure=s, seeds=1, first=given.seed, background=given.background
        )
        for p in given.psf for n in given.photons for s in given.classes
    ]  # fmt: skip
    print("| back projector | state | cell | best at | stop at | best dB | loss dB |")
    print("|---|---|---|---|---|---|---|")
    for projector in given.back_projector:
        for state in given.state:
            losses = []
            for one in rows(cells, projector, state, given.workers):
                losses.append(one.loss_db)
                print(
                    f"| {projector} | {state} | {one.cell} | {one.best} | {one.stop} "
                    f"| {one.best_db:.2f} | {one.loss_db:.2f} |",
                    flush=True,
                )
            print(f"| {projector} | {state} | mean, largest | | | | "
                  f"{fmean(losses):.2f}, {max(losses):.2f} |", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
