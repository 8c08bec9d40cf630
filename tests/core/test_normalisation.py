"""The affine map: known brightnesses, there and back, and units that do not matter."""

import numpy as np
import phantoms
import pytest

from napari_rln.core.brightness import brightness
from napari_rln.core.errors import RlnError
from napari_rln.networks.normalisation import HIGH, LOW, Normalisation

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
