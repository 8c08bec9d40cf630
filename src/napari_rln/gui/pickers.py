"""Choosing a layer, and telling its voxel size where it is not known."""

from collections.abc import Callable
from weakref import WeakSet

from napari.components import ViewerModel
from napari.layers import Layer
from qtpy.QtCore import Signal
from qtpy.QtWidgets import QAbstractSpinBox, QComboBox, QHBoxLayout, QLabel, QVBoxLayout, QWidget

from napari_rln.errors import RlnError
from napari_rln.gui.events import follow
from napari_rln.gui.fields import Number, Row
from napari_rln.gui.layers import Source, is_image, set_voxel_um, source_of, voxel_um_of

_VOXEL = {"min": 0.0, "max": 1000.0}


class LayerPicker(QWidget):
    """A list of a viewer's layers of which one, or none, is chosen.

    Parameters
    ----------
    viewer
        Whose layers.
    accept
        Which of them; every image to work on when none.
    prefer
        Which of those to choose by itself, when one appears and none was chosen by hand.
    optional
        What to call choosing none; without it one is always chosen where there are any.
    """

    changed = Signal()

    def __init__(
        self,
        viewer: ViewerModel,
        *,
        accept: Callable[[Layer], bool] = is_image,
        prefer: Callable[[Layer], bool] = lambda layer: False,
        optional: str = "",
    ) -> None:
        super().__init__()
        self._viewer, self._optional = viewer, optional
        self._accept, self._prefer = accept, prefer
        self.box = QComboBox()
        self.box.setSizeAdjustPolicy(
            QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon
        )
        self.box.setMinimumContentsLength(12)
        layout = QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.box)
        self._layers: list[Layer | None] = []
        self._named: set[Layer] = set()
        self._by_hand = False
        for event in ("inserted", "removed", "reordered"):
            follow(self, getattr(viewer.layers.events, event), self._refresh)
        self.box.currentIndexChanged.connect(self.changed)
        self.box.activated.connect(self._on_hand)
        self._refresh()

    @property
    def layer(self) -> Layer | None:
        """The layer that is chosen."""
        at = self.box.currentIndex()
        return self._layers[at] if 0 <= at < len(self._layers) else None

    @layer.setter
    def layer(self, layer: Layer | None) -> None:
        if layer in self._layers:
            self._by_hand = True
            self.box.setCurrentIndex(self._layers.index(layer))

    def source(self, what: str) -> Source:
        """Return the volume that is chosen, not read yet.

        Parameters
        ----------
        what
            What it is chosen for, as in "the image".

        Raises
        ------
        RlnError
            If there is none, or it cannot be used.
        """
        if self.layer is None:
            raise RlnError(f"choose {what}: open a stack in napari, then pick its layer.")
        return source_of(self.layer, self._viewer.dims.point)

    def _on_hand(self) -> None:
        self._by_hand = True

    def _refresh(self) -> None:
        kept = self.layer
        found = [layer for layer in self._viewer.layers if self._accept(layer)]
        fresh = [layer for layer in found if layer not in self._named]
        for layer in fresh:
            follow(self, layer.events.name, self._refresh)
        self._named = {*found}
        self._layers = [*([None] if self._optional else []), *found]
        self.box.blockSignals(True)
        self.box.clear()
        self.box.addItems(
            [self._optional if layer is None else layer.name for layer in self._layers]
        )
        now = kept if kept in self._layers else self._layers[0] if self._layers else None
        self._by_hand = self._by_hand and kept in self._layers
        if not self._by_hand and (now is None or not self._prefer(now)):
            now = next((layer for layer in fresh if self._prefer(layer)), now)
        self.box.setCurrentIndex(self._layers.index(now) if now in self._layers else -1)
        self.box.blockSignals(False)
        if self.layer is not kept:
            self.changed.emit()


class VolumePicker(QWidget):
    """A layer picker with the voxel size below, to be given where it is not known or wrong."""

    changed = Signal()

    def __init__(
        self,
        viewer: ViewerModel,
        *,
        prefer: Callable[[Layer], bool] = lambda layer: False,
        optional: str = "",
    ) -> None:
        super().__init__()
        self.picker = LayerPicker(viewer, prefer=prefer, optional=optional)
        self._label = QLabel()
        sizes = [Number(_VOXEL) for _ in range(3)]
        for size in sizes:  # without them there is room for the digits
            size.box.setButtonSymbols(QAbstractSpinBox.ButtonSymbols.NoButtons)
        self._voxel = Row(sizes)
        self._voxel.setToolTip("<p>Voxel size z, y, x. A change is written into the layer.</p>")
        below = QHBoxLayout()
        below.addWidget(self._label)
        below.addWidget(self._voxel, 1)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(2)
        layout.addWidget(self.picker)
        layout.addLayout(below)
        self._followed: WeakSet[Layer] = WeakSet()
        self.picker.changed.connect(self._show_voxel)
        self._voxel.changed.connect(self._write_voxel)
        self._show_voxel()

    @property
    def layer(self) -> Layer | None:
        """The layer that is chosen."""
        return self.picker.layer

    @layer.setter
    def layer(self, layer: Layer | None) -> None:
        self.picker.layer = layer

    def source(self, what: str) -> Source:
        """Return the volume that is chosen, not read yet; see :meth:`LayerPicker.source`."""
        return self.picker.source(what)

    def _show_voxel(self) -> None:
        layer = self.layer
        if layer is not None and layer not in self._followed:  # another dock may change it
            self._followed.add(layer)
            for emitter in (layer.events.scale, layer.events.units):
                follow(self, emitter, self._show_voxel)
        known = None if layer is None else voxel_um_of(layer)
        self._voxel.setEnabled(layer is not None)
        self._voxel.blockSignals(True)
        self._voxel.value = known or (0.0, 0.0, 0.0)
        self._voxel.blockSignals(False)
        unknown = layer is not None and known is None
        self._label.setText(f"{'Unknown voxel' if unknown else 'Voxel'} (\N{MICRO SIGN}m)")
        self.changed.emit()

    def _write_voxel(self) -> None:
        if self.layer is None:
            return
        z, y, x = self._voxel.value
        if self.layer.ndim == 2:  # the depth of a plane is never used
            z = z or y
        if min(z, y, x) > 0:
            set_voxel_um(self.layer, (z, y, x))
            self._show_voxel()


class SecondPsfPicker(VolumePicker):
    """A picker of the PSF of a second view; where none is chosen it is the first's.

    Parameters
    ----------
    viewer
        Whose layers may be chosen.
    """

    def __init__(self, viewer: ViewerModel) -> None:
        super().__init__(viewer, optional="as the first's")
        self.setToolTip("<p>As the second camera takes it; it is turned with its view.</p>")

    def source_beside(self, first: Source) -> Source:
        """Return the PSF, not read yet, beside that of the first view.

        Raises
        ------
        RlnError
            If it cannot be used.
        """
        return first if self.layer is None else self.source("the second view's PSF")
