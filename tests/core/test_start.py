"""The initial estimate: the image, or the classical deconvolution to the bit."""

import numpy as np
import phantoms
import pytest
import torch
from scipy.signal import fftconvolve

from napari_rln.core.errors import RlnError
from napari_rln.deconvolution.calibration import UserCalibration, calibrate
from napari_rln.deconvolution.classical import RichardsonLucy
from napari_rln.deconvolution.method import Observation
from napari_rln.deconvolution.prepared_view import PreparedView
from napari_rln.engine.in_memory import deconvolve
from napari_rln.networks.initial_estimate import StartSettings, initial_estimate

PSF = phantoms.gaussian_psf()
CPU = torch.device("cpu")
KNOWN = UserCalibration(background=10.0)


@pytest.fixture(scope="module")
def image():
    return phantoms.noisy_image(phantoms.spots((16, 32, 32), level=300.0), PSF)


def _run(image, settings, psf=PSF, **options):
    """Return all reports and the first estimate."""
    view = PreparedView(image=image, psf=psf, calibration=calibrate(image, KNOWN))
    reports, steps = [], initial_estimate(Observation.of(view, CPU), settings, **options)
    while True:
        try:
            reports.append(next(steps))
        except StopIteration as stop:
            return reports, stop.value


def test_the_papers_first_estimate_is_the_image_less_background(image):
    settings = StartSettings(method="image")
    assert not settings.needs_psf
    reports, found = _run(image, settings, None)
    np.testing.assert_array_equal(found.data, image.data - 10)
    assert reports == []
    assert (found.iterations, found.outside) == (0, None)


@pytest.mark.parametrize("method", ["matched", "wiener-butterworth"])
@pytest.mark.parametrize("iterations", [1, 5, "auto"])
def test_a_started_first_estimate_is_the_classical_deconvolution(image, method, iterations):
    settings = RichardsonLucy(
        iterations=iterations, back_projector=method, background=10.0, device="cpu"
    )
    expected = deconvolve(image, PSF, settings)
    reports, found = _run(image, StartSettings(method=method, iterations=iterations))
    np.testing.assert_array_equal(found.data, expected.data)
    assert found.iterations == expected.record.facts["iterations"]
    assert sum(report.phase == "deconvolve" for report in reports) == found.iterations
    assert any(report.phase == "stop" for report in reports) == (iterations == "auto")


def test_it_can_go_beyond_the_automatic_stop(image):
    _, stopped = _run(image, StartSettings())
    _, found = _run(image, StartSettings(beyond=1.5))
    assert found.iterations == round(1.5 * stopped.iterations)
    _, fixed = _run(image, StartSettings(iterations=found.iterations))
    np.testing.assert_array_equal(found.data, fixed.data)


def test_the_light_from_outside_and_that_of_the_field_are_the_image(image):
    _, found = _run(image, StartSettings(iterations=30), outside=True)
    field = fftconvolve(found.data, PSF.data, mode="same")
    seen = field + found.outside + 10
    # An estimate after many iterations explains its image to within the noise.
    sigmas = (image.data - seen) / np.sqrt(seen)
    assert np.abs(sigmas.mean()) < 0.1
    assert sigmas.std() < 1.05
    assert found.outside.min() > -1e-3


def test_without_a_psf_it_is_refused(image):
    with pytest.raises(RlnError, match="`psf`"):
        _run(image, StartSettings(), None)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"iterations": 0}, "`iterations` is 0"),
        ({"iterations": 2000}, "`iterations` is 2000"),
        ({"iterations": "many"}, "`iterations` is 'many'"),
        ({"method": "guess"}, "`method` is 'guess'"),
    ],
)
def test_settings_that_cannot_be_are_refused(given, said):
    with pytest.raises(RlnError, match=said):
        StartSettings(**given)
