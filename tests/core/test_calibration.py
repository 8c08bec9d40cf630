"""Photons: what an offset, a gain, bad voxels and filled-in ones must not do to a result."""

import dataclasses
import json

import numpy as np
import phantoms
import pytest
from scipy.ndimage import binary_dilation
from scipy.signal import fftconvolve

from napari_rln.core.errors import RlnError, RlnWarning
from napari_rln.core.volume import Volume
from napari_rln.deconvolution.calibration import (
    Calibration,
    Camera,
    UserCalibration,
    calibrate,
    prepare_image,
)
from napari_rln.deconvolution.classical import RichardsonLucy
from napari_rln.deconvolution.noise_spectrum import Spectrum
from napari_rln.deconvolution.unmeasured_voxels import Levels
from napari_rln.engine.in_memory import deconvolve
from napari_rln.networks.network import Network

PSF = phantoms.gaussian_psf((9, 9, 9), (1.6, 1.2, 1.2))
CPU = RichardsonLucy(device="cpu")


def _volume(data, name="image"):
    return Volume.from_array(data, PSF.voxel_um, name=name)


def _error(result, truth):
    """Return the relative error after the best scale."""
    scale = np.vdot(result, truth) / np.vdot(result, result)
    return np.linalg.norm(scale * result - truth) / np.linalg.norm(truth)


@pytest.fixture(scope="module")
def scene():
    """Return an object and photons of it, with read noise, over a background of 5."""
    truth = phantoms.spots((20, 40, 44), seed=2, level=4000.0)
    rng = np.random.default_rng(0)
    mean = fftconvolve(truth, PSF.data, mode="same").clip(0) + 5
    return truth, np.round(rng.poisson(mean) + rng.normal(0, 2, mean.shape))


def test_photons_have_a_variance_of_their_mean():
    camera = Camera(offset=100.0, gain=2.0, read_noise=3.0)
    mean = np.linspace(5, 50, 4096)
    rng = np.random.default_rng(1)
    taken = [2.0 * rng.poisson(mean) + rng.normal(100, 3.0, mean.shape) for _ in range(200)]
    photons = np.stack([camera.photons(values) for values in taken])
    assert photons.mean() == pytest.approx(mean.mean() + (3 / 2) ** 2, rel=0.01)
    assert photons.var(axis=0).mean() == pytest.approx(photons.mean(), rel=0.03)


def test_photons_are_never_negative():
    assert Camera(offset=100.0).photons([50.0, 150.0]).tolist() == [0, 50]


def test_an_offset_changes_no_result(scene):
    truth, light = scene
    results = {}
    for offset in (10, 500, 32768):
        result = deconvolve(_volume((light + offset).astype(np.uint16)), PSF, CPU)
        results[offset] = result
        camera = result.record.facts["camera"]
        assert camera["offset_from"] == camera["gain_from"] == "estimated"
        assert offset - 12 < camera["offset"] <= offset + np.quantile(light, 1e-3)
    first = results[10]
    for result in results.values():
        assert result.record.facts["iterations"] == first.record.facts["iterations"]
        assert _error(result.data, truth) == pytest.approx(_error(first.data, truth), rel=0.01)
        assert result.data.sum() == pytest.approx(first.data.sum(), rel=0.01)


def test_an_offset_changes_no_result_of_a_network(scene):
    truth, light = scene
    near, far = (
        deconvolve(_volume(light + offset), PSF, Network(device="cpu")) for offset in (10, 32768)
    )
    assert _error(far.data, truth) == pytest.approx(_error(near.data, truth), rel=0.01)


def test_the_unit_of_an_image_changes_nothing_but_that_of_the_result(scene):
    _, light = scene
    one = deconvolve(_volume(light + 10), PSF, CPU)
    small = deconvolve(_volume((light + 10) / 65535), PSF, CPU)
    np.testing.assert_allclose(small.data * 65535, one.data, rtol=1e-2, atol=0.5)


def test_a_known_camera_is_taken_and_recorded(scene):
    _, light = scene
    image = _volume(3.0 * light + 100)
    found = calibrate(image, UserCalibration(offset=100.0, gain=3.0))
    assert (found.camera.offset, found.camera.gain) == (100, 3)
    assert (found.camera.offset_from, found.camera.gain_from) == ("given", "given")
    assert found.camera.read_noise == pytest.approx(6, rel=0.35)
    settings = dataclasses.replace(CPU, offset=100.0, gain=3.0, iterations=3)
    facts = deconvolve(image, PSF, settings).record.facts
    assert facts["camera"]["offset"] == 100


@pytest.mark.parametrize("gain", [0.99, 1.01])
def test_a_gain_that_is_a_little_wrong_does_not_shift_a_result_over_a_large_offset(scene, gain):
    truth, light = scene
    image = _volume(light + 32768)
    right, wrong = (
        deconvolve(image, PSF, dataclasses.replace(CPU, gain=g, iterations=20)) for g in (1, gain)
    )
    assert _error(wrong.data, truth) == pytest.approx(_error(right.data, truth), rel=0.02)


def test_an_image_without_noise_is_deconvolved_all_the_same():
    truth = phantoms.spots((12, 24, 24), seed=1, level=300.0)
    clean = fftconvolve(truth, PSF.data, mode="same").clip(0) / 300 + 0.1
    image = _volume(clean.astype(np.float32))
    result = deconvolve(image, PSF, dataclasses.replace(CPU, max_iterations=20))
    camera = result.record.facts["camera"]
    assert camera["offset_from"] == camera["gain_from"] == "assumed"
    assert camera["gain"] == 1
    assert result.record.facts["iterations"] == 20
    assert _error(result.data, truth) < 0.7 * _error(image.data - 0.1, truth)


def test_a_background_above_the_image_is_refused(scene):
    _, light = scene
    with pytest.raises(RlnError, match=r"background.*1e\+06"):
        calibrate(_volume(light), UserCalibration(background=1e6))


def test_hot_voxels_are_repaired_and_told(scene):
    truth, light = scene
    rng = np.random.default_rng(4)
    hot = np.zeros(light.shape, bool)
    hot[tuple(rng.integers(0, n, 12) for n in light.shape)] = True
    clean, spoilt = _volume(light + 100), _volume(np.where(hot, 4000, light + 100))
    expected = deconvolve(clean, PSF, CPU)
    with pytest.warns(RlnWarning, match=r"isolated hot voxels.*1 in "):
        result = deconvolve(spoilt, PSF, CPU)
    assert result.record.facts["defects"]
    assert result.record.facts["camera"]["gain"] == pytest.approx(
        expected.record.facts["camera"]["gain"], rel=0.1
    )
    away = ~binary_dilation(hot, iterations=3)
    errors = [_error(found.data[away], truth[away]) for found in (result, expected)]
    assert errors[0] < 1.05 * errors[1]
    left = deconvolve(spoilt, PSF, dataclasses.replace(CPU, repair_image=False, iterations=10))
    assert _error(left.data, truth) > 1.5 * _error(expected.data, truth)


def test_voxels_that_were_filled_in_are_left_out():
    truth = phantoms.spots((24, 64, 64), seed=5, level=3000.0)
    mean = fftconvolve(truth, PSF.data, mode="same").clip(0) + 5
    rng = np.random.default_rng(0)
    whole = (rng.poisson(mean) + 100).astype(np.float32)
    z, _, x = np.indices(whole.shape)
    inside = (x - z > 2) & (x - z < 42)
    dark = rng.poisson(5, whole.shape) + 100
    filled = deconvolve(_volume(np.where(inside, whole, dark)), PSF, CPU)
    with pytest.warns(RlnWarning, match="filled"):
        sheared = deconvolve(_volume(np.where(inside, whole, 0)), PSF, CPU)
    assert sheared.record.facts["background"] == pytest.approx(105, abs=2)
    core = (x - z > 8) & (x - z < 36)
    errors = [_error(result.data * core, truth * core) for result in (sheared, filled)]
    assert errors[0] < 1.1 * errors[1]
    rim = inside & ~core
    assert sheared.data[rim].sum() == pytest.approx(filled.data[rim].sum(), rel=0.25)


def test_a_calibration_goes_through_json():
    found = Calibration(
        camera=Camera(offset=98.5, gain=0.5, read_noise=1.5, gain_from="estimated"),
        background=101.0,
        background_warning="structure everywhere",
        levels=Levels(saturation=4095.0),
        planes=(3, 7),
        spectrum=Spectrum(correlations=((0.5, 0.1), (), (0.25,))),
    )
    assert Calibration.from_json(json.loads(json.dumps(found.as_json()))) == found


def test_views_in_one_unit_keep_their_zeros():
    camera = Camera(offset=100.0, gain=2.0, read_noise=4.0)
    other = camera.in_units_of(0.5)
    assert (other.zero, other.gain) == (camera.zero, 0.5)
    np.testing.assert_allclose(other.photons([150.0]), 4 * camera.photons([150.0]))


def test_a_clean_image_is_passed_on_as_it_is(scene):
    _, light = scene
    image = _volume(light + 10)
    clean, seen, facts = prepare_image(image, PSF, calibrate(image))
    assert clean is image
    assert seen is None
    assert facts == {}
