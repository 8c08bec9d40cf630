"""Which part of an image a run is of: all of it, what is seen, or a drawn rectangle."""

import numpy as np
from napari.components import ViewerModel
from napari.layers import Shapes
from qtpy.QtWidgets import QComboBox, QHBoxLayout, QWidget

from napari_rln.errors import RlnError
from napari_rln.gui.events import follow
from napari_rln.gui.layers import Source, units_um

WHOLE, SEEN, DRAWN = "whole volume", "visible region", "drawn rectangle"
_ROUNDING = 1e-3  # voxels by which a corner may be off the grid for the world's numbers
_LEAST = 16  # voxels along y and x: less holds no structure to judge by


class Region(QWidget):
    """The choice of a region, all planes of it."""

    def __init__(self, viewer: ViewerModel) -> None:
        super().__init__()
        self._viewer = viewer
        self.box = QComboBox()
        self.box.addItems([WHOLE, SEEN, DRAWN])
        self.box.setToolTip(
            "<p>Try settings on a part, in seconds: what is seen of the planes, or the last "
            "rectangle of a shapes layer. All planes are taken.</p>"
        )
        layout = QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.box)
        self.changed = self.box.currentIndexChanged
        follow(self, viewer.layers.events.removed, self._forget_drawn)

    @property
    def is_whole(self) -> bool:
        """Whether nothing is cropped."""
        return bool(self.box.currentText() == WHOLE)

    def choose_whole(self) -> None:
        """Take all of the image from now on."""
        self.box.setCurrentText(WHOLE)

    def of(self, source: Source) -> Source:
        """Return the part of a source that is chosen.

        Raises
        ------
        RlnError
            If there is no such, or it is too small.
        """
        if self.is_whole:
            return source
        corners = self._seen(source) if self.box.currentText() == SEEN else self._drawn(source)
        z, *sides = source.shape
        box = [slice(0, z)]
        for (low, high), n in zip(corners.T, sides, strict=True):
            start = max(int(np.floor(low + _ROUNDING)), 0)
            stop = min(int(np.ceil(high - _ROUNDING)), n)
            if stop - start < min(_LEAST, n):
                raise RlnError(
                    f"the {self.box.currentText()} holds {max(stop - start, 0)} voxels of "
                    f"{source.name} along one side; at least {_LEAST} are needed."
                )
            box.append(slice(start, stop))
        return source.cropped(box)

    def _seen(self, source: Source) -> np.ndarray:
        if self._viewer.dims.ndisplay != 2 or tuple(self._viewer.dims.order[-2:]) != (
            self._viewer.dims.ndim - 2,
            self._viewer.dims.ndim - 1,
        ):
            raise RlnError("look at an xy plane in 2D to take the region that is seen.")
        corners = np.asarray(source.layer.corner_pixels, float)[:, -2:]
        if source.layer.multiscale:  # they are of the level that is drawn
            corners = corners * source.layer.downsample_factors[source.layer.data_level][-2:]
        return corners

    def _drawn(self, source: Source) -> np.ndarray:
        layers = [
            layer for layer in self._viewer.layers if isinstance(layer, Shapes) and layer.data
        ]
        if not layers:
            raise RlnError("draw a rectangle first: add a shapes layer in napari and draw on it.")
        shapes = layers[-1]
        chosen = max(shapes.selected_data, default=len(shapes.data) - 1)
        units = [units_um(layer.units) for layer in (shapes, source.layer)]
        per_unit = 1.0 if any(unit is None for unit in units) else units[0][-1] / units[1][-1]  # type: ignore[index]
        corners = [
            source.layer.world_to_data(per_unit * np.asarray(shapes.data_to_world(vertex)))[-2:]
            for vertex in shapes.data[chosen]
        ]
        return np.array([np.min(corners, axis=0), np.max(corners, axis=0)])

    def _forget_drawn(self) -> None:
        drawn = any(isinstance(layer, Shapes) for layer in self._viewer.layers)
        if self.box.currentText() == DRAWN and not drawn:
            self.choose_whole()
