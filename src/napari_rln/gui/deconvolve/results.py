"""Comparison of results: side by side, in numbers, as residual maps, and by iteration."""

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
from napari_rln.gui.deconvolve.method_list import Inputs
from napari_rln.gui.deconvolve.streams import (
    COMPARED,
    RESULTS,
    LayerStream,
    ResultStream,
    equalize_contrast,
    result_layers,
)
from napari_rln.gui.events import follow
from napari_rln.gui.fields import widget_for
from napari_rln.gui.jobs import BackgroundJob, JobQueue, Steps, streamed
from napari_rln.gui.layers import LayerImage, record_of, source_of
from napari_rln.gui.layouts import fill
from napari_rln.gui.pickers import LayerPicker
from napari_rln.gui.runbar import RunBar
from napari_rln.psf.examine import fit_psf
from napari_rln.registration.register import RegistrationSettings, TransformKind, register_iter

_RESIDUAL_LIMITS = (-5.0, 5.0)  # standard deviations of the noise


class Results(QWidget):
    """Comparison of the results of the image that was deconvolved last."""

    compared = Signal(object)  # the comparison

    bar: RunBar
    """Bar for error messages, set by the dock."""

    def __init__(self, viewer: ViewerModel, jobs: JobQueue) -> None:
        super().__init__()
        self._viewer, self._jobs = viewer, jobs
        self._inputs: Inputs | None = None
        self._shared: Shared | None = None
        self._hash = ""  # of the image
        self._streams: list[ResultStream] = []  # with kept iterations
        self._compared_states: list[State] = []  # of the layers in the rows of the table
        self._residuals: WeakKeyDictionary[Image, Image] = WeakKeyDictionary()  # by result
        self.truth = LayerPicker(viewer, optional="no truth")
        self.truth.setToolTip("<p>Ground truth; adds PSNR, SSIM and resolution.</p>")
        self.reference = LayerPicker(viewer, optional="no reference")
        self.reference.setToolTip(
            "<p>The same object by another microscope or program, which can be registered to the "
            "image and compared.</p>"
        )
        self.transform = widget_for(TransformKind, value=RegistrationSettings().transform)
        self.register_button = QPushButton("Register")
        self.compare_button = QPushButton("Compare")
        self.residual_button = QPushButton("Residual maps")
        self.side_by_side = QCheckBox("Side by side", checked=True)
        self.table = Table()
        self.browsed, self.browsed_label = QComboBox(), QLabel()
        self.slider = QSlider(Qt.Orientation.Horizontal)
        self._lay_out()
        self.compare_button.clicked.connect(lambda: self.bar.attempt(self.compare))
        self.residual_button.clicked.connect(lambda: self.bar.attempt(self.add_residuals))
        self.register_button.clicked.connect(lambda: self.bar.attempt(self.register))
        self.side_by_side.toggled.connect(self.arrange)
        follow(self, viewer.layers.events.removed, self._on_removed)
        self.browsed.currentIndexChanged.connect(self._on_browsed)
        self.slider.valueChanged.connect(self._browse)

    def _lay_out(self) -> None:
        transform = self.transform.native
        registration = fill(QHBoxLayout(), (self.reference, 1), transform, self.register_button)
        rows = (("Truth", self.truth), ("Reference", registration))
        buttons = (self.compare_button, self.residual_button, self.side_by_side)
        self._browser = QWidget(toolTip="<p>Browse through the kept iterations.</p>")
        browsing = ((self.browsed, 1), (self.slider, 1), self.browsed_label)
        fill(QHBoxLayout(self._browser), *browsing, margin=0)
        self._browser.setVisible(False)
        form = fill(QFormLayout(), *rows, margin=0)
        parts = (form, fill(QHBoxLayout(), *buttons), self.table, self._browser)
        fill(QVBoxLayout(self), *parts, margin=0)

    def add_result(
        self, stream: LayerStream, record: Record, inputs: Inputs, shared: Shared | None = None
    ) -> None:
        """Add a finished result; results are compared within the image of the inputs."""
        self._inputs, self._shared, self._hash = inputs, shared, record.inputs["image"]
        if isinstance(stream, ResultStream) and stream.iterates:
            self._streams.append(stream)
        equalize_contrast(self.layers())
        self._list_browsed()

    def _on_removed(self) -> None:
        self._list_browsed()
        self._mark_outdated()

    def _list_browsed(self) -> None:
        """List the results with kept iterations, and free those of removed layers."""
        self._streams = [s for s in self._streams if s.layer in self._viewer.layers]
        self.browsed.clear()
        self.browsed.addItems([s.layer.name for s in self._streams if s.layer is not None])
        self._browser.setVisible(self.browsed.count() > 0)

    def layers(self) -> list[Image]:
        """Return the layers with results of the image."""
        return result_layers(self._viewer, self._hash, RESULTS)

    def compare(self) -> None:
        """Compare all results of the image in numbers."""
        inputs, results = self._sources()
        truth = None
        if self.truth.layer is not None:
            truth = _crop_like(inputs.image, self.truth.source("the truth"))
        shared, self._shared = self._shared or Shared(), None  # frees its volumes afterwards

        def steps() -> Steps[Comparison]:
            raw = inputs.image.read()
            volumes = [on_voxels_of(raw, result.read()) for result in results]
            fitted = inputs.fitted_psf(raw, shared)
            known = truth.read() if truth else None
            reports = compare_iter(raw, volumes, truth=known, psf=fitted, shared=shared)
            return (yield from streamed(reports))

        states = [state_of(source.layer) for source in (inputs.image, *results)]
        key = inputs.key, *states, *(source and source.key for source in (truth, *results))

        def show(comparison: Comparison) -> None:
            self._compared_states = states
            self.table.show_comparison(comparison)
            self._mark_outdated()
            self.compared.emit(comparison)

        job = BackgroundJob("comparison", steps, key=key, done=show)
        if not self._jobs.is_under_way(job):
            self._jobs.add(job)

    def add_residuals(self) -> None:
        """Add a residual map of every result."""
        inputs, results = self._sources()
        image, psf = inputs.image, inputs.psf
        if psf is None:
            raise RlnError("a residual map needs the PSF; choose it above, and run a method.")
        for result in results:

            def steps(result: LayerImage = result) -> Steps[Volume]:
                raw = image.read()
                fitted, _ = fit_psf(psf.read(), raw, repair=inputs.repair)
                volume = on_voxels_of(raw, result.read())
                check = yield from streamed(check_iter(raw, volume, fitted))
                return check.residual

            def show(residual: Volume, beside: Image = result.layer) -> None:
                limits = _RESIDUAL_LIMITS
                layer = image.layer_of(residual, colormap="PiYG", contrast_limits=limits)
                self._show_residual(layer, beside)

            self._jobs.add(BackgroundJob(f"residual of {result.name}", steps, done=show))

    def _show_residual(self, layer: Image, result: Image) -> None:
        """Add or replace the map beside a result; cells of the grid keep their field of view."""
        layers, canvas = self._viewer.layers, self._viewer.canvas
        if result not in layers:
            return
        before = np.array(canvas.grid.actual_shape(layers))
        older = self._residuals.get(result)
        if older in layers:
            layers.remove(older)
        self._residuals[result] = layer
        layers.insert(layers.index(result) + 1, layer)
        if canvas.grid.enabled and not self._is_part:
            cells = before / canvas.grid.actual_shape(layers)
            self._viewer.scene.camera.zoom *= min(1.0, *cells)

    @property
    def _is_part(self) -> bool:
        """Whether results are of a region, to which the user has moved the camera."""
        return self._inputs is not None and self._inputs.image.box is not None

    def register(self) -> None:
        """Register the reference to the image, on its grid."""
        if self.reference.layer is None:
            raise RlnError("choose the reference, a layer that shows the same object.")
        reference = self.reference.source("the reference")
        image = self._last_inputs().image
        settings = RegistrationSettings(transform=self.transform.value)

        def steps() -> Steps[Volume]:
            return (yield from streamed(register_iter(reference.read(), image.read(), settings)))

        def show(registered: Volume) -> None:
            colormap = reference.layer.colormap
            self._viewer.add_layer(image.layer_of(registered, colormap=colormap))

        self._jobs.add(BackgroundJob(f"registration of {reference.name}", steps, done=show))

    def arrange(self) -> None:
        """Show image and results side by side, or on top of each other."""
        on = self.side_by_side.isChecked() and bool(self.layers())
        grid = self._viewer.canvas.grid
        if on and self._inputs is not None:
            compared = self._compared()
            maps = [self._residuals[layer] for layer in compared if layer in self._residuals]
            shown = [self._inputs.image.layer, *compared, *maps]
            for layer in self._viewer.layers:
                layer.visible = layer in shown
            grid.stride = 1
            grid.shape = (-1, -1)
        if grid.enabled != on:
            grid.enabled = on
            if not self._is_part:
                self._viewer.reset_view()

    def _compared(self) -> list[Image]:
        """Return the results, and registered references."""
        return result_layers(self._viewer, self._hash, COMPARED)

    def _last_inputs(self) -> Inputs:
        if self._inputs is None:
            raise RlnError("deconvolve the image first.")
        return self._inputs

    def _sources(self) -> tuple[Inputs, list[LayerImage]]:
        """Return image and PSF, and the results."""
        inputs, layers = self._last_inputs(), self._compared()
        if not layers:
            raise RlnError("the results of the image were removed; run a method first.")
        point = self._viewer.dims.point
        return inputs, [_crop_like(inputs.image, source_of(layer, point)) for layer in layers]

    def _mark_outdated(self) -> None:
        """Mark the rows of layers that were removed, or show another iteration now."""
        now = [state_of(layer) for layer in self._viewer.layers if isinstance(layer, Image)]
        self.table.mark_outdated([state not in now for state in self._compared_states])

    def _browsed(self) -> ResultStream | None:
        index = self.browsed.currentIndex()
        return self._streams[index] if 0 <= index < len(self._streams) else None

    def _on_browsed(self) -> None:
        stream = self._browsed()
        if stream is None or stream.layer is None:
            return
        iterations = sorted(stream.iterates)
        record = record_of(stream.layer)
        now = record.facts["iterations"] if record else iterations[-1]
        self.slider.blockSignals(True)
        self.slider.setRange(0, len(iterations) - 1)
        self.slider.setValue(int(np.searchsorted(iterations, now)))
        self.slider.blockSignals(False)
        self.browsed_label.setText(f"{now} iterations")

    def _browse(self, index: int) -> None:
        stream = self._browsed()
        if stream is not None and stream.layer is not None:
            iteration = sorted(stream.iterates)[index]
            stream.browse(iteration)
            self.browsed_label.setText(f"{iteration} iterations")
            self.browsed.setItemText(self.browsed.currentIndex(), stream.layer.name)
            self._mark_outdated()


State = tuple[int, Any]
"""Identity of a layer, and the number of iterations that it shows."""


def state_of(layer: Image) -> State:
    """Return the state of a layer, for comparison with a later one."""
    record = record_of(layer)
    return id(layer), record.facts.get("iterations") if record else None


def on_voxels_of(image: Volume, result: Volume) -> Volume:
    """Return a result on the voxels of its image; that of two views may have finer ones."""
    if result.shape == image.shape:
        return result
    data = on_grid(result.data, result.voxel_um, image.shape, image.voxel_um)
    return result.with_data(data, voxel_um=image.voxel_um)


def _crop_like(image: LayerImage, source: LayerImage) -> LayerImage:
    """Return the part of a volume that an image covers, which may be a region."""
    return source.cropped(image.box) if image.box and source.shape != image.shape else source
