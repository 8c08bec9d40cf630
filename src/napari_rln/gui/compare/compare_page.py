"""Comparison of results: side by side, in words and numbers, as residual maps, by iteration."""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING
from weakref import WeakSet

from napari.layers import Image, Layer
from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import (
    QCheckBox,
    QComboBox,
    QFileDialog,
    QFormLayout,
    QHBoxLayout,
    QLabel,
    QPushButton,
    QVBoxLayout,
    QWidget,
)

from napari_rln.core.errors import RlnError
from napari_rln.gui.compare.before_after import BeforeAfter
from napari_rln.gui.compare.compared_image import WINDOW, ComparedImage
from napari_rln.gui.compare.comparison_table import Table
from napari_rln.gui.compare.iteration_browser import IterationBrowser
from napari_rln.gui.compare.known_object import KnownObject
from napari_rln.gui.compare.open_results import OpenResults, StatedPsfOf
from napari_rln.gui.compare.panels import Panels, panels_of
from napari_rln.gui.compare.residual_maps import ResidualMaps
from napari_rln.gui.compare.side_by_side import SideBySide
from napari_rln.gui.compare.three_d import ThreeD
from napari_rln.gui.compare.words import COMPARING, NOTHING, not_compared, without_image, words_of
from napari_rln.gui.deconvolve.autosave import saving_job
from napari_rln.gui.deconvolve.chosen_method import FinishedResult
from napari_rln.gui.deconvolve.streams import (
    RESULTS,
    ResultStream,
    equalize_contrast,
    result_layers,
)
from napari_rln.gui.events import follow
from napari_rln.gui.help_button import HelpButton
from napari_rln.gui.jobs import BackgroundJob, JobQueue
from napari_rln.gui.layouts import PAGE_MARGIN, Collapsible, ScrollArea, fill
from napari_rln.gui.runbar import RunBar

if TYPE_CHECKING:
    import napari

    from napari_rln.gui.deconvolve.history import PastRun


class ComparePage(QWidget):
    """Results of the deconvolved images, of which one is compared at a time.

    ``jobs`` are those of the deconvolutions, which a comparison waits for. ``stated_psf`` returns
    the PSF that an image's file states, with which results that are open may have been made.
    """

    compared = Signal(str, object, object)  # verdicts of a run as rich text, new ones, the run

    def __init__(
        self,
        viewer: "napari.viewer.Viewer",
        jobs: JobQueue,
        stated_psf: StatedPsfOf = lambda image: None,
    ) -> None:
        super().__init__()
        self._viewer, self._jobs = viewer, jobs
        self._images: dict[str, ComparedImage] = {}  # by their hashes
        self._run: PastRun | None = None  # the last one with results
        self._map_jobs: WeakSet[BackgroundJob] = WeakSet()
        self.image = QComboBox(toolTip="<p>The image whose results are compared. Choose it.</p>")
        self.words = QLabel(NOTHING, wordWrap=True, textFormat=Qt.TextFormat.RichText)
        self.words.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        self.known = KnownObject(viewer)
        tip = (
            "<p>Where a result lacks light (green) or has too much (pink), in units of the noise. "
            "Look there for structure that a method lost or invented.</p>"
        )
        self.residual_button = QPushButton("Residual maps", toolTip=tip)
        tip = (
            "<p>Image and results in panels with one camera. Untick to lay them on top of each "
            "other.</p>"
        )
        self.side_by_side = QCheckBox("Side by side", checked=True, toolTip=tip)
        self.panels = SideBySide(viewer, self)
        self.three_d = ThreeD(viewer)
        self.before_after = BeforeAfter(viewer, self._composite_of)
        tip = (
            "<p>The layers as xy, xz and yz planes with one cursor, line profiles and figures. "
            "Press it to open them in a tab beside this one.</p>"
        )
        self.views_button = QPushButton("Lateral and axial views", toolTip=tip)
        self.maps = ResidualMaps(viewer)
        self.opened = OpenResults(viewer, jobs, stated_psf, lambda: self._images, self)
        self.browser = IterationBrowser(viewer)
        self.bar = RunBar(jobs, self.compare, label="Compare", window=WINDOW)
        self.table = Table(self.bar)
        self.compare_button = self.bar.run_button
        tip = (
            "<p>Writes the results of the image as OME-TIFF, with voxel size and record. Choose "
            "the folder.</p>"
        )
        self.save_button = QPushButton("Save results\N{HORIZONTAL ELLIPSIS}", toolTip=tip)
        self._lay_out()
        self.save_button.clicked.connect(self._on_save)
        self.image.currentIndexChanged.connect(self._on_image)
        self.residual_button.clicked.connect(lambda: self.bar.attempt(self.add_residuals))
        self.known.register_button.clicked.connect(lambda: self.bar.attempt(self.register))
        self.side_by_side.toggled.connect(self.arrange)
        self.views_button.clicked.connect(self._open_views)
        self.before_after.begins.connect(self.panels.stop)
        self.before_after.ended.connect(self.arrange)
        self.panels.ended.connect(lambda: self.side_by_side.setChecked(False))
        follow(self, viewer.layers.events.removed, self._on_removed)
        self.browser.browsed.connect(self._mark_outdated)
        self.opened.ended.connect(self._on_opened)
        jobs.reported.connect(lambda _, update: self.maps.take(update.content))
        jobs.failed.connect(self._on_stopped)
        jobs.cancelled.connect(self._on_stopped)
        self._show_chosen()

    def add_result(self, result: FinishedResult) -> None:
        """Add a finished result; results are compared within their image."""
        key = result.record.inputs["image"]
        if key not in self._images:
            self._add(ComparedImage(key=key, inputs=result.inputs, run=result.run))
        compared = self._images[key]
        compared.inputs, compared.shared, compared.is_new = result.inputs, result.shared, True
        if self._run is not result.run:
            self._run = result.run
            self._choose(key)  # the first of a run
        compared.run = result.run
        if isinstance(result.stream, ResultStream):
            self.browser.add(result.stream)
        equalize_contrast(self.layers())
        self._show_chosen()

    def compare_new(self) -> None:
        """Compare the results of every image that has new ones, and arrange the chosen one's."""
        for compared in [*self._images.values()]:
            if compared.is_new:
                compared.is_new = False
                self.bar.attempt(partial(self._compare, compared), clicked=False)
        self.arrange()

    def layers(self) -> list[Image]:
        """Return the layers with results of the chosen image."""
        return result_layers(self._viewer, self._key, RESULTS)

    def compare(self) -> None:
        """Compare all results of the chosen image in words and numbers."""
        self._compare(self._chosen)

    def _compare(self, compared: ComparedImage) -> None:
        truth = None
        if self.known.truth.layer is not None and compared.key == self._key:  # of the chosen image
            truth = self.known.truth.source("the truth")
        job = compared.comparison_job(self._viewer, truth, lambda: self._show_words(compared))
        if not self._jobs.is_under_way(job):
            compared.job = job
            self._show_words(compared)
            self._jobs.add(job)

    def _show_words(self, compared: ComparedImage) -> None:
        """Show the verdicts on an image, or that they are coming, here and on Deconvolve."""
        self._show_chosen()
        of_run = [each for each in self._images.values() if each.run is compared.run]
        texts = [
            words_of(each.verdicts, each.inputs.image.name if len(of_run) > 1 else "")
            for each in of_run
            if each.verdicts and each.job is None
        ]
        if any(each.job is not None for each in of_run):
            texts.append(COMPARING)
        found = {f"{compared.prefix}{each.name}": each.text for each in compared.verdicts}
        self.compared.emit("".join(texts), found, compared.run)

    def _on_stopped(self, job: BackgroundJob) -> None:
        if job in self._map_jobs:
            self.arrange()  # shows the maps so far
        for compared in self._images.values():
            if compared.job is job:
                compared.job = None
                self._show_words(compared)

    def add_residuals(self) -> None:
        """Add residual maps of all results of the chosen image, and of its other channels."""
        jobs = [self.maps.job(each, self.arrange) for each in self._channels]
        self._jobs.add(*jobs)
        self._map_jobs.update(jobs)

    def save(self, folder: Path) -> None:
        """Queue the writing of the results of the chosen image into a folder."""
        layers = [layer for layer in self.layers() if not layer.multiscale]
        if not layers:
            raise RlnError("the results are on disk already; their layers show where.")
        self._jobs.add(saving_job(layers, folder, WINDOW))

    def register(self) -> None:
        """Register the reference to the chosen image, on its grid."""
        self._jobs.add(self.known.registration_job(self._chosen.inputs.image))

    def arrange(self) -> None:
        """Show the chosen image and its results side by side, or on top of each other."""
        if self.before_after.is_on:  # ends with arranging again
            return
        compared = self._images.get(self._key)
        if compared is None or not self.side_by_side.isChecked() or not self._has_results(compared):
            self.panels.stop()
            return
        panels = self._panels()
        self.panels.show(
            panels.all,
            columns=panels.columns,
            hidden=panels.hidden,
            keep_camera=compared.inputs.image.box is not None,  # the user moved it to the part
        )

    def _panels(self) -> Panels:
        return panels_of(self._viewer, self._channels, self._chosen, self.maps)

    def _composite_of(self, layer: Layer) -> list[Image]:
        """Return a layer with the other channels that are shown with it; itself in any case."""
        found = self._panels().composite_of(layer) if self._key in self._images else []
        return found or [layer]

    def stop(self) -> None:
        """Show the layers as before; jobs that are cancelled afterwards show nothing here."""
        self.panels.stop()
        self._jobs.failed.disconnect(self._on_stopped)
        self._jobs.cancelled.disconnect(self._on_stopped)

    def toggle_blink(self) -> None:
        """Show the other one of the two layers before and after."""
        self._pair.open()
        self.before_after.toggle_blink()

    @property
    def _key(self) -> str:
        return self.image.currentData() or ""

    @property
    def _chosen(self) -> ComparedImage:
        """The chosen image; raise a :class:`RlnError` without one."""
        if self._key not in self._images:
            raise RlnError("run a method on the page Deconvolve first.")
        return self._images[self._key]

    @property
    def _channels(self) -> list[ComparedImage]:
        """The images of the chosen one's run, such as its channels; errors as for ``_chosen``."""
        run = self._chosen.run
        return [each for each in self._images.values() if each.run is run]

    def _has_results(self, compared: ComparedImage) -> bool:
        return bool(compared.results(self._viewer))

    def _add(self, compared: ComparedImage) -> None:
        """Add an image, without choosing it unless it is the first."""
        self._images[compared.key] = compared
        self.image.blockSignals(True)
        self.image.addItem(compared.inputs.image.name, compared.key)
        self.image.blockSignals(False)

    def _choose(self, key: str) -> None:
        """Choose an image, without arranging the viewer."""
        self.image.blockSignals(True)
        self.image.setCurrentIndex(self.image.findData(key))
        self.image.blockSignals(False)

    def _on_opened(self, found: list[ComparedImage]) -> None:
        """Take images of results that were open, and show them if the user is here."""
        for compared in found:
            if compared.key not in self._images and self._has_results(compared):
                compared.is_new = False  # the user compares them
                self._add(compared)
        self._show_chosen()
        if found and self.isVisibleTo(self.window()):
            self.arrange()

    def _on_save(self) -> None:
        folder = QFileDialog.getExistingDirectory(self, "Folder for the results")
        if folder:
            self.bar.attempt(lambda: self.save(Path(folder)))

    def _open_views(self) -> None:
        """Open the views in a tab, as two docks below each other are too low on most screens."""
        dock, _ = self._viewer.window.add_plugin_dock_widget(
            "napari-rln", "Lateral and axial views", tabify=True
        )
        dock.show()
        dock.raise_()  # also if it was open

    def _on_image(self) -> None:
        self._show_chosen()
        self.arrange()

    def _on_removed(self) -> None:
        for key, compared in [*self._images.items()]:
            if not self._has_results(compared):
                del self._images[key]  # frees the image
                self.image.removeItem(self.image.findData(key))
                if compared.job is not None:  # there may be no verdicts, if it is cancelled
                    self._show_words(compared)
        if not self._images:
            self.panels.stop()
        self._show_chosen()

    def _show_chosen(self) -> None:
        """Show what is known of the results of the chosen image."""
        compared = self._images.get(self._key)
        self._image_row.setVisible(self.image.count() > 1)
        self._shown_with_results.setVisible(compared is not None)
        self.browser.list_among(self.layers())
        remaining = None if compared is None else compared.remaining(self._viewer)
        self.table.setVisible(remaining is not None)
        if compared is None:
            missing = self.opened.without_image
            self.words.setText(without_image(missing) if missing else NOTHING)
            return
        results = compared.results(self._viewer)
        if results:
            self.before_after.suggest(compared.inputs.image.layer, results[-1])
        if remaining is None:
            names = (layer.name.removeprefix(compared.prefix) for layer in results)
            self.words.setText(not_compared(names) if compared.job is None else COMPARING)
        else:
            self.table.show_comparison(remaining.comparison, compared.prefix)
            self.table.mark_outdated(remaining.outdated)
            coming = "" if compared.job is None else COMPARING
            self.words.setText(words_of(remaining.verdicts) + coming)

    def _mark_outdated(self) -> None:
        """Mark the rows of layers that show another iteration now."""
        compared = self._images.get(self._key)
        remaining = None if compared is None else compared.remaining(self._viewer)
        if remaining is not None:
            self.table.mark_outdated(remaining.outdated)

    def _lay_out(self) -> None:
        self._image_row, self._shown_with_results, content = QWidget(), QWidget(), QWidget()
        fill(QFormLayout(self._image_row), ("Image", self.image), margin=0)
        look = fill(QHBoxLayout(), self.side_by_side, self.three_d, (self.residual_button, 1))
        self._pair = Collapsible("Swipe or blink two layers", self.before_after)
        below = fill(QVBoxLayout(self._shown_with_results), margin=0)
        known = Collapsible("Truth and reference", self.known)
        more = fill(QHBoxLayout(), (self.views_button, 1), self.save_button)
        fill(below, look, self._pair, self.browser, more)
        fill(below, self.bar, self.table, known)
        corner = Qt.AlignmentFlag.AlignTop | Qt.AlignmentFlag.AlignRight
        help_button = HelpButton("napari", "compare")
        top = fill(QHBoxLayout(), (self._image_row, 1), (help_button, 0, corner))
        parts = (top, self.words, self._shown_with_results)
        fill(QVBoxLayout(content), *parts, margin=PAGE_MARGIN)
        content.layout().addStretch(1)
        fill(QVBoxLayout(self), ScrollArea(content), margin=0)
