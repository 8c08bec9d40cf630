"""Runs of the methods: their jobs, the layers of their results, and the history."""

from collections.abc import Mapping

from napari.layers import Image
from qtpy.QtCore import QObject, Signal

from napari_rln.gui.deconvolve.chosen_method import FinishedResult
from napari_rln.gui.deconvolve.history import History, PastRun
from napari_rln.gui.deconvolve.run_jobs import Stream
from napari_rln.gui.jobs import BackgroundJob, JobQueue, Update


class Runs(QObject):
    """The jobs of runs in a queue; their updates are drawn, and their results go to the history."""

    result_finished = Signal(object)  # a FinishedResult
    run_finished = Signal()  # after the last method of a run with results

    def __init__(self, jobs: JobQueue, history: History) -> None:
        super().__init__(history)
        self._jobs, self._history = jobs, history
        self._streams: dict[BackgroundJob, tuple[Stream, PastRun]] = {}
        jobs.reported.connect(self._on_report)
        jobs.ended.connect(self._on_end)

    def add(self, streams: Mapping[BackgroundJob, Stream], run: PastRun) -> None:
        """Queue the jobs of a run, without those that are under way already.

        Raises :class:`RlnError` if all are.
        """
        fresh = [job for job in streams if not self._jobs.is_under_way(job)]
        self._jobs.add(*(fresh or streams))
        self._streams |= {job: (streams[job], run) for job in fresh}
        self._history.add(run)

    def take(self, result: FinishedResult) -> None:
        """Take the result of a job."""
        self.result_finished.emit(result)
        layer, run = result.stream.layer, result.run
        if isinstance(layer, Image):
            run.results.append(layer.name)
            run.layers.add(layer)
            self._history.update(run)

    def _on_report(self, job: BackgroundJob, update: Update) -> None:
        if job in self._streams and update.content is not None:
            stream, _ = self._streams[job]
            stream.update(update.content, update.due)

    def _on_end(self, job: BackgroundJob) -> None:
        _, run = self._streams.pop(job, (None, None))
        if run is None or any(other is run for _, other in self._streams.values()):
            return
        if run.results:  # after its last method they are arranged and compared
            self.run_finished.emit()
