"""The plugin's dock: PSF, deconvolution, comparison and training as tabs."""

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

from napari.qt.threading import create_worker
from napari.settings import get_plugin_settings
from qtpy.QtCore import QEvent, QSize, Qt, QTimer
from qtpy.QtWidgets import QLabel, QTabWidget, QVBoxLayout, QWidget

from napari_rln.gui.compare.planes import leave_empty_plane, next_plane_with_structure
from napari_rln.gui.compare.shortcuts import bind_shortcuts
from napari_rln.gui.dropped_files import FileDrops
from napari_rln.gui.layers import is_psf, optics_of
from napari_rln.gui.layouts import fill
from napari_rln.gui.loading import are_loaded, load

if TYPE_CHECKING:
    import napari
    from napari.layers import Layer

PSF, DECONVOLVE, COMPARE, TRAIN = "PSF", "Deconvolve", "Compare", "Train"

_MODULES = {
    PSF: "napari_rln.gui.psf.psf_page",
    DECONVOLVE: "napari_rln.gui.deconvolve.deconvolve_page",
    COMPARE: "napari_rln.gui.compare.compare_page",
    TRAIN: "napari_rln.gui.training.training_page",
}
# Pixels: the pages' own, which napari would make room for only after it has shown the dock. On a
# screen of 1280 pixels it leaves more than 600 for the canvas.
_WIDTH = 330
_PAUSE_MS = 20  # between two steps of opening, in which the window reacts
_TIPS = {
    PSF: "The blur of the microscope: compute it, measure it from beads, or open it.",
    DECONVOLVE: "Run one or several methods on the image.",
    COMPARE: "See and measure the results beside the image.",
    TRAIN: "Train a network for your microscope, and manage models.",
}


class Dock(QWidget):
    """Tabs of the four steps.

    The modules of the pages are imported in a thread, and each page is made when it is first
    shown: napari's window does not wait for either.
    """

    def __init__(self, napari_viewer: "napari.viewer.Viewer") -> None:
        super().__init__()
        self._viewer = napari_viewer
        self._pages: dict[str, Any] = {}
        self.is_loaded = False
        self._seen: WeakSet[Layer] = WeakSet()  # images that were looked at
        self._release_keys: Callable[[], None] = lambda: None
        self.tabs = QTabWidget()
        self.tabs.setDocumentMode(True)
        for title, tip in _TIPS.items():
            loading = QLabel("Loading\N{HORIZONTAL ELLIPSIS}", alignment=Qt.AlignmentFlag.AlignTop)
            place = QWidget()
            fill(QVBoxLayout(place), loading, margin=9)
            self.tabs.addTab(place, title)
            self.tabs.setTabToolTip(self.tabs.count() - 1, f"<p>{tip}</p>")
        fill(QVBoxLayout(self), self.tabs, margin=0)
        self.show_page(self._first_page())
        self.tabs.currentChanged.connect(self._on_tab)
        modules = [*_MODULES.values()]
        if are_loaded(modules):
            self._on_loaded()
        else:
            worker = create_worker(load, modules, _start_thread=False)
            worker.returned.connect(self._on_loaded)
            worker.errored.connect(self._on_failure)
            worker.start()

    def minimumSizeHint(self) -> QSize:
        """Return a size for the pages that are still to be made too."""
        return super().minimumSizeHint().expandedTo(QSize(_WIDTH, 0))

    def page(self, title: str) -> Any:
        """Return a page, which is made at the first call; its modules must be loaded."""
        if title not in self._pages:
            self._add(title, self._make(title))
        return self._pages[title]

    def show_page(self, title: str) -> None:
        """Go to a page."""
        self.tabs.setCurrentIndex([*_MODULES].index(title))

    def event(self, event: QEvent) -> bool:
        """Close the pages when napari closes the dock, which it does by taking its parent away.

        A page with jobs cancels them when it loses its own parent, and is deleted after the last.
        """
        if event.type() == QEvent.Type.ParentChange and self.parent() is None:
            for title, page in self._pages.items():
                if title in (COMPARE, DECONVOLVE):
                    page.stop()
            for title, page in self._pages.items():
                if title != COMPARE:  # it has the jobs of the deconvolutions
                    page.setParent(None)
            self._release_keys()
            self.deleteLater()
        return bool(super().event(event))

    def _make(self, title: str) -> Any:
        module = importlib.import_module(_MODULES[title])
        if title == PSF:
            page = module.PsfPage(self._viewer)
            page.added.connect(self._use_psf)
            return page
        if title == TRAIN:
            page = module.TrainingPage(self._viewer)
            page.use_requested.connect(self._use_model)
            page.form.psf.suggest_from(self.page(DECONVOLVE).psf)
            return page
        if title == DECONVOLVE:
            page = module.DeconvolvePage(self._viewer)
            page.page_requested.connect(self.show_page)
            # The page that compares is made at the latest with the first result.
            page.runs.result_finished.connect(lambda result: self.page(COMPARE).add_result(result))
            page.runs.run_finished.connect(lambda: self.page(COMPARE).compare_new())
            page.image.changed.connect(self._look_at_image)
            page.stated.psf_shown.connect(self._show_psf)
            FileDrops(page.psf, self._open_psf)
            QTimer.singleShot(0, self._look_at_image)
            return page
        deconvolution = self.page(DECONVOLVE)
        page = module.ComparePage(self._viewer, deconvolution.jobs, deconvolution.stated.psf_of)
        page.compared.connect(deconvolution.show_verdicts)
        return page

    def _add(self, title: str, page: QWidget) -> None:
        self._pages[title] = page
        place = self.tabs.widget([*_MODULES].index(title))
        place.layout().takeAt(0).widget().deleteLater()
        fill(place.layout(), page, margin=0)

    def _use_psf(self, layer: "Layer") -> None:
        """Choose a PSF that was just made, where the user is to use it."""
        self.page(DECONVOLVE).psf.suggest(layer)
        if TRAIN in self._pages:
            self._pages[TRAIN].form.psf.suggest(layer)

    def _show_psf(self, layer: "Layer") -> None:
        """Show a PSF on its page."""
        self.show_page(PSF)
        self.page(PSF).show_psf(layer)

    def _open_psf(self, path: Path) -> None:
        """Open the file of a PSF on its page; the page Deconvolve then takes it."""
        self.page(DECONVOLVE).psf.suggest(None)
        self.show_page(PSF)
        self.page(PSF).open_file(path)

    def _look_at_image(self) -> None:
        """Show a plane with structure of an image that is chosen for the first time."""
        layer = self.page(DECONVOLVE).image.layer
        if layer is not None and layer not in self._seen:
            self._seen.add(layer)
            leave_empty_plane(self._viewer, layer)

    def _bind_keys(self) -> Callable[[], None]:
        """Bind the shortcuts; return a function that releases them."""

        def go(step: int) -> None:
            layer = self.page(DECONVOLVE).image.layer
            if layer is not None:
                next_plane_with_structure(self._viewer, layer, step)

        def blink() -> None:
            self.show_page(COMPARE)
            self.page(COMPARE).toggle_blink()

        actions = {
            "run": lambda: self.page(DECONVOLVE).bar.run_button.click(),
            "cancel": lambda: self.page(DECONVOLVE).bar.cancel_button.click(),
            "next_plane": lambda: go(1),
            "previous_plane": lambda: go(-1),
            "blink": blink,
        }
        return bind_shortcuts(self._viewer, actions, owner=self)

    def _use_model(self, name: str) -> None:
        """Add a model to the methods, and show them."""
        self.page(DECONVOLVE).methods.add_model(name)
        self.show_page(DECONVOLVE)

    def _first_page(self) -> str:
        """Return the page to start with: the PSF if nothing else says it."""
        layers = self._viewer.layers
        has_psf = any(is_psf(layer) or optics_of(layer) is not None for layer in layers)
        return DECONVOLVE if has_psf or not layers else PSF

    def _on_failure(self, error: Exception) -> None:
        """Show why the modules cannot be imported, as with a damaged installation."""
        for label in self.tabs.findChildren(QLabel):
            label.setText(f"napari-rln cannot be loaded: {error}. Install it again.")
            label.setWordWrap(True)

    def _on_loaded(self) -> None:
        self.is_loaded = True
        self._release_keys = self._bind_keys()
        get_plugin_settings("napari-rln")  # napari looks through all packages at the first call
        QTimer.singleShot(_PAUSE_MS, self._on_tab)

    def _on_tab(self) -> None:
        if self.is_loaded:
            self.page(self.tabs.tabText(self.tabs.currentIndex()))
