"""Oracles: Gaussians, whose centre, width and symmetry are known."""

import numpy as np
import pytest
from scipy.special import j1

from napari_rln.core.errors import RlnError
from napari_rln.psf.peak import isolated_voxels, peak_centre
from napari_rln.psf.pedestal import background_level
from napari_rln.psf.shape import asymmetry, centre_crop, energy_box, fwhm_um

FWHM = 2 * np.sqrt(2 * np.log(2))


def gaussian(shape, centre, sigma):
    z, y, x = (
        np.exp(-0.5 * ((np.arange(n) - c) / s) ** 2)
        for n, c, s in zip(shape, centre, sigma, strict=True)
    )
    return z[:, None, None] * y[:, None] * x


def comatic():
    """Return a lobe at (16, 16, 14) with a one-sided tail along x that hardly moves its peak."""
    shape = (33, 33, 33)
    tail = gaussian(shape, (16, 16, 20), (3, 2, 2))
    return gaussian(shape, (16, 16, 14), (2, 1.3, 1.3)) + 0.25 * tail


@pytest.mark.parametrize("sigma", [(0.8, 0.8, 0.8), (2.5, 1.2, 1.2), (5.0, 3.0, 3.0)])
@pytest.mark.parametrize("offset", [(0.0, 0.0, 0.0), (0.5, -0.5, 0.5), (0.23, -0.41, 0.07)])
def test_centre_and_width_of_a_clean_gaussian(sigma, offset):
    centre = np.array((16, 15, 17)) + offset
    data = gaussian((33, 33, 33), centre, sigma)
    assert np.allclose(peak_centre(data), centre, atol=0.02)
    widths = np.array(fwhm_um(data, (0.2, 0.1, 0.1)))
    assert np.allclose(widths / (FWHM * np.array(sigma) * (0.2, 0.1, 0.1)), 1, atol=0.03)


def test_width_of_an_airy_disk_at_its_sampling_limit():
    # (2 J1(v) / v)^2 is half at v = 1.61634; band limit 2 radians per unit of v.
    for offset in (0.0, 0.25, 0.5):
        y, x = np.indices((41, 41)) - 20.0 - offset
        v = np.hypot(y, x) * np.pi / 2 + 1e-9
        airy = ((2 * j1(v) / v) ** 2)[None]
        expected = 2 * 1.61634 / (np.pi / 2)
        assert np.allclose(fwhm_um(airy, (1, 1, 1))[1:], expected, rtol=0.04)


def test_centre_with_noise_background_and_hot_pixels():
    rng = np.random.default_rng(1)
    errors = []
    for _ in range(8):
        centre = np.array((15, 16, 17)) + rng.uniform(-0.5, 0.5, 3)
        data = 100 * gaussian((31, 33, 35), centre, (2, 1.3, 1.3)) + 40
        data += rng.normal(0, 4, data.shape)
        data[rng.integers(0, 31, 5), rng.integers(0, 33, 5), rng.integers(0, 35, 5)] = 5000
        errors.append(np.abs(np.array(peak_centre(data)) - centre))
    assert np.max(errors) < 0.1


def test_centre_ignores_a_brighter_sum_of_out_of_focus_light():
    spot = gaussian((41, 41, 41), (14, 20, 20), (1.5, 1.2, 1.2))
    haze = 0.2 * gaussian((41, 41, 41), (30, 20, 20), (6, 10, 10))
    assert haze.sum() > 40 * spot.sum()
    assert np.allclose(peak_centre(spot + haze), (14, 20, 20), atol=0.1)


def test_centre_of_a_comatic_psf_is_the_peak_of_its_main_lobe():
    data = comatic()
    centroid = (np.indices(data.shape)[2] * data).sum() / data.sum()
    centre = peak_centre(data)
    assert centroid > 15.5
    assert np.allclose(centre, (16, 16, 14), atol=0.1)
    wider = np.pad(data, ((5, 5), (5, 5), (5, 5)))  # the box around it makes no difference
    assert np.allclose(np.array(peak_centre(wider)) - 5, centre, atol=1e-6)


def test_width_of_one_plane_and_of_an_unlimited_axis():
    plane = gaussian((1, 33, 33), (0, 16, 16), (1, 2, 2))
    widths = fwhm_um(plane, (0.2, 0.1, 0.1))
    assert np.isnan(widths[0])
    assert np.allclose(widths[1:], FWHM * 0.2, rtol=0.01)
    flat = gaussian((9, 33, 33), (4, 16, 16), (50, 2, 2))
    assert fwhm_um(flat, (1, 1, 1))[0] == np.inf


def test_background_of_noise_is_exact_and_of_a_clean_psf_is_nothing():
    rng = np.random.default_rng(2)
    clean = 1000 * gaussian((31, 33, 33), (15, 16, 16), (2.5, 1.3, 1.3))
    level, noise = background_level(clean + 90 + rng.normal(0, 5, clean.shape))
    assert level == pytest.approx(90, abs=0.5)
    assert noise == pytest.approx(5, rel=0.1)
    assert background_level(clean)[0] * clean.size < 1e-3 * clean.sum()
    assert background_level(clean + 90)[0] == pytest.approx(90, abs=0.01)


def test_background_spares_a_psf_that_fills_its_box():
    # Cones of constant light per plane, cut by the box well before they fade.
    z, y, x = np.indices((31, 31, 31)) - 15.0
    width = 1.3 + 0.8 * np.abs(z)
    cone = np.exp(-0.5 * (y**2 + x**2) / width**2) / width**2
    assert background_level(cone)[0] * cone.size < 0.01 * cone.sum()


def test_hot_voxels_are_found_and_a_sharp_peak_is_left():
    rng = np.random.default_rng(3)
    sigma = 1.5 / FWHM
    for offset in ((0, 0, 0), (0.5, 0.5, 0.5), (0.25, 0, 0.25)):
        sharp = 1000 * gaussian((17, 33, 33), np.array((8, 16, 16)) + offset, (sigma,) * 3)
        sharp += rng.normal(100, 3, sharp.shape)
        assert not isolated_voxels(sharp).hot.any()
    sharp[:, 5, 20] += 300  # a hot camera pixel is hot in every plane
    sharp[3, 25, 9] = 1e5
    hot = isolated_voxels(sharp).hot
    assert hot[:, 5, 20].all()
    assert hot[3, 25, 9]
    assert hot.sum() == 18


def test_a_psf_of_a_single_voxel_is_not_hot():
    point = np.zeros((9, 9, 9))
    point[4, 4, 4] = 1
    assert not isolated_voxels(point).hot.any()
    assert peak_centre(point) == pytest.approx((4, 4, 4))


def test_asymmetry_is_along_the_axis_of_the_tail_only():
    z, y, x = asymmetry(comatic())
    assert x > 0.2
    assert max(z, y) < 0.005
    shifted = gaussian((33, 33, 33), (15.7, 16.2, 16.4), (2, 1.5, 1.5))
    assert max(asymmetry(shifted)) < 0.005


def test_asymmetry_with_a_floor_is_not_that_of_noise():
    rng = np.random.default_rng(4)
    data = 100 * gaussian((31, 31, 31), (15, 15, 15), (2, 1.5, 1.5)) + rng.normal(
        0, 1, (31, 31, 31)
    )
    assert max(asymmetry(data, floor=4.0)) < 0.05 < min(asymmetry(data))


def test_energy_box_holds_the_share_in_the_shape_of_the_psf():
    data = gaussian((41, 41, 41), (20, 20, 20), (4, 1.5, 1.5))
    box = energy_box(data, 0.99)
    inside = data[tuple(slice(20 - n // 2, 20 + n // 2 + 1) for n in box)]
    assert 0.99 <= inside.sum() / data.sum() < 0.996
    assert box[0] > 2 * box[1]
    assert box[1] == box[2]
    assert energy_box(np.ones((8, 9, 1)), 1.0) == (7, 9, 1)


def test_a_constant_volume_has_no_peak():
    with pytest.raises(RlnError, match="background"):
        peak_centre(np.full((5, 6, 7), 3.0))


@pytest.mark.parametrize("n", [7, 8])
def test_a_crop_keeps_the_centre_in_the_middle(n):
    data = np.zeros((n, n, n))
    data[n // 2, n // 2, n // 2] = 1
    for largest, size in (((5, 4, 99), (5, 3, 7)), ((1, 1, 1), (1, 1, 1))):
        found = centre_crop(data, largest)
        assert found.shape == size
        assert found[tuple(m // 2 for m in size)] == 1
