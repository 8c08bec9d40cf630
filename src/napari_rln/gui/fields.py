"""One input for one field of a settings dataclass, chosen by the field's annotation."""

import math
import re
from collections.abc import Mapping, Sequence
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from magicgui.widgets import create_widget
from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import (
    QAbstractSpinBox,
    QComboBox,
    QHBoxLayout,
    QLabel,
    QListWidget,
    QListWidgetItem,
    QWidget,
)

from napari_rln.gui.field_errors import FieldError

IN_NM = {"shown in": "nm"}
"""Of a length in micrometres, among its limits: that it is shown and typed in nanometres."""

_NM_PER_UM = 1000
_DIGITS = 6  # that a number shows
_WIDTH = 56  # pixels
_WRONG = "#e0524c"
_NUMBER = re.compile(r"[+-]?([0-9]+[.,]?[0-9]*|[.,][0-9]+)(e[+-]?[0-9]+)?", re.IGNORECASE)
_GROUPED = re.compile(r"[+-]?[1-9][0-9]{0,2},[0-9]{3}")


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
        if parts:
            self.setFocusProxy(parts[0])

    @property
    def value(self) -> Any:
        """What is given.

        Raises
        ------
        FieldError
            If a number is wanted and none is typed.
        """
        raise NotImplementedError

    @value.setter
    def value(self, value: Any) -> None:
        raise NotImplementedError

    def call(self, label: str) -> None:
        """Say what it is called in messages."""


def field_for(annotation: Any, limits: Mapping[str, Any] | None = None) -> Field:
    """Return the input for an annotation.

    Parameters
    ----------
    annotation
        bool, int, float, str, a ``Literal`` of words, a tuple of these, and a union of one of them
        with None or with a word.
    limits
        ``min`` and ``max`` of numbers, and ``IN_NM``.

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
    if origin is Literal or annotation in (bool, str):
        return Plain(annotation)
    if origin in (Union, UnionType):
        return _union(inner, limits)
    if origin is tuple:
        if len(inner) == 2 and inner[1] is Ellipsis:
            return Several(get_args(inner[0]))
        return Row([field_for(each, limits) for each in inner])
    if annotation in (int, float):
        return Number(limits, whole=annotation is int)
    raise TypeError(f"there is no input for {annotation!r}")


def _union(members: Sequence[Any], limits: Mapping[str, Any]) -> Field:
    others = [m for m in members if m is not NoneType and get_origin(m) is not Literal]
    words = [word for m in members if get_origin(m) is Literal for word in get_args(m)]
    choices: list[Any] = [None] if NoneType in members else []
    if len(others) != 1:
        raise TypeError(f"there is no input for {members!r}")
    return Either([*choices, *words], field_for(others[0], limits))


class Plain(Field):
    """A word, a text, or yes or no: what magicgui has a widget for.

    Parameters
    ----------
    annotation
        bool, str or a ``Literal``.
    """

    def __init__(self, annotation: Any) -> None:
        self._widget = create_widget(annotation=annotation)
        self.box = self._widget.native
        super().__init__(self.box)
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


class NumberBox(QAbstractSpinBox):
    """A line for a number, with arrows: any text can be typed, and none is replaced."""

    stepped = Signal(int)

    def __init__(self) -> None:
        super().__init__()
        self.setMinimumWidth(_WIDTH)

    def stepEnabled(self) -> QAbstractSpinBox.StepEnabledFlag:
        """Allow both arrows."""
        flag = QAbstractSpinBox.StepEnabledFlag
        return flag.StepUpEnabled | flag.StepDownEnabled

    def stepBy(self, steps: int) -> None:
        """Tell that an arrow was pressed."""
        self.stepped.emit(steps)


class Number(Field):
    """A number as it is typed, with a point or a comma, whatever the system's language.

    What is beyond the limits is marked and given all the same: what takes it says what is wrong.

    Parameters
    ----------
    limits
        ``min`` and ``max``, and ``IN_NM``.
    whole
        Whether it is an integer.
    blank
        What is shown in place of 0, where that stands for nothing given.
    """

    def __init__(
        self, limits: Mapping[str, Any], *, whole: bool = False, blank: str | None = None
    ) -> None:
        self.box, self._mark = NumberBox(), QLabel("!")
        super().__init__(self.box, self._mark)
        self._whole, self._blank = whole, blank
        self._in_nm = limits.get("shown in") == "nm"
        self._per = _NM_PER_UM if self._in_nm else 1
        self.limits: tuple[float, float] = (
            self._per * limits.get("min", -math.inf),
            self._per * limits.get("max", math.inf),
        )
        self._label = "a number"
        self._value: float = 0
        self._text = ""  # that shows the value, which may have more digits
        self._seen = ""
        self._mark.setStyleSheet(f"QLabel {{ color: {_WRONG}; font-weight: bold; }}")
        self.box.lineEdit().setPlaceholderText(blank or "")
        self.box.editingFinished.connect(self._on_edit)
        self.box.stepped.connect(self._step)
        self._show(self._within(0) if whole else self._within(0) / self._per)

    @property
    def is_marked(self) -> bool:
        """Whether it is shown that this is no number, or beyond the limits."""
        return not self._mark.isHidden()

    @property
    def value(self) -> float:
        """The number.

        Raises
        ------
        FieldError
            If none is typed, or in nm one that is no length of light.
        """
        text = self.box.text().strip()
        value = self._value if text == self._text else self._read(text)
        if self._in_nm:  # what takes it would speak of micrometres
            self._check_nm(self._per * value)
        return value

    @value.setter
    def value(self, value: float) -> None:
        changed = self.box.text() != self._text or value != self._value
        self._show(value)
        if changed:
            self.changed.emit()

    def within(self) -> float:
        """Return the number, where nothing that takes it knows its limits.

        Raises
        ------
        FieldError
            If it is beyond them, or none is typed.
        """
        value = self.value
        shown = self._per * value
        if not self._allows(shown):
            raise FieldError(f"{self._label} is {shown:g} but {self._span()}.", self.box)
        return value

    def call(self, label: str) -> None:
        """Say what it is called in messages."""
        self._label = label

    def _show(self, value: float) -> None:
        shown = self._per * value
        text = str(value) if self._whole else f"{shown:.{_DIGITS}g}"
        self._hold(value, "" if self._blank is not None and not value else text)

    def _hold(self, value: float, text: str) -> None:
        self._value, self._text, self._seen = value, text, text
        self.box.lineEdit().setText(text)
        beyond = bool(text) and not self._allows(self._per * value)
        self._say(self._span() if beyond else "")

    def _on_edit(self) -> None:
        text = self.box.text().strip()
        if text == self._seen:
            return
        self._seen = text
        try:
            self._hold(self._read(text), text.replace(",", "."))
        except FieldError as error:
            self._say(str(error))
        self.changed.emit()

    def _read(self, text: str) -> float:
        if not text and self._blank is not None:
            return 0
        plain = text.replace("\N{MINUS SIGN}", "-")
        example = "an integer such as 10" if self._whole else "a number such as 0.065"
        wrong = FieldError(f"{self._label} is {text!r}; type {example}.", self.box)
        if not _NUMBER.fullmatch(plain) or (self._whole and set(plain) & set(".,")):
            raise wrong
        shown = float(plain.replace(",", "."))
        if not math.isfinite(shown) or (self._whole and not shown.is_integer()):
            raise wrong
        # Who groups digits by commas means a thousand times as much.
        if _GROUPED.fullmatch(plain) and self._allows(1000 * shown):
            raise FieldError(
                f"{self._label} is {text!r}, which may be {shown:g} or {1000 * shown:g}; type one "
                "of these.",
                self.box,
            )
        return int(shown) if self._whole else shown / self._per

    def _check_nm(self, nm: float) -> None:
        if self._allows(nm):
            return
        meant = _NM_PER_UM * nm
        if self._allows(meant):
            sentence = f"{self._label} is {nm:g}; did you mean {meant:g} ({nm:g} \N{MICRO SIGN}m)?"
        else:
            sentence = f"{self._label} is {nm:g} but {self._span()}."
        raise FieldError(sentence, self.box)

    def _allows(self, shown: float) -> bool:
        return self.limits[0] <= shown <= self.limits[1]

    def _within(self, shown: float) -> float:
        return min(max(shown, self.limits[0]), self.limits[1])

    def _span(self) -> str:
        low, high = self.limits
        if high == math.inf:
            return f"must be at least {low:g}"
        if low == -math.inf:
            return f"must be at most {high:g}"
        return f"must lie between {low:g} and {high:g}"

    def _say(self, wrong: str) -> None:
        """Mark it with what is wrong; nothing is with an empty sentence."""
        self._mark.setVisible(bool(wrong))
        self._mark.setToolTip(f"<p>{wrong[:1].upper()}{wrong[1:]}</p>")
        self.box.setStyleSheet(f"QAbstractSpinBox {{ color: {_WRONG}; }}" if wrong else "")

    def _step(self, steps: int) -> None:
        """Go up or down by the unit of the second digit, an integer by one, within the limits."""
        try:
            shown = self._per * self.value
        except FieldError:
            return
        size = 1.0
        if not self._whole:
            size = 10.0 ** (math.floor(math.log10(abs(shown))) - 1) if shown else 0.1
        stepped = self._within(shown + steps * size)
        self.value = round(stepped) if self._whole else float(f"{stepped:.9g}") / self._per


def take_typed(window: QWidget) -> None:
    """Take what is being typed into a number: not on all systems a click elsewhere ends that.

    Parameters
    ----------
    window
        Where.
    """
    box = window.focusWidget()
    if isinstance(box, NumberBox):
        box.editingFinished.emit()


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

    def call(self, label: str) -> None:
        """Say what all of them are called in messages."""
        for field in self.fields:
            field.call(label)


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
    def is_word(self) -> bool:
        """Whether one of the words is chosen."""
        return bool(self.choice.currentIndex() < len(self.words))

    @property
    def value(self) -> Any:
        """The value, or the word."""
        return self.words[self.choice.currentIndex()] if self.is_word else self.field.value

    @value.setter
    def value(self, value: Any) -> None:
        if value in self.words:
            self.choice.setCurrentIndex(self.words.index(value))
        else:
            self.field.value = value
            self.choice.setCurrentIndex(len(self.words))

    def call(self, label: str) -> None:
        """Say what it is called in messages."""
        self.field.call(label)
