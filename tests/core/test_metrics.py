import numpy as np
import pytest
from scipy.ndimage import convolve, gaussian_filter
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from napari_rln import metrics
from napari_rln.errors import RlnError


@pytest.fixture(scope="module")
def truth() -> np.ndarray:
    """(24, 40, 48) float32, smooth blobs with a sharp part."""
    rng = np.random.default_rng(0)
    blobs = gaussian_filter((rng.random((24, 40, 48)) > 0.995).astype(np.float32), 1) * 1000
    return blobs + 5


@pytest.fixture(scope="module")
def noisy(truth: np.ndarray) -> np.ndarray:
    rng = np.random.default_rng(1)
    return truth + rng.normal(0, 3, truth.shape).astype(np.float32)


def test_affine_fit_recovers_scale_and_offset(truth):
    scale, offset = metrics.affine_fit((truth - 7) / 3, truth)
    assert scale == pytest.approx(3, rel=1e-5)
    assert offset == pytest.approx(7, rel=1e-4)


def test_affine_fit_agrees_with_lstsq(truth, noisy):
    design = np.stack([noisy.ravel(), np.ones(noisy.size)], axis=1).astype(np.float64)
    expected = np.linalg.lstsq(design, truth.ravel().astype(np.float64))[0]
    np.testing.assert_allclose(metrics.affine_fit(noisy, truth), expected, rtol=1e-8)


def test_affine_fit_of_a_flat_result_is_the_mean(truth):
    assert metrics.affine_fit(np.full_like(truth, 4), truth) == (0, pytest.approx(truth.mean()))


def test_psnr_raw_is_skimages_with_the_truths_range(truth, noisy):
    expected = peak_signal_noise_ratio(
        truth.astype(np.float64), noisy.astype(np.float64), data_range=float(np.ptp(truth))
    )
    assert metrics.psnr(noisy, truth) == pytest.approx(expected, abs=1e-4)


def test_fit_makes_psnr_nrmse_and_ssim_blind_to_scale_and_offset(truth, noisy):
    scaled = noisy * 0.01 - 40
    assert metrics.psnr(scaled, truth, fit=True) == pytest.approx(
        metrics.psnr(noisy, truth, fit=True), abs=1e-3
    )
    assert metrics.psnr(scaled, truth) < metrics.psnr(noisy, truth) - 10
    assert metrics.nrmse(scaled, truth) == pytest.approx(metrics.nrmse(noisy, truth), rel=1e-4)
    assert metrics.ssim(scaled, truth) == pytest.approx(metrics.ssim(noisy, truth), rel=1e-4)
    assert metrics.pearson(scaled, truth) == pytest.approx(metrics.pearson(noisy, truth), rel=1e-5)


def test_nrmse_without_fit_is_the_relative_norm(truth):
    assert metrics.nrmse(truth * 1.25, truth, fit=False) == pytest.approx(0.25, rel=1e-5)


def test_equal_volumes_score_perfectly(truth):
    assert metrics.psnr(truth, truth) == float("inf")
    assert metrics.nrmse(truth, truth) == pytest.approx(0, abs=1e-12)
    assert metrics.ssim(truth, truth) == pytest.approx(1)
    assert metrics.pearson(truth, truth) == pytest.approx(1)


def test_pearson_is_numpys_and_zero_for_flat(truth, noisy):
    expected = np.corrcoef(noisy.ravel(), truth.ravel())[0, 1]
    assert metrics.pearson(noisy, truth) == pytest.approx(expected, rel=1e-6)
    assert metrics.pearson(np.ones_like(truth), truth) == 0


def test_ssim_of_a_thin_volume_is_the_mean_over_planes(truth, noisy):
    thin, thin_noisy = truth[:4].astype(np.float64), noisy[:4].astype(np.float64)
    expected = np.mean(
        [
            structural_similarity(
                a,
                b,
                data_range=np.ptp(thin),
                gaussian_weights=True,
                sigma=1.5,
                use_sample_covariance=False,
            )
            for a, b in zip(thin_noisy, thin, strict=True)
        ]
    )
    assert metrics.ssim(thin_noisy, thin, fit=False) == pytest.approx(expected, rel=1e-9)


def test_lateral_and_axial_resolution_of_a_band_limited_volume():
    rng = np.random.default_rng(2)
    voxel_um = (0.2, 0.1, 0.1)
    truth = rng.normal(size=(48, 64, 64))
    fz, fy, fx = np.meshgrid(
        *(np.fft.fftfreq(n, d) for n, d in zip(truth.shape, voxel_um, strict=True)), indexing="ij"
    )
    kept = (np.hypot(fy, fx) < 1 / 0.4) & (abs(fz) < 1 / 0.8)
    signal = np.fft.ifftn(np.fft.fftn(truth) * kept).real
    result = signal + rng.normal(0, 1e-2, truth.shape)
    lateral = metrics.fourier_shell_correlation(result, truth, voxel_um, "lateral")
    axial = metrics.fourier_shell_correlation(result, truth, voxel_um, "axial")
    # The window smears the band's edge by about one shell.
    assert axial.resolution_um == pytest.approx(0.8, rel=0.1)
    assert lateral.resolution_um == pytest.approx(0.4, rel=0.1)
    assert (lateral.correlation <= 1 + 1e-12).all()


def test_resolution_without_a_fall_is_the_nyquist_limit(truth):
    curve = metrics.fourier_shell_correlation(truth, 2 * truth + 1, (0.3, 0.1, 0.1), "axial")
    assert curve.resolution_um == pytest.approx(0.6)
    np.testing.assert_allclose(curve.correlation, 1)


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
    fit = metrics.reconvolution_residual(image, truth, psf, gain=2.5, intercept=4)
    assert fit.chi2 == pytest.approx(1, abs=0.03)
    assert fit.scale == pytest.approx(2.5, rel=0.01)
    assert fit.map[fit.inside].std() == pytest.approx(1, abs=0.02)
    mirrored = metrics.reconvolution_residual(
        image, truth, psf[::-1, ::-1, ::-1], gain=2.5, intercept=4
    )
    assert mirrored.chi2 > 1.2


def test_residual_is_evaluated_only_where_the_kernel_lies_inside(truth):
    fit = metrics.reconvolution_residual(truth, truth, np.full((5, 5, 7), 1 / 175), gain=1)
    expected = np.zeros(truth.shape, bool)
    expected[2:-2, 2:-2, 3:-3] = True
    np.testing.assert_array_equal(fit.inside, expected)
    assert not fit.map[~expected].any()


def test_residual_is_evaluated_everywhere_if_the_kernel_never_fits(truth):
    fit = metrics.reconvolution_residual(truth, truth, np.ones((47, 79, 95)), gain=1)
    assert fit.inside.all()


def test_residual_does_not_depend_on_the_scale_of_the_result(truth, noisy):
    psf = np.zeros((3, 3, 3))
    psf[1, 1, 1] = 1
    one = metrics.reconvolution_residual(noisy, truth, psf, gain=0.5, intercept=1)
    other = metrics.reconvolution_residual(noisy, truth * 16, psf * 3, gain=0.5, intercept=1)
    assert other.chi2 == pytest.approx(one.chi2, rel=1e-6)
    assert other.scale == pytest.approx(one.scale / 16, rel=1e-6)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda t: metrics.psnr(t[1:], t), r"crop or\s+resample"),
        (lambda t: metrics.psnr(t, np.ones_like(t)), "truth is flat"),
        (lambda t: metrics.nrmse(t, np.zeros_like(t)), "zero everywhere"),
        (lambda t: metrics.ssim(t[:, :8], t[:, :8]), "at least 11 x 11"),
        (
            lambda t: metrics.fourier_shell_correlation(t[:2], t[:2], (1, 1, 1), "axial"),
            "needs 4 voxels",
        ),
        (lambda t: metrics.reconvolution_residual(t, t, t, gain=0), "no noise"),
    ],
)
def test_bad_input_is_named(truth, call, message):
    with pytest.raises(RlnError, match=message):
        call(truth)
