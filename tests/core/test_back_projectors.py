"""Unmatched back projectors against their formulas, written out for single frequencies."""

import math

import numpy as np
import phantoms
import pytest
import torch

from napari_rln.core.errors import RlnError
from napari_rln.deconvolution.back_projectors import transfer_function
from napari_rln.deconvolution.convolution import Convolution

SHAPE = (16, 32, 64)
LIMIT = (4.0, 4.0, 8.0)  # voxels: the cut-off is frequency 4, 8 and 8 of the transform
AT_CUT_OFF = [(4, 0, 0), (0, 8, 0), (0, 0, 8)]
PSF = phantoms.comatic_psf((9, 9, 9)).data


@pytest.fixture(scope="module")
def blur() -> Convolution:
    return Convolution(PSF, SHAPE, border="periodic", dtype=torch.float64)


@pytest.fixture(scope="module")
def otf() -> np.ndarray:
    """Return the PSF's transform, 1 at frequency 0, centre of the PSF on voxel 0."""
    whole = np.zeros(SHAPE)
    whole[:9, :9, :9] = PSF
    return np.fft.rfftn(np.roll(whole, (-4, -4, -4), (0, 1, 2)))


def made(name, blur, *, alpha=0.01, resolution_voxels=LIMIT, **options) -> np.ndarray:
    """Return a transfer function without the number of voxels that it is divided by."""
    found = transfer_function(
        name, blur, PSF, alpha=alpha, resolution_voxels=resolution_voxels, **options
    )
    return found.numpy() * math.prod(SHAPE)


def squared_frequencies() -> np.ndarray:
    """Return the squared frequencies over those of the cut-off."""
    z, y, x = np.fft.fftfreq(16), np.fft.fftfreq(32), np.fft.rfftfreq(64)
    return (
        (4 * z[:, None, None]) ** 2 + (4 * y[None, :, None]) ** 2 + (8 * x[None, None, :]) ** 2
    )  # fmt: skip


@pytest.mark.parametrize("beta", [0.5, 0.1, 0.01])
def test_butterworth_has_the_gain_beta_at_the_cut_off(blur, beta):
    found = made("butterworth", blur, beta=beta, order=3)
    assert found[0, 0, 0] == pytest.approx(1)
    for place in AT_CUT_OFF:
        assert found[place] == pytest.approx(beta, rel=1e-6)


def test_butterworth_by_hand(blur):
    found = made("butterworth", blur, beta=0.5, order=2)
    # 1 / sqrt(1 + (1 / 0.5^2 - 1) w^4), w the frequency over that of the cut-off
    assert found[2, 0, 0] == pytest.approx(1 / math.sqrt(1 + 3 * 0.5**4))
    assert found[0, 12, 0] == pytest.approx(1 / math.sqrt(1 + 3 * 1.5**4))
    assert found[0, 0, 16] == pytest.approx(1 / math.sqrt(1 + 3 * 2**4))
    assert found[4, -8, 8] == pytest.approx(1 / math.sqrt(1 + 3 * 3**2))
    steep = made("butterworth", blur, beta=0.5, order=10)
    assert steep[0, 4, 0] == pytest.approx(1 / math.sqrt(1 + 3 * 0.5**20))


def test_the_order_is_10_if_none_is_chosen(blur):
    plain, tenth = (made("butterworth", blur, beta=0.5, **o) for o in ({}, {"order": 10}))
    np.testing.assert_array_equal(plain, tenth)


def test_beta_is_the_otf_at_the_cut_off_averaged_over_axes(blur, otf):
    mean = sum(abs(otf[place]) for place in AT_CUT_OFF) / 3
    assert len({round(abs(otf[place]), 4) for place in AT_CUT_OFF}) == 3
    found = made("butterworth", blur)
    for place in AT_CUT_OFF:
        assert found[place] == pytest.approx(mean, rel=1e-6)


def test_a_beta_that_would_be_nothing_is_a_thousandth():
    wide = phantoms.gaussian_psf((15, 15, 15), (2.0, 2.0, 2.0)).data
    blur = Convolution(wide, SHAPE, border="periodic", dtype=torch.float64)
    found = made("butterworth", blur, resolution_voxels=(2.0, 2.0, 2.0))
    assert found[8, 0, 0] == pytest.approx(1e-3)


def test_an_axis_of_one_voxel_has_no_cut_off():
    plane = PSF[4:5] / PSF[4:5].sum()
    blur = Convolution(plane, (1, 32, 64), border="periodic", dtype=torch.float64)
    found = transfer_function("butterworth", blur, plane, alpha=0.01, resolution_voxels=LIMIT)
    otf = blur.otf.abs().numpy() / float(blur.otf.abs().max())
    mean = (otf[0, 8, 0] + otf[0, 0, 8]) / 2
    assert found[0, 8, 0].real.item() * 32 * 64 == pytest.approx(mean, rel=1e-6)


@pytest.mark.parametrize("alpha", [0.1, 0.001])
def test_wiener_by_hand(blur, otf, alpha):
    expected = otf.conj() / (abs(otf) ** 2 + alpha) * (1 + alpha)  # 1 at frequency 0
    np.testing.assert_allclose(made("wiener", blur, alpha=alpha), expected, atol=1e-6)


@pytest.mark.parametrize("beta", [None, 0.1])
def test_wiener_butterworth_by_hand(blur, otf, beta):
    alpha, order = 0.05, 3
    gain = sum(abs(otf[place]) for place in AT_CUT_OFF) / 3
    wiener = otf.conj() / (abs(otf) ** 2 + alpha)
    steepness = gain / (gain**2 + alpha) / (gain if beta is None else beta) ** 2 - 1
    expected = wiener / np.sqrt(1 + steepness * squared_frequencies() ** order) * (1 + alpha)
    found = made("wiener-butterworth", blur, alpha=alpha, beta=beta, order=order)
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_the_gaussian_has_the_resolution_as_its_full_width_at_half_maximum(blur):
    found = np.fft.irfftn(
        made("gaussian", blur, resolution_voxels=(4.0, 6.0, 8.0)), SHAPE, (0, 1, 2)
    )
    assert found[2, 0, 0] / found[0, 0, 0] == pytest.approx(0.5, rel=1e-3)
    assert found[0, 3, 0] / found[0, 0, 0] == pytest.approx(0.5, rel=1e-3)
    assert found[0, 0, 4] / found[0, 0, 0] == pytest.approx(0.5, rel=1e-3)
    assert found.sum() == pytest.approx(1)


def test_the_resolution_is_the_psfs_width_if_none_is_chosen(blur):
    psf = phantoms.gaussian_psf((11, 9, 9), (1.6, 1.2, 1.2)).data
    width = 2 * math.sqrt(2 * math.log(2))  # of a Gaussian of standard deviation 1
    found, expected = (
        transfer_function("gaussian", blur, psf, alpha=0.01, resolution_voxels=limit).numpy()
        for limit in (None, (1.6 * width, 1.2 * width, 1.2 * width))
    )
    np.testing.assert_allclose(found / found[0, 0, 0], expected / expected[0, 0, 0], atol=0.02)


def test_a_psf_of_one_plane_has_a_resolution_of_one_voxel_along_z(blur):
    plane = phantoms.gaussian_psf((1, 9, 9), (1.0, 1.2, 1.2)).data
    found, expected = (
        transfer_function("gaussian", blur, plane, alpha=0.01, resolution_voxels=limit)
        for limit in (None, (1.0, 3.0, 3.0))
    )
    np.testing.assert_allclose(found[:, 0, 0], expected[:, 0, 0], rtol=1e-6)


def test_a_psf_without_half_maximum_needs_a_resolution(blur):
    flat = phantoms.gaussian_psf((3, 3, 3), (9.0, 9.0, 9.0)).data
    with pytest.raises(RlnError, match=r"\(3, 3, 3\).*resolution"):
        transfer_function("gaussian", blur, flat, alpha=0.01)
    transfer_function("gaussian", blur, flat, alpha=0.01, resolution_voxels=LIMIT)
