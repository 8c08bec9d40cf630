import numpy as np
import phantoms
import pytest
from scipy.ndimage import convolve, gaussian_filter

from napari_rln.errors import RlnError
from napari_rln.residual import reconvolution_residual


@pytest.fixture(scope="module")
def truth() -> np.ndarray:
    return phantoms.blobs()


@pytest.fixture(scope="module")
def noisy(truth: np.ndarray) -> np.ndarray:
    rng = np.random.default_rng(1)
    return truth + rng.normal(0, 3, truth.shape).astype(np.float32)


@pytest.mark.parametrize("shape", [(5, 7, 7), (4, 6, 6)])
def test_residual_of_the_true_object_is_one(truth, shape):
    rng = np.random.default_rng(3)
    psf = gaussian_filter(rng.random(shape), 0.7)
    psf[0] *= 3  # an asymmetric one, so that a mirrored kernel shows
    psf /= psf.sum()
    # ndimage.convolve centres on n // 2 for odd sizes; an even one is made odd by a trailing zero.
    odd = np.pad(psf, [(0, 1 - n % 2) for n in psf.shape])
    mean = convolve(truth.astype(np.float64), odd, mode="constant")
    image = 2.5 * rng.poisson(mean) + rng.normal(0, 2, mean.shape)
    fit = reconvolution_residual(image, truth, psf, gain=2.5, intercept=4)
    assert fit.chi2 == pytest.approx(1, abs=0.03)
    assert fit.scale == pytest.approx(2.5, rel=0.01)
    assert fit.map[fit.inside].std() == pytest.approx(1, abs=0.02)
    mirrored = reconvolution_residual(image, truth, psf[::-1, ::-1, ::-1], gain=2.5, intercept=4)
    assert mirrored.chi2 > 1.2


def test_residual_is_evaluated_only_where_the_kernel_lies_inside(truth):
    fit = reconvolution_residual(truth, truth, np.full((5, 5, 7), 1 / 175), gain=1)
    expected = np.zeros(truth.shape, bool)
    expected[2:-2, 2:-2, 3:-3] = True
    np.testing.assert_array_equal(fit.inside, expected)
    assert not fit.map[~expected].any()


def test_residual_is_evaluated_everywhere_if_the_kernel_never_fits(truth):
    fit = reconvolution_residual(truth, truth, np.ones((47, 79, 95)), gain=1)
    assert fit.inside.all()


def test_residual_does_not_depend_on_the_scale_of_the_result(truth, noisy):
    psf = np.zeros((3, 3, 3))
    psf[1, 1, 1] = 1
    one = reconvolution_residual(noisy, truth, psf, gain=0.5, intercept=1)
    other = reconvolution_residual(noisy, truth * 16, psf * 3, gain=0.5, intercept=1)
    assert other.chi2 == pytest.approx(one.chi2, rel=1e-6)
    assert other.scale == pytest.approx(one.scale / 16, rel=1e-6)


def test_a_line_without_noise_is_named(truth):
    with pytest.raises(RlnError, match="no noise"):
        reconvolution_residual(truth, truth, truth, gain=0)
