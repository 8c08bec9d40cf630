"""The command ``napari-rln study``."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from napari_rln.cli.options import Overwrite
from napari_rln.cli.study_image_command import HEADLINE, named_methods
from napari_rln.cli.terminal import Terminal, number
from napari_rln.core.errors import ComputeError, RlnError, warn
from napari_rln.core.generators import relay
from napari_rln.core.report import duration
from napari_rln.deconvolution.method import Method
from napari_rln.io.paths import check_outputs, make_folder
from napari_rln.study.config_file import load_study
from napari_rln.study.leaderboard import MEASURES, Leaderboard, solve_problem_iter
from napari_rln.study.plan import StudyPlan, by_image, plan_study, trainings_of
from napari_rln.study.problems import PROBLEMS, ProblemName
from napari_rln.study.progress import StudyReport
from napari_rln.study.results import CellResult
from napari_rln.study.run import run_study_iter, time_needed


def study(
    config: Path | None = None,
    *,
    out: Annotated[Path | None, Parameter(name=["--out", "-o"])] = None,
    problem: ProblemName | None = None,
    data: Path | None = None,
    methods: tuple[str, ...] = HEADLINE,
    device: str = "auto",
    cell: str | None = None,
    report_only: Annotated[bool, Parameter(negative="")] = False,
    dry_run: Annotated[bool, Parameter(negative="")] = False,
    overwrite: Overwrite = False,
    terminal: Terminal = Terminal(),
) -> None:
    """Compare methods on simulated images, or on a public problem: tables and a report.

    Of simulated images a configuration says which: trainings, tests, tables and a report. Ctrl-C
    interrupts the study; repeat the command to continue it.

    Parameters
    ----------
    config
        Configuration, TOML, or the study.json of a study.
    out
        Folder of the study, or for leaderboard.csv of a public problem; created if absent.
    problem
        Public problem instead of a configuration: its published error, beside the published numbers
        of others.
    data
        Folder with the downloaded files of the public problem.
    methods
        Methods for the public problem, as for study-image.
    device
        Compute device for the public problem: auto, cpu, cuda, cuda:1 or mps.
    cell
        Compute only the cell of this key, again.
    report_only
        Write tables and report of the finished cells, and compute nothing.
    dry_run
        Print the numbers of cells and trainings and the time that they need, and compute nothing.
    overwrite
        Replace the configuration of another study in the folder; no finished cell is deleted.
    """
    if problem is not None:
        if data is None or config is not None:
            raise RlnError(
                "a public problem needs the folder with its files (`data`), and no configuration."
            )
        _solve(problem, data, out, named_methods(methods, device), terminal, overwrite=overwrite)
        return
    if config is None or out is None:
        raise RlnError(
            "give the configuration of the study (CONFIG.toml) and its folder (`out`), or a public "
            "problem (`problem`) and its files (`data`)."
        )
    settings = load_study(config)
    if dry_run:
        _forecast(plan_study(settings), out, terminal)
        return
    if not report_only:
        steps = run_study_iter(settings, out, only=cell, overwrite=overwrite)
        try:
            terminal.follow(steps, watch=lambda report: _show(report, terminal))
        except KeyboardInterrupt:
            steps.close()  # saves the state of a training
            raise KeyboardInterrupt(
                "finished cells are kept; repeat the command to continue"
            ) from None
    _conclude(out, terminal)


def _conclude(out: Path, terminal: Terminal) -> None:
    """Write tables and report, print the main answers; raise a ComputeError if a cell failed."""
    from napari_rln.study.conclusion import conclude
    from napari_rln.study.recommendation import SEVERAL_MACHINES
    from napari_rln.study.selection import several_machines

    results, page, answers = conclude(out)
    terminal.table("Conventional tests", ("", "PSNR dB", "SSIM", "s"), _summary(results))
    if answers.short:
        terminal.say(answers.short)
    if several_machines(results):
        terminal.say(SEVERAL_MACHINES)
    terminal.say(f"The report, with reasons: {page}")
    failed = {result.key: result.error for result in results if result.error is not None}
    terminal.report(
        {
            "out": str(out),
            "report": str(page),
            "cells": len(results),
            "failed": failed,
            "short": answers.short,
            "recommendation": [statement.text for statement in answers.statements],
        }
    )
    if failed:
        raise ComputeError(
            f"{len(failed)} of {len(results)} cells failed; {page} says why. Repeat the command to "
            "compute them again."
        )


def _forecast(plan: StudyPlan, folder: Path, terminal: Terminal) -> None:
    """Print what a study will compute."""
    needed = time_needed(plan, folder)
    trainings, images = len(trainings_of(plan.cells)), len(by_image(plan.cells))
    terminal.say(f"{len(plan.cells)} cells, {needed.cells} of them to compute, on {images} images")
    terminal.say(f"{trainings} trainings, {needed.trainings} of them to compute")
    time = duration(needed.seconds, approximate=True)
    if not needed.complete:
        time = "known once each method has been timed" if not needed.seconds else (
            f"at least {duration(needed.seconds)}; known once each method has been timed"
        )  # fmt: skip
    terminal.say(f"time: {time}")
    terminal.report(
        {
            "cells": len(plan.cells),
            "cells_left": needed.cells,
            "images": images,
            "trainings": trainings,
            "trainings_left": needed.trainings,
            "seconds": needed.seconds,
            "seconds_complete": needed.complete,
        }
    )


def _show(report: StudyReport, terminal: Terminal) -> None:
    """Print a line for a finished cell; that of a failed one also when quiet."""
    result = report.result
    if result is None:
        return
    cell = result.cell
    trained = "" if cell.trained_on is None else (
        f", trained on {cell.trained_on}, {cell.trained_photons:g} photons"
    )  # fmt: skip
    condition = f", {cell.condition}" if cell.condition else ""
    what = (
        f"{cell.method}{trained}: {cell.psf}, {cell.tested_on}, {cell.photons:g} photons"
        f"{condition}, seed {cell.seed}"
    )
    if result.error is not None:
        line = f"{report.done}/{report.total} {what}: {result.error}"
        warn(line)
        return
    terminal.say(
        f"{report.done}/{report.total} {what}: {result.scores['psnr_db']:.2f} dB, SSIM "
        f"{result.scores['ssim']:.3f}, {result.seconds:.2g} s"
    )


def _summary(results: Iterable[CellResult]) -> list[Sequence[str]]:
    """Return a row for each method: means of conventional tests on the images that they share.

    Of a trained method those of the largest number of training volumes.
    """
    from napari_rln.study.selection import (
        by_image,
        conventional_tests,
        fully_trained,
        mean_of,
        on_common_images,
    )

    own, shared = on_common_images(conventional_tests(fully_trained(results)))
    if not shared.images:
        return []
    values = {name: by_image(own, name) for name in ("psnr_db", "ssim", "seconds")}
    rows = []
    for method in values["psnr_db"]:
        psnr, ssim, seconds = (mean_of(each.get(method, {})).mean for each in values.values())
        rows.append((psnr, (method, f"{psnr:.2f}", f"{ssim:.3f}", f"{seconds:.2g}")))
    return [row for _, row in sorted(rows, reverse=True)]


def _solve(
    problem: ProblemName,
    data: Path,
    out: Path | None,
    methods: Mapping[str, Method],
    terminal: Terminal,
    *,
    overwrite: bool,
) -> None:
    """Compute and print the published error of methods on a public problem."""
    file = None
    if out is not None:
        make_folder(out)
        file = out / "leaderboard.csv"
        check_outputs([file], inputs=[], overwrite=overwrite)
    steps = solve_problem_iter(problem, data, methods)
    board: Leaderboard = terminal.follow(relay(steps, lambda report: report.inner))
    _show_leaderboard(board, terminal)
    if file is not None:
        board.to_csv(file)
        terminal.say(f"Written: {file}")
    terminal.report(board.to_dict() | {"files": [str(file)] if file else []})


def _show_leaderboard(board: Leaderboard, terminal: Terminal) -> None:
    """Print what was measured, what others have published, and the notes."""
    columns = [c for c in board.rows[0] if any(row[c] is not None for row in board.rows)]
    rows = ([number(row[c]) for c in columns] for row in board.rows)
    terminal.table(f"{PROBLEMS[board.problem].title}, measured here", columns, rows)
    if board.published:
        published = (
            (p.program, number(p.low) if p.low == p.high else f"{p.low:g} to {p.high:g}", p.source)
            for p in sorted(board.published, key=lambda p: p.low)
        )
        terminal.table("Published by others", ("program", "rmse", "source"), published)
    if board.measure is not None:
        ranking = (
            (str(place), name, number(error), "published" if source else "measured")
            for place, (error, name, source) in enumerate(board.ranking, 1)
        )
        heading = f"Ranking by the error {MEASURES[board.measure]}"
        terminal.table(heading, ("", "name", "rmse", ""), ranking)
    for note in board.notes:
        terminal.say(note)
