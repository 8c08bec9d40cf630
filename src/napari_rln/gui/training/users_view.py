"""The user's view of the layers, put aside while examples are shown and restored afterwards."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from napari.components import ViewerModel
from napari.layers import Layer
from qtpy.QtCore import QObject

from napari_rln.gui.layers import DISPLAY_ONLY

_CAMERA = ("center", "zoom", "angles")


@dataclass(frozen=True, kw_only=True, eq=False)
class _Saved:
    """What the user saw: visible layers, camera, sliders, axes and grid."""

    visible: tuple[Layer, ...]
    camera: dict[str, Any]
    step: tuple[int, ...]
    order: tuple[int, ...]
    ndisplay: int
    grid: bool


class UsersView(QObject):
    """The user's view, put aside with :meth:`leave` and restored with :meth:`restore`.

    Nothing that the user does in between is undone: layers that he shows stay visible, and with one
    of them visible he looks at his own image again, so that camera, sliders and grid stay as well.
    """

    def __init__(self, viewer: ViewerModel, parent: QObject) -> None:
        super().__init__(parent)
        self._viewer = viewer
        self._saved: _Saved | None = None
        self._shown: set[Layer] = set()  # by the user meanwhile
        self._followed: list[Layer] = []

    def leave(self) -> None:
        """Hide all layers, and show planes flat; does nothing if that is done already."""
        if self._saved is not None:
            return
        viewer, camera = self._viewer, self._viewer.scene.camera
        self._saved = _Saved(
            visible=tuple(layer for layer in viewer.layers if layer.visible),
            camera={name: getattr(camera, name) for name in _CAMERA},
            step=tuple(viewer.dims.current_step),
            order=tuple(viewer.dims.order),
            ndisplay=viewer.dims.ndisplay,
            grid=viewer.canvas.grid.enabled,
        )
        for layer in self._saved.visible:
            layer.visible = False
        viewer.dims.ndisplay, viewer.dims.order = 2, tuple(range(viewer.dims.ndim))
        viewer.canvas.grid.enabled = False  # it would separate the examples
        self._follow(viewer.layers)
        viewer.layers.events.inserted.connect(self._on_insert)

    def restore(self) -> None:
        """Restore the view, once the examples are removed."""
        saved, self._saved = self._saved, None
        if saved is None:
            return
        self._viewer.layers.events.inserted.disconnect(self._on_insert)
        for layer in self._followed:
            layer.events.visible.disconnect(self._on_visible)
        for layer in saved.visible:
            layer.visible = True
        stays = any(layer in self._viewer.layers for layer in self._shown)
        self._followed, self._shown = [], set()
        if stays:
            return
        dims, camera = self._viewer.dims, self._viewer.scene.camera
        if dims.ndim == len(saved.order):
            dims.ndisplay, dims.order, dims.current_step = saved.ndisplay, saved.order, saved.step
        self._viewer.canvas.grid.enabled = saved.grid
        for name, value in saved.camera.items():  # last, as the others change it
            setattr(camera, name, value)

    def _follow(self, layers: Iterable[Layer]) -> None:
        for layer in layers:
            if DISPLAY_ONLY not in layer.metadata:
                layer.events.visible.connect(self._on_visible)
                self._followed.append(layer)

    def _on_visible(self, event: Any) -> None:
        layer = event.source
        (self._shown.add if layer.visible else self._shown.discard)(layer)

    def _on_insert(self, event: Any) -> None:
        """Regard a layer that comes meanwhile as shown by the user."""
        self._follow([event.value])
        if DISPLAY_ONLY not in event.value.metadata and event.value.visible:
            self._shown.add(event.value)
