"""Page for deconvolution: image, PSF, methods; results are shown during the computation."""

import contextlib
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import (
    QCheckBox,
    QFormLayout,
    QHBoxLayout,
    QLabel,
    QPushButton,
    QVBoxLayout,
    QWidget,
)

from napari_rln.core.errors import RlnError
from napari_rln.deconvolution.shared import Shared
from napari_rln.gui.copy_button import CopyButton, Run
from napari_rln.gui.deconvolve.autosave import Autosave
from napari_rln.gui.deconvolve.channels import Channels
from napari_rln.gui.deconvolve.chosen_inputs import ChosenInputs
from napari_rln.gui.deconvolve.chosen_method import ChosenMethod, Inputs
from napari_rln.gui.deconvolve.copied_jobs import jobs_of
from napari_rln.gui.deconvolve.costs import Costs, needs_in_memory
from napari_rln.gui.deconvolve.first_contact import FirstContact
from napari_rln.gui.deconvolve.history import History, PastRun
from napari_rln.gui.deconvolve.method_list import MethodList
from napari_rln.gui.deconvolve.ondisk import DiskRun
from napari_rln.gui.deconvolve.region import Region
from napari_rln.gui.deconvolve.result_destination import ResultDestination
from napari_rln.gui.deconvolve.run_jobs import Stream, job_in_memory, job_on_disk
from napari_rln.gui.deconvolve.runs import Runs
from napari_rln.gui.deconvolve.second_view import SecondViewChoice
from napari_rln.gui.deconvolve.session import Session
from napari_rln.gui.deconvolve.stated_psfs import StatedPsfs, is_offered
from napari_rln.gui.deconvolve.windows import WINDOWS, Windows
from napari_rln.gui.help_button import HelpButton
from napari_rln.gui.jobs import BackgroundJob, JobQueue
from napari_rln.gui.layers import is_raw
from napari_rln.gui.layouts import PAGE_MARGIN, Collapsible, ScrollArea, fill
from napari_rln.gui.pickers import VolumePicker
from napari_rln.gui.runbar import RunBar
from napari_rln.gui.slider_ranges import SliderRanges

if TYPE_CHECKING:
    import napari
    from napari.layers import Layer


class DeconvolvePage(QWidget):
    """Image, PSF and methods; results are shown in layers during the computation."""

    page_requested = Signal(str)

    def __init__(self, napari_viewer: "napari.viewer.Viewer") -> None:
        super().__init__()
        self._viewer = napari_viewer
        self.jobs = JobQueue(self)
        self.image = VolumePicker(napari_viewer, prefer=is_raw)
        self.psf = VolumePicker(napari_viewer, prefer=is_offered, optional="none", of_psf=True)
        self.psf.setToolTip("<p>Choose the layer of the PSF, or drop its file here.</p>")
        self.channels = Channels(napari_viewer)
        self.stated = StatedPsfs(napari_viewer, self.image, self.psf)
        self._slider_ranges = SliderRanges(napari_viewer, self)
        tip = (
            "<p>Correct its centre, background, hot pixels and voxel size, where needed. Untick it "
            "to use the PSF as it is.</p>"
        )
        self.repair = QCheckBox("Repair the PSF", checked=True, toolTip=tip)
        self.second = SecondViewChoice(napari_viewer)
        self.region = Region(napari_viewer)
        self.destination = ResultDestination()
        self.autosave = Autosave()
        self.methods = MethodList()
        self.session = Session(self.methods, self.repair, self.autosave)
        self.history = History(napari_viewer)
        self.bar = RunBar(self.jobs, self.run, others=WINDOWS)
        self.whole_button = QPushButton("Run on the whole image")
        self.whole_button.setVisible(False)
        self.costs = Costs(self._plan)
        self.verdicts = QLabel(wordWrap=True, textFormat=Qt.TextFormat.RichText)
        self._verdicts_on: WeakKeyDictionary[Layer, str] = WeakKeyDictionary()  # by image
        self.compare_button = QPushButton("Show the comparison")
        self.copy = CopyButton(self._jobs_to_copy, self.bar)
        self.inputs = ChosenInputs(
            viewer=napari_viewer, image=self.image, psf=self.psf, channels=self.channels,
            stated=self.stated, repair=self.repair, region=self.region, second=self.second,
            destination=self.destination,
        )  # fmt: skip
        self.runs = Runs(self.jobs, self.history)
        self.windows = Windows(napari_viewer, self.jobs, self.inputs, self.methods.chosen)
        self._lay_out()
        self._connect()
        self.image.changed.emit()

    def run(self) -> None:
        """Queue every ticked method, for every chosen channel.

        Raises :class:`RlnError` if image, PSF, region or methods are missing or not valid.
        """
        methods = self.methods.chosen()
        inputs = self.inputs.of(methods)
        run = self._past_run(inputs)
        # All channels by one method, then by the next: the layers of a panel follow each other.
        of_channels = [self._jobs_of(each, methods, run) for each in inputs]
        streams = dict(pair for pairs in zip(*of_channels, strict=True) for pair in pairs)
        self.region.fix_visible(self.image.source("the image"))
        self.runs.add(streams, run)
        assert self.image.layer is not None
        self._take_verdicts("", run)
        self.session.store(self.image.layer, run.methods)

    def show_verdicts(self, text: str, found: Mapping[str, str], run: PastRun) -> None:
        """Show the verdicts on the images of a run, as rich text; the history keeps its own."""
        self._take_verdicts(text, run)
        run.take_verdicts(found)
        self.history.update(run)

    def stop(self) -> None:
        """Leave the sliders as they were; what is still running has nowhere to be compared."""
        self.runs.result_finished.disconnect()
        self.runs.run_finished.disconnect()
        self._slider_ranges.stop()

    def showEvent(self, event: Any) -> None:
        """Update the list of models, which may have changed."""
        self.methods.library_watcher.check()
        self.costs.refresh()
        super().showEvent(event)

    def _jobs_of(
        self, inputs: Inputs, methods: list[ChosenMethod], run: PastRun
    ) -> list[tuple[BackgroundJob, Stream]]:
        """Return the jobs of all methods on one image in a run, with their layers."""
        views = self.inputs.views(inputs)
        if self.inputs.on_disk:
            sample, shared = self.region.sample(inputs.image), Shared()
            disks = [self._disk_run(inputs, method, shared) for method in methods]
            return [job_on_disk(self._viewer, d, sample, run, self.runs.take) for d in disks]
        # An earlier method keeps the estimates that a later one needs.
        shared = Shared(mark for chosen in methods for mark in chosen.method.marks)
        folder = self.autosave.folder_of(inputs.image)
        return [
            job_in_memory(
                self._viewer, inputs, views, method, shared, run, self.runs.take,
                folder=folder, is_last=method is methods[-1],
            )
            for method in methods
        ]  # fmt: skip

    def _disk_run(self, inputs: Inputs, method: ChosenMethod, shared: Shared) -> DiskRun:
        return DiskRun(
            inputs=inputs,
            chosen=method,
            output=self.destination.output(inputs.image, method.name),
            execution=self.destination.execution.settings(),
            shared=shared,
            first=self.region.visible_box(inputs.image),
        )

    def _plan(self) -> dict[str, Callable[[], str]]:
        """Return functions that return what a method needs, by its description."""
        methods = self.methods.chosen()
        inputs = self.inputs.of(methods)[0]
        views, image = self.inputs.views(inputs), inputs.image
        if self.inputs.on_disk:
            return {m.described: self._disk_run(inputs, m, Shared()).needs for m in methods}
        size, shape, number = None, image.shape, 1  # size: of the PSF on the image's voxels
        if views is not None:
            size, shape, number = views.psf_shape(), views.result_shape(), 2
        elif inputs.psf is not None:
            size = inputs.psf.shape_on(image.voxel_um)
        return {m.described: partial(needs_in_memory, m, shape, size, number) for m in methods}

    def _jobs_to_copy(self) -> list[Run]:
        """Return a job for every channel and method; see :func:`jobs_of` for errors."""
        methods = self.methods.chosen()
        return [
            job
            for inputs in self.inputs.of(methods)
            for job in jobs_of(
                inputs,
                self.inputs.views(inputs),
                methods,
                self.destination,
                on_disk=self.inputs.on_disk,
            )
        ]

    def _run_whole(self) -> None:
        self.region.choose_whole()
        self.bar.attempt(self.run)

    def _update_region(self) -> None:
        self.region.update_visible(self.image.source("the image"))

    def _past_run(self, inputs: list[Inputs]) -> PastRun:
        psf = inputs[0].psf
        run = PastRun(
            image=inputs[0].image.layer.name,
            psf="" if psf is None else psf.name,
            methods=self.methods.state(),
        )
        run.images.update(each.image.layer for each in inputs)
        return run

    def _use(self, run: PastRun) -> None:
        """Set the methods as in an earlier run."""
        self.bar.attempt(lambda: self.methods.restore(run.methods))

    def _take_verdicts(self, text: str, run: PastRun) -> None:
        self._verdicts_on.update(dict.fromkeys(run.images, text))
        self._show_verdicts()

    def _show_verdicts(self) -> None:
        """Show the verdicts on the chosen image, and not those on another one."""
        layer = self.image.layer
        text = "" if layer is None else self._verdicts_on.get(layer, "")
        self.verdicts.setText(text)
        self.verdicts.setVisible(bool(text))
        self.compare_button.setVisible(bool(text))

    def _on_image(self) -> None:
        layer = self.image.layer
        self._show_verdicts()
        self.channels.show_for(layer)
        if layer is not None:
            self.session.show_for(layer)
        with contextlib.suppress(RlnError):  # shown when the user runs it
            if layer is not None:
                self.destination.suggest_for(self.image.source("the image"))

    def _on_end(self) -> None:
        self.costs.refresh()
        self.stated.refresh()

    def _connect(self) -> None:
        self.region.update_requested.connect(lambda: self.bar.attempt(self._update_region))
        self.region.changed.connect(lambda: self.whole_button.setVisible(not self.region.is_whole))
        self.whole_button.clicked.connect(self._run_whole)
        self.image.changed.connect(self._on_image)
        for changed in (
            self.image.changed, self.psf.changed, self.second.changed, self.region.changed,
            self.destination.changed, self.methods.changed, self.channels.changed,
        ):  # fmt: skip
            changed.connect(self.costs.refresh)
            changed.connect(self.bar.forget_refusal)
        self.image.changed.connect(self.bar.forget)
        self.stated.page_requested.connect(self.page_requested)
        self.compare_button.clicked.connect(lambda: self.page_requested.emit("Compare"))
        self.history.use_requested.connect(self._use)
        self.jobs.ended.connect(self._on_end)

    def _lay_out(self) -> None:
        help_button, top = HelpButton("napari", "deconvolve"), Qt.AlignmentFlag.AlignTop
        rows = fill(
            QFormLayout(),
            ("Image", fill(QHBoxLayout(), (self.image, 1), (help_button, 0, top), spacing=2)),
            ("PSF", self.psf),
            self.stated,
            self.channels,
            margin=0,
        )
        rare, content = QWidget(), QWidget()
        others = fill(
            QFormLayout(),
            self.repair,
            ("Region", self.region),
            ("Result", self.destination),
            self.destination.advanced,
            self.autosave,
            ("Second view", self.second),
            margin=0,
        )
        tools = fill(QHBoxLayout(), self.copy, self.windows)
        fill(QVBoxLayout(rare), others, tools, self.history, margin=0)
        more = Collapsible("More: region, files, batch, history", rare)
        parts = (
            FirstContact(self._viewer), rows, self.methods, self.costs, self.bar,
            self.whole_button, self.verdicts, self.compare_button, more,
        )  # fmt: skip
        fill(QVBoxLayout(content), *parts, margin=PAGE_MARGIN).addStretch(1)
        fill(QVBoxLayout(self), ScrollArea(content), margin=0)
