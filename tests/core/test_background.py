import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from napari_rln import samples
from napari_rln.deconvolution.background import estimate_background
from napari_rln.deconvolution.noise import Noise, estimate_noise


def taken(mean, seed=1) -> np.ndarray:
    """Return what a camera of gain 1, offset 100 and read noise 2 makes of expected photons."""
    rng = np.random.default_rng(seed)
    return (rng.poisson(mean) + 100 + rng.normal(0, 2, mean.shape)).astype(np.float32)


@pytest.fixture(scope="module")
def photons() -> np.ndarray:
    """Return a blob with a rough inside, 5 photons of background around it."""
    shape = (24, 96, 96)
    z, y, x = np.indices(shape)
    inside = ((z - 12) / 20) ** 2 + ((y - 48) / 32) ** 2 + ((x - 48) / 32) ** 2 < 1
    rough = gaussian_filter(np.random.default_rng(0).random(shape), 2)
    rough = (rough - rough.min()) / np.ptp(rough)
    return 5 + gaussian_filter(inside * (300 + 3000 * rough), 2)


def test_it_is_the_level_of_the_empty_parts(photons):
    background = estimate_background(taken(photons))
    assert background.level == pytest.approx(105, abs=1)
    assert background.certain
    assert background.uncertainty < 1


def test_a_part_without_empty_parts_is_not_sure_and_keeps_its_light(photons):
    image = taken(photons)
    part = image[4:20, 32:64, 32:64]
    whole = estimate_background(image)
    inside = estimate_background(part, zero=estimate_noise(image).zero)
    assert not inside.certain
    assert "structure" in inside.reason
    assert abs(inside.level - whole.level) <= inside.uncertainty
    assert (part - inside.level).sum() == pytest.approx((part - whole.level).sum(), rel=0.2)


def test_zeros_that_were_filled_in_and_absent_planes_do_not_count(photons):
    image = taken(photons)
    image[:, :, 70:] = 0
    image[3] = 0
    assert estimate_background(image).level == pytest.approx(105, abs=1)


def test_voxels_not_seen_do_not_count(photons):
    image = taken(photons)
    seen = np.ones(image.shape, bool)
    seen[:, :20] = False
    dark = np.where(seen, image, image - 50)
    assert estimate_background(dark, mask=seen).level == pytest.approx(105, abs=1)


def test_it_follows_offset_and_scale(photons):
    image = taken(photons).round()
    for part in (image, image[4:20, 32:64, 32:64]):
        level = estimate_background(part).level
        far = estimate_background(part + np.float32(32668)).level
        assert far == pytest.approx(level + 32668, abs=0.1)
        assert estimate_background(part * 4).level == pytest.approx(4 * level, rel=1e-3)


def test_it_is_never_below_the_zero():
    image = np.random.default_rng(0).normal(100, 3, (8, 32, 32)).astype(np.float32)
    noise = Noise(gain=1.0, intercept=9 - 100.0)
    assert estimate_background(image, noise=noise, zero=110.0).level == 110


def test_negative_images_have_a_negative_one(photons):
    assert estimate_background(taken(photons) - np.float32(107)).level == pytest.approx(-2, abs=1)


def test_of_a_plane_and_of_a_tiny_image(photons):
    assert estimate_background(taken(photons[12:13])).level == pytest.approx(105, abs=3)
    tiny = estimate_background(np.full((1, 2, 3), 7, np.float32))
    assert (tiny.level, tiny.certain) == (7, False)


def test_samples_are_looked_at_together(photons):
    image = taken(photons)
    both = estimate_background(image[:, :48], image[:, 48:])
    assert both.level == pytest.approx(estimate_background(image).level, abs=0.2)


@pytest.mark.parametrize("corner", [(8, 30, 30), (8, 40, 60), (12, 60, 40), (4, 70, 70)])
def test_crops_of_a_real_nucleus_keep_their_light(corner):
    image = samples.nucleus().data.astype(np.float32)
    z, y, x = corner
    part = image[z : z + 24, y : y + 48, x : x + 48]
    level, whole = estimate_background(part).level, estimate_background(image).level
    assert (part - level).sum() == pytest.approx((part - whole).sum(), rel=0.2)


def test_of_real_volumes():
    assert 640 < estimate_background(samples.nucleus().data.astype(np.float32)).level < 665
    assert 189 < estimate_background(samples.bead().data.astype(np.float32)).level < 209


GAIN, READ = 1.0, 16.0  # of the noise of what is made of blocks


def made_of_blocks(variance, first=100, count=201) -> np.ndarray:
    """Return (4, 24, 536): blocks of 4 x 8 x 8 with means of 100, 101, ... in any order.

    Half of the voxels of a block are as far above its mean as the others are below, so that its
    sample variance, of 256 voxels, is the function of its mean that is called for.
    """
    means = np.random.default_rng(0).permutation(np.arange(first, first + count, dtype=float))
    means = means.reshape(1, 3, count // 3)
    block = np.where(np.indices((4, 8, 8)).sum(0) % 2, 1, -1) * np.sqrt(255 / 256)
    image = np.kron(means, np.ones((4, 8, 8)))
    return image + np.tile(block, (1, 3, count // 3)) * np.sqrt(variance(image))


def of_blocks(times=1.0, **options):
    """Return the background of blocks whose variance is so many times that of noise."""
    noise = Noise(gain=GAIN, intercept=READ, **options)
    return estimate_background(made_of_blocks(lambda v: times * (GAIN * v + READ)), noise=noise)


def test_it_is_the_half_per_cent_percentile_of_means_over_blocks():
    background = of_blocks()
    # Of 201 means the second lowest has one in 200 below it.
    assert background.level == pytest.approx(101, abs=1e-9)
    # The lowest 5 % are the eleven from 100 to 110; of their variances, of 105 is the middle one.
    assert background.uncertainty == pytest.approx(np.sqrt((105 + READ) / 256), rel=1e-9)
    assert background.certain


def test_blocks_are_empty_up_to_one_and_a_half_times_the_noise():
    assert of_blocks(1.49).certain
    assert of_blocks(1.49).level == pytest.approx(101)
    rough = of_blocks(1.51)
    assert not rough.certain
    assert rough.level < 101


@pytest.mark.parametrize(("times", "share"), [(2.0, 0.75), (6.0, 0.25)])
def test_over_structure_it_is_between_the_darkest_blocks_and_the_zero(times, share):
    # The zero is where the line crosses 0, 16 below it, 117 below the darkest blocks.
    background = of_blocks(times, zero_uncertainty=3.0)
    assert background.level == pytest.approx(-16 + share * 117)
    assert background.uncertainty == pytest.approx(0.75 * 117 + 3)
    assert "101" in background.reason
    assert f"{np.sqrt(times):.1f} times" in background.reason
    assert "-16" in background.reason


def test_blocks_count_of_which_half_was_seen():
    image = made_of_blocks(lambda v: v + READ)
    darkest = image.reshape(4, 3, 8, 67, 8).mean((0, 2, 4)).round() <= 101
    image[:, ::2] -= 10  # of which nothing is seen
    seen = np.ones(image.shape, bool)
    seen[:, ::2] = False
    noise = Noise(gain=GAIN, intercept=READ)
    half = estimate_background(image, mask=seen, noise=noise)
    assert half.level == pytest.approx(101)
    # The same variance, of half the voxels.
    assert half.uncertainty == pytest.approx(np.sqrt(121 * 127 / 128 * 256 / 255 / 128), rel=0.02)
    less = seen & (np.kron(~darkest[None], np.ones((4, 8, 8), bool)) | (np.arange(536) % 8 > 0))
    # Without the two darkest of 201: the 0.5th percentile of 102, 103, ... is 0.99 above 102.
    assert estimate_background(image, mask=less, noise=noise).level == pytest.approx(102.99)


def test_an_image_without_a_voxel_to_believe_in_has_its_zero():
    image = np.full((4, 16, 16), 7, np.float32)
    nothing = np.zeros(image.shape, bool)
    background = estimate_background(
        image, mask=nothing, noise=Noise(gain=1.0, intercept=0.0), zero=5.0
    )
    assert (background.level, background.certain) == (5, False)
    assert np.isinf(background.uncertainty)
