"""Two views in the dock: registered once, deconvolved together, compared with the first."""

import json

import numpy as np
import pytest
from scipy.signal import fftconvolve

from napari_rln.core.volume import Volume
from napari_rln.deconvolution.views import rotated
from napari_rln.engine.job import Job
from napari_rln.gui.layers import DISPLAY_ONLY, record_of
from napari_rln.io.volumes import read, write

TITLE = "Deconvolve"
SHAPE, FINE, COARSE = (32, 40, 36), (0.1, 0.1, 0.1), (0.2, 0.1, 0.1)


def _psf(sigma):
    axes = [np.exp(-0.5 * ((np.arange(15) - 7) / s) ** 2) for s in sigma]
    data = np.einsum("i,j,k->ijk", *axes)
    return Volume.from_array(data / data.sum(), FINE, name="psf")


PSF_A, PSF_B = _psf((3.0, 1.2, 1.2)), _psf((1.2, 1.2, 3.0))


@pytest.fixture(scope="module")
def volumes():
    """Return truth, the first view with planes twice as thick, and the second as it was taken."""
    rng = np.random.default_rng(0)
    truth = np.zeros(SHAPE, np.float32)
    truth[tuple(rng.integers(6, n - 6, 60) for n in SHAPE)] = 6000

    def photons(psf, seed):
        blurred = fftconvolve(truth, psf.data, mode="same").clip(0) + 10
        return np.random.default_rng(seed).poisson(blurred).astype(np.float32)

    first = photons(PSF_A, 1)
    thick = (first[::2] + first[1::2]) / 2
    second = rotated(Volume.from_array(photons(PSF_B, 2), FINE, name="side"), "y-90")
    return truth, Volume.from_array(thick, COARSE, name="front"), second


@pytest.fixture
def dock(open_dock, volumes, tmp_path):
    viewer, dock = open_dock(TITLE)
    _, first, second = volumes
    psf = PSF_A.data[1::2]
    files = {
        "front": first, "side": second,
        "psf front": Volume.from_array(psf / psf.sum(), COARSE),
        "psf side": rotated(PSF_B, "y-90"),
    }  # fmt: skip
    for name, volume in files.items():
        path = tmp_path / f"{name}.ome.tif"
        write(volume, path)
        viewer.open(str(path), plugin="napari-rln")
    layers = {layer.name: layer for layer in viewer.layers}
    dock.image.layer, dock.psf.layer = layers["front"], layers["psf front"]
    dock.second.image.layer, dock.second.psf.layer = layers["side"], layers["psf side"]
    dock.second.form.fields["rotation"].value = "y+90"
    dock.second.form.fields["transform"].value = "none"
    dock.methods.rows[0].form.fields["iterations"].value = 10
    dock.viewer = viewer
    return dock


def test_both_methods_take_both_views(dock, idle, volumes):
    dock.bar.run_button.click()
    idle(dock.jobs, 120)
    assert not dock.bar.message.property("error"), dock.bar.message.text()
    found = {layer.name: layer for layer in dock.compare.layers()}
    assert [*found] == ["front · dual RLD 10", "front · dual RLN universal"]
    front = dock.image.layer
    for layer in found.values():
        record = record_of(layer)
        assert record.method.endswith(" dual")
        assert record.inputs.keys() >= {"image", "image_b", "psf", "psf_b"}
        assert layer.data.shape == SHAPE
        np.testing.assert_allclose(layer.scale, FINE)
        # They lie where the first view lies: the corners of all voxels together are the same.
        np.testing.assert_allclose(
            layer.data_to_world((-0.5, -0.5, -0.5)), front.data_to_world((-0.5, -0.5, -0.5))
        )
    [shown] = [layer for layer in dock.viewer.layers if DISPLAY_ONLY in layer.metadata]
    assert shown.name == "side on front"
    assert shown.data.shape == SHAPE
    rows = dock.compare.table.comparison.rows
    assert [row.name for row in rows] == ["front", *found]
    assert all(row.chi2 is not None for row in rows)

    # Seen from both sides it is sharper than from the front alone.
    truth = volumes[0]
    dock.second.image.layer = None
    dock.methods.rows[1].check.setChecked(False)
    dock.bar.run_button.click()
    idle(dock.jobs)
    alone = next(layer for layer in dock.compare.layers() if "dual" not in layer.name)
    thick = (truth[::2] + truth[1::2]) / 2
    both = found["front · dual RLD 10"].data
    assert (
        np.corrcoef(both.ravel(), truth.ravel())[0, 1]
        > 1.1 * (np.corrcoef(alone.data.ravel(), thick.ravel())[0, 1])
    )


def test_the_second_view_is_registered_once_for_all_methods(dock, idle):
    seen = []
    dock.jobs.reported.connect(
        lambda job, update: seen.append((job.title, update.progress.activity))
    )
    dock.second.form.fields["transform"].value = "translation"
    dock.bar.run_button.click()
    idle(dock.jobs, 120)
    assert not dock.bar.message.property("error"), dock.bar.message.text()
    shifted = [title for title, doing in seen if "translation" in doing]
    assert shifted
    assert set(shifted) == {"front · dual RLD"}  # the network took what was found for RLD


@pytest.mark.parametrize("method", ["rld", "rln"])
def test_what_is_copied_does_the_same(dock, idle, tmp_path, monkeypatch, method, clipboard):
    dock.methods.rows[method == "rld"].check.setChecked(False)
    dock.copy.copy_command()
    first, document = clipboard.text().split("\n", 1)
    assert first == "napari-rln run - <<'END'"
    job = Job.from_json(json.loads(document.removesuffix("\nEND")))
    assert [used.kind for used in job.methods] == [method]
    assert job.second.views.rotation == "y+90"
    assert [path.name for path in job.files] == [
        "front.ome.tif", "side.ome.tif", "psf front.ome.tif", "psf side.ome.tif",
    ]  # fmt: skip
    dock.copy.copy_python()
    monkeypatch.chdir(tmp_path)
    exec(compile(clipboard.text(), "copied", "exec"), {})
    [path] = tmp_path.glob("front dual *.ome.tif")
    dock.bar.run_button.click()
    idle(dock.jobs, 120)
    [layer] = dock.compare.layers()
    np.testing.assert_allclose(layer.data, read(path).data, rtol=1e-4, atol=1e-3)


def test_invalid_choices_are_reported(dock, idle):
    def said():
        dock.bar.run_button.click()
        idle(dock.jobs)
        assert dock.bar.message.property("error")
        return dock.bar.message.text()

    dock.second.form.fields["rotation"].value = "none"
    dock.methods.rows[1].check.setChecked(False)
    assert "on one grid" in said()
    layer = dock.second.image.layer
    dock.second.image.layer = dock.image.layer
    assert "as both views" in said()
    dock.second.image.layer = layer
    dock.destination.box.setCurrentIndex(1)
    assert "whole, in memory and one channel at a time" in said()
    dock.destination.box.setCurrentIndex(0)
    stack = dock.image.layer
    dock.image.layer = dock.viewer.add_image(
        stack.data[0], name="plane", scale=stack.scale[1:], units=("um", "um")
    )
    assert "is a plane" in said()
    dock.image.layer = stack
    stack.rotate = 30
    assert "rotated or sheared" in said()
    stack.rotate = 0
    dock.psf.layer = None
    assert "Choose the PSF" in said()


def test_needs_are_shown(dock, qtbot):
    qtbot.waitUntil(lambda: "registered" in dock.costs.text(), timeout=60_000)
    assert dock.costs.text().count("\n") == 1
