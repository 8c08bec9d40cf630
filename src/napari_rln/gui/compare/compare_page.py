"""Comparison of results: side by side, in words and numbers, as residual maps, by iteration."""

import dataclasses
import html
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari.layers import Image
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
from napari_rln.core.volume import Volume
from napari_rln.deconvolution.shared import Shared
from napari_rln.evaluate.comparison import Comparison, compare_iter
from napari_rln.evaluate.verdict import Verdict, verdicts
from napari_rln.gui.compare.before_after import BeforeAfter
from napari_rln.gui.compare.comparison_table import Table
from napari_rln.gui.compare.grids import crop_like, on_voxels_of
from napari_rln.gui.compare.iteration_browser import IterationBrowser
from napari_rln.gui.compare.residual_maps import ResidualMaps
from napari_rln.gui.compare.side_by_side import SideBySide, fit_grid
from napari_rln.gui.compare.three_d import ThreeD
from napari_rln.gui.deconvolve.autosave import saving_job
from napari_rln.gui.deconvolve.chosen_method import FinishedResult, Inputs
from napari_rln.gui.deconvolve.history import PastRun
from napari_rln.gui.deconvolve.streams import (
    COMPARED,
    RESULTS,
    ResultStream,
    equalize_contrast,
    result_layers,
)
from napari_rln.gui.events import follow
from napari_rln.gui.fields import widget_for
from napari_rln.gui.help_button import HelpButton
from napari_rln.gui.jobs import BackgroundJob, JobQueue, Steps, streamed
from napari_rln.gui.layers import LayerImage, record_of, source_of
from napari_rln.gui.layouts import PAGE_MARGIN, Collapsible, ScrollArea, fill
from napari_rln.gui.pickers import LayerPicker
from napari_rln.gui.runbar import RunBar
from napari_rln.gui.theme import ERROR, OK, WARNING
from napari_rln.registration.register import RegistrationSettings, TransformKind, register_iter

if TYPE_CHECKING:
    import napari

_WINDOW = "compare"  # shows the progress of these jobs, instead of the page Deconvolve
_COLOURS = {"good": OK, "fair": WARNING, "poor": ERROR}
_NOTHING = (
    "Nothing to compare yet: run a method on the page Deconvolve. Its results appear here beside "
    "the image, with what they are worth."
)

State = tuple[int, Any]
"""Identity of a layer, and the number of iterations that it shows."""


@dataclass(eq=False)
class _Group:
    """The results of one image."""

    inputs: Inputs
    shared: Shared | None
    run: PastRun  # of its last results: the same for the channels of one run
    is_new: bool = True  # whether there are results since the last comparison
    comparison: Comparison | None = None
    states: list[State] = field(default_factory=list)  # of the layers in its rows
    verdicts: tuple[Verdict, ...] = ()


class ComparePage(QWidget):
    """Results of the deconvolved images, of which one is compared at a time.

    ``jobs`` are those of the deconvolutions, which a comparison waits for.
    """

    compared = Signal(str, object, object)  # verdicts as rich text, and themselves, and the run

    def __init__(self, viewer: "napari.viewer.Viewer", jobs: JobQueue) -> None:
        super().__init__()
        self._viewer, self._jobs = viewer, jobs
        self._groups: dict[str, _Group] = {}  # by the hash of the image
        self._run: PastRun | None = None  # the last one with results
        self.image = QComboBox(toolTip="<p>The image whose results are compared. Choose it.</p>")
        self.words = QLabel(_NOTHING, wordWrap=True, textFormat=Qt.TextFormat.RichText)
        self.words.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        self.truth = LayerPicker(viewer, optional="no truth")
        self.truth.setToolTip(
            "<p>The true object, as of a simulation. Choose its layer, and press Compare, to add "
            "PSNR, SSIM and resolution.</p>"
        )
        self.reference = LayerPicker(viewer, optional="no reference")
        self.reference.setToolTip(
            "<p>The same object by another microscope or program. Choose its layer, and press "
            "Register to bring it onto the image's voxels and compare it.</p>"
        )
        self.transform = widget_for(TransformKind, value=RegistrationSettings().transform)
        self.register_button = QPushButton("Register")
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
        self.before_after = BeforeAfter(viewer)
        tip = (
            "<p>The layers as xy, xz and yz planes with one cursor, line profiles and figures. "
            "Press it to open them beside.</p>"
        )
        self.views_button = QPushButton("Lateral and axial views", toolTip=tip)
        self.maps = ResidualMaps(viewer)
        self.table = Table()
        self.browser = IterationBrowser(viewer)
        self.bar = RunBar(jobs, self.compare, label="Compare", window=_WINDOW)
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
        self.register_button.clicked.connect(lambda: self.bar.attempt(self.register))
        self.side_by_side.toggled.connect(self.arrange)
        self.views_button.clicked.connect(self._open_views)
        self.before_after.begins.connect(self.panels.stop)
        self.before_after.ended.connect(self.arrange)
        self.panels.ended.connect(lambda: self.side_by_side.setChecked(False))
        follow(self, viewer.layers.events.removed, self._on_removed)
        self.browser.browsed.connect(self._mark_outdated)
        self._show_group()

    def add_result(self, result: FinishedResult) -> None:
        """Add a finished result; results are compared within their image."""
        key = result.record.inputs["image"]
        group = self._groups.setdefault(key, _Group(result.inputs, result.shared, result.run))
        group.inputs, group.shared, group.is_new = result.inputs, result.shared, True
        self.image.blockSignals(True)
        if self.image.findData(key) < 0:
            self.image.addItem(result.inputs.image.name, key)
        if self._run is not result.run:
            self._run = result.run
            self.image.setCurrentIndex(self.image.findData(key))  # the first of a run
        group.run = result.run
        self.image.blockSignals(False)
        if isinstance(result.stream, ResultStream):
            self.browser.add(result.stream)
        equalize_contrast(self.layers())
        self._show_group()

    def compare_new(self) -> None:
        """Arrange the results, and compare those of every image that has new ones."""
        self.arrange()
        for key, group in [*self._groups.items()]:
            if group.is_new:
                group.is_new = False
                self.bar.attempt(lambda key=key: self._compare(key), clicked=False)  # type: ignore[misc]

    def layers(self) -> list[Image]:
        """Return the layers with results of the chosen image."""
        return result_layers(self._viewer, self._key, RESULTS)

    def compare(self) -> None:
        """Compare all results of the chosen image in words and numbers."""
        self._compare(self._key)

    def _compare(self, key: str) -> None:
        group = self._group_of(key)
        # The volumes that methods share are freed afterwards.
        shared, group.shared = group.shared or Shared(), None
        results, inputs, run, truth = self._sources(key), group.inputs, group.run, None
        if self.truth.layer is not None and key == self._key:  # it is of the chosen image
            truth = crop_like(inputs.image, self.truth.source("the truth"))
        plain = {source.name for source in results if _is_plain_rld(source.layer)}

        def steps() -> Steps[Comparison]:
            raw = inputs.image.read()
            volumes = [on_voxels_of(raw, result.read()) for result in results]
            fitted = inputs.fitted_psf(raw, shared)
            known = truth.read() if truth else None
            reports = compare_iter(raw, volumes, truth=known, psf=fitted, shared=shared)
            return (yield from streamed(reports))

        states = [state_of(source.layer) for source in (inputs.image, *results)]

        def show(comparison: Comparison) -> None:
            group.comparison, group.states = comparison, states
            rld = _best(comparison, plain)
            prefix = f"{inputs.image.layer.name} \N{MIDDLE DOT} "
            group.verdicts = tuple(
                dataclasses.replace(each, name=each.name.removeprefix(prefix))
                for each in verdicts(comparison, rld)
            )
            self._show_group()
            several = sum(each.run is group.run for each in self._groups.values()) > 1
            title = inputs.image.name if several else ""
            self.compared.emit(words_of(group.verdicts, title), group.verdicts, run)

        job = BackgroundJob(
            "comparison",
            steps,
            key=(inputs.key, *states, *(each and each.key for each in (truth, *results))),
            done=show,
            window=_WINDOW,
            end_note="",
        )
        if not self._jobs.is_under_way(job):
            self._jobs.add(job)

    def add_residuals(self) -> None:
        """Add a residual map of every result of the chosen image."""
        group, results = self._group_of(self._key), self._sources(self._key)
        if group.inputs.psf is None:
            raise RlnError(
                "a residual map needs the PSF; choose it on the page Deconvolve, and run a method."
            )
        jobs = [self.maps.job(group.inputs, each, _WINDOW, self.arrange) for each in results]
        self._jobs.add(*jobs)

    def save(self, folder: Path) -> None:
        """Queue the writing of the results of the chosen image into a folder."""
        layers = [layer for layer in self.layers() if not layer.multiscale]
        if not layers:
            raise RlnError("the results are on disk already; their layers show where.")
        self._jobs.add(*(saving_job(layer, folder, _WINDOW) for layer in layers))

    def register(self) -> None:
        """Register the reference to the chosen image, on its grid."""
        if self.reference.layer is None:
            raise RlnError("choose the reference, a layer that shows the same object.")
        reference = self.reference.source("the reference")
        image = self._group_of(self._key).inputs.image
        settings = RegistrationSettings(transform=self.transform.value)

        def steps() -> Steps[Volume]:
            return (yield from streamed(register_iter(reference.read(), image.read(), settings)))

        def show(registered: Volume) -> None:
            colormap = reference.layer.colormap
            self._viewer.add_layer(image.layer_of(registered, colormap=colormap))

        title = f"registration of {reference.name}"
        note = "The reference is on the voxels of the image. Press Compare to compare it too."
        self._jobs.add(BackgroundJob(title, steps, done=show, window=_WINDOW, end_note=note))

    def arrange(self) -> None:
        """Show the chosen image and its results side by side, or on top of each other."""
        if self.before_after.is_on:  # ends with arranging again
            return
        group = self._groups.get(self._key)
        is_part = group is not None and group.inputs.image.box is not None
        if not self.side_by_side.isChecked() or not self._compared(self._key):
            self.panels.stop()
            return
        self.panels.show(self._panels(), keep_camera=is_part)  # the user moved it to the part

    def _panels(self) -> list[list[Image]]:
        """Return the panels of the chosen image: of all channels that were run with it, if any."""
        channels = [
            self._panels_of(key)
            for key, group in self._groups.items()
            if group.run is self._groups[self._key].run
        ]
        if len({len(panels) for panels in channels}) == 1:
            together = [list(panel) for panel in zip(*channels, strict=True)]
            if fit_grid(self._viewer, together):
                return together
        return [[layer] for layer in self._panels_of(self._key)]

    def _panels_of(self, key: str) -> list[Image]:
        """Return an image, its results, registered references and maps."""
        compared = self._compared(key)
        wanted = [self._groups[key].inputs.image.layer, *compared, *self.maps.of(compared)]
        return [layer for layer in wanted if layer in self._viewer.layers]

    def toggle_blink(self) -> None:
        """Show the other one of the two layers before and after."""
        self._pair.open()
        self.before_after.toggle_blink()

    @property
    def _key(self) -> str:
        return self.image.currentData() or ""

    def _group_of(self, key: str) -> _Group:
        if key not in self._groups:
            raise RlnError("run a method on the page Deconvolve first.")
        return self._groups[key]

    def _compared(self, key: str) -> list[Image]:
        """Return the results of an image, and registered references."""
        return result_layers(self._viewer, key, COMPARED)

    def _sources(self, key: str) -> list[LayerImage]:
        """Return the results of an image, not read yet."""
        image, layers = self._group_of(key).inputs.image, self._compared(key)
        if not layers:
            raise RlnError("the results of the image were removed; run a method first.")
        point = self._viewer.dims.point
        return [crop_like(image, source_of(layer, point)) for layer in layers]

    def _on_save(self) -> None:
        folder = QFileDialog.getExistingDirectory(self, "Folder for the results")
        if folder:
            self.bar.attempt(lambda: self.save(Path(folder)))

    def _open_views(self) -> None:
        self._viewer.window.add_plugin_dock_widget("napari-rln", "Lateral and axial views")

    def _on_image(self) -> None:
        self._show_group()
        self.arrange()

    def _on_removed(self) -> None:
        self.browser.refresh()
        for key in [key for key in self._groups if not self._compared(key)]:
            del self._groups[key]  # frees the image
            self.image.removeItem(self.image.findData(key))
        if not self._groups:
            self.panels.stop()
        self._show_group()

    def _show_group(self) -> None:
        """Show what is known of the results of the chosen image."""
        group = self._groups.get(self._key)
        self._image_row.setVisible(self.image.count() > 1)
        self._shown_with_results.setVisible(group is not None)
        if group is None or group.comparison is None:
            self.table.setVisible(False)
            self.words.setText(_NOTHING if group is None else "")
            return
        self.table.show_comparison(group.comparison)
        self._mark_outdated()
        self.words.setText(words_of(group.verdicts))

    def _mark_outdated(self) -> None:
        """Mark the rows of layers that were removed, or show another iteration now."""
        group = self._groups.get(self._key)
        if group is not None and group.comparison is not None:
            now = [state_of(layer) for layer in self._viewer.layers if isinstance(layer, Image)]
            self.table.mark_outdated([state not in now for state in group.states])

    def _lay_out(self) -> None:
        self._image_row, self._shown_with_results, content = QWidget(), QWidget(), QWidget()
        fill(QFormLayout(self._image_row), ("Image", self.image), margin=0)
        transform = self.transform.native
        registration = fill(QHBoxLayout(), (self.reference, 1), transform, self.register_button)
        others = QWidget()
        fill(QFormLayout(others), ("Truth", self.truth), ("Reference", registration), margin=0)
        look = fill(QHBoxLayout(), self.side_by_side, self.three_d, (self.residual_button, 1))
        self._pair = Collapsible("Swipe or blink two layers", self.before_after)
        below = fill(QVBoxLayout(self._shown_with_results), margin=0)
        known = Collapsible("Truth and reference", others)
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


def words_of(found: tuple[Verdict, ...], title: str = "") -> str:
    """Return verdicts as rich text, one line each with a dot in the colour of its quality."""
    dot = "\N{BLACK CIRCLE}"
    above = f'<p style="margin: 4px 0 0 0">{html.escape(title)}</p>' if title else ""
    return above + "".join(
        f'<p style="margin: 2px 0"><span style="color: {_COLOURS[verdict.quality]}">{dot}</span> '
        f"<b>{html.escape(verdict.name)}</b> {html.escape(verdict.text)}</p>"
        for verdict in found
    )


def state_of(layer: Image) -> State:
    """Return the state of a layer, for comparison with a later one."""
    record = record_of(layer)
    return id(layer), record.facts.get("iterations") if record else None


def _best(comparison: Comparison, names: set[str]) -> str | None:
    """Return the one of some results that explains the image best; None without any."""
    rows = [row for row in comparison.rows if row.name in names and row.chi2 is not None]
    return min(rows, key=lambda row: row.chi2 or 0.0).name if rows else None


def _is_plain_rld(layer: Image) -> bool:
    """Return whether a layer is a result of standard Richardson-Lucy deconvolution."""
    record = record_of(layer)
    if record is None or record.method != "rld":
        return False
    return bool(record.settings.get("back_projector", "matched") == "matched")
