"""Layers of training examples: a synthetic pair, and planes of a held-out volume.

They are placed to the right of the user's layers, and keep the selection.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from napari.components import ViewerModel
from napari.layers import Image, Layer
from qtpy.QtCore import QObject, QTimer

from napari_rln.core.volume import FloatArray, VoxelUm
from napari_rln.gui import preferences
from napari_rln.gui.jobs import BackgroundJob, JobQueue, one_step
from napari_rln.gui.layers import DISPLAY_ONLY, contrast_limits, layer_data, units_um
from napari_rln.gui.runbar import RunBar
from napari_rln.gui.training.training_form import TrainingForm
from napari_rln.simulate.imaging import Pair
from napari_rln.train.training_settings import Preview

_GAP = 0.06  # between two volumes, as a fraction of the width
_FILL = 0.9  # of the canvas
_PAUSE_MS = 30  # between adding two layers
_WAIT_MS = 400  # from a change of the structures to another preview, as more may follow
_PAIR = tuple(f"preview \N{MIDDLE DOT} {what}" for what in ("image", "second view", "truth"))
_SECOND = _PAIR[1]  # optional
_PLANES = tuple(f"training \N{MIDDLE DOT} {what}" for what in ("input", "network now", "truth"))


class ExampleLayers(QObject):
    """The example layers of a dock in a viewer."""

    def __init__(self, viewer: ViewerModel, parent: QObject) -> None:
        super().__init__(parent)
        self._viewer = viewer
        self._layers: dict[str, Image] = {}
        # Adding a layer blocks napari for up to 0.1 s; other events are handled in between.
        self._to_add: list[Image] = []
        self._selected: set[Layer] = set()
        self._add_timer = QTimer(self, singleShot=True, interval=_PAUSE_MS)
        self._add_timer.timeout.connect(self._add_next)

    @property
    def has_pair(self) -> bool:
        """Whether a pair is shown."""
        return all(self._is_shown(name) for name in _PAIR if name != _SECOND)

    def show_pair(self, pair: Pair) -> None:
        """Show a pair side by side, with its middle at the displayed plane."""
        middle = pair.image.shape[0] // 2 * pair.image.voxel_um[0]
        point = self._viewer.dims.point
        at = point[-3] * self._unit_um() - middle if len(point) > 2 else 0.0
        volumes = zip(_PAIR, (pair.image, pair.second, pair.truth), strict=True)
        layers = {name: layer_data(volume)[:2] for name, volume in volumes if volume is not None}
        self._show(_PAIR, layers, at)

    def show_preview(self, preview: Preview, voxel_um: VoxelUm) -> None:
        """Show planes of the input, the network's current output and the truth."""
        ratio = voxel_um[0] / voxel_um[2]
        arrays = [
            _mosaic(*planes, ratio) for planes in (preview.image, preview.result, preview.truth)
        ]
        limits = contrast_limits(preview.image), contrast_limits(preview.truth)
        plain: dict[str, Any] = {
            "scale": voxel_um[1:],
            "units": ("um", "um"),
            "axis_labels": ("y", "x"),
        }
        options = [plain | {"contrast_limits": limits[i]} for i in (0, 1, 1)]
        layers = zip(arrays, options, strict=True)
        self._show(_PLANES, dict(zip(_PLANES, layers, strict=True)))

    def _show(
        self,
        group: Sequence[str],
        layers: dict[str, tuple[FloatArray, dict[str, Any]]],
        *translate: float,
    ) -> None:
        """Show arrays with layer options, by name, as one group.

        If the group differs from the displayed one, all its layers are replaced.
        """
        if [name for name in group if self._is_shown(name)] == [*layers]:
            for name, (data, options) in layers.items():
                _update(self._layers[name], data, options)
            return
        self._remove(group)
        if not self._to_add:
            self._selected = {*self._viewer.layers.selection}
        self._viewer.canvas.grid.enabled = False  # the grid would separate them
        top, right = self._corner()
        left = right
        for name, (data, options) in layers.items():
            width = data.shape[-1] * options["scale"][-1]
            right += _GAP * width
            place = options | {"name": name, "translate": (*translate, top, right)}
            place["metadata"] = _metadata(options)
            self._layers[name] = Image(data, **place)
            self._to_add.append(self._layers[name])
            right += width
        data, options = layers[group[0]]
        height = data.shape[-2] * options["scale"][-2]
        self._look_at((top, left), (height, right - left))
        self._add_timer.start()

    def _remove(self, names: Sequence[str]) -> None:
        for name in names:
            layer = self._layers.pop(name, None)
            if layer in self._viewer.layers:
                self._viewer.layers.remove(layer)
            elif layer in self._to_add:
                self._to_add.remove(layer)

    def _add_next(self) -> None:
        self._viewer.add_layer(self._to_add.pop(0))
        if self._to_add:
            self._add_timer.start()
        elif self._selected:
            self._viewer.layers.selection = self._selected & {*self._viewer.layers}

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

    def _is_shown(self, name: str) -> bool:
        layer = self._layers.get(name)
        return layer in self._viewer.layers or layer in self._to_add


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
        form.structures.changed.connect(self._on_change)
        self.jobs.changed.connect(self._refresh)
        self.jobs.failed.connect(bar.show_failure)

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
        self._form.another_button.setEnabled(self._examples.has_pair)


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
