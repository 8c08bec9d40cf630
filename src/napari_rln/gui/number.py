"""Input of a number, or of a keyword such as auto in its place."""

import contextlib
import math
import re
from collections.abc import Mapping
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

from magicgui.types import Undefined
from magicgui.widgets.bases import ValuedContainerWidget
from qtpy.QtCore import Signal
from qtpy.QtWidgets import QAbstractSpinBox, QLineEdit, QStyle, QWidget

from napari_rln.gui.field_errors import FieldError
from napari_rln.gui.theme import ERROR

DEFAULT = "default"  # the keyword for None where the annotation has no other

_NM_PER_UM = 1000
_DIGITS = 6  # significant digits on display
_WIDTH = 56  # minimum, in pixels
_NUMBER = re.compile(r"[+-]?([0-9]+[.,]?[0-9]*|[.,][0-9]+)(e[+-]?[0-9]+)?", re.IGNORECASE)
_GROUPED = re.compile(r"[+-]?[1-9][0-9]{0,2},[0-9]{3}")


def members_of(annotation: Any) -> tuple[Any, ...]:
    """Return the members of a union, or the only annotation."""
    is_union = get_origin(annotation) in (Union, UnionType)
    return get_args(annotation) if is_union else (annotation,)


def _exact(number: float) -> str:
    return f"{number:.10g}"


class NumberBox(QAbstractSpinBox):
    """A line with arrows that keeps any text as typed."""

    stepped = Signal(int)

    def stepEnabled(self) -> QAbstractSpinBox.StepEnabledFlag:
        """Allow both arrows where there is a number to start from."""
        flag = QAbstractSpinBox.StepEnabledFlag
        return flag.StepUpEnabled | flag.StepDownEnabled if self.text() else flag.StepNone

    def stepBy(self, steps: int) -> None:
        """Report that an arrow was pressed."""
        self.stepped.emit(steps)


class Number(ValuedContainerWidget[Any]):
    """A number with decimal point or comma, or a keyword such as auto in its place.

    magicgui's spin boxes accept only the decimal mark of the system's language, clip a number
    while it is typed, round it to two decimals, and have no keywords.

    Parameters
    ----------
    annotation
        ``int`` or ``float``, or a union of one of them with None and ``Literal`` keywords.
    value
        Initial value; by default the first keyword, else the valid number nearest to 0.
    min, max
        Limits. A number outside stays as typed, is marked, and raises when read.
    keywords
        Value of each keyword; an empty line means the first. By default those of the annotation.
    none
        Keyword for None.
    in_nm
        Whether a value in micrometres is shown and typed in nanometres.
    """

    def __init__(
        self,
        *,
        annotation: Any = float,
        value: Any = Undefined,
        min: float = -math.inf,
        max: float = math.inf,
        keywords: Mapping[str, Any] | None = None,
        none: str = DEFAULT,
        in_nm: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(annotation=annotation, layout="horizontal", labels=False, **options)
        members = members_of(annotation)
        self.is_whole = float not in members
        self._scale = _NM_PER_UM if in_nm else 1  # of a shown number to the value
        self.limits = (self._scale * min, self._scale * max)
        self.box = NumberBox()
        self.box.setMinimumWidth(_WIDTH)
        self.margins = (0, 0, 0, 0)
        self.native.layout().addWidget(self.box)
        self.native.setFocusProxy(self.box)
        line = self.box.lineEdit()
        self._warning = line.addAction(
            self.box.style().standardIcon(QStyle.StandardPixmap.SP_MessageBoxWarning),
            QLineEdit.ActionPosition.TrailingPosition,
        )
        if keywords is None:
            keywords = {none: None} if NoneType in members else {}
            keywords |= {k: k for m in members if get_origin(m) is Literal for k in get_args(m)}
            line.setClearButtonEnabled(bool(keywords))
        self._keywords = {"": next(iter(keywords.values())), **keywords} if keywords else {}
        line.setPlaceholderText(next(iter(keywords), ""))
        if value is Undefined:
            lowest = self._into_limits(0) / self._scale
            value = self._keywords.get("", int(lowest) if self.is_whole else lowest)
        self._show(value, self._text_of(value))
        self.box.editingFinished.connect(self._on_edit)
        self.box.stepped.connect(self._step)

    @property
    def is_marked(self) -> bool:
        """Whether the text is marked as invalid."""
        return bool(self._warning.isVisible())

    @property
    def is_keyword(self) -> bool:
        """Whether the text is a keyword instead of a number."""
        return self.box.text().strip().casefold() in self._keywords

    def get_value(self) -> Any:
        """Return the number, or the value of the keyword.

        Raises :class:`FieldError` if the text is neither, or the number is outside the limits.
        """
        text = self.box.text().strip()
        value = self._value if text == self._text else self._read(text)
        self._check(value)
        return value

    def set_value(self, value: Any) -> None:
        """Show a number, or the keyword of a value."""
        is_new = self.box.text() != self._text or value != self._value
        self._show(value, self._text_of(value))
        if is_new:
            self.changed.emit(value)

    def ask(self) -> None:
        """Show an empty line; reading it raises until a number is typed."""
        line = self.box.lineEdit()
        line.setPlaceholderText("type it")
        line.clear()
        self._committed = ""
        self._mark()

    def _text_of(self, value: Any) -> str:
        keyword = next((key for key, meaning in self._keywords.items() if value == meaning), None)
        if keyword is not None:
            return keyword
        return str(value) if self.is_whole else f"{self._scale * value:.{_DIGITS}g}"

    def _show(self, value: Any, text: str) -> None:
        # The text may have fewer digits than the value.
        self._value, self._text, self._committed = value, text, text
        self.box.lineEdit().setText(text)
        self._mark()

    def _on_edit(self) -> None:
        text = self.box.text().strip()
        if text == self._committed:
            return
        self._committed = text
        with contextlib.suppress(FieldError):
            value = self._read(text)
            self._show(value, self._text_of(value) if self.is_keyword else text.replace(",", "."))
        self._mark()
        self.changed.emit(text)

    def _read(self, text: str) -> Any:
        if text.casefold() in self._keywords:
            return self._keywords[text.casefold()]
        name = self.label or "the number"
        if not text:
            raise FieldError(f"{name} is missing; type it.", self.box)
        example = "an integer such as 10" if self.is_whole else "a number such as 0.065"
        choices = ", ".join([example, *filter(None, self._keywords)])
        invalid = FieldError(f"{name} is {text!r}; type {choices}.", self.box)
        plain = text.replace("\N{MINUS SIGN}", "-")
        if not _NUMBER.fullmatch(plain) or (self.is_whole and set(plain) & set(".,")):
            raise invalid
        shown = float(plain.replace(",", "."))
        if not math.isfinite(shown) or (self.is_whole and not shown.is_integer()):
            raise invalid
        # A comma that separates thousands would make it a thousand times larger.
        if _GROUPED.fullmatch(plain) and self._allows(1000 * shown):
            either = f"{_exact(shown)} or {_exact(1000 * shown)}"
            raise FieldError(
                f"{name} is {text!r}, which may be {either}; type one of these.", self.box
            )
        return int(shown) if self.is_whole else shown / self._scale

    def _check(self, value: Any) -> None:
        if value in self._keywords.values() or self._allows(self._scale * value):
            return
        shown = self._scale * value
        message = f"{self.label} is {_exact(shown)}"
        if self._scale > 1 and self._allows(self._scale * shown):  # typed in micrometres
            meant = f"{_exact(self._scale * shown)} ({_exact(shown)} \N{MICRO SIGN}m)"
            raise FieldError(f"{message}; did you mean {meant}?", self.box)
        low, high = map(_exact, self.limits)
        limits = f"lie between {low} and {high}"
        if math.inf in self.limits:
            limits = f"be at least {low}"
        elif -math.inf in self.limits:
            limits = f"be at most {high}"
        raise FieldError(f"{message} but must {limits}.", self.box)

    def _allows(self, shown: float) -> bool:
        return self.limits[0] <= shown <= self.limits[1]

    def _into_limits(self, shown: float) -> float:
        return min(max(shown, self.limits[0]), self.limits[1])

    def _mark(self) -> None:
        problem = ""
        try:
            self.get_value()
        except FieldError as error:
            problem = str(error)
        self._warning.setVisible(bool(problem))
        self._warning.setToolTip(f"<p>{problem[:1].upper()}{problem[1:]}</p>" if problem else "")
        self.box.setStyleSheet(f"QAbstractSpinBox {{ color: {ERROR}; }}" if problem else "")

    def _step(self, steps: int) -> None:
        """Step the second significant digit, or an integer by one, within the limits."""
        if self.is_keyword or self.is_marked:
            return
        shown, size = self._scale * self.get_value(), 1.0
        if not self.is_whole:
            size = 10.0 ** (math.floor(math.log10(abs(shown))) - 1) if shown else 0.1
        stepped = self._into_limits(shown + steps * size)
        self.value = round(stepped) if self.is_whole else float(f"{stepped:.9g}") / self._scale


def commit_number(window: QWidget) -> None:
    """Commit the number being typed in a window; a click elsewhere may not take the focus."""
    box = window.focusWidget()
    if isinstance(box, NumberBox):
        box.editingFinished.emit()
