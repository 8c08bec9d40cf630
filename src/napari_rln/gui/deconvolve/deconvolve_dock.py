"""The dock that runs RLD and RLN on an image and sets them side by side."""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtpy.QtWidgets import (
    QCheckBox,
    QFormLayout,
    QGroupBox,
    QPushButton,
    QVBoxLayout,
    QWidget,
)

from napari_rln.core.errors import RlnError
from napari_rln.core.record import Record
from napari_rln.core.volume import Volume
from napari_rln.deconvolution.shared import Shared
from napari_rln.engine.execution import Execution, Output
from napari_rln.engine.job import Job as DeconvolutionJob
from napari_rln.engine.job import SecondView as SecondViewOfJob
from napari_rln.gui.copy_button import CopyButton, Run
from napari_rln.gui.deconvolve.batch_window import BatchTask, BatchWindow
from napari_rln.gui.deconvolve.costs import Costs, PlannedMethods, needs_in_memory
from napari_rln.gui.deconvolve.method_list import ChosenMethod, MethodList, deconvolved
from napari_rln.gui.deconvolve.ondisk import Growing, Stored, needs_on_disk, stored
from napari_rln.gui.deconvolve.region import Region
from napari_rln.gui.deconvolve.result_place import ResultPlace
from napari_rln.gui.deconvolve.results import Results
from napari_rln.gui.deconvolve.second_view import SecondViewChoice, ViewLayers
from napari_rln.gui.deconvolve.streams import ResultStream
from napari_rln.gui.field_errors import FieldError
from napari_rln.gui.jobs import BackgroundJob, JobQueue, Update
from napari_rln.gui.layer_jobs import image_file, path_of, psf_file
from napari_rln.gui.layers import LayerImage, is_psf, is_raw
from napari_rln.gui.pickers import VolumePicker
from napari_rln.gui.runbar import RunBar
from napari_rln.gui.scroll_area import ScrollArea

if TYPE_CHECKING:
    import napari


class DeconvolveDock(QWidget):
    """Image, PSF, region and methods; what comes of them streams into layers."""

    def __init__(self, napari_viewer: "napari.viewer.Viewer") -> None:
        super().__init__()
        self._viewer = napari_viewer
        self.jobs = JobQueue(self)
        self.image = VolumePicker(napari_viewer, prefer=is_raw)
        self.psf = VolumePicker(napari_viewer, prefer=is_psf, optional="none")
        self.repair = QCheckBox("Repair the PSF")
        self.repair.setChecked(True)
        self.repair.setToolTip(
            "<p>Centre, background, hot pixels, voxel size, as far as needed.</p>"
        )
        self.second = SecondViewChoice(napari_viewer)
        self.region = Region(napari_viewer)
        self.place = ResultPlace()
        self.methods = MethodList()
        self.results = Results(napari_viewer, self.jobs)
        self.bar = RunBar(self.jobs, self.run)
        self.results.bar = self.bar
        self.whole_button = QPushButton("Apply to whole volume")
        self.whole_button.setVisible(False)
        self.costs = Costs(self._plan)
        self.copy = CopyButton(self._described, self.bar.attempt)
        self.bar.add_button(self.copy)
        self.batch = BatchWindow(napari_viewer, self.jobs, self._task, self.place, self)
        self.batch_button = QPushButton("Batch\N{HORIZONTAL ELLIPSIS}")
        self.batch_button.setToolTip(
            "<p>Hand files, all their channels and time points, to the batch runner, with the "
            "methods and the PSF of this dock.</p>"
        )
        self.batch_button.clicked.connect(self._open_batch)
        self.bar.add_button(self.batch_button)
        self._streams: dict[BackgroundJob, ResultStream | Growing] = {}
        self._arrived = False  # whether there is a result that was not compared yet
        self._lay_out()
        self.region.taken_anew.connect(lambda: self.bar.attempt(self._hold_anew))
        self.region.changed.connect(lambda: self.whole_button.setVisible(not self.region.is_whole))
        self.whole_button.clicked.connect(self._run_whole)
        self.image.changed.connect(self._on_image)
        self._on_image()
        for changed in (
            self.image.changed, self.psf.changed, self.second.changed, self.region.changed,
            self.place.changed, self.methods.changed,
        ):  # fmt: skip
            changed.connect(self.costs.refresh)
        self.jobs.reported.connect(self._on_report)
        self.jobs.ended.connect(self._on_end)

    def run(self) -> None:
        """Queue every ticked method.

        Raises
        ------
        RlnError
            If image, PSF, region or methods cannot be.
        """
        image, psf, methods = self._given()
        repair, views = self.repair.isChecked(), self._views(image, psf)
        streams: dict[BackgroundJob, ResultStream | Growing] = {}
        shared = Shared()
        for method in methods:
            made: tuple[BackgroundJob, ResultStream | Growing] = (
                self._job_on_disk(image, psf, method, repair)
                if self.on_disk
                else self._job(image, psf, views, method, repair, shared)
            )
            streams[made[0]] = made[1]
        self.region.hold(self.image.source("the image"))
        fresh = [job for job in streams if not self.jobs.is_under_way(job)]
        self.jobs.add(*(fresh or streams))
        self._streams |= {job: streams[job] for job in fresh}

    def showEvent(self, event: Any) -> None:
        """Look again which models there are: they may have been trained meanwhile."""
        self.methods.watch.check()
        self.costs.refresh()
        super().showEvent(event)

    @property
    def on_disk(self) -> bool:
        """Whether results are written to disk; those of a part are in memory."""
        return self.place.on_disk and self.region.is_whole

    def _given(self) -> tuple[LayerImage, LayerImage | None, list[ChosenMethod]]:
        image = self.region.of(self.image.source("the image"))
        methods = self.methods.chosen()
        needed = any(method.needs_psf for method in methods)
        return image, self._psf(image) if needed or self.psf.layer else None, methods

    def _task(self) -> BatchTask:
        """Return what a batch is to do."""
        methods = self.methods.chosen()
        needed = self.psf.layer or any(method.needs_psf for method in methods)
        psf = self.psf.source("the PSF") if needed else None
        return BatchTask(methods=methods, psf=psf, repair=self.repair.isChecked())

    def _open_batch(self) -> None:
        if self.image.layer is not None:
            path = path_of(self.image.layer)
            if path.exists():
                self.batch.add(str(path))
        if self.place.folder.line.text():
            self.batch.folder.suggest(Path(self.place.folder.line.text()))
        self.batch.show()
        self.batch.raise_()

    def _plan(self) -> PlannedMethods:
        """Return what would be run now; the PSF as large as it is on the image's voxels."""
        image, psf, methods = self._given()
        views = self._views(image, psf)
        if views is not None and psf is not None:
            shape, kernel = views.shape(), views.kernel()

            def of_views(method: ChosenMethod) -> str:
                return f"{needs_in_memory(method, shape, kernel, times=2)}, once registered"

            return PlannedMethods(methods, image.shape, None, of_views)
        if self.on_disk:
            repair, execution = self.repair.isChecked(), self.place.run_by()
            outputs = {m.name: self.place.output(self.place.result(image, m.name)) for m in methods}

            def on_disk(method: ChosenMethod) -> str:
                return needs_on_disk(image, psf, method, repair, outputs[method.name], execution)

            return PlannedMethods(methods, image.shape, None, on_disk)
        if psf is None:
            return PlannedMethods(methods, image.shape, None)
        sizes = zip(psf.shape, psf.voxel_um, image.voxel_um, strict=True)
        z, y, x = (max(1, round(n * of / on)) for n, of, on in sizes)
        return PlannedMethods(methods, image.shape, (z, y, x))

    def _described(self) -> list[Run]:
        """Return what would be run now as jobs, one for each method."""
        image, psf, methods = self._given()
        repair, views = self.repair.isChecked(), self._views(image, psf)
        if image.box is not None and views is None:
            raise RlnError("a region is chosen; a job reads whole files: choose the whole.")
        file, second = image_file(image), None
        psfs = () if psf is None else (psf_file(psf, repair=repair),)
        if views is not None:
            other = image_file(views.second)
            if file.time != other.time:
                raise RlnError("a job reads one time point of both views; choose the same.")
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
                execution=self.place.run_by() if self.on_disk else Execution(),
            )
            for chosen in methods
        ]

    def _output(self, image: LayerImage, chosen: ChosenMethod, dual: bool) -> Output:
        """Return where the result of a copied job goes."""
        if self.on_disk:
            return self.place.output(self.place.result(image, chosen.name))
        return Output(path=Path(f"{image.name} {'dual ' * dual}{chosen.name}.ome.tif"))

    def _views(self, image: LayerImage, psf: LayerImage | None) -> ViewLayers | None:
        """Return both views; none where there is no second."""
        if self.second.image.layer is None:
            return None
        if psf is None:
            raise FieldError("two views need their PSFs; choose the first's, at least.", self.psf)
        if self.second.image.layer is image.layer:
            raise FieldError(
                f"{image.name} is chosen as both views; choose another as the second.",
                self.second.image,
            )
        if image.data.ndim == 2:
            raise RlnError(f"{image.name} is a plane; two views are stacks of one object.")
        image.check_upright()
        if not self.region.is_whole or self.place.on_disk:
            raise RlnError(
                "two views are deconvolved whole and in memory; choose the whole volume, and the "
                "result in memory."
            )
        return self.second.given(image, psf)

    def _psf(self, image: LayerImage) -> LayerImage:
        if self.psf.layer is None:
            raise FieldError(
                "choose the PSF; the dock PSF loads, computes or measures one. Only models of the "
                "paper's variant do without.",
                self.psf,
            )
        if self.psf.layer is image.layer:
            raise FieldError(
                f"{image.name} is chosen as the image and as the PSF; choose another.", self.psf
            )
        return self.psf.source("the PSF")

    def _job(
        self,
        image: LayerImage,
        psf: LayerImage | None,
        views: ViewLayers | None,
        method: ChosenMethod,
        repair: bool,
        shared: Shared,
    ) -> tuple[BackgroundJob, ResultStream]:
        dual = "" if views is None else "dual "
        title = f"{image.name} \N{MIDDLE DOT} {dual}{method.name}"
        stream = ResultStream(self._viewer, image, title)
        if views is None:
            steps = partial(deconvolved, image, psf, method, repair, shared)
        else:
            steps = partial(views.steps, method, repair)
        key = (views or image).key, psf and psf.key, repair, method

        def finish(result: Volume) -> None:
            stream.finish(result)
            assert result.record is not None
            self._arrived = True
            self.results.arrived(stream, result.record, image, psf, repair, shared)

        def leave(why: str) -> None:
            name = " ".join([method.method.kind, *dual.split()])
            stream.leave(Record(method=name, settings=method.method.as_json()), why)

        return BackgroundJob(title, steps, key=key, done=finish, left=leave), stream

    def _job_on_disk(
        self, image: LayerImage, psf: LayerImage | None, method: ChosenMethod, repair: bool
    ) -> tuple[BackgroundJob, Growing]:
        image.check_upright()
        title = f"{image.name} \N{MIDDLE DOT} {method.name}"
        out = self.place.result(image, method.name)
        output, execution = self.place.output(out), self.place.run_by()
        first = self.region.seen_now(image)
        sample = self.region.sample(image)
        stream = Growing(self._viewer, image, title)

        def finish(result: Stored) -> None:
            stream.finish(result)
            self._arrived = True
            self.results.arrived(stream, result.record, sample, psf, repair)

        job = BackgroundJob(
            title,
            lambda: stored(image, psf, method, repair, output, execution, first),
            key=(image.key, psf and psf.key, repair, method, out),
            done=finish,
            left=lambda why: stream.leave(),
            kept=f"what is finished of {out.name} stays there, and Run goes on with it",
        )
        return job, stream

    def _run_whole(self) -> None:
        self.region.choose_whole()
        self.bar.attempt(self.run)

    def _hold_anew(self) -> None:
        self.region.hold_anew(self.image.source("the image"))

    def _on_image(self) -> None:
        try:
            self.place.follow(self.image.source("the image") if self.image.layer else None)
        except RlnError:  # it is said when it is run
            self.place.follow(None)

    def _on_report(self, job: BackgroundJob, update: Update) -> None:
        if job in self._streams and update.content is not None:
            self._streams[job].take(update.content, update.due)

    def _on_end(self, job: BackgroundJob) -> None:
        self.costs.refresh()  # while something runs this machine is not measured
        # After the last method the results are set side by side and compared.
        if self._streams.pop(job, None) is None or self._streams or not self._arrived:
            return
        self._arrived = False
        self.results.arrange()
        self.bar.attempt(self.results.compare, asked=False)

    def _lay_out(self) -> None:
        inside = QWidget()
        layout = QVBoxLayout(inside)
        rows = QFormLayout()
        rows.addRow("Image", self.image)
        rows.addRow("PSF", self.psf)
        rows.addRow("", self.repair)
        rows.addRow("Second view", self.second)
        rows.addRow("Region", self.region)
        rows.addRow("Result", self.place)
        layout.addLayout(rows)
        layout.addWidget(self.methods)
        layout.addWidget(self.costs)
        layout.addWidget(self.bar)
        layout.addWidget(self.whole_button)
        compared = QGroupBox("Compare")
        QVBoxLayout(compared).addWidget(self.results)
        layout.addWidget(compared)
        layout.addStretch(1)
        whole = QVBoxLayout(self)
        whole.setContentsMargins(0, 0, 0, 0)
        whole.addWidget(ScrollArea(inside))
