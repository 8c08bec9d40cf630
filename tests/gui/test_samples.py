"""The plugin's contributions, opened as napari opens them."""

import numpy as np
import pytest

from napari_rln.core.record import array_hash
from napari_rln.gui.layers import record_of
from napari_rln.gui.sample_data import synthetic
from napari_rln.samples import nucleus_psf

napari = pytest.importorskip("napari")


def test_samples_open_through_the_manifest(viewer):
    viewer.open_sample("napari-rln", "bead")
    for layer in viewer.layers:
        assert layer.data.shape == (64, 64, 64)
        np.testing.assert_allclose(layer.scale, (0.1, 0.1, 0.1))
        assert [str(unit) for unit in layer.units] == ["micrometer"] * 3
        assert tuple(layer.axis_labels) == ("z", "y", "x")


def test_the_nucleus_opens_with_its_optics_and_its_confocal_image(open_dock, viewer):
    viewer.open_sample("napari-rln", "nucleus")
    confocal, image = viewer.layers
    assert confocal.data.shape == image.data.shape == (45, 130, 133)
    assert viewer.dims.nsteps == (45, 130, 133)  # no layer lengthens the slider
    for layer in viewer.layers:
        np.testing.assert_allclose(layer.scale, (0.4994, 0.5119, 0.5119), rtol=1e-3)
    inside = np.s_[8:36, 20:115, 15:110]
    correlation = np.corrcoef(confocal.data[inside].ravel(), image.data[inside].ravel())[0, 1]
    assert correlation > 0.6
    _, page = open_dock("Deconvolve")
    assert page.image.layer.name == "nucleus"
    [inputs] = page.inputs.of(page.methods.chosen())
    expected = nucleus_psf()
    np.testing.assert_array_equal(inputs.psf.read().data, expected.data)


def test_synthetic_sample_and_simulating_more(open_dock, viewer, idle):
    viewer.open_sample("napari-rln", "synthetic")
    psf, truth, image = viewer.layers
    assert image.data.shape == truth.data.shape == (64, 96, 96)
    assert record_of(image).inputs == {"psf": array_hash(psf.data)}
    again = [layer[0] for layer in synthetic()]
    for layer, data in zip(viewer.layers, again, strict=True):
        np.testing.assert_allclose(layer.scale, (0.2, 0.1, 0.1))
        assert [str(unit) for unit in layer.units] == ["micrometer"] * 3
        np.testing.assert_array_equal(layer.data, data)
    background = record_of(image).facts["background"]
    light = image.data[16:-16, 16:-16, 16:-16].mean() - background
    assert light == pytest.approx(truth.data[16:-16, 16:-16, 16:-16].mean(), rel=0.5)  # one unit

    _, widget = open_dock("Simulate")
    assert widget.psf.layer.name == "synthetic PSF"
    widget.structures.fields["structures"].value = ("dots",)
    widget.imaging.fields["photons"].value = (100.0, 100.0)
    widget.shape.value = (16, 32, 24)
    widget.seed.value = 7
    widget.bar.run_button.click()
    idle(widget.jobs)
    truth, image = viewer.layers[-2:]
    assert (image.name, truth.name) == ("simulated 7", "simulated 7 \N{MIDDLE DOT} truth")
    assert image.data.shape == (16, 32, 24)
    assert record_of(image).settings["structures"]["structures"] == ["dots"]
    widget.shape[1].value = 100_000
    widget.bar.run_button.click()
    assert "is 100000 but must lie between 1 and 4096" in widget.bar.message.text()
    assert widget.window().focusWidget() is widget.shape[1].box
    widget.shape[1].value = 32
    widget.imaging.fields["photons"].value = (100.0, 10.0)
    widget.bar.run_button.click()
    assert "photons is" in widget.bar.message.text().lower()
