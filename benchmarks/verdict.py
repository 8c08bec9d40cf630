"""The tables of the benchmark of quality, and its verdict: in how many cells a model is better."""

import math
from collections.abc import Callable, Iterable
from functools import partial
from statistics import fmean

from cells import ABSENT, CLASSES, NEW, PSFS, SCORES, Cell
from rich.table import Table
from tables import markdown

METHODS = ("image", "RLD, automatic stop", "best RLD", "best WB of 1-12")
BEST = METHODS[2:]
TOLERATED_DB = 0.3

Scores = dict[str, float]
Rows = dict[str, Scores]


def mean(scores: Iterable[Scores]) -> Scores:
    """Return the mean of every score."""
    found = list(scores)
    return {name: fmean(s[name] for s in found) for name in SCORES}


def groups_of_cells(table: dict[Cell, Rows]) -> dict[str, list[Cell]]:
    """Return the cells that a row of a table is the mean of."""
    tests: dict[str, Callable[[Cell], bool]] = {
        "all": lambda c: True,
        "classes in training": lambda c: c.structure not in ABSENT,
        "classes absent from it": lambda c: c.structure in ABSENT,
        "classes of this table alone": lambda c: c.structure in NEW,
    }
    tests |= {p: partial(_has, "psf", p) for p in PSFS}
    tests |= {f"{n} photons": partial(_has, "photons", n) for n in {c.photons: 0 for c in table}}
    tests |= {
        f"{s}{' (absent)' if s in ABSENT else ''}": partial(_has, "structure", s) for s in CLASSES
    }
    groups = {name: [c for c in table if test(c)] for name, test in tests.items()}
    return {name: cells for name, cells in groups.items() if cells}


def _has(field: str, value: object, cell: Cell) -> bool:
    return getattr(cell, field) == value


def rows_of_one_psf(table: dict[Cell, Rows]) -> dict[str, list[Cell]]:
    """Return every cell by itself, and the means over each PSF."""
    groups = {p: [c for c in table if c.psf == p] for p in dict.fromkeys(c.psf for c in table)}
    return groups | {str(c): [c] for c in table}


def tables(
    table: dict[Cell, Rows],
    labels: list[str],
    grouped: Callable[[dict[Cell, Rows]], dict[str, list[Cell]]],
) -> None:
    for (psnr, ssim), title in ((SCORES[:2], "volume"), (SCORES[2:], "xz planes")):
        shown = _table(f"PSNR / SSIM, {title}", ("cells", "n", *METHODS, *labels))
        for group, cells in grouped(table).items():
            texts = []
            for method in (*METHODS, *labels):
                rows = [table[c][method] for c in cells if method in table[c]]
                means = mean(rows) if len(rows) == len(cells) else None  # else of fewer PSFs
                texts.append(f"{means[psnr]:.2f} / {means[ssim]:.3f}" if means else "")
            shown.add_row(group, str(len(cells)), *texts)
        print(markdown(shown))


def verdict(table: dict[Cell, Rows], label: str) -> None:
    """Print how a model stands against the better classical score, score by score."""
    gains = {
        c: {s: rows[label][s] - max(rows[m][s] for m in BEST) for s in SCORES}
        for c, rows in table.items()
    }
    title = f"{label} against the better of both: share of cells above, mean gain, worst"
    shown = _table(title, ("cells", "n", *SCORES, f"PSNR below by > {TOLERATED_DB} dB"))
    for group, cells in groups_of_cells(table).items():
        texts = []
        for s in SCORES:
            of = [gains[c][s] for c in cells]
            digits = 2 if s.startswith("psnr") else 3
            above = sum(gain > 0 for gain in of)
            texts.append(
                # Rounded down: 89.8 % does not reach 90 %.
                f"{math.floor(100 * above / len(of))} %, {fmean(of):+.{digits}f}, "
                f"{min(of):+.{digits}f}"
            )
        below = sum(gains[c]["psnr"] < -TOLERATED_DB for c in cells)
        shown.add_row(group, str(len(cells)), *texts, str(below))
    print(markdown(shown))
    for s in SCORES:
        worst = min(gains, key=lambda c: gains[c][s])
        print(f"- worst in {s}: {gains[worst][s]:+.3f}, {worst}")
    stopped = [rows[label]["psnr"] - rows[METHODS[1]]["psnr"] for rows in table.values()]
    above = sum(gain > 0 for gain in stopped)
    print(
        f"- against {METHODS[1]}, PSNR: above in {above} of {len(stopped)} cells, "
        f"{fmean(stopped):+.2f} dB in the mean, worst {min(stopped):+.2f} dB\n"
    )
    for s in ("psnr", "psnr_xz"):
        for cell in sorted(gains, key=lambda c: gains[c][s]):
            if gains[cell][s] < -TOLERATED_DB:
                print(f"- {s} {gains[cell][s]:+.2f} dB: {cell}")
    print()


def _table(title: str, columns: tuple[str, ...]) -> Table:
    table = Table(title=title, title_justify="left")
    for column in columns:
        table.add_column(column)
    return table
