"""The stop: parts of independent noise, and an error that is the estimate's own."""

import itertools
import time
from dataclasses import replace

import numpy as np
import phantoms
import pytest
import torch
from scipy import ndimage, stats
from scipy.ndimage import shift
from scipy.signal import fftconvolve

from napari_rln.core.volume import Volume
from napari_rln.deconvolution.calibration import calibrate
from napari_rln.deconvolution.classical import RichardsonLucy
from napari_rln.deconvolution.noise import estimate_noise
from napari_rln.deconvolution.noise_spectrum import Spectrum
from napari_rln.deconvolution.prepared_view import PreparedView
from napari_rln.deconvolution.stopping import (
    DECONVOLVED_FRACTION,
    SplitPhotons,
    StoppingRule,
    structured_crop,
    structured_shape,
)
from napari_rln.deconvolution.stopping_trial import find_iterations
from napari_rln.engine.in_memory import deconvolve, deconvolve_iter

PSF = phantoms.gaussian_psf((9, 9, 9), (1.6, 1.2, 1.2)).data
WHITE = Spectrum()


def _split(photons, background=20.0, spectrum=WHITE, seed=0, **options):
    return SplitPhotons(photons.astype(np.float32), PSF, background, spectrum, seed, **options)


def _held_out(split, shape):
    """Return the unseen part less its background, as it fades towards the border."""
    return torch.fft.irfftn(split._held_out.view(*shape[:2], shape[2] // 2 + 1), s=shape).numpy()


def test_photons_go_to_one_part_or_the_other():
    photons = np.random.default_rng(0).poisson(20, (24, 64, 64))
    split = _split(photons)
    assert split.image.mean() == pytest.approx(DECONVOLVED_FRACTION * 20, rel=0.01)
    assert split.image.var() == pytest.approx(DECONVOLVED_FRACTION * 20, rel=0.03)
    assert split.background == pytest.approx(DECONVOLVED_FRACTION * 20)
    rest = _held_out(split, photons.shape)[8:-8, 8:-8, 8:-8]
    assert rest.var() == pytest.approx((1 - DECONVOLVED_FRACTION) * 20, rel=0.05)
    seen = split.image[8:-8, 8:-8, 8:-8]
    assert np.corrcoef(seen.ravel(), rest.ravel())[0, 1] == pytest.approx(0, abs=0.02)


def test_noise_that_neighbours_share_is_split_too():
    white = np.random.default_rng(0).poisson(200, (24, 64, 64)).astype(np.float64)
    mixed = shift(white, (0.5, 0, 0.5), order=1, mode="nearest")
    spectrum = Spectrum(correlations=((0.5,), (), (0.5,)))
    split = _split(mixed, background=200.0, spectrum=spectrum)
    rest = _held_out(split, mixed.shape)[8:-8, 8:-8, 8:-8]
    seen = split.image[8:-8, 8:-8, 8:-8]
    assert np.corrcoef(seen.ravel(), rest.ravel())[0, 1] == pytest.approx(0, abs=0.04)
    # By photons the two would share what the interpolation did.
    plain = _split(mixed, background=200.0)
    inner = (slice(8, -8),) * 3
    parts = plain.image[inner].ravel(), _held_out(plain, mixed.shape)[inner].ravel()
    shared = np.corrcoef(*parts)[0, 1]
    assert abs(shared) > 0.2


COUNTS = (0, 1, 2, 3, 5, 10, 30, 64, 65, 300)


@pytest.fixture(scope="module")
def parts():
    """Return, for numbers of photons, the part that 200,000 voxels with so many keep."""
    photons = np.empty((len(COUNTS), 400, 500))
    photons[:] = np.reshape(COUNTS, (-1, 1, 1))
    return dict(zip(COUNTS, _split(photons).image.reshape(len(COUNTS), -1), strict=True))


@pytest.mark.parametrize("count", COUNTS)
def test_a_part_holds_seven_tenths_of_few_photons_and_of_many(parts, count):
    part = parts[count]
    assert part.min() >= 0
    # A number between 0 and 1 that is added may be rounded to 1.
    assert (part > count).mean() < 1e-4
    deviation = np.sqrt(0.21 * count)  # 4 standard deviations of what chance does to each
    assert part.mean() == pytest.approx(0.7 * count, abs=4 * deviation / np.sqrt(part.size))
    # The Gaussian of many photons is rounded to whole ones, which adds a twelfth.
    variance = 0.21 * count + (1 / 12 if count > 64 else 0)
    assert part.var() == pytest.approx(variance, rel=0.015)


@pytest.mark.parametrize("count", COUNTS[1:8])
def test_few_photons_are_split_as_the_binomial_distribution_has_it(parts, count):
    outcomes = np.arange(count + 1)
    expected = stats.binom.pmf(outcomes, count, 0.7) * parts[count].size
    found = np.bincount(parts[count].astype(int).clip(max=count), minlength=count + 1)
    often = expected >= 10
    assert found[~often].sum() < 4 * max(expected[~often].sum(), 5)
    chi2 = ((found - expected)[often] ** 2 / expected[often]).sum()
    assert chi2 < stats.chi2.isf(1e-4, often.sum())


@pytest.mark.parametrize("light", [0.1, 0.5, 1.7, 12.3, 64.4, 64.9, 100.6])
def test_parts_of_photons_are_not_rounded_away(light):
    image = _split(np.full((4, 250, 400), light)).image
    deviation = np.sqrt(0.21 * light + 0.7**2 * 0.25)
    assert image.mean() == pytest.approx(0.7 * light, abs=4 * deviation / np.sqrt(image.size))


def test_what_becomes_of_a_voxel_is_independent_of_the_others():
    photons = np.random.default_rng(0).poisson(60, (8, 16, 16)).astype(np.float32)
    hot = photons.copy()
    hot[3, 4, 5], hot[3, 4, 7] = 5000, 0
    same = np.ones(photons.shape, bool)
    same[3, 4, [5, 7]] = False
    np.testing.assert_array_equal(_split(hot).image[same], _split(photons).image[same])


def test_noise_is_added_to_one_part_and_taken_larger_from_the_other():
    spectrum = Spectrum(correlations=((), (), (0.5,)))
    photons = np.full((24, 24, 24), 200.0)
    split = _split(photons, background=0.0, spectrum=spectrum)
    inside = (slice(4, -4),) * 3
    added = (split.image - photons)[inside]
    taken = (photons - _held_out(split, photons.shape))[inside]
    # Times 3/7, so that the parts' noise is that of 7/10 and 3/10 of the photons.
    np.testing.assert_allclose(added, taken * 3 / 7, atol=0.01)
    assert added.var() == pytest.approx(3 / 7 * 200 * spectrum.variance_ratio, rel=0.1)


def test_no_part_to_deconvolve_is_negative():
    photons = np.random.default_rng(0).poisson(1, (8, 24, 24))
    image = _split(photons, spectrum=Spectrum(correlations=((), (), (0.5,)))).image
    assert image.min() == 0


def test_the_noise_that_is_added_is_that_of_the_three_voxels_around():
    spectrum = Spectrum(correlations=((), (), (0.5,)))
    photons = np.zeros((16, 16, 16))
    photons[8] = 300
    moved = np.abs(_split(photons, background=0.0, spectrum=spectrum).image - photons)
    assert [int(z) for z in np.flatnonzero(moved.max((1, 2)) > 1e-2)] == [7, 8, 9]


def test_the_seed_decides():
    photons = np.random.default_rng(0).poisson(20, (8, 16, 16))
    one, same, other = (_split(photons, seed=seed).image for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, same)
    assert (one != other).mean() > 0.5


def _weights(shape):
    """Return the sharpening of all frequencies, 0 of the constant; and what the PSF passes."""
    whole = np.zeros(shape)
    whole[tuple(slice(n) for n in PSF.shape)] = PSF
    passed = np.abs(np.fft.fftn(whole))
    passed /= passed.max()
    weight = (passed / (passed**2 + 1e-3)) ** 2
    weight[0, 0, 0] = 0
    return weight, passed


def _fades(shape):
    """Return a window that fades over four voxels at the ends of axes of 16 or more."""
    window = np.ones(shape)
    for axis, n in enumerate(shape):
        if n >= 16:
            along = np.ones(n)
            along[:4] = along[-1:-5:-1] = 1 / 8, 3 / 8, 5 / 8, 7 / 8
            window *= along.reshape([n if a == axis else 1 for a in range(3)])
    return window


@pytest.mark.parametrize("shape", [(15, 16, 17), (17, 15, 20)])
@pytest.mark.parametrize("correlated", [False, True])
def test_the_error_by_hand(shape, correlated):
    rng = np.random.default_rng(4)
    photons = rng.poisson(100, shape).astype(np.float64)
    seen = rng.random(shape) > 0.1
    spectrum = Spectrum(correlations=((), (), (0.4,))) if correlated else WHITE
    split = _split(photons, background=30.0, spectrum=spectrum, mask=seen)
    expected = rng.uniform(50, 90, shape)
    if correlated:
        unseen = photons - (split.image - photons) * 7 / 3
        unseen, expected_background, variance = unseen - 30, 30, 10 / 3
        along = np.arange(shape[2]) * 2 * np.pi / shape[2]
        powers = 1 + 0.8 * np.cos(along)
        powers /= powers[0]
        rest = 1.0
    else:
        unseen, expected_background, variance = photons - split.image - 9, 21, 0.3
        powers, rest = 1.0, 3 / 7
    weight, _ = _weights(shape)
    window = _fades(shape) * seen
    there = np.fft.fftn(unseen * window)
    ours = rest * np.fft.fftn((expected - expected_background) * window)

    def product(one, other):
        return (weight * (one * other.conj()).real).sum()

    left = product(there, there) - product(there, ours) ** 2 / product(ours, ours)
    noise = variance * (window**2 * photons).sum() * (weight * powers).sum()
    found = split.error(torch.from_numpy(expected.astype(np.float32)), 0.0)
    assert found == pytest.approx(left / noise, rel=1e-4)


def test_a_comparison_of_two_estimates_by_hand():
    shape, rng = (15, 16, 17), np.random.default_rng(6)
    photons = rng.poisson(100, shape).astype(np.float64)
    split = _split(photons, background=30.0)
    one, other = (rng.uniform(40, 60, shape) for _ in range(2))
    one += 0.3 * (photons - 80)  # better than the other by far, not the whole way
    outside = rng.uniform(0, 4, shape)
    weight, passed = _weights(shape)
    window = _fades(shape)
    unseen = np.fft.fftn((photons - split.image - 9) * window)
    first, second = (3 / 7 * np.fft.fftn((v + outside) * window) for v in (one, other))
    noise = 0.3 * (window**2 * photons).sum() * weight.sum()
    blurred = (torch.from_numpy(v.astype(np.float32)) for v in (one, other, outside))
    error, fractions = split.compare(*blurred)
    missing = (weight * np.abs(unseen - first) ** 2).sum()
    assert error == pytest.approx(missing / noise, rel=1e-4)
    shares = []
    for low, high in ((0.03, 0.1), (0.1, 0.3), (0.3, 1.1)):
        band = weight * ((passed >= low) & (passed < high))
        gained = first - second
        common = (band * ((unseen - second) * gained.conj()).real).sum()
        shares.append(common / (band * np.abs(gained) ** 2).sum())
    assert all(0 < share < 1 for share in shares)
    assert fractions == pytest.approx(shares, rel=1e-3)
    # Half of the way to the better one, or the way back, asks for more than all or less than none.
    halfway, none = (one + other) / 2, np.zeros(shape)
    short, back, same = (
        split.compare(*(torch.from_numpy(v.astype(np.float32)) for v in (*pair, outside)))[1]
        for pair in ((halfway, other), (other, halfway), (none, none))
    )
    assert short == pytest.approx([min(2 * share, 1) for share in shares], rel=1e-3)
    assert back == pytest.approx([max(1 - 2 * share, 0) for share in shares], abs=1e-3)
    assert max(short) == 1
    assert min(back) == 0
    assert same == (0, 0, 0)


def test_the_scale_is_that_of_a_weighted_fit_to_all_photons():
    shape, rng = (8, 12, 12), np.random.default_rng(7)
    photons = rng.poisson(100, shape).astype(np.float32)
    seen = rng.random(shape) > 0.2
    photons[~seen] = 1e4
    split = _split(photons, background=20.0, mask=seen)
    own, outside = rng.uniform(0, 90, shape), rng.uniform(0, 5, shape)
    own[0] = 0
    outside[0] = 0
    level, x, beyond = 20.0, own / 0.7, outside / 0.7
    variance = x + beyond + level
    weight = seen / np.maximum(variance, 0.05 * variance.mean())
    expected = (weight * x * (photons - level - beyond)).sum() / (weight * x * x).sum()
    found = split.scale(*(torch.from_numpy(v) for v in (own, outside)))
    assert found == pytest.approx(expected, rel=1e-5)
    assert split.scale(torch.zeros(shape), torch.zeros(shape)) == 1


def test_dark_voxels_do_not_rule_the_scale():
    photons = np.full((4, 10, 10), 100.0, np.float32)
    split = _split(photons, background=0.0)
    x = np.full(photons.shape, 100.0)
    x[:2] = 1.0
    found = split.scale(torch.from_numpy(0.7 * x), torch.zeros(x.shape))
    # The dark half weighs by a twentieth of the mean of 50.5, not by its own variance of 1.
    assert found == pytest.approx((100 / 2.525 + 100) / (1 / 2.525 + 100), rel=1e-6)


@pytest.mark.parametrize("share", [0.0, 0.5])
def test_the_truth_leaves_nothing_but_noise(share):
    truth = phantoms.spots((24, 48, 48), seed=3, level=900.0)
    light = fftconvolve(truth, PSF, mode="same").clip(0)
    photons = np.random.default_rng(1).poisson(light + 20).astype(np.float64)
    spectrum = WHITE
    if share:
        light, photons = (shift(v, (0, 0, 0.5), order=1, mode="nearest") for v in (light, photons))
        spectrum = Spectrum(correlations=((), (), (share,)))
    split = _split(photons, spectrum=spectrum)
    expected = torch.from_numpy((split.deconvolved_fraction * (light + 20)).astype(np.float32))
    assert split.error(expected, 0.0) == pytest.approx(1, abs=0.1)
    # A factor is no error, another shape is.
    brighter = split.deconvolved_fraction * (1.3 * light + 20)
    assert split.error(torch.from_numpy(brighter.astype(np.float32)), 0.0) == pytest.approx(
        split.error(expected, 0.0), rel=1e-3
    )
    moved = np.roll(light, 3, axis=2)
    wrong = torch.from_numpy((split.deconvolved_fraction * (moved + 20)).astype(np.float32))
    assert split.error(wrong, 0.0) > 1.3


def test_what_the_estimate_predicts_is_had_from_the_points_beyond_it():
    rng = np.random.default_rng(2)
    photons = rng.poisson(50, (8, 16, 16))
    before, now = (torch.from_numpy(rng.uniform(20, 60, photons.shape).astype(np.float32))
                   for _ in range(2))  # fmt: skip
    direct, derived = _split(photons), _split(photons)
    direct.error(before, 0.0)
    derived.error(before, 0.0)
    beyond = now + 0.7 * (now - before)
    assert derived.error(beyond, 0.7) == pytest.approx(direct.error(now, 0.0), rel=1e-4)


def test_voxels_that_were_not_seen_are_not_judged_by():
    photons = np.random.default_rng(3).poisson(50, (8, 16, 16)).astype(np.float32)
    seen = np.ones(photons.shape, bool)
    seen[:, :, :4] = False
    spoilt = photons.copy()
    spoilt[~seen] = 5000
    flat = torch.full(photons.shape, 35.0)
    clean, kept = (_split(p, background=50.0, mask=seen) for p in (photons, spoilt))
    assert kept.error(flat, 0.0) == pytest.approx(clean.error(flat, 0.0), rel=0.2)


def _followed(errors):
    """Return the iteration that a watch names, and how many it wanted to see."""
    watch = StoppingRule()
    for seen, error in enumerate(errors, start=1):
        if watch.add(float(error)):
            return watch.iteration, seen
    return watch.iteration, None


def test_worse_predictions_end_the_search_at_the_best():
    best, seen = _followed(1 + 1e-4 * (np.arange(1, 101) - 20.0) ** 2)
    assert best == 20
    assert 21 < seen < 35


def test_one_bad_prediction_does_not_end_the_search():
    errors = 1 + 1e-4 * (np.arange(1, 101) - 30.0) ** 2
    errors[10] += 0.05
    assert _followed(errors)[0] == 30


def test_gains_that_are_nothing_end_the_search():
    best, seen = _followed(1 + np.exp(-0.5 * np.arange(100)))
    assert best == seen < 40


def test_what_noise_cannot_explain_is_not_followed_for_ever():
    # A PSF unlike the microscope's: predictions get better, slower and slower, never right.
    slow = 1 / np.arange(1, 201)
    assert _followed(1 + 0.05 * slow)[1] > 1.5 * _followed(50 + 50 * slow)[1]


def test_unmatched_back_projectors_may_overshoot_for_eight_iterations():
    best = [5, 4, 2]
    worse = [2.1, 2.2, 2.3, 2.4, 2.5, 2.6, 2.7, 2.8]
    assert _followed([*best, *worse, 1.0])[0] == 12
    assert _followed([*best, *worse, 2.9, 1.0]) == (3, 12)


def test_later_they_may_for_fifteen_per_cent_of_the_iterations():
    errors = [*np.arange(100.0, 0.0, -1), *np.arange(200.0, 250.0)]
    assert _followed(errors) == (100, 118)  # 18 is the first above 15 % of 118


def test_gains_are_means_over_a_tenth_of_the_iterations_and_at_least_three():
    falling = np.arange(600.0, 0.0, -10)
    for fall, window in ((10, 3), (50, 6)):
        assert _followed([*falling[:fall], *[falling[fall - 1]] * 30])[1] == fall + window
    assert _followed([2.0] * 20)[1] == 9  # the first beyond 5 and the 3 of a window


def test_what_gains_less_than_four_hundred_thousandths_of_all_has_settled():
    def settles(gain):
        return _followed([2.0, *(1.0 - gain * np.arange(40))])[1]

    assert settles(3.9e-5) == 9
    assert settles(4.1e-5) is None


def _falling(at_9, gain):
    """Return errors that fall by a gain each, after a first that is much higher."""
    errors = at_9 + gain * (9 - np.arange(1, 21))
    errors[0] += 10 * gain
    return errors


@pytest.mark.parametrize(
    ("error", "gain"),
    [(2.0, 0.05), (3.0, 0.1), (50.0, 0.15)],  # 5 % of what is above 1, and of at most 3
)
def test_what_gains_a_twentieth_of_the_unexplained_is_worth_another(error, gain):
    assert _followed(_falling(error, 0.98 * gain))[1] == 9
    assert _followed(_falling(error, 1.02 * gain))[1] != 9


def test_up_to_a_tenth_above_the_noise_everything_is_explained():
    assert _followed(_falling(1.102, 0.004))[1] == 9
    assert _followed(_falling(1.098, 0.004))[1] is None


@pytest.mark.parametrize(
    ("best", "hardly"),  # a 25th of what is above 1.01, and of at most 3
    [(1.0, 1.0), (1.01, 1.01), (1.05, 1.0516), (2.0, 2.0396), (50.0, 50.12)],
)
def test_the_first_that_is_hardly_worse_than_the_best_is_named(best, hardly):
    watch = StoppingRule()
    for error in (60.0, hardly + 2e-4, hardly - 2e-4 if hardly > best else best, best):
        watch.add(error)
    assert watch.iteration == 3
    assert watch.best == best


def test_errors_that_fall_faster_and_faster_do_not_end_the_search():
    """Sparse objects on a bright background appear slowly: an S-shaped curve, of 1.27 to 1.01."""
    errors = 1.01 + 0.26 / (1 + np.exp((np.arange(1, 101) - 17.0) / 5))
    best, seen = _followed(errors)
    assert best > 40
    assert seen is None or seen > 40


def test_a_watch_that_saw_nothing_names_none():
    assert StoppingRule().iteration == 0


@pytest.mark.parametrize(("best", "whole"), [(1.29, 1101), (1.31, 1000)])
def test_more_photons_bear_more_iterations_where_noise_is_the_limit(best, whole):
    watch = StoppingRule()
    for error in [9.0] * 999 + [best]:
        watch.add(error)
    split = _split(np.full((4, 16, 16), 20.0))
    assert split.whole(watch) == whole  # 1000 times (10 / 7) to the power of 0.27


def test_the_whole_image_takes_one_iteration_at_least():
    assert _split(np.full((4, 16, 16), 20.0)).whole(StoppingRule()) == 1


def _sought(image, psf, settings):
    """Return the reports of a search, and what it returns."""
    view = PreparedView(image=image, psf=psf, calibration=calibrate(image))
    steps = find_iterations(view, settings, torch.device("cpu"), time.perf_counter())
    reports = []
    while True:
        try:
            reports.append(next(steps))
        except StopIteration as end:
            return reports, end.value


@pytest.fixture(scope="module")
def noisy():
    psf = phantoms.comatic_psf((9, 9, 9))
    return phantoms.noisy_image(phantoms.spots((20, 36, 36), level=3000.0), psf), psf


@pytest.mark.parametrize("back_projector", ["matched", "gaussian", "wiener-butterworth"])
def test_a_report_tells_how_well_the_estimate_of_its_iteration_predicts(noisy, back_projector):
    image, psf = noisy
    settings = RichardsonLucy(
        back_projector=back_projector, border="periodic", acceleration="none", max_iterations=12
    )
    reports, stop = _sought(image, psf, settings)
    run, split = stop.trial.restart(), stop.trial.split
    unit = calibrate(image).camera.gain / split.deconvolved_fraction
    for report in itertools.islice(reports, 6):
        run.step()
        light = ndimage.convolve(run.estimate() / unit, psf.data, mode="wrap")
        expected = torch.from_numpy((light + split.background).astype(np.float32))
        assert report.held_out == pytest.approx(split.error(expected, 0.0), rel=2e-3)
    assert [report.done for report in reports] == list(range(1, len(reports) + 1))


@pytest.mark.parametrize("acceleration", ["none", "biggs-andrews"])
@pytest.mark.parametrize("back_projector", ["gaussian", "butterworth", "wiener-butterworth"])
def test_unmatched_back_projectors_stop_near_their_best(noisy, back_projector, acceleration):
    image, psf = noisy
    truth = phantoms.spots((20, 36, 36), level=3000.0)
    settings = RichardsonLucy(back_projector=back_projector, acceleration=acceleration)
    errors = [
        phantoms.nrmse(report.estimate(), truth)
        for report in deconvolve_iter(image, psf, replace(settings, iterations=60))
    ]
    stopped = deconvolve(image, psf, settings)
    assert phantoms.nrmse(stopped.data, truth) < 1.03 * min(errors)


def test_the_trial_is_as_bright_as_the_image(noisy):
    image, psf = noisy
    _, stop = _sought(image, psf, RichardsonLucy())
    trial = stop.trial
    assert trial.covers(image)
    found = trial.estimate(trial.best)
    level = calibrate(image).background
    assert found.sum() == pytest.approx((image.data - level).sum(), rel=0.05)
    np.testing.assert_array_equal(found, trial.run.estimate())
    trial.run.step()  # others may go on with it
    np.testing.assert_array_equal(found, trial.estimate(trial.best))


def test_the_trial_is_as_a_watch_of_its_reports_ends_it(noisy):
    reports, stop = _sought(*noisy, RichardsonLucy())
    watch = StoppingRule()
    ended = [watch.add(report.held_out) for report in reports]
    assert ended == [False] * (len(reports) - 1) + [True]
    assert stop.trial.best == watch.iteration
    assert stop.trial.done == stop.trial.run.done == len(reports) + 1
    assert stop.iterations == stop.trial.split.whole(watch) > watch.iteration


def test_without_photon_noise_there_is_nothing_to_stop_by():
    light = fftconvolve(phantoms.spots(), PSF, mode="same").clip(0) + 7
    image = Volume.from_array(light, phantoms.VOXEL_UM)
    reports, stop = _sought(image, phantoms.gaussian_psf(), RichardsonLucy(max_iterations=17))
    assert not reports
    assert (stop.iterations, stop.trial) == (17, None)


def test_the_limit_of_iterations_holds_for_the_whole_image_too(noisy):
    reports, stop = _sought(*noisy, RichardsonLucy(max_iterations=10))
    assert [report.total for report in reports] == [10] * 10
    assert stop.trial.best == 10  # for which the whole image, had it no limit, would take 11
    assert stop.iterations == 10


def test_noise_of_an_interpolated_image_is_split_by_what_was_found():
    truth = phantoms.spots((24, 64, 64), seed=4, level=2000.0)
    photons = np.random.default_rng(1).poisson(fftconvolve(truth, PSF, mode="same").clip(0) + 30)
    mixed = shift(photons.astype(np.float32), (0.5, 0, 0.5), order=1, mode="nearest")
    spectrum = estimate_noise(mixed).spectrum
    for lags in (spectrum.correlations[0], spectrum.correlations[2]):
        assert lags[0] == pytest.approx(0.5, abs=0.12)
    assert spectrum.correlations[1] == ()
    assert spectrum.variance_ratio == pytest.approx(0.25, abs=0.1)


def test_a_large_image_is_judged_by_its_structured_part():
    image = np.zeros((16, 1500, 900), np.float32)
    image[:, 1100:1200, 300:400] = phantoms.spots((16, 100, 100))
    part = structured_crop(image, (9, 31, 31))
    assert image[part].size <= 2**20
    assert image[part].sum() == pytest.approx(image.sum(), rel=1e-3)
    assert structured_crop(image[:, :200, :200], (9, 31, 31)) == (slice(None),) * 3
    image = np.zeros((16, 600, 600), np.float32)
    image[:, 500:520, 60:80] = 7  # alike in all planes
    _, y, x = structured_crop(image, (9, 31, 31))
    assert y.start <= 500
    assert y.stop >= 520
    assert x.start <= 60
    assert x.stop >= 80


def test_what_a_large_image_is_judged_by_is_a_square_of_a_million_voxels():
    assert structured_shape((16, 1500, 900), (9, 31, 31)) == (16, 256, 256)  # of 2^20 voxels
    assert structured_shape((64, 1500, 100), (9, 31, 31)) == (64, 128, 100)
    assert structured_shape((1024, 500, 500), (9, 41, 31)) == (1024, 82, 82)  # twice the PSF
    assert structured_shape((1024, 500, 500), (9, 31, 43)) == (1024, 86, 86)
