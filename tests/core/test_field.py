"""Images as microscopes deliver them: real ones, and those made after reports of users."""

import warnings

import numpy as np
import phantoms
import pytest
from scipy.ndimage import binary_dilation, gaussian_filter
from scipy.signal import fftconvolve

import napari_rln as rln
from napari_rln import samples
from napari_rln.core.errors import RlnWarning

CPU = rln.RichardsonLucy(device="cpu")


# Full widths at half maximum of 1.5 um along z and 0.25 um across it.
PSF = rln.Volume.from_array(
    phantoms.gaussian_psf((25, 25, 25), (2.1233, 1.0617, 1.0617)).data, (0.3, 0.1, 0.1)
)


def _object(shape, seed):
    """Return points, a slanted line and a shell, unlike along every axis."""
    rng = np.random.default_rng(seed)
    truth = np.zeros(shape)
    z, y, x = np.indices(shape)
    nz, ny, nx = shape
    for _ in range(12):
        truth[tuple(rng.integers(2, n - 2) for n in shape)] += 4000
    for t in np.linspace(0.1, 0.6, 200):
        truth[int(t * nz), int(0.2 * ny + t * 0.5 * ny), int(0.9 * nx - t * nx)] += 400
    radius = np.sqrt(((z - nz * 0.6) * 3) ** 2 + (y - ny * 0.7) ** 2 + (x - nx * 0.3) ** 2)
    truth[np.abs(radius - 12) < 1.2] += 120
    return truth


def _light(truth):
    return fftconvolve(truth, PSF.data, mode="same").clip(0)


def _counts(data):
    """Return an image as a camera of 16 bits stores it."""
    return PSF.with_data(np.round(data).astype(np.uint16).astype(np.float32))


def _error(result, truth):
    """Return the relative error at the resolution that can be had, after the best fit."""
    x, g = (gaussian_filter(np.asarray(v, float), (1.5, 1, 1)) for v in (result, truth))
    x, g = x - x.mean(), g - g.mean()
    return np.linalg.norm(np.vdot(x, g) / np.vdot(x, x) * x - g) / np.linalg.norm(g)


def _quietly(function, *given, **named):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RlnWarning)
        return function(*given, **named)


@pytest.fixture(scope="module")
def offsets():
    """Return an object, its photons with read noise, and those of one five times as bright.

    After deconwolf's issue 78 and stitching-spark's issue 6.
    """
    truth = _object((24, 72, 80), seed=0)
    light, rng = _light(truth), np.random.default_rng(3)
    photons = rng.poisson(light + 5) + rng.normal(0, 2, light.shape)
    bright = rng.poisson(5 * light + 5) + rng.normal(0, 2, light.shape)
    return truth, photons, bright


@pytest.mark.parametrize("method", ["rld", "rln"])
def test_a_camera_offset_changes_nothing(offsets, method):
    truth, photons, bright = offsets

    def run(image):
        if method == "rld":
            return rln.deconvolve(_counts(image), PSF, CPU)
        return rln.deconvolve(_counts(image), PSF, rln.Network(device="cpu"))

    near, far = run(photons + 10), run(photons + 32768)
    assert _error(far.data, truth) == pytest.approx(_error(near.data, truth), rel=0.03)
    assert far.data.sum() == pytest.approx(near.data.sum(), rel=0.03)
    if method == "rld":
        assert near.record.facts["iterations"] == far.record.facts["iterations"]
        assert run(bright + 100).data.sum() == pytest.approx(5 * near.data.sum(), rel=0.2)


@pytest.fixture(scope="module")
def scattered():
    """Return an object, its image, which 52 of 524,288 voxels are hot, and the clean result.

    After SpotMAX's issue 10: random telegraph noise, cosmic rays, spikes of a detector.
    """
    rng, shape = np.random.default_rng(0), (32, 128, 128)
    truth = np.zeros(shape)
    for _ in range(120):
        truth[tuple(rng.integers(3, n - 3) for n in shape)] = 6000
    image = rng.poisson(_light(truth) + 20)
    hot = np.zeros(shape, bool)
    for _ in range(52):
        hot[tuple(rng.integers(0, n) for n in shape)] = True
    return truth, image, hot, rln.deconvolve(_counts(image), PSF, CPU)


@pytest.mark.parametrize("value", [500, 2000])
def test_hot_voxels_decide_nothing(scattered, value):
    truth, image, hot, clean = scattered
    with pytest.warns(RlnWarning, match="52 isolated hot voxels"):
        spoilt = rln.deconvolve(_counts(np.where(hot, value, image)), PSF, CPU)
    gains = [found.record.facts["camera"]["gain"] for found in (spoilt, clean)]
    assert gains[0] == pytest.approx(gains[1], rel=0.1)
    counts = [found.record.facts["iterations"] for found in (spoilt, clean)]
    assert counts[0] == pytest.approx(counts[1], rel=0.15)
    away = ~binary_dilation(hot, iterations=3)
    errors = [_error(found.data * away, truth * away) for found in (spoilt, clean)]
    assert errors[0] < 1.05 * errors[1]


def test_what_a_deskew_filled_in_is_left_out():
    """After LLSpy's issue 10 and biahub's issue 118."""
    truth = _object((32, 96, 96), seed=3)
    photons = np.random.default_rng(1).poisson(_light(truth) + 5) + 100
    z, _, x = np.indices(truth.shape)
    inside = (x - 1.2 * z > 2) & (x - 1.2 * z < 50)
    empty = np.random.default_rng(5).poisson(5, truth.shape) + 100
    filled, sheared = (
        _quietly(rln.deconvolve, _counts(np.where(inside, photons, outside)), PSF, CPU)
        for outside in (empty, 0)
    )
    assert sheared.record.facts["background"] == pytest.approx(105, abs=3)
    core = np.roll(inside, 6, 2) & np.roll(inside, -6, 2) & inside
    errors = [_error(found.data * core, truth * core) for found in (sheared, filled)]
    assert errors[0] < 1.1 * errors[1]
    rim = inside & ~core
    levels = [np.quantile(found.data[rim], 0.9) for found in (sheared, filled)]
    assert levels[0] < 1.5 * levels[1] + 1


@pytest.mark.slow
def test_a_nucleus_is_nearer_to_its_confocal_image_by_rld_and_nearer_still_by_rln():
    image, psf, reference = samples.nucleus(), samples.nucleus_psf(), samples.nucleus_confocal()
    box = np.s_[8:36, 20:115, 15:110]

    def likeness(result):
        return np.corrcoef(result.data[box].ravel(), reference.data[box].ravel())[0, 1]

    assert likeness(rln.deconvolve(image, psf, CPU)) >= 0.927
    # A PSF sampled as coarsely as this is beyond what the model was trained on.
    network = _quietly(rln.deconvolve, image, psf, rln.Network(device="cpu"))
    assert likeness(network) >= 0.945
