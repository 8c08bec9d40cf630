"""The stop: parts of independent noise, and an error that is the estimate's own."""

import numpy as np
import phantoms
import pytest
import tifffile
import torch
from scipy.ndimage import shift
from scipy.signal import fftconvolve

from napari_rln.core.volume import Volume
from napari_rln.deconvolution.classical import RichardsonLucy
from napari_rln.deconvolution.noise import estimate_noise
from napari_rln.deconvolution.noise_spectrum import Spectrum
from napari_rln.deconvolution.stopping import SHARE, SplitPhotons, Watch, telling_crop
from napari_rln.engine.in_memory import deconvolve, deconvolve_iter

PSF = phantoms.gaussian_psf((9, 9, 9), (1.6, 1.2, 1.2)).data
WHITE = Spectrum()


def _split(photons, background=20.0, spectrum=WHITE, seed=0, **options):
    return SplitPhotons(photons.astype(np.float32), PSF, background, spectrum, seed, **options)


def _unseen(split, shape):
    """Return the unseen part less its background, as it fades towards the border."""
    return torch.fft.irfftn(split._unseen.view(*shape[:2], shape[2] // 2 + 1), s=shape).numpy()


def test_photons_go_to_one_part_or_the_other():
    photons = np.random.default_rng(0).poisson(20, (24, 64, 64))
    split = _split(photons)
    assert split.image.mean() == pytest.approx(SHARE * 20, rel=0.01)
    assert split.image.var() == pytest.approx(SHARE * 20, rel=0.03)
    assert split.background == pytest.approx(SHARE * 20)
    rest = _unseen(split, photons.shape)[8:-8, 8:-8, 8:-8]
    assert rest.var() == pytest.approx((1 - SHARE) * 20, rel=0.05)
    seen = split.image[8:-8, 8:-8, 8:-8]
    assert np.corrcoef(seen.ravel(), rest.ravel())[0, 1] == pytest.approx(0, abs=0.02)


def test_noise_that_neighbours_share_is_split_too():
    white = np.random.default_rng(0).poisson(200, (24, 64, 64)).astype(np.float64)
    mixed = shift(white, (0.5, 0, 0.5), order=1, mode="nearest")
    spectrum = Spectrum(correlations=((0.5,), (), (0.5,)))
    split = _split(mixed, background=200.0, spectrum=spectrum)
    rest = _unseen(split, mixed.shape)[8:-8, 8:-8, 8:-8]
    seen = split.image[8:-8, 8:-8, 8:-8]
    assert np.corrcoef(seen.ravel(), rest.ravel())[0, 1] == pytest.approx(0, abs=0.04)
    # By photons the two would share what the interpolation did.
    plain = _split(mixed, background=200.0)
    shared = np.corrcoef(
        plain.image[8:-8, 8:-8, 8:-8].ravel(), _unseen(plain, mixed.shape)[8:-8, 8:-8, 8:-8].ravel()
    )[0, 1]
    assert abs(shared) > 0.2


def test_the_seed_decides():
    photons = np.random.default_rng(0).poisson(20, (8, 16, 16))
    one, same, other = (_split(photons, seed=seed).image for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, same)
    assert (one != other).mean() > 0.5


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
    expected = torch.from_numpy((split.share * (light + 20)).astype(np.float32))
    assert split.error(expected, 0.0) == pytest.approx(1, abs=0.1)
    # A factor is no error, another shape is.
    brighter = split.share * (1.3 * light + 20)
    assert split.error(torch.from_numpy(brighter.astype(np.float32)), 0.0) == pytest.approx(
        split.error(expected, 0.0), rel=1e-3
    )
    moved = np.roll(light, 3, axis=2)
    wrong = torch.from_numpy((split.share * (moved + 20)).astype(np.float32))
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
    clean, kept = (_split(p, background=50.0, seen=seen) for p in (photons, spoilt))
    assert kept.error(flat, 0.0) == pytest.approx(clean.error(flat, 0.0), rel=0.2)


def _followed(errors):
    """Return the iteration that a watch names, and how many it wanted to see."""
    watch = Watch()
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


def test_noise_of_an_interpolated_image_is_split_by_what_was_found():
    truth = phantoms.spots((24, 64, 64), seed=4, level=2000.0)
    photons = np.random.default_rng(1).poisson(fftconvolve(truth, PSF, mode="same").clip(0) + 30)
    mixed = shift(photons.astype(np.float32), (0.5, 0, 0.5), order=1, mode="nearest")
    spectrum = estimate_noise(mixed).spectrum
    for lags in (spectrum.correlations[0], spectrum.correlations[2]):
        assert lags[0] == pytest.approx(0.5, abs=0.12)
    assert spectrum.correlations[1] == ()
    assert spectrum.share == pytest.approx(0.25, abs=0.1)


def test_a_large_image_is_judged_by_its_structured_part():
    image = np.zeros((16, 1500, 900), np.float32)
    image[:, 1100:1200, 300:400] = phantoms.spots((16, 100, 100))
    part = telling_crop(image, (9, 31, 31))
    assert image[part].size <= 2**20
    assert image[part].sum() == pytest.approx(image.sum(), rel=1e-3)
    assert telling_crop(image[:, :200, :200], (9, 31, 31)) == (slice(None),) * 3


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["sym", "asym"])
@pytest.mark.parametrize("photons", [1.0, 0.3, 0.1])
def test_stops_within_3_percent_of_the_best(shared, kind, photons):
    folder = shared / "data" / "peers_problem"
    truth = tifffile.imread(folder / "truth_x16.tif") / 16
    counts = tifffile.imread(folder / f"image_{kind}.tif")
    counts = np.random.default_rng(0).binomial(counts, photons)
    kernel = tifffile.imread(folder / f"psf_{kind}.tif").astype(float)
    psf = Volume.from_array(kernel / kernel.sum(), phantoms.VOXEL_UM)
    image = Volume.from_array(counts, phantoms.VOXEL_UM)
    errors = [
        phantoms.nrmse(report.estimate(), truth)
        for report in deconvolve_iter(image, psf, RichardsonLucy(iterations=60))
    ]
    stopped = deconvolve(image, psf)
    assert phantoms.nrmse(stopped.data, truth) < 1.03 * min(errors)
