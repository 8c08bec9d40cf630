"""Click paths of four users, from their file to their answer."""

import json
import re

import microscope_files as files
import numpy as np
import pytest
from qtpy.QtWidgets import QFileDialog, QPushButton

from napari_rln.core.errors import RlnError
from napari_rln.core.record import array_hash
from napari_rln.core.volume import Volume
from napari_rln.engine.job import Job
from napari_rln.gui.layers import record_of
from napari_rln.io.image import open_contents
from napari_rln.io.ome_zarr import ZarrTarget
from napari_rln.io.volumes import read, write
from napari_rln.psf.compute import compute_psf
from napari_rln.psf.microscope import MicroscopeSettings
from napari_rln.simulate.imaging import ImagingSettings, simulate_pair
from napari_rln.simulate.structures import StructureSettings

LIGHT = ImagingSettings(photons=(300.0, 300.0), background=(0.05, 0.05))


def simulated(microscope, voxel_um, structures, seed, shape=(16, 40, 40)):
    """Return a simulated image with its truth, and the PSF of a microscope."""
    psf = compute_psf(microscope, voxel_um)
    drawn = StructureSettings(structures=structures)
    return simulate_pair(psf, drawn, LIGHT, shape=shape, seed=seed, name="cells"), psf


def clicked(parent, text):
    """Click the visible button with a text, as a user would find it."""
    [button] = [
        b for b in parent.findChildren(QPushButton) if b.text() == text and b.isVisibleTo(parent)
    ]
    button.click()


def shown_iterations(page, number):
    """Choose the number of iterations of the first method, for speed."""
    page.methods.rows[0].form.fields["iterations"].value = number


def test_a_newcomer_tries_the_sample(open_dock, viewer, idle, qtbot):
    _, page = open_dock("Deconvolve")
    viewer.window.resize(1280, 800)
    clicked(page, "Try it: open a bead with its PSF")
    assert page.image.layer.name == "bead"
    assert page.psf.layer.name == "bead_psf"
    # On a plane where there is something, and not on the middle one, which is dim.
    contrasts = page.image.layer.data.std(axis=(1, 2))
    plane = viewer.dims.current_step[0]
    assert contrasts[plane] > 0.9 * contrasts.max() > contrasts[32]
    shown_iterations(page, 5)
    page.bar.run_button.click()
    qtbot.waitUntil(lambda: len(viewer.layers) > 2, timeout=30_000)
    idle(page.jobs)
    assert viewer.dims.current_step[0] == plane
    grid = viewer.canvas.grid
    assert (grid.enabled, grid.actual_shape(viewer.layers)) == (True, (1, 3))
    words = page.verdicts.text()
    assert "RLD 5" in words
    assert "RLN universal" in words
    assert "of what the raw image leaves unexplained" in words
    clicked(page, "Show the comparison")
    assert page.dock.tabs.tabText(page.dock.tabs.currentIndex()) == "Compare"
    assert page.compare.table.table.rowCount() == 3


@pytest.fixture
def czi(tmp_path):
    """Return a file of two channels that states its optics, and the images in it."""
    images = []
    for seed, (emission, structures) in enumerate(((0.465, ("spheres",)), (0.509, ("filaments",)))):
        optics = MicroscopeSettings(
            na=1.4, immersion_index=1.518, wavelength_um=emission, size=(15, 15, 15)
        )
        pair, _ = simulated(optics, files.VOXEL_UM, structures, seed)
        images.append((pair.image.data + 100).astype(np.uint16))
    path = tmp_path / "cells.czi"
    files.write_czi(path, files.czi_planes(np.stack(images)[None]), files.czi_xml())
    return path, images


def test_a_biologist_deconvolves_both_channels_of_a_microscopes_file(
    open_dock, viewer, idle, czi, tmp_path, clipboard
):
    path, images = czi
    viewer.open(str(path), plugin="napari-rln")
    assert [layer.name for layer in viewer.layers] == ["cells DAPI", "cells EGFP"]
    _, page = open_dock("Deconvolve")
    note = page.stated.note.text()
    assert "NA 1.4, immersion index 1.518, emission 465 nm" in note
    assert page.channels.all.isChecked()
    assert not page.destination.on_disk
    shown_iterations(page, 5)
    page.methods.rows[1].check.setChecked(False)
    page.autosave.setChecked(True)
    page.bar.run_button.click()  # the only click that is necessary
    idle(page.jobs)
    assert not page.bar.message.property("error"), page.bar.message.text()
    stated = {}
    for number, channel in enumerate(("DAPI", "EGFP")):
        page.image.layer = viewer.layers[f"cells {channel}"]
        page.stated.show_button.click()
        psf = viewer.layers[f"PSF of cells {channel}"]
        assert not psf.visible
        shown = page.dock.page("PSF")
        assert page.dock.tabs.tabText(page.dock.tabs.currentIndex()) == "PSF"
        assert shown.psf.layer.name == psf.name
        page.stated.show_button.click()  # again: the same layer
        assert sum(layer.name.startswith("PSF of") for layer in viewer.layers) == 1
        viewer.layers.remove(psf)
        result = viewer.layers[f"cells {channel} \N{MIDDLE DOT} RLD 5"]
        record = record_of(result)
        # Of its own image, with the PSF of its own wavelength.
        own = Volume.from_array(images[number], files.VOXEL_UM)
        assert record.inputs["image"] == own.hash
        assert record.inputs["psf"] == array_hash(psf.data)
        stated[channel] = record_of(psf).facts["optics"]["stated"]["wavelength_um"]
        saved = read(tmp_path / f"cells {channel} \N{MIDDLE DOT} RLD 5.ome.tif")
        np.testing.assert_array_equal(saved.data, result.data)
        assert saved.record == record
    assert stated == {"DAPI": 0.465, "EGFP": 0.509}
    # The panels show both channels together, raw and result in one row.
    grid = viewer.canvas.grid
    assert (grid.stride, grid.actual_shape(viewer.layers)) == (2, (1, 2))
    assert [layer.name for layer in viewer.layers if layer.visible] == [
        "cells DAPI", "cells EGFP", "cells DAPI · RLD 5", "cells EGFP · RLD 5",
    ]  # fmt: skip
    assert page.verdicts.text().index("cells DAPI") < page.verdicts.text().index("cells EGFP")
    pair = page.compare.before_after  # of one channel
    assert [pair.before.layer.name, pair.after.layer.name] == ["cells DAPI", "cells DAPI · RLD 5"]

    # The run is in the history; its settings come back.
    shown_iterations(page, 7)
    page.history.list.setCurrentRow(0)
    page.history.use_button.click()
    assert page.methods.rows[0].form.fields["iterations"].value == 5
    assert [row.is_checked for row in page.methods.rows] == [True, False]
    page.history.delete_button.click()
    assert page.history.list.count() == 0
    assert not any("RLD" in layer.name for layer in viewer.layers)

    # What was computed for one image is not taken for another.
    page.image.layer = viewer.layers["cells DAPI"]
    page.stated.show_button.click()
    assert page.psf.layer is None
    page.image.layer = viewer.layers["cells EGFP"]
    assert page.psf.layer is None
    assert "emission 509 nm" in page.stated.note.text()
    viewer.add_image(images[0], name="unrelated", scale=files.VOXEL_UM, units=("um",) * 3)
    page.image.layer = viewer.layers["unrelated"]
    assert page.psf.layer is None
    page.bar.run_button.click()
    assert "Choose the PSF of unrelated" in page.bar.message.text()
    page.copy.copy_command()
    assert "Choose the PSF of unrelated" in page.bar.message.text()
    # A copied run computes them too.
    page.image.layer = viewer.layers["cells DAPI"]
    page.copy.copy_command()
    text = clipboard.text()
    documents = re.findall(r"^napari-rln run - <<'END'$(.*?)^END$", text, re.DOTALL | re.MULTILINE)
    jobs = [Job.from_json(json.loads(document)) for document in documents]
    assert [(job.image.channel, job.psfs, job.computes_psfs) for job in jobs] == [
        (0, (), True), (1, (), True),
    ]  # fmt: skip


def test_a_channel_whose_optics_are_unknown_takes_no_other_channels_psf(
    open_dock, viewer, idle, czi, tmp_path
):
    _, images = czi
    path, transmitted = tmp_path / "two.czi", {"Name": "T-PMT"}
    files.write_czi(
        path, files.czi_planes(np.stack(images)[None]), files.czi_xml((transmitted, files.GFP))
    )
    viewer.open(str(path), plugin="napari-rln")
    _, page = open_dock("Deconvolve")
    assert not page.channels.all.isChecked()  # too little is known
    page.channels.all.setChecked(True)
    page.bar.run_button.click()
    assert "Choose the PSF of " in page.bar.message.text()
    assert "T-PMT" in page.bar.message.text()
    assert not page.jobs.running  # nothing is computed before
    page.channels.all.setChecked(False)
    page.image.layer = next(layer for layer in viewer.layers if "EGFP" in layer.name)
    page.channels.all.setChecked(False)
    shown_iterations(page, 2)
    page.methods.rows[1].check.setChecked(False)
    page.bar.run_button.click()
    idle(page.jobs)
    page.image.layer = next(layer for layer in viewer.layers if layer.name.endswith("T-PMT"))
    assert page.psf.layer is None


def test_settings_are_those_of_the_last_session(open_dock, viewer):
    _, page = open_dock("Deconvolve")
    shown_iterations(page, 3)
    page.methods.add("wb")
    optics = MicroscopeSettings(na=1.2, immersion_index=1.33, size=(9, 9, 9))
    pair, psf = simulated(optics, (0.2, 0.1, 0.1), ("dots",), 0)
    for volume, name in ((pair.image, "cells"), (psf, "psf")):
        viewer.add_image(volume.data, name=name, scale=volume.voxel_um, units=("um",) * 3)
    page.bar.run_button.click()
    page.bar.cancel_button.click()
    page.autosave.setChecked(True)
    page.session.store(page.image.layer, page.methods.state())  # as Run does for a file's image
    viewer.window.remove_dock_widget(page.dock)
    _, widget = viewer, viewer.window.add_plugin_dock_widget("napari-rln", "Deconvolution")[1]
    again = widget.page("Deconvolve")
    assert [row.key for row in again.methods.rows] == ["rld", "universal", "wb"]
    assert again.methods.rows[0].form.fields["iterations"].value == 3
    assert again.autosave.isChecked()
    assert again.history.list.count() == 1
    image = again.image.source("the image")
    assert again.autosave.folder_of(image) is None  # an image without a file is left out
    again.autosave.click()
    again.autosave.click()
    with pytest.raises(RlnError, match="does not come from a file"):
        again.autosave.folder_of(image)


def test_a_facility_engineer_runs_a_batch_of_zarr_images(
    open_dock, viewer, idle, tmp_path, clipboard
):
    optics = MicroscopeSettings(na=1.1, immersion_index=1.33, size=(9, 9, 9))
    voxel_um = (0.3, 0.1, 0.1)
    for seed in range(2):
        pair, psf = simulated(optics, voxel_um, ("dots",), seed)
        shape, name = pair.image.shape, f"well-{seed}"
        target = ZarrTarget.create(
            tmp_path / f"{name}.ome.zarr", shape, None, "float32", voxel_um, name,
            pair.image.record, version="0.5", chunk=(16, 64, 64), block=(16, 64, 64),
        )  # fmt: skip
        target.write(tuple(slice(0, n) for n in shape), pair.image.data)
    write(psf, tmp_path / "psf.ome.tif")
    viewer.open(str(tmp_path / "psf.ome.tif"), plugin="napari-rln")
    _, page = open_dock("Deconvolve")
    shown_iterations(page, 4)
    page.methods.rows[1].check.setChecked(False)
    page.windows.batch_button.click()
    batch = page.windows.batch
    batch.add(*(str(tmp_path / f"well-{seed}.ome.zarr") for seed in range(2)))
    batch.folder.line.setText(str(tmp_path))
    batch.bar.run_button.click()
    idle(page.jobs, 120)
    said = [batch.table.item(row, 3).text() for row in range(batch.table.rowCount())]
    assert len(said) == 2
    assert all("done" in text or "finished" in text for text in said), said
    outputs = sorted((tmp_path / "rld").glob("*.ome.zarr"))
    assert len(outputs) == 2
    for out in outputs:
        assert open_contents(out).record.method == "rld"
    # A microscope's file in the list needs no PSF: its own is computed from its optics.
    (tmp_path / "czi").mkdir()
    one = (pair.image.data[None, None] + 100).astype(np.uint16)
    files.write_czi(
        tmp_path / "czi" / "cells.czi", files.czi_planes(one), files.czi_xml((files.GFP,))
    )
    page.psf.layer = None
    batch.inputs.clear()
    batch.add(str(tmp_path / "czi" / "cells.czi"))
    batch.bar.run_button.click()
    idle(page.jobs, 120)
    assert not batch.bar.message.property("error"), batch.table.item(0, 3).text()
    assert batch.table.rowCount() == 1
    # The same without a window: the command is one click away.
    viewer.open(str(tmp_path / "well-0.ome.zarr"), plugin="napari-rln")
    page.psf.layer = viewer.layers["psf"]
    page.copy.copy_command()
    text = clipboard.text()
    assert "napari-rln run" in text
    assert str(tmp_path / "well-0.ome.zarr") in text
    batch.close()


def test_a_methods_person_trains_compares_and_exports(
    open_dock, viewer, idle, library, tmp_path, qtbot, monkeypatch, clipboard
):
    optics = MicroscopeSettings(na=1.2, immersion_index=1.33, size=(9, 9, 9))
    pair, psf = simulated(optics, (0.2, 0.1, 0.1), ("shells",), 1)
    for volume, name in ((pair.image, "cells"), (psf, "psf"), (pair.truth, "truth")):
        viewer.add_image(volume.data, name=name, scale=volume.voxel_um, units=("um",) * 3)
    _, train = open_dock("Train")
    train.form.psf.layer, train.form.image.layer = viewer.layers["psf"], viewer.layers["cells"]
    for name, value in {
        "steps": 4, "validate": 1, "validate_every": 2, "examples": 2, "shape": (32, 32, 32),
        "patch": 16, "batch": 2, "start_iterations": 3,
    }.items():  # fmt: skip
        train.form.training.fields[name].value = value
    train.form.name.setText("mine")
    train.bar.run_button.click()
    idle(train.jobs, 120)
    assert "mine" in library.names(), train.bar.message.text()
    clicked(train, "Use this model")
    dock = train.dock
    assert dock.tabs.tabText(dock.tabs.currentIndex()) == "Deconvolve"
    _, page = open_dock("Deconvolve")
    page.image.layer, page.psf.layer = viewer.layers["cells"], viewer.layers["psf"]
    assert [row.key for row in page.methods.rows] == ["rld", "universal", "mine"]
    shown_iterations(page, 5)
    page.compare.known.truth.layer = viewer.layers["truth"]
    page.bar.run_button.click()
    idle(page.jobs, 120)
    rows = page.compare.table.comparison.rows
    assert [row.name for row in rows] == [
        "cells", "cells · RLD 5", "cells · RLN universal", "cells · RLN mine",
    ]  # fmt: skip
    assert all(np.isfinite(row.volume.psnr_db) for row in rows)
    page.compare.residual_button.click()
    idle(page.jobs)
    assert sum(layer.name.endswith("residual") for layer in viewer.layers) == 3

    # Before and after, and back to the panels as they were.
    before = [layer.name for layer in viewer.layers if layer.visible]
    dock.show_page("Compare")
    page.compare._pair.open()
    page.compare.before_after.swipe_button.setChecked(True)
    assert not viewer.canvas.grid.enabled
    assert any(layer.name.startswith("left: ") for layer in viewer.layers)
    page.compare.before_after.swipe_button.setChecked(False)
    assert viewer.canvas.grid.enabled
    assert [layer.name for layer in viewer.layers if layer.visible] == before

    clicked(page.compare, "Copy table")
    header, *lines = (line.split("\t") for line in clipboard.text().splitlines())
    psnr = [float(line[header.index("psnr_db")]) for line in lines]
    assert psnr == pytest.approx([row.volume.psnr_db for row in rows])
    assert page.compare.bar.message.text().startswith("Copied the table")
    for folder, said in ((tmp_path / "none", "There is no folder"), (tmp_path, "The table is in")):
        chosen = (str(folder / "table.csv"), "")
        monkeypatch.setattr(QFileDialog, "getSaveFileName", lambda *_, c=chosen: c)
        clicked(page.compare, "Save CSV\N{HORIZONTAL ELLIPSIS}")
        assert page.compare.bar.message.text().startswith(said)
    assert "psnr_db" in (tmp_path / "table.csv").read_text()

    # A choice that cannot be compared leaves the panels too, and its message goes with it.
    pair = page.compare.before_after
    after, pair.after.layer = pair.after.layer, pair.before.layer
    pair.blink_button.setChecked(True)
    assert "both layers are cells" in pair.message.text().lower()
    assert viewer.canvas.grid.enabled
    assert [layer.name for layer in viewer.layers if layer.visible] == before
    pair.after.layer = after
    assert not pair.message.text()

    page.compare.views_button.click()
    _, views = open_dock("Lateral and axial views")
    views.export(str(tmp_path / "figure.svg"))
    idle(views.jobs)
    text = (tmp_path / "figure.svg").read_text()
    assert "RLN mine</text>" in text  # text as text
    page.compare.save(tmp_path)
    idle(page.jobs)
    saved = read(tmp_path / "cells \N{MIDDLE DOT} RLN mine.ome.tif")
    assert saved.record.facts["model"]["method"] == "train"
