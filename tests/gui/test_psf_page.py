"""The PSF dock: PSFs are computed, opened, measured, examined and repaired."""

import time

import numpy as np
import pytest
import tifffile
from qtpy.QtWidgets import QApplication

from napari_rln.core.volume import Volume
from napari_rln.gui.layers import record_of
from napari_rln.gui.psf import microscope_page as microscope
from napari_rln.psf.measure import MeasureSettings, measure_psf

pytest.importorskip("napari")

VOXEL_UM = (0.2, 0.1, 0.1)
FWHM_UM = (0.9, 0.32, 0.32)


def spots(shape, positions, light=1000.0):
    """Gaussian spots of FWHM_UM at sub-voxel positions."""
    grid = np.indices(shape, np.float64)
    sigma = np.array(FWHM_UM) / VOXEL_UM / 2.3548
    return sum(
        light * np.exp(-0.5 * sum((each / s) ** 2 for each, s in zip(away, sigma, strict=True)))
        for away in (grid - np.reshape(at, (3, 1, 1, 1)) for at in positions)
    )


@pytest.fixture
def settled(qtbot):
    """Return a function that waits until a dock is idle and shows its PSF."""

    def wait(dock):
        qtbot.waitUntil(lambda: not dock.is_busy, timeout=90_000)

    return wait


def units(layer):
    return [str(unit) for unit in layer.units]


def test_compute_examine_and_repair(open_dock, viewer, settled, monkeypatch):
    for key in ("bead", "bead_psf"):
        viewer.open_sample("napari-rln", key)
    _, dock = open_dock("PSF")
    settled(dock)
    assert (dock.image.layer.name, dock.psf.layer.name) == ("bead", "bead_psf")
    assert "The peak is off the middle voxel" in dock.thumbnails.findings.text()
    assert "64 \N{MULTIPLICATION SIGN} 64" in dock.thumbnails.size.text()
    assert dock.repairs.boxes["Centre"].isChecked()
    assert not dock.repairs.boxes["Crop"].isChecked()

    dock.repair_button.click()
    settled(dock)
    made = viewer.layers[-1]
    assert made.name == "bead_psf \N{MIDDLE DOT} prepared"
    assert dock.psf.layer is not None
    assert dock.psf.layer.name == made.name
    assert record_of(made).method == "psf prepare"
    assert made.data.sum() == pytest.approx(1, abs=1e-3)
    assert "off the middle" not in dock.thumbnails.findings.text()
    dock.copy.copy_command()
    assert "psf repair" in QApplication.clipboard().text()

    form = dock.microscope.form
    form.fields["na"].value = 1.2
    form.fields["size"].value = (21, 31, 31)
    dock.microscope.button.click()
    settled(dock)
    made = viewer.layers[-1]
    record = record_of(made)
    assert made.name == "PSF widefield NA 1.2"
    assert (record.method, record.settings["na"]) == ("psf compute", 1.2)
    assert units(made) == ["micrometer"] * 3
    np.testing.assert_allclose(made.scale, viewer.layers["bead"].scale)
    assert made.data.shape == (21, 31, 31)
    dock.microscope.copy.copy_python()
    assert "MicroscopeSettings(na=1.2, size=(21, 31, 31))" in QApplication.clipboard().text()

    form.fields["modality"].value = "confocal"
    dock.microscope.button.click()
    assert "confocal PSF needs" in dock.bar.message.text()
    form.fields["modality"].value = "widefield"

    count = len(viewer.layers)

    def out_of_memory(*_, **__):
        raise RuntimeError("not enough memory")

    monkeypatch.setattr(microscope, "compute_psf", out_of_memory)
    dock.microscope.button.click()
    settled(dock)
    assert "not enough memory" in dock.bar.message.text()
    assert dock.bar.message.property("error")

    monkeypatch.setattr(microscope, "compute_psf", lambda *_, **__: time.sleep(0.5))
    dock.microscope.button.click()
    assert dock.jobs.running
    dock.bar.cancel_button.click()
    settled(dock)
    assert dock.bar.message.text().endswith("cancelled")
    assert len(viewer.layers) == count


def test_a_file_without_voxel_size_asks_for_it_and_is_fitted_to_the_image(
    open_dock, viewer, settled, tmp_path
):
    path = tmp_path / "mine.tif"
    tifffile.imwrite(path, spots((19, 24, 25), [(9.0, 14.6, 12.0)]).astype(np.uint16) + 40)
    _, dock = open_dock("PSF")
    assert "Choose a layer" in dock.thumbnails.size.text()
    dock.opening.button.click()
    assert "choose the file" in dock.bar.message.text().lower()
    dock.opening.path.value = str(path)
    dock.opening.button.click()
    settled(dock)
    assert "mine.tif has no voxel size" in dock.bar.message.text()
    assert len(viewer.layers) == 0
    dock.opening.voxel.value = (0.2, 0.0, 0.1)
    dock.opening.button.click()
    assert "or none of them" in dock.bar.message.text()
    dock.opening.voxel.value = VOXEL_UM
    dock.opening.button.click()
    settled(dock)
    np.testing.assert_allclose(viewer.layers["mine (PSF)"].scale, VOXEL_UM)
    text = dock.thumbnails.findings.text()
    assert "off the middle voxel" in text
    assert "background" in text
    assert not dock.repairs.boxes["Resample"].isEnabled()

    viewer.add_image(
        np.ones((30, 40, 40)), scale=(0.25, 0.1, 0.1), units=("um",) * 3, name="mine too"
    )
    dock.image.layer = viewer.layers["mine too"]
    settled(dock)
    assert "the image's is (0.25, 0.1, 0.1) um" in dock.thumbnails.findings.text()
    assert dock.repairs.boxes["Resample"].isChecked()
    dock.copy.copy_command()
    line = QApplication.clipboard().text()
    assert "psf repair" in line
    assert "--voxel-um 0.25 0.1 0.1" in line
    dock.all_button.click()
    settled(dock)
    np.testing.assert_allclose(viewer.layers[-1].scale, (0.25, 0.1, 0.1))
    text = dock.thumbnails.findings.text()
    assert "middle voxel" not in text
    assert "the image's is" not in text

    dock.psf.layer = viewer.layers["mine too"]  # not a PSF
    settled(dock)
    assert dock.thumbnails.size.text()
    assert not dock.thumbnails.board.isVisible()


def test_beads_are_found_edited_and_averaged(open_dock, viewer, settled):
    at = [(11.3, 15.2, 15.6), (12.4, 15.8, 46.1), (11.7, 46.3, 15.4), (12.0, 46.0, 46.7)]
    rng = np.random.default_rng(1)
    stack = rng.poisson(20 + spots((24, 62, 62), at)).astype(np.float32)
    layer = viewer.add_image(stack, scale=VOXEL_UM, units=("um",) * 3, name="stack")
    _, dock = open_dock("PSF")
    beads = dock.beads
    beads.form.fields["size"].value = (15, 15, 15)
    beads.find_button.click()
    settled(dock)
    points = viewer.layers["stack \N{MIDDLE DOT} beads"]
    assert [*points.features["status"]] == ["used"] * 4
    assert units(points) == ["micrometer"] * 2
    np.testing.assert_allclose(points.scale, VOXEL_UM[1:])
    assert beads.points.layer.name == points.name

    beads.average_button.click()
    settled(dock)
    psf = viewer.layers["stack \N{MIDDLE DOT} PSF"]
    expected = measure_psf(Volume.from_array(stack, VOXEL_UM), MeasureSettings(size=(15, 15, 15)))
    np.testing.assert_array_equal(psf.data, expected.data)
    np.testing.assert_allclose(record_of(psf).facts["fwhm_um"], FWHM_UM, rtol=0.03)
    assert "Mean of 4 of 4 beads" in dock.thumbnails.size.text()

    _, y, x = at[0]
    points.selected_data = {int(np.abs(points.data - (y, x)).sum(axis=1).argmin())}
    points.remove_selected()
    points.add([30.0, 30.0])  # no bead here
    assert [*points.features["status"]] == ["used"] * 3 + ["chosen"]
    points.selected_data = {3}
    points.remove_selected()
    beads.average_button.click()
    settled(dock)
    facts = record_of(viewer.layers[-1]).facts
    assert (facts["beads_used"], facts["beads_removed"], facts["beads_added"]) == (3, 1, 0)

    points.add([y + 1, x - 1])
    beads.average_button.click()
    settled(dock)
    facts = record_of(viewer.layers[-1]).facts
    assert (facts["beads_used"], facts["beads_added"]) == (4, 1)
    np.testing.assert_allclose(sorted(facts["beads_at"]), sorted(at), atol=0.1)
    beads.copy.copy_command()
    note, saving, line = QApplication.clipboard().text().splitlines()
    assert "save the layer as stack.tif" in note
    assert "not an option of the command line: positions=((" in saving
    assert "psf measure" in line
    beads.copy.copy_python()
    text = QApplication.clipboard().text()
    assert "positions=((" in text
    assert 'float("nan")' in text

    points.data = points.data[:0]
    beads.average_button.click()
    assert "no usable bead" in dock.bar.message.text()
    assert layer.name == "stack"
