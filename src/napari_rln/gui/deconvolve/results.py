"""What is done with results: set side by side, compared in numbers, browsed, checked."""

from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
from napari.components import ViewerModel
from napari.layers import Image
from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import (
    QCheckBox,
    QComboBox,
    QFormLayout,
    QHBoxLayout,
    QLabel,
    QPushButton,
    QSlider,
    QVBoxLayout,
    QWidget,
)

from napari_rln.core.errors import RlnError
from napari_rln.core.grid import on_grid
from napari_rln.core.record import Record
from napari_rln.core.volume import Volume
from napari_rln.deconvolution.shared import Shared
from napari_rln.evaluate.check import check_iter
from napari_rln.evaluate.comparison import Comparison, compare_iter
from napari_rln.gui.deconvolve.comparison_table import Table
from napari_rln.gui.deconvolve.method_list import fitted_psf
from napari_rln.gui.deconvolve.ondisk import Growing
from napari_rln.gui.deconvolve.streams import (
    COMPARED,
    RESULTS,
    ResultStream,
    made_of,
    share_contrast,
)
from napari_rln.gui.events import follow
from napari_rln.gui.fields import field_for
from napari_rln.gui.jobs import BackgroundJob, JobQueue, Steps, streamed
from napari_rln.gui.layers import LayerImage, record_of, source_of
from napari_rln.gui.pickers import LayerPicker
from napari_rln.gui.runbar import RunBar
from napari_rln.psf.examine import fit_psf
from napari_rln.registration.register import RegistrationSettings, TransformKind, register_iter

_RESIDUAL_LIMITS = (-5.0, 5.0)  # standard deviations of the noise


class Results(QWidget):
    """The results of the image that was deconvolved last.

    Parameters
    ----------
    viewer
        Where they are shown.
    jobs
        Of the dock.
    """

    compared = Signal(object)  # the comparison

    def __init__(self, viewer: ViewerModel, jobs: JobQueue) -> None:
        super().__init__()
        self._viewer, self._jobs = viewer, jobs
        self._image: LayerImage | None = None
        self._psf: LayerImage | None = None
        self._mend = True
        self._shared: Shared | None = None
        self._hash = ""
        self._streams: list[ResultStream] = []
        self._states: list[State] = []  # of the table's rows
        self._residuals: WeakKeyDictionary[Image, Image] = WeakKeyDictionary()
        self.truth = LayerPicker(viewer, optional="no truth")
        self.truth.setToolTip("<p>What is known to be there; adds PSNR, SSIM and resolution.</p>")
        self.reference = LayerPicker(viewer, optional="no reference")
        self.reference.setToolTip(
            "<p>The same object by another microscope or program, to be brought onto the image's "
            "grid and compared.</p>"
        )
        self.transform = field_for(TransformKind, value=RegistrationSettings().transform)
        self.register_button = QPushButton("Register")
        self.compare_button = QPushButton("Compare")
        self.residual_button = QPushButton("Residual maps")
        self.side_by_side = QCheckBox("Side by side")
        self.side_by_side.setChecked(True)
        self.table = Table()
        self.browsed, self.slider, self.browsed_at = QComboBox(), QSlider(), QLabel()
        self.slider.setOrientation(Qt.Orientation.Horizontal)
        self._lay_out()
        self.compare_button.clicked.connect(lambda: self.bar.attempt(self.compare))
        self.residual_button.clicked.connect(lambda: self.bar.attempt(self.add_residuals))
        self.register_button.clicked.connect(lambda: self.bar.attempt(self.register))
        self.side_by_side.toggled.connect(self.arrange)
        follow(self, viewer.layers.events.removed, self._on_removed)
        self.browsed.currentIndexChanged.connect(self._on_browsed)
        self.slider.valueChanged.connect(self._browse)

    bar: RunBar
    """Where mistakes are shown; set by the dock, below which it stands."""

    def _lay_out(self) -> None:
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        rows = QFormLayout()
        rows.setContentsMargins(0, 0, 0, 0)
        rows.addRow("Truth", self.truth)
        registering = QHBoxLayout()
        parts = ((self.reference, 1), (self.transform.native, 0), (self.register_button, 0))
        for part, stretch in parts:
            registering.addWidget(part, stretch)
        rows.addRow("Reference", registering)
        layout.addLayout(rows)
        buttons = QHBoxLayout()
        for part in (self.compare_button, self.residual_button, self.side_by_side):
            buttons.addWidget(part)
        layout.addLayout(buttons)
        layout.addWidget(self.table)
        self._browser = QWidget()
        browsing = QHBoxLayout(self._browser)
        browsing.setContentsMargins(0, 0, 0, 0)
        for part, stretch in ((self.browsed, 1), (self.slider, 1), (self.browsed_at, 0)):
            browsing.addWidget(part, stretch)
        self._browser.setToolTip("<p>Browse through the iterations that were kept.</p>")
        self._browser.setVisible(False)
        layout.addWidget(self._browser)

    def arrived(
        self,
        stream: ResultStream | Growing,
        record: Record,
        image: LayerImage,
        psf: LayerImage | None,
        repair: bool,
        shared: Shared | None = None,
    ) -> None:
        """Take a result that is there.

        Parameters
        ----------
        stream
            That it came in.
        record
            Its own.
        image, psf
            What it was made of; a part of the image where only within that results are compared.
        repair
            Whether the PSF was repaired.
        shared
            What the methods found out about the image, for the comparison that follows.
        """
        self._shared = shared
        self._image, self._hash = image, record.inputs["image"]
        self._psf, self._mend = psf, repair
        if isinstance(stream, ResultStream):
            self._streams.append(stream)
        share_contrast(self.layers())
        self._list_browsed()

    def _on_removed(self) -> None:
        self._list_browsed()
        self._mark_rows()

    def _list_browsed(self) -> None:
        """Offer the results whose iterations were kept; of those removed nothing is kept."""
        self._streams = [s for s in self._streams if s.layer in self._viewer.layers]
        held = [s for s in self._streams if s.kept]
        self.browsed.clear()
        self.browsed.addItems([s.layer.name for s in held if s.layer is not None])
        self._browser.setVisible(bool(held))

    def layers(self) -> list[Image]:
        """Return the layers that hold results of the image."""
        return made_of(self._viewer, self._hash, RESULTS)

    def compare(self) -> None:
        """Compare all results of the image, in numbers."""
        image, psf, results = self._held()
        truth, repair = self._truth(image), self._mend
        shared, self._shared = self._shared or Shared(), None  # it holds volumes

        def steps() -> Steps[Comparison]:
            raw = image.read()
            volumes = [on_voxels_of(raw, result.read()) for result in results]
            blur = fitted_psf(psf, raw, repair, shared)
            known = truth.read() if truth else None
            work = compare_iter(raw, volumes, truth=known, psf=blur, shared=shared)
            return (yield from streamed(work))

        states = [state_of(image.layer), *(state_of(result.layer) for result in results)]
        sources = (image, psf, truth, *results)
        key = repair, *states, *(source and source.key for source in sources)

        def show(comparison: Comparison) -> None:
            self._states = states
            self.table.show_comparison(comparison)
            self._mark_rows()
            self.compared.emit(comparison)

        job = BackgroundJob("comparison", steps, key=key, done=show)
        if not self._jobs.is_under_way(job):
            self._jobs.add(job)

    def add_residuals(self) -> None:
        """Add a map of the residual of every result."""
        image, psf, results = self._held()
        if psf is None:
            raise RlnError("a residual map needs the PSF; choose it above, and run a method.")
        repair = self._mend
        for result in results:

            def steps(result: LayerImage = result) -> Steps[Volume]:
                raw = image.read()
                blur, _ = fit_psf(psf.read(), raw, repair=repair)
                seen = on_voxels_of(raw, result.read())
                trust = yield from streamed(check_iter(raw, seen, blur))
                return trust.residual

            def show(residual: Volume, beside: Image = result.layer) -> None:
                limits = _RESIDUAL_LIMITS
                layer = image.layer_of(residual, colormap="PiYG", contrast_limits=limits)
                self._show_residual(layer, beside)

            self._jobs.add(BackgroundJob(f"residual of {result.name}", steps, done=show))

    def _show_residual(self, layer: Image, result: Image) -> None:
        """Add a map beside its result, in place of an older one, with what is seen in the cells."""
        layers, canvas = self._viewer.layers, self._viewer.canvas
        if result not in layers:
            return
        before = np.array(canvas.grid.actual_shape(layers))
        older = self._residuals.get(result)
        if older in layers:
            layers.remove(older)
        self._residuals[result] = layer
        layers.insert(layers.index(result) + 1, layer)
        if canvas.grid.enabled and not self._is_part:  # smaller cells show as much as before
            cells = before / canvas.grid.actual_shape(layers)
            self._viewer.scene.camera.zoom *= min(1.0, *cells)

    @property
    def _is_part(self) -> bool:
        """Whether the results are of a region, which the user has brought into view."""
        return self._image is not None and self._image.box is not None

    def register(self) -> None:
        """Bring the reference onto the grid of the image."""
        if self.reference.layer is None:
            raise RlnError("choose the reference, a layer that shows the same object.")
        reference = self.reference.source("the reference")
        image = self._image_now()
        settings = RegistrationSettings(transform=self.transform.value)

        def steps() -> Steps[Volume]:
            work = register_iter(reference.read(), image.read(), settings)
            return (yield from streamed(work))

        def show(found: Volume) -> None:
            self._viewer.add_layer(image.layer_of(found, colormap=reference.layer.colormap))

        self._jobs.add(BackgroundJob(f"registration of {reference.name}", steps, done=show))

    def arrange(self) -> None:
        """Show raw image and results side by side, or on top of each other."""
        on = self.side_by_side.isChecked() and bool(self.layers())
        grid = self._viewer.canvas.grid
        if on and self._image is not None:
            compared = self._compared()
            maps = [self._residuals[layer] for layer in compared if layer in self._residuals]
            shown = [self._image.layer, *compared, *maps]
            for layer in self._viewer.layers:
                layer.visible = layer in shown
            grid.stride = 1
            grid.shape = (-1, -1)
        if grid.enabled != on:
            grid.enabled = on
            if not self._is_part:
                self._viewer.reset_view()

    def _compared(self) -> list[Image]:
        """Return the results, and references on the image's grid."""
        return made_of(self._viewer, self._hash, COMPARED)

    def _image_now(self) -> LayerImage:
        if self._image is None:
            raise RlnError("deconvolve the image first; then there is something to compare.")
        return self._image

    def _held(self) -> tuple[LayerImage, LayerImage | None, list[LayerImage]]:
        image, layers = self._image_now(), self._compared()
        if not layers:
            raise RlnError("there is no result of the image any more; run a method first.")
        point = self._viewer.dims.point
        results = [source_of(layer, point) for layer in layers]
        return image, self._psf, [_within(result, image) for result in results]

    def _truth(self, image: LayerImage) -> LayerImage | None:
        if self.truth.layer is None:
            return None
        return _within(self.truth.source("the truth"), image)

    def _mark_rows(self) -> None:
        """Mark the rows of what is no longer shown: removed, or browsed to another iteration."""
        now = [state_of(layer) for layer in self._viewer.layers if isinstance(layer, Image)]
        self.table.mark([state not in now for state in self._states])

    def _browsed(self) -> ResultStream | None:
        held = [s for s in self._streams if s.kept]
        at = self.browsed.currentIndex()
        return held[at] if 0 <= at < len(held) else None

    def _on_browsed(self) -> None:
        stream = self._browsed()
        if stream is None or stream.layer is None:
            return
        iterations = sorted(stream.kept)
        record = record_of(stream.layer)
        now = record.facts["iterations"] if record else iterations[-1]
        self.slider.blockSignals(True)
        self.slider.setRange(0, len(iterations) - 1)
        self.slider.setValue(int(np.searchsorted(iterations, now)))
        self.slider.blockSignals(False)
        self.browsed_at.setText(f"{now} iterations")

    def _browse(self, at: int) -> None:
        stream = self._browsed()
        if stream is not None and stream.layer is not None:
            iteration = sorted(stream.kept)[at]
            stream.browse(iteration)
            self.browsed_at.setText(f"{iteration} iterations")
            self.browsed.setItemText(self.browsed.currentIndex(), stream.layer.name)
            self._mark_rows()


State = tuple[int, Any]
"""A layer, and the iteration that it shows."""


def state_of(layer: Image) -> State:
    """Return what tells whether a layer still shows what it showed."""
    record = record_of(layer)
    return id(layer), record.facts.get("iterations") if record else None


def on_voxels_of(image: Volume, result: Volume) -> Volume:
    """Return a result on the voxels of its image: that of two views may have finer ones."""
    if result.shape == image.shape:
        return result
    data = on_grid(result.data, result.voxel_um, image.shape, image.voxel_um)
    return result.with_data(data, voxel_um=image.voxel_um)


def _within(source: LayerImage, image: LayerImage) -> LayerImage:
    """Return a volume where an image is, which may be a part of it."""
    return source.cropped(image.box) if image.box and source.shape != image.shape else source
