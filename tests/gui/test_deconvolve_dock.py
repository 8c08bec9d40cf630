"""The dock that deconvolves and compares."""

from dataclasses import replace

import numpy as np
import pytest
from qtpy.QtCore import Qt, QThreadPool
from qtpy.QtWidgets import QApplication

from napari_rln import samples
from napari_rln.gui.deconvolve import methods
from napari_rln.gui.deconvolve.methods import iterations_in
from napari_rln.gui.deconvolve.region import DRAWN, SEEN, WHOLE
from napari_rln.gui.layers import KEY, layer_data, record_of
from napari_rln.psf.prepare import prepare_psf
from napari_rln.simulate.imaging import ImagingSettings, simulate_pair
from napari_rln.simulate.structures import StructureSettings

TITLE = "Deconvolve and compare"


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
    dock.methods.rld_form.fields["iterations"].value = 10
    dock.viewer = viewer
    return dock


def results(dock):
    return {layer.name: layer for layer in dock.results.layers()}


def test_rld_and_rln_stream_into_layers_and_are_compared(dock, idle):
    viewer, image = dock.viewer, dock.image.layer
    dock.results.truth.layer = viewer.layers[2]
    dock.methods.kept.value = "1 2 5"
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

    rows = dock.results.table.comparison.rows
    assert [row.name for row in rows] == ["cells", *found]
    assert rows[1].volume.psnr_db > rows[0].volume.psnr_db
    assert dock.results.table.table.rowCount() == 3
    assert rows[1].chi2 is not None

    # Browsing goes through the kept iterations, and the layer says which is shown.
    browsed = found["cells · RLD 10"]
    last = browsed.data.copy()
    dock.results.slider.setValue(1)
    assert browsed.name == "cells · RLD 2"
    assert record_of(browsed).facts["iterations"] == 2
    assert not np.allclose(browsed.data, last)
    dock.results.slider.setValue(3)
    np.testing.assert_array_equal(browsed.data, last)

    dock.results.side_by_side.setChecked(False)
    assert not viewer.canvas.grid.enabled
    dock.results.residual_button.click()
    idle(dock.jobs)
    maps = [layer for layer in viewer.layers if layer.name.endswith("residual")]
    assert len(maps) == 2
    assert record_of(maps[0]).method == "check"


def test_a_crop_is_tried_and_then_the_whole(dock, idle):
    viewer = dock.viewer
    dock.methods.rln.setChecked(False)
    dock.region.box.setCurrentText(DRAWN)
    dock.bar.run_button.click()
    assert "Draw a rectangle" in dock.bar.message.text()
    image = dock.image.layer
    corners = [image.data_to_world((0, y, x))[1:] for y, x in ((4, 5), (4, 29), (27, 29), (27, 5))]
    viewer.add_shapes([np.array(corners)], shape_type="rectangle", units=("um", "um"))
    dock.bar.run_button.click()
    idle(dock.jobs)
    [layer] = dock.results.layers()
    assert layer.data.shape == (24, 23, 24)
    np.testing.assert_allclose(layer.data_to_world((0, 0, 0)), image.data_to_world((0, 4, 5)))
    dock.whole_button.click()
    idle(dock.jobs)
    assert dock.region.box.currentText() == WHOLE
    [whole] = dock.results.layers()
    assert whole.data.shape == image.data.shape
    viewer.dims.order = (1, 0, 2)
    dock.region.box.setCurrentText(SEEN)
    dock.bar.run_button.click()
    assert "xy plane" in dock.bar.message.text()


def test_a_second_click_queues_what_is_new_and_the_comparison_comes_all_the_same(dock, idle):
    dock.methods.rld_form.fields["iterations"].value = 40
    dock.bar.run_button.click()
    dock.bar.run_button.click()
    assert "under way" in dock.bar.message.text()
    waiting = len(dock.jobs.waiting)
    dock.mend.setChecked(False)  # another run, of every method
    dock.bar.run_button.click()
    assert len(dock.jobs.waiting) == 2 * waiting + 1
    dock.methods.rld_form.fields["iterations"].value = 41  # RLN is under way as it is
    dock.bar.run_button.click()
    assert len(dock.jobs.waiting) == 2 * waiting + 2
    idle(dock.jobs, 120)
    assert len(dock.results.table.comparison.rows) == 6  # with the image
    assert dock.viewer.canvas.grid.enabled


def test_cancelling_keeps_an_estimate_for_what_it_is(dock, idle, qtbot):
    dock.methods.rld_form.fields["iterations"].value = 100_000
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


def test_failures_are_sentences_and_leave_no_layer(dock, idle, monkeypatch):
    def failing(*_):
        yield from ()
        raise RuntimeError("shapes do not match")

    monkeypatch.setattr(methods, "iterate", failing)
    dock.methods.rln.setChecked(False)
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
    dock.methods.rld.setChecked(False)
    dock.bar.run_button.click()
    assert "Tick at least one method" in dock.bar.message.text()


def test_a_reference_is_registered_and_compared(dock, idle, pair):
    pytest.importorskip("SimpleITK")
    viewer, image = dock.viewer, dock.image.layer
    dock.methods.rln.setChecked(False)
    dock.bar.run_button.click()
    idle(dock.jobs)
    moved = np.roll(image.data, (1, 2, -2), (0, 1, 2))
    other = viewer.add_image(moved, name="confocal", scale=image.scale, units=image.units)
    dock.results.reference.layer = other
    dock.results.transform.value = "translation"
    dock.results.register_button.click()
    idle(dock.jobs)
    assert not dock.bar.message.property("error"), dock.bar.message.text()
    found = viewer.layers["confocal · registered"]
    inner = (slice(4, -4),) * 3
    assert np.corrcoef(found.data[inner].ravel(), image.data[inner].ravel())[0, 1] > 0.9
    assert found not in dock.results.layers()
    dock.results.compare_button.click()
    idle(dock.jobs)
    assert [row.name for row in dock.results.table.comparison.rows] == [
        "cells", "cells · RLD 10", "confocal · registered",
    ]  # fmt: skip


def test_a_model_that_is_trained_meanwhile_is_offered(dock, library, qtbot):
    boxes = dock.methods
    names = lambda: [boxes.models.item(i).text() for i in range(boxes.models.count())]  # noqa: E731
    assert boxes.ticked_models() == ["universal"]
    boxes.models.item(names().index("universal")).setCheckState(Qt.CheckState.Unchecked)
    saved = library.save(replace(library.load("universal"), name="mine"))
    qtbot.waitUntil(lambda: "mine" in names(), timeout=5000)
    assert boxes.ticked_models() == []
    saved.unlink()
    qtbot.waitUntil(lambda: "mine" not in names(), timeout=5000)


def test_iterations_to_keep_are_whole_numbers():
    from napari_rln.errors import RlnError

    assert iterations_in("1, 5 2 5") == (1, 2, 5)
    assert iterations_in("") == ()
    with pytest.raises(RlnError, match="whole numbers"):
        iterations_in("1 two")


def test_costs_are_told_and_the_run_is_copied_as_text(dock, idle, qtbot):
    from napari_rln.cli import app

    qtbot.waitUntil(lambda: "RLN universal: about" in dock.costs.text(), timeout=60_000)
    assert "RLD: about" in dock.costs.text()
    assert "GB" in dock.costs.text()
    dock.copy.copy_command()
    *notes, first, second = QApplication.clipboard().text().splitlines()
    assert [note.split()[-1] for note in notes] == ["cells.tif", "bead_psf.tif"]
    lines = [first, second]
    assert [line.split()[:2] for line in lines] == [["napari-rln", "rld"], ["napari-rln", "rln"]]
    words = lines[0].removeprefix("napari-rln ")
    _, bound, _ = app.parse_args(words, exit_on_error=False, print_error=False)
    assert bound.kwargs["settings"].iterations == 10
    dock.copy.copy_python()
    compile(QApplication.clipboard().text(), "copied", "exec")
    dock.psf.layer = None
    qtbot.waitUntil(lambda: dock.costs.text() == "", timeout=10_000)
    idle(dock.costs.jobs)


def test_closing_napari_during_a_run_is_safe(dock, qtbot):
    dock.methods.rld_form.fields["iterations"].value = 100_000
    dock.bar.run_button.click()
    qtbot.waitUntil(lambda: "cells · RLD" in dock.viewer.layers, timeout=30_000)
    dock.viewer.close()
    assert QThreadPool.globalInstance().waitForDone(30_000)
    QApplication.processEvents()
