"""Dock for deconvolution with RLD and RLN, and comparison of the results."""

import contextlib
import dataclasses
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtpy.QtWidgets import QCheckBox, QFormLayout, QGroupBox, QPushButton, QVBoxLayout, QWidget

from napari_rln.core.errors import RlnError
from napari_rln.core.record import Record
from napari_rln.core.volume import Volume
from napari_rln.deconvolution.shared import Shared
from napari_rln.engine.execution import Execution, Output
from napari_rln.engine.job import Job as DeconvolutionJob
from napari_rln.engine.job import SecondView as SecondViewOfJob
from napari_rln.gui.copy_button import CopyButton, Run
from napari_rln.gui.deconvolve.batch_window import BatchTask, BatchWindow
from napari_rln.gui.deconvolve.costs import Costs, needs_in_memory
from napari_rln.gui.deconvolve.method_list import ChosenMethod, Inputs, MethodList
from napari_rln.gui.deconvolve.ondisk import DiskResult, DiskResultStream, DiskRun
from napari_rln.gui.deconvolve.region import Region
from napari_rln.gui.deconvolve.result_destination import ResultDestination
from napari_rln.gui.deconvolve.results import Results
from napari_rln.gui.deconvolve.second_view import SecondViewChoice, ViewLayers
from napari_rln.gui.deconvolve.streams import ResultStream
from napari_rln.gui.deconvolve.study_window import StudyWindow
from napari_rln.gui.field_errors import FieldError
from napari_rln.gui.jobs import BackgroundJob, JobQueue, Update
from napari_rln.gui.layer_jobs import image_file, path_of, psf_file
from napari_rln.gui.layers import LayerImage, is_psf, is_raw
from napari_rln.gui.layouts import ScrollArea, fill
from napari_rln.gui.pickers import VolumePicker
from napari_rln.gui.runbar import RunBar

if TYPE_CHECKING:
    import napari


class DeconvolveDock(QWidget):
    """Image, PSF, region and methods; results are shown in layers during the computation."""

    def __init__(self, napari_viewer: "napari.viewer.Viewer") -> None:
        super().__init__()
        self._viewer = napari_viewer
        self.jobs = JobQueue(self)
        self.image = VolumePicker(napari_viewer, prefer=is_raw)
        self.psf = VolumePicker(napari_viewer, prefer=is_psf, optional="none")
        tip = "<p>Where needed: centre, background, hot pixels, voxel size.</p>"
        self.repair = QCheckBox("Repair the PSF", checked=True, toolTip=tip)
        self.second = SecondViewChoice(napari_viewer)
        self.region = Region(napari_viewer)
        self.destination = ResultDestination()
        self.methods = MethodList()
        self.results = Results(napari_viewer, self.jobs)
        self.bar = RunBar(self.jobs, self.run)
        self.results.bar = self.bar
        self.whole_button = QPushButton("Apply to whole volume")
        self.whole_button.setVisible(False)
        self.costs = Costs(self._plan)
        self.copy = CopyButton(self._jobs_to_copy, self.bar.attempt)
        self.bar.add_button(self.copy)
        self.batch = BatchWindow(napari_viewer, self.jobs, self._batch_task, self)
        self.batch_button = QPushButton("Batch\N{HORIZONTAL ELLIPSIS}")
        self.batch_button.setToolTip(
            "<p>Deconvolve many files, with all channels and time points, with the methods and the "
            "PSF of this dock.</p>"
        )
        self.batch_button.clicked.connect(self._open_batch)
        self.bar.add_button(self.batch_button)
        self.study = StudyWindow(self.jobs, self._study_inputs, self)
        self.study_button = QPushButton("Study\N{HORIZONTAL ELLIPSIS}")
        self.study_button.setToolTip(
            "<p>Compares these methods, and networks trained for it, on simulated images of the "
            "PSF, and says which to use.</p>"
        )
        self.study_button.clicked.connect(self._open_study)
        self.bar.add_button(self.study_button)
        self._streams: dict[BackgroundJob, ResultStream | DiskResultStream] = {}
        self._has_new_result = False  # since the last comparison
        self._lay_out()
        self.region.update_requested.connect(lambda: self.bar.attempt(self._update_region))
        self.region.changed.connect(lambda: self.whole_button.setVisible(not self.region.is_whole))
        self.whole_button.clicked.connect(self._run_whole)
        self.image.changed.connect(self._on_image)
        self._on_image()
        for changed in (
            self.image.changed, self.psf.changed, self.second.changed, self.region.changed,
            self.destination.changed, self.methods.changed,
        ):  # fmt: skip
            changed.connect(self.costs.refresh)
        self.jobs.reported.connect(self._on_report)
        self.jobs.ended.connect(self._on_end)

    def run(self) -> None:
        """Queue every ticked method.

        Raises :class:`RlnError` if image, PSF, region or methods are missing or not valid.
        """
        inputs, methods = self._inputs()
        views = self._views(inputs)
        streams: dict[BackgroundJob, ResultStream | DiskResultStream] = {}
        # An earlier method keeps the estimates that a later one needs.
        shared = Shared(mark for chosen in methods for mark in chosen.method.marks)
        for method in methods:
            job, stream = (
                self._job_on_disk(inputs, method)
                if self.on_disk
                else self._job_in_memory(inputs, views, method, shared)
            )
            streams[job] = stream
        self.region.fix_visible(self.image.source("the image"))
        fresh = [job for job in streams if not self.jobs.is_under_way(job)]
        self.jobs.add(*(fresh or streams))
        self._streams |= {job: streams[job] for job in fresh}

    def showEvent(self, event: Any) -> None:
        """Update the list of models, which may have changed."""
        self.methods.library_watcher.check()
        self.costs.refresh()
        super().showEvent(event)

    @property
    def on_disk(self) -> bool:
        """Whether results are written to disk; those of a region stay in memory."""
        return self.destination.on_disk and self.region.is_whole

    def _inputs(self) -> tuple[Inputs, list[ChosenMethod]]:
        """Return image, or the region of it, PSF and methods."""
        image = self.region.part_of(self.image.source("the image"))
        methods = self.methods.chosen()
        needed = self.psf.layer or any(method.needs_psf for method in methods)
        psf = self._psf(image) if needed else None
        return Inputs(image=image, psf=psf, repair=self.repair.isChecked()), methods

    def _batch_task(self) -> BatchTask:
        methods = self.methods.chosen()
        needed = self.psf.layer or any(method.needs_psf for method in methods)
        psf = self.psf.source("the PSF") if needed else None
        return BatchTask(
            methods=methods,
            psf=psf,
            repair=self.repair.isChecked(),
            output=self.destination.format.settings(),
            execution=self.destination.execution.settings(),
        )

    def _open_batch(self) -> None:
        if self.image.layer is not None:
            path = path_of(self.image.layer)
            if path.exists():
                self.batch.add(str(path))
        if self.destination.folder.line.text():
            self.batch.folder.suggest(Path(self.destination.folder.line.text()))
        self.batch.show()
        self.batch.raise_()

    def _study_inputs(self) -> tuple[LayerImage, list[ChosenMethod]]:
        return self.psf.source("the PSF"), self.methods.chosen()

    def _open_study(self) -> None:
        self.study.show()
        self.study.raise_()

    def _plan(self) -> dict[str, Callable[[], str]]:
        """Return functions that return what a method needs, by its name."""
        inputs, methods = self._inputs()
        views, image = self._views(inputs), inputs.image
        if self.on_disk:
            return {m.name: self._disk_run(inputs, m).needs for m in methods}
        size, shape, number = None, image.shape, 1  # size: of the PSF on the image's voxels
        if views is not None:
            size, shape, number = views.psf_shape(), views.result_shape(), 2
        elif inputs.psf is not None:
            size = inputs.psf.shape_on(image.voxel_um)
        return {m.name: partial(needs_in_memory, m, shape, size, number) for m in methods}

    def _jobs_to_copy(self) -> list[Run]:
        """Return a job for every method.

        Raises :class:`RlnError` if a file cannot provide the input.
        """
        inputs, methods = self._inputs()
        views, image, psf, repair = self._views(inputs), inputs.image, inputs.psf, inputs.repair
        if image.box is not None and views is None:
            raise RlnError(
                "a region is chosen but a job reads whole files; choose the whole volume."
            )
        file, second = image_file(image), None
        psfs = () if psf is None else (psf_file(psf, repair=repair),)
        if views is not None:
            other = image_file(views.second)
            if file.time != other.time:
                raise RlnError("a job reads one time point of both views; choose the same in both.")
            second = SecondViewOfJob(
                image=other, psf=psf_file(views.psf_second, repair=repair), views=views.settings
            )
        return [
            DeconvolutionJob(
                image=file,
                psfs=psfs,
                second=second,
                methods=(chosen.method,),
                output=self._output(image, chosen, second is not None),
                execution=self.destination.execution.settings() if self.on_disk else Execution(),
            )
            for chosen in methods
        ]

    def _output(self, image: LayerImage, chosen: ChosenMethod, dual: bool) -> Output:
        """Return the output of a copied job."""
        if self.on_disk:
            return self.destination.output(image, chosen.name)
        return Output(path=Path(f"{image.name} {'dual ' * dual}{chosen.name}.ome.tif"))

    def _views(self, inputs: Inputs) -> ViewLayers | None:
        """Return both views; None without a second."""
        if self.second.image.layer is None:
            return None
        image, psf = inputs.image, inputs.psf
        if psf is None:
            raise FieldError("two views need their PSFs; choose at least the first's.", self.psf)
        if self.second.image.layer is image.layer:
            raise FieldError(
                f"{image.name} is chosen as both views; choose another as the second.",
                self.second.image,
            )
        if image.data.ndim == 2:
            raise RlnError(f"{image.name} is a plane; two views must be stacks of one object.")
        image.check_upright()
        if not self.region.is_whole or self.destination.on_disk:
            raise RlnError(
                "two views are deconvolved whole and in memory; choose the whole volume, and a "
                "result in memory."
            )
        return self.second.views(image, psf)

    def _psf(self, image: LayerImage) -> LayerImage:
        if self.psf.layer is None:
            raise FieldError(
                "choose the PSF; the PSF dock loads, computes or measures one. Only networks that "
                "start from the image alone need none.",
                self.psf,
            )
        if self.psf.layer is image.layer:
            raise FieldError(
                f"{image.name} is chosen as the image and as the PSF; choose another layer.",
                self.psf,
            )
        return self.psf.source("the PSF")

    def _job_in_memory(
        self, inputs: Inputs, views: ViewLayers | None, method: ChosenMethod, shared: Shared
    ) -> tuple[BackgroundJob, ResultStream]:
        dual = "" if views is None else "dual "
        title = f"{inputs.image.name} \N{MIDDLE DOT} {dual}{method.name}"
        stream = ResultStream(self._viewer, inputs.image, title)
        if views is None:
            steps = partial(inputs.deconvolve, method, shared)
        else:
            steps = partial(views.deconvolve, method, inputs.repair)
        key = inputs.key, views and views.key, method

        def finish(result: Volume) -> None:
            stream.finish(result)
            assert result.record is not None
            self._has_new_result = True
            self.results.add_result(stream, result.record, inputs, shared)

        def stop(reason: str) -> None:
            name = " ".join([method.method.kind, *dual.split()])
            stream.stop(Record(method=name, settings=method.method.as_json()), reason)

        return BackgroundJob(title, steps, key=key, done=finish, stopped=stop), stream

    def _job_on_disk(
        self, inputs: Inputs, method: ChosenMethod
    ) -> tuple[BackgroundJob, DiskResultStream]:
        image = inputs.image
        image.check_upright()
        title = f"{image.name} \N{MIDDLE DOT} {method.name}"
        run = self._disk_run(inputs, method)
        sample = dataclasses.replace(inputs, image=self.region.sample(image))
        stream = DiskResultStream(self._viewer, image, title)

        def finish(result: DiskResult) -> None:
            stream.finish(result)
            self._has_new_result = True
            self.results.add_result(stream, result.record, sample)

        out = run.output.path
        job = BackgroundJob(
            title,
            run.deconvolve,
            key=(inputs.key, method, out),
            done=finish,
            stopped=lambda reason: stream.remove(),
            cancel_note=f"finished parts of {out.name} are kept, and Run continues it",
        )
        return job, stream

    def _disk_run(self, inputs: Inputs, method: ChosenMethod) -> DiskRun:
        return DiskRun(
            inputs=inputs,
            chosen=method,
            output=self._output(inputs.image, method, dual=False),
            execution=self.destination.execution.settings(),
            first=self.region.visible_box(inputs.image),
        )

    def _run_whole(self) -> None:
        self.region.choose_whole()
        self.bar.attempt(self.run)

    def _update_region(self) -> None:
        self.region.update_visible(self.image.source("the image"))

    def _on_image(self) -> None:
        with contextlib.suppress(RlnError):  # shown when the user runs it
            if self.image.layer is not None:
                self.destination.suggest_for(self.image.source("the image"))

    def _on_report(self, job: BackgroundJob, update: Update) -> None:
        if job in self._streams and update.content is not None:
            self._streams[job].update(update.content, update.due)

    def _on_end(self, job: BackgroundJob) -> None:
        self.costs.refresh()
        # After the last method the results are arranged and compared.
        if self._streams.pop(job, None) is None or self._streams or not self._has_new_result:
            return
        self._has_new_result = False
        self.results.arrange()
        self.bar.attempt(self.results.compare, clicked=False)

    def _lay_out(self) -> None:
        rows = fill(
            QFormLayout(),
            ("Image", self.image),
            ("PSF", self.psf),
            ("", self.repair),
            ("Second view", self.second),
            ("Region", self.region),
            ("Result", self.destination),
        )
        content, comparison = QWidget(), QGroupBox("Compare")
        fill(QVBoxLayout(comparison), self.results)
        parts = (rows, self.methods, self.costs, self.bar, self.whole_button, comparison)
        fill(QVBoxLayout(content), *parts).addStretch(1)
        fill(QVBoxLayout(self), ScrollArea(content), margin=0)
