"""Oracles: voxel-integrated Gaussians, whose shifted and resampled values are known exactly."""

import numpy as np
import pytest
from scipy.special import erf

from napari_rln.core.errors import RlnError
from napari_rln.core.volume import Volume
from napari_rln.psf.peak import peak_centre
from napari_rln.psf.prepare import RESAMPLE_ONLY, PrepareSettings, check_psf, prepare_psf
from napari_rln.psf.shape import asymmetry, fwhm_um

VOXEL = (0.2, 0.1, 0.1)
WHOLE = PrepareSettings(energy_fraction=1.0)
FWHM = 2 * np.sqrt(2 * np.log(2))


def spot(shape, centre, sigma):
    """Return the light of a Gaussian of sum 1 in each voxel; all in voxels."""
    z, y, x = (
        np.diff(erf((np.arange(n + 1) - 0.5 - c) / s / np.sqrt(2))) / 2
        for n, c, s in zip(shape, centre, sigma, strict=True)
    )
    return z[:, None, None] * y[:, None] * x


def middle(shape):
    return tuple(n // 2 for n in shape)


def volume(data, voxel_um=VOXEL):
    return Volume.from_array(data, voxel_um, name="spot")


def test_shift_is_sub_voxel_exact_and_reported():
    sigma, centre = (2.5, 1.5, 1.5), (16.31, 15.55, 18.2)
    ready = prepare_psf(volume(500 * spot((33, 33, 35), centre, sigma)), WHOLE)
    expected = spot(ready.shape, middle(ready.shape), sigma)
    assert np.abs(ready.data - expected).max() < 0.01 * expected.max()
    assert np.allclose(peak_centre(ready.data), middle(ready.shape), atol=0.01)
    assert ready.record is not None
    assert np.allclose(ready.record.facts["shift_voxels"], (-0.31, 0.45, -1.2), atol=0.01)


def test_result_is_a_psf_with_its_record():
    source = volume(40 + 700 * spot((20, 22, 24), (9.8, 11, 12.3), (2, 1.4, 1.4)))
    ready = prepare_psf(source)
    check_psf(ready)
    assert ready.data.dtype == np.float32
    assert ready.data.sum(dtype=np.float64) == pytest.approx(1, abs=1e-6)
    assert all(n % 2 == 1 for n in ready.shape)
    assert ready.record is not None
    assert ready.record.method == "psf prepare"
    assert ready.record.inputs == {"spot": source.hash}
    assert ready.record.facts["background"] == pytest.approx(40, abs=0.01)
    assert ready.record.facts["shape_before"] == [20, 22, 24]
    assert ready.record.facts["shape_after"] == list(ready.shape)
    assert 0.999 <= ready.record.facts["energy_kept"] < 1
    assert ready.record.settings["centre"] == "peak"
    assert ready.record.from_json(ready.record.to_json()) == ready.record


def test_the_files_centre_is_kept_on_request():
    data = spot((21, 21, 21), (10, 10, 10.4), (2, 1.5, 1.5))
    trusted = PrepareSettings(centre="file", background="none", energy_fraction=1.0)
    ready = prepare_psf(volume(data), trusted)
    assert np.allclose(ready.data, data / data.sum(), atol=1e-7)
    even = prepare_psf(volume(spot((20, 20, 20), (10, 10, 10), (2, 1.5, 1.5))), trusted)
    assert even.shape == (19, 19, 19)
    assert np.allclose(peak_centre(even.data), 9, atol=1e-3)


@pytest.mark.parametrize("image_um", [(0.5, 0.25, 0.25), (0.31, 0.13, 0.13), (0.1, 0.07, 0.07)])
def test_resampling_integrates_and_keeps_the_light(image_um):
    sigma = (6.0, 4.0, 4.0)
    fine = volume(spot((61, 51, 51), (30.3, 25.4, 24.8), sigma))
    ready = prepare_psf(fine, WHOLE, image_voxel_um=image_um)
    scaled = [s * v / i for s, v, i in zip(sigma, VOXEL, image_um, strict=True)]
    expected = spot(ready.shape, middle(ready.shape), scaled)
    assert ready.voxel_um == image_um
    assert np.abs(ready.data - expected).max() < 0.002 * expected.max()


def test_coarser_by_three_is_the_sum_of_three():
    rng = np.random.default_rng(0)
    data = spot((27, 27, 27), (13, 13, 13), (4, 4, 4)) * rng.uniform(0.5, 1, (27, 27, 27))
    keep = PrepareSettings(
        background="none", hot_pixels=False, centre="file", noise_floor=0, energy_fraction=1
    )
    ready = prepare_psf(volume(data, (0.1, 0.1, 0.1)), keep, image_voxel_um=(0.3, 0.3, 0.3))
    sums = data.reshape(9, 3, 9, 3, 9, 3).sum(axis=(1, 3, 5))
    assert np.allclose(ready.data, sums / sums.sum(), rtol=1e-5)


def test_noisy_bead_with_offset_and_hot_pixels():
    rng = np.random.default_rng(1)
    sigma, centre = (2.2, 1.6, 1.6), (14.4, 17.3, 15.2)
    clean = spot((31, 33, 33), centre, sigma)
    raw = 100 + 2000 * clean / clean.max() + rng.normal(0, 20, clean.shape)
    raw[:, 4, 29] += 3000
    ready = prepare_psf(volume(raw))
    assert ready.record is not None
    assert ready.record.facts["hot_pixels"] >= 31
    assert ready.record.facts["background"] == pytest.approx(100, abs=2)
    assert ready.record.facts["noise_sd"] == pytest.approx(20, rel=0.1)
    expected = spot(ready.shape, middle(ready.shape), sigma)
    assert np.abs(ready.data - expected).sum() < 0.1  # light in the wrong place
    pedestal = prepare_psf(volume(raw), PrepareSettings(noise_floor=0))
    assert pedestal.shape > ready.shape  # clipped noise all over the box


def test_a_sharp_peak_is_not_taken_for_a_hot_pixel():
    sigma = (1.5 / FWHM,) * 3
    ready = prepare_psf(volume(1000 * spot((15, 15, 15), (7, 7, 7), sigma)), WHOLE)
    assert ready.record is not None
    assert ready.record.facts["hot_pixels"] == 0
    assert ready.data[7, 7, 7] == pytest.approx(spot((15,) * 3, (7,) * 3, sigma).max(), rel=1e-3)


def test_an_asymmetric_psf_keeps_its_orientation():
    data = spot((33, 33, 33), (16, 16, 13.6), (2, 1.5, 1.5)) + 0.8 * spot(
        (33, 33, 33), (16, 16, 19.6), (3, 2, 2)
    )
    ready = prepare_psf(volume(data), WHOLE)
    assert np.allclose(peak_centre(ready.data), middle(ready.shape), atol=0.05)
    assert ready.data[:, :, ready.shape[2] // 2 + 5 :].sum() > 0.3
    assert ready.data[:, :, : ready.shape[2] // 2 - 5].sum() < 0.01
    assert np.allclose(asymmetry(ready.data), asymmetry(data), atol=0.02)


def test_a_psf_far_off_its_middle_keeps_its_light():
    data = spot((31, 31, 31), (7, 15, 15), (2, 1.5, 1.5))
    data += 0.1 * spot((31, 31, 31), (26, 15, 15), (1.5, 3, 3))
    ready = prepare_psf(volume(data), WHOLE)
    assert ready.shape == (47, 31, 31)
    assert ready.data[47 // 2 + 15 :].sum() == pytest.approx(0.1 / 1.1, rel=0.1)


def test_crops_by_energy_and_by_size():
    data = spot((41, 41, 41), (20, 20, 20), (2, 1.5, 1.5))
    assert prepare_psf(volume(data), WHOLE).shape == (41, 41, 41)
    small = prepare_psf(volume(data), PrepareSettings(energy_fraction=0.99))
    assert max(small.shape) < 20
    assert small.record is not None
    assert 0.99 <= small.record.facts["energy_kept"] < 0.999
    limited = prepare_psf(volume(data), PrepareSettings(energy_fraction=1, max_size=(8, 11, 100)))
    assert limited.shape == (7, 11, 41)


def test_one_plane_stays_one_plane():
    data = spot((1, 31, 32), (0, 15.3, 16.2), (1, 2, 2))
    ready = prepare_psf(volume(data), WHOLE, image_voxel_um=(1.0, 0.2, 0.2))
    assert ready.shape == (1, 15, 15)
    integrated = np.sqrt(1 + 1 / 12)  # the voxel widens the Gaussian of sigma 1 voxel
    assert np.allclose(fwhm_um(ready.data, ready.voxel_um)[1:], FWHM * 0.2 * integrated, rtol=0.02)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (np.zeros((5, 5, 5)), "is 0 in every voxel"),
        (np.full((5, 5, 5), 7.0), "is 7 in every voxel"),
        (-1 - spot((9, 9, 9), (4, 4, 4), (1, 1, 1)), "no positive value"),
        (spot((21, 21, 21), (0, 10, 10), (2, 2, 2)), "at the border"),
    ],
)
def test_what_is_no_psf_is_refused(data, message):
    with pytest.raises(RlnError, match=message):
        prepare_psf(volume(data))


def test_a_psf_that_becomes_one_voxel_on_the_grid_of_the_image_is_refused():
    data = volume(spot((9, 9, 9), (4, 4, 4), (1, 1, 1)))
    z, y, x = data.voxel_um
    for settings in (WHOLE, RESAMPLE_ONLY):
        ready = prepare_psf(data, settings, image_voxel_um=(2 * z, 2 * y, 2 * x))
        assert ready.data.max() < 0.6
        with pytest.raises(RlnError, match="one voxel"):
            prepare_psf(data, settings, image_voxel_um=(9 * z, 9 * y, 9 * x))
    plane = volume(spot((1, 9, 9), (0, 4, 4), (1, 1, 1)))
    assert prepare_psf(plane, image_voxel_um=(9 * z, y, x)).shape[0] == 1
    with pytest.raises(RlnError, match="one voxel"):
        prepare_psf(plane, image_voxel_um=(z, 9 * y, 9 * x))


def test_impossible_settings_are_refused():
    data = volume(spot((9, 9, 9), (4, 4, 4), (1, 1, 1)))
    with pytest.raises(RlnError, match=r"background.*5"):
        prepare_psf(data, PrepareSettings(background=5.0))
    with pytest.raises(RlnError, match="units"):
        prepare_psf(data, image_voxel_um=(5.0, 2.5, 2.5))
    with pytest.raises(RlnError, match=r"`energy_fraction`.*0\.2"):
        PrepareSettings(energy_fraction=0.2)
    with pytest.raises(RlnError, match="max_size"):
        PrepareSettings(max_size=(0, 3, 3))
    with pytest.raises(RlnError, match=r"`centre`.*middle"):
        PrepareSettings(centre="middle")  # type: ignore[arg-type]
    with pytest.raises(RlnError, match=r"`background`.*some"):
        PrepareSettings(background="some")  # type: ignore[arg-type]


def test_check_psf_names_the_defect():
    good = spot((9, 9, 9), (4, 4, 4), (1, 1, 1))
    good /= good.sum()
    check_psf(volume(good))
    with pytest.raises(RlnError, match="zero everywhere"):
        check_psf(volume(0 * good))
    with pytest.raises(RlnError, match=r"sum.*2"):
        check_psf(volume(2 * good))
    with pytest.raises(RlnError, match=r"729.*negative"):
        check_psf(volume(-good))
