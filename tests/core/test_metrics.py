import numpy as np
import phantoms
import pytest
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from napari_rln.core import metrics
from napari_rln.core.errors import RlnError


@pytest.fixture(scope="module")
def truth() -> np.ndarray:
    return phantoms.blobs()


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


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda t: metrics.psnr(t[1:], t), r"crop or\s+resample"),
        (lambda t: metrics.psnr(t, np.ones_like(t)), "truth is flat"),
        (lambda t: metrics.nrmse(t, np.zeros_like(t)), "zero everywhere"),
        (lambda t: metrics.ssim(t[:, :8], t[:, :8]), "at least 11 x 11"),
    ],
)
def test_bad_input_is_named(truth, call, message):
    with pytest.raises(RlnError, match=message):
        call(truth)
