"""Two layers, with their channels, on both sides of a divider in one canvas."""

from collections.abc import Generator, Sequence
from typing import Any
from weakref import ref

import numpy as np
from napari.components import ViewerModel
from napari.experimental import link_layers, unlink_layers
from napari.layers import Image, Layer
from qtpy.compat import isalive
from qtpy.QtCore import QObject, Signal

from napari_rln.core.errors import RlnError
from napari_rln.gui.compare.names import panel_width, shortened, show_names
from napari_rln.gui.compare.parts import LINKED, divider_of, move, part_of, put, shape_of
from napari_rln.gui.compare.stage import Sides, Stage, check_sides
from napari_rln.gui.compare.world import layer_axis, to_data, to_world
from napari_rln.gui.events import follow

_NEAR, _WIDTH = 10.0, 2.0  # pixels of the canvas: of the grip around the divider, and of its line
_CHANGES = ("scale", "translate", "rotate", "shear", "affine", "units")


class Swipe(QObject):
    """A divider with layers to its left and others to its right, such as channels before and after.

    The layers are only hidden; what is shown are parts of them, which are layers for display only
    with the same data and display. The user drags the divider in the 2D canvas. Its position is
    that in the first layer.
    """

    moved = Signal(float)
    """The new position of the divider."""

    ended = Signal()

    def __init__(self, viewer: ViewerModel, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._viewer = viewer
        self._sides: Sides | None = None
        self._parts: dict[Image, Image] = {}  # by the layer that they are of
        self._line: Image | None = None
        self._stage: Stage | None = None
        self._fraction = 0.5
        self._axis = 0  # of the viewer, across the canvas
        follow(self, viewer.layers.events.removed, self._on_removed)
        follow(self, viewer.dims.events.order, self._restart)
        follow(self, viewer.dims.events.ndisplay, self._fit_line)
        follow(self, viewer.scene.camera.events.zoom, self._fit_line)
        callbacks, weak = viewer.mouse_drag_callbacks, ref(self)

        def dragged(viewer: Any, event: Any) -> Generator[None, None, None]:
            swipe = weak()
            if swipe is None or not isalive(swipe):
                callbacks.remove(dragged)
            else:
                yield from swipe._drag(event)

        callbacks.append(dragged)

    @property
    def is_on(self) -> bool:
        """Whether two sides are compared."""
        return self._sides is not None

    @property
    def position(self) -> float:
        """Position of the divider: from 0, the left edge of the first layer, to 1, the right."""
        return self._fraction

    def start(self, before: Sequence[Layer | None], after: Sequence[Layer | None]) -> None:
        """Show layers to the left of the divider, and others to its right.

        Raises :class:`RlnError` if they are not images with the axis across the canvas.
        """
        sides = check_sides(before, after)
        axis = self._viewer.dims.displayed[-1]
        both = [*sides[0], *sides[1]]
        for layer in both:
            if layer_axis(self._viewer, layer, axis) < 0:
                raise RlnError(
                    f"{layer.name} has no axis across the canvas; roll the axes back, then compare."
                )
        self.stop()
        self._stage = Stage(self._viewer, both)
        half = panel_width(self._viewer) / 2
        for layer in both:
            layer.visible = False
        for layers, side in zip(sides, ("left", "right"), strict=True):
            for i, layer in enumerate(layers):
                name = shortened(f"{side}: {layer.name}", half)
                self._parts[layer] = part_of(layer, name, is_lowest=i == 0)
        first = sides[0][0]
        self._line = divider_of(first, layer_axis(self._viewer, first, axis))
        self._sides, self._axis = sides, axis
        self._place()
        self._fit_line()
        coloured = len(both) > 2
        for layers, corner in zip(sides, ("top_left", "top_right"), strict=True):
            parts = [self._parts[layer] for layer in layers]
            show_names(parts, True, width=half, position=corner, coloured=coloured)
        for index, part in enumerate((*self._parts.values(), self._line)):
            self._viewer.layers.insert(index, part)  # below all others, such as points and shapes
        self._stage.select()
        for layer, part in self._parts.items():
            link_layers((layer, part), _linked(layer))
            layer.events.data.connect(self._place)
            for name in _CHANGES:
                getattr(layer.events, name).connect(self._restart)

    def set_position(self, fraction: float) -> None:
        """Move the divider, between 0 and 1."""
        fraction = float(np.clip(fraction, 0, 1))
        if fraction != self._fraction:
            self._fraction = fraction
            self._place()
            self.moved.emit(fraction)

    def stop(self) -> None:
        """Show again what was shown before."""
        if self._stage is None or self._line is None:
            return
        stage, parts, line = self._stage, self._parts, self._line
        self._sides, self._parts, self._line, self._stage = None, {}, None, None
        for layer, part in parts.items():
            unlink_layers((layer, part), _linked(layer))
            layer.events.data.disconnect(self._place)
            for name in _CHANGES:
                getattr(layer.events, name).disconnect(self._restart)
        # In a batch napari collects garbage once, and not for each layer, which takes 0.4 s.
        with self._viewer.layers.batched_update():
            for part in (*parts.values(), line):
                if part in self._viewer.layers:
                    self._viewer.layers.remove(part)
            stage.end()
        self.ended.emit()

    def _place(self, event: Any = None) -> None:
        """Place the parts and the line on both sides of the divider."""
        if self._sides is None or self._line is None:
            return
        viewer, (before, after) = self._viewer, self._sides
        first, cut = before[0], self._cut
        axis = layer_axis(viewer, first, self._axis)
        at = to_data(viewer, first, viewer.dims.point)
        at[axis] = cut - 0.5  # the boundary between two voxels
        world = np.array(viewer.dims.point)
        world[-first.ndim :] = to_world(viewer, first, at)
        for layers, is_left in ((before, True), (after, False)):
            for layer in layers:
                own = layer_axis(viewer, layer, self._axis)
                edge = round(to_data(viewer, layer, world)[own] + 0.5)
                start, stop = (0, edge) if is_left else (edge, shape_of(layer)[own])
                put(self._parts[layer], layer, own, start, stop)
        move(self._line, first, axis, cut - 0.5)

    @property
    def _first(self) -> Image:
        """First layer of the left side, whose voxels the divider is between."""
        assert self._sides is not None
        return self._sides[0][0]

    @property
    def _cut(self) -> int:
        """First voxel of the first layer that is to the right of the divider."""
        a = self._first
        return round(self._fraction * shape_of(a)[layer_axis(self._viewer, a, self._axis)])

    @property
    def _pixels(self) -> float:
        """Pixels of the canvas per voxel of the first layer, across the canvas."""
        a = self._first
        ends = np.zeros((2, a.ndim))
        ends[1, layer_axis(self._viewer, a, self._axis)] = 1
        start, stop = (to_world(self._viewer, a, end) for end in ends)
        return float(np.linalg.norm(stop - start)) * self._viewer.scene.camera.zoom

    def _fit_line(self) -> None:
        """Draw the line of the divider with a width in pixels, in 2D."""
        if self._line is None:
            return
        a = self._first
        scale = np.array(a.scale)
        scale[layer_axis(self._viewer, a, self._axis)] *= _WIDTH / self._pixels
        self._line.scale = scale
        self._line.visible = self._viewer.dims.ndisplay == 2

    def _drag(self, event: Any) -> Generator[None, None, None]:
        """Follow the mouse, if it was pressed near the divider."""
        if not self.is_on or self._viewer.dims.ndisplay != 2 or event.button != 1:
            return
        a, camera = self._first, self._viewer.scene.camera
        axis = layer_axis(self._viewer, a, self._axis)
        if abs(to_data(self._viewer, a, event.position)[axis] + 0.5 - self._cut) > (
            _NEAR / self._pixels
        ):
            return
        could_pan, camera.mouse_pan = camera.mouse_pan, False
        try:
            yield
            while event.type == "mouse_move" and self.is_on:
                at = to_data(self._viewer, a, event.position)[axis] + 0.5
                self.set_position(at / shape_of(a)[axis])
                yield
        finally:
            camera.mouse_pan = could_pan

    def _restart(self, event: Any = None) -> None:
        if self._sides is not None:
            self.start(*self._sides)

    def _on_removed(self) -> None:
        if self._line is None:
            return
        needed = (*self._parts, *self._parts.values(), self._line)
        if not all(layer in self._viewer.layers for layer in needed):
            self.stop()


def _linked(layer: Image) -> tuple[str, ...]:
    """Return the attributes that a part shares with its layer."""
    return LINKED if layer.rgb else (*LINKED, "colormap")
