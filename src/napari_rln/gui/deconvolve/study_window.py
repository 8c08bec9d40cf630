"""Window for a study: methods of the dock, and networks, compared on simulated images."""

import html
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from qtpy.QtCore import QUrl
from qtpy.QtGui import QDesktopServices
from qtpy.QtWidgets import (
    QDialog,
    QFileDialog,
    QFormLayout,
    QHBoxLayout,
    QHeaderView,
    QLabel,
    QLineEdit,
    QPushButton,
    QTableWidget,
    QTableWidgetItem,
    QTextBrowser,
    QVBoxLayout,
    QWidget,
)

from napari_rln.engine.progress import Progress
from napari_rln.gui.deconvolve.chosen_method import ChosenMethod
from napari_rln.gui.deconvolve.result_destination import FolderField
from napari_rln.gui.forms import Form
from napari_rln.gui.help_button import HelpButton
from napari_rln.gui.jobs import BackgroundJob, JobQueue, Steps, Update, streamed
from napari_rln.gui.layers import LayerImage
from napari_rln.gui.layouts import fill
from napari_rln.gui.runbar import RunBar
from napari_rln.networks.network import Network
from napari_rln.study.quick import QuickStudy

# The rest of a study is imported where it is used: napari opens the dock faster.
if TYPE_CHECKING:
    from napari_rln.study.config import StudySettings
    from napari_rln.study.recommendation import Recommendation
    from napari_rln.study.results import CellResult

STUDY = "study"
"""Shows the progress of these jobs, as the page Deconvolve does."""

_COLUMNS = ("Method", "Image", "PSNR (dB)", "SSIM", "Seconds")
_CONFIGURATIONS = "Studies (*.toml study.json)"


class StudyWindow(QDialog):
    """Choices of a study, its cells as they are finished, and its answer.

    ``inputs`` reads the PSF and the methods of the dock.
    """

    def __init__(
        self,
        jobs: JobQueue,
        inputs: Callable[[], tuple[LayerImage, Sequence[ChosenMethod]]],
        parent: QWidget,
    ) -> None:
        super().__init__(parent, windowTitle="Study")
        self.resize(820, 800)
        self._jobs, self._inputs = jobs, inputs
        self.form = Form(
            QuickStudy, top=("structures", "photons", "images", "classical", "networks", "minutes")
        )
        self.configuration = QLineEdit(placeholderText="none: the choices above")
        self.folder = FolderField()
        self.table = QTableWidget(0, len(_COLUMNS))
        self.table.setHorizontalHeaderLabels(_COLUMNS)
        self.table.setEditTriggers(QTableWidget.EditTrigger.NoEditTriggers)
        self.table.verticalHeader().setVisible(False)
        header = self.table.horizontalHeader()
        header.setSectionResizeMode(QHeaderView.ResizeMode.ResizeToContents)
        header.setSectionResizeMode(1, QHeaderView.ResizeMode.Stretch)
        self.answer = QTextBrowser()
        self.answer.setPlaceholderText("Which should I use? The answer appears here.")
        self.report_button = QPushButton("Open report", enabled=False)
        self.bar = RunBar(jobs, self.run, label="Run study", window=STUDY)
        self.report_path: Path | None = None
        self._lay_out()
        self.report_button.clicked.connect(self.open_report)
        jobs.reported.connect(self._on_report)

    def run(self) -> None:
        """Queue the study, which continues an interrupted one in its folder.

        Raises :class:`RlnError` if PSF, folder, or a setting is not valid.
        """
        folder = self.folder.path()
        path = self.configuration.text().strip()
        if path:
            steps = partial(_study_of_file, Path(path).expanduser(), folder)
        else:
            psf, methods = self._inputs()
            models = {
                method.name: str(method.method.model)
                for method in methods
                if isinstance(method.method, Network)
            }
            steps = partial(_study_of_choices, self.form.settings(), psf, models, folder)
        self.table.setRowCount(0)
        self.answer.clear()
        self.report_button.setEnabled(False)
        self._jobs.add(
            BackgroundJob(
                "study",
                steps,
                key=folder,
                done=self._on_done,
                stopped=lambda reason: self._report_so_far(folder, reason),
                cancel_note="what is finished is kept, and Run study continues it",
                end_note="The study is finished. Read the answer above, or press Open report.",
                window=STUDY,
            )
        )

    def open_report(self) -> None:
        """Show the report in the browser."""
        QDesktopServices.openUrl(QUrl.fromLocalFile(str(self.report_path)))

    def _report_so_far(self, folder: Path, reason: str) -> None:
        """Queue the report of the finished cells of a cancelled study, if there are any."""
        if reason == "cancelled" and any(folder.glob("cells/*.json")):
            steps = partial(_conclusion, folder)
            self._jobs.add(
                BackgroundJob("report", steps, key=folder, done=self._on_done, window=STUDY)
            )

    def _on_report(self, job: BackgroundJob, update: Update) -> None:
        if job.window == STUDY and update.content is not None:
            self._add_row(update.content)

    def _add_row(self, result: "CellResult") -> None:
        row, cell = self.table.rowCount(), result.cell
        self.table.insertRow(row)
        image = [cell.tested_on, f"{cell.photons:g} photons"]
        if cell.condition:
            image.append(cell.condition)
        if cell.trained_on not in (None, cell.tested_on):
            image.append(f"trained on {cell.trained_on}")
        texts = [cell.method, ", ".join(image)]
        if result.error is None:
            psnr, ssim = result.scores["psnr_db"], result.scores["ssim"]
            texts += [f"{psnr:.2f}", f"{ssim:.3f}", f"{result.seconds:.2g}"]
        else:
            texts += ["failed", result.error]
        for column, text in enumerate(texts):
            item = QTableWidgetItem(text)
            item.setToolTip(f"<p>{html.escape(text)}</p>")
            self.table.setItem(row, column, item)
        self.table.scrollToBottom()

    def _on_done(self, outcome: "tuple[Path, Recommendation]") -> None:
        self.report_path, recommendation = outcome
        self.report_button.setEnabled(True)
        answers = (
            f"<p><b>{html.escape(s.question)}</b> {html.escape(s.text)}</p>"
            for s in recommendation.statements
        )
        short = f"<p><b>{html.escape(recommendation.short)}</b></p>"
        self.answer.setHtml("".join([short, *answers]))

    def _lay_out(self) -> None:
        browse = QPushButton("\N{HORIZONTAL ELLIPSIS}", clicked=self._browse)
        browse.setMaximumWidth(30)
        rows = fill(
            QFormLayout(),
            ("Or a study file", fill(QHBoxLayout(), (self.configuration, 1), browse)),
            ("Results in", self.folder),
        )
        note = QLabel(
            "Simulates images with the PSF of the page Deconvolve, deconvolves them by the methods "
            "below and the models ticked on that page, and compares the results with the truth.",
            wordWrap=True,
        )
        self.bar.add_button(self.report_button)
        top = fill(QHBoxLayout(), (note, 1), HelpButton("study"))
        fill(QVBoxLayout(self), top, self.form, rows, (self.table, 2), (self.answer, 1), self.bar)

    def _browse(self) -> None:
        path, _ = QFileDialog.getOpenFileName(self, "Study", "", _CONFIGURATIONS)
        if path:
            self.configuration.setText(path)


def _study_of_choices(
    choices: QuickStudy, source: LayerImage, models: dict[str, str], folder: Path
) -> "Steps[tuple[Path, Recommendation]]":
    yield Update(Progress(activity="preparing the study"))
    settings = choices.settings(source.read(), folder, models)
    return (yield from _run(settings, folder))


def _study_of_file(path: Path, folder: Path) -> "Steps[tuple[Path, Recommendation]]":
    from napari_rln.study.config_file import load_study

    return (yield from _run(load_study(path), folder))


def _run(settings: "StudySettings", folder: Path) -> "Steps[tuple[Path, Recommendation]]":
    """Yield updates with finished cells; return the path of the report, and the answer."""
    from napari_rln.study.run import run_study_iter

    yield from streamed(
        run_study_iter(settings, folder),
        lambda report: report.result,
        always=lambda report: report.result is not None,
    )
    return (yield from _conclusion(folder))


def _conclusion(folder: Path) -> "Steps[tuple[Path, Recommendation]]":
    """Yield an update; return the path of the report, and the answer."""
    from napari_rln.study.conclusion import conclude

    yield Update(Progress(activity="writing the report"))
    _, report, recommendation = conclude(folder)
    return report, recommendation
