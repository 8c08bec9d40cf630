"""One input for one field of a settings dataclass, chosen by the field's annotation."""

from collections.abc import Mapping, Sequence
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from magicgui.widgets import create_widget
from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import (
    QComboBox,
    QDoubleSpinBox,
    QHBoxLayout,
    QListWidget,
    QListWidgetItem,
    QWidget,
)

_DIGITS = 6  # that a number shows
_FINEST = 9  # decimals that it holds
_LARGEST = 1_000_000_000


class Field(QWidget):
    """An input with a value of any type; the others here are its kinds."""

    changed = Signal()

    def __init__(self, *parts: QWidget) -> None:
        super().__init__()
        layout = QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(4)
        for part in parts:
            layout.addWidget(part)

    @property
    def value(self) -> Any:
        """What is given."""
        raise NotImplementedError

    @value.setter
    def value(self, value: Any) -> None:
        raise NotImplementedError


def field_for(annotation: Any, limits: Mapping[str, Any] | None = None) -> Field:
    """Return the input for an annotation.

    Parameters
    ----------
    annotation
        bool, int, float, str, a ``Literal`` of words, a tuple of these, and a union of one of them
        with None or with a word.
    limits
        ``min`` and ``max`` of numbers.

    Raises
    ------
    TypeError
        For any other.
    """
    limits = limits or {}
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        extras = {k: v for extra in inner[1:] for k, v in extra.items()}
        return field_for(inner[0], {**limits, **extras})
    if origin is Literal or annotation in (bool, int, str):
        return Plain(annotation, limits)
    if origin in (Union, UnionType):
        return _union(inner, limits)
    if origin is tuple:
        if len(inner) == 2 and inner[1] is Ellipsis:
            return Several(get_args(inner[0]))
        return Row([field_for(each, limits) for each in inner])
    if annotation is float:
        return Number(limits)
    raise TypeError(f"there is no input for {annotation!r}")


def _union(members: Sequence[Any], limits: Mapping[str, Any]) -> Field:
    others = [m for m in members if m is not NoneType and get_origin(m) is not Literal]
    words = [word for m in members if get_origin(m) is Literal for word in get_args(m)]
    choices: list[Any] = [None] if NoneType in members else []
    if len(others) != 1:
        raise TypeError(f"there is no input for {members!r}")
    return Either([*choices, *words], field_for(others[0], limits))


class Plain(Field):
    """A whole number, a word, a text, or yes or no: what magicgui has a widget for.

    Parameters
    ----------
    annotation
        int, bool, str or a ``Literal``.
    limits
        ``min`` and ``max`` of a number.
    """

    def __init__(self, annotation: Any, limits: Mapping[str, Any]) -> None:
        options = {"min": -_LARGEST, "max": _LARGEST} | dict(limits) if annotation is int else {}
        options = {k: v for k, v in options.items() if k in ("min", "max")}
        self._widget = create_widget(annotation=annotation, options=options)
        self.box = self._widget.native
        super().__init__(self.box)
        if annotation is int:
            _calm(self.box)
        self._widget.changed.connect(self._on_change)

    @property
    def value(self) -> Any:
        """What is given."""
        return self._widget.value

    @value.setter
    def value(self, value: Any) -> None:
        self._widget.value = value

    def _on_change(self) -> None:
        self.changed.emit()


class _CompactSpinBox(QDoubleSpinBox):
    """Shows as many digits as a number has, not always the same."""

    def textFromValue(self, value: float) -> str:
        return f"{value:.{_DIGITS}g}"


class Number(Field):
    """Any number."""

    def __init__(self, limits: Mapping[str, Any]) -> None:
        self.box = _CompactSpinBox()
        super().__init__(self.box)
        self.box.setDecimals(_FINEST)
        self.box.setRange(limits.get("min", -_LARGEST), limits.get("max", _LARGEST))
        _calm(self.box)
        self.box.setStepType(QDoubleSpinBox.StepType.AdaptiveDecimalStepType)
        self.box.valueChanged.connect(self.changed)

    @property
    def value(self) -> float:
        """The number."""
        return float(self.box.value())

    @value.setter
    def value(self, value: float) -> None:
        self.box.setValue(value)


def _calm(box: Any) -> None:
    box.setKeyboardTracking(False)  # else every digit that is typed counts
    box.setMinimumWidth(56)


class Several(Field):
    """Some of several words, in their order."""

    def __init__(self, words: Sequence[str]) -> None:
        self.box = QListWidget()
        super().__init__(self.box)
        for word in words:
            item = QListWidgetItem(word, self.box)
            item.setFlags(item.flags() | Qt.ItemFlag.ItemIsUserCheckable)
            item.setCheckState(Qt.CheckState.Unchecked)
        self.box.setMaximumHeight(self.box.sizeHintForRow(0) * 6)
        self.box.itemChanged.connect(self.changed)

    def _items(self) -> list[QListWidgetItem]:
        return [self.box.item(i) for i in range(self.box.count())]

    @property
    def value(self) -> tuple[str, ...]:
        """The words that are ticked."""
        ticked = (i for i in self._items() if i.checkState() == Qt.CheckState.Checked)
        return tuple(str(item.text()) for item in ticked)

    @value.setter
    def value(self, value: Sequence[str]) -> None:
        for item in self._items():
            on = item.text() in value
            item.setCheckState(Qt.CheckState.Checked if on else Qt.CheckState.Unchecked)


class Row(Field):
    """Several values side by side, such as lengths along z, y and x."""

    def __init__(self, fields: Sequence[Field]) -> None:
        super().__init__(*fields)
        self.fields = fields
        for field in fields:
            field.changed.connect(self.changed)

    @property
    def value(self) -> tuple[Any, ...]:
        """All of them."""
        return tuple(field.value for field in self.fields)

    @value.setter
    def value(self, value: Sequence[Any]) -> None:
        for field, each in zip(self.fields, value, strict=True):
            field.value = each


class Either(Field):
    """A value, or one of some words instead of it; None is a word too."""

    def __init__(self, words: Sequence[str | None], field: Field) -> None:
        self.words = (*words,)
        self.choice = QComboBox()
        self.field = field
        super().__init__(self.choice, field)
        self.choice.addItems([word or "default" for word in words] + ["set"])
        self.choice.currentIndexChanged.connect(self._on_choice)
        self._on_choice()
        field.changed.connect(self.changed)

    def _on_choice(self) -> None:
        self.field.setVisible(self.choice.currentIndex() == len(self.words))
        self.changed.emit()

    @property
    def value(self) -> Any:
        """The value, or the word."""
        at = self.choice.currentIndex()
        return self.words[at] if at < len(self.words) else self.field.value

    @value.setter
    def value(self, value: Any) -> None:
        if value in self.words:
            self.choice.setCurrentIndex(self.words.index(value))
        else:
            self.field.value = value
            self.choice.setCurrentIndex(len(self.words))
