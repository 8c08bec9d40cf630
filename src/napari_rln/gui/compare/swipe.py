"""Two layers in one canvas: on both sides of a divider, or one after the other."""

from collections.abc import Generator
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
from napari_rln.gui.compare.stage import Stage, check_pair
from napari_rln.gui.compare.world import layer_axis, to_data, to_world
from napari_rln.gui.events import follow

_NEAR, _WIDTH = 10.0, 2.0  # pixels of the canvas: of the grip around the divider, and of its line
_CHANGES = ("scale", "translate", "rotate", "shear", "affine", "units")


class Swipe(QObject):
    """A divider with one layer to its left and another one to its right.

    The two layers are only hidden; what is shown are parts of them, which are layers for display
    only with the same data and display. The user drags the divider in the 2D canvas.
    """

    moved = Signal(float)
    """The new position of the divider."""

    ended = Signal()

    def __init__(self, viewer: ViewerModel, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._viewer = viewer
        self._pair: tuple[Image, Image] | None = None
        self._parts: list[Image] = []
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
        """Whether two layers are compared."""
        return self._pair is not None

    @property
    def position(self) -> float:
        """Position of the divider: from 0, the left edge of the first layer, to 1, the right."""
        return self._fraction

    def start(self, a: Layer, b: Layer) -> None:
        """Show a layer to the left of the divider, and another one to its right.

        Raises :class:`RlnError` if they are not two images with the axis across the canvas.
        """
        pair = check_pair(a, b)
        axis = self._viewer.dims.displayed[-1]
        for layer in pair:
            if layer_axis(self._viewer, layer, axis) < 0:
                raise RlnError(
                    f"{layer.name} has no axis across the canvas; roll the axes back, then compare."
                )
        self.stop()
        self._stage = Stage(self._viewer, pair)
        half = panel_width(self._viewer) / 2
        for layer in pair:
            layer.visible = False
        left, right = (
            part_of(layer, shortened(f"{side}: {layer.name}", half))
            for layer, side in zip(pair, ("left", "right"), strict=True)
        )
        line = divider_of(pair[0], layer_axis(self._viewer, pair[0], axis))
        self._pair, self._parts, self._axis = pair, [left, right, line], axis
        self._place()
        self._fit_line()
        for index, part in enumerate(self._parts):  # below all others, such as points and shapes
            self._viewer.layers.insert(index, part)
        self._stage.select()
        for layer, part in zip(pair, self._parts, strict=False):
            link_layers((layer, part), _linked(layer))
            layer.events.data.connect(self._place)
            for name in _CHANGES:
                getattr(layer.events, name).connect(self._restart)
        for part, corner in ((left, "top_left"), (right, "top_right")):
            show_names((part,), True, width=half, position=corner)

    def set_position(self, fraction: float) -> None:
        """Move the divider, between 0 and 1."""
        fraction = float(np.clip(fraction, 0, 1))
        if fraction != self._fraction:
            self._fraction = fraction
            self._place()
            self.moved.emit(fraction)

    def stop(self) -> None:
        """Show again what was shown before."""
        if self._pair is None or self._stage is None:
            return
        pair, parts, stage = self._pair, self._parts, self._stage
        self._pair, self._parts, self._stage = None, [], None
        for layer, part in zip(pair, parts, strict=False):
            unlink_layers((layer, part), _linked(layer))
            layer.events.data.disconnect(self._place)
            for name in _CHANGES:
                getattr(layer.events, name).disconnect(self._restart)
        for part in parts:
            if part in self._viewer.layers:
                self._viewer.layers.remove(part)
        stage.end()
        self.ended.emit()

    def _place(self, event: Any = None) -> None:
        """Place the parts and the line on both sides of the divider."""
        if self._pair is None:
            return
        (a, b), (left, right, line) = self._pair, self._parts
        axis, other = (layer_axis(self._viewer, layer, self._axis) for layer in (a, b))
        at = to_data(self._viewer, a, self._viewer.dims.point)
        at[axis] = self._cut - 0.5  # the boundary between two voxels
        world = np.array(self._viewer.dims.point)
        world[-a.ndim :] = to_world(self._viewer, a, at)
        put(left, a, axis, 0, self._cut)
        first = round(to_data(self._viewer, b, world)[other] + 0.5)
        put(right, b, other, first, shape_of(b)[other])
        move(line, a, axis, self._cut - 0.5)

    @property
    def _cut(self) -> int:
        """First voxel of the first layer that is to the right of the divider."""
        assert self._pair is not None
        a, _ = self._pair
        return round(self._fraction * shape_of(a)[layer_axis(self._viewer, a, self._axis)])

    @property
    def _pixels(self) -> float:
        """Pixels of the canvas per voxel of the first layer, across the canvas."""
        assert self._pair is not None
        a, _ = self._pair
        ends = np.zeros((2, a.ndim))
        ends[1, layer_axis(self._viewer, a, self._axis)] = 1
        start, stop = (to_world(self._viewer, a, end) for end in ends)
        return float(np.linalg.norm(stop - start)) * self._viewer.scene.camera.zoom

    def _fit_line(self) -> None:
        """Draw the line of the divider with a width in pixels, in 2D."""
        if self._pair is None:
            return
        (a, _), line = self._pair, self._parts[-1]
        scale = np.array(a.scale)
        scale[layer_axis(self._viewer, a, self._axis)] *= _WIDTH / self._pixels
        line.scale = scale
        line.visible = self._viewer.dims.ndisplay == 2

    def _drag(self, event: Any) -> Generator[None, None, None]:
        """Follow the mouse, if it was pressed near the divider."""
        if self._pair is None or self._viewer.dims.ndisplay != 2 or event.button != 1:
            return
        (a, _), camera = self._pair, self._viewer.scene.camera
        axis = layer_axis(self._viewer, a, self._axis)
        if abs(to_data(self._viewer, a, event.position)[axis] + 0.5 - self._cut) > (
            _NEAR / self._pixels
        ):
            return
        could_pan, camera.mouse_pan = camera.mouse_pan, False
        try:
            yield
            while event.type == "mouse_move" and self._pair is not None:
                at = to_data(self._viewer, a, event.position)[axis] + 0.5
                self.set_position(at / shape_of(a)[axis])
                yield
        finally:
            camera.mouse_pan = could_pan

    def _restart(self, event: Any = None) -> None:
        if self._pair is not None:
            self.start(*self._pair)

    def _on_removed(self) -> None:
        if self._pair is None:
            return
        if not all(layer in self._viewer.layers for layer in (*self._pair, *self._parts)):
            self.stop()


class Blink(QObject):
    """Two layers in turn, at the same place; the names show which one it is."""

    ended = Signal()

    def __init__(self, viewer: ViewerModel, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._viewer = viewer
        self._pair: tuple[Image, Image] | None = None
        self._stage: Stage | None = None
        follow(self, viewer.layers.events.removed, self._on_removed)

    @property
    def is_on(self) -> bool:
        """Whether two layers are compared."""
        return self._pair is not None

    def start(self, a: Layer, b: Layer) -> None:
        """Show a layer, and hide another one until :meth:`toggle`.

        Raises :class:`RlnError` if they are not two images.
        """
        pair = check_pair(a, b)
        self.stop()
        self._pair, self._stage = pair, Stage(self._viewer, pair)
        a.visible, b.visible = True, False
        show_names(pair, True, width=panel_width(self._viewer))

    def toggle(self) -> None:
        """Show the other one of the two layers."""
        if self._pair is not None:
            a, b = self._pair
            a.visible, b.visible = not a.visible, a.visible

    def stop(self) -> None:
        """Show again what was shown before."""
        if self._pair is None or self._stage is None:
            return
        show_names(self._pair, False)
        stage, self._pair, self._stage = self._stage, None, None
        stage.end()
        self.ended.emit()

    def _on_removed(self) -> None:
        if self._pair and not all(layer in self._viewer.layers for layer in self._pair):
            self.stop()


def _linked(layer: Image) -> tuple[str, ...]:
    """Return the attributes that a part shares with its layer."""
    return LINKED if layer.rgb else (*LINKED, "colormap")
