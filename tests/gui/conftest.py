"""Docks as napari opens them."""

import contextlib
import gc
import time
from unittest.mock import patch

import napari
import pytest
from napari._qt.threads.status_checker import StatusChecker
from napari.settings import get_settings
from napari.utils._proxies import PublicOnlyProxy
from qtpy.QtCore import QEvent
from qtpy.QtWidgets import QApplication

from napari_rln.engine import history
from napari_rln.gui import jobs as worker
from napari_rln.gui import preferences, remembered
from napari_rln.networks.library import Library
from napari_rln.psf import templates

PAGES = ("PSF", "Deconvolve", "Compare", "Train")

gc.freeze()  # napari collects garbage whenever layers go: not among all that is imported


@pytest.fixture(scope="module")
def shared_viewer(qapp):
    """Return a function that returns the viewer of a module, made again after a test closed it."""
    made = []

    def is_open():
        return bool(made) and hasattr(made[0].window, "_qt_window")

    def current():
        if not is_open():
            made[:] = [napari.Viewer(show=False, show_welcome_screen=False)]
        return made[0]

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(StatusChecker, "start", lambda self: None)  # its thread outlives a viewer
        yield current
        if is_open():
            with patch.object(made[0].window._qt_window, "_save_current_window_settings"):
                made[0].close()
        made.clear()
    gc.collect()


@pytest.fixture
def viewer(shared_viewer):
    """Return a viewer without layers and docks; making one takes longer than most tests."""
    get_settings().reset()
    shown = shared_viewer()
    yield PublicOnlyProxy(shown)
    if hasattr(shown.window, "_qt_window"):
        shown.window.remove_dock_widget("all")
        shown.dims.order, shown.dims.ndisplay = tuple(range(shown.dims.ndim)), 2
        shown.canvas.grid.enabled = False
        shown.layers.clear()
        QApplication.processEvents()
        QApplication.sendPostedEvents(None, QEvent.Type.DeferredDelete)


@pytest.fixture
def open_dock(viewer, qtbot):
    """Return a function that opens a dock, or a page of the plugin's dock, through the manifest.

    It returns the viewer, and the widget of the dock or page.
    """
    docks = []

    def opened(title):
        if title not in PAGES:
            _, widget = viewer.window.add_plugin_dock_widget("napari-rln", title)
            return viewer, widget
        if not docks:
            docks.append(viewer.window.add_plugin_dock_widget("napari-rln", "Deconvolution")[1])
            qtbot.waitUntil(lambda: docks[0].is_loaded, timeout=60_000)
        docks[0].show_page(title)
        page = docks[0].page(title)
        page.dock = docks[0]
        if title == "Deconvolve":
            page.compare = docks[0].page("Compare")
        return viewer, page

    return opened


@pytest.fixture(autouse=True)
def library(tmp_path, monkeypatch):
    """Keep the user's models in a folder of the test, which does not exist yet."""
    found = Library(tmp_path / "models")
    monkeypatch.setattr(preferences, "library", lambda: found)
    return found


@pytest.fixture(autouse=True)
def no_history(tmp_path, monkeypatch):
    """Keep durations of runs in a folder of the test, which does not exist yet."""
    monkeypatch.setattr(history, "_path", lambda: tmp_path / "history" / "seconds.json")


@pytest.fixture(autouse=True)
def no_memory(tmp_path, monkeypatch):
    """Keep what the docks remember in a folder of the test, which does not exist yet."""
    monkeypatch.setattr(remembered, "_path", lambda: tmp_path / "config" / "remembered.json")
    monkeypatch.setattr(templates, "default_folder", lambda: tmp_path / "config" / "microscopes")


class Clipboard:
    """What Qt's clipboard does for texts."""

    def __init__(self):
        self._text = ""

    def setText(self, text):
        self._text = text

    def text(self):
        return self._text


@pytest.fixture(autouse=True)
def clipboard(monkeypatch):
    """Return a clipboard of the test's own.

    Test processes share a display, and the display's clipboard refuses a text from the process
    whose last event is older than the other's.
    """
    own = Clipboard()
    monkeypatch.setattr(QApplication, "clipboard", lambda: own)
    return own


@pytest.fixture
def idle(qtbot):
    """Return a function that waits until a job queue is empty."""

    def wait(jobs, seconds=60):
        qtbot.waitUntil(
            lambda: not (jobs.running or jobs.waiting or jobs.cancelling), timeout=1000 * seconds
        )

    return wait


@pytest.fixture
def in_step(monkeypatch):
    """Return a function that makes the jobs of a queue wait until each update is displayed.

    The reaction of a test to an update then never comes after the end of the job.
    """

    def synchronise(jobs):
        guarded = worker.guarded

        def waiting(make):
            with contextlib.closing(guarded(make)) as steps:
                while True:
                    try:
                        update = next(steps)
                    except StopIteration as end:
                        return end.value
                    yield update
                    while update and update.display_seconds is None:
                        if jobs._worker is None or jobs._worker.abort_requested:
                            break
                        time.sleep(0.002)

        monkeypatch.setattr(worker, "guarded", waiting)

    return synchronise
