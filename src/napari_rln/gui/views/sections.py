"""Lateral and axial sections of a layer.

Lengths and positions are in micrometres, or in the layer's own unit if that is not a length.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyqtgraph as pg
from napari.components import ViewerModel
from napari.layers import Image
from qtpy.QtCore import QRectF, Qt

from napari_rln.core.volume import FloatArray, VoxelUm
from napari_rln.evaluate.figure_content import Display
from napari_rln.evaluate.plane_sections import Limits, Projection, section, slab_of
from napari_rln.gui.layers import displayed_data, edges_of, units_um
from napari_rln.gui.pictures import Plane
from napari_rln.gui.theme import LINE

AXES = {"xy": 0, "xz": 1, "yz": 2}
"""Axis perpendicular to a plane."""

Moved = Callable[[list[float | None]], None]

_AT_ONCE = 4_000_000  # maximum number of voxels projected in the GUI thread

_DOWN_ACROSS = {"xy": (1, 2), "xz": (0, 2), "yz": (0, 1)}
_HOVER = pg.mkPen(LINE, width=3)


class Section(Plane):
    """A plane of a volume, with draggable lines at the intersections with the other planes.

    ``moved`` is called with the position (z, y, x) of a dragged line or a click; None along the
    axis perpendicular to the plane.
    """

    def __init__(self, plane: str, moved: Moved) -> None:
        super().__init__(plane)
        self.setMouseEnabled(True, True)
        self.plane = plane
        self._moved = moved
        for line in self.cross:
            line.setMovable(True)
            line.setHoverPen(_HOVER)
            line.sigDragged.connect(self._on_drag)

    def show_position(self, position: VoxelUm) -> None:
        """Move the lines to a position."""
        down, across = (position[axis] for axis in _DOWN_ACROSS[self.plane])
        self.mark((down, across), LINE)

    def point(self, down: float, across: float) -> list[float | None]:
        """Return a point of the plane as (z, y, x); None along the axis perpendicular to it."""
        point: list[float | None] = [None] * 3
        for axis, value in zip(_DOWN_ACROSS[self.plane], (down, across), strict=True):
            point[axis] = value
        return point

    def mouseClickEvent(self, event: Any) -> None:
        """Move to the clicked position."""
        if event.button() == Qt.MouseButton.LeftButton:
            at = self.mapSceneToView(event.scenePos())
            self._moved(self.point(at.y(), at.x()))
            event.accept()

    def _on_drag(self) -> None:
        across, down = (line.value() for line in self.cross)
        self._moved(self.point(down, across))


class Cut(NamedTuple):
    """Planes of a volume through one of its voxels.

    See :class:`napari_rln.evaluate.figure_content.FigureSettings` for projection and slab.
    """

    data: Any  # (Z, Y, X), in memory or lazy
    voxel: VoxelUm
    centre: tuple[int, int, int]  # voxel in which they intersect
    planes: tuple[str, ...]  # of xy, xz and yz
    projection: Projection
    slab: float | None

    @property
    def is_light(self) -> bool:
        """Whether it is quick to compute: in memory, with few voxels."""
        args = self.centre, self.projection, self.slab
        parts = [slab_of(self.data.shape, self.voxel, AXES[p], *args) for p in self.planes]
        sizes = [math.prod(each.stop - each.start for each in part) for part in parts]
        return isinstance(self.data, np.ndarray) and sum(sizes) <= _AT_ONCE

    def pictures(self) -> dict[str, FloatArray]:
        """Return the planes, read and projected."""
        args = self.centre, self.projection, self.slab
        planes = {p: section(self.data, self.voxel, AXES[p], *args) for p in self.planes}
        return {plane: np.asarray(lazy, np.float32) for plane, lazy in planes.items()}


class SectionColumn:
    """The sections of a layer, one below the other; rebuilt when the layer's units change.

    Planes are some of xy, xz and yz; the viewer's sliders give the time point.
    """

    def __init__(
        self, viewer: ViewerModel, layer: Image, planes: Sequence[str], moved: Moved
    ) -> None:
        self._viewer, self.layer = viewer, layer
        units = units_um(layer.units)
        self.has_lengths = units is not None
        # The last three in micrometres; 1 if they are not lengths.
        self.units = np.ones(min(layer.ndim, 3)) if units is None else units
        self.sections = {plane: Section(plane, moved) for plane in planes}
        self.inset = Plane("magnified")

    @property
    def data(self) -> npt.NDArray[Any]:
        """Displayed volume of the layer, (Z, Y, X)."""
        data, _ = displayed_data(self.layer, self._viewer.dims.point)
        return data if data.ndim == 3 else data[None]

    @property
    def voxel(self) -> VoxelUm:
        """Size of a voxel (z, y, x)."""
        return _three(edges_of(self.layer, self.units), 1.0)

    @property
    def corner(self) -> VoxelUm:
        """Corner of the volume (z, y, x)."""
        origin = np.array(self.layer.data_to_world(np.zeros(self.layer.ndim)))
        first = _three(origin[-3:] * self.units, 0.0)
        z, y, x = (at - size / 2 for at, size in zip(first, self.voxel, strict=True))
        return z, y, x

    @property
    def extent(self) -> VoxelUm:
        """Size of the volume (z, y, x)."""
        z, y, x = (n * v for n, v in zip(self.data.shape, self.voxel, strict=True))
        return z, y, x

    def rect(self, plane: str) -> QRectF:
        """Return position and size of a plane."""
        down, across = _DOWN_ACROSS[plane]
        corner, extent = self.corner, self.extent
        return QRectF(corner[across], corner[down], extent[across], extent[down])

    def voxel_at(self, position: VoxelUm) -> tuple[int, int, int]:
        """Return the voxel (z, y, x) nearest to a position."""
        z, y, x = (
            int(np.clip((p - c) // v, 0, n - 1))
            for p, c, v, n in zip(position, self.corner, self.voxel, self.data.shape, strict=True)
        )
        return z, y, x

    def display(self, limits: Limits | None = None) -> Display:
        """Return limits, gamma and colours of the layer, with other limits if given."""
        low, high = limits or self.layer.contrast_limits
        colours = self.layer.colormap.map(np.linspace(0, 1, 256))
        return Display((low, high), self.layer.gamma, np.asarray(colours, np.float64))

    def cut(self, position: VoxelUm, projection: Projection, slab: float | None) -> Cut:
        """Return the planes through a position, not read yet."""
        centre, planes = self.voxel_at(position), tuple(self.sections)
        return Cut(self.data, self.voxel, centre, planes, projection, slab)

    def show(self, pictures: dict[str, FloatArray], position: VoxelUm, limits: Limits) -> None:
        """Show the pictures of a cut through a position."""
        for plane, box in self.sections.items():
            self._show_in(box, plane, pictures[plane], limits)
            box.show_position(position)
        self._show_in(self.inset, "xy", pictures["xy"], limits)

    def _show_in(self, box: Plane, plane: str, picture: Any, limits: Limits) -> None:
        rect, layer = self.rect(plane), self.layer
        size, corner = (rect.height(), rect.width()), (rect.top(), rect.left())
        display = {"colormap": layer.colormap, "gamma": layer.gamma}
        box.show_picture(picture, size, limits, corner_um=corner, **display)


def _three(values: npt.NDArray[np.float64], missing: float) -> VoxelUm:
    """Return values along z, y and x, with a substitute for a missing z."""
    z, y, x = (missing,) * (3 - len(values)) + tuple(float(value) for value in values)
    return z, y, x
