"""Images as microscopes deliver them: real ones, and those made after reports of users."""

import runpy
import sys
import warnings

import numpy as np
import pytest
from scipy.ndimage import binary_dilation, gaussian_filter

import napari_rln as rln
from napari_rln.core.errors import RlnWarning

CPU = rln.RichardsonLucy(device="cpu")


@pytest.fixture
def case(shared, tmp_path, monkeypatch):
    """Return a function that makes the files of a case and returns their folder."""

    def make(number):
        script = next((shared / "cases").glob(f"{number:02d}_*.py"))
        monkeypatch.setattr(sys, "argv", [str(script), str(tmp_path)])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            runpy.run_path(str(script), run_name="__main__")
        return tmp_path

    return make


def _read(folder, name):
    return rln.read_volume(folder / f"{name}.tif")


def _error(result, truth):
    """Return the relative error at the resolution that can be had, after the best fit."""
    x, g = (gaussian_filter(np.asarray(v, float), (1.5, 1, 1)) for v in (result, truth))
    x, g = x - x.mean(), g - g.mean()
    return np.linalg.norm(np.vdot(x, g) / np.vdot(x, x) * x - g) / np.linalg.norm(g)


def _quietly(function, *given, **named):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RlnWarning)
        return function(*given, **named)


@pytest.mark.parametrize("method", ["rld", "rln"])
def test_a_camera_offset_changes_nothing(case, method):
    folder = case(18)
    truth, psf = np.load(folder / "truth.npy"), _read(folder, "psf")
    psf = psf.with_data(psf.data / psf.data.sum())

    def run(name):
        image = _read(folder, name)
        if method == "rld":
            return rln.deconvolve(image, psf, CPU)
        return rln.deconvolve(image, psf, rln.Network(device="cpu"))

    near, far = run("offset_00010"), run("offset_32768")
    assert _error(far.data, truth) == pytest.approx(_error(near.data, truth), rel=0.03)
    assert far.data.sum() == pytest.approx(near.data.sum(), rel=0.03)
    if method == "rld":
        assert near.record.facts["iterations"] == far.record.facts["iterations"]
        bright = run("bright")
        assert bright.data.sum() == pytest.approx(5 * near.data.sum(), rel=0.2)


@pytest.mark.parametrize("value", [500, 2000])
def test_hot_voxels_decide_nothing(case, value):
    folder = case(22)
    truth, psf, hot = (
        np.load(folder / "truth.npy"),
        _read(folder, "psf"),
        np.load(folder / "hot.npy"),
    )
    psf = psf.with_data(psf.data / psf.data.sum())
    clean = rln.deconvolve(_read(folder, "clean"), psf, CPU)
    with pytest.warns(RlnWarning, match="52 isolated hot voxels"):
        spoilt = rln.deconvolve(_read(folder, f"hot{value}"), psf, CPU)
    gains = [found.record.facts["camera"]["gain"] for found in (spoilt, clean)]
    assert gains[0] == pytest.approx(gains[1], rel=0.1)
    counts = [found.record.facts["iterations"] for found in (spoilt, clean)]
    assert counts[0] == pytest.approx(counts[1], rel=0.15)
    away = ~binary_dilation(hot, iterations=3)
    errors = [_error(found.data * away, truth * away) for found in (spoilt, clean)]
    assert errors[0] < 1.05 * errors[1]


def test_what_a_deskew_filled_in_is_left_out(case):
    folder = case(8)
    truth, psf = np.load(folder / "truth_big.npy"), _read(folder, "psf")
    inside = np.load(folder / "inside.npy")
    psf = psf.with_data(psf.data / psf.data.sum())
    filled, sheared = (
        _quietly(rln.deconvolve, _read(folder, name), psf, CPU) for name in ("filled", "deskewed")
    )
    assert sheared.record.facts["background"] == pytest.approx(105, abs=3)
    core = np.roll(inside, 6, 2) & np.roll(inside, -6, 2) & inside
    errors = [_error(found.data * core, truth * core) for found in (sheared, filled)]
    assert errors[0] < 1.1 * errors[1]
    rim = inside & ~core
    levels = [np.quantile(found.data[rim], 0.9) for found in (sheared, filled)]
    assert levels[0] < 1.5 * levels[1] + 1


@pytest.mark.slow
def test_a_nucleus_is_nearer_to_its_confocal_image_by_rld_and_nearer_still_by_rln(shared):
    folder = shared / "data" / "nucleus_pair"
    image, reference = _read(folder, "widefield"), _read(folder, "confocal")
    optics = rln.psf.MicroscopeSettings(na=1.2, immersion_index=1.333, wavelength_um=0.455)
    psf = rln.psf.compute_psf(optics, image.voxel_um, planes=image.shape[0])
    moved = np.roll(reference.data, (-2, 0, 4), (0, 1, 2))
    box = np.s_[8:36, 20:115, 15:110]

    def likeness(result):
        return np.corrcoef(result.data[box].ravel(), moved[box].ravel())[0, 1]

    assert likeness(rln.deconvolve(image, psf, CPU)) >= 0.927
    # A PSF sampled as coarsely as this is beyond what the model was trained on.
    network = _quietly(rln.deconvolve, image, psf, rln.Network(device="cpu"))
    assert likeness(network) >= 0.945
