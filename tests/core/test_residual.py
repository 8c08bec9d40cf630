import numpy as np
import phantoms
import pytest
from scipy.ndimage import convolve, gaussian_filter

from napari_rln.core.errors import RlnError
from napari_rln.deconvolution.calibration import Calibration, Camera
from napari_rln.deconvolution.noise_spectrum import Spectrum
from napari_rln.deconvolution.residual import reconvolution_residual


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
    known = Calibration(camera=Camera(gain=2.5, read_noise=2.0))
    fit = reconvolution_residual(image, 2.5 * truth, psf, known)
    assert fit.chi2 == pytest.approx(1, abs=0.03)
    assert fit.scale == pytest.approx(1, rel=0.01)
    assert fit.flux_ratio == pytest.approx(1, rel=0.01)
    assert fit.map[fit.inside].std() == pytest.approx(1, abs=0.02)
    mirrored = reconvolution_residual(image, 2.5 * truth, psf[::-1, ::-1, ::-1], known)
    assert mirrored.chi2 > 1.2


def test_residual_is_evaluated_only_where_the_kernel_lies_inside(truth):
    fit = reconvolution_residual(truth, truth, np.full((5, 5, 7), 1 / 175), Calibration())
    expected = np.zeros(truth.shape, bool)
    expected[2:-2, 2:-2, 3:-3] = True
    np.testing.assert_array_equal(fit.inside, expected)
    assert not fit.map[~expected].any()


def test_residual_is_evaluated_everywhere_if_the_kernel_never_fits(truth):
    fit = reconvolution_residual(truth, truth, np.ones((47, 79, 95)), Calibration())
    assert fit.inside.all()


def test_a_result_of_another_brightness_does_not_explain_the_image(truth, noisy):
    psf = np.zeros((3, 3, 3))
    psf[1, 1, 1] = 1
    known = Calibration(camera=Camera(gain=0.5, read_noise=1.0))
    one = reconvolution_residual(noisy, truth, psf, known)
    bright = reconvolution_residual(noisy, 1.5 * truth, psf * 3, known)
    assert bright.chi2 > 1.5 * one.chi2
    assert bright.scale == pytest.approx(1 / 1.5, rel=0.01)
    assert bright.flux_ratio == pytest.approx(1.5 * one.flux_ratio, rel=1e-6)


def test_noise_that_was_averaged_is_less(truth):
    psf = np.zeros((3, 3, 3))
    psf[1, 1, 1] = 1
    rng = np.random.default_rng(2)
    mean = np.full((16, 32, 32), 400.0)
    image = rng.normal(mean, np.sqrt(0.5 * mean))  # as after a shift by half a voxel
    halved = Calibration(spectrum=Spectrum(correlations=((), (), (0.5,))))
    assert halved.spectrum.variance_ratio == 0.5
    fit = reconvolution_residual(image, mean, psf, halved)
    assert fit.chi2 == pytest.approx(1, abs=0.05)


def test_what_was_not_seen_does_not_count(truth, noisy):
    psf = np.zeros((3, 3, 3))
    psf[1, 1, 1] = 1
    known = Calibration(camera=Camera(gain=0.5, read_noise=1.0))
    seen = np.ones(truth.shape, bool)
    seen[:4] = False
    spoilt = noisy.copy()
    spoilt[:4] = 0
    fit = reconvolution_residual(spoilt, truth, psf, known, mask=seen)
    assert fit.chi2 < 0.5 * reconvolution_residual(spoilt, truth, psf, known).chi2
    assert not fit.inside[:4].any()


def test_a_line_without_noise_is_named(truth):
    dark = Calibration(camera=Camera(offset=1e6))
    with pytest.raises(RlnError, match="photons"):
        reconvolution_residual(truth, truth, truth, dark)


@pytest.mark.parametrize(
    ("shape", "kernel"), [((12, 9, 7), (5, 4, 3)), ((6, 6, 6), (9, 13, 10)), ((1, 8, 8), (1, 3, 5))]
)
def test_voxels_that_miss_a_hundredth_of_the_psf_are_left_out(shape, kernel):
    rng = np.random.default_rng(3)
    psf = rng.random(kernel)
    image = rng.poisson(100, shape).astype(np.float32)
    found = reconvolution_residual(image, image, psf, Calibration()).inside
    seen = np.zeros(shape)
    for at in np.ndindex(*shape):
        for offset in np.ndindex(*kernel):
            source = [p - o + k // 2 for p, o, k in zip(at, offset, kernel, strict=True)]
            if all(0 <= s < n for s, n in zip(source, shape, strict=True)):
                seen[at] += psf[offset]
    expected = seen >= 0.99 * psf.sum()
    assert np.array_equal(found, expected if expected.mean() >= 0.1 else np.ones(shape, bool))
