"""Widgets of settings: magicgui's by annotation, and those that it lacks."""

import math
from collections.abc import Mapping, Sequence
from types import NoneType
from typing import Annotated, Any, Literal, get_args, get_origin

from magicgui.widgets import ComboBox, LineEdit, Select, TupleEdit, create_widget
from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import (
    QAbstractItemView,
    QAbstractSpinBox,
    QLabel,
    QListWidgetItem,
    QSizePolicy,
    QVBoxLayout,
    QWidget,
)

from napari_rln.core.errors import RlnError
from napari_rln.core.volume import VoxelUm, check_voxel_um, voxel_um_problem
from napari_rln.gui.field_errors import FieldError
from napari_rln.gui.layouts import fill
from napari_rln.gui.narrow_box import make_narrow
from napari_rln.gui.number import DEFAULT, Number, members_of
from napari_rln.gui.theme import ERROR, WARNING

LABEL = "Voxel size (\N{MICRO SIGN}m)"  # of a voxel size

_LIST_ROWS = 6
_NARROWEST = 8  # characters of a choice, which grows with the dock
# Of numbers side by side: in napari's own, three of them are wider than a dock.
_NARROW = "QAbstractSpinBox { min-width: 44px; padding: 1px 6px; }"
_UNLIMITED = 16_777_215  # pixels, Qt's own limit


def widget_for(annotation: Any, **options: Any) -> Any:
    """Return the magicgui widget for an annotation.

    ``magicgui.register_type`` is not used: it would change the numbers of every plugin, and
    accepts no union with None.

    Raises :class:`ValueError` if the type has no widget.

    Limits of numbers, and the word that stands for None, are as in ``Annotated[float | None,
    {"min": 0.0, "max": 1.0, "none": "auto"}]``; the words shown for choices, whose values they do
    not change, as in ``Annotated[Literal["clip", "keep"], {"words": {"clip": "set to 0"}}]``.
    """
    extras = extras_of(annotation)
    options = {key: extras[key] for key in ("min", "max", "none") if key in extras} | options
    words = extras.get("words", {})
    if get_origin(annotation) is Annotated:
        annotation, *_ = get_args(annotation)
    members = members_of(annotation)
    main = next((member for member in members if member is not NoneType), annotation)
    widget_type: Any = None
    if int in members or float in members:
        widget_type = Number
    elif members == (str, NoneType):
        widget_type = OptionalText
    elif get_origin(main) is tuple:
        inner = get_args(main)
        if Ellipsis in inner:
            widget_type, options["choices"] = CheckList, _choices(inner[0], words)
        else:
            widget_type, options["nullable"] = Numbers, NoneType in members
            annotation = main
    elif get_origin(main) is Literal:
        widget_type, options["choices"] = Choice, _choices(main, words)
    return create_widget(annotation=annotation, widget_type=widget_type, options=options)


def extras_of(annotation: Any) -> dict[str, Any]:
    """Return what an annotation says beside the type, such as limits and label."""
    if get_origin(annotation) is not Annotated:
        return {}
    return {key: value for extra in get_args(annotation)[1:] for key, value in extra.items()}


def _choices(literal: Any, words: Mapping[Any, str]) -> list[tuple[str, Any]]:
    """Return the choices of a literal type, each with the word to show for it."""
    return [(words.get(value, str(value)), value) for value in get_args(literal)]


class Choice(ComboBox):
    """One of several choices, narrower than its longest entry where there is no room for it."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        make_narrow(self.native, _NARROWEST)


class Numbers(TupleEdit):
    """Numbers side by side, such as lengths along z, y and x; None if all lines are empty.

    magicgui's tuple reads all numbers when one changes, which fails while one is invalid, and
    cannot be None.

    Parameters
    ----------
    nullable
        Whether it may be None.
    none
        Word that stands for None.
    keywords, min, max
        Of each number; see :class:`napari_rln.gui.number.Number`.
    """

    def __init__(
        self,
        *,
        nullable: bool = False,
        none: str = DEFAULT,
        keywords: Mapping[str, Any] | None = None,
        min: float = -math.inf,
        max: float = math.inf,
        **options: Any,
    ) -> None:
        keywords = {none: None} if nullable else keywords or {}
        of_each = {"widget_type": Number, "min": min, "max": max, "keywords": keywords}
        super().__init__(options=of_each, nullable=nullable, **options)
        self.native.layout().setSpacing(4)
        self.native.setStyleSheet(_NARROW)
        self.native.setFocusProxy(self[0].box)
        for number in self:
            number.label = self.label
            number.changed.disconnect()
            number.changed.connect(self.changed.emit)
            number.box.setButtonSymbols(QAbstractSpinBox.ButtonSymbols.NoButtons)  # no room

    def get_value(self) -> Any:
        """Return all numbers, or None.

        Raises :class:`FieldError` if one is invalid, or some but not all are missing.
        """
        values = super().get_value()
        missing = [number for number, value in zip(self, values, strict=True) if value is None]
        if 0 < len(missing) < len(values):
            raise FieldError(
                f"{self.label} lacks {len(missing)} of its {len(values)} numbers; type all of "
                "them, or none.",
                missing[0].box,
            )
        return None if missing else values

    def set_value(self, vals: Sequence[Any] | None) -> None:
        """Show the numbers; empty lines for None."""
        super().set_value([None] * len(self) if vals is None else vals)


class CheckList(Select):
    """A subset of choices, in their order, with a checkbox each.

    magicgui's has no checkboxes: a click on a choice deselects all others.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.native.setMaximumHeight(self.native.sizeHintForRow(0) * _LIST_ROWS)
        self.native.setSelectionMode(QAbstractItemView.SelectionMode.NoSelection)
        self.set_value(())
        self.native.itemChanged.connect(lambda: self.changed.emit(self.value))

    def get_value(self) -> Any:
        """Return the checked choices."""
        checked = Qt.CheckState.Checked
        return tuple(_value_of(item) for item in self._items() if item.checkState() == checked)

    def set_value(self, value: Any) -> None:
        """Check these choices, and no others."""
        before, was_blocked = self.get_value(), self.native.blockSignals(True)  # one signal for all
        for item in self._items():
            is_checked = _value_of(item) in value
            item.setCheckState(Qt.CheckState.Checked if is_checked else Qt.CheckState.Unchecked)
        self.native.blockSignals(was_blocked)
        self.native.viewport().update()
        if self.get_value() != before:
            self.changed.emit(self.value)

    def _items(self) -> list[QListWidgetItem]:
        return [self.native.item(row) for row in range(self.native.count())]


def _value_of(item: QListWidgetItem) -> Any:
    return item.data(Qt.ItemDataRole.UserRole)  # the text is the word for it


class OptionalText(LineEdit):
    """A text, or None if the line is empty; magicgui's would show the text "None"."""

    def get_value(self) -> Any:
        """Return the text, or None."""
        return super().get_value() or None

    def set_value(self, value: Any) -> None:
        """Show a text; an empty line for None."""
        super().set_value(value or "")


class VoxelField(QWidget):
    """Voxel size z, y, x in micrometres; 0 for unknown, shown as a placeholder."""

    changed = Signal()

    def __init__(self, placeholder: str) -> None:
        super().__init__()
        # No upper limit: the warning below suggests what a larger value may mean.
        self.sizes = Numbers(
            annotation=tuple[float, float, float], label=LABEL, min=0.0, keywords={placeholder: 0.0}
        )
        self.warning = QLabel(wordWrap=True)
        fill(QVBoxLayout(self), self.sizes.native, self.warning, margin=0, spacing=2)
        self.setSizePolicy(QSizePolicy.Policy.Preferred, QSizePolicy.Policy.Maximum)
        self.setFocusProxy(self.sizes.native)
        self.sizes.changed.connect(self._on_change)
        self._show_warning()

    @property
    def value(self) -> VoxelUm:
        """The three sizes."""
        z, y, x = self.sizes.value
        return z, y, x

    @value.setter
    def value(self, value: VoxelUm) -> None:
        self.sizes.value = value

    def voxel_um(self, name: str) -> VoxelUm:
        """Return the three sizes, checked.

        Raises :class:`FieldError`, with the ``name`` of the volume such as "the image", if they are
        not a possible voxel size.
        """
        voxel_um = self.value
        try:
            check_voxel_um(voxel_um, name)
        except RlnError as error:
            raise FieldError(str(error), self) from error
        return voxel_um

    def _on_change(self) -> None:
        self._show_warning()
        self.changed.emit()

    def _show_warning(self) -> None:
        text, colour = "", ERROR
        try:
            sizes = self.value
            if all(sizes):
                check_voxel_um(sizes, "it")
                text, colour = voxel_um_problem(sizes), WARNING
        except RlnError as error:
            text = str(error)
        self.warning.setText(f"{text[:1].upper()}{text[1:]}")
        self.warning.setStyleSheet(f"QLabel {{ color: {colour}; }}")
        # A hidden label would keep its height: forms do not shrink rows of wrapped text.
        self.warning.setMaximumHeight(_UNLIMITED if text else 0)
