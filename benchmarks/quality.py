"""Is the network better than the best that classical deconvolution can do? On held-out volumes.

A cell is a PSF, a photon level and a class of structures, and the mean over volumes of several
seeds. Every method gets the same image, PSF and background. The classical methods are stopped by
the truth, where each score is best, as no user could: matched Richardson-Lucy (accelerated) over a
list of counts, and the best of 1 to 5 wiener-butterworth iterations. Scores are after the
least-squares fit of scale and offset: PSNR, and SSIM with a Gaussian window of sigma 1.5, both over
the range of the truth; over the volume, and as the mean over xz planes.

    python benchmarks/quality.py --quick
    python benchmarks/quality.py --workers 2 --out quality.json    # over half an hour on two cores
    python benchmarks/quality.py --psf nucleus --model universal --model mine.safetensors
"""

import argparse
import hashlib
import json
import os
import platform
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from statistics import fmean
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
import torch
from problem import pupil_psf
from rich.table import Table
from skimage.metrics import structural_similarity
from tables import markdown

import napari_rln as rln
from napari_rln import metrics
from napari_rln.io import atomic
from napari_rln.noise import estimate_background
from napari_rln.psf.microscope import MicroscopeSettings as Microscope
from napari_rln.simulate.imaging import ImagingSettings, Pair, simulate_pair
from napari_rln.simulate.optics import FamilySettings
from napari_rln.simulate.structures import TRAINING, StructureSettings
from napari_rln.volume import FloatArray, Volume

SHAPE = (64, 64, 64)
SEED = 20261124
PHOTONS = (30, 100, 300)
CLASSES = ("filaments", "nuclei", "coils", "bars")
ABSENT = tuple(c for c in CLASSES if c not in TRAINING)

# Microscope and voxels; those outside the family on which the universal model was trained are made
# below.
MICROSCOPES = {
    "widefield oil 1.4": (Microscope(na=1.4, wavelength_um=0.52), (0.2, 0.1, 0.1)),
    "widefield water 1.2, 15 um deep": (
        Microscope(
            na=1.2, immersion_index=1.333, sample_index=1.37, depth_um=15, wavelength_um=0.6
        ),
        (0.3, 0.11, 0.11),
    ),
    "widefield air 0.75": (
        Microscope(na=0.75, immersion_index=1.0, wavelength_um=0.52),
        (0.8, 0.16, 0.16),
    ),
    "confocal 1.4": (
        Microscope(modality="confocal", na=1.4, wavelength_um=0.52, excitation_um=0.488),
        (0.15, 0.06, 0.06),
    ),
    "two-photon 1.0": (
        Microscope(
            modality="two-photon", na=1.0, immersion_index=1.333, wavelength_um=0.52,
            excitation_um=0.92,
        ),
        (0.5, 0.15, 0.15),
    ),
    "light sheet 0.8": (
        Microscope(modality="light-sheet", na=0.8, immersion_index=1.333, wavelength_um=0.52),
        (0.5, 0.16, 0.16),
    ),
    "nucleus": (
        Microscope(na=1.45, immersion_index=1.512, wavelength_um=0.461),
        (0.3, 0.13, 0.13),
    ),
}  # fmt: skip
OUTSIDE = ("spherical and coma", "Gaussian, wide")
COUNTS = (5, 10, 15, 20, 25, 30, 40, 50, 60, 80, 100)
WB_COUNTS = (1, 2, 3, 4, 5)
SCORES = ("psnr", "ssim", "psnr_xz", "ssim_xz")


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One cell and the number of its volumes."""

    psf: str
    photons: int
    structure: str
    seeds: int

    @property
    def key(self) -> str:
        told = json.dumps([vars(self), SHAPE, SEED, COUNTS, WB_COUNTS, rln.__version__])
        return hashlib.sha256(told.encode()).hexdigest()[:12]

    def pairs(self) -> Iterator[Pair]:
        """Yield the cell's volumes."""
        structures = StructureSettings(
            structures=(self.structure,), at_once=1, haze=0.0, density_jitter=(1.0, 1.0)
        )
        imaging = ImagingSettings(
            photons=(self.photons, self.photons), background=(0.1, 0.1), read_noise=(1.0, 1.0)
        )
        for number in range(self.seeds):
            seed = (SEED, number, CLASSES.index(self.structure))
            yield simulate_pair(psf(self.psf), structures, imaging, shape=SHAPE, seed=seed)


@cache
def psf(name: str) -> Volume:
    """Return a PSF of the table, of at most the size that the training uses."""
    if name in MICROSCOPES:
        microscope, voxel_um = MICROSCOPES[name]
        whole = rln.compute_psf(microscope, voxel_um)
    elif name == "Gaussian, wide":
        wide = Microscope(modality="gaussian", fwhm_um=(2.4, 0.75, 0.75))
        whole = rln.compute_psf(wide, (0.2, 0.1, 0.1))
    else:
        whole = Volume.from_array(pupil_psf(spherical=0.15, coma=0.1), (0.2, 0.1, 0.1))
    largest = FamilySettings().largest
    sizes = [min(n - 1 + n % 2, m) for n, m in zip(whole.shape, largest, strict=True)]
    cut = tuple(
        slice(n // 2 - m // 2, n // 2 - m // 2 + m) for n, m in zip(whole.shape, sizes, strict=True)
    )
    data = whole.data[cut]
    return Volume.from_array(data / data.sum(), whole.voxel_um, name=name)


def score(result: FloatArray, truth: FloatArray) -> dict[str, float]:
    """Return the scores of a result, from one map of the SSIM per direction."""
    fit = metrics.fitted(result, truth).astype(np.float32)
    peak = float(np.ptp(truth))
    told = {"data_range": peak, "gaussian_weights": True, "sigma": metrics.SSIM_SIGMA}
    planes = [y for y in range(truth.shape[1]) if np.ptp(truth[:, y]) >= 0.05 * peak]
    return {
        "psnr": metrics.psnr(fit, truth, data_range=peak),
        "ssim": float(structural_similarity(fit, truth, use_sample_covariance=False, **told)),
        "psnr_xz": fmean(metrics.psnr(fit[:, y], truth[:, y], data_range=peak) for y in planes),
        "ssim_xz": fmean(
            structural_similarity(fit[:, y], truth[:, y], use_sample_covariance=False, **told)
            for y in planes
        ),
    }


def best(scores: Iterable[dict[str, float]]) -> dict[str, float]:
    """Return the best of every score, each on its own."""
    found = list(scores)
    return {name: max(s[name] for s in found) for name in SCORES}


def mean(scores: Iterable[dict[str, float]]) -> dict[str, float]:
    found = list(scores)
    return {name: fmean(s[name] for s in found) for name in SCORES}


def classical(cell: Cell) -> dict[str, dict[str, float]]:
    """Return the mean scores of the image and of the classical methods."""
    torch.set_num_threads(1)
    rows: dict[str, list[dict[str, float]]] = {}
    for pair in cell.pairs():
        truth, image = pair.truth.data, pair.image
        background = estimate_background(image.data)
        rows.setdefault("image", []).append(score(image.data, truth))
        for name, projector, counts in (
            ("best RLD", "matched", COUNTS),
            ("best WB of 1-5", "wiener-butterworth", WB_COUNTS),
        ):
            settings = rln.RldSettings(
                iterations=counts[-1], back_projector=projector, background=background, device="cpu"
            )
            found: list[dict[str, float]] = []
            for report in rln.iterate(image, psf(cell.psf), settings):
                if report.iteration not in counts:
                    continue
                found.append(score(report.estimate(), truth))
                if len(found) > 3 and all(
                    found[-1][s] < found[-2][s] < found[-3][s] < found[-4][s] for s in SCORES
                ):
                    break  # noise has taken over
            rows.setdefault(name, []).append(best(found))
    return {name: mean(found) for name, found in rows.items()}


def network(task: tuple[Cell, str]) -> dict[str, dict[str, float]]:
    """Return the mean scores of a model."""
    torch.set_num_threads(1)
    cell, name = task
    model = rln.load_model(name)
    rows: dict[str, list[dict[str, float]]] = {}
    for pair in cell.pairs():
        settings = rln.RlnSettings(device="cpu")
        result = rln.apply_model(pair.image, psf(cell.psf), model, settings)
        rows.setdefault(f"RLN {name}", []).append(score(result.data, pair.truth.data))
    return {label: mean(found) for label, found in rows.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", action="append", help="name or file; universal when none")
    parser.add_argument("--psf", nargs="*", default=[*MICROSCOPES, *OUTSIDE])
    parser.add_argument("--photons", nargs="*", type=int, default=PHOTONS)
    parser.add_argument("--classes", nargs="*", default=CLASSES)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--classical", type=Path, help="file that keeps the classical scores")
    parser.add_argument("--classical-only", action="store_true")
    parser.add_argument("--quick", action="store_true", help="one seed, two PSFs, one level")
    parser.add_argument("--out", type=Path, help="scores of every cell, JSON")
    given = parser.parse_args()
    if given.quick:
        given.psf, given.photons, given.seeds = ["confocal 1.4", "nucleus"], [100], 1
    models = given.model or ["universal"]
    cells = [
        Cell(psf=p, photons=n, structure=s, seeds=given.seeds)
        for p in given.psf for n in given.photons for s in given.classes
    ]  # fmt: skip
    with ProcessPoolExecutor(given.workers) as pool:
        table = _classical(cells, given.classical, pool)
        if given.classical_only:
            return
        for name in models:
            tasks = [(cell, name) for cell in cells]
            for cell, rows in zip(cells, pool.map(network, tasks), strict=True):
                table[cell] |= rows
    if given.out:
        with atomic(given.out) as temporary:
            text = json.dumps([vars(cell) | {"scores": rows} for cell, rows in table.items()])
            temporary.write_text(text, encoding="utf-8")
    print(
        f"napari-rln {rln.__version__}, torch {torch.__version__}, numpy {np.__version__}, "
        f"{platform.system()}; volumes of {SHAPE}, {given.seeds} seeds from {SEED}\n"
    )
    _tables(table, [f"RLN {name}" for name in models])


def _classical(
    cells: list[Cell], path: Path | None, pool: ProcessPoolExecutor
) -> dict[Cell, dict[str, Any]]:
    kept = json.loads(path.read_text()) if path and path.is_file() else {}
    missing = [cell for cell in cells if cell.key not in kept]
    for done, (cell, rows) in enumerate(zip(missing, pool.map(classical, missing), strict=True), 1):
        kept[cell.key] = rows
        print(f"classical {done} of {len(missing)}", end="\r", flush=True)
        if path:
            with atomic(path) as temporary:
                temporary.write_text(json.dumps(kept), encoding="utf-8")
    return {cell: dict(kept[cell.key]) for cell in cells}


def _tables(table: dict[Cell, dict[str, Any]], names: list[str]) -> None:
    groups = {
        "all": list(table),
        **{p: [c for c in table if c.psf == p] for p in dict.fromkeys(c.psf for c in table)},
        **{
            f"{n} photons": [c for c in table if c.photons == n]
            for n in dict.fromkeys(c.photons for c in table)
        },
        **{
            f"{s}{' (absent from training)' if s in ABSENT else ''}": [
                c for c in table if c.structure == s
            ]
            for s in dict.fromkeys(c.structure for c in table)
        },
    }
    methods = ["image", "best RLD", "best WB of 1-5", *names]
    for pair, title in ((("psnr", "ssim"), "volume"), (("psnr_xz", "ssim_xz"), "xz planes")):
        shown = Table(title=f"PSNR / SSIM, {title}", title_justify="left")
        for column in ("cells", *methods):
            shown.add_column(column)
        for group, cells in groups.items():
            means = (mean(table[c][m] for c in cells) for m in methods)
            shown.add_row(group, *(f"{m[pair[0]]:.2f} / {m[pair[1]]:.3f}" for m in means))
        print(markdown(shown), "\n")
    for name in names:
        _verdict(table, name)


def _verdict(table: dict[Cell, dict[str, Any]], name: str) -> None:
    shown = Table(title=f"{name} against the better of both", title_justify="left")
    for column in ("score", "share of cells above", "mean", "worst", "in"):
        shown.add_column(column)
    for score_name in SCORES:
        gains = {
            cell: rows[name][score_name]
            - max(rows["best RLD"][score_name], rows["best WB of 1-5"][score_name])
            for cell, rows in table.items()
        }
        worst = min(gains, key=gains.__getitem__)
        above = fmean(gain > 0 for gain in gains.values())
        place = f"{worst.psf}, {worst.photons} photons, {worst.structure}"
        shown.add_row(
            score_name,
            f"{above:.0%}",
            f"{fmean(gains.values()):+.3f}",
            f"{gains[worst]:+.3f}",
            place,
        )
    print(markdown(shown), "\n")
    below = {
        c: r[name]["psnr"] - max(r["best RLD"]["psnr"], r["best WB of 1-5"]["psnr"])
        for c, r in table.items()
    }
    for cell, gain in sorted(below.items(), key=lambda item: item[1]):
        if gain < -0.3:
            print(f"- {gain:+.2f} dB: {cell.psf}, {cell.photons} photons, {cell.structure}")


if __name__ == "__main__":
    main()
