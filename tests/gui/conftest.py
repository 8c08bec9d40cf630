"""Docks as napari opens them."""

import contextlib
import time

import pytest

from napari_rln.engine import history
from napari_rln.gui import jobs as worker
from napari_rln.gui import preferences
from napari_rln.networks.library import Library


@pytest.fixture
def open_dock(make_napari_viewer_proxy):
    """Return a function that opens a dock through the manifest and returns viewer and widget."""

    def opened(title, viewer=None):
        viewer = viewer or make_napari_viewer_proxy()
        _, widget = viewer.window.add_plugin_dock_widget("napari-rln", title)
        return viewer, widget

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
