"""Comparison of layers in the canvas: swipe, blink, 3D, names, keys, planes with structure."""

import numpy as np
import pytest
from napari.layers import Image
from qtpy.QtCore import QObject

from napari_rln.core.errors import RlnError
from napari_rln.core.record import Record
from napari_rln.core.volume import Volume
from napari_rln.gui.compare.before_after import BeforeAfter
from napari_rln.gui.compare.blink import Blink
from napari_rln.gui.compare.iteration_browser import IterationBrowser
from napari_rln.gui.compare.names import common_look, shortened, show_names
from napari_rln.gui.compare.planes import go_to_brightest_plane, next_plane_with_structure
from napari_rln.gui.compare.shortcuts import SHORTCUTS, bind_shortcuts
from napari_rln.gui.compare.swipe import Swipe
from napari_rln.gui.compare.three_d import ThreeD
from napari_rln.gui.deconvolve.streams import ResultStream
from napari_rln.gui.layers import DISPLAY_ONLY, KEY, layer_data

SHAPE, VOXEL = (8, 20, 40), (0.3, 0.1, 0.1)


def add(viewer, data, name, **options):
    shown, given, _ = layer_data(Volume(data=data, voxel_um=VOXEL, name=name))
    return viewer.add_image(shown, **(given | options))


@pytest.fixture
def pair(viewer):
    """Return two layers, whose values tell where they are from, below another image and points."""
    z, y, x = np.indices(SHAPE).astype(np.float32)
    data = 10000 * z + 100 * y + x
    a, b = add(viewer, data, "raw"), add(viewer, -data, "result")
    other = add(viewer, data, "other")
    viewer.add_points(np.zeros((1, 3)), scale=VOXEL, units=("um",) * 3)
    viewer.canvas.grid.enabled = True
    return a, b, other


def parts(viewer):
    return [layer for layer in viewer.layers if DISPLAY_ONLY in layer.metadata]


def state(viewer):
    return (
        [(layer.name, layer.visible, layer.name_overlay.visible) for layer in viewer.layers],
        {layer.name for layer in viewer.layers.selection},
        viewer.canvas.grid.enabled,
    )


def test_a_swipe_shows_one_layer_on_each_side_and_restores_the_viewer(viewer, pair):
    a, b, other = pair
    other.visible = False
    viewer.layers.selection = {b}
    before, data = state(viewer), a.data
    swipe = Swipe(viewer)
    swipe.set_position(0.25)
    swipe.start([a], [b])
    left, right, line = parts(viewer)
    assert [layer.visible for layer in (a, b, other, left, right, line)] == [False] * 3 + [True] * 3
    assert viewer.layers.selection == {b}
    np.testing.assert_array_equal(left.data, data[:, :, :10])
    np.testing.assert_array_equal(right.data, -data[:, :, 10:])
    # The right part begins where the left one ends, and the line is between both.
    assert right.data_to_world((0, 0, 0)) == pytest.approx(a.data_to_world((0, 0, 10)))
    assert line.data_to_world((0, 0, 0)) == pytest.approx(a.data_to_world((0, 0, 9.5)))
    viewer.dims.set_point(0, 3 * VOXEL[0])
    swipe.set_position(0.5)
    assert (left.data.shape[2], right.data.shape[2]) == (20, 20)
    a.contrast_limits = (1, 7)
    assert left.contrast_limits == [1, 7]
    assert right.contrast_limits != [1, 7]
    a.data = data + 1
    np.testing.assert_array_equal(left.data, data[:, :, :20] + 1)
    swipe.set_position(0)
    assert (left.visible, right.visible) == (False, True)
    batches = []  # after each of which napari collects garbage, which blocks the window
    viewer.layers.events.end_batch.connect(batches.append)
    swipe.stop()
    viewer.layers.events.end_batch.disconnect(batches.append)
    assert len(batches) == 1
    assert state(viewer) == before


def test_a_swipe_cuts_across_the_canvas_whatever_is_displayed(viewer, pair):
    a, b, _ = pair
    data = a.data
    swipe = Swipe(viewer)
    swipe.start([a], [b])
    viewer.dims.order = (2, 0, 1)  # y is across
    left, right, line = parts(viewer)
    np.testing.assert_array_equal(left.data, data[:, :10])
    np.testing.assert_array_equal(right.data, -data[:, 10:])
    viewer.dims.ndisplay = 3
    assert not line.visible
    a.scale = (1, 2, 3)
    left, *_ = parts(viewer)
    np.testing.assert_array_equal(left.scale, (1, 2, 3))
    swipe.stop()
    assert not parts(viewer)


def test_a_swipe_of_other_grids_and_lazy_levels_meets_at_one_place(viewer):
    da = pytest.importorskip("dask.array")
    fine = np.indices(SHAPE)[2].astype(np.float32)
    a = add(viewer, fine, "fine")
    coarse = [da.from_array(fine[:, ::2, ::2]), da.from_array(fine[:, ::4, ::4])]
    b = viewer.add_image(
        coarse, scale=(300, 200, 200), units=("nm",) * 3, translate=(0, 50, 50),
        contrast_limits=(0, 40),
    )  # fmt: skip
    swipe = Swipe(viewer)
    swipe.start([a], [b])
    _, right, _ = parts(viewer)
    assert [level.shape for level in right.data] == [(8, 10, 10), (8, 5, 5)]
    edge = right.data_to_world((0, 0, -0.5))[2] / 1000
    assert edge == pytest.approx(a.data_to_world((0, 0, 19.5))[2])
    swipe.stop()


@pytest.mark.parametrize(
    ("kind", "name"), [(Swipe, "raw"), (Swipe, "result"), (Swipe, "divider"), (Blink, "result")]
)
def test_a_comparison_ends_when_one_of_its_layers_is_deleted(viewer, pair, kind, name):
    ended = []
    compared = kind(viewer)
    compared.ended.connect(lambda: ended.append(1))
    compared.start(*([layer] for layer in pair[:2]))
    viewer.layers.remove(name)
    assert ended == [1]
    assert not parts(viewer)
    assert all(layer.visible for layer in viewer.layers)
    assert viewer.canvas.grid.enabled


def test_dragging_the_divider_moves_it_and_not_the_camera(viewer, pair):
    a, b, _ = pair
    swipe = Swipe(viewer)
    swipe.start([a], [b])
    camera = viewer.scene.camera

    class Event:
        button, type, position = 1, "mouse_press", a.data_to_world((0, 5, 19.5))

    event = Event()
    drag = viewer.mouse_drag_callbacks[-1](viewer, event)
    next(drag)
    assert not camera.mouse_pan
    event.type, event.position = "mouse_move", a.data_to_world((0, 5, 29.5))
    next(drag)
    assert swipe.position == pytest.approx(0.75)
    event.type = "mouse_release"
    with pytest.raises(StopIteration):
        next(drag)
    assert camera.mouse_pan
    event.type = "mouse_press"
    camera.zoom = 1000
    event.position = a.data_to_world((0, 5, 5))  # far from the divider
    with pytest.raises(StopIteration):
        next(viewer.mouse_drag_callbacks[-1](viewer, event))
    swipe.stop()


def test_blink_shows_two_layers_in_turn_and_restores_the_viewer(viewer, pair):
    a, b, other = pair
    before = state(viewer)
    blink = Blink(viewer)
    blink.start([a], [b])
    shows = lambda: [layer.visible for layer in (a, b, other)]  # noqa: E731
    assert shows() == [True, False, False]
    blink.toggle()
    assert shows() == [False, True, False]
    assert b.name_overlay.visible
    blink.stop()
    assert state(viewer) == before
    with pytest.raises(RlnError, match="both layers are raw"):
        blink.start([a], [a])
    with pytest.raises(RlnError, match="two image layers"):
        blink.start([a], [viewer.layers[-1]])


def test_the_controls_start_and_end_comparisons(viewer, pair, qtbot):
    a, b, _ = pair
    before = state(viewer)
    widget = BeforeAfter(viewer)
    qtbot.addWidget(widget)
    widget.show()
    widget.before.layer = widget.after.layer = a
    widget.swipe_button.click()
    assert "Both layers are raw" in widget.message.text()
    assert not widget.swipe_button.isChecked()
    widget.before.layer, widget.after.layer = a, b
    widget.swipe_button.click()
    assert widget.slider.isVisible()
    widget.slider.setValue(750)
    assert widget.swipe.position == pytest.approx(0.75)
    widget.blink_button.click()
    assert (widget.swipe.is_on, widget.blink.is_on) == (False, True)
    assert not widget.swipe_button.isChecked()
    widget.switch_button.click()
    assert b.visible
    widget.hide()
    assert state(viewer) == before
    widget.toggle_blink()
    assert widget.blink.is_on
    viewer.layers.remove(b)
    assert not widget.blink_button.isChecked()


def test_3d_keeps_camera_sliders_grid_and_a_chosen_rendering(viewer, pair, qtbot):
    a, b, _ = pair
    b.rendering = "iso"
    box = ThreeD(viewer)
    qtbot.addWidget(box)
    camera = viewer.scene.camera
    viewer.dims.set_point(0, 4 * VOXEL[0])
    camera.center, camera.zoom = (0, 1.0, 2.5), 33.0
    here = viewer.dims.point
    box.setChecked(True)
    assert viewer.dims.ndisplay == 3
    assert viewer.canvas.grid.enabled
    assert (a.rendering, b.rendering) == ("attenuated_mip", "iso")
    # The turned volume fits its panel.
    corners = np.stack(np.meshgrid(*zip(*a.extent.world, strict=True)), -1).reshape(-1, 3)
    up, view = np.array(camera.up_direction), np.array(camera.view_direction)
    projected = corners @ np.stack([up, np.cross(up, view)], -1)
    assert np.all(np.ptp(projected, 0) * camera.zoom < viewer.canvas.viewbox_size(viewer.layers))
    camera.angles, camera.zoom = (10.0, 20.0, 30.0), 44.0
    a.rendering = "mip"
    box.setChecked(False)
    assert viewer.dims.point == pytest.approx(here)
    assert (camera.zoom, *camera.center[1:]) == pytest.approx((33, 1, 2.5))
    box.setChecked(True)
    assert camera.zoom == pytest.approx(44)
    assert camera.angles == pytest.approx((10, 20, 30))
    assert a.rendering == "mip"  # the user's choice
    viewer.dims.ndisplay = 2  # napari's own button
    assert not box.isChecked()


def test_names_are_shown_and_hidden_as_before(viewer, pair):
    a, b, _ = pair
    b.name_overlay.visible, b.name_overlay.position = True, "bottom_left"
    show_names((a, b), True)
    show_names((a, b), True)
    assert (a.name_overlay.visible, b.name_overlay.position) == (True, "top_left")
    show_names((a, b), False)
    assert not a.name_overlay.visible
    assert (b.name_overlay.visible, b.name_overlay.position) == (True, "bottom_left")
    show_names((a,), False)  # never shown


def test_long_names_fit_their_panel(viewer, pair):
    a, *_ = pair
    a.name = "a_long_name_of_an_image_of_cells_in_a_dish.ome.tif"
    show_names((a,), True, width=450)
    size = a.name_overlay.font_size
    assert 6 <= size < 9
    assert size == pytest.approx(int(size), abs=0.01)  # napari's box is for whole points
    show_names((a,), True, width=2000)
    assert a.name_overlay.font_size == pytest.approx(11, abs=0.01)
    short = shortened(a.name, 200)
    assert len(short) < 25
    assert short.startswith("a_long")
    assert short.endswith(".tif")


def test_of_names_without_room_the_ends_are_seen(viewer, pair):
    a, b, _ = pair
    a.name, b.name = "cells DAPI", "cells DAPI \N{MIDDLE DOT} RLN (compact)"
    size, corner = common_look((a, b), 200)
    assert 6 < size < 11
    assert corner == "top_left"
    b.name += " \N{MIDDLE DOT} residual"
    size, corner = common_look((a, b), 151)
    assert (int(size), corner) == (6, "top_right")


def test_keys_are_free_in_napari_and_released(viewer):
    pressed = []
    keys = {key.replace("+", "-") for key, _ in SHORTCUTS.values()}
    owner = QObject()
    release = bind_shortcuts(
        viewer, {name: lambda name=name: pressed.append(name) for name in SHORTCUTS}, owner
    )
    bound = {str(key).replace("+", "-"): function for key, function in viewer.keymap.items()}
    assert len(bound) == len(keys)
    for function in bound.values():
        function(viewer)
    assert pressed == [*SHORTCUTS]
    classes = {type(viewer.layers), Image, *(type(viewer).__mro__)}
    taken = {str(key) for kind in classes for key in getattr(kind, "class_keymap", {})}
    assert not taken & {str(key) for key in viewer.keymap}
    release()
    assert not viewer.keymap


def blob(planes, count=30):
    """Return a stack with structure in some planes, on a noisy background."""
    rng = np.random.default_rng(0)
    data = rng.normal(100, 1, (count, 64, 64)).astype(np.float32)
    for plane, height in planes.items():
        data[plane, 20:40, 20:40] += height
    data[2, 0, 0] = 60000  # a hot pixel
    return data


def test_planes_without_structure_are_skipped(viewer):
    layer = add(viewer, blob({8: 500, 9: 1000, 20: 600}), "raw")
    at = lambda: round(viewer.dims.point[0] / VOXEL[0])  # noqa: E731
    viewer.dims.set_point(0, 0)
    visited = []
    while next_plane_with_structure(viewer, layer, 1):
        visited.append(at())
    assert visited == [8, 9, 20]
    assert next_plane_with_structure(viewer, layer, -1)
    assert at() == 9
    viewer.dims.set_point(0, 0)
    assert go_to_brightest_plane(viewer, layer)
    assert at() == 9
    layer.data = blob({12: 900})
    go_to_brightest_plane(viewer, layer)
    assert at() == 12


def test_few_planes_of_a_lazy_stack_are_read_and_the_coarse_level_of_a_pyramid(viewer):
    da = pytest.importorskip("dask.array")
    read = []

    def loaded(block, block_info=None):
        read.append(block_info[0]["chunk-location"][0])
        return block

    data = blob(dict.fromkeys(range(60, 90), 800), 200)
    lazy = da.from_array(data, chunks=(1, 64, 64)).map_blocks(loaded, dtype=data.dtype)
    layer = viewer.add_image(lazy, scale=VOXEL, units=("um",) * 3, contrast_limits=(0, 1000))
    read.clear()
    assert go_to_brightest_plane(viewer, layer)
    assert len(set(read)) <= 18
    assert 60 <= round(viewer.dims.point[0] / VOXEL[0]) < 90
    count = len(read)
    go_to_brightest_plane(viewer, layer)
    assert len(read) == count  # the contrasts are kept
    viewer.layers.clear()
    pyramid = viewer.add_image(
        [lazy, da.from_array(data[::4, ::2, ::2])], multiscale=True, contrast_limits=(0, 1000)
    )
    read.clear()
    viewer.dims.set_point(0, 0)
    read.clear()
    assert next_plane_with_structure(viewer, pyramid, 1)
    assert 55 <= viewer.dims.point[0] <= 62


def test_the_iteration_browser_lists_given_results_and_keeps_the_choice(viewer, pair, qtbot):
    browser, streams = IterationBrowser(viewer), []
    qtbot.addWidget(browser)
    for layer, last in zip(pair, (3, 2, 1), strict=True):
        layer.metadata = {KEY: Record(method="rld", facts={"iterations": last}).as_dict()}
        stream = ResultStream(viewer, None, "")
        stream.layer, stream.iterates = layer, dict.fromkeys(range(1, last + 1), layer.data)
        streams.append(stream)
        browser.add(stream)

    def listed():
        return [browser.box.itemText(i) for i in range(browser.box.count())]

    browser.list_among(pair[:2])
    browser.box.setCurrentIndex(1)
    assert (listed(), browser.label.text()) == (["raw", "result"], "2 iterations")
    browser.list_among(pair[1:])  # another image, with the result that is chosen
    assert (browser.box.currentText(), browser.label.text()) == ("result", "2 iterations")
    browser.list_among(pair[2:])
    assert (listed(), browser.label.text()) == (["other"], "1 iteration")
    viewer.layers.remove("other")
    browser.list_among(pair)
    assert (listed(), browser.label.text()) == (["raw", "result"], "3 iterations")
    assert not browser.isHidden()
    browser.list_among(())
    assert browser.isHidden()
