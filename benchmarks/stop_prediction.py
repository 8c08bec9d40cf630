"""Prediction of the best number of Richardson-Lucy iterations: fit, and what it costs.

The examples of a folder hold simulated images, their ground truth and estimates after 6 to 96
iterations; ``napari-rln train --any-psf --preset universal --example-folder DIR`` makes one. The
number with the highest PSNR after a fit of scale and offset, between them too, is regressed on the
statistics of :mod:`napari_rln.deconvolution.ladder` and their squares, by least squares with a
small penalty. It is judged on the last fifth of the examples, by the PSNR that it costs.

    python benchmarks/stop_prediction.py DIR
"""

import argparse
from pathlib import Path

import numpy as np
from rich.table import Table
from tables import markdown

from napari_rln.core.brightness import brightness
from napari_rln.core.metrics import psnr
from napari_rln.deconvolution.ladder import COUNTS, MOST, STATISTICS, between, statistics
from napari_rln.train.example_folder import read_volumes
from napari_rln.train.examples import LadderVolumes

GRID = np.exp(np.linspace(np.log(4), np.log(MOST), 24))
PENALTY = 2.0  # on standardised weights
CLEARLY_BELOW = 40.0  # best of the first estimates, for which those of many iterations are not kept


def curve(stored: LadderVolumes) -> np.ndarray | None:
    """Return the PSNR over the grid of numbers; none where the best may lie beyond those kept."""
    counts, kept = list(stored.estimates), list(stored.estimates.values())
    # Beyond the last estimate it is that one.
    scores = np.array([psnr(between(kept, counts, n), stored.truth, fit=True) for n in GRID])
    return scores if MOST in counts or GRID[scores.argmax()] < CLEARLY_BELOW else None


def fit(rows: np.ndarray, best: np.ndarray) -> np.ndarray:
    """Return the weights of statistics, squares and a constant, for the logarithm of the best."""
    middle, spread = rows.mean(0), rows.std(0)
    z = (rows - middle) / spread
    design = np.column_stack([z, z**2, np.ones(len(z))])
    penalty = np.diag([PENALTY] * (2 * STATISTICS) + [0.0])
    a, b, c = np.split(
        np.linalg.solve(design.T @ design + penalty, design.T @ np.log(best)),
        [STATISTICS, 2 * STATISTICS],
    )
    linear = a / spread - 2 * b * middle / spread**2
    constant = c[0] - (a * middle / spread).sum() + (b * middle**2 / spread**2).sum()
    return np.array([*linear, *(b / spread**2), constant])


def cost(curves: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """Return by how many decibels the predicted numbers fall short of the best."""
    at = [np.interp(np.log(p), np.log(GRID), c) for p, c in zip(predicted, curves, strict=True)]
    return curves.max(1) - np.array(at)


def main() -> None:
    """Print the weights and the table of costs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    given = parser.parse_args()
    rows, curves = [], []
    for path in sorted(given.folder.glob("[0-9]*.safetensors")):
        stored = read_volumes(path)
        scores = curve(stored)
        if scores is None:
            continue
        scale = brightness(stored.estimates[COUNTS[1]])
        unit = np.float32(scale)
        shown = [stored.estimates[count] / unit for count in COUNTS]
        rows.append(
            statistics(stored.light / unit, shown, stored.deviances, scale, stored.background)
        )
        curves.append(scores)
    found, scored = np.array(rows), np.array(curves)
    best = GRID[scored.argmax(1)]
    split = len(found) - len(found) // 5
    table = Table(
        title=f"PSNR below the best number, dB, {len(found)} images", title_justify="left"
    )
    for column in ("", "mean", "median", "90 %", "largest"):
        table.add_column(column)
    weights = fit(found[:split], best[:split])
    judged = slice(split, None)
    fixed = {f"{n} iterations": np.full(len(found), float(n)) for n in (12, 24, 48)}
    for name, numbers in {"predicted": predictions(weights, found), **fixed}.items():
        lost = cost(scored[judged], numbers[judged])
        cells = (lost.mean(), np.median(lost), np.percentile(lost, 90), lost.max())
        table.add_row(name, *(f"{value:.2f}" for value in cells))
    print(markdown(table))
    print("Weights from all images:")
    print(", ".join(f"{value:.6g}" for value in fit(found, best)))


def predictions(weights: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Return the predicted numbers."""
    design = np.column_stack([rows, rows**2, np.ones(len(rows))])
    return np.exp(np.clip(design @ weights, np.log(COUNTS[0]), np.log(MOST)))


if __name__ == "__main__":
    main()
