import numpy as np
import pytest
from scipy.ndimage import gaussian_filter, shift

from napari_rln.deconvolution.noise import Noise, estimate_noise


def photons(shape, sigma, level=400.0) -> np.ndarray:
    """Return expected photons: soft spots on a background of 5, none finer than a PSF."""
    seeds = np.random.default_rng(0).random(shape) > 0.998
    smooth = gaussian_filter(seeds.astype(float), sigma)
    return 5 + level * smooth / smooth.max()


@pytest.fixture(scope="module")
def volume() -> np.ndarray:
    return photons((32, 64, 64), (3, 2.5, 2.5))


@pytest.fixture(scope="module")
def plane() -> np.ndarray:
    return photons((1, 256, 256), (0, 4, 4))


def taken(mean, gain, read, seed=1) -> np.ndarray:
    """Return what a camera of offset 100 makes of expected photons."""
    rng = np.random.default_rng(seed)
    image = gain * rng.poisson(mean) + 100 + rng.normal(0, read, mean.shape)
    return image.astype(np.float32)


@pytest.mark.parametrize("read", [0, 1, 3])
@pytest.mark.parametrize("gain", [0.1, 0.5, 1, 2, 4])
@pytest.mark.parametrize("scene", ["volume", "plane"])
def test_photon_transfer_line_is_recovered(request, scene, gain, read):
    mean = request.getfixturevalue(scene)
    noise = estimate_noise(taken(mean, gain, read))
    # The slope shows only where photons, not reading, rule the variance over the image.
    photon_ruled = gain**2 * mean.std() > read**2
    assert noise.gain == pytest.approx(gain, rel=0.1 if photon_ruled else 0.5)
    typical = float(mean.mean())
    variance = noise.gain * (gain * typical + 100) + noise.intercept
    assert variance == pytest.approx(gain**2 * typical + read**2, rel=0.06)


def test_an_image_without_noise_has_next_to_no_gain(volume):
    noise = estimate_noise((100 + volume).astype(np.float32))
    assert 0 <= noise.gain < 0.01


@pytest.mark.parametrize("shape", [(8, 16, 16), (1, 16, 16), (1, 1, 16), (2, 2, 2), (1, 1, 1)])
@pytest.mark.parametrize("level", [0, 100])
def test_a_flat_image_has_no_noise(shape, level):
    image = np.full(shape, level, np.float32)
    noise = estimate_noise(image)
    assert (noise.gain, noise.intercept) == (0, 0)


def test_an_image_too_small_to_tell_has_no_noise():
    assert estimate_noise(np.array([[[1, 5], [9, 2]]], np.float32)) == Noise(gain=0, intercept=0)


def test_noise_of_one_level_is_put_down_to_photons():
    image = np.random.default_rng(0).normal(50, 10, (16, 32, 32)).astype(np.float32)
    noise = estimate_noise(image)
    assert noise.gain * 50 + noise.intercept == pytest.approx(100, rel=0.05)


def test_an_image_of_negative_values_does_not_break():
    image = np.random.default_rng(0).normal(-50, 10, (16, 32, 32)).astype(np.float32)
    noise = estimate_noise(image)
    assert noise.gain >= 0
    assert np.isfinite(noise.intercept)


def spots(shape=(32, 96, 96), background=20.0, peak=200.0, share=4e-4) -> np.ndarray:
    """Return expected photons of spots with a FWHM of 6, 3 and 3 voxels."""
    rng = np.random.default_rng(0)
    seeds = (rng.random(shape) < share) * rng.uniform(0.2, 1, shape)
    soft = gaussian_filter(
        seeds, [s if n > 1 else 0 for s, n in zip((2.5, 1.3, 1.3), shape, strict=True)]
    )
    return background + peak * soft / np.percentile(soft, 99.95)


@pytest.fixture(scope="module")
def clean() -> np.ndarray:
    return taken(spots(peak=400), 1.0, 2.0)


@pytest.mark.parametrize("value", [130, 170, 200, 1000, 65535])
def test_hot_voxels_do_not_decide_the_gain(clean, value):
    hot = np.random.default_rng(7).random(clean.shape) < 1 / 2000
    noise = estimate_noise(np.where(hot, np.float32(value), clean))
    assert noise.gain == pytest.approx(estimate_noise(clean).gain, rel=0.05)
    assert noise.gain == pytest.approx(1, rel=0.1)


def test_cosmic_rays_do_not_decide_the_gain(clean):
    image, rng = clean.copy(), np.random.default_rng(3)
    for _ in range(60):
        z, y, x = (rng.integers(0, n - 7) for n in image.shape)
        for i in range(rng.integers(2, 7)):
            image[z, y + i * (z % 2), x + i] += rng.uniform(200, 3000)
    assert estimate_noise(image).gain == pytest.approx(1, rel=0.1)


@pytest.mark.parametrize("ceiling", [250, 350])
def test_saturated_voxels_do_not_decide_the_gain(clean, ceiling):
    assert estimate_noise(np.minimum(clean.round(), ceiling)).gain == pytest.approx(1, rel=0.12)


def test_voxels_that_were_filled_in_do_not_count(clean):
    image = clean.copy()
    image[:, :, :40] = 0
    noise = estimate_noise(image)
    assert noise.gain == pytest.approx(1, rel=0.12)
    assert noise.zero == pytest.approx(96, abs=3)


def test_voxels_not_seen_do_not_count(clean):
    rng = np.random.default_rng(4)
    seen = np.ones(clean.shape, bool)
    seen[:, :, :40] = False
    image = np.where(seen, clean, rng.normal(150, 40, clean.shape).astype(np.float32))
    noise = estimate_noise(image, mask=seen)
    assert noise.gain == pytest.approx(1, rel=0.12)
    assert estimate_noise(image, mask=[seen]) == noise


@pytest.mark.parametrize("background", [0.1, 1, 30, 300])
def test_the_gain_is_unbiased_from_few_photons_to_many(background):
    mean = spots(background=background, peak=max(5 * background, 3), share=2e-3)
    gains = [estimate_noise(taken(mean, 1, 0, seed)).gain for seed in range(3)]
    assert np.mean(gains) == pytest.approx(1, rel=0.05)


@pytest.mark.parametrize("planes", [1, 2, 3, 5])
def test_few_planes_are_enough(planes):
    mean = spots((planes, 256, 256), peak=300, share=2e-3)
    gains = [estimate_noise(taken(mean, 1, 2, seed)).gain for seed in range(2)]
    assert np.mean(gains) == pytest.approx(1, rel=0.12)


def test_an_offset_moves_nothing_but_the_zero(clean):
    whole = clean.round()
    noise, far = estimate_noise(whole), estimate_noise(whole + np.float32(32668))
    assert far.gain == pytest.approx(noise.gain, rel=1e-6)
    assert far.zero == pytest.approx(noise.zero + 32668, abs=1e-3)


def test_a_scale_scales(clean):
    noise, scaled = estimate_noise(clean), estimate_noise(clean * np.float32(4))
    assert scaled.gain == pytest.approx(4 * noise.gain, rel=1e-5)
    assert scaled.intercept == pytest.approx(16 * noise.intercept, rel=1e-5)


def test_the_zero_is_the_offset_less_read_noise_with_its_uncertainty(clean):
    noise = estimate_noise(clean)
    assert abs(noise.zero - 96) < 4 * noise.zero_uncertainty
    assert noise.zero_uncertainty < 2


@pytest.mark.parametrize("offset", [100, 32768])
def test_the_zero_is_never_above_the_darkest_voxels(offset):
    rng = np.random.default_rng(0)
    image = (rng.poisson(3, (16, 64, 64)) + rng.normal(0, 4, (16, 64, 64)) + offset).round()
    noise = estimate_noise(image.astype(np.float32))
    assert noise.zero <= np.quantile(image, 1e-3)
    assert offset - 40 < noise.zero


def test_a_known_gain_leaves_the_intercept(clean):
    noise = estimate_noise(clean, gain=1.0)
    assert noise.gain == 1
    assert noise.zero == pytest.approx(96, abs=1)
    wrong = estimate_noise(clean + np.float32(32668), gain=1.01)
    assert wrong.zero - 32668 == pytest.approx(noise.zero, abs=1)


def test_samples_of_an_image_tell_its_noise(clean):
    parts = [clean[:, :48], clean[:, 48:]]
    assert estimate_noise(*parts).gain == pytest.approx(estimate_noise(clean).gain, rel=0.1)


def reach_of(noise):
    """Return over how many voxels noise goes together; one more lag is kept than is clear."""
    return tuple(max(len(lags) - 1, 0) for lags in noise.spectrum.correlations)


@pytest.mark.parametrize(
    ("by", "reach"), [((0.5, 0, 0.5), (1, 0, 1)), ((0, 0.5, 0), (0, 1, 0)), ((0, 0, 0), (0, 0, 0))]
)
def test_interpolated_noise_is_noticed_and_made_up_for(clean, by, reach):
    noise = estimate_noise(shift(clean, by, order=1, mode="nearest"))
    assert reach_of(noise) == reach
    assert noise.spectrum.white == (not any(reach))
    assert 1 / 1.5 < noise.gain < 1.5
    assert noise.zero == pytest.approx(96, abs=4)


def test_smoothed_noise_is_noticed_and_made_up_for(clean):
    noise = estimate_noise(gaussian_filter(clean, 0.5))
    assert reach_of(noise) == (1, 1, 1)
    assert 1 / 1.5 < noise.gain < 1.5


def test_a_fixed_pattern_is_not_correlated_noise(clean):
    pattern = np.random.default_rng(6).normal(0, 3, clean.shape[1:]).astype(np.float32)
    noise = estimate_noise(clean + pattern)
    assert noise.spectrum.white
    assert noise.gain == pytest.approx(1, rel=0.15)


@pytest.mark.parametrize("whole", [True, False])
def test_without_photon_noise_there_is_no_gain(whole):
    mean = (100 + spots()).astype(np.float32)
    assert estimate_noise(mean.round() if whole else mean).gain == 0
    assert estimate_noise(gaussian_filter(taken(spots(), 1, 2), 1.5)).gain == 0
