"""Deconvolution from disk to disk, the visible part first, and batches with their progress."""

import csv
import json
import re
from pathlib import Path

import dask.array as da
import numpy as np
import pytest
import tifffile

from napari_rln import samples
from napari_rln.core.errors import RlnError
from napari_rln.core.generators import finish
from napari_rln.core.record import Record
from napari_rln.core.volume import Volume
from napari_rln.deconvolution.classical import RichardsonLucy
from napari_rln.engine import in_parts
from napari_rln.engine.execution import Execution, Output
from napari_rln.engine.in_parts import run_task_iter
from napari_rln.engine.job import Job
from napari_rln.engine.journal import RunFolder
from napari_rln.engine.task import Task
from napari_rln.gui.compare.words import COMPARING
from napari_rln.gui.deconvolve import region
from napari_rln.gui.deconvolve.ondisk import Written, file_of
from napari_rln.gui.deconvolve.result_destination import IN_MEMORY, ON_DISK, file_name
from napari_rln.gui.layers import layer_data, record_of, source_of
from napari_rln.io.image import ImageFile
from napari_rln.io.ome_zarr import ZarrTarget, image_levels
from napari_rln.io.volumes import write
from napari_rln.networks.model import load_model
from napari_rln.psf.prepare import PrepareSettings, prepare_psf

TITLE = "Deconvolve"
SHAPE = (8, 260, 300)  # two levels


@pytest.fixture(scope="module")
def psf():
    return prepare_psf(samples.bead_psf(), PrepareSettings(max_size=(5, 5, 5)))


@pytest.fixture(scope="module")
def image(psf):
    photons = np.random.default_rng(0).poisson(20, SHAPE)
    photons[:, ::20, :] += 200
    return Volume.from_array(photons, psf.voxel_um, name="tissue")


@pytest.fixture
def path(image, tmp_path):
    """Return the path of the image as OME-Zarr."""
    found = tmp_path / "tissue.ome.zarr"
    target = ZarrTarget.create(
        found, SHAPE, None, "uint16", image.voxel_um, "tissue", Record(method="simulate"),
        version="0.5", chunk=(8, 64, 64), block=(8, 64, 64),
    )  # fmt: skip
    for level, array in enumerate(target.levels):
        box = tuple(slice(0, n) for n in array.shape)
        data = target.coarsened(box, 0, level) if level else image.data.astype(np.uint16)
        target.write(box, data, level=level)
    return found


@pytest.fixture
def dock(open_dock, path, psf):
    viewer, dock = open_dock(TITLE)
    viewer.open(str(path), plugin="napari-rln")
    write(psf, path.with_name("psf.ome.tif"))
    viewer.open(str(path.with_name("psf.ome.tif")), plugin="napari-rln")
    dock.image.layer, dock.psf.layer = viewer.layers[0], viewer.layers[1]
    dock.methods.rows[0].form.fields["iterations"].value = 3
    dock.methods.rows[1].check.setChecked(False)
    dock.destination.execution.fields["tile"].value = 128
    dock.viewer = viewer
    return dock


def test_a_result_grows_on_disk_the_visible_part_first(
    dock, idle, path, psf, tmp_path, monkeypatch
):
    assert dock.destination.on_disk  # as the image is
    dock.destination.execution.fields["tile"].value = 64
    assert dock.destination.folder.path() == tmp_path
    viewer = dock.viewer
    viewer.scene.camera.center, viewer.scene.camera.zoom = (0, 23, 27), 800  # the last rows
    first = dock.region.visible_box(dock.image.source("the image"))
    assert first[1].start > 100
    seen, asked = [], []

    def spied(task):
        asked.append(task.first)
        return run_task_iter(task)

    monkeypatch.setattr(in_parts, "run_task_iter", spied)
    dock.jobs.reported.connect(lambda job, update: seen.append((update.content, shown(dock))))
    dock.bar.run_button.click()
    idle(dock.jobs)
    assert not dock.bar.message.property("error"), dock.bar.message.text()

    written = [content for content, _ in seen if isinstance(content, Written)]
    pieces = [layer for content, layer in seen if isinstance(content, Written)]
    assert [level.shape for level in written[0].levels] == [SHAPE, (4, 130, 150)]
    assert len(pieces) > 9
    assert pieces[0][0].multiscale  # it was there from the first part on, and what is seen in it
    assert np.any(pieces[0][1][4, 200:, 250:])
    assert asked == [first]

    [layer] = dock.compare.layers()
    out = tmp_path / "tissue RLD.ome.zarr"
    reference = tmp_path / "reference.ome.zarr"
    task = Task(
        image=ImageFile(path=str(path)),
        psf=psf,
        method=RichardsonLucy(iterations=3),
        output=Output(path=reference),
        execution=Execution(tile=64),
    )
    finish(run_task_iter(task))
    for shown_now, level, known in zip(
        layer.data, image_levels(out), image_levels(reference), strict=True
    ):
        np.testing.assert_array_equal(np.asarray(shown_now), np.asarray(level[:]))
        np.testing.assert_array_equal(level[:], known[:])
    assert record_of(layer).settings["iterations"] == 3
    np.testing.assert_allclose(layer.scale, viewer.layers[0].scale)
    assert not list(tmp_path.glob(".preview-*/*/*"))
    names = [row.name for row in dock.compare.table.comparison.rows]
    assert names == ["tissue", "tissue · RLD"]


def test_a_single_plane_on_disk_is_warned_of_once(open_dock, idle, psf, tmp_path):
    viewer, dock = open_dock(TITLE)
    plane = Volume.from_array(
        np.random.default_rng(0).poisson(20, (1, 40, 48)), psf.voxel_um, name="plane"
    )
    write(psf, tmp_path / "psf.ome.tif")
    viewer.open(str(tmp_path / "psf.ome.tif"), plugin="napari-rln")
    data, options, _ = layer_data(plane)
    viewer.add_image(da.from_array(data), **options)
    dock.image.layer, dock.psf.layer = viewer.layers["plane"], viewer.layers["psf"]
    dock.destination.box.setCurrentText(ON_DISK)
    dock.destination.folder.line.setText(str(tmp_path))
    dock.methods.rows[0].form.fields["iterations"].value = 2
    dock.bar.run_button.click()
    idle(dock.jobs)
    assert len(list(tmp_path.glob("plane *.ome.zarr"))) == 2
    assert dock.bar.warning.text().count("is a single plane") == 1  # for both methods


def test_a_result_on_disk_that_is_opened_again_is_compared_in_a_part_of_its_image(
    open_dock, idle, qtbot, path, psf, tmp_path, monkeypatch
):
    out = tmp_path / "tissue RLD.ome.zarr"
    task = Task(
        image=ImageFile(path=str(path)),
        psf=psf,
        method=RichardsonLucy(iterations=3),
        output=Output(path=out),
        execution=Execution(tile=128),
    )
    finish(run_task_iter(task))
    write(psf, tmp_path / "psf.ome.tif")
    monkeypatch.setattr(region, "_MAX_SAMPLE", (64, 128, 128))
    viewer, page = open_dock("Compare")
    for opened in (path, tmp_path / "psf.ome.tif", out):
        viewer.open(str(opened), plugin="napari-rln")
    qtbot.waitUntil(lambda: page.image.count() == 1, timeout=30_000)
    idle(page._jobs)
    assert page.image.itemText(0).startswith("tissue")
    page.compare()
    page.add_residuals()
    idle(page._jobs)
    _, result = page.table.comparison.rows
    assert result.name == "tissue \N{MIDDLE DOT} RLD (crop)"
    assert result.chi2 is not None  # the PSF is found too
    residual = page.maps.of(viewer.layers["tissue \N{MIDDLE DOT} RLD"])
    assert residual.data.shape == (8, 128, 128)


def shown(dock):
    """Return the layer of the result, and what is in it now."""
    layers = [layer for layer in dock.viewer.layers if "RLD" in layer.name]
    return (layers[0], np.asarray(layers[0].data[0])) if layers else None


def test_a_cancelled_run_is_continued(dock, idle, in_step, tmp_path):
    in_step(dock.jobs)

    def cancel(job, update):
        if isinstance(update.content, Written):
            dock.jobs.cancel()

    dock.jobs.reported.connect(cancel)
    dock.bar.run_button.click()
    idle(dock.jobs)
    assert "finished parts of tissue RLD.ome.zarr are kept" in dock.bar.message.text()
    assert dock.compare.layers() == []
    assert all("RLD" not in layer.name for layer in dock.viewer.layers)
    assert dock.viewer.layers.selection.active == dock.image.layer  # napari shows its controls
    finished = RunFolder(tmp_path / "tissue RLD.ome.zarr").finished()
    assert any(key.level == 0 for key in finished)
    dock.jobs.reported.disconnect(cancel)
    dock.bar.run_button.click()
    idle(dock.jobs)
    [layer] = dock.compare.layers()
    assert np.asarray(layer.data[0]).min() >= 0
    assert np.asarray(layer.data[0]).max() > 0


def test_what_is_computed_lazily_is_written_to_disk_first(dock, idle, tmp_path):
    lazily = dock.image.layer.data[0] + np.uint16(5)
    assert isinstance(lazily, da.Array)
    image = dock.image.layer
    layer = dock.viewer.add_image(
        lazily, scale=image.scale, units=image.units, name="corrected: a/b"
    )
    dock.image.layer = layer
    assert file_of(source_of(layer, dock.viewer.dims.point)) is None
    assert dock.destination.on_disk
    dock.bar.run_button.click()
    idle(dock.jobs)
    assert not dock.bar.message.property("error"), dock.bar.message.text()
    [copy] = image_levels(tmp_path / "corrected- a-b.image.zarr")
    np.testing.assert_array_equal(copy[:], np.asarray(lazily))
    [found] = dock.compare.layers()
    assert found.name == "corrected: a/b · RLD"

    # Another image of this name is neither used nor lost, even if it differs far from the centre.
    other = np.asarray(layer.data).copy()
    other[:, :70, :] = 7
    layer.data = da.from_array(other, chunks=(8, 64, 64))
    dock.bar.run_button.click()
    idle(dock.jobs)
    assert "holds another image" in dock.bar.message.text()
    layer.data = layer.data + np.uint16(1)
    dock.destination.format.fields["overwrite"].value = True
    dock.bar.run_button.click()
    idle(dock.jobs)
    assert "holds another image" in dock.bar.message.text()


def test_the_page_says_at_once_that_a_result_is_compared(dock, idle, in_step):
    in_step(dock.jobs)
    said = []

    def follow(job, *_):
        if job.window == "compare":
            said.extend([dock.verdicts.text(), dock.compare.words.text()])

    dock.jobs.reported.connect(follow)
    dock.bar.run_button.click()
    idle(dock.jobs)
    assert said
    assert set(said) == {COMPARING}
    assert "RLD" in dock.verdicts.text()

    def cancel(job, update):
        if job.window == "compare":
            dock.jobs.cancel()

    dock.jobs.reported.connect(cancel)
    dock.bar.run_button.click()
    idle(dock.jobs)
    assert dock.verdicts.text() == ""


def test_a_result_that_replaces_another_has_its_name(dock, idle):
    dock.destination.format.fields["overwrite"].value = True
    for iterations in (3, 4):
        dock.methods.rows[0].form.fields["iterations"].value = iterations
        dock.bar.run_button.click()
        idle(dock.jobs)
        [layer] = dock.compare.layers()
        assert layer.name == "tissue · RLD"
        assert record_of(layer).settings["iterations"] == iterations


def test_a_zarr_array_is_read_where_it_lies(dock, path):
    image = dock.image.layer
    arrays = image_levels(path)
    for data in (arrays, arrays[0]):
        layer = dock.viewer.add_image(data, scale=image.scale, units=image.units, name="added")
        found = file_of(source_of(layer, dock.viewer.dims.point))
        assert found is not None
        assert Path(found.path) == path / "0"
        assert found.voxel_um == pytest.approx((0.1, 0.1, 0.1))


def test_an_image_in_memory_stays_there_unless_chosen_otherwise(dock, idle, image, tmp_path):
    data, options, _ = layer_data(image)
    layer = dock.viewer.add_image(data[:, :40, :40], **(options | {"name": "small"}))
    dock.image.layer = layer
    assert not dock.destination.on_disk
    dock.destination.box.setCurrentText(ON_DISK)
    dock.destination.box.activated.emit(1)
    dock.destination.folder.line.setText(str(tmp_path / "absent"))
    dock.bar.run_button.click()
    assert "no folder" in dock.bar.message.text()
    (tmp_path / "file").touch()
    dock.destination.folder.line.setText(str(tmp_path / "file"))
    dock.bar.run_button.click()
    assert "is a file, where a folder is needed" in dock.bar.message.text()
    dock.destination.folder.line.setText(str(tmp_path))
    dock.image.layer = dock.viewer.layers[0]
    dock.image.layer = layer
    assert dock.destination.on_disk  # as it was chosen
    dock.bar.run_button.click()
    idle(dock.jobs)
    assert (tmp_path / "small RLD.ome.zarr").is_dir()
    [found] = dock.compare.layers()
    assert not found.multiscale
    assert found.data.shape == (8, 40, 40)
    dock.destination.box.setCurrentText(IN_MEMORY)
    assert not dock.inputs.on_disk


def test_the_form_of_files_on_disk_fits_a_narrow_dock(dock):
    advanced = dock.destination.advanced
    advanced.open()
    advanced.resize(305, 400)
    advanced.grab()  # lays it out
    for field in dock.destination.execution.fields.values():
        assert field.native.width() > 100  # a number with the button that clears it


def test_what_is_copied_does_the_same(dock, idle, tmp_path, clipboard):
    dock.methods.rows[1].check.setChecked(True)
    dock.methods.rows[0].form.fields["iterations"].value = 3
    dock.destination.execution.fields["workers"].value = 1
    dock.copy.copy_command()
    text = clipboard.text()
    documents = re.findall(r"^napari-rln run - <<'END'$(.*?)^END$", text, re.DOTALL | re.MULTILINE)
    jobs = [Job.from_json(json.loads(document)) for document in documents]
    assert [method.kind for job in jobs for method in job.methods] == ["rld", "rln"]
    for job in jobs:
        assert job.execution == Execution(tile=128, workers=1)
        assert job.output.path.name.endswith(".ome.zarr")
    dock.copy.copy_python()
    assert clipboard.text().count("'tile': 128") == 2  # of both methods
    dock.methods.rows[1].check.setChecked(False)
    dock.copy.copy_python()
    exec(compile(clipboard.text(), "copied", "exec"), {})
    out = tmp_path / "tissue RLD.ome.zarr"
    before = image_levels(out)[0][:]
    dock.bar.run_button.click()  # which finds it there
    idle(dock.jobs)
    assert not dock.bar.message.property("error"), dock.bar.message.text()
    [layer] = dock.compare.layers()
    np.testing.assert_array_equal(np.asarray(layer.data[0]), before)


def test_other_settings_on_a_result_are_refused(dock, idle, tmp_path):
    dock.bar.run_button.click()
    idle(dock.jobs)
    dock.methods.rows[0].form.fields["iterations"].value = 4
    dock.bar.run_button.click()
    idle(dock.jobs)
    assert dock.bar.message.property("error")
    assert "Replace an existing result" in dock.bar.message.text()


def test_a_batch_shows_the_progress_of_every_image(dock, idle, image, tmp_path):
    folder = tmp_path / "results"
    folder.mkdir()
    small = image.with_data(image.data[:, :40, :40])
    write(small, tmp_path / "one.ome.tif")
    (tmp_path / "broken.tif").write_bytes(b"no image")
    dock.windows.batch_button.click()
    batch = dock.windows.batch
    assert [batch.inputs.item(0).text()] == [str(tmp_path / "tissue.ome.zarr")]  # of the dock
    batch.inputs.selectAll()
    batch._remove()
    batch.bar.run_button.click()
    assert "Add the images" in batch.bar.message.text()
    batch.add(str(tmp_path / "one.ome.tif"), str(tmp_path / "broken.tif"))
    batch.resize(430, 520)
    batch.grab()  # lays it out
    batch.folder.line.setText(str(folder))
    batch.bar.run_button.click()
    idle(dock.jobs)
    assert "1 of 2 images failed" in batch.bar.message.text()
    texts = [batch.table.item(row, 3).text() for row in range(2)]
    assert texts[0].startswith("done, ")
    assert "broken.tif" in texts[1]
    assert batch.table.rowHeight(1) >= batch.table.sizeHintForRow(1)  # all of it can be read
    assert [batch.table.cellWidget(row, 2).value() for row in range(2)] == [1, 0]
    with (folder / "rld" / "batch.csv").open() as file:
        assert [row["status"] for row in csv.DictReader(file)] == ["done", "failed"]

    batch.table.selectRow(1)
    with pytest.raises(RlnError, match="finished"):
        batch.open_selected()
    batch.table.selectRow(0)
    batch.open_selected()
    assert record_of(dock.viewer.layers[-1]).method == "rld"


def test_the_page_shows_a_batch_whose_window_was_closed(dock, idle, image, tmp_path):
    write(image.with_data(image.data[:, :40, :40]), tmp_path / "one.ome.tif")
    (tmp_path / "broken.tif").write_bytes(b"no image")
    dock.windows.batch_button.click()
    batch = dock.windows.batch
    batch.inputs.clear()
    batch.add(str(tmp_path / "broken.tif"), str(tmp_path / "one.ome.tif"))
    batch.folder.line.setText(str(tmp_path))
    said = []
    dock.jobs.reported.connect(lambda job, update: said.append(dock.bar.message.text()))
    batch.bar.run_button.click()
    batch.close()
    idle(dock.jobs)
    assert any(text.startswith("Batch RLD: 2 of 2, one.ome.tif: ") for text in said)
    assert dock.bar.message.text() == batch.bar.message.text()
    assert "1 of 2 images failed; their rows in the window Batch" in dock.bar.message.text()


def test_a_batch_with_other_settings_replaces_its_results_if_the_window_says_so(
    dock, idle, image, tmp_path
):
    write(image.with_data(image.data[:, :40, :40]), tmp_path / "one.ome.tif")
    batch = dock.windows.batch
    batch.add(str(tmp_path / "one.ome.tif"))
    batch.folder.line.setText(str(tmp_path))

    def state(iterations):
        dock.methods.rows[0].form.fields["iterations"].value = iterations
        batch.bar.run_button.click()
        idle(dock.jobs)
        return batch.table.item(0, 3).text()

    assert state(3).startswith("done, ")
    assert batch.options.fields["overwrite"].label in state(4)
    batch.options.fields["overwrite"].value = True
    assert state(4).startswith("done, ")
    batch.table.selectRow(0)
    batch.open_selected()
    assert record_of(dock.viewer.layers[-1]).settings["iterations"] == 4


def test_a_batch_goes_on_with_an_image_cut_short_if_the_window_says_so(dock, idle, image, tmp_path):
    cut = tmp_path / "cut.tif"
    planes = image.data[:, :40, :40].astype(np.uint16)
    resolution = {"resolution": (10, 10), "metadata": {"axes": "ZYX", "spacing": 0.1, "unit": "um"}}
    tifffile.imwrite(cut, planes, imagej=True, **resolution)
    cut.write_bytes(cut.read_bytes()[: -planes.nbytes // 2])
    batch = dock.windows.batch
    batch.add(str(cut))
    batch.folder.line.setText(str(tmp_path))
    batch.bar.run_button.click()
    idle(dock.jobs)
    missing = batch.options.fields["missing"]
    said = batch.table.item(0, 3).text()
    choices = [missing.native.itemText(i) for i in range(missing.native.count())]
    assert all(f"{missing.label}: {choice}" in said for choice in choices[1:])
    missing.value = "mask"
    batch.bar.run_button.click()
    idle(dock.jobs)
    assert batch.table.item(0, 3).text().startswith("done, ")
    assert image_levels(tmp_path / "rld" / "cut-rld.ome.zarr")[0].shape == (4, 40, 40)


def test_a_batch_takes_every_method_and_tables_with_psf_and_model(dock, idle, image, tmp_path):
    small = image.with_data(image.data[:, :40, :40])
    write(small, tmp_path / "one.ome.tif")
    load_model("universal").save(tmp_path / "mine.safetensors")
    table = tmp_path / "plate.csv"
    table.write_text(f"image,psf,model\none.ome.tif,psf.ome.tif,{tmp_path}/mine.safetensors\n")
    dock.methods.rows[1].check.setChecked(True)
    assert dock.methods.rows[1].key == "universal"
    batch = dock.windows.batch
    batch.add(str(table))
    batch.folder.line.setText(str(tmp_path))
    batch.options.fields["ending"].value = "ome.tif"
    batch.bar.run_button.click()
    idle(dock.jobs, 120)
    said = [batch.table.item(row, 3).text() for row in range(batch.table.rowCount())]
    assert not batch.bar.message.property("error"), said
    found = sorted(p.name for p in tmp_path.glob("rl*/*.ome.tif"))
    assert found == ["one-rld.ome.tif", "one-rln.ome.tif"]  # not by the name of what is ticked
    assert batch.table.rowCount() == 2


def test_rows_stay_while_a_batch_is_under_way_and_say_when_it_was_cancelled(
    dock, idle, in_step, image, tmp_path
):
    in_step(dock.jobs)
    for name in ("one", "two"):
        write(image.with_data(image.data[:, :64, :64]), tmp_path / f"{name}.ome.tif")
    dock.methods.rows[0].form.fields["iterations"].value = 50
    dock.destination.folder.line.setText(str(tmp_path / "gone"))
    dock.windows.batch_button.click()  # a folder that is not there is said when it is run
    batch = dock.windows.batch
    batch.add(str(tmp_path / "one.ome.tif"), str(tmp_path / "two.ome.tif"))
    batch.folder.line.setText(str(tmp_path))
    rows = 0

    def cancel(job, update):
        nonlocal rows
        if rows or not batch.table.rowCount():
            return
        rows = batch.table.rowCount()
        batch.bar.run_button.click()
        assert "under way already" in batch.bar.message.text()
        assert batch.table.rowCount() == rows
        dock.jobs.cancel()

    dock.jobs.reported.connect(cancel)
    batch.bar.run_button.click()
    idle(dock.jobs)
    assert rows
    texts = [batch.table.item(row, 3).text() for row in range(rows)]
    assert texts[-1] == "cancelled"
    assert all(text == "cancelled" or text.startswith("done") for text in texts)


def test_the_folder_follows_the_image_until_the_user_names_one(dock, path, tmp_path):
    assert dock.destination.folder.path() == tmp_path
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    path.rename(elsewhere / path.name)
    dock.viewer.open(str(elsewhere / path.name), plugin="napari-rln")
    dock.image.layer = dock.viewer.layers[-1]
    assert dock.destination.folder.path() == elsewhere
    dock.destination.folder.line.setText(str(tmp_path))
    dock.image.layer = dock.viewer.layers[0]
    dock.image.layer = dock.viewer.layers[-1]
    assert dock.destination.folder.path() == tmp_path


def test_an_image_without_a_file_suggests_no_folder(dock, tmp_path):
    dock.destination.folder.line.setText("")
    image = dock.image.layer
    lazily = image.data[0] + np.uint16(1)
    dock.image.layer = dock.viewer.add_image(lazily, scale=image.scale, units=image.units)
    assert dock.destination.on_disk
    assert dock.destination.folder.line.text() == ""
    dock.bar.run_button.click()
    assert "Choose the folder of the results" in dock.bar.message.text()
    assert dock.window().focusWidget() is dock.destination.folder.line
    assert not dock.jobs.running
    array = image_levels(tmp_path / "tissue.ome.zarr")[0]  # lies within a Zarr group
    dock.image.layer = dock.viewer.add_image(array, scale=image.scale, units=image.units)
    assert dock.destination.folder.path() == tmp_path


def test_the_visible_box_respects_the_unit_of_the_layer(dock, image):
    data, options, _ = layer_data(image)
    nm = dock.viewer.add_image(
        data, **(options | {"name": "nm", "scale": (100.0,) * 3, "units": ("nm",) * 3})
    )
    viewer = dock.viewer
    viewer.scene.camera.center, viewer.scene.camera.zoom = (0, 23, 27), 800
    first = dock.region.visible_box(dock.image.source("the image"))
    dock.image.layer = nm
    other = dock.region.visible_box(dock.image.source("the image"))
    assert [(s.start, s.stop) for s in first[1:]] == [(s.start, s.stop) for s in other[1:]]


def test_names_of_layers_become_names_of_files():
    assert file_name('a/b\\c: "d"') == "a-b-c- -d-"
