"""Choice of a layer, and of its voxel size."""

import contextlib
from collections.abc import Callable
from functools import cached_property
from weakref import WeakSet

from magicgui.widgets import create_widget
from napari.components import ViewerModel
from napari.layers import Layer
from qtpy.QtCore import Signal
from qtpy.QtWidgets import (
    QComboBox,
    QHBoxLayout,
    QLabel,
    QPushButton,
    QToolButton,
    QVBoxLayout,
    QWidget,
)

from napari_rln.core.errors import RlnError
from napari_rln.core.volume import VoxelUm, check_voxel_um, voxel_um_problem
from napari_rln.gui.events import follow
from napari_rln.gui.field_errors import FieldError
from napari_rln.gui.fields import LABEL, VoxelField
from napari_rln.gui.kept_view import kept_in_view
from napari_rln.gui.layers import (
    LayerImage,
    check_kind,
    edges_of,
    is_image,
    set_voxel_um,
    source_of,
    voxel_um_of,
    zyx_sizes,
)
from napari_rln.gui.layouts import fill
from napari_rln.gui.narrow_box import make_narrow

_UNKNOWN = "?"
_RGB = "RGB image: split it into its channels"
_NO_SIZES: VoxelUm = (0.0, 0.0, 0.0)


class LayerPicker(QWidget):
    """A combo box of a viewer's layers, or none.

    Parameters
    ----------
    accept
        Whether a layer is listed; by default whether it is an image.
    prefer
        Whether a new layer is chosen at once, unless the user has chosen one; by default any.
    optional
        Text of the choice of no layer; without it, the first layer is chosen at once.
    newest
        Whether a new layer that is preferred replaces one that the user has not chosen.
    """

    changed = Signal()

    def __init__(
        self,
        viewer: ViewerModel,
        *,
        accept: Callable[[Layer], bool] = is_image,
        prefer: Callable[[Layer], bool] | None = None,
        optional: str = "",
        newest: bool = False,
    ) -> None:
        super().__init__()
        self._newest = newest
        self._viewer, self._accept, self._optional = viewer, accept, bool(optional)
        self._prefer = prefer or (lambda layer: not optional)
        self._known: WeakSet[Layer] = WeakSet()
        self._by_hand = False
        self._other: LayerPicker | None = None  # whose layer is suggested
        self._combo = create_widget(
            annotation=Layer, options={"choices": self._choices, "nullable": True}
        )
        self._combo.null_string = optional or "choose a layer"
        self.box: QComboBox = self._combo.native
        make_narrow(self.box)
        self.setFocusProxy(self.box)
        self._layout = fill(QVBoxLayout(self), self.box, margin=0, spacing=2)
        for event in ("inserted", "removed", "reordered", "renamed"):
            follow(self, getattr(viewer.layers.events, event), self._refresh)
        self._combo.changed.connect(self._on_layer)
        self.box.activated.connect(self._on_hand)
        self._update()

    @property
    def layer(self) -> Layer | None:
        """The chosen layer."""
        return self._combo.value

    @layer.setter
    def layer(self, layer: Layer | None) -> None:
        if layer in self._combo.choices:
            self._by_hand = True
            self._combo.value = layer

    def suggest_preferred(self) -> None:
        """Choose the first layer that is preferred, if there is one, as :meth:`suggest` does."""
        found = next((layer for layer in self._choices(self) if self._prefer(layer)), None)
        self.suggest(found)

    def set_none(self, text: str) -> None:
        """Set the text of the choice of no layer."""
        if self._combo.null_string != text:
            self._combo.null_string = text
            self._update()

    @property
    def is_chosen_by_hand(self) -> bool:
        """Whether the user, not the picker itself, has chosen the layer."""
        return self._by_hand

    def suggest(self, layer: Layer | None) -> None:
        """Choose a layer, or none, until the user chooses another, or one that is preferred."""
        if layer in self._combo.choices:
            self._by_hand = False
            self._combo.value = layer

    def suggest_from(self, other: "LayerPicker") -> None:
        """Suggest what another picker has, now and whenever it changes, as :meth:`suggest` does.

        Not where the user has chosen a layer here, and not none.
        """
        self._other = other
        other.changed.connect(self._suggest_other)
        self._suggest_other()

    def source(self, name: str) -> LayerImage:
        """Return the chosen volume, not read yet.

        Raises :class:`RlnError`, with its ``name`` such as "the image", if no layer is chosen, or
        it cannot be used.
        """
        if self.layer is None:
            raise FieldError(
                f"choose {name}: open a stack in napari, then pick its layer.", self.box
            )
        return source_of(self.layer, self._viewer.dims.point)

    def _suggest_other(self) -> None:
        if self._other is not None and self._other.layer is not None and not self._by_hand:
            self.suggest(self._other.layer)

    def _choices(self, combo: object) -> list[Layer]:
        return [layer for layer in self._viewer.layers if self._accept(layer)]

    def _on_layer(self) -> None:
        self.changed.emit()

    def _on_hand(self) -> None:
        self._by_hand = True

    def _refresh(self) -> None:
        if self._update():
            self._on_layer()

    def _update(self) -> bool:
        """List the layers, and return whether another one is chosen."""
        before, layers = self.layer, self._choices(self)
        new = [layer for layer in layers if layer not in self._known]
        self._known = WeakSet(layers)
        # A deleted image is not replaced by a layer that is not preferred, such as its PSF.
        self._by_hand &= before in layers or (before is None and self._optional)
        now = before if before in layers else None
        if not self._by_hand and (self._newest or now is None or not self._prefer(now)):
            candidates = layers if now is None and before is not None else new
            preferred = [layer for layer in candidates if self._prefer(layer)]
            shown = [layer for layer in preferred if layer.visible]  # what the user looks at
            offered = shown or preferred
            now = offered[-1 if self._newest else 0] if offered else now
        with self._combo.changed.blocked():
            self.box.clear()  # else a renamed layer would move to the end and be deselected
            self._combo.reset_choices()
            self._combo.value = now
        return now is not before


class VolumePicker(LayerPicker):
    """A layer picker with the voxel size below: in words, or to type where it is not known.

    When the size is typed, the view follows the layer; with ``of_psf`` only if nothing else is
    shown, as the user looks at the image.
    """

    def __init__(
        self,
        viewer: ViewerModel,
        *,
        prefer: Callable[[Layer], bool] | None = None,
        optional: str = "",
        of_psf: bool = False,
    ) -> None:
        super().__init__(viewer, prefer=prefer, optional=optional)
        self._of_psf = of_psf
        self._label = QLabel(minimumWidth=1)  # else long numbers would widen the dock
        self.edit_button = QToolButton(text="\N{PENCIL}", checkable=True, autoRaise=True)
        self.edit_button.setToolTip("<p>Click to correct the voxel size.</p>")
        tip = "<p>The layer has these sizes but no unit; click if they are micrometres.</p>"
        self.as_um_button = QPushButton("As \N{MICRO SIGN}m", toolTip=tip)
        above = fill(QHBoxLayout(), self._label, self.edit_button, self.as_um_button, spacing=2)
        above.addStretch(1)
        self._layout.addLayout(above)
        self._followed: WeakSet[Layer] = WeakSet()
        self._sizes: VoxelUm | None = None  # of the layer, in micrometres or without a unit
        self._offered = False  # whether the sizes may be micrometres
        self._refused = ""  # why the typed size is not written into the layer
        self.edit_button.toggled.connect(self._show_parts)
        self.as_um_button.clicked.connect(self._write_voxel)
        self._on_layer()

    @cached_property
    def voxel(self) -> VoxelField:
        """The numbers of the voxel size, made when they are first needed: they are rarely."""
        field = VoxelField(_UNKNOWN)
        field.setToolTip("<p>Voxel size z, y, x, of the layer. Correct it here if it is wrong.</p>")
        field.value = self._sizes or _NO_SIZES
        field.setEnabled(self.layer is not None)
        field.setVisible(False)
        field.changed.connect(self._write_voxel)
        self._layout.addWidget(field)
        return field

    def source(self, name: str) -> LayerImage:
        """Return the chosen volume, not read yet; see :meth:`LayerPicker.source`."""
        layer = self.layer
        if layer is not None:
            try:
                check_kind(layer)  # before the voxel size is asked for
            except RlnError as error:
                raise FieldError(str(error), self.box) from error
            if self._refused:
                raise FieldError(self._refused, self.voxel)
            if voxel_um_of(layer) is None:
                raise FieldError(self._unknown(layer), self.voxel)
        return super().source(name)

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

    def _on_layer(self) -> None:
        layer = self.layer
        if layer is not None and layer not in self._followed:  # other docks may change it
            self._followed.add(layer)
            for name in ("scale", "units", "affine", "rotate", "shear"):
                follow(self, getattr(layer.events, name), self._on_layer)
        known = None if layer is None else voxel_um_of(layer)
        offered = layer is not None and known is None and self._has_scale(layer)
        self._sizes = zyx_sizes(edges_of(layer)) if offered and layer is not None else known
        if self._has_numbers:
            self.voxel.setEnabled(layer is not None)
            self.voxel.blockSignals(True)
            self.voxel.value = self._sizes or _NO_SIZES
            self.voxel.blockSignals(False)
        self._refused = ""
        self._offered = offered
        is_rgb = layer is not None and layer.rgb
        self._label.setText(_RGB if is_rgb else _summary(known, self._sizes))
        self._show_parts()
        self.changed.emit()

    def _show_parts(self) -> None:
        """Show the numbers where they are unknown, unlikely, refused, or to be corrected."""
        layer = self.layer
        is_known = layer is not None and voxel_um_of(layer) is not None
        self._label.setVisible(layer is not None)
        self.edit_button.setVisible(is_known)
        self.as_um_button.setVisible(self._offered)
        unlikely = self._sizes is not None and bool(voxel_um_problem(self._sizes))
        wanted = unlikely or bool(self._refused) or not is_known or self.edit_button.isChecked()
        shown = layer is not None and wanted and not layer.rgb
        if shown or self._has_numbers:
            self.voxel.setVisible(shown)

    @property
    def _has_numbers(self) -> bool:
        return "voxel" in self.__dict__

    def _write_voxel(self) -> None:
        layer = self.layer
        if layer is None:
            return
        try:
            z, y, x = self.voxel.value
            if layer.ndim == 2:  # the depth of a plane has no effect
                z = z or y
            if not any((z, y, x)):
                self._on_layer()
                return
            check_voxel_um((z, y, x), layer.name)
        except RlnError as error:  # marked now, raised when the layer is used
            self._refused = str(error)
            self._show_parts()
            self.changed.emit()
            return
        others = (each for each in self._viewer.layers if each is not layer and is_image(each))
        stays = self._of_psf and any(each.visible for each in others)
        with contextlib.nullcontext() if stays else kept_in_view(self._viewer, layer):
            set_voxel_um(layer, (z, y, x))
        self._on_layer()


def _summary(known: VoxelUm | None, shown: VoxelUm | None) -> str:
    """Return a voxel size (z, y, x) in words; ``shown`` are sizes without a unit."""
    sizes = known or shown
    if sizes is None:
        return f"Unknown {LABEL.lower()}: type it"
    text = "\N{MULTIPLICATION SIGN}".join(f"{size:.3g}" for size in sizes)
    return f"voxel {text}" + (" \N{MICRO SIGN}m" if known else ", no unit")


class SecondPsfPicker(VolumePicker):
    """A picker of the second view's PSF; without a choice it is the first view's."""

    def __init__(self, viewer: ViewerModel) -> None:
        super().__init__(viewer, optional="same as the first", of_psf=True)
        self.setToolTip(
            "<p>In the orientation of the second camera, like its view. Choose its layer.</p>"
        )

    def source_or(self, first: LayerImage) -> LayerImage:
        """Return the chosen PSF, or the first view's; errors as in :meth:`source`."""
        return first if self.layer is None else self.source("the second view's PSF")
