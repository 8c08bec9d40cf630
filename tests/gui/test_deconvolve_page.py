"""The dock that deconvolves and compares."""

import json
import re
from dataclasses import replace
from pathlib import Path

import microscope_files as files
import numpy as np
import pytest
import torch
from napari.utils.notifications import notification_manager
from qtpy.compat import isalive
from qtpy.QtCore import Qt, QThreadPool
from qtpy.QtWidgets import QApplication, QLabel

from napari_rln import samples
from napari_rln.core.errors import RlnError
from napari_rln.core.record import Record
from napari_rln.core.volume import Volume
from napari_rln.engine.job import Job
from napari_rln.gui import preferences
from napari_rln.gui.deconvolve import chosen_method
from napari_rln.gui.deconvolve.method_row import iterations_in
from napari_rln.gui.deconvolve.region import DRAWN, VISIBLE, WHOLE
from napari_rln.gui.layers import DISPLAY_ONLY, KEY, layer_data, record_of
from napari_rln.networks.architectures.care import Care, CareSettings
from napari_rln.networks.initial_estimate import StartSettings
from napari_rln.networks.model import Model
from napari_rln.psf.prepare import prepare_psf
from napari_rln.simulate.imaging import ImagingSettings, simulate_pair
from napari_rln.simulate.structures import StructureSettings

TITLE = "Deconvolve"


@pytest.fixture(scope="module")
def pair():
    from napari_rln.psf.prepare import PrepareSettings

    psf = prepare_psf(samples.bead_psf(), PrepareSettings(max_size=(15, 15, 15)))
    imaging = ImagingSettings(photons=(300.0, 300.0))
    found = simulate_pair(
        psf, StructureSettings(structures=("shells",)), imaging, shape=(24, 32, 40), name="cells"
    )
    return found, psf


@pytest.fixture
def dock(open_dock, pair):
    (found, psf) = pair
    viewer, dock = open_dock(TITLE)
    for volume in (found.image, psf, found.truth):
        data, options, _ = layer_data(volume)
        viewer.add_image(data, **options)
    dock.image.layer, dock.psf.layer = viewer.layers[0], viewer.layers[1]
    dock.methods.rows[0].form.fields["iterations"].value = 10
    dock.viewer = viewer
    return dock


def results(dock):
    return {layer.name: layer for layer in dock.compare.layers()}


def test_rld_and_rln_stream_into_layers_and_are_compared(dock, idle):
    viewer, image = dock.viewer, dock.image.layer
    dock.compare.known.truth.layer = viewer.layers[2]
    dock.methods.rows[0].kept_iterations.value = "1 2 5"
    seen = []
    dock.jobs.reported.connect(lambda job, update: seen.append((job.title, update.content)))
    dock.bar.run_button.click()
    idle(dock.jobs)
    assert not dock.bar.message.property("error"), dock.bar.message.text()
    assert {title for title, content in seen if content is not None} == {
        "cells · RLD", "cells · RLN universal",
    }  # fmt: skip

    found = results(dock)
    assert [*found] == ["cells · RLD 10", "cells · RLN universal"]
    for layer in found.values():
        np.testing.assert_allclose(layer.scale, image.scale)
        assert [str(unit) for unit in layer.units] == ["micrometer"] * 3
        assert layer.metadata[KEY]["settings"]
        assert layer.metadata[KEY]["inputs"]["psf"]
        assert layer.data.shape == image.data.shape
    limits = {tuple(layer.contrast_limits) for layer in found.values()}
    assert len(limits) == 1
    assert viewer.canvas.grid.enabled

    rows = dock.compare.table.comparison.rows
    assert [row.name for row in rows] == ["cells", *found]
    assert rows[1].volume.psnr_db > rows[0].volume.psnr_db
    assert dock.compare.table.table.rowCount() == 3
    assert rows[1].chi2 is not None

    # Browsing goes through the kept iterations, and the layer says which is shown.
    browsed = found["cells · RLD 10"]
    last = browsed.data.copy()
    dock.compare.browser.slider.setValue(1)
    assert browsed.name == "cells · RLD 2"
    assert record_of(browsed).facts["iterations"] == 2
    assert not np.allclose(browsed.data, last)
    dock.compare.browser.slider.setValue(3)
    np.testing.assert_array_equal(browsed.data, last)

    dock.compare.side_by_side.setChecked(False)
    assert not viewer.canvas.grid.enabled
    dock.compare.residual_button.click()
    idle(dock.jobs)
    maps = [layer for layer in viewer.layers if layer.name.endswith("residual")]
    assert len(maps) == 2
    assert record_of(maps[0]).method == "check"


def test_a_crop_is_tried_and_then_the_whole(dock, idle):
    viewer = dock.viewer
    dock.methods.rows[1].check.setChecked(False)
    dock.region.box.setCurrentText(DRAWN)
    dock.bar.run_button.click()
    assert "Draw a rectangle" in dock.bar.message.text()
    image = dock.image.layer
    corners = [image.data_to_world((0, y, x))[1:] for y, x in ((4, 5), (4, 29), (27, 29), (27, 5))]
    viewer.add_shapes([np.array(corners)], shape_type="rectangle", units=("um", "um"))
    dock.bar.run_button.click()
    idle(dock.jobs)
    [layer] = dock.compare.layers()
    assert layer.data.shape == (24, 23, 24)
    np.testing.assert_allclose(layer.data_to_world((0, 0, 0)), image.data_to_world((0, 4, 5)))
    dock.whole_button.click()
    idle(dock.jobs)
    assert dock.region.box.currentText() == WHOLE
    [whole] = dock.compare.layers()
    assert whole.data.shape == image.data.shape
    viewer.dims.order = (1, 0, 2)
    dock.region.box.setCurrentText(VISIBLE)
    dock.bar.run_button.click()
    assert "xy plane" in dock.bar.message.text()


@pytest.fixture
def tuning(dock):
    """Return the dock for RLD of a visible part of the image."""
    dock.methods.rows[1].check.setChecked(False)
    dock.viewer.layers.remove(dock.viewer.layers[2])
    camera = dock.viewer.scene.camera
    camera.center, camera.zoom = (0, 1.55, 1.95), min(dock.viewer.canvas.size) / 2.0
    dock.region.box.setCurrentText(VISIBLE)
    return dock


def camera_of(dock):
    camera = dock.viewer.scene.camera
    return camera.zoom, tuple(camera.center)


def test_the_visible_region_stays_the_same_for_every_run(tuning, idle):
    dock, viewer = tuning, tuning.viewer
    before, shapes = camera_of(dock), []
    for iterations in (3, 4, 5):
        dock.methods.rows[0].form.fields["iterations"].value = iterations
        dock.bar.run_button.click()
        idle(dock.jobs)
        assert not dock.bar.message.property("error"), dock.bar.message.text()
        layer = next(x for x in dock.compare.layers() if x.name.endswith(f"RLD {iterations}"))
        shapes.append((layer.data.shape, tuple(layer.translate)))
        assert camera_of(dock) == before  # the camera does not move
    assert len({*shapes}) == 1
    (planes, *sides), _ = shapes[0]
    assert planes == 24
    assert all(15 < side < n for side, n in zip(sides, (32, 40), strict=True))
    assert len(dock.compare.table.comparison.rows) == 4  # all of one part
    viewer.scene.camera.zoom *= 1.6
    viewer.dims.order = (1, 0, 2)
    dock.methods.rows[0].form.fields["iterations"].value = 6
    dock.bar.run_button.click()  # in another view too
    idle(dock.jobs)
    assert {x.data.shape for x in dock.compare.layers()} == {shapes[0][0]}
    viewer.dims.order = (0, 1, 2)

    # The rectangle is for display only, and hidden in grid mode.
    rectangle = viewer.layers["region"]
    assert DISPLAY_ONLY in rectangle.metadata
    assert viewer.canvas.grid.enabled
    assert not rectangle.visible
    dock.compare.side_by_side.setChecked(False)
    assert rectangle.visible
    low, high = np.array(rectangle.extent.world)
    np.testing.assert_allclose((high - low)[-2:], np.multiply(sides, 0.1), atol=0.06)

    # The region changes by the button, or after the rectangle is deleted.
    camera = viewer.scene.camera
    camera.center, camera.zoom = (0, 1.0, 1.2), min(viewer.canvas.size) / 2.2
    before = camera_of(dock)
    dock.region.update_button.click()
    assert rectangle not in viewer.layers
    assert camera_of(dock) == before
    dock.bar.run_button.click()
    idle(dock.jobs)
    assert dock.compare.layers()[0].translate[1] != shapes[0][1][1]
    viewer.layers.remove(viewer.layers["region"])
    assert dock.region.update_button.isHidden()

    dock.whole_button.click()
    idle(dock.jobs)
    [whole] = dock.compare.layers()
    assert whole.data.shape == (24, 32, 40)
    assert "crop" not in whole.name
    assert "region" not in viewer.layers


def test_a_region_is_kept_until_another_is_chosen(tuning, idle):
    dock = tuning
    dock.psf.layer = None
    dock.bar.run_button.click()
    assert "Choose the PSF" in dock.bar.message.text()
    assert dock.window().focusWidget() is dock.psf.box  # where to mend it
    assert "region" not in dock.viewer.layers  # nothing was run
    dock.psf.layer = dock.viewer.layers[1]
    dock.bar.run_button.click()
    idle(dock.jobs)
    assert "region" in dock.viewer.layers
    dock.region.box.setCurrentText(DRAWN)
    assert "region" not in dock.viewer.layers
    dock.bar.run_button.click()
    assert "Draw a rectangle" in dock.bar.message.text()
    dock.region.box.setCurrentText(VISIBLE)  # the whole: nothing is cropped, nor named so
    dock.viewer.scene.camera.zoom = 10
    dock.bar.run_button.click()
    idle(dock.jobs)
    assert dock.compare.layers()[-1].name == "cells · RLD 10"


def test_residual_maps_stand_in_a_row_of_their_own(dock, idle):
    viewer, grid = dock.viewer, dock.viewer.canvas.grid
    dock.methods.rows[0].form.fields["iterations"].value = 3
    dock.bar.run_button.click()
    idle(dock.jobs)
    stride = grid.stride
    assert grid.actual_shape(viewer.layers) == (1, 3)
    center = tuple(viewer.scene.camera.center)
    for _ in range(2):  # the second time in place of the first
        dock.compare.residual_button.click()
        idle(dock.jobs)
        assert [layer.name for layer in viewer.layers if layer.visible] == [
            "cells", "cells · RLD 3", "cells · RLN universal",
            "cells · RLD 3 · residual", "cells · RLN universal · residual",
        ]  # fmt: skip
        assert (grid.enabled, grid.stride) == (True, stride)
        assert grid.actual_shape(viewer.layers) == (2, 3)  # in a row of their own
        assert tuple(viewer.scene.camera.center) == center
    dock.methods.rows[1].check.setChecked(False)
    dock.methods.rows[0].form.fields["iterations"].value = 4
    dock.bar.run_button.click()
    idle(dock.jobs)
    assert sum(layer.visible for layer in viewer.layers) == 6


def test_outdated_rows_of_the_table_are_grey(dock, idle):
    dock.methods.rows[1].check.setChecked(False)
    dock.methods.rows[0].kept_iterations.value = "1 2 5"
    dock.bar.run_button.click()
    idle(dock.jobs)
    table = dock.compare.table

    def grey():
        default = table.table.item(0, 0).foreground()
        return [table.table.item(row, 1).foreground() != default for row in range(2)]

    assert (grey(), table.outdated.isHidden()) == ([False, False], True)
    dock.compare.browser.slider.setValue(1)
    [layer] = dock.compare.layers()
    assert layer.name == dock.compare.browser.box.currentText() == "cells · RLD 2"
    assert (grey(), table.outdated.isHidden()) == ([False, True], False)
    dock.compare.browser.slider.setValue(3)
    assert (grey(), table.outdated.isHidden()) == ([False, False], True)
    dock.compare.browser.slider.setValue(1)
    dock.compare.compare_button.click()
    idle(dock.jobs)
    assert [row.name for row in table.comparison.rows] == ["cells", "cells · RLD 2"]
    assert (grey(), table.outdated.isHidden()) == ([False, False], True)
    dock.viewer.layers.remove(layer)
    assert table.isHidden()  # nothing is left to compare


def test_cancelling_the_search_for_the_stop_keeps_the_displayed_estimate(dock, idle, in_step):
    in_step(dock.jobs)
    dock.methods.rows[1].check.setChecked(False)
    dock.methods.rows[0].form.fields["iterations"].value = "auto"
    shown = []

    def cancel(job, update):
        if getattr(update.content, "from_stop_search", False) and not shown:
            shown.append((update.content.iteration, np.array(dock.viewer.layers[-1].data)))
            dock.bar.cancel_button.click()

    dock.jobs.reported.connect(cancel)
    dock.bar.run_button.click()
    idle(dock.jobs)
    [(iteration, data)] = shown
    layer = dock.viewer.layers[-1]
    assert layer.name.startswith("cells · RLD ")
    assert layer.name.endswith("(cancelled)")
    facts = record_of(layer).facts
    assert f"RLD {facts['iterations']} (cancelled)" in layer.name
    assert 0 < facts["iterations"] <= iteration
    assert "fraction of the photons" in facts["estimated_from"]
    np.testing.assert_array_equal(layer.data, data)
    assert layer not in dock.compare.layers()  # it says too little


def test_the_deleted_image_is_not_replaced_by_the_psf(dock):
    viewer = dock.viewer
    for layer in list(viewer.layers):
        if layer is not dock.psf.layer:
            viewer.layers.remove(layer)
    assert dock.image.layer is None
    dock.bar.run_button.click()
    assert "Choose the image" in dock.bar.message.text()
    assert dock.window().focusWidget() is dock.image.box


def test_an_image_in_colours_is_refused_before_its_voxel_size_is_asked_for(dock):
    dock.viewer.add_image(np.zeros((4, 16, 16, 3), np.uint8), rgb=True, name="photo")
    dock.image.layer = dock.viewer.layers["photo"]
    dock.bar.run_button.click()
    assert dock.bar.message.text().startswith("photo is an RGB image; split it")
    assert dock.window().focusWidget() is dock.image.box
    dock.image.layer = dock.viewer.layers["cells"]
    assert not dock.bar.message.text()  # it applies no longer


def test_a_failure_is_shown_once(dock, idle, monkeypatch):
    def failing(*_, **__):
        yield from ()
        raise RlnError("`tv` and `max_iterations` do not go together.")

    notified = []
    notification_manager.notification_ready.connect(notified.append)
    monkeypatch.setattr(chosen_method, "deconvolve_iter", failing)
    dock.methods.rows[1].check.setChecked(False)
    dock.bar.run_button.click()
    idle(dock.jobs)
    said = [label.text() for label in dock.findChildren(QLabel) if "go together" in label.text()]
    assert said == ["cells · RLD: Total variation and Most iterations do not go together."]
    labels = dock.windows.batch.findChildren(QLabel)
    said = [label for label in labels if "go together" in label.text()]
    assert not said
    notification_manager.notification_ready.disconnect(notified.append)
    assert not notified


def test_a_second_click_queues_new_runs_and_the_comparison_follows(dock, idle):
    dock.methods.rows[0].form.fields["iterations"].value = 40
    dock.bar.run_button.click()
    dock.bar.run_button.click()
    assert "under way" in dock.bar.message.text()
    waiting = len(dock.jobs.waiting)
    dock.repair.setChecked(False)  # another run, of every method
    dock.bar.run_button.click()
    assert len(dock.jobs.waiting) == 2 * waiting + 1
    dock.methods.rows[0].form.fields["iterations"].value = 41  # RLN is under way as it is
    dock.bar.run_button.click()
    assert len(dock.jobs.waiting) == 2 * waiting + 2
    idle(dock.jobs, 120)
    assert len(dock.compare.table.comparison.rows) == 6  # with the image
    assert dock.viewer.canvas.grid.enabled
    newest = dock.history.list.item(0).data(Qt.ItemDataRole.UserRole)
    [verdict] = newest.verdicts  # not those on the results of other runs
    assert verdict.startswith("RLD 41 ")
    text = dock.verdicts.text()
    assert text.count("<b>RLD 41</b>") == 1  # said once, after several comparisons
    dock.compare.compare()
    idle(dock.jobs)
    assert newest.verdicts == [verdict]
    assert dock.verdicts.text() == text
    dock.image.layer = dock.viewer.layers["cells · truth"]
    assert not dock.verdicts.text()  # they are on another image
    assert dock.compare_button.isHidden()
    dock.image.layer = dock.viewer.layers["cells"]
    assert dock.verdicts.text() == text


def test_cancelling_keeps_an_estimate_named_by_its_iteration(dock, idle, qtbot):
    dock.methods.rows[0].form.fields["iterations"].value = 100_000
    dock.bar.run_button.click()
    assert len(dock.jobs.waiting) == 1
    qtbot.waitUntil(lambda: "cells · RLD" in dock.viewer.layers, timeout=30_000)
    dock.bar.cancel_button.click()
    idle(dock.jobs)
    [layer] = [layer for layer in dock.viewer.layers if "cancelled" in layer.name]
    facts = record_of(layer).facts
    assert facts["stopped_by"] == "cancelled"
    assert 0 < facts["iterations"] < 100_000
    assert not any("RLN" in layer.name for layer in dock.viewer.layers)


def test_a_layer_that_the_user_names_during_a_run_keeps_that_name(dock, idle, qtbot):
    dock.methods.rows[0].form.fields["iterations"].value = 300
    dock.methods.rows[1].check.setChecked(False)
    dock.bar.run_button.click()
    qtbot.waitUntil(lambda: "cells · RLD" in dock.viewer.layers, timeout=30_000)
    layer = dock.viewer.layers["cells · RLD"]
    layer.name = "mine"
    idle(dock.jobs)
    assert record_of(layer).facts["iterations"] == 300
    assert layer.name == "mine"


def test_failures_are_sentences_and_leave_no_layer(dock, idle, monkeypatch):
    def failing(*_, **__):
        yield from ()
        raise RuntimeError("shapes do not match")

    monkeypatch.setattr(chosen_method, "deconvolve_iter", failing)
    dock.methods.rows[1].check.setChecked(False)
    before = len(dock.viewer.layers)
    dock.bar.run_button.click()
    idle(dock.jobs)
    assert "shapes do not match" in dock.bar.message.text()
    assert "failing" in dock.bar._details
    assert len(dock.viewer.layers) == before

    dock.psf.layer = None
    dock.bar.run_button.click()
    assert "Choose the PSF" in dock.bar.message.text()
    dock.psf.layer = dock.image.layer
    dock.bar.run_button.click()
    assert "as the image and as the PSF" in dock.bar.message.text()
    dock.methods.rows[0].check.setChecked(False)
    dock.bar.run_button.click()
    assert "Tick at least one method" in dock.bar.message.text()


def test_a_reference_is_registered_and_compared(dock, idle, pair):
    pytest.importorskip("SimpleITK")
    viewer, image = dock.viewer, dock.image.layer
    dock.methods.rows[1].check.setChecked(False)
    dock.bar.run_button.click()
    idle(dock.jobs)
    moved = np.roll(image.data, (1, 2, -2), (0, 1, 2))
    other = viewer.add_image(moved, name="confocal", scale=image.scale, units=image.units)
    dock.compare.known.reference.layer = other
    dock.compare.known.transform.value = "translation"
    dock.compare.known.register_button.click()
    idle(dock.jobs)
    assert not dock.bar.message.property("error"), dock.bar.message.text()
    found = viewer.layers["confocal · registered"]
    inner = (slice(4, -4),) * 3
    assert np.corrcoef(found.data[inner].ravel(), image.data[inner].ravel())[0, 1] > 0.9
    assert found not in dock.compare.layers()
    dock.compare.compare_button.click()
    idle(dock.jobs)
    assert [row.name for row in dock.compare.table.comparison.rows] == [
        "cells", "cells · RLD 10", "confocal · registered",
    ]  # fmt: skip
    # The reference is no result, whose agreement with the image would mean something.
    assert "RLD 10" in dock.verdicts.text()
    assert "registered" not in dock.verdicts.text()


def offered(methods):
    """Return the texts of the menu that adds a method, as it is when it opens."""
    menu = methods.add_button.menu()
    menu.aboutToShow.emit()
    return [action.text() for action in menu.actions() if action.text()]


def test_methods_are_added_with_their_settings_and_removed(dock, library):
    methods = dock.methods
    assert offered(methods) == [
        "Richardson-Lucy (RLD)", "Richardson-Lucy, Wiener-Butterworth", "Wiener filter",
        "RLN universal", "RLN bead-paper",
    ]  # fmt: skip
    again = methods.add("rld")
    again.form.fields["iterations"].value = 10
    with pytest.raises(RlnError, match="RLD is in the list twice with the same settings"):
        methods.chosen()
    again.form.fields["iterations"].value = 20
    fast = methods.add("wb")
    assert [chosen.name for chosen in methods.chosen()] == ["RLD", "RLN universal", "RLD", "WB"]
    assert methods.chosen()[3].method.back_projector == "wiener-butterworth"
    fast.check.setChecked(False)
    methods.remove(methods.rows[0])
    assert [chosen.method.kind for chosen in methods.chosen()] == ["rln", "rld"]
    assert methods.chosen()[1].method.iterations == 20

    # The rows as they are can be stored, and shown again.
    stored = json.loads(json.dumps(methods.state()))
    methods.remove(methods.rows[2])
    methods.restore(stored)
    assert methods.state() == stored
    assert [row.is_checked for row in methods.rows] == [True, True, False]
    before = methods.rows
    with pytest.raises(RlnError, match="another version"):
        methods.restore([{"key": "rld", "settings": {"no such": 1}}])
    assert methods.rows == before


def test_a_model_that_is_trained_meanwhile_is_offered(dock, library, qtbot):
    methods = dock.methods
    saved = library.save(replace(library.load("universal"), name="mine"))
    qtbot.waitUntil(lambda: "RLN mine" in offered(methods), timeout=5000)
    methods.add_model("mine")
    methods.add_model("mine")  # is in the list already
    assert [row.key for row in methods.rows] == ["rld", "universal", "mine"]
    assert methods.chosen()[2].name == "RLN mine"
    saved.unlink()
    qtbot.waitUntil(lambda: "RLN mine" not in offered(methods), timeout=5000)
    with pytest.raises(RlnError, match="the model mine is not among your models any more"):
        methods.chosen()


def test_a_network_of_another_architecture_is_applied(dock, library, idle, qtbot):
    network = Care(CareSettings(filters=2))
    network.initialise(torch.Generator().manual_seed(0))
    model = Model(
        name="mine", network=network, start=StartSettings(method="image"),
        record=Record(method="train"),
    )  # fmt: skip
    library.save(model)
    for row in dock.methods.rows:
        row.check.setChecked(False)
    dock.methods.add_model("mine")
    (chosen,) = dock.methods.chosen()
    assert (chosen.name, chosen.needs_psf) == ("CARE mine", False)
    dock.bar.run_button.click()
    idle(dock.jobs)
    assert not dock.bar.message.property("error"), dock.bar.message.text()
    assert [*results(dock)] == ["cells · CARE mine"]


def test_iterations_to_keep_are_whole_numbers():
    assert iterations_in("1, 5 2 5") == (1, 2, 5)
    assert iterations_in("") == ()
    with pytest.raises(RlnError, match="whole numbers"):
        iterations_in("1 two")


def test_costs_are_shown_and_the_run_is_copied_as_text(dock, idle, qtbot, clipboard):
    qtbot.waitUntil(lambda: "RLN universal: " in dock.costs.text(), timeout=60_000)
    size = r"\d[\d.]*\sGB"
    assert re.fullmatch(f"RLD, 10 iterations: {size}\nRLN universal: {size}", dock.costs.text())
    dock.copy.copy_command()
    assert dock.bar.message.text() == (
        "Copied the command; paste it into a terminal. Its first lines name the layers to save "
        "before."
    )
    text = clipboard.text()
    notes = [line for line in text.splitlines() if line.startswith("#")]
    assert [note.split()[-1] for note in notes] == ["cells.tif", "bead_psf.tif"]
    documents = re.findall(r"^napari-rln run - <<'END'$(.*?)^END$", text, re.DOTALL | re.MULTILINE)
    jobs = [Job.from_json(json.loads(document)) for document in documents]
    assert [[method.kind for method in job.methods] for job in jobs] == [["rld"], ["rln"]]
    assert jobs[0].methods[0].iterations == 10
    for job in jobs:
        assert job.files == [Path("cells.tif"), Path("bead_psf.tif")]
        assert job.image.voxel_um == pytest.approx((0.1, 0.1, 0.1))
        assert job.psfs[0].repair
    dock.copy.copy_python()
    compile(clipboard.text(), "copied", "exec")

    # After a run the time is estimated.
    dock.methods.rows[1].check.setChecked(False)
    dock.bar.run_button.click()
    idle(dock.jobs)
    qtbot.waitUntil(lambda: " s, " in dock.costs.text(), timeout=60_000)
    assert re.fullmatch(f"RLD, 10 iterations: .* s, {size}", dock.costs.text())
    dock.methods.rows[0].form.fields["iterations"].value = "auto"
    most = "RLD, 100 iterations at most: "
    qtbot.waitUntil(lambda: dock.costs.text().startswith(most), timeout=60_000)
    dock.psf.layer = None
    qtbot.waitUntil(lambda: dock.costs.text() == "", timeout=10_000)
    idle(dock.costs.jobs)


def test_a_network_takes_the_tiles_of_the_preferences(dock, idle, monkeypatch):
    monkeypatch.setattr(preferences, "tile", lambda: 16)
    dock.bar.run_button.click()
    idle(dock.jobs)
    facts = {name: record_of(layer).facts for name, layer in results(dock).items()}
    assert facts["cells · RLN universal"]["tiles"] > 1
    assert max(facts["cells · RLN universal"]["tile"]) <= 16
    assert "tiles" not in facts["cells · RLD 10"]


def test_closing_napari_during_a_run_is_safe(dock, qtbot):
    dock.methods.rows[0].form.fields["iterations"].value = 100_000
    dock.bar.run_button.click()
    qtbot.waitUntil(lambda: "cells · RLD" in dock.viewer.layers, timeout=30_000)
    dock.viewer.close()
    assert QThreadPool.globalInstance().waitForDone(30_000)
    QApplication.processEvents()


def test_closing_the_dock_during_a_run_ends_it(dock, idle, qtbot):
    viewer = dock.viewer
    dock.methods.rows[0].form.fields["iterations"].value = 100_000
    dock.bar.run_button.click()
    qtbot.waitUntil(lambda: "cells · RLD" in viewer.layers, timeout=30_000)
    viewer.window.remove_dock_widget(dock.dock)
    idle(dock.jobs)
    assert [layer.name for layer in viewer.layers if "cancelled" in layer.name]
    qtbot.waitUntil(lambda: not isalive(dock))
    viewer.layers.clear()  # which nobody follows any more


def test_a_psf_on_coarse_voxels_is_refused_or_its_preparation_is_cancelled(
    dock, idle, qtbot, monkeypatch
):
    line = np.exp(-0.5 * ((np.arange(64) - 32) / 1.5) ** 2)
    light = 1000 * line[:, None, None] * line[:, None] * line + 5
    light = np.random.default_rng(0).poisson(light).astype(np.float32)
    own_um = dock.image.source("the image").voxel_um
    coarse = Volume.from_array(light, np.multiply(own_um, 4), name="coarse psf")
    data, options, _ = layer_data(coarse)
    dock.viewer.add_image(data, **options)
    dock.psf.layer = dock.viewer.layers["coarse psf"]
    dock.methods.rows[1].check.setChecked(False)
    with monkeypatch.context() as patched:
        patched.setattr("napari_rln.psf.resampling.available_bytes", lambda: 10**9)
        dock.bar.run_button.click()
        idle(dock.jobs)
    assert "the PSF takes 256 x 256 x 256 voxels" in dock.bar.message.text()

    prepared = []
    monkeypatch.setattr("napari_rln.gui.deconvolve.chosen_method.check_psf", prepared.append)
    dock.bar.run_button.click()
    qtbot.waitUntil(lambda: "preparing the psf" in dock.bar.message.text().lower(), timeout=30_000)
    qtbot.wait(500)
    dock.bar.cancel_button.click()
    idle(dock.jobs)
    assert QThreadPool.globalInstance().waitForDone(10_000)
    assert not prepared
    assert "cancelled" in dock.bar.message.text().lower()


def test_the_dock_is_closed_during_a_comparison(dock, qtbot):
    viewer, closed = dock.viewer, []

    def close(job, update):
        if job.window == "compare" and not closed:
            closed.append(job)
            viewer.window.remove_dock_widget("all")

    dock.jobs.reported.connect(close)
    dock.methods.rows[0].form.fields["iterations"].value = 3
    dock.methods.rows[1].check.setChecked(False)
    dock.bar.run_button.click()
    qtbot.waitUntil(lambda: bool(closed) and not isalive(dock), timeout=30_000)
    assert QThreadPool.globalInstance().waitForDone(10_000)
    qtbot.wait(100)  # errors of what comes then fail the test


def test_pages_say_that_results_are_compared_as_long_as_they_are(dock, idle):
    dock.methods.rows[0].form.fields["iterations"].value = 3
    dock.methods.rows[1].check.setChecked(False)
    dock.bar.run_button.click()
    idle(dock.jobs)
    said = []
    dock.jobs.reported.connect(
        lambda job, update: said.append((dock.verdicts.text(), dock.compare.words.text()))
    )
    dock.compare.compare()
    [layer] = dock.compare.layers()
    record = layer.metadata[KEY]
    other = record | {"facts": record["facts"] | {"iterations": 2}}
    layer.metadata = layer.metadata | {KEY: other}
    dock.compare.compare()  # waits for the first
    assert dock.jobs.waiting
    idle(dock.jobs)
    assert said
    assert all("Comparing" in text for pages in said for text in pages)
    assert "RLD 3" in said[-1][1]  # what is known already
    assert "Comparing" not in dock.verdicts.text() + dock.compare.words.text()


def test_results_that_are_removed_are_not_said_to_be_compared(dock, idle):
    said = []

    def remove(job, update):
        if job.window == "compare" and len(said) == 0:
            said.append(dock.verdicts.text())
            dock.viewer.layers.remove("cells · RLD 3")
            dock.compare.bar.cancel_button.click()

    dock.jobs.reported.connect(remove)
    dock.methods.rows[0].form.fields["iterations"].value = 3
    dock.methods.rows[1].check.setChecked(False)
    dock.bar.run_button.click()
    idle(dock.jobs)
    assert "Comparing" in said[0]
    assert not dock.verdicts.text()
    assert dock.compare_button.isHidden()


@pytest.mark.parametrize("running", ["residual maps of cells", "comparison"])
def test_the_dock_is_closed_while_residual_maps_are_made_or_wait(dock, idle, qtbot, running):
    viewer, closed = dock.viewer, []
    dock.methods.rows[0].form.fields["iterations"].value = 3
    dock.methods.rows[1].check.setChecked(False)
    dock.bar.run_button.click()
    idle(dock.jobs)
    dock.dock.show_page("Compare")

    def close(job, update):
        if job.title == running and not closed:
            closed.append(job)
            viewer.window.remove_dock_widget("all")

    dock.jobs.reported.connect(close)
    if running == "comparison":
        dock.compare.compare()
    dock.compare.add_residuals()
    qtbot.waitUntil(lambda: bool(closed) and not isalive(dock), timeout=10_000)
    assert not viewer.canvas.grid.enabled
    assert all(layer.visible for layer in viewer.layers)  # as before the comparison


@pytest.mark.parametrize("click", ["run", "cancel", "close dock", "close viewer"])
def test_clicks_during_a_run_do_no_harm(dock, idle, qtbot, click):
    viewer = dock.viewer
    dock.methods.rows[1].check.setChecked(False)
    dock.methods.rows[0].form.fields["iterations"].value = 600
    dock.bar.run_button.click()
    qtbot.waitUntil(lambda: dock.bar.bar.value() > 12, timeout=30_000)  # some are kept to browse
    if click == "run":
        dock.bar.run_button.click()
    elif click == "cancel":
        dock.bar.cancel_button.click()
    elif click == "close dock":
        viewer.window.remove_dock_widget(dock.dock)
    else:
        viewer.close()
    if click == "close viewer":
        assert QThreadPool.globalInstance().waitForDone(30_000)
        QApplication.processEvents()
        return
    idle(dock.jobs)
    if click == "run":
        assert [layer.name for layer in dock.compare.layers()] == ["cells · RLD 600"]
    else:
        assert any("cancelled" in layer.name for layer in viewer.layers)
    if click == "cancel":  # what was reached is compared like the results of complete runs
        [layer] = dock.compare.layers()
        name = layer.name
        assert name == f"cells · RLD {record_of(layer).facts['iterations']} (cancelled)"
        assert [row.name for row in dock.compare.table.comparison.rows] == ["cells", name]
        dock.compare.browser.slider.setValue(0)
        assert layer.name == "cells · RLD 1"


def test_all_channels_of_a_file_are_ticked_as_napari_adds_its_layers(open_dock, tmp_path):
    viewer, page = open_dock("Deconvolve")
    planes = files.czi_planes(np.ones((1, 2, 5, 8, 8), np.uint16))
    for name in ("first", "second"):
        files.write_czi(tmp_path / f"{name}.czi", planes, files.czi_xml())
    viewer.open(str(tmp_path / "first.czi"), plugin="napari-rln")
    assert page.channels.all.isChecked()
    assert len(page.channels.others) == 1
    page.channels.all.click()
    viewer.layers.remove(viewer.layers[1])
    viewer.open(str(tmp_path / "first.czi"), plugin="napari-rln")
    assert not page.channels.all.isChecked()  # the user's choice, for this file
    viewer.open(str(tmp_path / "second.czi"), plugin="napari-rln")
    page.image.layer = viewer.layers[-1]
    assert page.channels.all.isChecked()


def test_a_single_plane_is_said_to_stay_blurred_along_z(dock, pair, idle):
    image = dock.image.layer
    image.data = image.data[12:13]
    dock.bar.run_button.click()
    idle(dock.jobs)
    text = dock.bar.warning.text()
    assert text.count("is a single plane") == 1  # for both methods
    assert text.count("cells") == 1


def test_axes_without_labels_that_may_not_be_planes_are_warned_of(dock, pair, idle):
    image, viewer = dock.image.layer, dock.viewer
    swapped = np.stack([image.data[:11], image.data[11:22]], axis=1)  # Z, C, Y, X
    layer = viewer.add_image(swapped, name="swapped", scale=(1, *image.scale))
    layer.units = ("pixel", *image.units)
    dock.image.layer = layer
    dock.bar.run_button.click()
    idle(dock.jobs)
    assert record_of(viewer.layers[-1]) is not None  # it may be a time series: not refused
    text = dock.bar.warning.text()
    assert text.count("taken as 11 time points of 2 planes each") == 1  # for both methods
    assert "File > Open with Plugin" in text

    layer.axis_labels = ("t", "z", "y", "x")
    dock.bar.run_button.click()
    idle(dock.jobs)
    assert not dock.bar.warning.text()
