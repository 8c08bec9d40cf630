"""Choice of the region to deconvolve: the whole volume, the visible part, or a rectangle."""

import numpy as np
from napari.components import ViewerModel
from napari.layers import Shapes
from qtpy.QtCore import Signal
from qtpy.QtWidgets import QComboBox, QHBoxLayout, QPushButton, QWidget

from napari_rln.core.errors import RlnError
from napari_rln.core.volume import Box
from napari_rln.gui.events import follow
from napari_rln.gui.field_errors import FieldError
from napari_rln.gui.layers import DISPLAY_ONLY, LayerImage, units_um
from napari_rln.gui.layouts import fill
from napari_rln.gui.theme import LINE

WHOLE, VISIBLE, DRAWN = "whole image", "visible region", "drawn rectangle"
_ROUNDING = 1e-3  # tolerance in voxels for rounding errors of world coordinates
_MAX_SAMPLE = (64, 384, 384)  # voxels, 9 million, within which results on disk are compared
_LINE_WIDTH = 0.006  # of the rectangle, as a fraction of its height
_MIN_SIDE = 16  # voxels along y and x: smaller regions have no structure to judge by


class Region(QWidget):
    """Choice of a region, with all planes.

    At the first run the visible region is fixed and drawn as a rectangle, so that later runs use
    the same region wherever the camera is.
    """

    changed = Signal()
    update_requested = Signal()
    """The user wants the region that is visible now."""

    def __init__(self, viewer: ViewerModel) -> None:
        super().__init__()
        self._viewer = viewer
        self._rectangle: Shapes | None = None  # the visible region, once it is fixed
        self._had_drawn = False
        self.box = QComboBox()
        self.box.addItems([WHOLE, VISIBLE, DRAWN])
        self.box.setToolTip(
            "<p>Try settings on a small region, in seconds: the visible part of the planes, or the "
            "last rectangle of a shapes layer, with all planes. Choose the whole image at the "
            "end.</p>"
        )
        tip = "<p>All runs use the yellow rectangle. Click to use the part that is visible now.</p>"
        self.update_button = QPushButton("Update region", toolTip=tip)
        self.update_button.setVisible(False)
        fill(QHBoxLayout(self), (self.box, 1), self.update_button, margin=0)
        self.box.currentIndexChanged.connect(self._on_choice)
        self.update_button.clicked.connect(self.update_requested)
        follow(self, viewer.layers.events.removed, self._on_removed)
        follow(self, viewer.canvas.grid.events.enabled, self._show_rectangle)

    @property
    def is_whole(self) -> bool:
        """Whether the whole volume is chosen."""
        return bool(self.box.currentText() == WHOLE)

    def choose_whole(self) -> None:
        """Choose the whole volume."""
        self.box.setCurrentText(WHOLE)

    def part_of(self, source: LayerImage) -> LayerImage:
        """Return the chosen part of an image.

        Raises :class:`RlnError` if there is no region, or it is too small.
        """
        if self.is_whole:
            return source
        box = self._box(source)
        whole = all(part == slice(0, n) for part, n in zip(box, source.shape, strict=True))
        return source if whole else source.cropped(box)

    def fix_visible(self, source: LayerImage) -> None:
        """Fix the visible region, if chosen and not fixed yet; errors as in :meth:`part_of`."""
        if self.box.currentText() != VISIBLE or self._rectangle is not None:
            return
        _, rows, columns = self._box(source)
        corners = [(y, x) for y in (rows.start, rows.stop) for x in (columns.start, columns.stop)]
        selected = {*self._viewer.layers.selection}
        self._rectangle = Shapes(
            [np.array(corners, float)[[0, 1, 3, 2]]],
            shape_type="rectangle",
            name="region",
            edge_color=LINE,
            edge_width=_LINE_WIDTH * (rows.stop - rows.start),
            face_color="transparent",
            metadata={DISPLAY_ONLY: True},
            **source.lateral_transform,
        )
        self._viewer.add_layer(self._rectangle)
        self._viewer.layers.selection = selected
        follow(self, self._rectangle.events.data, self._on_moved)
        self._show_rectangle()
        self.update_button.setVisible(True)

    def update_visible(self, source: LayerImage) -> None:
        """Fix the region that is visible now; the previous one stays if it raises an error."""
        self._box(source, self._visible_corners(source))
        self._remove_rectangle()
        self.fix_visible(source)
        self.changed.emit()

    def visible_box(self, source: LayerImage) -> Box | None:
        """Return the visible part of the displayed xy plane; None without an xy plane."""
        try:
            low, high = self._visible_corners(source)
        except RlnError:
            return None
        at = self._to_data(source, np.array(self._viewer.dims.point[-2:]))
        z, y, x = source.shape
        plane = int(np.clip(np.rint(at[-3]), 0, z - 1)) if len(at) > 2 else 0
        rows, columns = (
            slice(max(int(a), 0), min(int(np.ceil(b)), n))
            for a, b, n in zip(low, high, (y, x), strict=True)
        )
        if rows.start >= rows.stop or columns.start >= columns.stop:
            return None
        return slice(plane, plane + 1), rows, columns

    def sample(self, source: LayerImage) -> LayerImage:
        """Return a part, about the visible one, that is small enough to evaluate in memory."""
        return sample_of(source, self.visible_box(source))

    def _box(self, source: LayerImage, corners: np.ndarray | None = None) -> Box:
        """Return the slices (z, y, x) between corners (y, x), by default of the chosen region."""
        if corners is None:
            if self.box.currentText() == DRAWN:
                corners = self._corners_of(self._drawn(), source)
            elif self._rectangle is not None:
                corners = self._corners_of(self._rectangle, source)
            else:
                corners = self._visible_corners(source)
        z, *sides = source.shape
        box = []
        for (low, high), n in zip(corners.T, sides, strict=True):
            start = max(int(np.floor(low + _ROUNDING)), 0)
            stop = min(int(np.ceil(high - _ROUNDING)), n)
            if stop - start < min(_MIN_SIDE, n):
                raise FieldError(
                    f"the {self.box.currentText()} is {max(stop - start, 0)} voxels of "
                    f"{source.name} wide or high; choose a larger one, of at least {_MIN_SIDE}.",
                    self.box,
                )
            box.append(slice(start, stop))
        rows, columns = box
        return slice(0, z), rows, columns

    def _visible_corners(self, source: LayerImage) -> np.ndarray:
        """Return the corners (y, x) of the visible part in the data of an image."""
        dims = self._viewer.dims
        if dims.ndisplay != 2 or tuple(dims.order[-2:]) != (dims.ndim - 2, dims.ndim - 1):
            raise FieldError("show an xy plane in 2D to use the visible region.", self.box)
        # From the camera: the corners that a multiscale layer reports are of chunks, and outdated.
        canvas, camera = self._viewer.canvas, self._viewer.scene.camera
        views = canvas.grid.actual_shape(self._viewer.layers)
        half = np.divide(canvas.size, views) / camera.zoom / 2
        middle = np.array(camera.center[-2:])
        corners = [self._to_data(source, middle + sign * half)[-2:] for sign in (-1, 1)]
        return np.sort(corners, axis=0)

    def _to_data(self, source: LayerImage, position: np.ndarray) -> np.ndarray:
        """Return data coordinates of a position (y, x) on the displayed plane."""
        point = np.array((*self._viewer.dims.point[:-2], *position))
        # Of layers in several units a viewer uses that of the first.
        units = [units_um(each.units) for each in (self._viewer.layers, source.layer)]
        if all(unit is not None for unit in units):
            n = min(3, source.layer.ndim, len(point))
            point[-n:] *= units[0][-n:] / units[1][-n:]  # type: ignore[index]
        return np.asarray(source.layer.world_to_data(point))

    def _drawn(self) -> Shapes:
        """Return the last shapes layer of the user that is not empty."""
        layers = [layer for layer in self._drawings() if layer.data]
        if not layers:
            raise FieldError(
                "draw a rectangle first: add a shapes layer in napari and draw on it.", self.box
            )
        self._had_drawn = True
        return layers[-1]

    def _drawings(self) -> list[Shapes]:
        layers = (layer for layer in self._viewer.layers if isinstance(layer, Shapes))
        return [layer for layer in layers if DISPLAY_ONLY not in layer.metadata]

    def _corners_of(self, shapes: Shapes, source: LayerImage) -> np.ndarray:
        """Return the corners (y, x) of the selected, or last, shape in the data of an image."""
        selected = max(shapes.selected_data, default=len(shapes.data) - 1)
        units = [units_um(layer.units) for layer in (shapes, source.layer)]
        per_unit = 1.0 if any(unit is None for unit in units) else units[0][-1] / units[1][-1]  # type: ignore[index]
        corners = [
            source.layer.world_to_data(per_unit * np.asarray(shapes.data_to_world(vertex)))[-2:]
            for vertex in shapes.data[selected]
        ]
        return np.array([np.min(corners, axis=0), np.max(corners, axis=0)])

    def _show_rectangle(self) -> None:
        """Show the rectangle, except in grid mode, where it would fill a cell of its own."""
        if self._rectangle is not None:
            self._rectangle.visible = not self._viewer.canvas.grid.enabled

    def _on_moved(self) -> None:
        self.changed.emit()

    def _remove_rectangle(self) -> None:
        rectangle, self._rectangle = self._rectangle, None
        if rectangle is not None and rectangle in self._viewer.layers:
            self._viewer.layers.remove(rectangle)
        self.update_button.setVisible(False)

    def _on_choice(self) -> None:
        if self.box.currentText() != VISIBLE:
            self._remove_rectangle()
        self._had_drawn = bool(self._drawings())
        self.changed.emit()

    def _on_removed(self) -> None:
        if self._rectangle is not None and self._rectangle not in self._viewer.layers:
            self._remove_rectangle()
            self.changed.emit()
        had, self._had_drawn = self._had_drawn, bool(self._drawings())
        if self.box.currentText() == DRAWN and had and not self._had_drawn:
            self.choose_whole()


def sample_of(source: LayerImage, around: Box | None = None) -> LayerImage:
    """Return a part, about another or the middle, that is small enough to evaluate in memory."""
    if all(n <= most for n, most in zip(source.shape, _MAX_SAMPLE, strict=True)):
        return source
    middle, box = around or tuple(slice(0, n) for n in source.shape), []
    for part, n, most in zip(middle, source.shape, _MAX_SAMPLE, strict=True):
        size = min(n, most)
        start = min(max((part.start + part.stop - size) // 2, 0), n - size)
        box.append(slice(start, start + size))
    return source.cropped(box)
