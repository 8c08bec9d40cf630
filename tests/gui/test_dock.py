"""The plugin's dock: loading, pages, keys and closing."""

import numpy as np
from qtpy.compat import isalive
from qtpy.QtWidgets import QLabel

from napari_rln.core.errors import ComputeError
from napari_rln.gui import dock as dock_module
from napari_rln.gui import loading

UM = ("um",) * 3


def opened(viewer):
    return viewer.window.add_plugin_dock_widget("napari-rln", "Deconvolution")[1]


def small(viewer):
    """Add a small image and its PSF."""
    rng = np.random.default_rng(0)
    z, y, x = np.mgrid[-3:4, -3:4, -3:4]
    psf = np.exp(-(z**2 / 4 + y**2 + x**2))
    data = rng.poisson(20 + 200 * (rng.random((12, 24, 24)) > 0.99)).astype(np.float32)
    image = viewer.add_image(data, name="cells", scale=(0.2, 0.1, 0.1), units=UM)
    viewer.add_image(psf, name="psf", scale=(0.2, 0.1, 0.1), units=UM)
    return image


def test_modules_are_loaded_in_a_thread_and_pages_made_when_they_are_shown(
    viewer, qtbot, monkeypatch
):
    monkeypatch.setattr(dock_module, "are_loaded", lambda modules: False)
    dock = opened(viewer)
    assert not dock.is_loaded
    assert "Loading" in dock.tabs.currentWidget().findChild(QLabel).text()
    qtbot.waitUntil(lambda: dock.is_loaded, timeout=60_000)
    qtbot.waitUntil(lambda: [*dock._pages] == ["Deconvolve"])
    dock.show_page("Train")
    assert [*dock._pages] == ["Deconvolve", "Train"]
    assert dock.tabs.currentWidget().isAncestorOf(dock.page("Train"))


def test_a_damaged_installation_is_reported(viewer, qtbot, monkeypatch):
    def failing(modules):
        raise ComputeError("libtorch is missing")

    monkeypatch.setattr(dock_module, "are_loaded", lambda modules: False)
    monkeypatch.setattr(dock_module, "load", failing)
    with qtbot.captureExceptions():
        dock = opened(viewer)
        label = dock.tabs.currentWidget().findChild(QLabel)
        qtbot.waitUntil(lambda: "libtorch is missing" in label.text(), timeout=10_000)


def test_loading_leaves_the_collector_as_it_was():
    import gc

    assert gc.isenabled()
    before = gc.get_freeze_count()
    loading.load(["json"])
    assert gc.isenabled()
    assert gc.get_freeze_count() == before  # layers opened before can still be freed


def test_closing_after_the_first_of_two_results_ends_the_run(viewer, qtbot, idle):
    small(viewer)
    dock = opened(viewer)
    qtbot.waitUntil(lambda: dock.is_loaded, timeout=60_000)
    page = dock.page("Deconvolve")
    rows = page.methods.rows
    rows[0].form.fields["iterations"].value = 2
    rows[1].check.setChecked(False)
    page.methods.add("rld").form.fields["iterations"].value = 100_000
    page.bar.run_button.click()
    qtbot.waitUntil(lambda: "cells · RLD 2" in viewer.layers, timeout=30_000)
    qtbot.waitUntil(lambda: "cells · RLD" in viewer.layers, timeout=30_000)
    viewer.window.remove_dock_widget(dock)
    idle(page.jobs)
    qtbot.waitUntil(lambda: not isalive(page), timeout=10_000)
    assert "cells · RLD 2" in viewer.layers


def test_removing_the_image_while_it_is_deconvolved_leaves_its_result(open_dock, viewer, idle):
    image = small(viewer)
    _, page = open_dock("Deconvolve")
    page.methods.rows[0].form.fields["iterations"].value = 30
    page.methods.rows[1].check.setChecked(False)
    page.bar.run_button.click()
    viewer.layers.remove(image)
    idle(page.jobs)
    assert "cells · RLD 30" in viewer.layers
    page.compare.side_by_side.setChecked(False)
    page.compare.side_by_side.setChecked(True)


def test_a_network_is_trained_on_the_psf_that_is_chosen_to_deconvolve(open_dock, viewer):
    small(viewer)
    raw = viewer.layers["psf"]
    prepared = viewer.add_image(raw.data, name="psf prepared", scale=raw.scale, units=UM)
    prepared.visible = False  # as one that the page PSF makes
    _, page = open_dock("Deconvolve")
    page.psf.suggest(prepared)
    _, training = open_dock("Train")
    assert training.form.psf.layer == prepared
    page.psf.layer = raw
    assert training.form.psf.layer == raw
    training.form.psf.layer = prepared  # by hand
    page.psf.layer = None
    page.psf.layer = raw
    assert training.form.psf.layer == prepared


def test_keys_are_given_back(viewer, qtbot):
    def own(viewer):
        pass

    viewer.bind_key("K", own, overwrite=True)
    try:
        dock = opened(viewer)
        qtbot.waitUntil(lambda: dock.is_loaded, timeout=60_000)
        viewer.window.remove_dock_widget(dock)
        now = viewer.bind_key("K", None)
        assert getattr(now, "__wrapped__", now) is own
        assert viewer.bind_key("Control-Enter", None) is None
    finally:
        viewer.bind_key("K", None)
