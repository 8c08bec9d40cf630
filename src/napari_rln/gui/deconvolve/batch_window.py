"""Window for the deconvolution of many images with the settings of the dock."""

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from napari.components import ViewerModel
from qtpy.QtCore import Qt
from qtpy.QtWidgets import (
    QAbstractItemView,
    QDialog,
    QFileDialog,
    QHBoxLayout,
    QHeaderView,
    QLabel,
    QListWidget,
    QProgressBar,
    QPushButton,
    QTableWidget,
    QTableWidgetItem,
    QVBoxLayout,
    QWidget,
)

from napari_rln.core.errors import RlnError
from napari_rln.deconvolution.method import Method as DeconvolutionMethod
from napari_rln.engine.execution import Execution, OutputFormat, Overwrite
from napari_rln.engine.progress import Progress, progress_of
from napari_rln.engine.reports import BatchReport
from napari_rln.gui import preferences
from napari_rln.gui.deconvolve.chosen_method import ChosenMethod
from napari_rln.gui.deconvolve.ondisk import fit_psf_to
from napari_rln.gui.deconvolve.result_destination import FolderField, file_name
from napari_rln.gui.forms import Form, with_labels
from napari_rln.gui.help_button import HelpButton
from napari_rln.gui.jobs import BackgroundJob, JobQueue, Steps, Update, streamed
from napari_rln.gui.layers import LayerImage
from napari_rln.gui.layouts import fill
from napari_rln.gui.runbar import RunBar
from napari_rln.psf.from_optics import GivenOptics

# Modules that import Zarr are imported where they are used: napari opens the dock faster.
if TYPE_CHECKING:
    from napari_rln.engine.reports import BatchItem, ItemOutcome

BATCH = "batch"
"""Shows the progress of these jobs, as the page Deconvolve does."""

_FORMATS = {"ome.zarr": "OME-Zarr", "ome.tif": "OME-TIFF"}
_FILES = "Images and tables (*.tif *.tiff *.lsm *.czi *.lif *.nd2 *.oib *.oif *.csv);;All files (*)"
_MISSING = {"error": "refuse the image", "mask": "leave out", "zero": "take as zeros"}
_COLUMNS = ("Image", "Method", "Progress", "State")
_STATE = 3
_OPEN = Qt.ItemDataRole.UserRole  # data role of a row's state: whether it is unfinished


@dataclass(frozen=True, kw_only=True)
class BatchTask:
    """Methods, PSF and options of a batch."""

    methods: Sequence[ChosenMethod]
    psf: LayerImage | None
    repair: bool
    output: OutputFormat
    execution: Execution


@dataclass(frozen=True, kw_only=True)
class BatchOptions:
    """Options that are chosen in the window.

    Parameters
    ----------
    ending
        File format of the results. Choose ``ome.tif`` for programs that do not read OME-Zarr.
    missing
        What becomes of an image that lacks planes or chunks, since its copy or acquisition ended
        early. Choose ``mask`` where they were not measured, ``zero`` where they are zeros.
    overwrite
        Replace existing results, such as those with another number of iterations. Tick it only if
        they are not needed any more.
    """

    ending: Annotated[Literal["ome.zarr", "ome.tif"], {"label": "Format", "words": _FORMATS}] = (
        "ome.zarr"
    )
    missing: Annotated[
        Literal["error", "mask", "zero"], {"label": "Missing parts", "words": _MISSING}
    ] = "error"
    overwrite: Overwrite = False


class BatchWindow(QDialog):
    """List of images, and a table of their results and progress; ``task`` reads the dock."""

    def __init__(
        self, viewer: ViewerModel, jobs: JobQueue, task: Callable[[], BatchTask], parent: QWidget
    ) -> None:
        super().__init__(parent, windowTitle="Batch")
        self.resize(760, 520)
        self._viewer, self._jobs, self._task = viewer, jobs, task
        tip = (
            "<p>Files with all their channels and time points, folders of files, and tables (.csv) "
            "with the column image and the optional columns psf, model, channel, time, voxel_um, "
            "psf_voxel_um and out. Add them with the buttons.</p>"
        )
        extended = QAbstractItemView.SelectionMode.ExtendedSelection
        self.inputs = QListWidget(selectionMode=extended, toolTip=tip)
        self.folder = FolderField()
        self.options = Form(BatchOptions, top=("ending", "missing", "overwrite"))
        self.table = QTableWidget(0, len(_COLUMNS))
        self.table.setHorizontalHeaderLabels(_COLUMNS)
        self.table.setEditTriggers(QTableWidget.EditTrigger.NoEditTriggers)
        self.table.setSelectionBehavior(QTableWidget.SelectionBehavior.SelectRows)
        self.table.verticalHeader().setVisible(False)
        header = self.table.horizontalHeader()
        header.setSectionResizeMode(QHeaderView.ResizeMode.ResizeToContents)
        header.setSectionResizeMode(len(_COLUMNS) - 1, QHeaderView.ResizeMode.Stretch)
        self.bar = RunBar(jobs, self.run, label="Run batch", window=BATCH)
        self._rows: dict[Path, int] = {}  # by path of the result
        self._methods: dict[BackgroundJob, ChosenMethod] = {}
        self._lay_out()
        jobs.reported.connect(self._on_report)
        jobs.ended.connect(self._on_end)

    def add(self, *paths: str) -> None:
        """Add files or folders that are not listed yet."""
        listed = self._paths()
        self.inputs.addItems([path for path in paths if path and path not in listed])

    def run(self) -> None:
        """Queue a batch for every ticked method.

        Raises :class:`RlnError` if there are no images, or methods, PSF or folder are not valid.
        """
        task, paths = self._task(), self._paths()
        if not paths:
            raise RlnError("add the images first: files, folders, or a table (.csv).")
        options, folder = self.options.settings(), self.folder.path()
        again = "replaces them too, as the box above says" if options.overwrite else "continues it"
        jobs: dict[BackgroundJob, ChosenMethod] = {}
        for method in task.methods:
            job = BackgroundJob(
                f"batch {method.name}",
                partial(_batch, paths, method, task, folder, options),
                key=(
                    *paths,
                    folder,
                    options.ending,
                    method,
                    task.repair,
                    task.psf and task.psf.key,
                ),
                cancel_note=f"finished results are kept, and Run batch {again}",
                end_note=f"Finished: the results of {method.name} are in {folder}.",
                window=BATCH,
            )
            jobs[job] = method
        if not self._methods:  # else the rows are of a running batch
            self.table.setRowCount(0)
            self._rows.clear()
        self._jobs.add(*jobs)
        self._methods |= jobs

    def open_selected(self) -> None:
        """Show the finished results of selected rows; raise a :class:`RlnError` without any."""
        rows = {index.row() for index in self.table.selectedIndexes()}
        finished = [out for out, row in self._rows.items() if row in rows and out.exists()]
        if not finished:
            raise RlnError("select rows of finished images.")
        for out in finished:
            self._viewer.open(str(out), plugin="napari-rln")

    def _paths(self) -> list[str]:
        return [self.inputs.item(i).text() for i in range(self.inputs.count())]

    def _on_report(self, job: BackgroundJob, update: Update) -> None:
        method, content = self._methods.get(job), update.content
        if method is None:
            return
        if isinstance(content, list):
            for item in content:
                self._add_row(item, method)
        elif isinstance(content, BatchReport):
            self._show(content)

    def _on_end(self, job: BackgroundJob) -> None:
        if self._methods.pop(job, None) is None or self._methods:
            return
        for row in self._rows.values():  # of a cancelled batch
            if self.table.item(row, _STATE).data(_OPEN):
                self._set(row, "cancelled", 0, 1)

    def _add_row(self, item: "BatchItem", method: ChosenMethod) -> None:
        row = self._rows.setdefault(item.out, self.table.rowCount())
        if row == self.table.rowCount():
            self.table.insertRow(row)
        self.table.setCellWidget(row, _STATE - 1, QProgressBar(textVisible=False))
        for column, text in ((0, item.label), (1, method.name), (_STATE, "")):
            cell = QTableWidgetItem(text)
            cell.setToolTip(str(item.out if column else item.job.image.path))
            self.table.setItem(row, column, cell)
        self._set(row, "waiting", 0, 1, is_open=True)

    def _show(self, report: BatchReport) -> None:
        row = self._rows.get(report.item.out)
        if row is None:
            return
        outcome = report.outcome
        if outcome is not None:
            chi2 = outcome.summary.get("chi2")
            quality = f", \N{GREEK SMALL LETTER CHI}\N{SUPERSCRIPT TWO} {chi2:.3g}" if chi2 else ""
            text = outcome.error or f"{outcome.status}, {outcome.seconds:.0f} s{quality}"
            self._set(row, ". ".join([text, *outcome.warnings]), 0 if outcome.error else 1, 1)
        elif report.inner is not None:
            progress = progress_of(report.inner)
            self._set(row, progress.activity, progress.done, progress.total, is_open=True)

    def _set(self, row: int, text: str, done: int, total: int, *, is_open: bool = False) -> None:
        bar: Any = self.table.cellWidget(row, _STATE - 1)
        bar.setRange(0, total)
        bar.setValue(done)
        cell = self.table.item(row, _STATE)
        text = with_labels(text)
        cell.setText(text)
        cell.setToolTip(f"<p>{text}</p>")
        cell.setData(_OPEN, is_open)
        if not is_open:
            self.table.resizeRowToContents(row)  # a reason and what to do may be long

    def _lay_out(self) -> None:
        buttons = fill(
            QVBoxLayout(),
            QPushButton("Add files\N{HORIZONTAL ELLIPSIS}", clicked=self._add_files),
            QPushButton("Add folder\N{HORIZONTAL ELLIPSIS}", clicked=self._add_folder),
            QPushButton("Remove", clicked=self._remove),
        )
        buttons.addStretch(1)
        show = QPushButton("Open results")
        show.clicked.connect(lambda: self.bar.attempt(self.open_selected))
        self.bar.add_button(show)
        above = fill(QHBoxLayout(), (self.inputs, 1), buttons)
        self.options.add_row("Results in", self.folder, before="ending")
        note = QLabel(
            "Methods, PSF, bit depth, tiles and memory are those of the page Deconvolve. Without a "
            "PSF there, that of each image is computed from the optics that its file states.",
            wordWrap=True,
        )
        top = fill(QHBoxLayout(), (note, 1), HelpButton("scale", "many-images"))
        fill(QVBoxLayout(self), top, (above, 1), self.options, (self.table, 2), self.bar)

    def _add_files(self) -> None:
        paths, _ = QFileDialog.getOpenFileNames(self, "Images", "", _FILES)
        self.add(*paths)

    def _add_folder(self) -> None:
        self.add(QFileDialog.getExistingDirectory(self, "Folder of images, or OME-Zarr"))

    def _remove(self) -> None:
        for item in self.inputs.selectedItems():
            self.inputs.takeItem(self.inputs.row(item))


def _batch(
    inputs: list[str],
    chosen: ChosenMethod,
    task: BatchTask,
    folder: Path,
    options: BatchOptions,
) -> "Steps[list[ItemOutcome]]":
    """Yield updates of a batch with one method; return the outcomes.

    Raises :class:`RlnError` after the last image, if one failed.
    """
    from napari_rln.engine.batch import BatchSettings, list_jobs, run_batch_iter
    from napari_rln.engine.job import Job as DeconvolutionJob
    from napari_rln.engine.run import optics_of_file, read_psf
    from napari_rln.engine.task import Task
    from napari_rln.io.image import ImageFile, open_image

    output = dataclasses.replace(task.output, overwrite=options.overwrite)

    def listed(mark: str) -> "tuple[Path, list[BatchItem]]":
        """Return a folder for the results, and the images."""
        target = folder / mark
        target.mkdir(exist_ok=True)
        job = DeconvolutionJob(
            image=ImageFile(path=str(target), missing=options.missing),
            methods=(chosen.method,),
            output=output.at(target),
            execution=task.execution,
        )
        template = BatchSettings(job=job, mark=mark, ending=options.ending, repair=task.repair)
        return target, list_jobs(inputs, template)

    target, items = listed(file_name(chosen.name).replace(" ", "-").lower())
    method = chosen.method
    if any(item.job.methods[0] != method for item in items):  # a table names models
        if sum(other.method.kind == method.kind for other in task.methods) > 1:
            raise RlnError(
                "the table names models, which replace the ticked one; tick only one model."
            )
        target, items = listed(method.kind)  # without the name of the ticked model
    yield Update(Progress(activity="planning"), items)
    dock_psf = task.psf.read() if task.psf else None

    def prepare(item: "BatchItem") -> Task:
        job = item.job
        psf = read_psf(job.psfs[0].file, job.image.channel) if job.psfs else dock_psf
        (used,) = job.methods
        if psf is not None:
            psf = fit_psf_to(job.image, psf, task.repair)
        elif used.needs_psf:
            image = open_image(job.image)
            known = optics_of_file(job.image, GivenOptics(), job.image.channel or 0)
            psf = known.psf(image.voxel_um, image.shape[0])
        return Task(
            image=job.image,
            psf=psf,
            method=used if used == method else _from_library(used),
            output=job.output,
            execution=task.execution,
        )

    outcomes = yield from streamed(
        run_batch_iter(items, target, task.execution, method.device, prepare),
        lambda report: report,
        always=lambda report: report.outcome is not None,
    )
    failed = [outcome for outcome in outcomes if outcome.error]
    if failed:
        raise RlnError(
            f"{len(failed)} of {len(outcomes)} images failed; their rows in the window Batch say "
            "why."
        )
    return outcomes


def _from_library(method: DeconvolutionMethod) -> DeconvolutionMethod:
    """Return a network whose model, named in a table, is replaced by its file in the library."""
    name, library = str(getattr(method, "model", "")), preferences.library()
    names = {entry.name for entry in library.entries()}
    file = library.path(name) if name in names else None
    return dataclasses.replace(method, model=file) if file else method  # type: ignore[type-var]
