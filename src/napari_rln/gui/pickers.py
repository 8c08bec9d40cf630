"""Choice of a layer, with its voxel size."""

from collections.abc import Callable
from weakref import WeakSet

from magicgui.widgets import create_widget
from napari.components import ViewerModel
from napari.layers import Layer
from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import QComboBox, QHBoxLayout, QLabel, QPushButton, QVBoxLayout, QWidget

from napari_rln.core.errors import RlnError
from napari_rln.core.volume import check_voxel_um
from napari_rln.gui.events import follow
from napari_rln.gui.field_errors import FieldError
from napari_rln.gui.layers import (
    LayerImage,
    edges_of,
    is_image,
    set_voxel_um,
    source_of,
    three,
    voxel_um_of,
)
from napari_rln.gui.voxel_size import LABEL, VoxelField

_UNKNOWN = "?"


class LayerPicker(QWidget):
    """A combo box of a viewer's layers, or none.

    Parameters
    ----------
    viewer
        The viewer.
    accept
        Whether a layer is in the list; images to work on when none.
    prefer
        Whether a layer is chosen as soon as it appears, unless the user has chosen one; any layer
        when none.
    optional
        Text for choosing none; without, a layer is chosen as soon as there is one.
    """

    changed = Signal()

    def __init__(
        self,
        viewer: ViewerModel,
        *,
        accept: Callable[[Layer], bool] = is_image,
        prefer: Callable[[Layer], bool] | None = None,
        optional: str = "",
    ) -> None:
        super().__init__()
        self._viewer, self._accept, self._optional = viewer, accept, bool(optional)
        self._prefer = prefer or (lambda layer: not optional)
        self._known: WeakSet[Layer] = WeakSet()
        self._by_hand = False
        self._combo = create_widget(
            annotation=Layer, options={"choices": self._choices, "nullable": True}
        )
        self._combo.null_string = optional or "choose a layer"
        self.box: QComboBox = self._combo.native
        self.box.setSizeAdjustPolicy(
            QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon
        )
        self.box.setMinimumContentsLength(12)
        layout = QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.box)
        for event in ("inserted", "removed", "reordered", "renamed"):
            follow(self, getattr(viewer.layers.events, event), self._refresh)
        self._combo.changed.connect(self._on_change)
        self.box.activated.connect(self._on_hand)
        self._refresh()

    @property
    def layer(self) -> Layer | None:
        """The chosen layer."""
        return self._combo.value

    @layer.setter
    def layer(self, layer: Layer | None) -> None:
        if layer in self._combo.choices:
            self._by_hand = True
            self._combo.value = layer

    def source(self, name: str) -> LayerImage:
        """Return the chosen volume, not read yet.

        Parameters
        ----------
        name
            Of the volume, for messages, such as "the image".

        Raises
        ------
        RlnError
            If there is none, or it cannot be used.
        """
        if self.layer is None:
            raise FieldError(
                f"choose {name}: open a stack in napari, then pick its layer.", self.box
            )
        return source_of(self.layer, self._viewer.dims.point)

    def _choices(self, combo: object) -> list[Layer]:
        return [layer for layer in self._viewer.layers if self._accept(layer)]

    def _on_change(self) -> None:
        self.changed.emit()

    def _on_hand(self) -> None:
        self._by_hand = True

    def _refresh(self) -> None:
        before, layers = self.layer, self._choices(self)
        new = [layer for layer in layers if layer not in self._known]
        self._known = WeakSet(layers)
        # After the image is deleted, what is no image, such as its PSF, is not chosen for it.
        self._by_hand &= before in layers or (before is None and self._optional)
        now = before if before in layers else None
        if not self._by_hand and (now is None or not self._prefer(now)):
            candidates = layers if now is None and before is not None else new
            now = next((layer for layer in candidates if self._prefer(layer)), now)
        with self._combo.changed.blocked():
            self.box.clear()  # else a renamed layer would go to the end, and lose the choice
            self._combo.reset_choices()
            self._combo.value = now
        if now is not before:
            self.changed.emit()


class VolumePicker(QWidget):
    """A layer picker with the voxel size below, to be typed where it is unknown or wrong.

    Parameters
    ----------
    viewer, prefer, optional
        See :class:`LayerPicker`.
    """

    changed = Signal()

    def __init__(
        self,
        viewer: ViewerModel,
        *,
        prefer: Callable[[Layer], bool] | None = None,
        optional: str = "",
    ) -> None:
        super().__init__()
        self.picker = LayerPicker(viewer, prefer=prefer, optional=optional)
        self._label = QLabel()
        self.voxel = VoxelField(_UNKNOWN)
        self.voxel.setToolTip("<p>Voxel size z, y, x. A change is written into the layer.</p>")
        self.as_um_button = QPushButton("As \N{MICRO SIGN}m")
        self.as_um_button.setToolTip(
            "<p>The layer has these sizes but no unit: take them as micrometres.</p>"
        )
        below = QHBoxLayout()
        below.addWidget(self._label, 0, Qt.AlignmentFlag.AlignTop)
        below.addWidget(self.voxel, 1, Qt.AlignmentFlag.AlignTop)
        below.addWidget(self.as_um_button, 0, Qt.AlignmentFlag.AlignTop)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(2)
        layout.addWidget(self.picker)
        layout.addLayout(below)
        self._followed: WeakSet[Layer] = WeakSet()
        self._refused = ""  # why the typed size is not written into the layer
        self.setFocusProxy(self.picker.box)
        self.picker.changed.connect(self._show_voxel)
        self.voxel.changed.connect(self._write_voxel)
        self.as_um_button.clicked.connect(self._write_voxel)
        self._show_voxel()

    @property
    def layer(self) -> Layer | None:
        """The chosen layer."""
        return self.picker.layer

    @layer.setter
    def layer(self, layer: Layer | None) -> None:
        self.picker.layer = layer

    def source(self, name: str) -> LayerImage:
        """Return the chosen volume, not read yet; see :meth:`LayerPicker.source`."""
        layer = self.layer
        if layer is not None:
            if self._refused:
                raise FieldError(self._refused, self.voxel)
            if voxel_um_of(layer) is None:
                raise FieldError(self._unknown(layer), self.voxel)
        return self.picker.source(name)

    def _unknown(self, layer: Layer) -> str:
        if self._has_scale(layer):
            sizes = " ".join(f"{size:g}" for size in edges_of(layer))
            return (
                f"the voxel size of {layer.name} is {sizes} without a unit; press "
                f"{self.as_um_button.text()} below it, or type the voxel size."
            )
        return f"the voxel size of {layer.name} is not known; type it below the layer."

    def _has_scale(self, layer: Layer) -> bool:
        return any(size != 1 for size in edges_of(layer))  # napari's default is 1

    def _show_voxel(self) -> None:
        layer = self.layer
        if layer is not None and layer not in self._followed:  # another dock may change it
            self._followed.add(layer)
            for name in ("scale", "units", "affine", "rotate", "shear"):
                follow(self, getattr(layer.events, name), self._show_voxel)
        known = None if layer is None else voxel_um_of(layer)
        offered = layer is not None and known is None and self._has_scale(layer)
        shown = three(edges_of(layer)) if offered and layer is not None else known
        self.voxel.setEnabled(layer is not None)
        self.voxel.blockSignals(True)
        self.voxel.value = shown or (0.0, 0.0, 0.0)
        self.voxel.blockSignals(False)
        self._refused = ""
        self.as_um_button.setVisible(offered)
        unknown = layer is not None and known is None
        self._label.setText("Voxel, no unit" if offered else f"Unknown {LABEL.lower()}"
                            if unknown else LABEL)  # fmt: skip
        self.changed.emit()

    def _write_voxel(self) -> None:
        layer = self.layer
        if layer is None:
            return
        try:
            z, y, x = self.voxel.value
            if layer.ndim == 2:  # the depth of a plane has no effect
                z = z or y
            if not any((z, y, x)):
                self._show_voxel()
                return
            check_voxel_um((z, y, x), layer.name)
        except RlnError as error:  # marked now, and raised when the layer is used
            self._refused = str(error)
            self.changed.emit()
            return
        set_voxel_um(layer, (z, y, x))
        self._show_voxel()


class SecondPsfPicker(VolumePicker):
    """A picker of the second view's PSF; without a choice it is the first view's.

    Parameters
    ----------
    viewer
        The viewer.
    """

    def __init__(self, viewer: ViewerModel) -> None:
        super().__init__(viewer, optional="same as the first")
        self.setToolTip("<p>In the orientation of the second camera, like its view.</p>")

    def source_beside(self, first: LayerImage) -> LayerImage:
        """Return the second view's PSF, not read yet.

        Parameters
        ----------
        first
            PSF of the first view.

        Raises
        ------
        RlnError
            If it cannot be used.
        """
        return first if self.layer is None else self.source("the second view's PSF")
