"""When to stop: the rule by itself, the part of an image it looks at, and how good it is."""

import numpy as np
import phantoms
import pytest
import tifffile

from napari_rln.deconvolution import deconvolve, iterate
from napari_rln.rld import RldSettings
from napari_rln.stop import Watch, telling_crop
from napari_rln.volume import Volume


def _followed(deviances, chi2=1.0):
    """Return the iteration that a watch names, and how many it wanted to see."""
    watch = Watch()
    for seen, deviance in enumerate(deviances, start=1):
        if watch.add(float(deviance), chi2):
            return watch.iteration, seen
    return watch.iteration, None


def test_worse_predictions_end_the_search_at_the_best():
    k = np.arange(1, 101)
    best, seen = _followed((k - 20.0) ** 2)
    assert best == 20
    assert 21 < seen < 35


def test_one_bad_prediction_does_not_end_the_search():
    deviances = (np.arange(1, 101) - 30.0) ** 2
    deviances[10] += 500
    assert _followed(deviances)[0] == 30


def test_gains_that_are_nothing_end_the_search():
    best, seen = _followed(1 + np.exp(-0.5 * np.arange(100)))
    assert best == seen < 30


def test_what_noise_cannot_explain_is_not_followed_for_ever():
    slow = 50 + 50 / np.arange(1, 201)  # ever better, never good
    assert _followed(slow, chi2=1.0)[1] > 2 * _followed(slow, chi2=60.0)[1]


def test_a_large_image_is_judged_by_its_structured_part():
    image = np.zeros((16, 1500, 900), np.float32)
    image[:, 1100:1200, 300:400] = phantoms.spots((16, 100, 100))
    part = telling_crop(image, (9, 31, 31))
    assert image[part].size <= 2**20
    assert image[part].sum() == pytest.approx(image.sum(), rel=1e-3)
    assert telling_crop(image[:, :200, :200], (9, 31, 31)) == (slice(None),) * 3


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["sym", "asym"])
@pytest.mark.parametrize("photons", [1.0, 0.3, 0.1])
def test_stops_within_3_percent_of_the_best(shared, kind, photons):
    folder = shared / "data" / "peers_problem"
    truth = tifffile.imread(folder / "truth_x16.tif") / 16
    counts = tifffile.imread(folder / f"image_{kind}.tif")
    counts = np.random.default_rng(0).binomial(counts, photons)
    kernel = tifffile.imread(folder / f"psf_{kind}.tif").astype(float)
    psf = Volume.from_array(kernel / kernel.sum(), phantoms.VOXEL_UM)
    image = Volume.from_array(counts, phantoms.VOXEL_UM)
    errors = [
        phantoms.nrmse(report.estimate(), truth)
        for report in iterate(image, psf, RldSettings(iterations=60))
    ]
    stopped = deconvolve(image, psf)
    assert phantoms.nrmse(stopped.data, truth) < 1.03 * min(errors)
