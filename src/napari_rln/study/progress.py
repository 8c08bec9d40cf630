"""Progress of a study."""

from dataclasses import dataclass
from typing import Literal

from napari_rln.core.report import Report
from napari_rln.engine.progress import Progress, progress_of
from napari_rln.study.results import Cell, CellResult
from napari_rln.train.training_settings import TrainReport

Phase = Literal["train", "simulate", "test", "wait"]


@dataclass(frozen=True, kw_only=True)
class StudyReport:
    """Progress of a study.

    Attributes
    ----------
    phase
        ``"train"`` during a training, ``"simulate"`` before a test image is made, ``"test"``
        while a method is applied and after each finished cell, ``"wait"`` while other processes
        compute all that is left.
    done, total
        Finished cells, and all cells of this run.
    seconds, seconds_left
        Time since the start, and left; none while a method's time is unknown.
    cell
        The cell that is computed or finished; none during a training.
    result
        Result of the cell, once it is finished.
    method
        Name of the method that is trained or applied.
    inner
        Report of the training or application.
    """

    phase: Phase
    done: int
    total: int
    seconds: float
    seconds_left: float | None = None
    cell: Cell | None = None
    result: CellResult | None = None
    method: str = ""
    inner: Report | TrainReport | None = None

    def progress(self) -> Progress:
        """Return the progress of the cells, and what is done at present."""
        return Progress(
            activity="computing the cells",
            done=self.done,
            total=self.total,
            note=self._note(),
            seconds_left=self.seconds_left,
        )

    def _note(self) -> str:
        if self.inner is None:
            return {"simulate": "simulating", "wait": "waiting for another process"}.get(
                self.phase, ""
            )
        inner = progress_of(self.inner)
        of_all = f" of {inner.total}" if inner.total else ""
        return f"{self.method}: {inner.activity} {inner.done}{of_all}"
