"""The network against the best possible classical deconvolution, on held-out volumes.

Every method gets the same image, PSF and background; `cells.py` has the problem. The number of
iterations of the classical methods is selected by ground truth, for each score: matched
Richardson-Lucy (accelerated) over a list of counts, and 1 to 12 wiener-butterworth iterations.
Richardson-Lucy with the automatic stop, which needs no ground truth, is beside them. Scores are
after the least-squares fit of scale and offset: PSNR, and SSIM with a Gaussian window of sigma 1.5,
both over the range of the truth; over the volume, and as the mean over xz planes.

    python benchmarks/quality.py --quick
    python benchmarks/quality.py --classical classical.json --workers 2 --out quality.json
    python benchmarks/quality.py --psf nucleus --model universal --model mine.safetensors
    python benchmarks/quality.py --model universal --adapted nucleus=adapted.safetensors
"""

import argparse
import json
import multiprocessing
import os
import platform
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("OMP_NUM_THREADS", "1")  # --workers are what uses the cores
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
import torch
from cells import CLASSES, PHOTONS, PSFS, SCORES, SEED, SHAPE, Cell, Judge
from verdict import METHODS, Rows, Scores, groups_of_cells, mean, rows_of_one_psf, tables, verdict

import napari_rln as rln
from napari_rln.core.errors import RlnWarning
from napari_rln.core.volume import Volume
from napari_rln.deconvolution.calibration import calibrate
from napari_rln.io.paths import atomic
from napari_rln.networks.suitability import psf_warnings

COUNTS = (5, 10, 15, 20, 25, 30, 40, 50, 60, 80, 100, 120, 150)
WB_COUNTS = (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12)
PATIENCE = 4  # counts in a row at which every score fell: noise has taken over


def best(scores: Iterable[Scores]) -> Scores:
    """Return the best of every score, each on its own."""
    found = list(scores)
    return {name: max(s[name] for s in found) for name in SCORES}


def classical(cell: Cell) -> dict[str, Any]:
    """Return the classical methods' mean scores, and the key of their validity."""
    began = time.perf_counter()
    rows: dict[str, list[Scores]] = {name: [] for name in METHODS}
    images, most = [], 0
    for pair in cell.pairs():
        judge, image = Judge(pair.truth.data), pair.image
        images.append(image.hash)
        background = calibrate(image).background
        stop = _automatic_stop(image, cell.assumed, background)
        matched = _by_count(image, cell.assumed, background, judge, "matched", COUNTS, stop)
        wiener = _by_count(image, cell.assumed, background, judge, "wiener-butterworth", WB_COUNTS)
        rows["image"].append(judge(image.data))
        rows["RLD, automatic stop"].append(matched[stop])
        rows["best RLD"].append(best(matched.values()))
        rows["best WB of 1-12"].append(best(wiener.values()))
        most = max(most, *(max(matched, key=lambda n: matched[n][s]) for s in SCORES))
    return {
        "scores": {name: mean(found) for name, found in rows.items()},
        "images": images,
        "most_iterations": most,
        "seconds": round(time.perf_counter() - began, 1),
    }


def _automatic_stop(image: Volume, psf: Volume, background: float) -> int:
    """Return where matched Richardson-Lucy stops by itself."""
    told = rln.RichardsonLucy(background=background, device="cpu")
    return next(r.total for r in rln.deconvolve_iter(image, psf, told) if r.phase == "deconvolve")


def _by_count(
    image: Volume, psf: Volume, background: float, judge: Judge, projector: str,
    counts: tuple[int, ...], also: int = 0,
) -> dict[int, Scores]:  # fmt: skip
    """Return the scores at the counts and at one more, from one run."""
    told = rln.RichardsonLucy(
        iterations=max(*counts, also), back_projector=projector, background=background, device="cpu"
    )  # fmt: skip
    found: dict[int, Scores] = {}
    listed: list[Scores] = []
    for report in rln.deconvolve_iter(image, psf, told):
        if report.done not in counts and report.done != also:
            continue
        found[report.done] = judge(report.estimate())
        if report.done in counts:
            listed.append(found[report.done])
        last = listed[-1 - PATIENCE :]
        falling = len(last) > PATIENCE and all(
            b[s] < a[s] for a, b in pairwise(last) for s in SCORES
        )
        if falling and report.done >= also:
            break
    return found


def network(name: str, images: list[str], cell: Cell) -> dict[str, Any]:
    """Return the mean scores of a model on the images that the classical methods had."""
    began = time.perf_counter()
    method = rln.Network(model=name, device="cpu")
    found = []
    for pair, known in zip(cell.pairs(), images, strict=True):
        if pair.image.hash != known:
            raise SystemExit(
                f"{cell} gives another image than its classical scores are of; the simulation "
                "changed since. Give --classical a new file."
            )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RlnWarning)  # said once, above the tables
            result = rln.deconvolve(pair.image, cell.assumed, method)
        found.append(Judge(pair.truth.data)(result.data))
    return {"scores": mean(found), "seconds": round(time.perf_counter() - began, 1)}


def main() -> None:
    """Score the chosen cells and methods, and print the scores."""
    given = _arguments()
    cells = [
        Cell(
            psf=p, photons=n, structure=s,
            seeds=given.seeds, first=given.first, mismatch=given.mismatch,
        )
        for p in given.psf for n in given.photons for s in given.classes
    ]  # fmt: skip
    # Fresh processes: forked ones may hang on the threads of the libraries of this one.
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(given.workers, spawn, torch.set_num_threads, (1,)) as pool:
        kept = _classical(cells, given.classical, pool)
        if given.classical_only:
            return
        table: dict[Cell, Rows] = {cell: dict(kept[cell]["scores"]) for cell in cells}
        for label, name, where in given.models:
            jobs = {
                cell: partial(network, name, kept[cell]["images"], cell)
                for cell in cells if cell.psf in where
            }  # fmt: skip
            for cell, answer in _answers(jobs, pool, label):
                table[cell][label] = answer["scores"]
    about = _about(given)
    if given.out:
        rows = [
            vars(cell) | {"most_iterations": kept[cell]["most_iterations"], "scores": table[cell]}
            for cell in cells
        ]
        _write(given.out, {"about": about, "cells": rows})
    print("".join(f"{line}\n" for line in about))
    at_limit = [c for c in cells if kept[c]["most_iterations"] >= COUNTS[-1]]
    print(
        f"Best RLD was at its last count, {COUNTS[-1]}, in {len(at_limit)} of {len(cells)} cells.\n"
    )
    if given.adapted:
        tables(table, [label for label, _, _ in given.models], rows_of_one_psf)
        return
    tables(table, [label for label, _, _ in given.models], groups_of_cells)
    for label, _, _ in given.models:
        verdict(table, label)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", action="append", help="name or file; universal when none")
    parser.add_argument(
        "--adapted", action="append", metavar="PSF=MODEL", default=[],
        help="compare this model with those of --model, on that PSF alone",
    )  # fmt: skip
    parser.add_argument("--psf", nargs="+", choices=PSFS, default=PSFS, metavar="NAME")
    parser.add_argument("--photons", nargs="+", type=int, default=PHOTONS)
    parser.add_argument("--classes", nargs="+", choices=CLASSES, default=CLASSES)
    parser.add_argument("--seeds", type=int, default=3, help="volumes per cell")
    parser.add_argument("--first", type=int, default=0, help="number of the first volume")
    parser.add_argument("--mismatch", action="store_true", help="give all a believed PSF")
    parser.add_argument("--workers", type=int, default=1, help="processes of one thread each")
    parser.add_argument("--classical", type=Path, help="file that keeps the classical scores")
    parser.add_argument("--classical-only", action="store_true")
    parser.add_argument("--quick", action="store_true", help="one seed, two PSFs, one level")
    parser.add_argument("--out", type=Path, help="scores of every cell, JSON")
    given = parser.parse_args()
    if given.quick:
        given.psf, given.photons, given.seeds = ["confocal 1.4", "nucleus"], [100], 1
    pairs = [text.partition("=")[::2] for text in given.adapted]
    for name, _ in pairs:
        if name not in PSFS:
            parser.error(f"--adapted names the PSF {name!r}; give one of {', '.join(PSFS)}")
    if pairs:
        given.psf = list(dict.fromkeys(name for name, _ in pairs))
    models = [(model, given.psf) for model in given.model or ["universal"]]
    models += [(model, [name]) for name, model in pairs]
    short = [Path(m).stem for m, _ in models]
    distinct = len(set(short)) == len(short)
    given.models = [
        (f"RLN {s if distinct else m}", m, where)
        for s, (m, where) in zip(short, models, strict=True)
    ]
    if len({m for m, _ in models}) < len(models):
        parser.error("a model is named twice")
    if not given.classical_only:  # a file that is missing shows now, not after hours
        for _, name, _ in given.models:
            rln.load_model(name)
    return given


def _classical(
    cells: list[Cell], path: Path | None, pool: ProcessPoolExecutor
) -> dict[Cell, dict[str, Any]]:
    kept = json.loads(path.read_text(encoding="utf-8")) if path and path.is_file() else {}
    keys = {cell: cell.key("classical", COUNTS, WB_COUNTS, PATIENCE) for cell in cells}
    jobs = {cell: partial(classical, cell) for cell in cells if keys[cell] not in kept}
    for cell, answer in _answers(jobs, pool, "classical"):
        kept[keys[cell]] = answer
        if path:
            _write(path, kept)
    return {cell: kept[keys[cell]] for cell in cells}


def _answers(
    jobs: dict[Cell, Callable[[], dict[str, Any]]], pool: ProcessPoolExecutor, label: str
) -> Iterator[tuple[Cell, dict[str, Any]]]:
    """Yield cells as they are done, and say how many more there are."""
    futures = {pool.submit(job): cell for cell, job in jobs.items()}
    try:
        for done, future in enumerate(as_completed(futures), 1):
            cell, answer = futures[future], future.result()
            yield cell, answer
            print(f"{label} {done} of {len(jobs)}: {cell}, {answer['seconds']} s", flush=True)
    finally:
        for future in futures:  # after a failure or Ctrl-C, the rest need not be waited for
            future.cancel()


def _write(path: Path, content: object) -> None:
    with atomic(path) as temporary:
        temporary.write_text(json.dumps(content), encoding="utf-8")


def _about(given: argparse.Namespace) -> list[str]:
    """Return settings and versions of the measurement, a sentence per line."""
    lines = [
        f"napari-rln {rln.__version__}, torch {torch.__version__}, numpy {np.__version__}, Python "
        f"{platform.python_version()}, {platform.system()}.",
        f"Volumes of {SHAPE}, {given.seeds} per cell, seeds ({SEED}, {given.first} to "
        f"{given.first + given.seeds - 1}, class); the PSF given to all is "
        f"{'a believed one' if given.mismatch else 'the one that blurred'}.",
    ]
    for label, name, where in given.models:
        model = rln.load_model(name)
        lines.append(
            f"{label}: weights {model.hash}, {model.variant}, share {model.estimate_weight:g}."
        )
        for psf in where:
            cell = Cell(psf=psf, photons=1, structure=CLASSES[0], seeds=1, mismatch=given.mismatch)
            lines += [
                f"{label} warns, {psf}: {doubt}" for doubt in psf_warnings(model, cell.assumed)
            ]
    return lines


if __name__ == "__main__":
    main()
