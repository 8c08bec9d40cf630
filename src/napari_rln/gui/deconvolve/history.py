"""History of the runs, whose settings can be used again."""

import html
import time
from dataclasses import asdict, dataclass, field
from typing import Any, Self

from napari.components import ViewerModel
from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import (
    QHBoxLayout,
    QListWidget,
    QListWidgetItem,
    QPushButton,
    QVBoxLayout,
    QWidget,
)

from napari_rln.gui.layouts import fill
from napari_rln.gui.remembered import remember, remembered

_KEY = "history"
_KEPT = 50  # runs
_ROWS = 5  # visible
_ENTRY = Qt.ItemDataRole.UserRole


@dataclass(kw_only=True)
class PastRun:
    """A run of the methods on an image, in JSON's types."""

    image: str  # its name
    psf: str  # its name; empty without one
    methods: list[dict[str, Any]]  # rows of the list of methods
    began: float = field(default_factory=time.time)
    results: list[str] = field(default_factory=list)  # names of layers
    verdicts: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, fields: dict[str, Any]) -> Self:
        """Return a run of JSON's types."""
        return cls(**fields)

    @property
    def title(self) -> str:
        """Time, image and methods in one line."""
        at = time.strftime("%d %b %H:%M", time.localtime(self.began))
        names = ", ".join(self.results) or f"{len(self.methods)} methods"
        short = names.replace(f"{self.image} \N{MIDDLE DOT} ", "")
        return f"{at}  {self.image}: {short}"

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
        self.use_button = self._button(
            "Use settings", "Click to set the methods as in this run.", self._use
        )
        self.show_button = self._button(
            "Show", "Click to show only its results and its image.", self._show
        )
        self.delete_button = self._button(
            "Delete",
            "Click to remove the run from the list, and its layers from napari.",
            self._delete,
        )
        self.buttons = (self.use_button, self.show_button, self.delete_button)
        fill(QVBoxLayout(self), self.list, fill(QHBoxLayout(), *self.buttons), margin=0)
        self.list.currentItemChanged.connect(self._on_choice)
        stored = (remembered(_KEY) or {}).get("runs", [])
        for fields in reversed(stored):
            try:
                self._insert(PastRun.of(fields))
            except TypeError:  # of another version
                continue
        self.list.setFixedHeight(_ROWS * max(self.list.sizeHintForRow(0), 18) + 4)
        self._on_choice()

    def add(self, run: PastRun) -> None:
        """Add a run at the top."""
        self._insert(run)
        self._store()

    def update(self, run: PastRun) -> None:
        """Show the results and verdicts that a run has now."""
        for row in range(self.list.count()):
            item = self.list.item(row)
            if item.data(_ENTRY) is run:
                item.setText(run.title)
                item.setToolTip(run.details)
        self._store()

    def _insert(self, run: PastRun) -> None:
        item = QListWidgetItem(run.title)
        item.setData(_ENTRY, run)
        item.setToolTip(run.details)
        self.list.insertItem(0, item)
        if self.list.count() > _KEPT:
            self.list.takeItem(self.list.count() - 1)
        self.setVisible(True)

    def _store(self) -> None:
        runs = [self.list.item(row).data(_ENTRY) for row in range(self.list.count())]
        remember(_KEY, {"runs": [asdict(run) for run in runs]})

    def _on_choice(self) -> None:
        for button in self.buttons:
            button.setEnabled(self.list.currentItem() is not None)
        self.setVisible(self.list.count() > 0)

    def _chosen(self) -> PastRun:
        run: PastRun = self.list.currentItem().data(_ENTRY)
        return run

    def _use(self) -> None:
        self.use_requested.emit(self._chosen())

    def _show(self) -> None:
        run = self._chosen()
        for layer in self._viewer.layers:
            layer.visible = layer.name in (run.image, *run.results)

    def _delete(self) -> None:
        run = self._chosen()
        self.list.takeItem(self.list.currentRow())
        for name in run.results:
            if name in self._viewer.layers:
                self._viewer.layers.remove(name)
        self._store()
        self._on_choice()

    def _button(self, text: str, tip: str, action: Any) -> QPushButton:
        button = QPushButton(text, toolTip=f"<p>{tip}</p>")
        button.clicked.connect(action)
        return button
