"""Layers of training examples: a synthetic pair, and planes of a held-out volume.

They are placed to the right of the user's layers, which are hidden meanwhile.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from napari.components import ViewerModel
from napari.layers import Image
from qtpy.QtCore import QObject, QTimer, Signal

from napari_rln.core.volume import FloatArray, VoxelUm
from napari_rln.gui import preferences
from napari_rln.gui.jobs import BackgroundJob, JobQueue, one_step
from napari_rln.gui.layers import DISPLAY_ONLY, contrast_limits, layer_data, units_um
from napari_rln.gui.runbar import RunBar
from napari_rln.gui.training.training_form import TrainingForm
from napari_rln.gui.training.users_view import UsersView
from napari_rln.simulate.imaging import Pair
from napari_rln.train.training_settings import Preview

_GAP = 0.06  # between two volumes, as a fraction of the width
_FILL = 0.9  # of the canvas
_PAUSE_MS = 30  # between adding two layers
_REMOVE_MS = 150  # between removing two layers
_WAIT_MS = 400  # from a change of the structures to another preview, as more may follow
_PAIR = tuple(f"preview \N{MIDDLE DOT} {what}" for what in ("image", "second view", "truth"))
_IMAGE, _START, _NOW, _TRUTH = (
    f"training \N{MIDDLE DOT} {what}"
    for what in ("image", "initial estimate", "network now", "truth")
)

_Layers = dict[str, tuple[FloatArray, dict[str, Any]]]  # arrays and layer options by name


@dataclass(frozen=True)
class _Row:
    """Places beside each other in which layers are shown: names, top, left and width each."""

    names: tuple[str, ...]
    corner: tuple[float, float]
    width: float

    def left_of(self, name: str) -> float:
        """Return the left side of a place in micrometres."""
        return self.corner[1] + self.names.index(name) * (1 + _GAP) * self.width + self._gap

    @property
    def right(self) -> float:
        """Right side of all places in micrometres."""
        return self.left_of(self.names[-1]) + self.width

    @property
    def _gap(self) -> float:
        return _GAP * self.width


class ExampleLayers(QObject):
    """The example layers of a dock in a viewer: a pair, or the planes of a training.

    The planes are shown while ``following`` and no pair is shown.
    """

    changed = Signal()  # shown, or removed

    def __init__(self, viewer: ViewerModel, parent: QObject) -> None:
        super().__init__(parent)
        self._viewer = viewer
        self._view = UsersView(viewer, self)
        self.following = True
        self._layers: dict[str, Image] = {}
        self._row = _Row((), (0.0, 0.0), 0.0)
        # Adding a layer blocks napari for up to 0.1 s; other events are handled in between.
        self._to_add: list[Image] = []
        self._add_timer = QTimer(self, singleShot=True, interval=_PAUSE_MS)
        self._add_timer.timeout.connect(self._add_next)

    @property
    def has_pair(self) -> bool:
        """Whether a pair is shown."""
        return self._row.names[:1] == _PAIR[:1]

    @property
    def has_planes(self) -> bool:
        """Whether planes of a training are shown."""
        return self._row.names[:1] == (_IMAGE,)

    def show_pair(self, pair: Pair) -> None:
        """Show a pair side by side, with its middle at the displayed plane."""
        middle = pair.image.shape[0] // 2 * pair.image.voxel_um[0]
        point = self._viewer.dims.point
        at = point[-3] * self._unit_um() - middle if len(point) > 2 else 0.0
        volumes = zip(_PAIR, (pair.image, pair.second, pair.truth), strict=True)
        layers = {name: layer_data(volume)[:2] for name, volume in volumes if volume is not None}
        self._show(tuple(layers), layers, at)

    def show_preview(self, preview: Preview, voxel_um: VoxelUm) -> None:
        """Show planes of image, initial estimate, the network's present result and the truth."""
        if not self.following or self.has_pair:
            return
        found = {
            _IMAGE: preview.image,
            _START: preview.start,
            _NOW: preview.result,
            _TRUTH: preview.truth,
        }
        limits = dict.fromkeys(found, contrast_limits(preview.truth))
        limits[_IMAGE] = contrast_limits(preview.image)
        plain: dict[str, Any] = {
            "scale": voxel_um[1:],
            "units": ("um", "um"),
            "axis_labels": ("y", "x"),
        }
        ratio = voxel_um[0] / voxel_um[2]
        layers = {
            name: (_mosaic(*planes, ratio), plain | {"contrast_limits": limits[name]})
            for name, planes in found.items()
            if planes is not None
        }
        # The network's result comes later than the others, and has its place from the start.
        names = tuple(name for name in found if name in layers or name == _NOW)
        self._show(names, layers)

    def back(self) -> None:
        """Remove the examples for the user, who wants to see no more of a training."""
        self.following = False
        self.leave()

    def leave(self) -> None:
        """Remove the examples, and restore the user's view."""
        self._remove()
        self._view.restore()
        self.changed.emit()

    def _show(self, names: tuple[str, ...], layers: _Layers, *translate: float) -> None:
        """Show arrays with layer options, by name, in places with names.

        If the places differ from the present ones, all layers are replaced.
        """
        data, options = next(iter(layers.values()))
        width = data.shape[-1] * options["scale"][-1]
        self._view.leave()
        if (names, width) != (self._row.names, self._row.width) or self._are_removed():
            self._remove()
            self._row = row = _Row(names, self._corner(), width)
            height = data.shape[-2] * options["scale"][-2]
            self._look_at(row.corner, (height, row.right - row.corner[1]))
        for name, (data, options) in layers.items():
            if name in self._layers:
                _update(self._layers[name], data, options)
                continue
            place = (*translate, self._row.corner[0], self._row.left_of(name))
            more = {"name": name, "translate": place, "metadata": _metadata(options)}
            self._layers[name] = Image(data, **(options | more))
            self._to_add.append(self._layers[name])
        self._add_timer.start()
        self.changed.emit()

    def _are_removed(self) -> bool:
        """Return whether the user has removed one of the layers."""
        there = {*self._viewer.layers, *self._to_add}
        return any(layer not in there for layer in self._layers.values())

    def _remove(self) -> None:
        self._to_add.clear()
        _retire(self._viewer, [*self._layers.values()])
        self._layers.clear()
        self._row = _Row((), (0.0, 0.0), 0.0)

    def _add_next(self) -> None:
        if not self._to_add:
            return
        chosen = {*self._viewer.layers.selection}
        self._viewer.add_layer(self._to_add.pop(0))
        self._viewer.layers.selection = chosen  # which napari moves to a new layer
        if self._to_add:
            self._add_timer.start()

    def _look_at(self, corner: tuple[float, float], size: tuple[float, float]) -> None:
        """Show a rectangle (y, x) in micrometres; napari's methods need common axes."""
        unit, camera = self._unit_um(), self._viewer.scene.camera
        y, x = ((c + s / 2) / unit for c, s in zip(corner, size, strict=True))
        camera.center = (camera.center[0], y, x)
        room = zip(self._viewer.canvas.size, size, strict=True)
        camera.zoom = _FILL * min(pixels * unit / extent for pixels, extent in room)

    def _corner(self) -> tuple[float, float]:
        """Return the top and the right side of all layers."""
        if not self._viewer.layers:
            return 0.0, 0.0
        low, high = self._viewer.layers.extent.world
        return float(low[-2]) * self._unit_um(), float(high[-1]) * self._unit_um()

    def _unit_um(self) -> float:
        """Return the viewer's unit in micrometres; 1 if it is not a length."""
        units = units_um(self._viewer.layers.units)
        return 1.0 if units is None else float(units[-1])


class PairPreview(QObject):
    """Simulates pairs in a thread by the form of a training, and shows them as layers."""

    def __init__(self, form: TrainingForm, examples: ExampleLayers, bar: RunBar) -> None:
        super().__init__(form)
        self._form, self._examples, self._bar = form, examples, bar
        self.jobs = JobQueue(self)
        self._number = 0
        self._timer = QTimer(self, singleShot=True, interval=_WAIT_MS)
        self._timer.timeout.connect(lambda: bar.attempt(self._add, clicked=False))
        form.preview_button.clicked.connect(self._draw)
        form.another_button.clicked.connect(self._draw_another)
        form.back_button.clicked.connect(examples.back)
        examples.changed.connect(self._refresh)
        form.structures.changed.connect(self._on_change)
        self.jobs.changed.connect(self._refresh)
        self.jobs.failed.connect(bar.show_failure)
        self._refresh()

    def _on_change(self) -> None:
        if self._examples.has_pair:
            self._timer.start()

    def _draw_another(self) -> None:
        self._number += 1
        self._draw()

    def _draw(self) -> None:
        self._bar.attempt(self._add)

    def _add(self) -> None:
        plan, library, number = self._form.plan(), preferences.library(), self._number
        steps = one_step("drawing", lambda: plan.training_set(library).source.pair(number)[0])
        self.jobs.cancel()  # an earlier preview is outdated
        self.jobs.add(BackgroundJob("preview", steps, key=object(), done=self._examples.show_pair))

    def _refresh(self) -> None:
        drawing = self.jobs.running is not None
        ready = "Preview a pair" if not drawing else "Drawing a pair\N{HORIZONTAL ELLIPSIS}"
        self._form.preview_button.setText(ready)
        self._form.preview_button.setVisible(drawing or not self._examples.has_pair)
        for button in (self._form.another_button, self._form.back_button):
            button.setVisible(self._examples.has_pair)


def _retire(viewer: ViewerModel, layers: list[Image]) -> None:
    """Make layers transparent at once, and remove them one by one, between two drawings.

    Removing several at once, or hidden ones, can crash the next drawing if a single layer remains
    visible: vispy deletes the programs that drew them (napari's issues 6472 and 7345).
    """
    layers = [layer for layer in layers if layer in viewer.layers]
    for layer in layers:
        layer.opacity, layer.name = 0.0, f"{layer.name}, removed"  # the name is free again

    def remove_next() -> None:
        layer = layers.pop()
        if layer in viewer.layers:
            viewer.layers.remove(layer)
        if layers:
            QTimer.singleShot(_REMOVE_MS, remove_next)

    if layers:
        QTimer.singleShot(_REMOVE_MS, remove_next)


def _update(layer: Image, data: FloatArray, options: dict[str, Any]) -> None:
    layer.data = data
    if tuple(layer.scale) != tuple(options["scale"]):
        layer.scale = options["scale"]
    layer.contrast_limits = options["contrast_limits"]
    layer.metadata = _metadata(options)


def _metadata(options: dict[str, Any]) -> dict[str, Any]:
    return options.get("metadata", {}) | {DISPLAY_ONLY: True}


def _mosaic(xy: FloatArray, xz: FloatArray, ratio: float) -> FloatArray:
    """Return planes (Y, X) and (Z, X) below each other; ratio is axial to lateral voxel size."""
    rows = np.arange(round(len(xz) * ratio)) / ratio
    gap = np.full((max(1, round(_GAP * xy.shape[1])), xy.shape[1]), np.nan, np.float32)
    return np.concatenate([xy, gap, xz[rows.astype(int)]])
