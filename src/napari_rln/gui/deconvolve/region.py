"""Which part of an image a run is of: all of it, what is seen, or a drawn rectangle."""

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

WHOLE, VISIBLE, DRAWN = "whole volume", "visible region", "drawn rectangle"
_ROUNDING = 1e-3  # voxels by which a corner may be off the grid for the world's numbers
_SAMPLE = (64, 384, 384)  # voxels, 9 million, within which results on disk are compared
_LINE, _LINE_WIDTH = "#ffd400", 0.006  # of the rectangle: colour, share of its height
_LEAST = 16  # voxels along y and x: less holds no structure to judge by


class Region(QWidget):
    """The choice of a region, all planes of it.

    What is seen is held from the first run on, whatever the camera does then, and drawn as a
    rectangle, so that the runs that follow are of the same part.

    Parameters
    ----------
    viewer
        What is looked at.
    """

    changed = Signal()
    taken_anew = Signal()
    """The user wants what is seen now."""

    def __init__(self, viewer: ViewerModel) -> None:
        super().__init__()
        self._viewer = viewer
        self._held: Shapes | None = None
        self._had_drawn = False
        self.box = QComboBox()
        self.box.addItems([WHOLE, VISIBLE, DRAWN])
        self.box.setToolTip(
            "<p>Try settings on a part, in seconds: what is seen of the planes, or the last "
            "rectangle of a shapes layer. All planes are taken.</p>"
        )
        self.anew_button = QPushButton("Take anew")
        self.anew_button.setToolTip(
            "<p>The region is the rectangle, for every run. Takes what is seen now instead.</p>"
        )
        self.anew_button.setVisible(False)
        layout = QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.box, 1)
        layout.addWidget(self.anew_button)
        self.box.currentIndexChanged.connect(self._on_choice)
        self.anew_button.clicked.connect(self.taken_anew)
        follow(self, viewer.layers.events.removed, self._on_removed)
        follow(self, viewer.canvas.grid.events.enabled, self._show_held)

    @property
    def is_whole(self) -> bool:
        """Whether nothing is cropped."""
        return bool(self.box.currentText() == WHOLE)

    def choose_whole(self) -> None:
        """Take all of the image from now on."""
        self.box.setCurrentText(WHOLE)

    def of(self, source: LayerImage) -> LayerImage:
        """Return the part of a source that is chosen.

        Raises
        ------
        RlnError
            If there is no such, or it is too small.
        """
        if self.is_whole:
            return source
        box = self._box(source)
        whole = all(part == slice(0, n) for part, n in zip(box, source.shape, strict=True))
        return source if whole else source.cropped(box)

    def hold(self, source: LayerImage) -> None:
        """Keep what is seen of a source now for all runs, where that is chosen and none is kept.

        Raises
        ------
        RlnError
            As :meth:`of`.
        """
        if self.box.currentText() != VISIBLE or self._held is not None:
            return
        _, rows, columns = self._box(source)
        corners = [(y, x) for y in (rows.start, rows.stop) for x in (columns.start, columns.stop)]
        selected = {*self._viewer.layers.selection}
        self._held = Shapes(
            [np.array(corners, float)[[0, 1, 3, 2]]],
            shape_type="rectangle",
            name="region",
            edge_color=_LINE,
            edge_width=_LINE_WIDTH * (rows.stop - rows.start),
            face_color="transparent",
            metadata={DISPLAY_ONLY: True},
            **source.plane_place,
        )
        self._viewer.add_layer(self._held)
        self._viewer.layers.selection = selected
        follow(self, self._held.events.data, self._on_moved)
        self._show_held()
        self.anew_button.setVisible(True)

    def hold_anew(self, source: LayerImage) -> None:
        """Keep what is seen of a source now, instead of what was kept.

        Raises
        ------
        RlnError
            As :meth:`of`; what was kept stays then.
        """
        before, self._held = self._held, None
        try:
            self._box(source)
        except RlnError:
            self._held = before
            raise
        self._held = before
        self._release()
        self.hold(source)
        self.changed.emit()

    def seen_now(self, source: LayerImage) -> Box | None:
        """Return what is seen of the plane that is looked at; none where that is no xy plane."""
        try:
            low, high = self._seen(source)
        except RlnError:
            return None
        at = self._in_data(source, np.array(self._viewer.dims.point[-2:]))
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
        """Return a part small enough to compute with at once, about what is seen now."""
        if all(n <= most for n, most in zip(source.shape, _SAMPLE, strict=True)):
            return source
        seen = self.seen_now(source) or tuple(slice(0, n) for n in source.shape)
        box = []
        for part, n, most in zip(seen, source.shape, _SAMPLE, strict=True):
            size = min(n, most)
            start = min(max((part.start + part.stop - size) // 2, 0), n - size)
            box.append(slice(start, start + size))
        return source.cropped(box)

    def _box(self, source: LayerImage) -> Box:
        """Return the slices (z, y, x) of what is chosen of a source."""
        if self.box.currentText() == DRAWN:
            corners = self._corners_of(self._drawn(), source)
        elif self._held is not None:
            corners = self._corners_of(self._held, source)
        else:
            corners = self._seen(source)
        z, *sides = source.shape
        box = []
        for (low, high), n in zip(corners.T, sides, strict=True):
            start = max(int(np.floor(low + _ROUNDING)), 0)
            stop = min(int(np.ceil(high - _ROUNDING)), n)
            if stop - start < min(_LEAST, n):
                raise FieldError(
                    f"the {self.box.currentText()} holds {max(stop - start, 0)} voxels of "
                    f"{source.name} along one side; at least {_LEAST} are needed.",
                    self.box,
                )
            box.append(slice(start, stop))
        rows, columns = box
        return slice(0, z), rows, columns

    def _seen(self, source: LayerImage) -> np.ndarray:
        if self._viewer.dims.ndisplay != 2 or tuple(self._viewer.dims.order[-2:]) != (
            self._viewer.dims.ndim - 2,
            self._viewer.dims.ndim - 1,
        ):
            raise FieldError("look at an xy plane in 2D to take the region that is seen.", self.box)
        # By the camera: what a layer of several levels says of itself is whole chunks, and old.
        canvas, camera = self._viewer.canvas, self._viewer.scene.camera
        views = canvas.grid.actual_shape(self._viewer.layers)
        half = np.divide(canvas.size, views) / camera.zoom / 2
        middle = np.array(camera.center[-2:])
        corners = [self._in_data(source, middle + way * half)[-2:] for way in (-1, 1)]
        return np.sort(corners, axis=0)

    def _in_data(self, source: LayerImage, place: np.ndarray) -> np.ndarray:
        """Return where in a layer's data a place (y, x) of the viewer's plane lies."""
        point = np.array((*self._viewer.dims.point[:-2], *place))
        # A viewer of layers with several units shows them in the first's.
        units = [units_um(held.units) for held in (self._viewer.layers, source.layer)]
        if all(unit is not None for unit in units):
            n = min(3, source.layer.ndim, len(point))
            point[-n:] *= units[0][-n:] / units[1][-n:]  # type: ignore[index]
        return np.asarray(source.layer.world_to_data(point))

    def _drawn(self) -> Shapes:
        """Return the layer that the user drew on last."""
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
        """Return where in a source's data the chosen shape, or the last, begins and ends (y, x)."""
        chosen = max(shapes.selected_data, default=len(shapes.data) - 1)
        units = [units_um(layer.units) for layer in (shapes, source.layer)]
        per_unit = 1.0 if any(unit is None for unit in units) else units[0][-1] / units[1][-1]  # type: ignore[index]
        corners = [
            source.layer.world_to_data(per_unit * np.asarray(shapes.data_to_world(vertex)))[-2:]
            for vertex in shapes.data[chosen]
        ]
        return np.array([np.min(corners, axis=0), np.max(corners, axis=0)])

    def _show_held(self) -> None:
        """Show the rectangle, except among layers side by side, where it would stand alone."""
        if self._held is not None:
            self._held.visible = not self._viewer.canvas.grid.enabled

    def _on_moved(self) -> None:
        self.changed.emit()

    def _release(self) -> None:
        """Keep no region any more."""
        held, self._held = self._held, None
        if held is not None and held in self._viewer.layers:
            self._viewer.layers.remove(held)
        self.anew_button.setVisible(False)

    def _on_choice(self) -> None:
        if self.box.currentText() != VISIBLE:
            self._release()
        self._had_drawn = bool(self._drawings())
        self.changed.emit()

    def _on_removed(self) -> None:
        if self._held is not None and self._held not in self._viewer.layers:
            self._release()
            self.changed.emit()
        had, self._had_drawn = self._had_drawn, bool(self._drawings())
        if self.box.currentText() == DRAWN and had and not self._had_drawn:
            self.choose_whole()
