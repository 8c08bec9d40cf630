"""Work that several methods need of one image is done once, and gives the same."""

from dataclasses import replace

import numpy as np
import phantoms
import pytest

import napari_rln as rln
from napari_rln.deconvolution import shared as studies
from napari_rln.deconvolution.classical import RichardsonLucy
from napari_rln.deconvolution.shared import Shared
from napari_rln.networks.initial_estimate import StartSettings

PSF = phantoms.gaussian_psf()
RLD = RichardsonLucy(device="cpu")
STARTED = phantoms.small_model(start=StartSettings(beyond=1.4), psf=None)
RLN = rln.Network(model=STARTED, device="cpu")


@pytest.fixture(scope="module")
def image():
    return phantoms.noisy_image(phantoms.spots(), PSF)


@pytest.fixture
def counted(monkeypatch):
    """Return how often what takes long was begun."""
    counts = {"stop": 0, "run": 0, "calibration": 0}

    def count(name, function):
        def counting(*given, **named):
            counts[name] += 1
            return function(*given, **named)

        return counting

    monkeypatch.setattr(studies, "find_iterations", count("stop", studies.find_iterations))
    monkeypatch.setattr(studies, "calibrate", count("calibration", studies.calibrate))
    monkeypatch.setattr(studies.rld, "start_iteration", count("run", studies.rld.start_iteration))
    return counts


def test_rld_and_the_network_share_the_stop_and_one_path(image, counted):
    alone = rln.deconvolve(image, PSF, RLD), rln.deconvolve(image, PSF, RLN)
    assert counted == {"stop": 2, "run": 2, "calibration": 2}
    shared = Shared()
    shared = (
        rln.deconvolve(image, PSF, RLD, shared=shared),
        rln.deconvolve(image, PSF, RLN, shared=shared),
    )
    assert counted == {"stop": 3, "run": 3, "calibration": 3}
    for one, other in zip(alone, shared, strict=True):
        np.testing.assert_array_equal(one.data, other.data)


def test_the_order_of_the_methods_changes_nothing(image):
    shared = Shared()
    rln.deconvolve(image, PSF, RLN, shared=shared)
    later = rln.deconvolve(image, PSF, RLD, shared=shared)
    np.testing.assert_array_equal(later.data, rln.deconvolve(image, PSF, RLD).data)


def test_a_second_network_is_merged_as_the_first_would_be(image):
    model = STARTED
    riper = replace(model, name="riper", start=replace(model.start, beyond=1.5))
    shared = Shared()
    both = [
        rln.deconvolve(image, PSF, replace(RLN, model=m), shared=shared) for m in (riper, model)
    ]
    alone = [rln.deconvolve(image, PSF, replace(RLN, model=m)) for m in (riper, model)]
    for one, other in zip(both, alone, strict=True):
        np.testing.assert_allclose(one.data, other.data, rtol=0.01, atol=1e-3 * other.data.max())


def test_another_image_psf_or_projector_is_another_run(image, counted):
    shared = Shared()
    rln.deconvolve(image, PSF, RLD, shared=shared)
    other = phantoms.gaussian_psf(sigma=(1.7, 1.2, 1.2))
    for given in (
        (image, other, RLD),
        (image.with_data(image.data + 1), PSF, RLD),
        (image, PSF, RichardsonLucy(device="cpu", back_projector="gaussian")),
    ):
        before = counted["stop"]
        found = rln.deconvolve(*given, shared=shared)
        assert counted["stop"] == before + 1
        np.testing.assert_array_equal(found.data, rln.deconvolve(*given).data)


def test_more_iterations_go_on_where_fewer_ended(image, counted):
    shared = Shared()
    rln.deconvolve(image, PSF, RichardsonLucy(device="cpu", iterations=4), shared=shared)
    more = rln.deconvolve(image, PSF, RichardsonLucy(device="cpu", iterations=9), shared=shared)
    assert counted["run"] == 1
    assert more.record.facts["shared_iterations"] == 4
    whole = rln.deconvolve(image, PSF, RichardsonLucy(device="cpu", iterations=9))
    np.testing.assert_array_equal(more.data, whole.data)
    fewer = rln.deconvolve(image, PSF, RichardsonLucy(device="cpu", iterations=4), shared=shared)
    assert "shared_iterations" not in fewer.record.facts


def test_a_comparison_uses_what_the_methods_found(image, counted):
    shared = Shared()
    results = [
        rln.deconvolve(image, PSF, RLD, shared=shared),
        rln.deconvolve(image, PSF, rln.Network(device="cpu"), shared=shared),
    ]
    runs = counted["run"]
    table = rln.compare(image, results, psf=PSF, shared=shared)
    assert counted["calibration"] == 1
    assert counted["run"] == runs
    for row, result in zip(table.rows[1:], results, strict=True):
        if "chi2" in result.record.facts:
            assert row.chi2 == pytest.approx(result.record.facts["chi2"], rel=1e-3)
