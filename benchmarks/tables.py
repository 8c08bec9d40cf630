"""The benchmark's numbers as tables, for a terminal or as Markdown."""

import statistics
from typing import Any

from rich.table import Table
from worker import METHODS

Result = dict[str, Any]


def speed_tables(results: Result) -> list[Table]:
    """Return a table per image size: seconds per iteration, fixed cost, memory."""
    tables = []
    for shape, result in results.items():
        medians = {key: statistics.median(times) for key, times in result["ffts"].items()}
        limits = {
            size: min(t for key, t in medians.items() if key.split()[1] == size)
            for size in (shape, result["padded"])
        }
        table = _table(
            f"Speed and memory, image {shape}, PSF 31x31x31",
            ("method", "border", "s/iteration", "x four FFTs", "fixed s", "peak MB over base"),
        )
        for key, seconds in medians.items():
            ratio = f"{seconds / limits[key.split()[1]]:.2f}"
            table.add_row(f"four FFTs, {key}", "", f"{seconds:.3f}", ratio, "", "")
        for name, row in result["methods"].items():
            method = METHODS[name]
            if "failed" in row:
                table.add_row(method.label, row["failed"], "", "", "", "")
                continue
            limit = limits[result["padded"] if method.padded else shape]
            peak = "" if row["peak_mb"] is None else f"{row['peak_mb']:.0f}"
            ratio = f"{row['iteration_s'] / limit:.2f}"
            table.add_row(
                method.label,
                method.border,
                f"{row['iteration_s']:.3f}",
                ratio,
                f"{row['fixed_s']:.2f}",
                peak,
            )
        tables.append(table)
    return tables


def quality_tables(results: Result) -> list[Table]:
    """Return a table per PSF: NRMSE over iterations, drift, flux, time to each target."""
    tables = []
    for psf, methods in results.items():
        measured = [result for result in methods.values() if "failed" not in result]
        if not measured:
            continue
        # The counts whose results were looked at more closely have a column each.
        shown = [count for count, score in measured[0]["scores"].items() if "drift" in score]
        targets = list(measured[0]["reached"])
        title = {"sym": "symmetric PSF", "asym": "PSF with spherical aberration and coma"}[psf]
        timed = [f"s to {target}: median, least (iterations)" for target in targets]
        columns = ("method", "start", *shown, "best (at)", "drift z y x", "flux", *timed)
        table = _table(f"NRMSE over iterations, {title}", columns)
        for name, result in methods.items():
            if "failed" in result:
                table.add_row(METHODS[name].label, result["failed"], *[""] * (len(columns) - 2))
                continue
            scores = result["scores"]
            best = min(scores, key=lambda count: scores[count]["nrmse"])
            last = scores[shown[-1]]
            table.add_row(
                METHODS[name].label,
                METHODS[name].start,
                *(f"{scores[count]['nrmse']:.3f}" for count in shown),
                f"{scores[best]['nrmse']:.3f} ({best})",
                " ".join(f"{d:+.2f}" for d in last["drift"]),
                f"{last['flux']:.3f}",
                *(_time_to(result, target) for target in targets),
            )
        tables.append(table)
    return tables


def _time_to(result: Result, target: str) -> str:
    times = result.get("seconds", {}).get(target)
    if not times:
        return "not reached"
    return f"{statistics.median(times):.2f}, {min(times):.2f} ({result['reached'][target]})"


def stop_tables(results: Result) -> list[Table]:
    """Return the automatic stop against the best of all iteration counts."""
    table = _table(
        "Automatic stop, against all iteration counts",
        ("PSF", "photons", "stops at", "NRMSE", "best (at)", "excess %", "flux", "s"),
    )
    for key, result in results.items():
        psf, share = key.split()
        if "failed" in result:
            table.add_row(psf, share, result["failed"], *[""] * 5)
            continue
        best = min(result["errors"])
        table.add_row(
            psf,
            share,
            str(result["iterations"]),
            f"{result['nrmse']:.4f}",
            f"{best:.4f} ({result['errors'].index(best) + 1})",
            f"{100 * (result['nrmse'] / best - 1):.1f}",
            f"{result['flux']:.3f}",
            f"{result['seconds']:.1f}",
        )
    return [table]


def _table(title: str, columns: tuple[str, ...]) -> Table:
    table = Table(title=title, title_justify="left")
    for column in columns:
        table.add_column(column, justify="left" if column in ("method", "border") else "right")
    return table


def markdown(table: Table) -> str:
    """Return a table as Markdown."""
    cells = [list(column.cells) for column in table.columns]
    lines = [" | ".join(str(column.header) for column in table.columns)]
    lines.append(" | ".join("---" for _ in table.columns))
    lines += [" | ".join(str(cell) for cell in row) for row in zip(*cells, strict=True)]
    return "\n".join([f"### {table.title}", "", *(f"| {line} |" for line in lines), ""])
