"""Terminal output of the commands: progress, tables, messages, JSON."""

import json
import re
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

from napari_rln.core.errors import warn
from napari_rln.core.generators import finish, relay
from napari_rln.core.record import jsonable
from napari_rln.engine.progress import AnyReport, progress_of
from napari_rln.psf.findings import HARMFUL, Finding, Severity
from napari_rln.psf.from_optics import CompletedOptics

R = TypeVar("R", bound=AnyReport)
T = TypeVar("T")


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Terminal:
    """Options of the output.

    Parameters
    ----------
    quiet
        Print only warnings and errors.
    json_output
        Print only one JSON object on standard output.
    """

    quiet: Annotated[bool, Parameter(negative="")] = False
    json_output: Annotated[bool, Parameter(name="--json", negative="")] = False

    @property
    def console(self) -> Console:
        """Console for text: standard output, unless quiet or for JSON."""
        return Console(quiet=self.quiet or self.json_output, highlight=False, soft_wrap=True)

    def say(self, text: str) -> None:
        """Print a line of text."""
        self.console.print(as_options(text), markup=False)

    def findings(self, findings: Sequence[Finding], *, repaired: Container[Severity] = ()) -> None:
        """Print the findings on a PSF, and whether those of their severity were repaired.

        Harmful findings are warnings, which are also printed when quiet.
        """
        for finding in findings:
            if finding.severity == "ok":
                continue
            end = " Repaired." if finding.severity in repaired and finding.repair else ""
            text = f"PSF {finding.severity}: {finding.message}{end}"
            if finding.severity in HARMFUL:
                warn(text)
            else:
                self.say(text)

    def optics(self, optics: CompletedOptics, channel: int | None = None) -> None:
        """Print where the values are from with which the PSF of a channel is computed."""
        number = "" if channel is None else f" of channel {channel}"
        named = f" ({optics.channel})" if optics.channel else ""
        self.say(f"PSF{number}{named}, computed from the optics")
        for line in optics.lines():
            self.say(f"  {line}")

    def table(self, title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
        """Print a table whose first column is text and the others numbers."""
        table = Table(title=title or None, title_justify="left")
        for i, column in enumerate(columns):
            table.add_column(column, justify="right" if i else "left")
        for row in rows:
            table.add_row(*row)
        self.console.print(table)

    def report(self, data: dict[str, Any]) -> None:
        """Print JSON, if requested."""
        if self.json_output:
            print(json.dumps(jsonable(data), allow_nan=False))

    def follow(
        self,
        steps: Generator[R, None, T],
        keep: Callable[[R], T] | None = None,
        watch: Callable[[R], None] = lambda report: None,
    ) -> T:
        """Run long work with a progress bar and return its result.

        When the user interrupts, ``keep`` returns the result from the last report; without it the
        interruption is raised. ``watch`` is called with every report.
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
        last: R | None = None
        with Progress(*columns, console=console, transient=True, disable=silent) as progress:
            tasks: dict[str, TaskID] = {}

            def show(report: R) -> None:
                nonlocal last
                last = report
                watch(report)
                now = progress_of(report)
                if now.activity not in tasks:
                    tasks[now.activity] = progress.add_task(now.activity, note="")
                total = now.total or None  # None is drawn as a moving bar
                progress.update(tasks[now.activity], completed=now.done, total=total, note=now.note)

            try:
                return finish(relay(steps, show))
            except KeyboardInterrupt:
                if keep is None or last is None:
                    raise
                return keep(last)


_OPTIONS = {"everything": "--all"}  # options named unlike their arguments


def as_options(text: str) -> str:
    """Return a message with the arguments in backticks replaced by options."""

    def replaced(match: re.Match[str]) -> str:
        name, value = match[1], match[2]
        option = _OPTIONS.get(name, f"--{name.replace('_', '-')}")
        return f"{option} {value}" if value else option

    return re.sub(r"`(\w+)(?:=([^`]*))?`", replaced, text)


def exposure(facts: dict[str, Any]) -> str:
    """Return the background, camera offset and gain of a run as text."""
    camera = facts["camera"]
    gain = "no photon noise found"
    if camera["gain_from"] != "assumed":
        gain = f"{camera['gain']:.3g} units a photon"
    return f"background {facts['background']:.4g}, offset {camera['offset']:.4g}, {gain}"


def judgement(facts: dict[str, Any]) -> str:
    """Return how well a result explains its image, as text."""
    names = {"chi2": "chi2", "reblur_scale": "scale", "flux_ratio": "flux ratio"}
    parts = (f"{word} {number(facts.get(key)) or 'unknown'}" for key, word in names.items())
    return ", ".join(parts)


def number(value: object) -> str:
    """Return a table cell: four significant digits, or the text."""
    return f"{value:.4g}" if isinstance(value, float) else "" if value is None else str(value)
