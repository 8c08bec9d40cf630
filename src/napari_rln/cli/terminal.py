"""What the commands say: progress, tables, messages, JSON."""

import json
from collections.abc import Callable, Container, Generator, Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

from cyclopts import Parameter
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from napari_rln.application import RlnReport
from napari_rln.psf.findings import Finding, Severity
from napari_rln.record import jsonable
from napari_rln.rld import RldReport
from napari_rln.steps import finish, relay
from napari_rln.train.settings import TrainReport

Report = TypeVar("Report", RldReport, RlnReport, TrainReport)
T = TypeVar("T")

_PHASES = {
    "stop": "finding when to stop",
    "deconvolve": "deconvolving",
    "start": "first estimate",
    "network": "network",
    "examples": "making examples",
    "train": "training",
}


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

    def follow(
        self, steps: Generator[Report, None, T], keep: Callable[[Report], T] | None = None
    ) -> T:
        """Run a long work under a progress bar and return its result.

        Parameters
        ----------
        steps
            The work.
        keep
            What to return of the last report where the user interrupts; without it the
            interruption goes on.
        """
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}"),
            TimeRemainingColumn(),
        )
        console = Console(stderr=True)
        silent = self.quiet or self.json_output or not console.is_terminal
        last: Report | None = None
        with Progress(*columns, console=console, transient=True, disable=silent) as progress:
            tasks: dict[str, TaskID] = {}

            def show(report: Report) -> None:
                nonlocal last
                last = report
                name, done, total, note = _seen(report)
                if name not in tasks:
                    tasks[name] = progress.add_task(name, note="")
                progress.update(tasks[name], completed=done, total=total, note=note)

            try:
                return finish(relay(steps, show))
            except KeyboardInterrupt:
                if keep is None or last is None:
                    raise
                return keep(last)


def _seen(report: RldReport | RlnReport | TrainReport) -> tuple[str, int, int, str]:
    """Return what a progress bar shows: what is being done, how far, of how much, and a note."""
    name = _PHASES[report.phase]
    if isinstance(report, RldReport):
        return name, report.iteration, report.total, f"change {report.relative_change:.2%}"
    if isinstance(report, TrainReport):
        note = "" if report.loss is None else f"loss {report.loss:.3f}"
        return name, report.step, report.total, note
    return name, report.done, report.total, ""


def number(value: object) -> str:
    """Return a table cell: four significant digits, or the text."""
    return f"{value:.4g}" if isinstance(value, float) else "" if value is None else str(value)
