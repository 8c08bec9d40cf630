"""The forward model against scipy, and its adjoint against itself."""

from importlib.util import find_spec

import numpy as np
import pytest
import scipy.fft
import torch
from scipy import ndimage, signal

from napari_rln.core.errors import RlnError
from napari_rln.deconvolution.convolution import Convolution
from napari_rln.deconvolution.fft import FftwTransform, ScipyTransform, TorchTransform, fast_shape

BORDERS = ["extended", "periodic", "reflect"]
PSF_SHAPES = [(5, 7, 9), (4, 6, 8), (4, 7, 8), (1, 7, 6)]


def _psf(shape, seed=0):
    psf = np.random.default_rng(seed).random(shape).astype(np.float32)
    return psf / psf.sum()


@pytest.mark.parametrize("border", BORDERS)
@pytest.mark.parametrize("psf_shape", PSF_SHAPES)
@pytest.mark.parametrize("image_shape", [(12, 13, 11), (16, 10, 18)])
def test_adjoint(border, psf_shape, image_shape):
    blur = Convolution(_psf(psf_shape), image_shape, border=border)
    generator = torch.Generator().manual_seed(1)
    x = torch.rand(blur.estimate_shape, generator=generator)
    y = torch.rand(image_shape, generator=generator)
    forward = float((blur.A(x).double() * y).sum())
    backward = float((blur.A_adjoint(y).double() * x).sum())
    assert abs(forward - backward) < 1e-5 * abs(forward)


@pytest.mark.parametrize("psf_shape", PSF_SHAPES)
@pytest.mark.parametrize(("border", "mode"), [("periodic", "wrap"), ("reflect", "reflect")])
def test_blur_is_scipys_convolution(border, mode, psf_shape):
    psf, x = _psf(psf_shape), np.random.default_rng(2).random((12, 13, 11)).astype(np.float32)
    expected = ndimage.convolve(x.astype(float), psf.astype(float), mode=mode)
    result = Convolution(psf, x.shape, border=border).A(torch.from_numpy(x))
    np.testing.assert_allclose(result, expected, atol=1e-6)


@pytest.mark.parametrize("psf_shape", PSF_SHAPES)
def test_extended_blur_is_the_valid_part_of_scipys_convolution(psf_shape):
    psf, image_shape = _psf(psf_shape), (12, 13, 11)
    blur = Convolution(psf, image_shape)
    x = np.random.default_rng(3).random(blur.estimate_shape).astype(np.float32)
    used = x[tuple(slice(n + p - 1) for n, p in zip(image_shape, psf_shape, strict=True))]
    expected = signal.fftconvolve(used.astype(float), psf.astype(float), mode="valid")
    np.testing.assert_allclose(blur.A(torch.from_numpy(x)), expected, atol=1e-6)


@pytest.mark.parametrize("psf_shape", [(5, 7, 9), (4, 6, 8)])
def test_window_lies_where_the_psfs_centre_says(psf_shape):
    psf = np.zeros(psf_shape, np.float32)
    psf[tuple(n // 2 for n in psf_shape)] = 1  # a point: blurring changes nothing
    blur = Convolution(psf, (12, 13, 11))
    x = torch.rand(blur.estimate_shape)
    np.testing.assert_allclose(blur.A(x), x[blur.window], atol=1e-6)


def test_a_psf_larger_than_the_image_needs_the_extended_border():
    psf = _psf((15, 9, 9))
    assert Convolution(psf, (8, 12, 12)).A_adjoint(torch.ones(8, 12, 12)).sum() > 0
    with pytest.raises(RlnError, match=r"\(15, 9, 9\).*\(8, 12, 12\)"):
        Convolution(psf, (8, 12, 12), border="reflect")


def test_normaliser_inverts_the_light_that_arrives():
    psf = _psf((5, 7, 9))
    blur = Convolution(psf, (12, 13, 11))
    arrives = blur.sensitivity()
    normaliser = blur.normaliser(arrives.clone())
    seen = arrives > 0.011
    np.testing.assert_allclose((normaliser * arrives)[seen], 1, rtol=1e-5)
    assert (normaliser[arrives < 0.009] == 0).all()
    np.testing.assert_allclose(arrives[blur.window][2:-2, 3:-3, 4:-4], 1, atol=1e-5)


def _transforms(shape, dtype=torch.float32):
    with_fftw = [FftwTransform(shape, dtype)] if find_spec("pyfftw") else []
    return [
        *with_fftw,
        ScipyTransform(shape, dtype),
        TorchTransform(shape, torch.device("cpu"), dtype),
    ]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(6, 10, 15), (1, 9, 16), (7, 1, 6), (40, 64, 33), (3, 300, 290)])
def test_every_transform_filters_like_numpy(shape, dtype):
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(shape, dtype=dtype, generator=generator)
    kernel = torch.rand(shape, dtype=dtype, generator=generator) / x.numel()
    atol = 1e-4 if dtype == torch.float32 else 1e-11
    for transform in _transforms(shape, dtype):
        original = x.clone()
        transfer = transform.spectrum(kernel)
        expected = scipy.fft.rfftn(kernel.double().numpy())
        np.testing.assert_allclose(transfer, expected, atol=atol)
        for conjugate in (False, True):
            factor = expected.conj() if conjugate else expected
            filtered = scipy.fft.irfftn(scipy.fft.rfftn(x.double().numpy()) * factor, s=shape)
            transfer.div_(x.numel())
            transform.filter(x, transfer, conjugate=conjugate, constant=0.5)
            np.testing.assert_allclose(transform.real, filtered + 0.5, atol=atol)
            transform.filter(x, transfer.contiguous(), conjugate=conjugate, constant=0.5)
            np.testing.assert_allclose(transform.real, filtered + 0.5, atol=atol)
            transfer.mul_(x.numel())
        assert torch.equal(x, original)


@pytest.mark.parametrize("shape", [(12, 20, 15), (40, 64, 33)])
def test_what_is_given_has_zeros_around_it_and_what_is_wanted_is_filled(shape):
    given, wanted = (
        (slice(3, 9), slice(5, 19), slice(4, 13)),
        (slice(2, 11), slice(0, 7), slice(1, 9)),
    )
    full = torch.zeros(shape)
    full[given] = torch.rand(full[given].shape)
    for transform in _transforms(shape):
        transfer = transform.spectrum(torch.rand(shape)) / full.numel()
        transform.filter(full, transfer)
        expected = transform.real[wanted].clone()
        transform.real.fill_(7)
        transform.filter(full[given].clone(), transfer, source_box=given, result_box=wanted)
        np.testing.assert_allclose(transform.real[wanted], expected, atol=1e-4)
        transform.real.fill_(7)
        inside = transform.real[given]
        inside.copy_(full[given])
        transform.filter(inside, transfer, source_box=given)  # a view of what is filled
        np.testing.assert_allclose(transform.real[wanted], expected, atol=1e-4)


def test_results_are_equal_to_the_bit_on_any_number_of_threads():
    pytest.importorskip("pyfftw")
    shape, threads = (24, 70, 66), torch.get_num_threads()
    x, kernel = torch.rand(shape), torch.rand(shape)
    found = []
    try:
        for count in (1, 2, 5):
            torch.set_num_threads(count)
            transform = FftwTransform(shape)
            transform.filter(x, transform.spectrum(kernel))
            found.append(transform.real)
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])


def test_fast_shape_is_smooth_and_large_enough():
    for n in (94, 286, 331):
        fast = fast_shape((n, n, n))[0]
        rest = fast
        for prime in (2, 3, 5, 7):
            while rest % prime == 0:
                rest //= prime
        assert rest == 1
        assert n <= fast <= 1.1 * n
    assert fast_shape((1, 94, 286)) == (1, 96, 288)


@pytest.mark.parametrize("border", BORDERS)
def test_background_is_added_to_the_blurred_estimate(border):
    blur = Convolution(_psf((5, 7, 9)), (12, 13, 11), border=border)
    x = torch.rand(blur.estimate_shape)
    plain = blur.A(x).clone()
    np.testing.assert_allclose(blur.A(x, background=7.0), plain + 7, rtol=1e-5)
