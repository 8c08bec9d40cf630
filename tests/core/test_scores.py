import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from napari_rln.core import metrics
from napari_rln.core.volume import Volume
from napari_rln.evaluate.scores import score


@pytest.fixture(scope="module")
def truth() -> Volume:
    rng = np.random.default_rng(0)
    blobs = gaussian_filter((rng.random((20, 32, 36)) > 0.99).astype(np.float64), 0.7)
    return Volume.from_array(blobs * 2000, (0.2, 0.1, 0.1), name="truth")


@pytest.fixture(scope="module")
def image(truth: Volume) -> Volume:
    noisy = np.random.default_rng(1).poisson(truth.data / 2 + 10)
    return Volume.from_array(noisy, truth.voxel_um, name="raw")


def test_plane_scores_share_the_volumes_fit_and_range(image, truth):
    scores = score(image, truth, "xz")
    fit = metrics.fitted(image.data, truth.data)
    peak = float(np.ptp(truth.data))
    shown = [y for y in range(truth.shape[1]) if np.ptp(truth.data[:, y]) >= 0.05 * peak]
    expected = np.mean([metrics.psnr(fit[:, y], truth.data[:, y], data_range=peak) for y in shown])
    assert scores.psnr_db == pytest.approx(expected)


def test_flat_planes_do_not_count(truth, image):
    padded_truth = truth.with_data(np.pad(truth.data, [(4, 4), (0, 0), (0, 0)]))
    padded = image.with_data(np.pad(image.data, [(4, 4), (0, 0), (0, 0)], constant_values=10))
    fitted = metrics.fitted(padded.data, padded_truth.data)[4:-4]
    expected = np.mean([metrics.pearson(a, b) for a, b in zip(fitted, truth.data, strict=True)])
    assert score(padded, padded_truth, "xy").pearson == pytest.approx(expected)


def test_a_perfect_result_scores_perfectly_on_every_plane(truth):
    for plane in (None, "xy", "xz", "yz"):
        scores = score(truth, truth, plane)
        assert scores.psnr_raw_db == np.inf
        assert scores.nrmse == pytest.approx(0, abs=1e-9)
        assert (scores.ssim, scores.pearson) == pytest.approx((1, 1))


def test_planes_of_a_truth_that_is_flat_in_all_of_them_have_no_scores(image, truth):
    steps = np.broadcast_to(np.arange(20, dtype=np.float32)[:, None, None], truth.shape)
    layered = truth.with_data(steps)
    assert score(image, layered, "xy") is None
    assert score(image, layered, "xz") is not None
