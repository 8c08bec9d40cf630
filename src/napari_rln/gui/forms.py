"""Forms of settings dataclasses, with labels, units, limits and tooltips of the dataclass."""

import dataclasses
import html
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Generic, TypeVar, get_type_hints

import docstring_parser
from magicgui.widgets import CheckBox
from qtpy.QtCore import Signal
from qtpy.QtWidgets import QFormLayout, QLabel, QVBoxLayout, QWidget

from napari_rln.core.errors import RlnError
from napari_rln.gui.deferred import Deferred
from napari_rln.gui.field_errors import FieldError
from napari_rln.gui.fields import LABEL, extras_of, widget_for
from napari_rln.gui.layouts import Collapsible, fill

S = TypeVar("S")

_UNITS = {"um": "\N{MICRO SIGN}m", "au": "AU", "db": "dB", "gb": "GB"}
_WAVELENGTHS = ("wavelength_um", "excitation_um")  # in nm, as on a filter
# A setting in a message, alone or with a value; a value in the text of a tooltip.
_NAMED = re.compile(r"`([A-Za-z_][A-Za-z0-9_]*)(?:=([^`]+))?`")
_MICROMETRES = re.compile(r"(?<=[\d)] )um\b")  # in messages of the core, for any terminal
# A command in a message, and the place of the window that does the same.
_COMMAND = re.compile(r"\(`napari-rln ([a-z ]+)`\)")
_PLACES = {
    "dual": "as the second view on the page Deconvolve, under More",
    "psf measure": "on the page PSF, under From beads",
    "psf repair": "on the page PSF, with Repair",
    "train": "on the page Train",
}
_LITERAL = re.compile(r"``([^`]+)``")
_NAMES = {name.lower(): name for name in ("PSF", "NA", "TV", "SNR", "DPI", "FWHM")}
# Labels of settings, and words for their values, by name: those of docks, and of every form made so
# far.
_LABELS = {"voxel_um": LABEL, "tile": "Tile (voxels)", "psf": "PSF"}
_WORDS: dict[str, Mapping[Any, str]] = {}


class _Fields(Mapping[str, Any]):
    """The fields of a form by name; those under Advanced are made when one is looked up."""

    def __init__(self, names: Sequence[str], made: Mapping[str, Any], make: Callable[[], None]):
        self._names, self._made, self._make = names, made, make

    def __getitem__(self, name: str) -> Any:
        if name not in self._made and name in self._names:
            self._make()
        return self._made[name]

    def __contains__(self, name: object) -> bool:
        return name in self._names

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


class Form(QWidget, Generic[S]):
    """A form of a settings dataclass, whose fields under Advanced are made when they are needed.

    Parameters
    ----------
    top
        Names of the fields on top, in order; the others are under Advanced.
    hidden
        Names of the fields without a widget, such as the device, which preferences set.
    """

    changed = Signal()

    def __init__(self, kind: type[S], *, top: Sequence[str], hidden: Sequence[str] = ()) -> None:
        super().__init__()
        self._kind, self._top, self._hidden = kind, tuple(top), set(hidden)
        know_labels(kind)
        names = [field.name for field in dataclasses.fields(kind)]  # type: ignore[arg-type]
        names = [name for name in names if name not in self._hidden]
        rest = [name for name in names if name not in top]
        self._without_field = _values(kind())  # of settings that have no field, or none yet
        self._made: dict[str, Any] = {}
        self._row_labels: dict[str, QLabel] = {}
        self._advanced = Deferred(lambda: self._rows(rest))
        self.fields = _Fields(names, self._made, self._advanced.made)
        body = self._rows(top)
        self._top_rows = body.layout()
        advanced = [Collapsible("Advanced", self._advanced)] if rest else []
        fill(QVBoxLayout(self), body, *advanced, margin=0)

    def settings(self, **others: Any) -> S:
        """Return the settings, with other values for fields without a widget.

        Raises :class:`RlnError` if they contradict each other; a :class:`FieldError` if the message
        names a field.
        """
        shown = {name: field.value for name, field in self._made.items()}
        try:
            return self._kind(**(self._without_field | shown | others))
        except RlnError as error:
            message = str(error)
            named = [name for name, _ in _NAMED.findall(message) if name in self.fields]
            if not named:
                raise
            raise FieldError(message, self.fields[named[0]].native) from error

    def value(self, name: str) -> Any:
        """Return the value of a field; raise a :class:`FieldError` if it is not valid."""
        return self._made[name].value if name in self._made else self._without_field[name]

    def show_settings(self, settings: S) -> None:
        """Show these settings."""
        self.show_values(_values(settings))

    def show_values(self, values: Mapping[str, Any]) -> None:
        """Show values of some settings, by name."""
        others = {name: value for name, value in values.items() if name not in self._made}
        are_new = any(self._without_field[name] != value for name, value in others.items())
        self._without_field |= others
        for name in values.keys() - others.keys():
            self._made[name].value = values[name]
        if are_new:
            self._on_change()

    def show_only(self, names: Sequence[str]) -> None:
        """Hide the other fields on top."""
        for name in self._top:
            self._top_rows.setRowVisible(self._made[name].native, name in names)

    def add_row(self, text: str, widget: QWidget, *, before: str = "") -> None:
        """Add a row of another widget on top, before that of a field or at the end."""
        at = self._top_rows.rowCount()
        if before:
            at, _ = self._top_rows.getWidgetPosition(self._made[before].native)
        self._top_rows.insertRow(at, QLabel(text, toolTip=widget.toolTip()), widget)

    def show_row(self, widget: QWidget, shown: bool) -> None:
        """Show or hide a row that was added."""
        self._top_rows.setRowVisible(widget, shown)

    def mark(self, marks: Mapping[str, tuple[str, str]]) -> None:
        """Mark the labels of some fields, and no others.

        A mark is a symbol in rich text and a note for the tooltip.
        """
        for name, label in self._row_labels.items():
            symbol, note = marks.get(name, ("", ""))
            field = self._made[name]
            label.setText(f"{field.label} {symbol}".strip())
            label.setToolTip(f"<p>{note}</p>{field.tooltip}" if note else field.tooltip)

    def _rows(self, names: Sequence[str]) -> QWidget:
        """Make the fields with these names."""
        hints, tips = get_type_hints(self._kind, include_extras=True), tooltips(self._kind)
        # Not magicgui's container: it measures labels in another font than napari draws them.
        body = QWidget()
        rows = fill(QFormLayout(body), margin=0)
        rows.setVerticalSpacing(3)
        rows.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.AllNonFixedFieldsGrow)
        rows.setRowWrapPolicy(QFormLayout.RowWrapPolicy.WrapLongRows)
        for name in names:
            options: dict[str, Any] = {"in_nm": True} if name in _WAVELENGTHS else {}
            options |= {"name": name, "label": label_of(name, hints[name])}
            widget = widget_for(hints[name], **options, tooltip=tips.get(name, ""))
            widget.value = self._without_field.pop(name)
            widget.changed.connect(self._on_change)
            self._made[name] = widget
            if isinstance(widget, CheckBox):
                rows.addRow(widget.native)
            else:
                label = QLabel(widget.label, toolTip=widget.tooltip)
                rows.addRow(label, widget.native)
                self._row_labels[name] = label
        return body

    def _on_change(self) -> None:
        self.changed.emit()


def label_of(name: str, hint: Any) -> str:
    """Return the label of a field in a form, with its unit."""
    extras = extras_of(hint)
    parts = name.split("_")
    unit = _UNITS.get(parts[-1])
    if unit:
        parts.pop()
        unit = "nm" if name in _WAVELENGTHS else unit
    elif "unit" in extras:
        unit = _UNITS.get(extras["unit"], extras["unit"])
    parts = [_NAMES.get(part, part) for part in parts]
    text = extras.get("label") or " ".join([parts[0][:1].upper() + parts[0][1:], *parts[1:]])
    return f"{text} ({unit})" if unit else text


def _values(settings: Any) -> dict[str, Any]:
    return {each.name: getattr(settings, each.name) for each in dataclasses.fields(settings)}


def know_labels(kind: type[Any]) -> None:
    """Use the labels and words of a settings dataclass in messages that name its fields."""
    hints = get_type_hints(kind, include_extras=True)
    for field in dataclasses.fields(kind):
        hint = hints[field.name]
        _LABELS[field.name] = label_of(field.name, hint)
        _WORDS[field.name] = extras_of(hint).get("words", {})


def tooltips(kind: type[Any]) -> dict[str, str]:
    """Return the descriptions of a dataclass's fields, as rich text that wraps.

    Values, which docstrings set in double backticks, appear as in the form.
    """
    described = docstring_parser.parse(kind.__doc__ or "", docstring_parser.DocstringStyle.NUMPYDOC)
    hints = get_type_hints(kind, include_extras=True)
    tips = {}
    for parameter in described.params:
        text = " ".join((parameter.description or "").split())
        for name in map(str.strip, parameter.arg_name.split(",")):
            words = extras_of(hints.get(name)).get("words", {})
            parts = _LITERAL.split(text)  # text and values in turn
            parts[1::2] = [words.get(value, value) for value in parts[1::2]]
            plain = html.escape("".join(parts), quote=False)
            tips[name] = f"<p>{plain[:1].upper()}{plain[1:]}</p>"
    return tips


def with_labels(message: str) -> str:
    """Return a message with labels in place of the names of settings in backticks.

    A command in backticks and brackets becomes the page of the window that does the same. Values
    after an equals sign are in the words of forms, and micrometres have their sign.
    """

    def label(match: re.Match[str]) -> str:
        name, value = match[1], match[2]
        text = _LABELS.get(name, name.replace("_", " "))
        return text if value is None else f"{text}: {_WORDS.get(name, {}).get(value, value)}"

    message = _COMMAND.sub(lambda match: _PLACES.get(match[1], match[0]), message)
    return _MICROMETRES.sub("\N{MICRO SIGN}m", _NAMED.sub(label, message))
