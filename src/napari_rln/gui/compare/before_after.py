"""Controls to compare two layers in the canvas."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from napari.layers import Layer
from qtpy.QtCore import Qt, Signal
from qtpy.QtGui import QHideEvent
from qtpy.QtWidgets import (
    QFormLayout,
    QHBoxLayout,
    QLabel,
    QPushButton,
    QSizePolicy,
    QSlider,
    QVBoxLayout,
    QWidget,
)

from napari_rln.core.errors import RlnError
from napari_rln.gui.compare.blink import Blink
from napari_rln.gui.compare.shortcuts import with_shortcut
from napari_rln.gui.compare.swipe import Swipe
from napari_rln.gui.layers import is_image, is_psf, is_raw, record_of
from napari_rln.gui.layouts import fill
from napari_rln.gui.pickers import LayerPicker
from napari_rln.gui.theme import ERROR

if TYPE_CHECKING:
    import napari

_STEPS = 1000
_TIPS = {
    "swipe": "<p>Shows the first layer to the left of a yellow line and the second one to its "
    "right, with all their channels: press, then drag the line in the canvas, or the slider.</p>",
    "blink": "<p>Shows the two layers in turn at the same place: press, then press "
    "<i>Show the other</i>.</p>",
    "switch": with_shortcut(
        "Shows the other one of the two layers: press again to go back", "blink"
    ),
}


class BeforeAfter(QWidget):
    """Two layers side by side a divider in the canvas, or one after the other.

    ``composite_of`` returns the layers that a layer is shown with, such as the other channels. The
    viewer is restored when the comparison ends, and when the widget is hidden.
    """

    begins = Signal()  # before anything changes
    ended = Signal()

    def __init__(
        self,
        viewer: "napari.viewer.Viewer",
        composite_of: Callable[[Layer], Sequence[Layer]] = lambda layer: (),
    ) -> None:
        super().__init__()
        self._composite_of = composite_of
        self.swipe, self.blink = Swipe(viewer, self), Blink(viewer, self)
        self.before = LayerPicker(viewer, prefer=is_raw)
        self.after = LayerPicker(viewer, prefer=_is_result, newest=True)
        self.swipe_button = QPushButton("Swipe", checkable=True, toolTip=_TIPS["swipe"])
        self.blink_button = QPushButton("Blink", checkable=True, toolTip=_TIPS["blink"])
        self.switch_button = QPushButton("Show the other", toolTip=_TIPS["switch"])
        self.slider = QSlider(Qt.Orientation.Horizontal, toolTip=_TIPS["swipe"])
        self.slider.setRange(0, _STEPS)
        self.line = QWidget()
        fill(QHBoxLayout(self.line), QLabel("Line"), (self.slider, 1), margin=0)
        self.message = QLabel(wordWrap=True)
        self.message.setStyleSheet(f"QLabel {{ color: {ERROR}; }}")
        pickers = fill(QFormLayout(), ("Before", self.before), ("After", self.after), margin=0)
        buttons = fill(QHBoxLayout(), (self.swipe_button, 1), (self.blink_button, 1), margin=0)
        below = (self.line, self.switch_button, self.message)
        fill(QVBoxLayout(self), pickers, buttons, *below, margin=0)
        self.setSizePolicy(QSizePolicy.Policy.Preferred, QSizePolicy.Policy.Maximum)
        self.swipe_button.toggled.connect(lambda on: self._set(self.swipe, on))
        self.blink_button.toggled.connect(lambda on: self._set(self.blink, on))
        self.switch_button.clicked.connect(self.blink.toggle)
        self.slider.valueChanged.connect(lambda value: self.swipe.set_position(value / _STEPS))
        self.swipe.moved.connect(lambda at: self.slider.setValue(round(at * _STEPS)))
        for picker in (self.before, self.after):
            picker.changed.connect(self._on_layers)
        for compared in (self.swipe, self.blink):
            compared.ended.connect(self._on_end)
        self._show_state()

    @property
    def is_on(self) -> bool:
        """Whether two layers are compared."""
        return self.swipe.is_on or self.blink.is_on

    def suggest(self, before: Layer, after: Layer) -> None:
        """Choose an image and a result of it, unless the user has chosen layers."""
        for picker, layer in ((self.before, before), (self.after, after)):
            if not picker.is_chosen_by_hand and picker.layer is not layer:
                picker.suggest(layer)

    def toggle_blink(self) -> None:
        """Show the other one of the two layers; the first call starts the comparison."""
        if self.blink.is_on:
            self.blink.toggle()
        else:
            self.blink_button.setChecked(True)

    def stop(self) -> None:
        """End the comparison."""
        self.swipe.stop()
        self.blink.stop()

    def hideEvent(self, event: QHideEvent | None) -> None:
        """End the comparison, which would have no controls."""
        if event is None or not event.spontaneous():  # not if the window is minimised
            self.stop()
        super().hideEvent(event)

    def _set(self, compared: Swipe | Blink, on: bool) -> None:
        self.message.clear()
        self.stop()
        if on:
            self.begins.emit()
            try:
                compared.start(*self._sides())
            except RlnError as error:
                text = str(error)
                self.message.setText(text[:1].upper() + text[1:])
                self.ended.emit()
        self._show_state()

    def _sides(self) -> tuple[Sequence[Layer | None], Sequence[Layer | None]]:
        """Return the chosen layers with their other channels; alone if both are channels of one."""
        before, after = self.before.layer, self.after.layer
        if before is None or after is None:
            return [before], [after]
        sides = [*self._composite_of(before)], [*self._composite_of(after)]
        if after in sides[0] or not all(sides):
            return [before], [after]
        return sides

    def _on_end(self) -> None:
        self._show_state()
        if not self.is_on:
            self.ended.emit()

    def _on_layers(self) -> None:
        """Compare the layers that are chosen now; what was said of others applies no longer."""
        self.message.clear()
        self._show_state()
        for compared in (self.swipe, self.blink):
            if compared.is_on:
                self._set(compared, True)

    def _show_state(self) -> None:
        for button, compared in (
            (self.swipe_button, self.swipe),
            (self.blink_button, self.blink),
        ):
            button.blockSignals(True)
            button.setChecked(compared.is_on)
            button.blockSignals(False)
        self.slider.blockSignals(True)
        self.slider.setValue(round(self.swipe.position * _STEPS))
        self.slider.blockSignals(False)
        self.line.setVisible(self.swipe.is_on)
        self.switch_button.setVisible(self.blink.is_on)
        self.message.setVisible(bool(self.message.text()))


def _is_result(layer: Layer) -> bool:
    """Return whether a layer is a result, of which the newest is compared."""
    record = record_of(layer)
    is_map = record is not None and record.method == "check"
    return is_image(layer) and not (is_raw(layer) or is_psf(layer) or is_map)
