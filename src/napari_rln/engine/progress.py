"""Progress of long work, for display: phase, fraction done, and time left."""

import math
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

from napari_rln.core.report import Report
from napari_rln.engine.reports import BatchReport
from napari_rln.evaluate.comparison import CompareReport
from napari_rln.registration.register import RegistrationReport
from napari_rln.train.training_settings import TrainReport

SEARCHING = "choosing the number of iterations"
"""Activity whose number of steps is not known: the search stops early."""

_ACTIVITIES = {
    "stop": SEARCHING,
    "deconvolve": "deconvolving",
    "start": "computing the initial estimate",
    "compile": "compiling the network, once per machine",
    "network": "applying the network",
    "examples": "making training examples",
    "baseline": "scoring the initial estimates",
    "train": "training",
    "outside": "estimating light from outside the field of view",
    "compare": "comparing",
    "translation": "registering by translation",
    "rigid": "registering by rotation",
    "affine": "registering by scaling and shear",
    "sample": "sampling the image",
    "plan": "planning",
    "check": "verifying finished parts",
    "tiles": "writing",
    "pyramid": "writing coarser levels",
}


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


@runtime_checkable
class OwnProgress(Protocol):
    """A report that describes its progress itself, of work that is built on this."""

    def progress(self) -> Progress:
        """Return the progress."""


AnyReport = Report | TrainReport | CompareReport | RegistrationReport | BatchReport | OwnProgress


def progress_of(report: AnyReport) -> Progress:
    """Return the progress that a report describes."""
    if isinstance(report, BatchReport):
        if report.inner is None:
            return Progress(activity="images", done=report.done, total=report.total)
        inner = progress_of(report.inner)
        which = f"{report.done + 1} of {report.total}, {report.item.label}"
        return replace(inner, activity=f"{which}: {inner.activity}")
    if isinstance(report, OwnProgress):
        return report.progress()
    activity = _ACTIVITIES[report.phase]
    if isinstance(report, TrainReport):
        return Progress(
            activity=activity,
            done=report.step,
            total=report.total,
            note="" if report.loss is None else f"loss {report.loss:.3f}",
            seconds_left=report.seconds_left,
        )
    note = ""
    if isinstance(report, Report) and not math.isnan(report.relative_change):
        note = f"change {report.relative_change:.2%}"
    return Progress(activity=activity, done=report.done, total=report.total, note=note)
