"""What the commands say: progress, tables, messages, JSON."""

import json
from collections.abc import Container, Generator, Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from cyclopts import Parameter
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from napari_rln.psf.findings import Finding, Severity
from napari_rln.record import jsonable
from napari_rln.rld import RldReport
from napari_rln.volume import Volume

_PHASES = {"stop": "finding when to stop", "deconvolve": "deconvolving"}


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Terminal:
    """How much is said, and to whom.

    Parameters
    ----------
    quiet
        Say nothing but warnings and errors.
    json_output
        Print one JSON object on standard output and nothing else.
    """

    quiet: Annotated[bool, Parameter(negative="")] = False
    json_output: Annotated[bool, Parameter(name="--json", negative="")] = False

    @property
    def console(self) -> Console:
        """Where a person reads: standard output, unless it is kept silent or for JSON."""
        return Console(quiet=self.quiet or self.json_output, highlight=False, soft_wrap=True)

    def say(self, text: str) -> None:
        """Print a line for a person."""
        self.console.print(text, markup=False)

    def findings(self, findings: Sequence[Finding], *, mended: Container[Severity] = ()) -> None:
        """Print what there is to say about a PSF, and whether that severity was repaired."""
        for finding in findings:
            if finding.severity != "ok":
                end = " Repaired." if finding.severity in mended and finding.repair else ""
                self.say(f"PSF {finding.severity}: {finding.what}{end}")

    def table(self, title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
        """Print a table whose first column is text and the others numbers."""
        table = Table(title=title or None, title_justify="left")
        for i, column in enumerate(columns):
            table.add_column(column, justify="right" if i else "left")
        for row in rows:
            table.add_row(*row)
        self.console.print(table)

    def report(self, data: dict[str, Any]) -> None:
        """Print JSON, where it was asked for."""
        if self.json_output:
            print(json.dumps(jsonable(data), allow_nan=False))

    def follow(self, steps: Generator[RldReport, None, Volume]) -> Volume:
        """Run a deconvolution under a progress bar and return its result."""
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("change {task.fields[change]:.2%}"),
            TimeRemainingColumn(),
        )
        console = Console(stderr=True)
        silent = self.quiet or self.json_output or not console.is_terminal
        with Progress(*columns, console=console, transient=True, disable=silent) as progress:
            tasks = {}
            while True:
                try:
                    step = next(steps)
                except StopIteration as stop:
                    result: Volume = stop.value
                    return result
                if step.phase not in tasks:
                    tasks[step.phase] = progress.add_task(_PHASES[step.phase], change=0.0)
                progress.update(
                    tasks[step.phase],
                    completed=step.iteration,
                    total=step.total,
                    change=step.relative_change,
                )


def number(value: object) -> str:
    """Return a table cell: four significant digits, or the text."""
    return f"{value:.4g}" if isinstance(value, float) else "" if value is None else str(value)
