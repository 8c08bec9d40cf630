"""Tables of a study: every cell, and every cell's summary over the seeds, as CSV and Parquet."""

import csv
import dataclasses
import json
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from napari_rln.core.errors import RlnError, warn
from napari_rln.io.paths import atomic
from napari_rln.networks.model import SUFFIX
from napari_rln.study.intervals import interval
from napari_rln.study.results import SCORES, Cell, CellResult
from napari_rln.study.selection import measured

Row = dict[str, Any]
"""Values of a row of a table by column; None where unknown."""

_CELL = {
    "method": "string", "psf": "string", "photons": "double", "tested_on": "string",
    "trained_on": "string", "trained_photons": "double", "training_volumes": "int64",
    "condition": "string", "seed": "int64",
}  # fmt: skip
_MEASURES = (*SCORES, "seconds", "training_seconds")

CELL_COLUMNS = {
    "key": "string", **_CELL, "test": "string", **dict.fromkeys(_MEASURES, "double"),
    "parameters": "int64", "train_seed": "int64", "training_steps": "int64", "iterations": "int64",
    "oracle": "bool", "wrong_psf": "bool", "threads": "int64", "machine": "string",
    "image": "string", "error": "string", "command": "string",
}  # fmt: skip
"""Columns of the table of cells, with their Arrow types."""

SUMMARY_COLUMNS = {
    **{name: kind for name, kind in _CELL.items() if name != "seed"}, "test": "string",
    "measure": "string", "cells": "int64", "failed": "int64", "n": "int64",
    **dict.fromkeys(("mean", "sd", "lower", "upper"), "double"),
}  # fmt: skip
"""Columns of the summary over seeds, one row per measure, with their Arrow types."""


MODEL_COLUMNS = ("file", "method", "psf", "structures", "photons", "volumes", "seed", "seconds")
"""Columns of the table of trained models: what each is trained for, and for how long."""


def read_results(folder: Path) -> tuple[CellResult, ...]:
    """Return the results of the planned cells that are finished, in a fixed order.

    Cells of an earlier plan, as before a file of a PSF was changed, are left out.

    Raises
    ------
    RlnError
        If there are none, or a file is damaged.
    """
    files = sorted((folder / "cells").glob("*.json"))
    plan = folder / "plan.json"
    planned = set(json.loads(plan.read_text(encoding="utf-8"))) if plan.is_file() else None
    # Files being written begin with a full stop.
    results = [
        CellResult.load(file) for file in files
        if not file.name.startswith(".") and (planned is None or file.stem in planned)
    ]  # fmt: skip
    if not results:
        raise RlnError(
            f"{folder} holds no results of a study, which lie in its folder `cells`; run the study "
            "first, or name its folder."
        )
    return tuple(sorted(results, key=_order))


def _order(result: CellResult) -> tuple[Any, ...]:
    """Return what sorts results; values that may be None sort as nothing before something."""
    values = (getattr(result.cell, name) for name in _CELL)
    return (*((v is not None, "" if v is None else v) for v in values), result.key)


def read_configuration(folder: Path) -> dict[str, Any]:
    """Return the contents of ``study.json`` in the folder of a study; empty without the file.

    Raises
    ------
    RlnError
        If the file is damaged.
    """
    path = folder / "study.json"
    if not path.exists():
        return {}
    try:
        read = json.loads(path.read_text(encoding="utf-8"))
        return dict(read)
    except (OSError, ValueError, TypeError) as error:
        raise RlnError(
            f"{path} is no configuration of a study ({error}); run the study again to write it."
        ) from error


def cell_rows(results: Iterable[CellResult]) -> list[Row]:
    """Return the rows of the table of cells; unknown values and NaN are None."""
    rows = []
    for result in results:
        row: Row = {"key": result.key, **dataclasses.asdict(result.cell), "test": result.cell.test}
        row |= {measure: _known(measured(result, measure)) for measure in _MEASURES}
        row |= {
            "parameters": result.parameters,
            "train_seed": result.facts.get("train_seed"),
            "training_steps": result.facts.get("training_steps"),
            "iterations": result.iterations,
            "oracle": result.facts.get("oracle") is True,
            "wrong_psf": result.facts.get("wrong_psf"),
            "threads": result.facts.get("threads"),
            "machine": result.facts.get("machine"),
            "image": str(result.facts["image"]) if "image" in result.facts else None,
            "error": result.error,
            "command": result.command,
        }
        rows.append(_encodable(row))
    return rows


def summary_rows(results: Iterable[CellResult]) -> list[Row]:
    """Return the rows of the summary over seeds: one for each measure of each cell but its seed.

    With the number of cells and of failed ones, that of finite values, their mean, standard
    deviation and the bounds of the bootstrap interval of the mean, see
    :class:`napari_rln.study.intervals.Interval`.
    """
    groups: defaultdict[Cell, list[CellResult]] = defaultdict(list)
    for result in results:
        groups[dataclasses.replace(result.cell, seed=0)].append(result)
    rows = []
    for cell, group in groups.items():
        fields = dataclasses.asdict(cell)
        del fields["seed"]
        failed = sum(result.error is not None for result in group)
        for measure in _MEASURES:
            values = interval(measured(result, measure) for result in group)
            row = {**fields, "test": cell.test, "measure": measure}
            row |= {"cells": len(group), "failed": failed, "n": values.n}
            bounds = ("mean", "sd", "lower", "upper")
            row |= {name: _known(getattr(values, name)) for name in bounds}
            rows.append(_encodable(row))
    return rows


def model_rows(folder: Path) -> list[Row]:
    """Return the rows of the table of the trained models in the folder of a study."""
    rows = []
    for path in sorted((folder / "models").glob(f"*{SUFFIX}")):
        facts = path.with_suffix(".json")
        known = json.loads(facts.read_text(encoding="utf-8")) if facts.is_file() else {}
        rows.append({"file": path.name} | {name: known.get(name) for name in MODEL_COLUMNS[1:]})
    return sorted(rows, key=lambda row: [str(row[name]) for name in MODEL_COLUMNS[1:]])


def write_tables(folder: Path, results: Sequence[CellResult]) -> tuple[Path, ...]:
    """Write the tables of the results of a study into its folder, and return their paths.

    ``cells.csv`` and ``summary.csv``, with the columns :data:`CELL_COLUMNS` and
    :data:`SUMMARY_COLUMNS`, and both as ``.parquet`` if pyarrow is installed; warn otherwise. If
    there are trained models, ``models.csv`` too, with the columns :data:`MODEL_COLUMNS`.
    """
    models = model_rows(folder)
    if models:
        _write_csv(folder / "models.csv", models, MODEL_COLUMNS)
    tables = {
        "cells": (cell_rows(results), CELL_COLUMNS),
        "summary": (summary_rows(results), SUMMARY_COLUMNS),
    }
    written = [folder / f"{name}.csv" for name in tables]
    for path, (rows, columns) in zip(written, tables.values(), strict=True):
        _write_csv(path, rows, columns)
    files = [path.with_suffix(".parquet") for path in written]
    try:
        for path, (rows, columns) in zip(files, tables.values(), strict=True):
            _write_parquet(path, rows, columns)
        written += files
    except ImportError:
        for path in files:  # of older results
            path.unlink(missing_ok=True)
        warn(
            "the tables are written as CSV but not as Parquet, which needs pyarrow: "
            "pip install 'napari-rln[study]'"
        )
    return tuple(written)


def _write_csv(path: Path, rows: Sequence[Row], columns: Iterable[str]) -> None:
    """Write a table as CSV; unknown values stay empty, numbers keep all their digits."""
    with atomic(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, list(columns))
        table.writeheader()
        table.writerows(rows)


def _write_parquet(path: Path, rows: Sequence[Row], columns: Mapping[str, str]) -> None:
    """Write a table as Parquet; raise an ImportError without pyarrow."""
    import pyarrow
    from pyarrow import parquet

    schema = pyarrow.schema(
        [(name, pyarrow.type_for_alias(kind)) for name, kind in columns.items()]
    )
    with atomic(path) as temporary:
        parquet.write_table(pyarrow.Table.from_pylist(rows, schema=schema), temporary)


def _known(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _encodable(row: Row) -> Row:
    """Return a row with texts that can be written; names of files may not be valid text."""
    return {
        name: value.encode(errors="replace").decode() if isinstance(value, str) else value
        for name, value in row.items()
    }
