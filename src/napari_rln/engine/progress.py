"""What a report says to somebody who waits: what is being done, and how far it is."""

from dataclasses import dataclass, replace

from napari_rln.deconvolution.rld_settings import RldReport
from napari_rln.engine.reports import BatchReport, LargeReport
from napari_rln.evaluate.comparison import CompareReport
from napari_rln.networks.rln_settings import RlnReport
from napari_rln.registration.register import RegistrationReport
from napari_rln.train.training_settings import TrainReport

Report = (
    RldReport
    | RlnReport
    | TrainReport
    | CompareReport
    | RegistrationReport
    | LargeReport
    | BatchReport
)

_DOING = {
    "stop": "finding when to stop",
    "deconvolve": "deconvolving",
    "start": "first estimate",
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


def progress_of(report: Report) -> Progress:
    """Return how far the work is that a report is of."""
    if isinstance(report, BatchReport):
        if report.inner is None:
            return Progress(doing="images", done=report.done, total=report.total)
        inner = progress_of(report.inner)
        return replace(inner, doing=f"{report.item.image.name}: {inner.doing}")
    doing = _DOING[report.phase]
    if isinstance(report, RldReport):
        note = f"change {report.relative_change:.2%}"
        return Progress(doing=doing, done=report.iteration, total=report.total, note=note)
    if isinstance(report, TrainReport):
        return Progress(
            doing=doing,
            done=report.step,
            total=report.total,
            note="" if report.loss is None else f"loss {report.loss:.3f}",
            seconds_left=report.seconds_left,
        )
    return Progress(doing=doing, done=report.done, total=report.total)
