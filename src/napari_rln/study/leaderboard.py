"""Leaderboard of a public problem: errors of methods on its data, beside published ones."""

import csv
import math
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from napari_rln.core.errors import ComputeError, RlnError, warn
from napari_rln.core.generators import finish, relay
from napari_rln.core.metrics import fitted, fitted_pair
from napari_rln.core.record import jsonable
from napari_rln.core.report import Report
from napari_rln.core.volume import Array, Volume, VoxelUm, check_on_grid
from napari_rln.deconvolution.method import Method
from napari_rln.engine.in_memory import deconvolve_iter
from napari_rln.evaluate.bead_shape import bead_centre, bead_shape
from napari_rln.io.paths import atomic
from napari_rln.io.volumes import read
from napari_rln.psf.examine import fit_psf
from napari_rln.study.problems import PROBLEMS, RAW, Problem, ProblemName, Published, find_files

Measure = Literal["rmse", "rmse_scaled", "rmse_fitted"]

MEASURES: dict[Measure, str] = {
    "rmse": "without a fit",
    "rmse_scaled": "after the best factor",
    "rmse_fitted": "after the best factor and offset",
}
"""Ways to compute the root-mean-square error against the truth."""

_REPRODUCED = 0.01  # relative difference up to which the published error of the image comes out


@dataclass(frozen=True, kw_only=True)
class ProblemReport:
    """Progress: image and method at work, number of the run from 1, their number, its report."""

    image: str
    name: str
    done: int
    total: int
    inner: Report


@dataclass(frozen=True, kw_only=True)
class Leaderboard:
    """Results of methods for a problem, beside what others have published.

    Attributes
    ----------
    problem
        Name of the problem.
    rows
        Measured rows, the raw image first for each image: ``image``, ``name``, the errors of
        :data:`MEASURES` or the shape of the bead, ``seconds``, ``iterations`` and ``error``, None
        where unknown.
    published
        Published errors.
    measure
        The measure that reproduces the published error of the raw image; none if no measure does,
        or nothing was published.
    notes
        Sentences that belong to the numbers.
    """

    problem: ProblemName
    rows: tuple[Mapping[str, Any], ...]
    published: tuple[Published, ...]
    measure: Measure | None
    notes: tuple[str, ...] = field(default=())

    @property
    def ranking(self) -> tuple[tuple[float, str, str], ...]:
        """Errors, names and sources from best to worst; measured ones have no source.

        Measured ones are included only if their measure is that of the published ones.
        """
        ranks = [(p.low, p.program, p.source) for p in self.published]
        if self.measure is not None:
            ranks += [
                (row[self.measure], row["name"], "")
                for row in self.rows
                if row[self.measure] is not None and row["name"] != RAW
            ]
        return tuple(sorted(ranks))

    def all_rows(self) -> list[dict[str, Any]]:
        """Return measured and published rows with the same keys, for a table."""
        keys = [*self.rows[0], "published_low", "published_high", "source"]
        measured = [dict.fromkeys(keys) | dict(row) for row in self.rows]
        others = [
            dict.fromkeys(keys)
            | {"name": p.program, "published_low": p.low, "published_high": p.high}
            | {"source": p.source}
            for p in self.published
        ]
        return measured + others

    def to_csv(self, path: str | Path) -> None:
        """Write measured and published rows; unknown cells stay empty."""
        rows = self.all_rows()
        with atomic(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
            table = csv.DictWriter(file, list(rows[0]))
            table.writeheader()
            table.writerows(rows)

    def to_dict(self) -> dict[str, Any]:
        """Return everything in JSON's types."""
        return {
            "problem": self.problem,
            "measure": self.measure,
            "rows": [jsonable(row) for row in self.all_rows()],
            "notes": list(self.notes),
        }


def solve_problem(
    problem: ProblemName,
    data: Path,
    methods: Mapping[str, Method],
    *,
    voxel_um: VoxelUm | None = None,
) -> Leaderboard:
    """Return the results for a problem; see :func:`solve_problem_iter`."""
    return finish(solve_problem_iter(problem, data, methods, voxel_um=voxel_um))


def solve_problem_iter(
    problem: ProblemName,
    data: Path,
    methods: Mapping[str, Method],
    *,
    voxel_um: VoxelUm | None = None,
) -> Generator[ProblemReport, None, Leaderboard]:
    """Yield reports, return the errors of methods on the downloaded data of a problem.

    A method that fails is reported in its row. Closing the generator cancels.

    Parameters
    ----------
    problem
        Name of the problem.
    data
        Folder with the downloaded files, which may lie in folders within it.
    methods
        Methods by their names in the table.
    voxel_um
        Voxel size (z, y, x) in micrometres; that of the problem if None.

    Raises
    ------
    RlnError
        If there is no such problem, there is no method, a file is missing or ambiguous, or their
        grids differ.
    """
    if problem not in PROBLEMS:
        raise RlnError(f"there is no problem {problem!r}; give {', '.join(PROBLEMS)}.")
    if not methods:
        raise RlnError("there is no method; name at least one (`methods`).")
    posed, grid = PROBLEMS[problem], voxel_um or PROBLEMS[problem].voxel_um
    files = find_files(problem, data)
    images = {name: read(files[name], voxel_um=grid) for name in posed.images if name in files}
    kernel = read(files["psf"], voxel_um=grid)
    truth = read(files["truth"], voxel_um=grid) if posed.truth else None
    psfs = {}
    for name, image in images.items():
        if truth is not None:
            check_on_grid(truth, image)
        psfs[name], _ = fit_psf(kernel, image, repair=posed.repair)
        for method in methods.values():
            method.check(image, psfs[name])
    rows: list[dict[str, Any]] = []
    total = len(images) * len(methods)
    for name, image in images.items():
        centre = None if truth is not None else bead_centre(image)
        rows.append(_row(name, RAW, image, truth, centre))
        for title, method in methods.items():
            # The rows of all images before, without their raw images, and this one.
            done = sum(row["name"] != RAW for row in rows) + 1
            result, error = yield from relay(
                _run(image, psfs[name], method),
                lambda r, n=name, t=title, d=done: ProblemReport(  # type: ignore[misc]
                    image=n, name=t, done=d, total=total, inner=r
                ),
            )
            rows.append(_row(name, title, result, truth, centre) | {"error": error})
    measure = reproduced_measure(posed, rows)
    return Leaderboard(
        problem=problem,
        rows=tuple(rows),
        published=posed.published,
        measure=measure,
        notes=_notes(posed, rows, measure),
    )


def reproduced_measure(problem: Problem, rows: Sequence[Mapping[str, Any]]) -> Measure | None:
    """Return the measure by which the raw image has its published error; none if none has."""
    published = next((p.low for p in problem.published if p.program == RAW), None)
    raw = next((row for row in rows if row["name"] == RAW), None)
    if published is None or raw is None:
        return None
    known = [(abs(raw[m] - published), m) for m in MEASURES if raw[m] is not None]
    difference, measure = min(known)
    return measure if difference <= _REPRODUCED * published else None


def rmse(result: Array, truth: Array, measure: Measure = "rmse") -> float:
    """Return the root-mean-square error against the truth, in its unit, by one of the measures.

    Raises
    ------
    RlnError
        If the shapes differ.
    """
    x, g = fitted_pair(result, truth)
    if measure == "rmse_scaled":
        power = float(np.vdot(x, x))
        x = x * (float(np.vdot(x, g)) / power) if power > 0 else x
    elif measure == "rmse_fitted":
        x = fitted(x, g)
    return math.sqrt(float(np.mean((x - g) ** 2)))


def _run(
    image: Volume, psf: Volume, method: Method
) -> Generator[Report, None, tuple[Volume | None, str | None]]:
    """Yield reports, return the result of a method, or why it failed."""
    try:
        result = yield from deconvolve_iter(image, psf, method)
    except (RlnError, ComputeError) as failure:
        warn(f"{method.title} failed: {failure}")
        return None, str(failure)
    return result, None


def _row(
    image: str,
    name: str,
    volume: Volume | None,
    truth: Volume | None,
    centre: tuple[int, int, int] | None,
) -> dict[str, Any]:
    """Return the row of a volume; without values if it is none."""
    facts = volume.record.facts if volume is not None and volume.record else {}
    row: dict[str, Any] = {"image": image, "name": name}
    for measure in MEASURES:
        row[measure] = None
        if volume is not None and truth is not None:
            row[measure] = rmse(volume.data, truth.data, measure)
    if truth is None:
        shape = None if volume is None or centre is None else bead_shape(volume, centre)
        for key in ("width_z_um", "width_y_um", "width_x_um", "contrast"):
            row[key] = None if shape is None else getattr(shape, key)
    row["seconds"] = facts.get("seconds")
    row["iterations"] = facts.get("iterations", facts.get("start_iterations"))
    return row | {"error": None}


def _notes(
    problem: Problem, rows: Sequence[Mapping[str, Any]], measure: Measure | None
) -> tuple[str, ...]:
    """Return the sentences that belong to the numbers."""
    notes = [problem.hint] if problem.hint else []
    if not problem.published:
        notes.append("No numbers published by others are at hand for this problem.")
    elif measure is not None:
        notes.append(
            f"The published error of the raw image is that {MEASURES[measure]} ({measure}); the "
            "measured numbers of that column can be compared with the published ones."
        )
    else:
        raw = rows[0]
        found = ", ".join(f"{raw[m]:.4g} {how}" for m, how in MEASURES.items())
        notes.append(
            f"The error of the raw image is {found}, none of which is the published one: these are "
            "other data, or it is another measure, and the published numbers cannot be compared."
        )
    if not problem.truth:
        notes.append("A real image has no ground truth: there is no error to compute.")
    return tuple(notes)
