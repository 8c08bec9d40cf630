"""The best number of iterations, told from a few estimates: interpolation, statistics, truth."""

import math

import numpy as np
import phantoms
import pytest
import torch
from scipy.ndimage import gaussian_filter
from scipy.signal import fftconvolve

from napari_rln.core.errors import RlnError
from napari_rln.deconvolution.calibration import Calibration, Camera, calibrate
from napari_rln.deconvolution.ladder import (
    AROUND,
    COUNTS,
    MOST,
    STATISTICS,
    STOP,
    Ladder,
    StopPrediction,
    between,
    statistics,
)
from napari_rln.deconvolution.prepared_view import PreparedView
from napari_rln.deconvolution.settings import RichardsonLucySettings, start_iteration
from napari_rln.simulate.imaging import ImagingSettings, simulate_pair

PSF = phantoms.gaussian_psf()
SHAPE = (12, 14, 16)
MEAN, CHANGES, CORRELATIONS, DEVIANCES = 2, slice(3, 6), slice(6, 15), slice(15, 18)


def _flat(value) -> np.ndarray:
    return np.full(SHAPE, value, np.float32)


def _constant(logarithm) -> StopPrediction:
    """Return a prediction that is the same of every image."""
    return StopPrediction((*[0.0] * (2 * STATISTICS), logarithm))


def _run(view, iterations=COUNTS[-1]):
    run = start_iteration([view], RichardsonLucySettings(), torch.device("cpu"), marks=COUNTS)
    while run.done < iterations:
        run.step(measure=False)
    return run


# Between estimates


def test_at_a_count_it_is_the_estimate_there():
    estimates = [_flat(v) for v in (3, 7, 5)]
    for count, estimate in zip((6, 12, 48), estimates, strict=True):
        np.testing.assert_allclose(between(estimates, (6, 12, 48), count), estimate, rtol=1e-6)


def test_between_counts_it_is_linear_in_the_logarithm():
    estimates = [_flat(v) for v in (3, 7, 5)]
    middle = between(estimates, (6, 12, 48), math.sqrt(6 * 12))
    np.testing.assert_allclose(middle, _flat(5), rtol=1e-6)
    np.testing.assert_allclose(between(estimates, (6, 12, 48), 24), _flat(6), rtol=1e-6)
    assert middle.dtype == np.float32


@pytest.mark.parametrize(("iterations", "value"), [(1, 3), (5.9, 3), (48.1, 5), (1000, 5)])
def test_outside_of_the_counts_it_is_the_first_or_the_last(iterations, value):
    estimates = [_flat(v) for v in (3, 7, 5)]
    np.testing.assert_array_equal(between(estimates, (6, 12, 48), iterations), _flat(value))


def test_candidates_are_those_around_the_best_number():
    ladder = Ladder(STOP, 2.0)
    estimates = {count: _flat(math.log(count)) for count in (*COUNTS, 60)}
    candidates = ladder.around(estimates, 30.0)
    assert len(candidates) == ladder.estimates
    numbers = [factor * 30 for factor in (*AROUND, 2.0)]
    for found, number in zip(candidates, numbers, strict=True):
        np.testing.assert_allclose(found, math.log(number), rtol=1e-5)


@pytest.mark.parametrize(
    ("best", "expected"), [(60.0, 84), (34.0, 48), (17.3, 48), (10.0, 24), (8.0, 12), (2.0, 6)]
)
def test_iterations_reach_beyond_the_best_at_one_of_the_counts(best, expected):
    ladder = Ladder(STOP, 1.4)
    assert ladder.iterations(best) == expected
    # Further estimates change none of those around it.
    estimates = {count: _flat(float(count)) for count in COUNTS if count <= expected}
    more = estimates | {count: _flat(float(count)) for count in COUNTS}
    if expected in COUNTS:
        np.testing.assert_array_equal(ladder.around(estimates, best), ladder.around(more, best))


# Statistics


def _statistics_of(light, changes, photons=100.0, background=3.0):
    """Return the statistics of estimates that differ by these changes."""
    estimates = [light]
    for change in changes:
        estimates.append(estimates[-1] + change)
    return statistics(light, estimates, (9.0, 4.0, 2.0, 1.0), photons, background)


def _noise(seed, size=SHAPE):
    return np.random.default_rng(seed).normal(0, 0.1, size).astype(np.float32)


def test_a_factor_on_the_image_changes_its_mean_alone():
    light = phantoms.spots(SHAPE, level=1.0)
    changes = [_noise(seed) for seed in range(3)]
    one = _statistics_of(light, changes)
    other = _statistics_of(8 * light, [8 * change for change in changes])
    assert one.shape == (STATISTICS,)
    expected = one.copy()
    expected[MEAN] += math.log(8)
    np.testing.assert_allclose(other, expected, rtol=1e-5, atol=1e-5)


def test_known_changes_are_told_by_their_size_relative_to_the_first_estimate():
    found = _statistics_of(_flat(2), [_flat(1), _flat(0.5), _flat(0)])
    np.testing.assert_allclose(found[:3], np.log([100, 3.1, 200]), rtol=1e-6)
    np.testing.assert_allclose(found[CHANGES][:2], np.log([0.5, 0.25]), rtol=1e-6)
    np.testing.assert_allclose(found[DEVIANCES], np.log([4, 2, 1]), rtol=1e-6)
    assert np.isfinite(found).all()  # also of estimates that no longer change


def test_smooth_changes_correlate_and_noise_does_not():
    size = (24, 24, 24)
    smooth = gaussian_filter(_noise(0, size), 4).astype(np.float32)
    white = _noise(1, size)
    alternating = white - np.roll(white, 1, axis=2)
    light = phantoms.spots(size, level=1.0)
    found = _statistics_of(light, [smooth, white, alternating])[CORRELATIONS].reshape(3, 3)
    assert (found[0] > 0.9).all()
    np.testing.assert_allclose(found[1], 0, atol=0.04)
    np.testing.assert_allclose(found[2], [0, 0, -0.5], atol=0.04)


def test_a_plane_has_statistics_too():
    found = _statistics_of(_flat(1)[:1], [_flat(0.5)[:1]] * 3)
    assert np.isfinite(found).all()
    assert found[CORRELATIONS][0] == 0


# Prediction


@pytest.mark.parametrize(
    ("logarithm", "number"),
    [(-50.0, COUNTS[0]), (math.log(20), 20), (50.0, MOST)],
)
def test_a_prediction_stays_within_its_limits(logarithm, number):
    found = _statistics_of(_flat(1), [_flat(v) for v in (1, 2, 3)])
    assert _constant(logarithm)(found) == pytest.approx(number)


def test_a_prediction_is_a_polynomial_of_the_statistics():
    rng = np.random.default_rng(0)
    first, second = rng.normal(0, 0.1, (2, STATISTICS))
    found = _statistics_of(phantoms.spots(SHAPE, level=1.0), [_noise(seed) for seed in range(3)])
    logarithm = first @ found + second @ found**2
    constant = math.log(20) - logarithm
    assert StopPrediction((*first, *second, constant))(found) == pytest.approx(20)


@pytest.mark.parametrize(
    "weights",
    [
        (1.0,) * (2 * STATISTICS),
        (1.0,) * (2 * STATISTICS + 2),
        (),
        (*[1.0] * (2 * STATISTICS), math.nan),
        (math.inf, *[1.0] * (2 * STATISTICS)),
    ],
    ids=["too few", "too many", "none", "nan", "infinite"],
)
def test_weights_of_another_number_or_not_finite_are_refused(weights):
    with pytest.raises(RlnError, match=f"{2 * STATISTICS + 1} finite weights"):
        StopPrediction(weights)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_prediction_is_near_the_best_by_ground_truth_and_rises_with_light(seed):
    predicted = []
    for photons in (30.0, 300.0, 3000.0):
        imaging = ImagingSettings(
            photons=(photons, photons), background=(0.05, 0.05), read_noise=(0.0, 0.0)
        )
        pair = simulate_pair(PSF, imaging=imaging, shape=(32, 32, 32), seed=seed)
        view = PreparedView(image=pair.image, psf=PSF, calibration=calibrate(pair.image))
        run = _run(view)
        predicted.append(Ladder(STOP, 1.0).predict(view, run))
        again, errors = _run(view, 0), []
        while len(errors) < MOST:
            again.step(measure=False)
            errors.append(phantoms.nrmse(again.estimate(), pair.truth.data))
        best = 1 + int(np.argmin(errors))
        assert 0.5 < predicted[-1] / best < 2
    assert predicted[0] < predicted[2]


def test_the_deviances_kept_are_those_of_the_blurred_estimates():
    image = phantoms.noisy_image(phantoms.spots((16, 16, 16), level=300.0), PSF)
    view = PreparedView(image=image, psf=PSF, calibration=Calibration(background=10.0))
    counts = np.maximum(image.data.astype(float), 1e-9)
    for count in COUNTS:
        run = _run(view, count)
        model = fftconvolve(run.kept[count].astype(float), PSF.data, mode="same").clip(0)
        model += run.outside() + 10
        expected = 2 * (counts * np.log(counts / model) - image.data + model).mean()
        assert run.deviances[count] == pytest.approx(expected, rel=1e-3)
    assert tuple(run.kept) == tuple(run.deviances) == COUNTS
    assert sorted(run.deviances.values(), reverse=True) == list(run.deviances.values())


def test_marks_do_not_change_a_run():
    image = phantoms.noisy_image(phantoms.spots((16, 16, 16), level=300.0), PSF)
    view = PreparedView(image=image, psf=PSF, calibration=Calibration(background=10.0))
    plain = start_iteration([view], RichardsonLucySettings(), torch.device("cpu"))
    while plain.done < COUNTS[-1]:
        plain.step(measure=False)
    np.testing.assert_array_equal(_run(view).estimate(), plain.estimate())


def test_units_of_the_image_do_not_change_the_prediction():
    image = phantoms.noisy_image(phantoms.spots((24, 24, 24), level=300.0), PSF)
    found = []
    for unit in (1.0, 7.0):
        calibration = Calibration(camera=Camera(gain=unit, offset=0.0), background=10 * unit)
        view = PreparedView(
            image=image.with_data(unit * image.data), psf=PSF, calibration=calibration
        )
        found.append(Ladder(STOP, 1.0).predict(view, _run(view)))
    assert COUNTS[0] < found[0] < MOST
    assert found[1] == pytest.approx(found[0], rel=1e-3)


def test_without_photon_noise_the_number_is_the_largest():
    image = phantoms.noisy_image(phantoms.spots((16, 16, 16), level=300.0), PSF)
    known = Calibration(camera=Camera(), background=10.0)
    view = PreparedView(image=image, psf=PSF, calibration=known)
    run = _run(view)
    assert Ladder(_constant(math.log(20)), 1.5).predict(view, run) == pytest.approx(20)
    assert Ladder(_constant(math.log(90)), 1.5).predict(view, run) == MOST / 1.5
    assumed = Calibration(camera=Camera(gain_from="assumed"), background=10.0)
    view = PreparedView(image=image, psf=PSF, calibration=assumed)
    ladder = Ladder(_constant(math.log(20)), 1.5)
    best = ladder.predict(view, run)
    assert best == MOST / 1.5
    assert ladder.iterations(best) == MOST
