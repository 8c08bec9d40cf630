"""The maps to the networks' scale: known brightnesses, there and back, units do not matter."""

import numpy as np
import phantoms
import pytest
import torch

from napari_rln.core.brightness import brightness
from napari_rln.core.errors import RlnError
from napari_rln.deconvolution.calibration import Calibration, Camera
from napari_rln.networks.normalisation import (
    HIGH,
    LOW,
    Normalisation,
    photons_of_root,
    root_of_photons,
)

METHODS = pytest.mark.parametrize("method", ["brightness", "percentiles"])
SHAPE = (20, 40, 40)


def _of(image, method="brightness", background=10.0):
    return Normalisation.of(image, image - np.float32(background), background, method)


@pytest.fixture
def image():
    return phantoms.spots(SHAPE, level=300.0) + np.float32(10)


@METHODS
def test_the_way_there_and_back_gives_the_image(image, method):
    scaling = _of(image, method)
    there = scaling.apply(image)
    assert there.dtype == scaling.undo(there).dtype == np.float32
    np.testing.assert_allclose(scaling.undo(there), image, rtol=1e-5)


def test_background_becomes_zero_and_a_uniform_structure_one():
    image = np.full(SHAPE, 10, np.float32)
    image[5:9, 5:9, 5:9] = 52
    scaling = _of(image)
    assert (scaling.offset, scaling.scale) == (10, pytest.approx(42))
    assert set(np.unique(scaling.apply(image)).tolist()) == {0.0, 1.0}


def test_percentiles_become_zero_and_one(image):
    scaled = _of(image, "percentiles").apply(image)
    assert np.percentile(scaled, (LOW, HIGH)) == pytest.approx([0, 1], abs=1e-5)


@METHODS
def test_units_and_offsets_do_not_show_on_the_networks_scale(image, method):
    one = _of(image, method).apply(image)
    other = 7 * image + 100
    np.testing.assert_allclose(_of(other, method, 170.0).apply(other), one, atol=1e-4)


@METHODS
def test_a_flat_image_is_refused(method):
    with pytest.raises(RlnError, match="the image is flat"):
        _of(np.full(SHAPE, 10, np.float32), method)


def test_brightness_is_the_mean_weighted_with_intensity():
    data = np.zeros(SHAPE, np.float32)
    data[0, :10, :10], data[1, :10, :10] = 30, 10
    assert brightness(data) == pytest.approx((30**2 + 10**2) / (30 + 10))


def test_brightness_does_not_depend_on_how_much_is_empty():
    data = np.zeros(SHAPE, np.float32)
    data[2:12, 2:12, 2:12] = np.random.default_rng(0).uniform(10, 100, (10, 10, 10))
    more = np.zeros((40, 80, 80), np.float32)
    more[:20, :40, :40] = data
    assert brightness(more) == pytest.approx(brightness(data), rel=0.02)


def test_brightness_leaves_negative_values_out(image):
    data = image - 10
    low = data.copy()
    low[0, 0, :5] = -1000
    assert brightness(low) == pytest.approx(brightness(data), rel=1e-4)


def test_brightness_leaves_hot_voxels_out():
    data = phantoms.spots(SHAPE, level=300.0)
    hot = data.copy()
    hot[3, 4, 5] = 1e7
    assert brightness(hot) == pytest.approx(brightness(data), rel=0.05)


def test_brightness_of_nothing_is_zero():
    assert brightness(np.zeros(SHAPE, np.float32)) == 0
    assert brightness(np.full(SHAPE, -3, np.float32)) == 0


# The square root of photons


def _of_photons(gain=1.0, offset=0.0, background=0.0, scale=100.0, **camera):
    """Return the map of an image with this camera, whose background is so many photons."""
    level = offset + gain * background
    calibration = Calibration(camera=Camera(gain=gain, offset=offset, **camera), background=level)
    return Normalisation(offset=level, scale=gain * scale).of_photons(calibration)


@pytest.mark.parametrize(
    ("gain", "offset", "background"), [(1.0, 0.0, 0.0), (1.0, 0.0, 40.0), (2.5, 100.0, 7.0)]
)
def test_the_square_root_of_photons_there_and_back(gain, offset, background):
    scaling = _of_photons(gain, offset, background)
    photons = np.linspace(0, 5000, 60, dtype=np.float32).reshape(3, 4, 5)
    image = offset + np.float32(gain) * photons
    there = scaling.apply(image)
    assert there.dtype == scaling.undo(there).dtype == np.float32
    np.testing.assert_allclose(scaling.undo(there), image, rtol=1e-4, atol=1e-3 * gain)
    dark = background + 3 / 8
    expected = (np.sqrt(photons + 3 / 8) - np.sqrt(dark)) / 10
    np.testing.assert_allclose(there, expected, atol=1e-4)
    assert (scaling.photons, scaling.background) == (
        pytest.approx(100), pytest.approx(background),
    )  # fmt: skip


def test_the_background_is_zero_and_values_below_any_light_are_the_least():
    scaling = _of_photons(2.0, 100.0, 7.0)
    levels = np.array([114.0, 99.0, -1000.0], np.float32)
    found = scaling.apply(levels)
    assert found[0] == pytest.approx(0, abs=1e-6)
    assert found[1] == found[2] == pytest.approx(-np.sqrt(7 + 3 / 8) / 10)


@pytest.mark.parametrize("photons", [10.0, 100.0, 1000.0])
def test_noise_is_the_same_at_every_brightness(photons):
    image = 100 + 3 * np.random.default_rng(0).poisson(photons, SHAPE).astype(np.float32)
    found = _of_photons(3.0, 100.0, 5.0).apply(image)
    assert found.std() == pytest.approx(0.05, rel=0.03)


def test_read_noise_counts_as_light():
    scaling = _of_photons(2.0, 100.0, 7.0, read_noise=6.0)
    assert scaling.background == pytest.approx(7 + (6 / 2) ** 2)
    rng = np.random.default_rng(0)
    image = 100 + 2 * rng.poisson(7.0, SHAPE) + rng.normal(0, 6.0, SHAPE)
    assert scaling.apply(image.astype(np.float32)).std() == pytest.approx(0.05, rel=0.05)


def test_structures_of_unknown_noise_count_as_bright():
    known, unknown = (_of_photons(scale=50.0, gain_from=word) for word in ("given", "assumed"))
    assert known.photons == pytest.approx(50)
    assert unknown.photons == pytest.approx(3000)


def test_the_roots_of_tensors_are_those_of_arrays():
    scaling = _of_photons(background=12.0)
    photons = torch.linspace(0, 800, 50)
    background = torch.tensor(12.0)
    there = root_of_photons(photons, background)
    np.testing.assert_allclose(there, scaling.apply(photons.numpy() + 12), atol=1e-5)
    torch.testing.assert_close(photons_of_root(there, background), photons, rtol=1e-4, atol=1e-3)
