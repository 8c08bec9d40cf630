"""Progress of long work, for display: phase, fraction done, and time left."""

import math
from dataclasses import dataclass, replace

from napari_rln.core.report import Report
from napari_rln.engine.reports import BatchReport
from napari_rln.evaluate.comparison import CompareReport
from napari_rln.registration.register import RegistrationReport
from napari_rln.train.training_settings import TrainReport

AnyReport = Report | TrainReport | CompareReport | RegistrationReport | BatchReport

_DOING = {
    "stop": "finding when to stop",
    "deconvolve": "deconvolving",
    "start": "initial estimate",
    "compile": "compiling the network for this machine, once",
    "network": "network",
    "examples": "making examples",
    "baseline": "finding what to beat",
    "train": "training",
    "outside": "light from outside",
    "compare": "comparing",
    "translation": "shifting",
    "rigid": "turning",
    "affine": "scaling",
    "sample": "sampling",
    "plan": "planning",
    "check": "checking what is finished",
    "tiles": "writing",
    "pyramid": "writing the coarser levels",
}

STOP_SEARCH = _DOING["stop"]
"""Activity whose end is not known in advance."""


@dataclass(frozen=True, kw_only=True)
class Progress:
    """Progress of long work.

    Attributes
    ----------
    activity
        Phase, in words.
    done, total
        Finished and total steps of the phase; a total of 0 where unknown.
    note
        A number that describes the progress, as text.
    seconds_left
        Time left of the whole work, seconds, where known.
    """

    activity: str
    done: int = 0
    total: int = 0
    note: str = ""
    seconds_left: float | None = None


def progress_of(report: AnyReport) -> Progress:
    """Return the progress that a report describes."""
    if isinstance(report, BatchReport):
        if report.inner is None:
            return Progress(activity="images", done=report.done, total=report.total)
        inner = progress_of(report.inner)
        return replace(inner, activity=f"{report.item.label}: {inner.activity}")
    doing = _DOING[report.phase]
    if isinstance(report, TrainReport):
        return Progress(
            activity=doing,
            done=report.step,
            total=report.total,
            note="" if report.loss is None else f"loss {report.loss:.3f}",
            seconds_left=report.seconds_left,
        )
    note = ""
    if isinstance(report, Report) and not math.isnan(report.relative_change):
        note = f"change {report.relative_change:.2%}"
    return Progress(activity=doing, done=report.done, total=report.total, note=note)
