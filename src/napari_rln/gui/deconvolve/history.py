"""History of the runs, whose settings can be used again."""

import dataclasses
import html
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self
from weakref import WeakSet

from napari.components import ViewerModel
from napari.layers import Layer
from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import QHBoxLayout, QListWidget, QListWidgetItem, QVBoxLayout, QWidget

from napari_rln.core.errors import RlnError
from napari_rln.core.limits import from_dict
from napari_rln.gui.layouts import button, fill
from napari_rln.gui.remembered import change, remembered

_KEY = "history"
_KEPT = 50  # runs
_ROWS = 5  # visible
_RUN = Qt.ItemDataRole.UserRole


@dataclass(frozen=True, kw_only=True)
class _Stored:
    """A run as it is stored."""

    name: str  # unique
    image: str
    psf: str
    began: float
    methods: dict  # rows of the list of methods
    results: tuple[str, ...]
    verdicts: tuple[str, ...]


@dataclass(kw_only=True, eq=False)
class PastRun:
    """A run of the methods on an image, with its channels.

    Attributes
    ----------
    image, psf
        Names of the image and of the PSF, which may be empty.
    methods
        Rows of the list of methods, in JSON's types.
    results, verdicts
        Names of the results so far, and what a comparison said about them.
    found
        The verdicts by result, in this session.
    layers
        Layers of the results, in this session, and of the images.
    """

    image: str
    psf: str
    methods: list[dict[str, Any]]
    began: float = field(default_factory=time.time)
    name: str = field(default_factory=lambda: uuid.uuid4().hex)
    results: list[str] = field(default_factory=list)
    verdicts: list[str] = field(default_factory=list)
    found: dict[str, str] = field(default_factory=dict)
    layers: WeakSet[Layer] = field(default_factory=WeakSet)
    images: WeakSet[Layer] = field(default_factory=WeakSet)

    @classmethod
    def of(cls, fields: dict[str, Any]) -> Self:
        """Return a stored run; raise a :class:`RlnError` if it is of another version."""
        stored = from_dict(_Stored, fields)
        run = cls(
            name=stored.name,
            image=stored.image,
            psf=stored.psf,
            began=stored.began,
            methods=stored.methods["rows"],
            results=[*stored.results],
            verdicts=[*stored.verdicts],
        )
        try:
            run.title  # noqa: B018  fails for an impossible time
        except (OverflowError, OSError, ValueError) as error:
            raise RlnError(f"the run began at an impossible time ({error}).") from error
        return run

    def as_json(self) -> dict[str, Any]:
        """Return the run in JSON's types."""
        names = (each.name for each in dataclasses.fields(_Stored))
        return {name: getattr(self, name) for name in names} | {"methods": {"rows": self.methods}}

    def take_verdicts(self, found: Mapping[str, str]) -> None:
        """Take verdicts by the names of results, in place of earlier ones; not of other runs."""
        self.found |= {name: text for name, text in found.items() if name in self.results}
        self.verdicts = [f"{self._short(name)} {text}" for name, text in self.found.items()]

    def _short(self, text: str) -> str:
        return text.replace(f"{self.image} \N{MIDDLE DOT} ", "")

    @property
    def title(self) -> str:
        """Time, image and methods in one line."""
        at = time.strftime("%d %b %H:%M", time.localtime(self.began))
        ticked = sum(bool(row.get("is_checked")) for row in self.methods)
        names = ", ".join(self.results) or f"{ticked} method{'s' * (ticked != 1)}, no result"
        return f"{at}  {self.image}: {self._short(names)}"

    @property
    def details(self) -> str:
        """PSF and verdicts, as rich text."""
        lines = [f"PSF: {self.psf}" if self.psf else "without a PSF", *self.verdicts]
        return "".join(f"<p>{html.escape(line)}</p>" for line in lines)


class History(QWidget):
    """List of runs, the last one first, kept between sessions; hidden without any."""

    use_requested = Signal(object)  # the run whose settings are to be used

    def __init__(self, viewer: ViewerModel) -> None:
        super().__init__()
        self._viewer = viewer
        self.list = QListWidget()
        self.use_button = button(
            "Use settings", "Click to set the methods as in this run.", self._use
        )
        self.show_button = button(
            "Show", "Click to show only its results and its image.", self._show
        )
        self.delete_button = button(
            "Delete",
            "Click to remove the run from the list, and its layers from napari.",
            self._delete,
        )
        buttons = (self.use_button, self.show_button, self.delete_button)
        fill(QVBoxLayout(self), self.list, fill(QHBoxLayout(), *buttons), margin=0)
        for run in stored_runs():
            self._insert(run)
        self.list.setFixedHeight(_ROWS * max(self.list.sizeHintForRow(0), 18) + 4)
        self.list.currentItemChanged.connect(self._on_choice)
        self._on_choice()
        if not self.list.count():
            self.setVisible(False)

    def add(self, run: PastRun) -> None:
        """Add a run at the top."""
        self._insert(run)
        self._store(run)
        self.setVisible(True)

    def update(self, run: PastRun) -> None:
        """Show and store the results and verdicts that a run has now."""
        for row in range(self.list.count()):
            item = self.list.item(row)
            if item.data(_RUN) is run:
                item.setText(run.title)
                item.setToolTip(run.details)
                self._store(run)
        self._on_choice()

    def _insert(self, run: PastRun) -> None:
        item = QListWidgetItem(run.title)
        item.setData(_RUN, run)
        item.setToolTip(run.details)
        self.list.insertItem(0, item)

    def _store(self, run: PastRun, *, delete: bool = False) -> None:
        """Store or delete one run; those of other processes stay."""

        def changed(before: dict[str, Any] | None) -> dict[str, Any]:
            runs = {name: run for name, run in (before or {}).items() if isinstance(run, dict)}
            runs.pop(run.name, None) if delete else runs.update({run.name: run.as_json()})
            return dict([*runs.items()][-_KEPT:])

        change(_KEY, changed)

    def _chosen(self) -> PastRun | None:
        item = self.list.currentItem()
        return None if item is None else item.data(_RUN)

    def _on_choice(self) -> None:
        run = self._chosen()
        for each in (self.use_button, self.delete_button):
            each.setEnabled(run is not None)
        self.show_button.setEnabled(run is not None and bool(self._layers(run)))

    def _layers(self, run: PastRun) -> list[Layer]:
        """Return the results of a run that are still open."""
        return [layer for layer in self._viewer.layers if layer in run.layers]

    def _use(self) -> None:
        self.use_requested.emit(self._chosen())

    def _show(self) -> None:
        run = self._chosen()
        assert run is not None
        shown = {*self._layers(run), *run.images}
        for layer in self._viewer.layers:
            layer.visible = layer in shown

    def _delete(self) -> None:
        run = self._chosen()
        assert run is not None
        self.list.takeItem(self.list.currentRow())
        for layer in self._layers(run):
            self._viewer.layers.remove(layer)
        self._store(run, delete=True)
        self._on_choice()
        self.setVisible(self.list.count() > 0)


def stored_runs() -> list[PastRun]:
    """Return the stored runs, the oldest first; those of another version are left out."""
    runs = []
    for fields in (remembered(_KEY) or {}).values():
        try:
            runs.append(PastRun.of(fields))
        except (RlnError, KeyError, TypeError, AttributeError):
            continue
    return runs
