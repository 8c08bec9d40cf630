import numpy as np
import pytest
import tifffile
from scipy.ndimage import gaussian_filter

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
    assert background.sure
    assert background.uncertainty < 1


def test_a_part_without_empty_parts_is_not_sure_and_keeps_its_light(photons):
    image = taken(photons)
    part = image[4:20, 32:64, 32:64]
    whole = estimate_background(image)
    inside = estimate_background(part, zero=estimate_noise(image).zero)
    assert not inside.sure
    assert "structure in them" in inside.reason
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
    assert estimate_background(dark, seen=seen).level == pytest.approx(105, abs=1)


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
    assert (tiny.level, tiny.sure) == (7, False)


def test_samples_are_looked_at_together(photons):
    image = taken(photons)
    both = estimate_background(image[:, :48], image[:, 48:])
    assert both.level == pytest.approx(estimate_background(image).level, abs=0.2)


@pytest.mark.parametrize("corner", [(8, 60, 30), (8, 80, 20), (8, 100, 30), (0, 120, 45)])
def test_crops_of_a_real_nucleus_keep_their_light(shared, corner):
    image = tifffile.imread(shared / "data/deconwolf_dapi/nucleus.tif").astype(np.float32)
    z, y, x = corner
    part = image[z : z + 24, y : y + 48, x : x + 48]
    level, whole = estimate_background(part).level, estimate_background(image).level
    assert (part - level).sum() == pytest.approx((part - whole).sum(), rel=0.2)


def test_of_real_volumes(shared):
    def level(name: str) -> float:
        image = tifffile.imread(shared / "data" / f"{name}.tif").astype(np.float32)
        return estimate_background(image, noise=estimate_noise(image)).level

    assert level("peers_problem/image_sym") == pytest.approx(20, abs=1)
    assert 640 < level("nucleus_pair/widefield") < 665
    assert 189 < level("flowdec_bead/bead") < 209
    assert level("pollen/blurred") < 150
