"""The dock of lateral and axial views of layers side by side."""

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Image
from qtpy.QtCore import Qt, QTimer
from qtpy.QtWidgets import (
    QCheckBox,
    QComboBox,
    QFileDialog,
    QHBoxLayout,
    QLabel,
    QPushButton,
    QSplitter,
    QVBoxLayout,
    QWidget,
)

from napari_rln.core.errors import RlnError
from napari_rln.core.volume import FloatArray, Volume, VoxelUm, check_on_grid
from napari_rln.evaluate.figure import check_figure_path, figure, save_figure
from napari_rln.evaluate.figure_content import FigureSettings
from napari_rln.evaluate.plane_sections import Projection, brightest
from napari_rln.gui.events import follow
from napari_rln.gui.help_button import HelpButton
from napari_rln.gui.jobs import BackgroundJob, JobQueue, Steps
from napari_rln.gui.layers import contrast_limits, source_of
from napari_rln.gui.layouts import PAGE_MARGIN, fill
from napari_rln.gui.number import Number
from napari_rln.gui.pictures import MICROMETRE, ColumnTitle, PictureBoard
from napari_rln.gui.runbar import RunBar
from napari_rln.gui.views.cursor import Crosshair, InsetBox
from napari_rln.gui.views.layer_choice import LayerChoice
from napari_rln.gui.views.line_profile import LineProfile
from napari_rln.gui.views.sections import Section, SectionColumn

if TYPE_CHECKING:
    import napari

_REFRESH_MS = 100  # minimum interval between drawings
_AS_VIEWED, _SHARED = "as viewed", "shared by results"
_PROJECTIONS: dict[str, Projection] = {"mean": "slice", "maximum": "max"}
_TIPS = {
    "projection": "<p>The mean of a slab, or its maximum projection: choose one, and type the "
    "thickness beside it.</p>",
    "slab": "<p>Thickness of the slab; 0 shows one plane, or projects the whole stack. Type a "
    "length to average or project that much.</p>",
    "contrast": "<p>Contrast limits of each layer as in the viewer, or the same for all layers but "
    "the first: share them to compare the brightness of results.</p>",
    "profile_on": "<p>Plots the intensity of all layers along a line: choose its plane, then drag "
    "its ends in the first column.</p>",
    "yz": "<p>Tick to show the yz plane, a second view from the side.</p>",
    "inset": "<p>Tick to magnify the blue square; drag its corner to resize it.</p>",
}
_NARROWEST = 6  # characters of a choice
_LOWEST = 160  # pixels of the planes, so that they can be seen in a dock below others


class ViewsDock(QWidget):
    """A column per layer, rows xy, xz and yz, with one crosshair, an inset and a line profile."""

    def __init__(self, napari_viewer: "napari.viewer.Viewer") -> None:
        super().__init__()
        self._viewer = napari_viewer
        self.jobs, self.drawings = JobQueue(self), JobQueue(self)
        self._is_outdated = False
        self.columns: list[SectionColumn] = []
        self._followed: set[Image] = set()
        self.layers = LayerChoice(napari_viewer)
        self.crosshair = Crosshair(napari_viewer, self)
        self.projection, self.contrast = QComboBox(), QComboBox()
        for text, projection in _PROJECTIONS.items():
            self.projection.addItem(text, projection)
        self.contrast.addItems([_AS_VIEWED, _SHARED])
        self.slab = Number(label="The slab's thickness", min=0.0, tooltip=_TIPS["slab"])
        self.slab_unit = QLabel()
        self.yz, self.inset = QCheckBox("yz row"), QCheckBox("Inset")
        self.profile_on = QComboBox()
        self.profile_on.addItems(["no profile", "profile in xy", "profile in xz", "profile in yz"])
        for name in ("projection", "contrast", "yz", "inset", "profile_on"):
            getattr(self, name).setToolTip(_TIPS[name])
        for choice in (self.projection, self.contrast, self.profile_on):
            policy = QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon
            choice.setSizeAdjustPolicy(policy)
            choice.setMinimumContentsLength(_NARROWEST)
        self.canvas = PictureBoard(napari_viewer)
        self.canvas.setMinimumHeight(_LOWEST)
        self.box = InsetBox()
        self.profile = LineProfile(napari_viewer)
        tip = (
            "<p>The brightest structure of the first result, in its plane with most contrast. "
            "Press it to go there.</p>"
        )
        self.brightest_button = QPushButton("Go to the brightest", toolTip=tip)
        self.bar = RunBar(self.jobs, self._on_export, label="Export figure\N{HORIZONTAL ELLIPSIS}")
        self._timer, self._rebuild, self._fit = (
            QTimer(self, singleShot=True, interval=ms, timeout=slot)
            for ms, slot in ((_REFRESH_MS, self.draw), (0, self.build), (0, self.look_at_all))
        )
        self._lay_out()
        self._connect()
        self.build()

    def draw(self) -> None:
        """Draw all columns."""
        try:
            slab = self.slab.value or None
        except RlnError as error:
            self.bar.show_message(str(error), error=True)
            return
        projection = self._projection
        if projection == "slice":
            slab = slab or 0.0
        columns, position = self.columns, self.crosshair.position
        cuts = [column.cut(position, projection, slab) for column in columns]
        if all(cut.is_light for cut in cuts):
            self._show(columns, [cut.pictures() for cut in cuts], position)
        elif self.drawings.running is None:

            def steps() -> Steps[list[dict[str, FloatArray]]]:
                pictures = []
                for cut in cuts:
                    pictures.append(cut.pictures())
                    yield None
                return pictures

            def done(pictures: list[dict[str, FloatArray]]) -> None:
                if columns is self.columns:
                    self._show(columns, pictures, position)

            self.drawings.add(BackgroundJob("planes", steps, done=done))
        else:
            self._is_outdated = True

    def _on_drawn(self) -> None:
        if self._is_outdated:
            self._is_outdated = False
            self.draw()

    def _show(
        self, columns: list[SectionColumn], pictures: list[dict[str, FloatArray]], position: VoxelUm
    ) -> None:
        shared = self._shared_limits()
        for column, planes in zip(columns, pictures, strict=True):
            column.show(planes, position, column.display(shared.get(column.layer)).limits)
        self.profile.draw(columns, position)
        if columns and self.inset.isChecked():
            self.box.centre(columns[0], position)
        self._show_inset()

    def build(self) -> None:
        """Rebuild the columns of the checked layers."""
        if self.box.scene() is not None:  # a pane that is freed deletes what is in it
            self.columns[0].sections["xy"].removeItem(self.box)
        self.canvas.clear()
        planes = ("xy", "xz", "yz") if self.yz.isChecked() else ("xy", "xz")
        move, layers = self.crosshair.move, self.layers.chosen()
        self.columns = [SectionColumn(self._viewer, layer, planes, move) for layer in layers]
        self.crosshair.own_units = self.columns[0].units if self.columns else None
        lengths = {column.has_lengths for column in self.columns}
        unit = MICROMETRE if False not in lengths else "" if True in lengths else "px"
        self.slab_unit.setText(unit)
        for i, column in enumerate(self.columns):
            for pane in (*column.sections.values(), column.inset):
                pane.unit = unit
            self.canvas.place(ColumnTitle(column.layer.name), 0, i)
            self.canvas.ci.layout.setColumnPreferredWidth(i, 1)
            self.canvas.ci.layout.setColumnStretchFactor(i, 1)
            for row, (plane, pane) in enumerate(column.sections.items(), 1):
                self.canvas.place(pane, row, i)
                pane.sigRangeChangedManually.connect(partial(self._align, plane, pane))
            if self.inset.isChecked():
                self.canvas.place(column.inset, len(planes) + 1, i)
        if self.columns:
            self._finish_building(planes)
            # Panes get their sizes in the first layout, and when the dock is resized.
            self.columns[-1].sections[planes[-1]].sigResized.connect(lambda _: self._fit.start())
            self._fit.start()
        self._follow_layers()
        self.draw()

    def look_at_all(self) -> None:
        """Show whole planes, at one scale."""
        panes = [(c.rect(p), pane) for c in self.columns for p, pane in c.sections.items()]
        sizes = [(pane.width() / r.width(), pane.height() / r.height()) for r, pane in panes]
        per_um = min((min(size) for size in sizes), default=0.0)
        if per_um <= 0:
            return
        for rect, pane in panes:
            centre = rect.center().y(), rect.center().x()
            pane.look_at(centre, (pane.height() / per_um, pane.width() / per_um))
        self._show_inset()

    def _align(self, plane: str, moved: Section, *_: Any) -> None:
        """Show the region of a moved or zoomed pane in all columns."""
        for column in self.columns:
            pane = column.sections[plane]
            if pane is not moved:
                pane.setRange(moved.viewRect(), padding=0)

    def _finish_building(self, planes: tuple[str, ...]) -> None:
        """Set the heights of the rows; add inset box and line to the first column."""
        first = self.columns[0]
        depth, height, width = first.extent
        tall = {"xy": height, "inset": 0.6 * min(height, width)}
        shown = (*planes, "inset") if self.inset.isChecked() else planes
        self.canvas.set_row_weights({row: tall.get(p, depth) for row, p in enumerate(shown, 1)})
        if self.inset.isChecked():
            first.sections["xy"].addItem(self.box)
        plane = self.profile_on.currentText().split()[-1]
        self.profile.draw_on(first, plane if plane in planes else "", self.crosshair.position)

    def export(self, path: str) -> None:
        """Write the checked layers as a figure that looks like the dock, in a thread.

        Raises :class:`RlnError` if no layer is checked, one has no voxel size, their grids differ,
        or the path is not that of a figure.
        """
        check_figure_path(path)
        layers = self.layers.chosen()
        if not layers:
            raise RlnError("tick the layers to show first.")
        sources = [source_of(layer, self._viewer.dims.point) for layer in layers]
        for source in sources[1:]:
            check_on_grid(source, sources[0])
        settings, shared = self._figure_settings(), self._shared_limits()
        displays = [column.display(shared.get(column.layer)) for column in self.columns]
        line = self.profile.line_in(self.columns[0], self.crosshair.position)

        def steps() -> Steps[None]:
            volumes = [source.read() for source in sources]
            yield None
            drawing = figure(volumes, settings=settings, displays=displays, line=line)
            yield None
            save_figure(drawing, path)

        self.jobs.add(BackgroundJob(f"figure {path}", steps, end_note=f"The figure is in {path}."))

    def go_to_brightest(self) -> None:
        """Go to the brightest structure of the second or only layer; errors as in ``export``."""
        if not self.columns:
            raise RlnError("tick the layers to show first.")
        column = self.columns[min(1, len(self.columns) - 1)]
        data, voxel, corner = column.data, column.voxel, column.corner

        def steps() -> Steps[list[float | None]]:
            yield None
            index = brightest(Volume.from_array(np.asarray(data), voxel, name=column.layer.name))
            return [c + (i + 0.5) * v for c, i, v in zip(corner, index, voxel, strict=True)]

        title, move = "brightest structure", self.crosshair.move
        self.jobs.add(BackgroundJob(title, steps, done=move, end_note=""))

    @property
    def _projection(self) -> Projection:
        projection: Projection = self.projection.currentData()
        return projection

    def _figure_settings(self) -> FigureSettings:
        first = self.columns[0]
        side = min(*self.box.sides, *first.extent[1:]) if self.inset.isChecked() else 0.0
        return FigureSettings(
            position=first.voxel_at(self.crosshair.position),
            projection=self._projection,
            slab_um=self.slab.value or None,
            yz=self.yz.isChecked(),
            inset_um=side,
            profile=self.profile.isVisibleTo(self),
        )

    def _shared_limits(self) -> dict[Image, tuple[float, float]]:
        """Return common limits of all layers but the first, if contrast is shared."""
        if self.contrast.currentText() != _SHARED or len(self.columns) < 2:
            return {}
        others = self.columns[1:]
        arrays = [column.data for column in others if isinstance(column.data, np.ndarray)]
        if len(arrays) == len(others):
            limits = contrast_limits(arrays)
        else:  # lazy: the limits estimated by napari
            lows, highs = zip(*(column.layer.contrast_limits for column in others), strict=True)
            limits = min(lows), max(highs)
        return {column.layer: limits for column in others}

    def _show_inset(self) -> None:
        if self.inset.isChecked():
            for column in self.columns:
                column.inset.look_at(self.box.middle, self.box.sides)

    def _on_box(self, y: float, x: float) -> None:
        self.crosshair.move([None, y, x])
        self._show_inset()

    def _follow_layers(self) -> None:
        """Redraw after changes of a layer."""
        for layer in {*self.layers.images} - self._followed:
            for name in ("data", "set_data", "contrast_limits", "gamma", "colormap"):
                follow(self, getattr(layer.events, name), self._draw_soon)
            for name in ("scale", "affine", "translate", "units"):
                follow(self, getattr(layer.events, name), self._build_soon)
        self._followed = {*self.layers.images}

    def _build_soon(self) -> None:
        self._rebuild.start()

    def _draw_soon(self) -> None:
        if not self._timer.isActive():
            self._timer.start()

    def _on_export(self) -> None:
        kinds = "Figures (*.png *.pdf *.svg)"
        path, _ = QFileDialog.getSaveFileName(self, "Export figure", "figure.png", kinds)
        if path:
            self.bar.attempt(lambda: self.export(path))

    def _connect(self) -> None:
        follow(self, self._viewer.dims.events.current_step, self._draw_soon)
        self.brightest_button.clicked.connect(lambda: self.bar.attempt(self.go_to_brightest))
        self.drawings.ended.connect(self._on_drawn)
        self.drawings.failed.connect(self.bar.show_failure)
        self.layers.changed.connect(self.build)
        for choice in (self.projection, self.contrast):
            choice.currentIndexChanged.connect(self.draw)
        self.slab.changed.connect(self.draw)
        self.profile_on.currentIndexChanged.connect(self.build)
        self.yz.toggled.connect(self.build)
        self.inset.toggled.connect(self.build)
        self.box.dragged.connect(self._on_box)
        self.box.dropped.connect(self._draw_soon)
        self.profile.moved.connect(self._draw_soon)

    def _lay_out(self) -> None:
        slab = (self.slab.native, 1), self.slab_unit
        corner = HelpButton("napari", "look-at-it-from-the-side"), 0, Qt.AlignmentFlag.AlignTop
        above = fill(QHBoxLayout(), (self.layers, 1), corner)
        options = fill(
            QVBoxLayout(),
            fill(QHBoxLayout(), QLabel("Slab"), (self.projection, 2), *slab),
            fill(QHBoxLayout(), QLabel("Contrast"), (self.contrast, 1), (self.profile_on, 1)),
            fill(QHBoxLayout(), self.yz, (self.inset, 1), self.brightest_button),
        )
        hint = QLabel(
            "Drag the lines, click, or hold Shift and point in the viewer.", wordWrap=True
        )
        self.splitter = QSplitter(Qt.Orientation.Vertical, childrenCollapsible=False)
        self.splitter.addWidget(self.canvas)
        self.splitter.addWidget(self.profile)
        self.splitter.setStretchFactor(0, 4)
        self.splitter.setStretchFactor(1, 1)
        fill(
            QVBoxLayout(self),
            above,
            options,
            hint,
            (self.splitter, 1),
            self.bar,
            margin=PAGE_MARGIN,
        )
