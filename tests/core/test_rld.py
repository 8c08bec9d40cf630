"""Richardson-Lucy: right values, place, brightness and borders, and what is refused."""

import itertools

import numpy as np
import phantoms
import pytest
import torch
from scipy import ndimage, signal

from napari_rln.core.errors import ComputeError, RlnError
from napari_rln.core.volume import Volume
from napari_rln.deconvolution import settings as rld
from napari_rln.deconvolution.classical import RichardsonLucy
from napari_rln.deconvolution.convolution import Convolution
from napari_rln.engine.in_memory import deconvolve, deconvolve_iter

PLAIN = {"acceleration": "none", "background": 0.0}


def _blurred(truth, psf, noise_seed=None, background=0.0):
    image = signal.fftconvolve(truth, psf.data, mode="same") + background
    if noise_seed is not None:
        image = np.random.default_rng(noise_seed).poisson(image.clip(0))
    return Volume.from_array(np.clip(image, 0, None), psf.voxel_um, name="image")


def _centroid(data, background=0.0):
    data = np.clip(np.asarray(data, dtype=float) - background, 0, None)
    return np.array([(data * index).sum() / data.sum() for index in np.indices(data.shape)])


def test_iterations_equal_the_formula_written_with_scipy():
    psf, image = phantoms.comatic_psf((5, 7, 7)), None
    truth = phantoms.spots((16, 18, 20))
    image = _blurred(truth, psf)
    kernel, y = psf.data.astype(float), image.data.astype(float)
    x = np.full(y.shape, y.mean() - 3)
    for _ in range(5):
        model = ndimage.convolve(x, kernel, mode="wrap") + 3
        x = x * ndimage.correlate(y / model, kernel, mode="wrap")
    settings = RichardsonLucy(iterations=5, border="periodic", acceleration="none", background=3)
    np.testing.assert_allclose(deconvolve(image, psf, settings).data, x, rtol=2e-4, atol=1e-3)


@pytest.mark.parametrize("border", ["extended", "periodic", "reflect"])
@pytest.mark.parametrize("acceleration", ["none", "biggs-andrews"])
def test_no_drift_with_an_asymmetric_psf(border, acceleration):
    psf, truth = phantoms.comatic_psf(), phantoms.spots()
    kernel, mode = psf.data, {"extended": "constant", "periodic": "wrap", "reflect": "reflect"}
    image = Volume.from_array(
        ndimage.convolve(truth, kernel, mode=mode[border]).clip(0), psf.voxel_um
    )
    settings = RichardsonLucy(
        iterations=100, border=border, acceleration=acceleration, background=0
    )
    result = deconvolve(image, psf, settings)
    np.testing.assert_allclose(_centroid(result.data), _centroid(truth), atol=0.02)


@pytest.mark.parametrize("shape", [(10, 12, 12), (11, 12, 13)])
def test_even_sized_psf_keeps_the_place(shape):
    psf, truth = phantoms.comatic_psf(shape), phantoms.spots()
    kernel = np.zeros(tuple(n + (n % 2 == 0) for n in shape))
    # The centre n // 2 of an even kernel is that of an odd one with an empty last plane.
    kernel[tuple(slice(n) for n in shape)] = psf.data
    image = Volume.from_array(signal.fftconvolve(truth, kernel, mode="same").clip(0), psf.voxel_um)
    result = deconvolve(image, psf, RichardsonLucy(iterations=60, background=0))
    np.testing.assert_allclose(_centroid(result.data), _centroid(truth), atol=0.02)


def test_an_off_centre_psf_moves_the_result_by_its_offset():
    psf, truth = phantoms.gaussian_psf((13, 13, 13)), phantoms.spots()
    moved = psf.with_data(np.roll(psf.data, (1, -2, 2), (0, 1, 2)))
    result = deconvolve(_blurred(truth, psf), moved, RichardsonLucy(iterations=30, background=0))
    shift = _centroid(result.data) - _centroid(truth)
    np.testing.assert_allclose(shift, (-1, 2, -2), atol=0.05)


@pytest.mark.parametrize("back_projector", ["matched", "wiener-butterworth"])
@pytest.mark.parametrize("border", ["extended", "periodic", "reflect"])
@pytest.mark.parametrize("acceleration", ["none", "biggs-andrews"])
def test_flux_is_kept(border, back_projector, acceleration):
    psf, truth = phantoms.comatic_psf(), phantoms.spots()
    image = _blurred(truth, psf, noise_seed=1)
    settings = RichardsonLucy(
        iterations=20,
        border=border,
        acceleration=acceleration,
        back_projector=back_projector,
        background=0,
    )
    result = deconvolve(image, psf, settings)
    assert result.data.sum() == pytest.approx(image.data.sum(), rel=0.01)


def test_flux_above_a_known_background_is_kept():
    psf, truth = phantoms.comatic_psf(), phantoms.spots()
    image = _blurred(truth, psf, noise_seed=1, background=10)
    result = deconvolve(image, psf, RichardsonLucy(iterations=40, background=10))
    assert result.data.sum() == pytest.approx((image.data - 10).sum(), rel=0.01)


def test_float32_agrees_with_float64():
    psf, truth = phantoms.comatic_psf(), phantoms.spots()
    image = _blurred(truth, psf, noise_seed=2)
    single, double = (
        deconvolve(
            image, psf, RichardsonLucy(iterations=30, background=0, precision=precision)
        ).data
        for precision in ("float32", "float64")
    )
    assert np.abs(single - double).max() < 2e-3 * double.max()


def test_a_bright_object_cut_by_the_edge_does_not_ring():
    psf = phantoms.gaussian_psf((9, 17, 17), (1.5, 2.5, 2.5))
    scene = np.full((36, 80, 80), 10.0)
    scene[:, :, 12:34] = 500.0  # reaches beyond the field of view, which starts at x = 20
    field = np.s_[12:24, 20:60, 20:60]
    image = Volume.from_array(signal.fftconvolve(scene, psf.data, mode="same")[field], psf.voxel_um)
    truth = scene[field]
    settings = {"iterations": 60, "acceleration": "none", "background": 0}
    flat = truth[2:-2, 2:-2, :10]  # inside the object, at the edge of the image
    errors = {
        border: np.abs(
            deconvolve(image, psf, RichardsonLucy(border=border, **settings)).data[2:-2, 2:-2, :10]
            / flat
            - 1
        ).max()
        for border in ("extended", "periodic")
    }
    assert errors["extended"] < 0.12
    assert errors["periodic"] > 3 * errors["extended"]


def test_light_from_outside_makes_no_slab_at_the_border():
    # All of the light comes from three planes above the image: in the image there is nothing.
    psf = phantoms.gaussian_psf((15, 9, 9), (3.0, 1.5, 1.5))
    scene = np.full((40, 32, 32), 1.0)
    scene[9] = 200.0
    field = np.s_[12:36]
    image = Volume.from_array(signal.fftconvolve(scene, psf.data, mode="same")[field], psf.voxel_um)
    top = {
        border: deconvolve(image, psf, RichardsonLucy(iterations=40, border=border, background=0))
        .data[0, 8:-8, 8:-8]
        .mean()
        for border in ("extended", "reflect")
    }
    assert top["extended"] < 0.25 * top["reflect"]


def test_acceleration_gets_there_in_fewer_iterations():
    psf, truth = phantoms.gaussian_psf(), phantoms.spots()
    image = _blurred(truth, psf)
    plain = deconvolve(image, psf, RichardsonLucy(iterations=60, **PLAIN))
    fast = deconvolve(image, psf, RichardsonLucy(iterations=20, background=0))
    assert phantoms.nrmse(fast.data, truth) < phantoms.nrmse(plain.data, truth)


@pytest.mark.parametrize("name", ["gaussian", "butterworth", "wiener", "wiener-butterworth"])
def test_unmatched_back_projectors_sharpen_faster(name):
    psf, truth = phantoms.gaussian_psf(), phantoms.spots()
    image = _blurred(truth, psf)
    matched = deconvolve(image, psf, RichardsonLucy(iterations=3, start="image", **PLAIN))
    other = deconvolve(
        image, psf, RichardsonLucy(iterations=3, start="image", back_projector=name, **PLAIN)
    )
    assert phantoms.nrmse(image.data, truth) > phantoms.nrmse(matched.data, truth)
    if name == "gaussian":  # as wide as the PSF: about as fast
        assert phantoms.nrmse(other.data, truth) < 1.1 * phantoms.nrmse(matched.data, truth)
    else:
        assert phantoms.nrmse(other.data, truth) < 0.9 * phantoms.nrmse(matched.data, truth)


@pytest.mark.parametrize("acceleration", ["auto", "biggs-andrews"])
def test_an_unmatched_back_projector_does_not_go_astray(acceleration):
    # Sharp and bright against its blur: there a filter's step is too long by itself.
    psf = phantoms.gaussian_psf((13, 13, 13), (2.2, 2.0, 2.0))
    truth = np.zeros((20, 40, 40), np.float32)
    truth[6:14, 8:32, 8:32] = 4000
    truth[8:12, 11:29, 11:29] = 0
    image = _blurred(truth, psf, noise_seed=2, background=5)
    light = {}
    settings = RichardsonLucy(
        iterations=200, back_projector="wiener-butterworth", acceleration=acceleration
    )
    for report in deconvolve_iter(image, psf, settings):
        if report.done in (20, 100, 200):
            light[report.done] = float(report.estimate().sum())
            error = phantoms.nrmse(report.estimate(), truth)
    assert light[200] == pytest.approx(truth.sum(), rel=0.03)
    assert light[200] == pytest.approx(light[20], rel=0.02)
    assert error < phantoms.nrmse(image.data, truth)


def test_total_variation_quietens_noise():
    psf = phantoms.gaussian_psf()
    truth = np.full((16, 32, 32), 20.0, np.float32)
    truth[4:12, 8:24, 8:24] = 100
    image = _blurred(truth, psf, noise_seed=3)
    rough, smooth = (
        deconvolve(image, psf, RichardsonLucy(iterations=40, background=0, tv=tv)).data
        for tv in (0.0, 0.01)
    )
    inside = np.s_[6:10, 12:20, 12:20]
    assert smooth[inside].std() < 0.7 * rough[inside].std()
    assert smooth[inside].mean() == pytest.approx(rough[inside].mean(), rel=0.05)


def test_a_single_plane_is_deconvolved_with_a_2d_psf():
    psf = phantoms.gaussian_psf((1, 9, 9), (1, 1.5, 1.5))
    truth = phantoms.spots((9, 48, 48))[4:5]
    image = _blurred(truth, psf)
    result = deconvolve(image, psf, RichardsonLucy(iterations=50, background=0))
    assert result.shape == (1, 48, 48)
    assert phantoms.nrmse(result.data, truth) < 0.3 * phantoms.nrmse(image.data, truth)


def test_reports_stream_and_the_result_is_recorded():
    psf, truth = phantoms.gaussian_psf(), phantoms.spots()
    image = _blurred(truth, psf)
    steps = deconvolve_iter(image, psf, RichardsonLucy(iterations=4, background=0))
    reports = []
    while True:
        try:
            report = next(steps)
        except StopIteration as stop:
            result = stop.value
            break
        reports.append((report, report.estimate()))
    assert [report.done for report, _ in reports] == [1, 2, 3, 4]
    assert {report.phase for report, _ in reports} == {"deconvolve"}
    changes = [report.relative_change for report, _ in reports]
    assert changes == sorted(changes, reverse=True)
    assert changes[-1] > 0
    assert not np.array_equal(reports[0][1], reports[1][1])  # copies, not one moving buffer
    np.testing.assert_array_equal(reports[-1][1], result.data)
    assert result.voxel_um == image.voxel_um
    assert result.record.method == "rld"
    assert result.record.inputs == {"image": image.hash, "psf": psf.hash}
    assert result.record.facts["iterations"] == 4
    assert result.record.facts["stopped_by"] == "iterations"


def test_reports_come_as_often_as_asked():
    psf, truth = phantoms.gaussian_psf(), phantoms.spots()
    image = _blurred(truth, psf)
    settings = {"iterations": 8, "background": 0}
    often, seldom = (
        list(deconvolve_iter(image, psf, RichardsonLucy(report_every=every, **settings)))
        for every in (1, 3)
    )
    assert [report.done for report in seldom] == [3, 6, 8]
    for report in seldom:
        assert report.relative_change == often[report.done - 1].relative_change


def test_tolerance_stops():
    psf, truth = phantoms.gaussian_psf(), phantoms.spots()
    settings = RichardsonLucy(iterations=100, tolerance=0.05, background=0)
    facts = deconvolve(_blurred(truth, psf), psf, settings).record.facts
    assert facts["iterations"] < 100
    assert facts["stopped_by"] == "tolerance"
    assert facts["relative_change"] < 0.05


def test_closing_the_generator_cancels():
    psf, truth = phantoms.gaussian_psf(), phantoms.spots()
    steps = deconvolve_iter(
        _blurred(truth, psf), psf, RichardsonLucy(iterations=10_000, background=0)
    )
    assert next(steps).done == 1
    steps.close()
    with pytest.raises(StopIteration):
        next(steps)


@pytest.mark.parametrize("photons", [1.0, 0.1])
def test_automatic_stop_is_near_the_best_iteration(photons):
    psf = phantoms.comatic_psf()
    truth = phantoms.spots(count=60, level=400.0 * photons)
    image = _blurred(truth, psf, noise_seed=4, background=20 * photons)
    known = 20 * photons
    errors = [
        phantoms.nrmse(report.estimate(), truth)
        for report in deconvolve_iter(image, psf, RichardsonLucy(iterations=60, background=known))
    ]
    stopped = deconvolve(image, psf, RichardsonLucy(background=known))
    assert stopped.record.facts["stopped_by"] == "held-out photons"
    assert phantoms.nrmse(stopped.data, truth) < 1.05 * min(errors)


def test_automatic_stop_repeats_with_its_seed():
    psf = phantoms.gaussian_psf()
    image = _blurred(phantoms.spots(level=100.0), psf, noise_seed=5, background=5)
    first, second = (deconvolve(image, psf, RichardsonLucy(seed=7)) for _ in range(2))
    np.testing.assert_array_equal(first.data, second.data)


def _image(data, voxel_um=phantoms.VOXEL_UM):
    return Volume.from_array(np.asarray(data, dtype=np.float32), voxel_um, name="image")


@pytest.mark.parametrize(
    ("image", "psf", "message"),
    [
        (_image(np.full((8, 8, 8), -1.0)), phantoms.gaussian_psf(), "image.*-1"),
        (_image(np.zeros((8, 8, 8))), phantoms.gaussian_psf(), "image.* 0"),
        (_image(np.ones((1, 8, 8))), phantoms.gaussian_psf(), "single plane"),
        (
            _image(np.ones((8, 8, 8)), (0.3, 0.1, 0.1)),
            phantoms.gaussian_psf(),
            "resample the PSF",
        ),
        (
            _image(np.ones((8, 8, 8))),
            phantoms.gaussian_psf().with_data(np.zeros((3, 3, 3), np.float32)),
            "zero everywhere",
        ),
        (
            _image(np.ones((8, 8, 8))),
            phantoms.gaussian_psf().with_data(-phantoms.gaussian_psf().data),
            "negative values",
        ),
        (
            _image(np.ones((8, 8, 8))),
            phantoms.gaussian_psf().with_data(3 * phantoms.gaussian_psf().data),
            "sums to 3",
        ),
    ],
)
def test_bad_input_is_refused_before_the_work(image, psf, message):
    with pytest.raises(RlnError, match=message):
        next(deconvolve_iter(image, psf, RichardsonLucy(iterations=1)))


def test_a_background_above_the_image_is_refused():
    image = _image(phantoms.spots())
    settings = RichardsonLucy(iterations=1, background=float(image.data.mean()) + 1)
    with pytest.raises(RlnError, match=rf"{settings.background:.4f}.*`background`"):
        next(deconvolve_iter(image, phantoms.gaussian_psf(), settings))


def test_negative_voxels_can_be_clipped():
    psf = phantoms.gaussian_psf()
    image = _image(np.random.default_rng(0).poisson(phantoms.spots() + 2) - 1)
    assert image.data.min() < 0
    result = deconvolve(image, psf, RichardsonLucy(iterations=2, negatives="clip"))
    assert result.data.min() >= 0


@pytest.mark.parametrize(
    "wrong",
    [
        {"iterations": 0},
        {"tolerance": -0.1},
        {"background": float("nan")},
        {"background": float("inf")},
        {"back_projector": "wiener_butterworth"},
        {"border": "mirror"},
        {"precision": "float16"},
        {"tv": 5.0},
        {"resolution_um": (0.1, -0.1, 0.1)},
    ],
)
def test_settings_outside_their_limits_are_refused(wrong):
    with pytest.raises(RlnError, match=next(iter(wrong))):
        RichardsonLucy(**wrong)


@pytest.mark.parametrize("device", ["gpu", "meta", "cuda:99"])
def test_unknown_or_absent_devices_are_refused(device):
    with pytest.raises(RlnError, match="device"):
        next(
            deconvolve_iter(
                _image(phantoms.spots()), phantoms.gaussian_psf(), RichardsonLucy(device=device)
            )
        )


def test_too_little_memory_is_said_before_the_work(monkeypatch):
    for module in ("device", "machine"):
        monkeypatch.setattr(f"napari_rln.core.{module}.available_bytes", lambda: 1000)
    with pytest.raises(RlnError, match=r"memory limit.*`memory_gb`"):
        next(deconvolve_iter(_image(phantoms.spots()), phantoms.gaussian_psf()))


@pytest.mark.parametrize(
    ("failure", "message"),
    [
        (torch.OutOfMemoryError("no"), "ran out of memory; about 0.00 GB were needed"),
        (RuntimeError("kernel"), "the computation on cpu failed: kernel"),
    ],
)
def test_a_failing_computation_is_a_compute_error(monkeypatch, failure, message):
    def fail(*_, **__):
        raise failure

    monkeypatch.setattr(Convolution, "A", fail)
    steps = deconvolve_iter(
        _image(phantoms.spots()), phantoms.gaussian_psf(), RichardsonLucy(iterations=3)
    )
    with pytest.raises(ComputeError, match=message):
        next(steps)


def test_memory_estimate_counts_the_padded_volumes():
    image, psf = (64, 256, 256), (31, 31, 31)
    padded = 96 * 288 * 288 * 4
    assert rld.memory_bytes(image, psf, RichardsonLucy()) <= 8.1 * padded
    pairs = itertools.pairwise(
        rld.memory_bytes(image, psf, RichardsonLucy(**kw))
        for kw in ({"acceleration": "none"}, {}, {"precision": "float64"})
    )
    assert all(a < b for a, b in pairs)
