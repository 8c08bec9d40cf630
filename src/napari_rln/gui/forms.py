"""Settings dataclasses as forms: labels, units, limits and tooltips come from the dataclass."""

import dataclasses
import re
from collections.abc import Sequence
from typing import Annotated, Any, Generic, TypeVar, get_args, get_origin, get_type_hints

import docstring_parser
from qtpy.QtCore import Signal
from qtpy.QtWidgets import QFormLayout, QVBoxLayout, QWidget

from napari_rln.core.errors import RlnError
from napari_rln.gui.field_errors import FieldError, Fold
from napari_rln.gui.fields import IN_NM, Field, field_for

S = TypeVar("S")

_UNITS = {"um": "\N{MICRO SIGN}m", "au": "Airy units", "db": "dB", "gb": "GB"}
_WAVELENGTHS = ("wavelength_um", "excitation_um")  # which one reads off a filter in nm
_NAMED = re.compile(r"`([A-Za-z_][A-Za-z0-9_]*)`")  # in a message, as Python names it
_NAMES = {
    "psf": "PSF",
    "na": "NA",
    "tv": "TV",
    "snr": "SNR",
    "yz": "yz",
    "dpi": "DPI",
    "fwhm": "FWHM",
}
# What docks show of their own, and all that forms hold, by the names in messages.
_LABELS = {"voxel_um": "Voxel (\N{MICRO SIGN}m)", "tile": "Tile (voxels)", "psf": "PSF"}


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
        self.fields: dict[str, Field] = {
            name: field_for(hints[name], IN_NM if name in _WAVELENGTHS else None) for name in names
        }
        rest = [name for name in names if name not in top]
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        self._top, self._top_names = self._rows(top, hints, tips), tuple(top)
        layout.addLayout(self._top)
        if rest:
            body = QWidget()
            body.setLayout(self._rows(rest, hints, tips))
            layout.addWidget(Fold("Advanced", body))
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
            If they contradict each other; with the field where that can be told.
        """
        shown = {name: field.value for name, field in self.fields.items()}
        try:
            return self._kind(**(self._given | shown | given))
        except RlnError as error:
            sentence = str(error)
            named = [name for name in _NAMED.findall(sentence) if name in self.fields]
            if not named:
                raise
            raise FieldError(sentence, self.fields[named[0]]) from error

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
            field, label = self.fields[name], label_of(name, hints[name])
            rows.addRow(label, field)
            field.call(label)
            _LABELS[name] = label
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
        unit = "nm" if name in _WAVELENGTHS else unit
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


def worded(sentence: str) -> str:
    """Return a message for the user, who knows settings by the labels of the docks.

    Parameters
    ----------
    sentence
        With names of settings in backticks, as Python has them.
    """
    return _NAMED.sub(lambda found: _LABELS.get(found[1], found[1].replace("_", " ")), sentence)
