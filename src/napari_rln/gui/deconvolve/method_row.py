"""A row of the list of methods: a method with its settings."""

from dataclasses import dataclass
from typing import Any

from qtpy.QtCore import Signal
from qtpy.QtWidgets import (
    QCheckBox,
    QHBoxLayout,
    QLabel,
    QToolButton,
    QVBoxLayout,
    QWidget,
)

from napari_rln.core.errors import RlnError
from napari_rln.core.limits import as_dict, from_dict
from napari_rln.deconvolution.classical import RichardsonLucy
from napari_rln.deconvolution.wiener import Wiener
from napari_rln.gui import preferences
from napari_rln.gui.deconvolve.chosen_method import ChosenMethod
from napari_rln.gui.field_errors import FieldError
from napari_rln.gui.fields import widget_for
from napari_rln.gui.forms import Form, know_labels
from napari_rln.gui.layouts import fill
from napari_rln.networks.library import Entry
from napari_rln.networks.network import NetworkOptions

Settings = RichardsonLucy | Wiener | NetworkOptions
State = dict[str, Any]
"""A row in JSON's types."""

_KEPT_ITERATIONS = "1 2 5 10 20 50 100"


@dataclass(frozen=True)
class Kind:
    """A kind of method that can be added: its name for the user, and its first settings."""

    name: str
    settings: Settings
    top: tuple[str, ...]  # settings that are not under Advanced
    tip: str


_ITERATED = ("iterations", "background", "offset", "gain")
CLASSICAL = {
    "rld": Kind(
        "Richardson-Lucy (RLD)",
        RichardsonLucy(),
        _ITERATED,
        "The standard: finds by itself when to stop.",
    ),
    "wb": Kind(
        "Richardson-Lucy, Wiener-Butterworth",
        RichardsonLucy(back_projector="wiener-butterworth"),
        _ITERATED,
        "Needs fewer iterations than standard Richardson-Lucy, and amplifies noise sooner.",
    ),
    "wiener": Kind(
        "Wiener filter",
        Wiener(),
        ("noise_to_signal", "background", "offset", "gain"),
        "One linear filter, in a moment: for a first look, or where results must be linear.",
    ),
}
"""Methods without a network, by the key of their rows."""

_NETWORK = Kind(
    "",
    NetworkOptions(),
    ("background", "offset", "gain"),
    "A network: fast, and often better along the axis.",
)


class MethodRow(QWidget):
    """A method of the list: whether to run it, and its settings, made when they are first shown.

    Parameters
    ----------
    key
        Key of :data:`CLASSICAL`, or the name of a model.
    """

    changed = Signal()
    removed = Signal()

    def __init__(self, key: str) -> None:
        super().__init__()
        self.key = key
        self.is_network = key not in CLASSICAL
        self._kind = CLASSICAL.get(key, _NETWORK)
        self._settings: Settings = self._kind.settings
        self._form: Form[Settings] | None = None
        tip = f"<p>{self._kind.tip} Untick it to leave it out of the next run.</p>"
        self.check = QCheckBox(self._kind.name, checked=True, toolTip=tip)
        self.gear = _button("\N{GEAR}", "Click to show or hide its settings.")
        self.gear.setCheckable(True)
        remove = _button("\N{MULTIPLICATION SIGN}", "Click to remove it from the list.")
        row = fill(QHBoxLayout(), (self.check, 1), self.gear, remove, spacing=2)
        self._body = fill(QVBoxLayout(self), row, margin=0, spacing=2)
        tip = (
            "<p>Results after these numbers of iterations are kept. Browse them with the slider on "
            "the page Compare.</p>"
        )
        self.kept_iterations = widget_for(
            str, value=_KEPT_ITERATIONS, label="Iterations to keep", tooltip=tip
        )
        know_labels(type(self._settings))  # also where the form is never shown
        self.check.toggled.connect(self.changed)
        self.gear.toggled.connect(self._show_form)
        remove.clicked.connect(self.removed)

    @property
    def is_checked(self) -> bool:
        """Whether to run it."""
        return bool(self.check.isChecked())

    @property
    def form(self) -> "Form[Settings]":
        """The form of the settings."""
        if self._form is None:
            self._form = self._make_form()
        return self._form

    def settings(self) -> Settings:
        """Return the settings; see :meth:`Form.settings` for errors."""
        on = {"device": preferences.device()}
        if self._form is None:
            return from_dict(type(self._settings), as_dict(self._settings) | on)
        return self._form.settings(**on)

    def chosen(self, entries: dict[str, Entry]) -> ChosenMethod:
        """Return the method; ``entries`` are the models by name.

        Raises :class:`RlnError` if a setting is not valid, or the model is gone.
        """
        settings = self.settings()
        if isinstance(settings, RichardsonLucy):
            kept = iterations_in(self.kept_iterations.value)
            return ChosenMethod(method=settings, name=settings.title, kept_iterations=kept)
        if isinstance(settings, Wiener):
            return ChosenMethod(method=settings, name=settings.title)
        if self.key not in entries:
            raise FieldError(
                f"the model {self.key} is not among your models any more; remove its row, or "
                "import it on the page Train.",
                self.check,
            )
        entry, file = entries[self.key], preferences.library().path(self.key)
        return ChosenMethod(
            method=settings.of(file or self.key),
            name=f"{entry.architecture} {self.key}",
            needs_psf=entry.needs_psf,
            tile=preferences.tile(),
        )

    def name_by(self, entries: dict[str, Entry]) -> None:
        """Name a network by its architecture and model."""
        if self.is_network:
            entry = entries.get(self.key)
            self.check.setText(f"{entry.architecture} {self.key}" if entry else self.key)

    def state(self) -> State:
        """Return the row in JSON's types; raise a :class:`RlnError` if a setting is not valid."""
        return {
            "key": self.key,
            "is_checked": self.is_checked,
            "settings": as_dict(self.settings()),
            "kept_iterations": self.kept_iterations.value,
        }

    def restore(self, state: State) -> None:
        """Show a row of :meth:`state`; raise a :class:`RlnError` if a setting is unknown."""
        self._settings = from_dict(type(self._settings), state["settings"])
        if self._form is not None:
            self._form.show_settings(self._settings)
        self.check.setChecked(bool(state["is_checked"]))
        self.kept_iterations.value = str(state["kept_iterations"])

    def _make_form(self) -> "Form[Settings]":
        hidden = {"device", "report_every"} & as_dict(self._settings).keys()
        form = Form[Settings](type(self._settings), top=self._kind.top, hidden=sorted(hidden))
        form.show_settings(self._settings)
        form.changed.connect(self.changed)
        place = QWidget()
        place.setVisible(False)
        parts: list[Any] = [form]
        if isinstance(self._settings, RichardsonLucy):
            label = QLabel(self.kept_iterations.label, toolTip=self.kept_iterations.tooltip)
            parts.append(fill(QHBoxLayout(), label, (self.kept_iterations.native, 1)))
        fill(QVBoxLayout(place), *parts, spacing=3).setContentsMargins(8, 0, 0, 6)
        self._place = place
        self._body.addWidget(place)
        return form

    def _show_form(self, on: bool) -> None:
        self.form  # noqa: B018  made at the first time
        self._place.setVisible(on)


def _button(text: str, tip: str) -> QToolButton:
    button = QToolButton(text=text, toolTip=f"<p>{tip}</p>", autoRaise=True)
    button.setFixedWidth(24)
    return button


def iterations_in(text: str) -> tuple[int, ...]:
    """Return the iterations in a text such as ``"1 2 5 10"``, sorted.

    Raises :class:`RlnError` if it contains anything but whole numbers above 0.
    """
    numbers = text.replace(",", " ").split()
    if not all(number.isdecimal() and int(number) > 0 for number in numbers):
        raise RlnError(f"iterations to keep are {text!r}; give whole numbers, such as 1 2 5 10.")
    return tuple(sorted({int(number) for number in numbers}))
