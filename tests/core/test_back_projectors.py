"""Unmatched back projectors against their formulas, written out for single frequencies."""

import math
from dataclasses import replace

import numpy as np
import phantoms
import pytest
import torch
from scipy import ndimage
from scipy.spatial import ConvexHull, Delaunay

from napari_rln.core.errors import RlnError
from napari_rln.deconvolution.back_projectors import transfer_function
from napari_rln.deconvolution.classical import RichardsonLucy
from napari_rln.deconvolution.convolution import Convolution
from napari_rln.deconvolution.otf_support import support_window
from napari_rln.engine.in_memory import deconvolve

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


# The OTF-masked Wiener filter


def _support(otf, level):
    """Return the frequencies around 0 above a level, all of a transform, 0 in the middle."""
    above = np.fft.fftshift(np.abs(otf)) >= level * np.abs(otf).max()
    parts, _ = ndimage.label(above, np.ones((3, 3, 3)))
    return parts == parts[tuple(n // 2 for n in above.shape)]


@pytest.fixture(scope="module")
def sheet():
    """Return the PSF of a light sheet crossed by a lens, and its forward model.

    Its OTF is a thin disk of frequencies in the plane, and a short column of them along z.
    """
    axes = [np.arange(n) - n // 2 for n in (21, 33, 33)]
    z, y, x = np.meshgrid(*axes, indexing="ij")
    spread = 1 + (z / 4) ** 2
    psf = np.exp(-(y**2 + x**2) / (2 * spread)) / spread * np.exp(-(z**2) / (2 * 3.0**2))
    psf = (psf / psf.sum()).astype(np.float32)
    return psf, Convolution(psf, (42, 66, 66), border="periodic", dtype=torch.float64)


def _full(half, shape):
    """Return the whole of a real image's transfer function, 0 in the middle."""
    return np.fft.fftshift(np.fft.fftn(np.fft.irfftn(half, shape, (0, 1, 2))))


@pytest.mark.parametrize("level", [0.3, 0.05, None])
def test_masked_wiener_is_nothing_beyond_the_support_of_the_otf(sheet, level):
    psf, blur = sheet
    shape = blur.work_shape
    found = transfer_function("masked-wiener", blur, psf, alpha=0.01, beta=level)
    gain = np.abs(_full(found.numpy() * math.prod(shape), shape))
    kernel = np.fft.fftn(psf, shape, (0, 1, 2))
    if level is None:
        values = np.sort(np.abs(kernel), axis=None)[::-1]
        level = values[np.searchsorted(values.cumsum(), 0.9 * values.sum())] / values[0]
    support = _support(kernel, level)
    points = np.argwhere(support)
    centre = np.array(shape) // 2
    points = np.concatenate([points, 2 * centre - points])
    hull = Delaunay(points[ConvexHull(points).vertices])
    enclosed = hull.find_simplex(np.argwhere(np.ones(shape, bool))).reshape(shape) >= 0
    assert support.mean() < 0.6
    assert gain[~enclosed].max() < 1e-6
    # It is the Wiener filter itself over the first four fifths of the way to the edge.
    wiener = transfer_function("wiener", blur, psf, alpha=0.01).numpy() * math.prod(shape)
    inner = ((np.argwhere(enclosed) - centre) * 0.7).round().astype(int) + centre
    places = tuple(np.unique(inner, axis=0).T)
    np.testing.assert_allclose(gain[places], np.abs(_full(wiener, shape))[places], rtol=1e-5)
    assert gain[tuple(centre)] == pytest.approx(1)


def test_the_support_follows_an_otf_that_is_no_ellipsoid():
    # A box of frequencies, with edges along z, y and x at 0.1, 0.2 and 0.3 cycles per voxel.
    limits, shape = (0.1, 0.2, 0.3), (41, 41, 41)
    z, y, x = (
        np.sinc(2 * k * (np.arange(n) - n // 2)) * np.hanning(n + 2)[1:-1]
        for k, n in zip(limits, shape, strict=True)
    )
    window = support_window(np.einsum("i,j,k->ijk", z, y, x), (100, 100, 100), 0.5).numpy()
    for axis, limit in enumerate(limits):
        along = window[tuple(slice(None) if a == axis else 0 for a in range(3))]
        assert along[round(70 * limit)] == 1
        assert along[round(95 * limit)] < 0.5
        assert along[round(105 * limit)] == 0
    corner = tuple(round(65 * k) for k in limits)  # 1.1 times as far as an ellipsoid would reach
    assert window[corner] == 1


def test_noise_beyond_the_support_does_not_widen_it(sheet):
    psf, blur = sheet
    rng = np.random.default_rng(0)
    noisy = rng.poisson(psf * 2e4 / psf.max()) * (psf.max() / 2e4)
    clean, dirty = (support_window(p, blur.work_shape).numpy() for p in (psf, noisy))
    assert np.mean(clean > 0.5) == pytest.approx(np.mean(dirty > 0.5), rel=0.1)


@pytest.mark.parametrize("shape", [(1, 9, 9), (1, 1, 9), (9, 9, 1)])
def test_an_axis_of_one_voxel_has_no_edge_of_support(shape):
    psf = phantoms.gaussian_psf(shape, tuple(1.2 if n > 1 else 1.0 for n in shape)).data
    window = support_window(psf, (8, 16, 20))
    assert window.shape == (8, 16, 11)
    for axis, n in enumerate(shape):
        first = window.select(axis, 0)
        if n == 1:
            assert torch.equal(window, first.unsqueeze(axis).expand_as(window))
        else:
            assert window.select(axis, window.shape[axis] // 2).max() < 1


def test_masked_wiener_needs_few_iterations():
    psf, truth = phantoms.comatic_psf(), phantoms.spots()
    image = phantoms.noisy_image(truth, psf, background=10.0)
    method = RichardsonLucy(iterations=3, background=10.0, acceleration="none")
    masked, matched = (
        deconvolve(image, psf, replace(method, back_projector=name)).data
        for name in ("masked-wiener", "matched")
    )
    assert phantoms.nrmse(masked, truth) < 0.8 * phantoms.nrmse(matched, truth)


def test_masked_wiener_does_not_drift_with_an_asymmetric_psf():
    psf, truth = phantoms.comatic_psf(), phantoms.spots()
    image = psf.with_data(ndimage.convolve(truth, psf.data, mode="constant"))
    places = []
    for iterations in (20, 200):
        method = RichardsonLucy(
            iterations=iterations, back_projector="masked-wiener", background=0.0
        )
        result = deconvolve(image, psf, method).data.astype(float)
        assert result.sum() == pytest.approx(image.data.sum(), rel=0.01)
        places.append([(result * index).sum() / result.sum() for index in np.indices(truth.shape)])
    wanted = [(truth * index).sum() / truth.sum() for index in np.indices(truth.shape)]
    np.testing.assert_allclose(places[0], places[1], atol=0.01)
    np.testing.assert_allclose(places[1], wanted, atol=0.1)
