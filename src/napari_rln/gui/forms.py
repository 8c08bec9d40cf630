"""Settings dataclasses as forms: labels, units, limits and tooltips come from the dataclass."""

import dataclasses
from collections.abc import Sequence
from typing import Annotated, Any, Generic, TypeVar, get_args, get_origin, get_type_hints

import docstring_parser
from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import QFormLayout, QToolButton, QVBoxLayout, QWidget

from napari_rln.gui.fields import Field, field_for

S = TypeVar("S")

_UNITS = {"um": "\N{MICRO SIGN}m", "au": "Airy units", "db": "dB"}
_NAMES = {
    "psf": "PSF",
    "na": "NA",
    "tv": "TV",
    "snr": "SNR",
    "yz": "yz",
    "dpi": "DPI",
    "fwhm": "FWHM",
}


class Form(QWidget, Generic[S]):
    """A form for a settings dataclass: what matters on top, the rest under Advanced.

    Parameters
    ----------
    kind
        The dataclass.
    top
        Names of the fields that matter, in their order; the others follow under Advanced.
    hidden
        Names of the fields that are given elsewhere, such as the device.
    start
        What is shown first; the defaults when none.
    """

    changed = Signal()

    def __init__(
        self,
        kind: type[S],
        *,
        top: Sequence[str],
        hidden: Sequence[str] = (),
        start: S | None = None,
    ) -> None:
        super().__init__()
        self._kind, self._hidden = kind, set(hidden)
        self._given: dict[str, Any] = {}  # of the fields that are not shown
        names = [f.name for f in dataclasses.fields(kind) if f.name not in self._hidden]  # type: ignore[arg-type]
        hints = get_type_hints(kind, include_extras=True)
        tips = tooltips(kind)
        self.fields: dict[str, Field] = {name: field_for(hints[name]) for name in names}
        rest = [name for name in names if name not in top]
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        self._top, self._top_names = self._rows(top, hints, tips), tuple(top)
        layout.addLayout(self._top)
        if rest:
            self.advanced = QWidget()
            self.advanced.setLayout(self._rows(rest, hints, tips))
            self.advanced.setVisible(False)
            layout.addWidget(_toggle("Advanced", self.advanced))
            layout.addWidget(self.advanced)
        self.show_settings(start if start is not None else kind())
        for field in self.fields.values():
            field.changed.connect(self.changed)

    def settings(self, **given: Any) -> S:
        """Return the settings.

        Parameters
        ----------
        **given
            Those that the form does not hold.

        Raises
        ------
        RlnError
            If they contradict each other.
        """
        shown = {name: field.value for name, field in self.fields.items()}
        return self._kind(**(self._given | shown | given))

    def show_settings(self, settings: S) -> None:
        """Show these settings."""
        self._given = {name: getattr(settings, name) for name in self._hidden}
        for name, field in self.fields.items():
            field.value = getattr(settings, name)

    def show_only(self, names: Sequence[str]) -> None:
        """Of the fields on top, show these only."""
        for name in self._top_names:
            self._top.setRowVisible(self.fields[name], name in names)

    def _rows(self, names: Sequence[str], hints: dict[str, Any], tips: dict[str, str]) -> Any:
        rows = QFormLayout()
        rows.setContentsMargins(0, 0, 0, 0)
        rows.setVerticalSpacing(3)
        rows.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.ExpandingFieldsGrow)
        for name in names:
            field = self.fields[name]
            rows.addRow(label_of(name, hints[name]), field)
            for part in (field, rows.labelForField(field)):
                part.setToolTip(tips.get(name, ""))
        return rows


def label_of(name: str, hint: Any) -> str:
    """Return what a field is called in a form, with its unit."""
    extras: dict[str, Any] = {}
    if get_origin(hint) is Annotated:
        extras = {k: v for extra in get_args(hint)[1:] for k, v in extra.items()}
    words = name.split("_")
    unit = _UNITS.get(words[-1])
    if unit:
        words.pop()
    elif "unit" in extras:
        unit = _UNITS.get(extras["unit"], extras["unit"])
    words = [_NAMES.get(word, word) for word in words]
    text = extras.get("label") or " ".join([words[0][:1].upper() + words[0][1:], *words[1:]])
    return f"{text} ({unit})" if unit else text


def tooltips(kind: type[Any]) -> dict[str, str]:
    """Return what a dataclass's docstring says of its fields, as rich text that wraps."""
    described = docstring_parser.parse(kind.__doc__ or "", docstring_parser.DocstringStyle.NUMPYDOC)
    tips = {}
    for parameter in described.params:
        text = " ".join((parameter.description or "").split()).replace("``", "")
        for name in parameter.arg_name.split(","):
            tips[name.strip()] = f"<p>{text[:1].upper()}{text[1:]}</p>"
    return tips


def _toggle(text: str, body: QWidget) -> QToolButton:
    """Return a button that shows and hides what belongs below it."""
    button = QToolButton()
    button.setText(text)
    button.setCheckable(True)
    button.setToolButtonStyle(Qt.ToolButtonStyle.ToolButtonTextBesideIcon)
    button.setArrowType(Qt.ArrowType.RightArrow)
    button.setAutoRaise(True)

    def show(on: bool) -> None:
        button.setArrowType(Qt.ArrowType.DownArrow if on else Qt.ArrowType.RightArrow)
        body.setVisible(on)

    button.toggled.connect(show)
    return button
