"""A network's output is held to what the image shows: light, darkness, bright points, detail."""

import json
import time
from dataclasses import asdict, replace

import numpy as np
import phantoms
import pytest
import torch
from scipy.ndimage import gaussian_filter
from scipy.signal import fftconvolve

import napari_rln as rln
from napari_rln.core.generators import finish
from napari_rln.core.metrics import psnr
from napari_rln.core.volume import Volume
from napari_rln.deconvolution.calibration import calibrate
from napari_rln.deconvolution.classical import RichardsonLucy
from napari_rln.deconvolution.prepared_view import PreparedView
from napari_rln.deconvolution.stopping_trial import find_iterations
from napari_rln.networks.data_consistency import Consistency, Merge
from napari_rln.simulate.imaging import ImagingSettings, simulate_pair
from napari_rln.simulate.structures import StructureSettings

PSF = phantoms.gaussian_psf((11, 9, 9), (2.0, 1.2, 1.2))
CPU = torch.device("cpu")
RLD = RichardsonLucy(device="cpu")
RLN = rln.Network(device="cpu")


def _image(truth, psf=PSF, photons=100.0, seed=0):
    light = fftconvolve(truth, psf.data, mode="same").clip(0)
    light *= photons / np.percentile(light, 99.9)
    counts = np.random.default_rng(seed).poisson(light + 10.0) + 100.0
    return Volume.from_array(counts, psf.voxel_um, name="image")


def _trial(image, psf=PSF):
    calibration = calibrate(image)
    view = PreparedView(image=image, psf=psf, calibration=calibration)
    return finish(find_iterations(view, RLD, CPU, time.perf_counter())).trial


@pytest.fixture(scope="module")
def trial():
    return _trial(_image(phantoms.spots((24, 48, 48))))


def test_no_light_comes_where_the_estimate_is_dark():
    estimate = np.zeros((16, 24, 24), np.float32)
    estimate[4:8, 4:8, 4:8] = 10
    output = np.full_like(estimate, 3.0)
    found = Merge(Consistency())(output, estimate, 10.0)
    assert found[4:8, 4:8, 4:8] == pytest.approx(3.0)
    assert not found[12:, 12:, 12:].any()
    assert found.sum() < 3 * 6**3  # as a shell of one voxel more at most


def test_an_isolated_bright_point_stays_as_the_estimate_has_it():
    estimate = np.full((40, 40, 40), 0.5, np.float32)
    estimate[20, 20, 20] = 50
    rng = np.random.default_rng(0)
    output = (0.4 * estimate + rng.random(estimate.shape) * 0.05).astype(np.float32)
    found = Merge(Consistency())(output, estimate, 1.0)
    near = np.s_[15:26, 15:26, 15:26]
    np.testing.assert_allclose(found[near], estimate[near], rtol=1e-5)
    np.testing.assert_array_equal(found[:5, :5, :5], output[:5, :5, :5])


@pytest.mark.parametrize(("brightness", "kept"), [(8.0, False), (20.0, True)])
def test_a_network_on_the_scale_of_the_square_root_shows_brighter_points(brightness, kept):
    estimate = np.full((40, 40, 40), 0.1, np.float32)
    estimate[20, 20, 20] = brightness
    output = 0.5 * estimate
    found = Merge(Consistency(), root=True)(output, estimate, 1.0)
    assert (found[20, 20, 20] == pytest.approx(brightness)) == kept
    assert (found[20, 20, 20] == pytest.approx(brightness / 2)) != kept


def test_what_is_bright_but_no_point_is_the_networks():
    estimate = np.full((40, 40, 40), 0.5, np.float32)
    estimate[:, 20, 20] = 6  # a line, not a point
    output = 0.8 * estimate
    np.testing.assert_allclose(Merge(Consistency())(output, estimate, 1.0), output)


def test_factors_multiply():
    estimate = phantoms.spots((16, 24, 24))
    found = Merge(Consistency(output=0.8, result=1.1))(estimate.copy(), estimate, 1e9)
    np.testing.assert_allclose(found, 0.88 * estimate, rtol=1e-5)


@pytest.mark.parametrize("shape", [(24, 32, 32), (7, 20, 33)])
def test_all_detail_of_the_estimate_is_the_estimate(shape):
    rng = np.random.default_rng(0)
    estimate, output = (rng.random(shape).astype(np.float32) for _ in range(2))
    found = Merge(Consistency(detail=(1.0, 1.0, 1.0)), PSF.data)(output, estimate, 1e9)
    np.testing.assert_allclose(found, estimate, atol=1e-4)


def test_detail_that_the_psf_passes_is_taken_and_other_detail_is_not():
    z = np.arange(64)
    slow, fast = (np.cos(2 * np.pi * z * f)[:, None, None] for f in (1 / 64, 0.4))
    level = np.ones((64, 16, 16), np.float32)
    estimate = (5 + 0 * slow) * level
    output = (5 + slow + fast) * level
    merge = Merge(Consistency(detail=(0.0, 0.0, 1.0)), PSF.data)
    found = merge(output.astype(np.float32), estimate.astype(np.float32), 1e9)
    left = (found - 5)[16:48]
    assert abs(np.vdot(left, (slow * level)[16:48])) < 0.25 * np.square((slow * level)[16:48]).sum()
    assert np.vdot(left, (fast * level)[16:48]) > 0.9 * np.square((fast * level)[16:48]).sum()


def test_it_can_be_kept_as_json():
    made = Consistency(output=0.9, detail=(0.1, 0.2, 0.3), result=1.02)
    assert Consistency.from_json(json.loads(json.dumps(asdict(made)))) == made


def test_a_network_that_is_too_dark_is_made_as_bright_as_the_image(trial):
    estimate = trial.run.estimate()
    found = Consistency.of(trial, estimate, 0.8 * estimate, 1e9)
    assert found.output == pytest.approx(1 / 0.8, rel=0.02)
    assert found.result == pytest.approx(1, abs=0.02)


def test_the_better_of_the_two_is_taken_for_detail(trial):
    truth = phantoms.spots((24, 48, 48))
    estimate = trial.run.estimate()
    bright = truth * np.float32(estimate.sum() / truth.sum())
    right = Consistency.of(trial, estimate, bright, 1e9)
    assert right.detail[-1] < 0.3
    blurred = gaussian_filter(estimate, 2.0)
    wrong = Consistency.of(trial, estimate, blurred, 1e9)
    assert wrong.detail[-1] > 0.9


def test_another_psf_decides_nothing_about_detail():
    truth = phantoms.spots((24, 48, 48), level=1.0)
    image = _image(truth, photons=2000.0)
    narrow = phantoms.gaussian_psf((11, 9, 9), (2.6, 1.7, 1.7))
    trial = _trial(image, narrow)
    estimate = trial.run.estimate()
    found = Consistency.of(trial, estimate, gaussian_filter(estimate, 2.0), 1e9)
    assert found.detail == (0.0, 0.0, 0.0)
    assert found.result == 1.0


@pytest.fixture(scope="module")
def optics():
    settings = rln.psf.MicroscopeSettings(
        na=1.2, immersion_index=1.333, wavelength_um=0.52, size=(25, 31, 31)
    )
    return rln.psf.compute_psf(settings, (0.25, 0.12, 0.12))


@pytest.mark.parametrize("photons", [100])
def test_a_network_is_no_worse_than_its_start_and_as_bright_as_the_image(optics, photons):
    structures = StructureSettings(structures=("filaments",), at_once=1, haze=0.0)
    imaging = ImagingSettings(photons=(photons, photons), background=(0.1, 0.1))
    pair = simulate_pair(optics, structures, imaging, shape=(32, 64, 64), seed=(1, photons))
    seen = {}
    for report in (steps := rln.deconvolve_iter(pair.image, optics, RLN)):
        if report.phase == "start":
            seen["start"] = report.estimate()
        if report.phase == "network":
            break
    steps.close()
    result = rln.deconvolve(pair.image, optics, RLN)
    scores = [psnr(data, pair.truth.data, fit=True) for data in (seen["start"], result.data)]
    assert scores[1] > scores[0] - 0.1
    assert result.record.facts["reblur_scale"] == pytest.approx(1, abs=0.03)
    assert set(result.record.facts["consistency"]) == {"output"}


@pytest.mark.parametrize("factor", [5, 20, 100])
def test_a_bright_bead_is_no_worse_than_after_as_many_iterations_of_rld(optics, factor):
    truth = phantoms.spots((32, 64, 64), seed=3, level=1.0).astype(np.float64)
    where = (16, 32, 32)
    truth[6:27, 22:43, 22:43] = 0
    truth[where] = 3 * factor * np.square(truth).sum() / truth.sum()
    light = fftconvolve(truth, optics.data, mode="same").clip(0)
    others = truth.copy()
    others[where] = 0
    scale = 100 / fftconvolve(others, optics.data, mode="same").max()
    light *= scale
    image = Volume.from_array(
        np.random.default_rng(0).poisson(light + 10.0) + 100.0, optics.voxel_um
    )
    result = rln.deconvolve(image, optics, RLN)
    iterations = round(RLN.loaded.start.beyond * result.record.facts["stop"])
    found = result.data
    rld = rln.deconvolve(image, optics, replace(RLD, iterations=iterations)).data
    assert found[where] > 0.95 * rld[where]
    core, around = np.s_[13:20, 30:35, 30:35], np.s_[8:25, 24:41, 24:41]
    amiss = [abs(data[core].sum() / (scale * truth[where]) - 1) for data in (found, rld)]
    assert amiss[0] < amiss[1] + 0.1
    # The faintest of them is partly the network's, which leaves somewhat more light beside it.
    allowed = (0.1 if factor < 10 else 0.02) * rld[core].sum()
    beside = [data[around].sum() - data[core].sum() for data in (found, rld)]
    assert beside[0] < 1.1 * beside[1] + allowed
