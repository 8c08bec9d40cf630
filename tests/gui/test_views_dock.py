"""The dock that shows layers laterally and axially."""

import gc
import threading

import numpy as np
import pyqtgraph as pg
import pytest
from napari.layers import Image
from qtpy.QtCore import Qt

from napari_rln.core.volume import Volume
from napari_rln.gui.layers import layer_data
from napari_rln.gui.views import views_dock

TITLE = "Lateral and axial views"
SHAPE, VOXEL = (20, 30, 40), (0.3, 0.1, 0.1)
SPOT = (8, 12, 25)


@pytest.fixture
def dock(open_dock):
    viewer, dock = open_dock(TITLE)
    axes = np.meshgrid(*(np.arange(n) for n in SHAPE), indexing="ij")
    for name, width in (("raw", 0.8), ("raw · RLD", 0.4)):
        off = [(a - c) * v / (2 * width if i == 0 else width) for i, (a, c, v) in
               enumerate(zip(axes, SPOT, VOXEL, strict=True))]  # fmt: skip
        data = 100 * np.exp(-4 * np.log(2) * np.sum(np.square(off), 0)).astype(np.float32)
        shown, options, _ = layer_data(Volume(data=data, voxel_um=VOXEL, name=name))
        viewer.add_image(shown, **options)
    dock.viewer = viewer
    return dock


def shown(dock, column, plane):
    return dock.columns[column].sections[plane].image.image


def test_planes_cross_where_the_viewer_is_and_the_viewer_follows(dock, qtbot):
    viewer, data = dock.viewer, dock.viewer.layers[1].data
    assert [column.layer.name for column in dock.columns] == ["raw", "raw · RLD"]
    point = np.multiply(SPOT, VOXEL)
    viewer.dims.set_point((0, 1, 2), point)
    qtbot.waitUntil(lambda: np.array_equal(shown(dock, 1, "xy"), data[SPOT[0]]))
    np.testing.assert_array_equal(shown(dock, 1, "xz"), data[:, SPOT[1]])
    rect = dock.columns[0].rect("xz")
    assert (rect.width(), rect.height()) == pytest.approx((40 * 0.1, 20 * 0.3))
    dock.yz.setChecked(True)
    np.testing.assert_array_equal(shown(dock, 1, "yz"), data[:, :, SPOT[2]])

    # Dragging a line in any plane moves the viewer and all planes.
    across, down = dock.columns[0].sections["xz"].cross
    across.setValue(1.0)
    down.setValue(3.0)
    across.sigDragged.emit(across)
    np.testing.assert_allclose(viewer.dims.point, (3.0, point[1], 1.0), atol=0.05)
    qtbot.waitUntil(lambda: np.array_equal(shown(dock, 0, "xy"), viewer.layers[0].data[10]))


def test_rows_are_high_as_their_planes_are_also_after_one_is_gone(dock, qtbot):
    heights = lambda: [pane.height() for pane in dock.columns[0].sections.values()]  # noqa: E731
    first = heights()
    assert first[1] / first[0] == pytest.approx((20 * 0.3) / (30 * 0.1), rel=0.1)
    dock.yz.setChecked(True)
    qtbot.waitUntil(lambda: heights()[0] < 0.9 * first[0])
    dock.yz.setChecked(False)
    qtbot.waitUntil(lambda: heights() == pytest.approx(first, abs=8))


def test_lazy_layers_are_read_in_a_thread(dock, qtbot):
    da = pytest.importorskip("dask.array")
    array, readers = dock.viewer.layers[0].data, set()

    def read(block):
        readers.add(threading.current_thread() is threading.main_thread())
        return block

    dock.viewer.layers.clear()
    lazy = da.from_array(array, chunks=(5, 30, 40)).map_blocks(read, dtype=array.dtype)
    layer = dock.viewer.add_image(lazy, scale=VOXEL, units=("um",) * 3, contrast_limits=(0, 100))
    qtbot.waitUntil(lambda: shown(dock, 0, "xz") is not None)
    dock.contrast.setCurrentText("shared by results")
    readers.clear()
    layer.visible = False  # napari itself reads the plane that it shows
    dock.projection.setCurrentText("maximum")
    qtbot.waitUntil(lambda: np.array_equal(shown(dock, 0, "xy"), array.max(0)))
    assert readers == {False}


def test_layers_in_nanometres_are_shown_in_micrometres(dock, qtbot):
    for layer in dock.viewer.layers:
        layer.units = ("nm",) * 3
        layer.scale, layer.translate = np.multiply(VOXEL, 1000), (0, 500, 0)
    qtbot.waitUntil(lambda: dock.columns[0].corner[1] == pytest.approx(0.5 - 0.05))
    point = np.add(np.multiply(SPOT, VOXEL), (0, 0.5, 0))
    dock.viewer.dims.set_point((0, 1, 2), 1000 * point)
    assert dock.crosshair.position == pytest.approx(tuple(point))
    dock.draw()
    np.testing.assert_array_equal(shown(dock, 1, "xz"), dock.viewer.layers[1].data[:, SPOT[1]])
    section = dock.columns[0].sections["xy"]
    assert section.unit == "µm"
    dock.crosshair.move([3.0, None, 1.0])
    assert dock.viewer.dims.point == pytest.approx((3000, 1000 * point[1], 1000))
    dock.profile_on.setCurrentText("profile in xy")
    dock.viewer.dims.set_point((0, 1, 2), 1000 * point)
    dock.profile.move((point[2] - 1.4, point[1]), (point[2] + 1.4, point[1]))
    dock.draw()
    assert dock.profile.widths["raw"] == pytest.approx(0.8, rel=0.05)


def test_pixels_are_not_called_micrometres(dock, qtbot):
    dock.viewer.layers.clear()
    dock.viewer.add_image(np.zeros(SHAPE, np.float32))
    assert dock.columns[0].sections["xy"].unit == "px"
    dock.viewer.layers[0].units = ("um",) * 3
    qtbot.waitUntil(lambda: dock.columns[0].sections["xy"].unit == "µm")


def test_the_brightest_of_a_plane_is_found(dock, idle):
    viewer = dock.viewer
    plane = viewer.layers[0].data[SPOT[0]]
    viewer.layers.clear()
    viewer.add_image(plane, scale=VOXEL[1:], units=("um",) * 2)
    dock.brightest_button.click()
    idle(dock.jobs)
    assert viewer.dims.point == pytest.approx(np.multiply(SPOT, VOXEL)[1:], abs=0.06)


def test_a_tick_goes_with_the_layer_and_not_with_its_name(dock):
    box = lambda i: dock.layers.item(i)  # noqa: E731
    box(1).setCheckState(Qt.CheckState.Unchecked)
    dock.viewer.add_image(np.zeros((5, 30, 40), np.float32), scale=VOXEL, units=("um",) * 3)
    box(2).setCheckState(Qt.CheckState.Checked)  # another size: not ticked by default
    dock.viewer.layers[1].name, dock.viewer.layers[2].name = "done", "grown"
    assert [column.layer.name for column in dock.columns] == ["raw", "grown"]


def test_the_brightest_structure_is_found(dock, idle):
    dock.brightest_button.click()
    idle(dock.jobs)
    np.testing.assert_allclose(dock.crosshair.position, np.multiply(SPOT, VOXEL), atol=0.16)


def test_projection_slab_and_contrast(dock):
    data = dock.viewer.layers[0].data
    dock.projection.setCurrentText("maximum")
    np.testing.assert_array_equal(shown(dock, 0, "xy"), data.max(0))
    dock.slab.value = 0.6
    dock.viewer.dims.set_point((0, 1, 2), np.multiply(SPOT, VOXEL))
    dock.draw()
    np.testing.assert_array_equal(shown(dock, 0, "xy"), data[7:10].max(0))
    dock.viewer.layers[1].contrast_limits = (5, 50)
    dock.draw()
    assert tuple(dock.columns[1].sections["xy"].image.levels) == (5, 50)
    dock.contrast.setCurrentText("shared by results")
    assert tuple(dock.columns[1].sections["xy"].image.levels) != (5, 50)


def test_streaming_layers_are_followed_and_removed_ones_forgotten(dock, qtbot):
    viewer = dock.viewer
    layer = viewer.layers[1]
    layer.data = np.full(SHAPE, 7, np.float32)
    qtbot.waitUntil(lambda: float(shown(dock, 1, "xy").max()) == 7)
    layer.data[...] = 9  # as tiles are written
    layer.refresh()
    qtbot.waitUntil(lambda: float(shown(dock, 1, "xy").max()) == 9)
    viewer.add_image(np.zeros(SHAPE, np.float32), name="later", scale=VOXEL)
    assert [column.layer.name for column in dock.columns] == ["raw", "raw · RLD", "later"]
    viewer.layers.remove(layer)
    assert [column.layer.name for column in dock.columns] == ["raw", "later"]
    dock.layers.item(1).setCheckState(dock.layers.item(0).checkState().Unchecked)
    assert [column.layer.name for column in dock.columns] == ["raw"]
    viewer.layers[0].name = "renamed"
    assert dock.columns[0].layer.name == "renamed"


def test_layers_on_other_grids_stand_beside_by_their_place_in_the_world(dock):
    viewer = dock.viewer
    coarse = Image(
        viewer.layers[0].data[::2, ::2, ::2], name="coarse", scale=np.multiply(VOXEL, 2),
        units=("um",) * 3,
    )  # fmt: skip
    viewer.add_layer(coarse)
    dock.layers.item(2).setCheckState(dock.layers.item(0).checkState())
    dock.viewer.dims.set_point((0, 1, 2), np.multiply(SPOT, VOXEL))
    dock.draw()
    np.testing.assert_array_equal(shown(dock, 2, "xy"), coarse.data[SPOT[0] // 2])


def test_an_affine_stretches_what_is_shown_as_in_the_viewer(dock, qtbot):
    for layer in dock.viewer.layers:
        layer.affine = np.diag([1.0, 2, 2, 1])
    qtbot.waitUntil(lambda: dock.columns[0].extent == pytest.approx((6.0, 6.0, 8.0)))
    assert dock.columns[0].corner == pytest.approx((-0.15, -0.1, -0.1))
    dock.viewer.dims.set_point((0, 1, 2), np.multiply(SPOT, (0.3, 0.2, 0.2)))
    dock.draw()
    np.testing.assert_array_equal(shown(dock, 1, "xz"), dock.viewer.layers[1].data[:, SPOT[1]])


def test_an_invalid_slab_is_reported(dock, qtbot):
    for text in ("thick", "-1"):
        dock.slab.box.selectAll()
        qtbot.keyClicks(dock.slab.box, f"{text}\r")
        assert "The slab's thickness is" in dock.bar.message.text()
    dock.slab.value = 0.6
    dock.draw()


def test_a_line_profile_has_the_widths_of_all_layers(dock):
    dock.viewer.dims.set_point((0, 1, 2), np.multiply(SPOT, VOXEL))
    dock.profile_on.setCurrentText("profile in xy")
    _, y, x = np.multiply(SPOT, VOXEL)
    dock.profile.move((x - 1.4, y), (x + 1.4, y))
    dock.draw()
    assert dock.profile.widths["raw"] == pytest.approx(0.8, rel=0.05)
    assert dock.profile.widths["raw · RLD"] == pytest.approx(0.4, rel=0.05)
    dock.profile_on.setCurrentText("no profile")
    assert not dock.profile.isVisible()


def test_the_box_of_the_inset_outlives_the_columns_that_it_was_in(dock, monkeypatch):
    dock.inset.setChecked(True)
    place = dock.canvas.place

    def collecting(*placed):
        gc.collect()  # as it may happen at any time: the columns before are freed
        place(*placed)

    monkeypatch.setattr(dock.canvas, "place", collecting)
    for _ in range(2):
        dock.build()
        assert dock.box.scene() is dock.columns[0].sections["xy"].scene()
    dock.inset.setChecked(False)
    assert dock.box.scene() is None


def test_the_inset_magnifies_and_the_figure_is_the_command_line_s(dock, idle, tmp_path, qtbot):
    dock.inset.setChecked(True)
    dock.box.setSize((1.0, 1.0))
    dock.box.setPos((1.0, 0.5))  # as by dragging: the planes follow
    assert dock.crosshair.position[1:] == pytest.approx((1.0, 1.5), abs=0.06)
    qtbot.waitUntil(lambda: dock.columns[0].inset.viewRect().contains(1.5, 1.0))
    dock.viewer.dims.set_point((1, 2), (2.0, 0.1))  # the box follows, but not outside
    qtbot.waitUntil(lambda: dock.box.pos().y() == pytest.approx(1.5, abs=0.06))
    assert dock.box.pos().x() == pytest.approx(-0.05)
    assert dock.columns[0].inset.viewRect().width() < 3 * dock.columns[0].extent[2]
    for name in ("figure.png", "figure.pdf", "figure.svg"):
        dock.export(str(tmp_path / name))
        idle(dock.jobs)
        assert (tmp_path / name).stat().st_size > 10_000
    dock.bar.attempt(lambda: dock.export(str(tmp_path / "figure.doc")))
    assert ".png, .pdf or .svg" in dock.bar.message.text()
    dock.viewer.add_image(np.zeros((5, 30, 40), np.float32), scale=VOXEL, units=("um",) * 3)
    dock.layers.item(2).setCheckState(Qt.CheckState.Checked)
    dock.bar.attempt(lambda: dock.export(str(tmp_path / "other.png")))
    assert "resample it to the image's shape" in dock.bar.message.text()
    dock.viewer.layers.pop()
    for i in range(2):
        dock.layers.item(i).setCheckState(dock.layers.item(i).checkState().Unchecked)
    dock.bar.attempt(lambda: dock.export(str(tmp_path / "none.png")))
    assert "tick the layers" in dock.bar.message.text().lower()


def test_the_figure_has_the_colours_limits_slab_and_line_of_the_dock(
    dock, idle, tmp_path, monkeypatch
):
    drawn = []
    monkeypatch.setattr(views_dock, "save_figure", lambda drawing, path: drawn.append(drawing))
    viewer = dock.viewer
    viewer.layers[1].colormap, viewer.layers[1].contrast_limits = "green", (5, 50)
    viewer.layers[1].gamma = 0.5
    viewer.dims.set_point((0, 1, 2), np.multiply(SPOT, VOXEL))
    dock.slab.value = 0.6
    dock.profile_on.setCurrentText("profile in xy")
    _, y, x = np.multiply(SPOT, VOXEL)
    dock.profile.move((x - 1.4, y), (x + 1.4, y))
    dock.export(str(tmp_path / "figure.png"))
    idle(dock.jobs)
    (drawing,) = drawn
    shown = [ax for ax in drawing.axes if ax.images]
    assert len(shown) == 4  # no inset
    assert [ax.get_title() for ax in shown[::2]] == ["raw", "raw · RLD"]
    image = shown[2].images[0]
    assert (image.get_clim(), image.norm.gamma) == ((5, 50), 0.5)
    np.testing.assert_allclose(image.cmap(1.0), (0, 1, 0, 1), atol=0.01)
    line = shown[0].lines[0].get_xydata()  # from the corner of the field, half a voxel away
    np.testing.assert_allclose(line, [(x - 1.35, y + 0.05), (x + 1.45, y + 0.05)], atol=0.02)
    (plot,) = [ax for ax in drawing.axes if ax.get_xlabel()]
    assert [len(line.get_xdata()) for line in plot.lines] == [57, 57]
    curves = dock.profile.plot.listDataItems()
    colours = [curve.opts["pen"].color().name() for curve in curves]
    assert [line.get_color().lower() for line in plot.lines] == colours
    widths = [text.get_text() for ax in drawing.axes if ax.get_legend()
              for text in ax.get_legend().get_texts()]  # fmt: skip
    assert {"0.80", "0.40"} <= set(widths)
    assert any("Slab 0.6 µm, mean" in text.get_text() for text in drawing.texts)


def test_it_fits_a_narrow_dock_and_names_are_whole_in_tooltips(dock):
    long = "a rather long name of an image of cells_in_a_dish.ome.tif"
    dock.viewer.layers[0].name = long
    dock.profile_on.setCurrentText("profile in xy")
    assert dock.minimumSizeHint().width() <= 370
    assert long in dock.layers.item(0).toolTip()
    assert long in dock.canvas.ci.getItem(0, 0).toolTip()
    assert dock.profile.legend.text().replace("\N{ZERO WIDTH SPACE}", "").count(long) == 1


def test_texts_are_legible_after_a_change_of_the_theme(dock):
    dock.profile_on.setCurrentText("profile in xy")
    title, plot = dock.canvas.ci.getItem(0, 0), dock.profile.plot
    for theme in ("light", "dark", "light"):
        dock.viewer.theme = theme
        ground = plot.backgroundBrush().color().lightnessF()
        texts = [pg.mkColor(title.opts["color"])]
        for name in ("bottom", "left"):
            axis = plot.getAxis(name)
            texts += [
                axis.textPen().color(),
                axis.pen().color(),
                pg.mkColor(axis.labelStyle["color"]),
            ]
        assert min(abs(text.lightnessF() - ground) for text in texts) > 0.4
        assert (ground > 0.5) == (theme == "light")


def test_a_hidden_psf_below_the_image_does_not_keep_it_from_being_shown(open_dock, viewer):
    viewer.open_sample("napari-rln", "bead")
    viewer.layers["bead_psf"].data = viewer.layers["bead_psf"].data[8:-8]
    _, dock = open_dock(TITLE)
    assert [layer.name for layer in dock.layers.chosen()] == ["bead"]
