"""Preview of a synthetic pair, updated as the structures change."""

from qtpy.QtCore import QObject, QTimer

from napari_rln.gui import preferences
from napari_rln.gui.jobs import BackgroundJob, JobQueue, one_step
from napari_rln.gui.runbar import RunBar
from napari_rln.gui.training.example_layers import ExampleLayers
from napari_rln.gui.training.training_form import TrainingForm

_TITLE = "preview"
_WAIT_MS = 400  # from a change to the update, as more may follow


class PairPreview(QObject):
    """Simulates pairs in a thread by the form of a training, and shows them as layers."""

    def __init__(self, form: TrainingForm, examples: ExampleLayers, bar: RunBar) -> None:
        super().__init__(form)
        self._form, self._examples, self._bar = form, examples, bar
        self.jobs = JobQueue(self)
        self._number = 0
        self._timer = QTimer(self, singleShot=True, interval=_WAIT_MS)
        self._timer.timeout.connect(lambda: bar.attempt(self._add, clicked=False))
        form.preview_button.clicked.connect(self._draw)
        form.another_button.clicked.connect(self._draw_another)
        form.structures.changed.connect(self._on_change)
        self.jobs.changed.connect(self._refresh)
        self.jobs.failed.connect(bar.show_failure)

    def _on_change(self) -> None:
        if self._examples.has_pair:
            self._timer.start()

    def _draw_another(self) -> None:
        self._number += 1
        self._draw()

    def _draw(self) -> None:
        self._bar.attempt(self._add)

    def _add(self) -> None:
        plan, library, number = self._form.plan(), preferences.library(), self._number
        steps = one_step("drawing", lambda: plan.training_set(library).source.pair(number)[0])
        self.jobs.cancel()  # an earlier preview is outdated
        self.jobs.add(BackgroundJob(_TITLE, steps, key=object(), done=self._examples.show_pair))

    def _refresh(self) -> None:
        drawing = self.jobs.running is not None
        ready = "Preview a pair" if not drawing else "Drawing a pair\N{HORIZONTAL ELLIPSIS}"
        self._form.preview_button.setText(ready)
        self._form.another_button.setEnabled(self._examples.has_pair)
