import dataclasses

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter, shift
from scipy.signal import fftconvolve

from napari_rln.deconvolution.defective_voxels import Defects, find_defects, repaired
from napari_rln.deconvolution.noise import Noise
from napari_rln.deconvolution.unmeasured_voxels import (
    HALO,
    constant_planes,
    filled,
    find_levels,
    saturated,
)

NOISE = Noise(gain=1.0, intercept=4 - 100.0)


def gaussian_psf(*fwhm: float) -> np.ndarray:
    grid = np.indices((17, 17, 17)) - 8
    widths = np.array(fwhm)[:, None, None, None] / np.sqrt(8 * np.log(2))
    psf = np.exp(-0.5 * ((grid / widths) ** 2).sum(axis=0))
    return (psf / psf.sum()).astype(np.float32)


def taken(mean, seed=1) -> np.ndarray:
    """Return what a camera of gain 1, offset 100 and read noise 2 makes of expected photons."""
    rng = np.random.default_rng(seed)
    return (rng.poisson(mean) + 100 + rng.normal(0, 2, mean.shape)).round().astype(np.float32)


def points(psf, peak, shape=(20, 64, 64)) -> np.ndarray:
    """Return expected photons of points of light on a background of 20."""
    rng = np.random.default_rng(0)
    light = (rng.random(shape) < 1e-3) * rng.uniform(0.3, 1, shape)
    return 20 + np.clip(fftconvolve(light, psf / psf.max() * peak, mode="same"), 0, None)


PSF = gaussian_psf(6, 3, 3)


@pytest.fixture(scope="module")
def clean() -> np.ndarray:
    return taken(points(PSF, 400))


@pytest.fixture(scope="module")
def hot(clean) -> np.ndarray:
    return np.random.default_rng(5).random(clean.shape) < 1 / 2000


@pytest.mark.parametrize(
    "fwhm", [(0.8, 0.8, 0.8), (1, 1, 1), (2.5, 1.5, 1.5), (4, 2, 2), (6, 3, 3)]
)
@pytest.mark.parametrize("peak", [100, 5000])
@pytest.mark.parametrize("known", [True, False])
def test_points_of_light_are_never_defects(fwhm, peak, known):
    psf = gaussian_psf(*fwhm)
    found = find_defects(taken(points(psf, peak)), noise=NOISE, psf=psf if known else None)
    assert not found.isolated.any()


def test_points_between_voxels_are_never_defects():
    fine = gaussian_psf(2.4, 1.5, 1.5)
    for by in ((0, 0.5, 0.5), (0.5, 0, 0.3), (0.2, 0.5, 0)):
        image = taken(shift(points(fine, 3000), by, order=3, mode="nearest").clip(0))
        assert not find_defects(image, noise=NOISE, psf=fine).isolated.any()


@pytest.mark.parametrize("value", [400, 2000, 65535])
def test_hot_voxels_are_found_and_nothing_else(clean, hot, value):
    dim = hot & (clean < 160)
    found = find_defects(np.where(dim, np.float32(value), clean), noise=NOISE, psf=PSF)
    np.testing.assert_array_equal(found.hot, dim)
    assert not found.cold.any()


def test_cold_voxels_are_found(clean, hot):
    found = find_defects(np.where(hot, np.float32(0), clean), noise=NOISE, psf=PSF)
    np.testing.assert_array_equal(found.cold, hot)
    assert not found.hot.any()


def test_pixels_hot_in_all_planes_are_found(clean):
    columns = np.zeros(clean.shape, bool)
    columns[:, [10, 20, 50], [12, 40, 33]] = True
    found = find_defects(clean + 300 * columns.astype(np.float32), noise=NOISE, psf=PSF)
    assert (found.hot & columns).sum() >= 0.8 * columns.sum()
    assert not (found.hot & ~columns).any()


def test_the_track_of_a_cosmic_ray_is_found(clean):
    track = np.zeros(clean.shape, bool)
    track[7, 30, 20:25] = True
    track[12, 40:44, 11] = True
    found = find_defects(clean + 800 * track.astype(np.float32), noise=NOISE, psf=PSF)
    np.testing.assert_array_equal(found.hot, track)


def test_a_plane_is_examined_too():
    psf = PSF[8:9] / PSF[8].sum()
    image = taken(points(PSF, 400)[10:11])
    clean = find_defects(image, noise=NOISE, psf=psf)
    assert not clean.isolated.any()
    image[0, 30, 30] = 3000
    assert np.argwhere(find_defects(image, noise=NOISE, psf=psf).hot).tolist() == [[0, 30, 30]]


def test_without_a_gain_nothing_is_hot(clean, hot):
    found = find_defects(
        np.where(hot, np.float32(2000), clean), noise=Noise(gain=0.0, intercept=0.0), psf=PSF
    )
    assert not found.isolated.any()


def test_repair_gives_what_the_neighbours_have(clean, hot):
    image = np.where(hot, np.float32(5000), clean)
    mended = repaired(image, hot)
    assert mended.dtype == np.float32
    np.testing.assert_array_equal(mended[~hot], clean[~hot])
    truth = 100 + points(PSF, 400)
    assert np.sqrt(np.mean((mended - truth)[hot] ** 2)) < 15
    assert (image[hot] == 5000).all()


def test_repair_does_not_ask_other_defects():
    image = np.full((3, 3, 3), 7, np.float32)
    image[1, 1] = 900
    wrong = image == 900
    assert (repaired(image, wrong) == 7).all()
    everything = np.ones((3, 3, 3), bool)
    np.testing.assert_array_equal(repaired(image, everything), image)
    only = np.zeros_like(wrong)
    only[1, 1, 1] = True
    assert repaired(image, only, others=wrong)[1, 1, 1] == 7


@pytest.mark.parametrize("ceiling", [255, 4095, 65535])
def test_a_ceiling_is_found_at_any_bit_depth(clean, ceiling):
    image = np.minimum(((clean - 90) * ceiling / 250).round(), ceiling).astype(np.float32)
    levels = find_levels(image)
    assert levels.saturation == ceiling
    np.testing.assert_array_equal(saturated(image, levels), image == ceiling)


def test_light_that_merely_ends_is_not_saturated(clean, hot):
    assert find_levels(clean).saturation is None
    assert find_levels(np.where(hot, np.float32(2000), clean)).saturation is None


@pytest.fixture(scope="module")
def slab() -> tuple[np.ndarray, np.ndarray]:
    """Return a sheared slab with zeros around it, and where it is."""
    image = taken(points(PSF, 400, (20, 64, 96)))
    z, _, x = np.indices(image.shape)
    inside = (x - 1.7 * z > 8) & (x - 1.7 * z < 56)
    return np.where(inside, image, np.float32(0)), inside


def test_what_a_deskew_filled_in_is_found(slab):
    image, inside = slab
    levels = find_levels(image)
    assert levels.fill == 0
    assert (filled(image, levels) != ~inside).mean() < 1e-3


def test_mixtures_at_the_rim_are_found(slab):
    image, inside = slab
    by = (0, 0, 0.5)
    mixed = shift(image, by, order=1)
    measured = shift(inside.astype(float), by, order=1)
    mask = filled(mixed, find_levels(mixed))
    assert mask[measured < 0.9].mean() > 0.998
    assert mask[measured == 1].mean() < 2e-3


@pytest.mark.parametrize("background", [0.001, 0.05, 1])
def test_zeros_of_a_dark_image_are_measured(background):
    light = background + 30 * gaussian_filter((points(PSF, 1) > 20.8) * 1.0, 1.5)
    image = np.random.default_rng(2).poisson(light).astype(np.float32)
    assert (image == 0).mean() > 0.3
    assert find_levels(image).fill is None


def test_an_image_cut_off_at_zero_is_measured(clean):
    assert find_levels(np.maximum(clean - 130, 0)).fill is None


def test_absent_planes_are_listed(clean):
    image = clean.copy()
    image[7], image[12] = 0, 777
    assert constant_planes(image) == (7, 12)
    assert constant_planes(np.zeros((3, 4, 4), np.float32)) == ()
    found = find_defects(image, noise=NOISE, psf=PSF)
    assert found.planes == (7, 12)
    assert found.filled[[7, 12]].all()
    assert found.filled.sum() == pytest.approx(2 * image[0].size, rel=0.005)
    assert not found.isolated.any()


def test_nan_is_never_a_measurement(clean):
    image = clean.copy()
    image[:, :8] = np.nan
    found = find_defects(image, noise=NOISE, psf=PSF)
    np.testing.assert_array_equal(found.filled, np.isnan(image))
    assert not found.isolated.any()


def test_a_part_with_its_halo_has_the_masks_of_the_whole(slab, hot):
    image, _ = slab
    spots = np.random.default_rng(8).random(image.shape) < 1e-3
    image = np.minimum(np.where(spots & (image > 0), np.float32(2000), image), 380)
    image[9] = 0
    levels, planes = find_levels(image), constant_planes(image)
    whole = find_defects(image, noise=NOISE, psf=PSF, levels=levels, planes=planes)
    assert all(m.any() for m in (whole.hot, whole.saturated, whole.filled))
    for y, x in ((0, 0), (0, 48), (32, 0), (32, 48)):
        window = (slice(max(y - HALO, 0), y + 32 + HALO), slice(max(x - HALO, 0), x + 48 + HALO))
        part = image[:, window[0], window[1]]
        found = find_defects(part, noise=NOISE, psf=PSF, levels=levels, planes=planes)
        inner = (slice(None), slice(y - window[0].start, None), slice(x - window[1].start, None))
        for name in ("hot", "cold", "saturated", "filled"):
            mask = getattr(found, name)[inner][:, :32, :48]
            expected = getattr(whole, name)[:, y : y + 32, x : x + 48]
            np.testing.assert_array_equal(mask, expected, err_msg=name)


def test_what_was_found_is_said_with_numbers():
    empty = np.zeros((20, 64, 64), bool)
    hot, ceiling, gone = empty.copy(), empty.copy(), empty.copy()
    hot.flat[:52] = True
    ceiling.flat[100:1304] = True
    gone[[7, 12]] = True
    levels = dataclasses.replace(find_levels(np.zeros((1, 3, 3), np.float32)), saturation=4095.0)
    defects = Defects(
        hot=hot, cold=empty, saturated=ceiling, filled=gone, planes=(7, 12), levels=levels
    )
    assert defects.sentences() == (
        "repaired 52 isolated hot voxels (1 in 1,575)",
        "excluded 1,204 voxels saturated at 4095",
        "excluded planes 7, 12 without any contrast",
    )
    np.testing.assert_array_equal(defects.mask, ~(ceiling | gone))


def test_nothing_found_is_nothing_said(clean):
    assert find_defects(clean, noise=NOISE, psf=PSF).sentences() == ()
