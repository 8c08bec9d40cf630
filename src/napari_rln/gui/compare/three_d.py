"""Switch between planes and rendering in 3D, each with the view that it had."""

from typing import TYPE_CHECKING, Any
from weakref import WeakSet

from qtpy.QtWidgets import QCheckBox

from napari_rln.gui.events import follow
from napari_rln.gui.layers import is_image

if TYPE_CHECKING:
    import napari
    from napari.layers import Image

_CAMERA = ("center", "zoom", "angles", "perspective")
_DEFAULT, _RENDERING = "mip", "attenuated_mip"  # napari's, and one in which depth can be seen
_ANGLES = (0.0, 20.0, 70.0)  # degrees: from above, towards a corner


class ThreeD(QCheckBox):
    """A checkbox of the rendering in 3D.

    Camera and sliders of both are kept, as is the grid. Images get a rendering that shows depth,
    once, unless the user has chosen another one than napari's.
    """

    def __init__(self, viewer: "napari.viewer.Viewer") -> None:
        tip = "<p>Tick to render the stacks in 3D: drag to turn, scroll to zoom. Untick to return "
        super().__init__("3D", toolTip=f"{tip}to the plane that you left.</p>")
        self._viewer = viewer
        self._views: dict[int, dict[str, Any]] = {}
        self._points: dict[int, tuple[float, ...]] = {}
        self._rendered: WeakSet[Image] = WeakSet()
        self._show_mode()
        self.toggled.connect(self._switch)
        follow(self, viewer.dims.events.ndisplay, self._show_mode)

    def _switch(self, on: bool) -> None:
        dims, camera = self._viewer.dims, self._viewer.scene.camera
        now = 3 if on else 2
        if dims.ndisplay == now:
            return
        self._views[dims.ndisplay] = {name: getattr(camera, name) for name in _CAMERA}
        self._points[dims.ndisplay] = tuple(dims.point)
        if on:
            self._set_rendering()
        dims.ndisplay = now
        if now in self._views:
            for name, value in self._views[now].items():
                setattr(camera, name, value)
            if len(self._points[now]) == dims.ndim:
                dims.set_point(range(dims.ndim), self._points[now])
        else:
            camera.angles = _ANGLES  # at first: the view is fitted to the volume as it is turned
            shown = [layer for layer in self._viewer.layers if layer.visible]
            self._viewer.fit_to_view(layers=shown or None)

    def _set_rendering(self) -> None:
        for layer in self._viewer.layers:
            if is_image(layer) and not layer.rgb and layer not in self._rendered:
                self._rendered.add(layer)
                if layer.rendering == _DEFAULT:
                    layer.rendering = _RENDERING

    def _show_mode(self) -> None:
        self.blockSignals(True)
        self.setChecked(self._viewer.dims.ndisplay == 3)
        self.blockSignals(False)
