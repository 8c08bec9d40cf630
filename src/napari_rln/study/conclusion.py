"""Conclusion of a study: tables, report and answers from its finished cells."""

from pathlib import Path
from typing import NamedTuple

from napari_rln.study.recommendation import Recommendation, recommend, settings_for
from napari_rln.study.report.page import write_report
from napari_rln.study.results import CellResult
from napari_rln.study.tables import read_configuration, read_results, write_tables


class Conclusion(NamedTuple):
    """Results of the finished cells, path of the report, and answers."""

    results: tuple[CellResult, ...]
    report: Path
    recommendation: Recommendation


def conclude(folder: str | Path) -> Conclusion:
    """Write tables and report of the study in a folder; return its conclusion.

    Raises
    ------
    RlnError
        If the folder holds no results, or a file in it is damaged.
    """
    folder = Path(folder)
    results, configuration = read_results(folder), read_configuration(folder)
    advice = recommend(results, settings_for(configuration))
    write_tables(folder, results)
    report = write_report(folder, results, configuration, advice)
    return Conclusion(results, report, advice)
