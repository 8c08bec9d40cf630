import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from napari_rln.errors import RlnError
from napari_rln.noise import Noise, estimate_background, estimate_noise, split


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


def test_counts_have_a_variance_of_their_mean(volume):
    noise = Noise(gain=2.0, intercept=3.0**2 - 2.0 * 100)
    counts = np.stack([noise.counts(taken(volume, 2.0, 3.0, seed)) for seed in range(20)])
    variance, mean = counts.var(axis=0, ddof=1).mean(), counts.mean()
    assert mean == pytest.approx(volume.mean() + (3 / 2) ** 2, rel=0.01)
    assert variance == pytest.approx(mean, rel=0.02)


def test_counts_are_never_negative():
    assert Noise(gain=1.0, intercept=-100.0).counts([50.0, 150.0]).tolist() == [0, 50]


def test_without_a_gain_there_are_no_photons():
    with pytest.raises(RlnError, match=r"gain is 0\.0 .* must be above 0"):
        Noise(gain=0.0, intercept=0.0).counts(1.0)


def test_an_image_without_noise_has_next_to_no_gain(volume):
    noise = estimate_noise((100 + volume).astype(np.float32))
    assert 0 <= noise.gain < 0.01


@pytest.mark.parametrize("shape", [(8, 16, 16), (1, 16, 16), (1, 1, 16), (2, 2, 2), (1, 1, 1)])
@pytest.mark.parametrize("level", [0, 100])
def test_a_flat_image_has_no_noise(shape, level):
    image = np.full(shape, level, np.float32)
    assert estimate_noise(image) == Noise(gain=0.0, intercept=0.0)


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


def test_background_is_the_level_of_the_dark_parts(volume):
    mean = volume.copy()
    mean[..., :8] = 5
    assert estimate_background(taken(mean, 1.0, 2.0)) == pytest.approx(105, abs=1)


def test_background_of_a_plane_and_of_a_tiny_image(plane):
    assert estimate_background(taken(plane, 1.0, 2.0)) == pytest.approx(105, abs=3)
    assert estimate_background(np.full((1, 2, 3), 7, np.float32)) == 7


def test_background_is_never_negative():
    assert estimate_background(np.full((4, 8, 8), -3, np.float32)) == 0


def test_both_parts_together_are_the_photons(volume):
    noise = Noise(gain=2.0, intercept=-200.0)
    image = taken(volume, 2.0, 0.0)
    first, second = split(image, noise, 0.7, seed=3)
    assert first.dtype == second.dtype == np.float32
    np.testing.assert_allclose(first + second, noise.counts(image), atol=1)
    assert (first + second).mean() == pytest.approx(noise.counts(image).mean(), rel=1e-3)
    assert first.sum() / (first + second).sum() == pytest.approx(0.7, abs=0.001)


def test_the_parts_are_poisson_and_independent():
    mean = np.full((16, 64, 64), 20.0)
    image = np.random.default_rng(0).poisson(mean).astype(np.float32)
    first, second = split(image, Noise(gain=1.0, intercept=0.0), 0.9, seed=1)
    assert first.var() == pytest.approx(18, rel=0.03)
    assert second.var() == pytest.approx(2, rel=0.03)
    assert np.corrcoef(first.ravel(), second.ravel())[0, 1] == pytest.approx(0, abs=0.015)


def test_the_seed_decides(volume):
    image, noise = taken(volume, 1.0, 0.0), Noise(gain=1.0, intercept=-100.0)
    one, same, other = (split(image, noise, 0.5, seed)[0] for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, same)
    assert (one != other).mean() > 0.5
