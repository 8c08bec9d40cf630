"""The page Compare: results that are open, channels together, residual maps in a row."""

from dataclasses import replace

import numpy as np
import pytest
from qtpy.QtCore import QObject
from test_dock import opened, small

from napari_rln.core.record import Record
from napari_rln.core.volume import Volume
from napari_rln.evaluate.comparison import CompareSettings, Comparison, Row
from napari_rln.evaluate.verdict import Verdict
from napari_rln.gui.compare.before_after import BeforeAfter
from napari_rln.gui.compare.compared_image import ComparedImage
from napari_rln.gui.compare.open_results import OpenResults
from napari_rln.gui.compare.panels import panels_of
from napari_rln.gui.compare.residual_maps import ResidualMaps
from napari_rln.gui.compare.side_by_side import SideBySide, fits_grid, place_for_grid
from napari_rln.gui.deconvolve.autosave import saving_job
from napari_rln.gui.deconvolve.chosen_method import Inputs
from napari_rln.gui.deconvolve.history import PastRun
from napari_rln.gui.jobs import JobQueue
from napari_rln.gui.layers import DISPLAY_ONLY, KEY, record_of, source_of
from napari_rln.gui.views.views_dock import ViewsDock

VOXEL, UM, ZYX = (0.3, 0.1, 0.1), ("um",) * 3, ("z", "y", "x")
RANDOM = np.random.default_rng(0)


def add(viewer, data, name, **options):
    """Add a layer with voxels of one size; axes before z have steps of 1."""
    more = data.ndim - 3
    scale, units = (1,) * more + VOXEL, ("",) * more + UM
    return viewer.add_image(data, name=name, scale=scale, units=units, **options)


def add_result(viewer, image, name, **options):
    """Add a layer whose record names an array as its image."""
    made_of = Volume.from_array(image, VOXEL).hash
    record = Record(method="rld", facts={"iterations": 3}, inputs={"image": made_of})
    return add(viewer, image / 2, name, metadata={KEY: record.as_dict()}, **options)


@pytest.fixture
def look(viewer, idle, qtbot):
    """Return a function that looks for the images of open results, and returns the search too."""
    owner = QObject()

    def found():
        images, jobs = [], JobQueue(owner)
        search = OpenResults(viewer, jobs, lambda image: None, lambda: (), owner)
        search.ended.connect(images.extend)
        search.search()
        idle(jobs)
        return {each.inputs.image.name: each for each in images}, search

    return found


def test_a_dock_that_is_opened_again_and_one_for_files_find_the_results(
    viewer, qtbot, idle, tmp_path
):
    small(viewer)
    dock = opened(viewer)
    qtbot.waitUntil(lambda: dock.is_loaded, timeout=60_000)
    page = dock.page("Deconvolve")
    page.methods.rows[0].form.fields["iterations"].value = 3
    page.methods.rows[1].check.setChecked(False)
    page.bar.run_button.click()
    idle(page.jobs)
    before = dock.page("Compare").table.comparison
    dock.page("Compare").save(tmp_path)
    idle(page.jobs)
    said = dock.page("Compare").bar.message.text()
    assert said == f"cells · RLD 3 is saved in {tmp_path}."
    viewer.window.remove_dock_widget(dock)
    for is_saved in (False, True):
        if is_saved:
            viewer.layers.remove("cells · RLD 3")
            viewer.open(str(tmp_path / "cells · RLD 3.ome.tif"), plugin="napari-rln")
        dock = opened(viewer)
        dock.show_page("Compare")
        compare = dock.page("Compare")
        jobs = dock.page("Deconvolve").jobs
        qtbot.waitUntil(lambda c=compare: c.image.count() == 1, timeout=10_000)
        idle(jobs)
        assert "RLD 3" in compare.words.text()
        assert "Press Compare" in compare.words.text()
        visible = [layer.name for layer in viewer.layers if layer.visible]
        assert visible == ["cells", "cells · RLD 3"]  # the PSF is hidden
        assert viewer.canvas.grid.enabled
        compare.compare_button.click()
        idle(jobs)
        again = compare.table.comparison
        assert [row.name for row in again.rows] == [row.name for row in before.rows]
        # With the same PSF.
        assert again.rows[1].chi2 == pytest.approx(before.rows[1].chi2)
        viewer.window.remove_dock_widget(dock)


def test_results_of_a_part_of_a_time_point_and_of_no_open_image(viewer, look):
    movie = RANDOM.random((3, 6, 20, 24), np.float32)
    stack = RANDOM.random((6, 20, 24), np.float32)
    add(viewer, movie, "movie", axis_labels=("t", *ZYX))
    whole = add(viewer, stack, "stack", translate=(3, 2, 1))
    add_result(viewer, movie[2], "of the last time point")
    part = (slice(0, 6), slice(4, 16), slice(8, 24))
    corner = whole.data_to_world([each.start for each in part])
    add_result(viewer, stack[part], "of a part", translate=corner)
    add_result(viewer, stack + 1, "of nothing")
    found, search = look()
    assert [*found] == ["movie t=2", "stack (crop)"]
    assert found["stack (crop)"].inputs.image.box == part
    assert found["movie t=2"].inputs.image.indices == {"t": 2}
    assert "of nothing" in search.without_image


@pytest.fixture
def channels(viewer):
    """Return the images of two channels of a run with two results each, and their layers."""
    data = RANDOM.random((2, 4, 16, 16), np.float32)
    colours = ("blue", "green")
    layers = {
        name: [
            add(viewer, data[0], f"A{name}", colormap=colours[0], blending="additive")
            if not name else add_result(viewer, data[0], f"A{name}", blending="additive"),
            add(viewer, data[1], f"B{name}", colormap=colours[1], blending="additive")
            if not name else add_result(viewer, data[1], f"B{name}", blending="additive"),
        ]
        for name in ("", " · RLD 3", " · RLD 9")
    }  # fmt: skip
    # One PSF for both, between images and results, in a place of a channel.
    psf = add(viewer, np.ones((3, 3, 3), np.float32), "psf", visible=False)
    viewer.layers.move(viewer.layers.index(psf), 2)
    run = PastRun(image="A", psf="psf", methods=[])
    images = [
        ComparedImage(
            key=Volume.from_array(data[i], VOXEL).hash,
            inputs=Inputs(image=source_of(layers[""][i], (0, 0, 0)), psf=None, repair=True),
            run=run,
        )
        for i in range(2)
    ]
    return images, [*layers.values()]


def test_channels_share_panels_and_maps_have_a_row_of_their_own(viewer, channels, qtbot):
    images, layers = channels
    maps, panels = ResidualMaps(viewer), SideBySide(viewer, None)
    chosen = panels_of(viewer, images, images[0], maps)
    assert chosen.results == layers
    panels.show(chosen.all, columns=chosen.columns, hidden=chosen.hidden)
    grid = viewer.canvas.grid

    def shown():
        """Return the names in each panel."""
        places = [index for _, index in grid.iter_viewboxes(viewer.layers)]
        found = ([viewer.layers[i] for i in index] for index in places)
        return [[layer.name for layer in panel if layer.visible] for panel in found]

    composites = [["A", "B"], ["A · RLD 3", "B · RLD 3"], ["A · RLD 9", "B · RLD 9"]]
    assert shown() == composites  # the PSF has moved away
    qtbot.waitUntil(lambda: all(each.name_overlay.visible for each in layers[-1]))
    colours = [tuple(each.name_overlay.color) for each in layers[0]]
    assert np.argmax(colours[0][:3]) == 2  # blue
    assert np.argmax(colours[1][:3]) == 1
    tiling = viewer.canvas.overlay_tiling
    assert tiling.top_right == "vertical"  # names without room are there, below each other
    # The maps of one channel, then of both: those of the chosen one are seen.
    record = Record(method="check", inputs={})
    for channel in (0, 1):
        for panel in layers[1:]:
            name = f"{panel[channel].name} · residual"
            add(viewer, panel[channel].data, name, visible=False, metadata={KEY: record.as_dict()})
        for own in (0, 1):
            chosen = panels_of(viewer, images, images[own], maps)
            panels.show(chosen.all, columns=chosen.columns, hidden=chosen.hidden)
            letter = "AB"[own]
            row = [[f"{letter} · RLD {n} · residual"] for n in (3, 9)]
            # An empty place is last.
            assert [panel for panel in shown() if panel] == composites + channel * row
            assert grid.actual_shape(viewer.layers) == (1 + channel, 3)
    # What is arranged already is not drawn again.
    changes = []
    grid.events.connect(changes.append)
    panels.show(chosen.all, columns=chosen.columns, hidden=chosen.hidden)
    grid.events.disconnect(changes.append)
    assert not changes
    panels.stop()
    assert tiling.top_right == "horizontal"
    assert not any(layer.visible for layer in viewer.layers if layer.name.endswith("residual"))
    assert all(layer.visible for panel in layers for layer in panel)


def test_panels_are_placed_in_order_wherever_their_layers_are(viewer, channels):
    _, panels = channels
    layers = [layer for panel in panels for layer in panel]
    for _ in range(20):
        for each in RANDOM.permutation(len(layers)):
            viewer.layers.move(viewer.layers.index(layers[each]), 0)
        place_for_grid(viewer, panels)
        # Some orders fit as they are, such as with the channels of a panel exchanged.
        shown = [layer for layer in viewer.layers if layer in layers]
        assert [{*shown[i : i + 2]} for i in range(0, len(shown), 2)] == [{*p} for p in panels]
        assert fits_grid(viewer, panels)


def test_a_comparison_forgets_removed_results_and_not_those_at_another_iteration(viewer, channels):
    (image, _), layers = channels
    few, many = (panel[0] for panel in layers[1:])
    image.comparison_job(viewer, None, lambda: None).done(
        Comparison(
            rows=tuple(Row(name=layer.name) for layer in (layers[0][0], few, many)),
            settings=CompareSettings(),
        )
    )
    image.verdicts = tuple(
        Verdict(name=name, text="", quality="good", unexplained=0.0) for name in ("RLD 3", "RLD 9")
    )
    assert image.remaining(viewer).outdated == [False] * 3
    browsed = record_of(many)
    many.metadata = {KEY: replace(browsed, facts={"iterations": 2}).as_dict()}
    viewer.layers.remove(few)
    remaining = image.remaining(viewer)
    assert [row.name for row in remaining.comparison.rows] == ["A", "A · RLD 9"]
    assert [verdict.name for verdict in remaining.verdicts] == ["RLD 9"]
    assert remaining.outdated == [False, True]
    viewer.layers.remove(many)
    assert image.remaining(viewer) is None


def test_all_results_are_saved_and_counted(channels, tmp_path):
    _, (_, few, many) = channels
    layers = [*few, *many]
    job = saving_job(layers, tmp_path)
    for _ in range(2):  # the second time under other names
        list(job.steps())
    assert job.end_note == f"4 results are saved in {tmp_path}."
    files = {path.name for path in tmp_path.iterdir()}
    assert files == {f"{layer.name}{n}.ome.tif" for layer in layers for n in ("", " (2)")}


def test_before_and_after_show_all_channels(viewer, channels, qtbot):
    images, layers = channels

    def composite_of(layer):
        return panels_of(viewer, images, images[0], ResidualMaps(viewer)).composite_of(layer)

    widget = BeforeAfter(viewer, composite_of)
    qtbot.addWidget(widget)
    widget.show()
    widget.before.layer, widget.after.layer = layers[0][1], layers[1][0]
    widget.swipe_button.click()
    widget.slider.setValue(250)
    parts = [layer for layer in viewer.layers if DISPLAY_ONLY in layer.metadata]
    assert [part.name for part in parts] == [
        "left: A", "left: B", "right: A · RLD 3", "right: B · RLD 3", "divider",
    ]  # fmt: skip
    assert [part.data.shape[-1] for part in parts[:4]] == [4, 4, 12, 12]
    # The lowest of each side covers the canvas; the others add to it.
    blendings = [part.blending == "additive" for part in parts[:4]]
    assert blendings == [False, True, False, True]
    widget.blink_button.click()
    for panel in (0, 1):
        visible = [layer.name for layer in viewer.layers if layer.visible]
        assert visible == [layer.name for layer in layers[panel]]
        widget.switch_button.click()
    widget.stop()
    # Channels of one panel are compared with each other alone.
    widget.before.layer, widget.after.layer = layers[0]
    widget.swipe_button.click()
    names = [layer.name for layer in viewer.layers if DISPLAY_ONLY in layer.metadata]
    assert names == ["left: A", "right: B", "divider"]
    widget.stop()


def test_the_views_open_in_a_tab_beside_the_page(open_dock, viewer):
    _, page = open_dock("Compare")
    for _ in range(2):  # the second time they are open
        page.views_button.click()
    [views] = page.window().findChildren(ViewsDock)
    dock, other = (each.parentWidget() for each in (views, page.dock))
    assert page.window().tabifiedDockWidgets(dock) == [other]
    assert views.canvas.minimumHeight() > 100
