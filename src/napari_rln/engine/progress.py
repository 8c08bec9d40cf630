"""What a report says to somebody who waits: what is being done, and how far it is."""

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


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far a long work is.

    Attributes
    ----------
    doing
        What is being done.
    done, total
        Of that; a total of 0 where it is not known.
    note
        A number that tells how it goes.
    seconds_left
        Of the whole work, where that is known.
    """

    doing: str
    done: int = 0
    total: int = 0
    note: str = ""
    seconds_left: float | None = None


def progress_of(report: AnyReport) -> Progress:
    """Return how far the work is that a report is of."""
    if isinstance(report, BatchReport):
        if report.inner is None:
            return Progress(doing="images", done=report.done, total=report.total)
        inner = progress_of(report.inner)
        return replace(inner, doing=f"{report.item.label}: {inner.doing}")
    doing = _DOING[report.phase]
    if isinstance(report, TrainReport):
        return Progress(
            doing=doing,
            done=report.step,
            total=report.total,
            note="" if report.loss is None else f"loss {report.loss:.3f}",
            seconds_left=report.seconds_left,
        )
    note = ""
    if isinstance(report, Report) and not math.isnan(report.relative_change):
        note = f"change {report.relative_change:.2%}"
    return Progress(doing=doing, done=report.done, total=report.total, note=note)
