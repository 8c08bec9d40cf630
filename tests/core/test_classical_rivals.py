"""Gradient consensus and the Wiener filter: formulas, overfitting, light, tiles, disk, commands."""

import json
import math
from dataclasses import replace

import numpy as np
import phantoms
import pytest
import torch
from scipy import ndimage, signal

import napari_rln as rln
from napari_rln import cli, samples
from napari_rln.core.errors import RlnError
from napari_rln.core.volume import Volume
from napari_rln.deconvolution.calibration import Calibration, Camera, calibrate
from napari_rln.deconvolution.convolution import Convolution
from napari_rln.deconvolution.gradient_consensus import GradientConsensus
from napari_rln.deconvolution.method import Observation
from napari_rln.deconvolution.noise_spectrum import Spectrum
from napari_rln.deconvolution.prepared_view import PreparedView
from napari_rln.deconvolution.settings import start_iteration
from napari_rln.deconvolution.wiener import ASSUMED, RATIOS, Wiener, WienerTiles
from napari_rln.engine.execution import Execution, Output
from napari_rln.engine.forecast import forecast
from napari_rln.engine.in_memory import deconvolve, deconvolve_iter
from napari_rln.engine.job import Job, PsfFile
from napari_rln.engine.run import forecast_of_job, run, task_of
from napari_rln.io.image import ImageFile
from napari_rln.io.volumes import read, write

PSF = phantoms.gaussian_psf((11, 9, 9), (1.8, 1.3, 1.3))
CONSENSUS = rln.RichardsonLucy(iterations=10, consensus=True, background=5.0, offset=0.0, gain=1.0)
LARGE = (20, 72, 80)


def _truth(photons, shape=(16, 32, 32)):
    spots = phantoms.spots(shape)
    return spots * (photons / signal.fftconvolve(spots, PSF.data, mode="same").max())


def _noisy(photons, shape=(16, 32, 32), seed=0):
    return phantoms.noisy_image(_truth(photons, shape), PSF, background=5.0, seed=seed)


def _halves(photons, *, spectrum=None, seed=0, origin=(0, 0, 0)):
    blur = Convolution(PSF.data, photons.shape)
    spectrum = spectrum or Spectrum()
    return GradientConsensus(blur, photons, spectrum=spectrum, seed=seed, origin=origin)


# Gradient consensus: the halves


@pytest.mark.parametrize("mean", [0.3, 4.0, 30.0, 500.0])
def test_the_noise_of_the_halves_is_independent(mean):
    photons = np.random.default_rng(0).poisson(mean, (32, 64, 64)).astype(np.float32)
    difference = _halves(photons).difference().numpy()
    one, other = (photons + difference) / 2, (photons - difference) / 2
    for half in (one, other):
        assert half.mean() == pytest.approx(mean / 2, rel=0.02)
        assert half.var() == pytest.approx(mean / 2, rel=0.03)
    assert abs(np.corrcoef(one.ravel(), other.ravel())[0, 1]) < 0.01
    if mean < 60:  # photons are split one by one
        assert one.min() >= 0
        assert other.min() >= 0
        np.testing.assert_array_equal(one, np.rint(one))
        share = np.mean(one[photons == round(mean + 0.5)] == 0)
        assert share == pytest.approx(0.5 ** round(mean + 0.5), abs=0.02)


def test_fractions_of_photons_are_split_with_the_noise_of_photons():
    # Interpolated or badly calibrated values: a split must have the variance of their mean.
    photons = np.full((16, 64, 64), 2.4, np.float32)
    difference = _halves(photons).difference().numpy()
    assert difference.mean() == pytest.approx(0, abs=0.02)
    assert difference.var() == pytest.approx(2.4, rel=0.03)


def test_halves_of_correlated_noise_differ_by_noise_that_is_correlated_alike():
    spectrum = Spectrum(correlations=((), (), (0.5,)))
    photons = np.full((16, 64, 64), 100.0, np.float32)
    difference = _halves(photons, spectrum=spectrum).difference().numpy()
    along_x = np.corrcoef(difference[..., 1:].ravel(), difference[..., :-1].ravel())[0, 1]
    along_y = np.corrcoef(difference[:, 1:].ravel(), difference[:, :-1].ravel())[0, 1]
    assert along_x == pytest.approx(0.5, abs=0.03)
    assert along_y == pytest.approx(0, abs=0.03)
    assert difference.var() == pytest.approx(100 * spectrum.variance_ratio, rel=0.05)


def test_each_draw_and_each_seed_is_another_and_a_tile_draws_as_the_whole():
    photons = np.random.default_rng(1).poisson(20, (12, 24, 24)).astype(np.float32)
    halves, again = _halves(photons, seed=3), _halves(photons, seed=3)
    first, second = halves.difference(), halves.difference()
    assert torch.equal(again.difference(), first)
    other = _halves(photons, seed=4).difference()
    for different in (second, other):
        assert abs(np.corrcoef(first.ravel(), different.ravel())[0, 1]) < 0.05
    part = (slice(2, 9), slice(5, 20), slice(7, 24))
    tile = _halves(photons[part], seed=3, origin=(2, 5, 7))
    assert torch.equal(tile.difference(), first[part])


# Gradient consensus: the iteration


def test_the_halves_agree_by_the_formula_written_with_scipy():
    psf = phantoms.comatic_psf((5, 7, 7))
    image = phantoms.noisy_image(_truth(30.0), psf, background=5.0)
    kernel, y = psf.data.astype(float), image.data.astype(float)

    def blurred(x):
        return ndimage.convolve(x, kernel, mode="wrap")

    def adjoint(x):
        return ndimage.correlate(x, kernel, mode="wrap")

    settings = replace(CONSENSUS, border="periodic")
    halves = GradientConsensus(
        Convolution(psf.data, image.shape, border="periodic"), image.data,
        spectrum=Spectrum(), seed=0,
    )  # fmt: skip
    calibration = Calibration(camera=Camera(), background=5.0)
    view = PreparedView(image=image, psf=psf, calibration=calibration)
    steps = start_iteration([view], settings, torch.device("cpu"))
    x = np.full(y.shape, y.mean() - 5)
    kept = []
    for _ in range(20):
        model = blurred(x) + 5
        difference = halves.difference().numpy().astype(float)
        one, other = (adjoint((y + d) / model) for d in (difference, -difference))
        agreement = adjoint(blurred((one - 1) * (other - 1)))
        x = np.where(agreement >= 0, x * (one + other) / 2, x)
        kept.append(np.mean(agreement < 0))
        steps.step()
        # A voxel at the very limit may be decided otherwise in single precision.
        same = np.isclose(steps.estimate(), x, rtol=1e-3, atol=1e-3)
        assert same.mean() > 0.995
    assert max(kept[:3]) == 0
    assert 0.1 < kept[-1] < 0.9


def test_late_iterations_overfit_less_than_without_consensus():
    truth, image = _truth(30.0), _noisy(30.0)
    errors = {}
    for consensus in (False, True):
        for iterations in (15, 100):
            method = replace(CONSENSUS, iterations=iterations, consensus=consensus)
            method = replace(method, acceleration="none")
            errors[consensus, iterations] = phantoms.nrmse(
                deconvolve(image, PSF, method).data, truth
            )
    assert errors[False, 100] > 1.4 * errors[False, 15]
    assert errors[True, 100] < 1.1 * errors[True, 15]
    assert errors[True, 100] < 0.75 * errors[False, 100]


@pytest.mark.parametrize("photons", [30.0, 300.0])
def test_consensus_keeps_the_light(photons):
    image = _noisy(photons)
    for iterations in (10, 100):
        plain, result = (
            deconvolve(
                image, PSF,
                replace(CONSENSUS, iterations=iterations, consensus=c, acceleration="none"),
            )
            for c in (False, True)
        )  # fmt: skip
        assert result.record.facts["flux_ratio"] == pytest.approx(1, abs=0.03)
        assert result.data.sum() == pytest.approx(plain.data.sum(), rel=0.01)


def test_consensus_does_not_drift_with_an_asymmetric_psf():
    psf, truth = phantoms.comatic_psf(), 2.0 * phantoms.spots()
    image = phantoms.noisy_image(truth, psf, background=5.0)
    result = deconvolve(image, psf, replace(CONSENSUS, iterations=60)).data.astype(float)
    for index in np.indices(truth.shape):
        place, wanted = ((data * index).sum() / data.sum() for data in (result, truth))
        assert place == pytest.approx(wanted, abs=0.05)


def test_a_seed_decides_on_the_result():
    image = _noisy(30.0)
    one, again, other = (
        deconvolve(image, PSF, replace(CONSENSUS, seed=seed)).data for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(one, again)
    assert 1e-4 < phantoms.nrmse(other, one) < 0.2


def test_consensus_ignores_voxels_that_were_not_measured():
    photons = phantoms.noisy_image(_truth(100.0), PSF, background=5.0)
    mask = np.ones(photons.shape, bool)
    mask[6:9, 14:18, 14:18] = False
    spoiled = photons.with_data(np.where(mask, photons.data, 4000).astype(np.float32))
    calibration = Calibration(camera=Camera(), background=5.0)
    view = PreparedView(image=spoiled, psf=PSF, calibration=calibration, mask=mask)
    other = replace(view, image=photons.with_data(np.where(mask, photons.data, 7)))
    results = []
    for each in (view, other):
        steps = start_iteration([each], CONSENSUS, torch.device("cpu"), flat=10.0)
        for _ in range(5):
            steps.step()
        results.append(steps.estimate())
    np.testing.assert_allclose(results[0], results[1], rtol=1e-4, atol=1e-4)


def test_the_automatic_stop_knows_consensus():
    image = _noisy(100.0)
    automatic = replace(CONSENSUS, iterations="auto")
    result = deconvolve(image, PSF, automatic)
    assert result.name == "image · RLGC " + str(result.record.facts["iterations"])
    fixed = replace(automatic, iterations=result.record.facts["iterations"])
    np.testing.assert_array_equal(deconvolve(image, PSF, fixed).data, result.data)


@pytest.mark.parametrize("consensus", [False, True])
def test_slow_iterations_are_not_stopped_for_being_slow(consensus):
    points = np.zeros((16, 32, 32))
    rng = np.random.default_rng(0)
    points[tuple(rng.integers(4, n - 4, 40) for n in points.shape)] = 5000.0
    image = phantoms.noisy_image(points, PSF, background=5.0)
    method = replace(CONSENSUS, consensus=consensus, acceleration="none")
    stopped, late = (
        deconvolve(image, PSF, replace(method, iterations=iterations))
        for iterations in ("auto", 100)
    )
    assert stopped.record.facts["iterations"] > 60
    assert phantoms.nrmse(stopped.data, points) < 1.05 * phantoms.nrmse(late.data, points)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"back_projector": "masked-wiener"},
            "`consensus` is for .*`back_projector=matched`",
        ),
        ({"acceleration": "biggs-andrews"}, "`consensus`.*`acceleration`"),
    ],
)
def test_consensus_is_refused_where_it_makes_no_sense(changes, message):
    with pytest.raises(RlnError, match=message):
        replace(CONSENSUS, **changes)


@pytest.mark.parametrize("iterations", ["auto", 5])
@pytest.mark.parametrize("tile", ["auto", 64])
def test_consensus_needs_photons(iterations, tile):
    smooth = Volume.from_array(_truth(100.0, LARGE) + 5, PSF.voxel_um, name="smooth")
    method = rln.RichardsonLucy(iterations=iterations, consensus=True)
    with pytest.raises(RlnError, match=r"smooth shows no photon noise.*`gain`"):
        deconvolve(smooth, PSF, method, tile=tile)


# Wiener: the filter


def test_wiener_is_the_formula_written_with_numpy():
    psf = phantoms.comatic_psf((5, 7, 7))
    truth = phantoms.spots((16, 18, 20))
    kernel = np.zeros(truth.shape)
    kernel[:5, :7, :7] = psf.data
    otf = np.fft.fftn(np.roll(kernel, (-2, -3, -3), (0, 1, 2)))
    image = np.fft.ifftn(np.fft.fftn(truth) * otf).real + 40
    ratio = 0.01
    inverse = (1 + ratio) * otf.conj() / (np.abs(otf) ** 2 + ratio)
    expected = np.fft.ifftn(np.fft.fftn(image - 40) * inverse).real
    method = Wiener(noise_to_signal=ratio, border="periodic", background=40.0)
    result = deconvolve(Volume.from_array(image, psf.voxel_um), psf, method)
    np.testing.assert_allclose(result.data, expected, atol=1e-3 * expected.max())
    assert expected.min() < -1
    clipped = deconvolve(
        Volume.from_array(image, psf.voxel_um), psf, replace(method, clip=True)
    ).data
    np.testing.assert_array_equal(clipped, result.data.clip(0))


def test_without_noise_a_small_ratio_gives_the_object_back():
    psf = phantoms.gaussian_psf((7, 7, 7), (0.8, 0.8, 0.8))
    truth = phantoms.spots((16, 24, 24))
    image = ndimage.convolve(truth.astype(float), psf.data.astype(float), mode="wrap")
    method = Wiener(noise_to_signal=1e-9, border="periodic", background=0.0)
    result = deconvolve(Volume.from_array(image, psf.voxel_um), psf, method).data
    assert phantoms.nrmse(result, truth) < 1e-3


@pytest.mark.parametrize("border", ["extended", "periodic", "reflect"])
def test_wiener_keeps_light_and_place_with_an_asymmetric_psf(border):
    psf, truth = phantoms.comatic_psf(), phantoms.spots()
    mode = {"extended": "constant", "periodic": "wrap", "reflect": "reflect"}[border]
    image = Volume.from_array(ndimage.convolve(truth, psf.data, mode=mode), psf.voxel_um)
    method = Wiener(noise_to_signal=1e-3, border=border, background=0.0)
    result = deconvolve(image, psf, method).data.astype(float)
    assert result.sum() == pytest.approx(truth.sum(), rel=0.04)
    for index in np.indices(truth.shape):
        place, wanted = ((data * index).sum() / data.sum() for data in (result, truth))
        assert place == pytest.approx(wanted, abs=0.1)


def test_an_object_that_is_cut_off_does_not_ring():
    # A level that goes on beyond the field of view, higher on one side than on the other.
    ramp = np.broadcast_to(np.linspace(100, 200, 40), (12, 20, 40)).astype(np.float32)
    image = Volume.from_array(ramp, PSF.voxel_um)
    method = Wiener(noise_to_signal=1e-3, background=0.0)
    result = deconvolve(image, PSF, method).data
    np.testing.assert_allclose(result[:, :, 5:-5], ramp[:, :, 5:-5], rtol=0.02)
    np.testing.assert_allclose(result, ramp, rtol=0.15)
    wrapped = deconvolve(image, PSF, replace(method, border="periodic")).data
    assert np.abs(wrapped - ramp).max() > 100


def test_voxels_that_were_not_measured_are_filled_from_beside():
    image = _noisy(100.0)
    mask = np.ones(image.shape, bool)
    mask[:, :, :6] = False  # dark there, as after a deskew
    spoiled = image.with_data(np.where(mask, image.data, 0.0).astype(np.float32))
    calibration = Calibration(camera=Camera(), background=5.0)
    method = Wiener(noise_to_signal=0.01)
    results = [
        method.filtered(
            PreparedView(image=each, psf=PSF, calibration=calibration, mask=mask), 0.01,
            torch.device("cpu"),
        )
        for each in (image, spoiled)
    ]  # fmt: skip
    np.testing.assert_array_equal(results[0], results[1])
    assert np.abs(results[0][:, :, :6]).max() < 3 * np.abs(results[0][:, :, 6:12]).max()


# Wiener: the ratio


def _excess(image, psf, truth):
    """Return by which factor the error of a ratio exceeds the least, and the ratio of auto."""

    def error(ratio):
        result = deconvolve(image, psf, Wiener(noise_to_signal=ratio, background=5.0))
        return np.square(result.data - truth).mean(), result.record.facts

    least = min(error(float(ratio))[0] for ratio in np.logspace(-5, 0, 26))
    facts = error("auto")[1]
    assert facts["noise_to_signal_from"] == "estimated"
    return lambda ratio: error(ratio)[0] / least, facts["noise_to_signal"]


@pytest.mark.parametrize("photons", [30.0, 300.0, 3000.0, 30000.0])
def test_the_automatic_ratio_is_near_the_best(photons):
    truth, image = _truth(photons, (16, 40, 40)), _noisy(photons, (16, 40, 40))
    excess, ratio = _excess(image, PSF, truth)
    assert excess(ratio) < 1.12
    for factor in (0.1, 10):  # the choice matters
        assert excess(factor * ratio) > 1.25


@pytest.mark.parametrize("photons", [300.0, 3000.0, 30000.0])
def test_no_photons_make_up_for_a_psf_that_is_not_exact(photons):
    truth, image = _truth(photons, (16, 40, 40)), _noisy(photons, (16, 40, 40))
    wide = phantoms.gaussian_psf((11, 9, 9), (1.98, 1.43, 1.43))
    excess, ratio = _excess(image, wide, truth)
    assert excess(ratio) < 1.6
    assert excess(1e-5) > 10


@pytest.mark.parametrize("photons", [300.0, 30000.0])
def test_light_from_beyond_the_border_is_no_signal(photons):
    truth = phantoms.spots((32, 80, 80), count=60)
    truth *= photons / signal.fftconvolve(truth, PSF.data, mode="same").max()
    image = phantoms.noisy_image(truth, PSF, background=5.0)
    inner = slice(8, 24), slice(20, 60), slice(20, 60)
    cut = image.with_data(np.ascontiguousarray(image.data[inner]))
    excess, ratio = _excess(cut, PSF, truth[inner])
    assert excess(ratio) < 1.5


def test_the_bead_is_explained_better_than_by_its_raw_image():
    # So many photons that the error of the published PSF outweighs their noise.
    image, psf = samples.bead(), rln.psf.prepare_psf(samples.bead_psf())
    result = deconvolve(image, psf, Wiener())
    facts = result.record.facts
    assert 3e-4 < facts["noise_to_signal"] < 1e-2
    raw = image.with_data(image.data - np.float32(facts["background"]))
    chi2 = [rln.check(image, each, psf).chi2 for each in (result, raw)]
    assert chi2[0] < 0.5 * chi2[1]
    middle = result.data[:, 31, :]
    assert middle[31, 31] < 0.5 * middle.max()  # it is hollow


def test_the_nucleus_agrees_with_its_confocal_image_as_well_as_with_any_ratio():
    image, psf = samples.nucleus(), samples.nucleus_psf()
    box = slice(8, 36), slice(20, 115), slice(15, 110)
    confocal = samples.nucleus_confocal().data[box]
    inside = confocal > 3000

    def agreement(ratio):
        result = deconvolve(image, psf, Wiener(noise_to_signal=ratio)).data[box]
        return np.corrcoef(result[inside], confocal[inside])[0, 1]

    best = max(agreement(ratio) for ratio in (1e-4, 3e-4, 1e-3, 3e-3, 1e-2))
    assert agreement("auto") > 0.98 * best


def test_noisier_images_get_larger_ratios_whatever_their_units():
    ratios = []
    for photons in (1000.0, 100.0, 10.0):
        counts = _noisy(photons)
        camera = counts.with_data(counts.data * 2.5 + 100)
        method = Wiener(gain=2.5, offset=100.0, background=100 + 2.5 * 5)
        facts = deconvolve(camera, PSF, method).record.facts
        plain = Wiener(gain=1.0, offset=0.0, background=5.0)
        assert deconvolve(counts, PSF, plain).record.facts["noise_to_signal"] == pytest.approx(
            facts["noise_to_signal"], rel=0.13  # a step of the ratios or none
        )  # fmt: skip
        ratios.append(facts["noise_to_signal"])
    assert RATIOS[0] < ratios[0] < ratios[1] / 3
    assert ratios[1] < ratios[2] / 3


def test_without_photon_noise_the_ratio_is_assumed_and_said_to_be():
    smooth = Volume.from_array(_truth(100.0) + 5, PSF.voxel_um)
    facts = deconvolve(smooth, PSF, Wiener()).record.facts
    assert (facts["noise_to_signal"], facts["noise_to_signal_from"]) == (ASSUMED, "assumed")


def test_wiener_refuses_two_views_and_a_missing_psf():
    image = _noisy(30.0)
    with pytest.raises(RlnError, match="needs the PSF"):
        deconvolve(image, None, Wiener())
    with pytest.raises(RlnError, match="one view"):
        Wiener().check(image, PSF, views=2)
    with pytest.raises(RlnError, match="`noise_to_signal`"):
        Wiener(noise_to_signal=0.0)


def test_wiener_reports_and_needs_little_memory():
    image = _noisy(30.0)
    steps = deconvolve_iter(image, PSF, Wiener())
    reports = list(steps)
    assert [report.phase for report in reports] == ["deconvolve"]
    needed = Wiener().needed_bytes(image.shape, PSF.shape)
    assert needed < rln.RichardsonLucy().needed_bytes(image.shape, PSF.shape)
    device = torch.device("cpu")
    calibration = calibrate(image, Wiener())
    view = PreparedView(image=image, psf=PSF, calibration=calibration)
    steps = Wiener().whole(replace(Observation.of(view, device), tile=16))
    with pytest.raises(StopIteration) as stop:
        next(steps)
    assert stop.value.value is None


# In tiles, on disk, from the command line

# Each with the greatest difference of tiles from the whole over its maximum, and that inside.
METHODS = {
    "wiener": (Wiener(), 0.02, 0.002),
    "wiener given": (Wiener(noise_to_signal=0.003, clip=True), 0.02, 0.002),
    "RLGC": (replace(CONSENSUS, iterations=20), 0.005, 0.005),
    "OMW": (rln.RichardsonLucy(iterations=2, back_projector="masked-wiener"), 0.1, 0.1),
}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    write(_noisy(60.0, LARGE), folder / "image.ome.tif")
    write(PSF, folder / "psf.ome.tif")
    return folder


def _job(folder, method, out, **execution):
    psf = PsfFile(file=ImageFile(path=str(folder / "psf.ome.tif")), repair=False)
    return Job(
        image=ImageFile(path=str(folder / "image.ome.tif")), psfs=(psf,), methods=(method,),
        output=Output(path=out), execution=Execution(**execution),
    )  # fmt: skip


@pytest.mark.parametrize(("method", "most", "inside"), METHODS.values(), ids=METHODS)
def test_tiles_and_parts_on_disk_give_the_whole(files, method, most, inside, tmp_path):
    image = read(files / "image.ome.tif")
    whole = deconvolve(image, PSF, method)
    tiles = deconvolve(image, PSF, method, tile=32)
    difference = np.abs(tiles.data - whole.data) / whole.data.max()
    assert difference.max() < most
    # A filter continues the image beyond the volume's own border otherwise than the whole's.
    assert difference[:, 8:-8, 8:-8].max() < inside
    for name in ("noise_to_signal", "noise_to_signal_from", "iterations"):
        assert tiles.record.facts.get(name) == whole.record.facts.get(name)
    job = _job(files, method, tmp_path / "r.ome.zarr", tile=32)
    job.save(tmp_path / "job.json")
    assert Job.load(tmp_path / "job.json") == job
    (outcome,) = run(Job.load(tmp_path / "job.json"))
    assert outcome.in_parts
    parts = read(tmp_path / "r.ome.zarr")
    np.testing.assert_allclose(parts.data, tiles.data, atol=1e-5 * whole.data.max())
    assert parts.record.method == method.kind


def test_a_periodic_filter_has_no_tiles(files):
    image = read(files / "image.ome.tif")
    with pytest.raises(RlnError, match="periodic border"):
        deconvolve(image, PSF, Wiener(border="periodic"), tile=32)


def _run(*tokens):
    return cli.run([str(token) for token in tokens])


def test_the_commands_give_what_python_gives(files, tmp_path, capsys):
    image = read(files / "image.ome.tif")
    psf = ("--psf", files / "psf.ome.tif", "--no-repair")
    out = tmp_path / "w.ome.tif"
    assert _run("wiener", files / "image.ome.tif", *psf, "--clip", "-o", out, "--json") == 0
    facts = json.loads(capsys.readouterr().out)["facts"]
    by_python = deconvolve(image, PSF, Wiener(clip=True))
    assert facts["noise_to_signal"] == by_python.record.facts["noise_to_signal"]
    np.testing.assert_array_equal(read(out).data, by_python.data)
    words = ("--noise-to-signal", 0.02, "-o", tmp_path / "given.ome.tif")
    assert _run("wiener", files / "image.ome.tif", *psf, *words) == 0
    assert "noise-to-signal ratio 0.02 (given)" in capsys.readouterr().out
    words = ("--consensus", "--iterations", 3, "--seed", 5, "-o", tmp_path / "c.ome.tif")
    assert _run("rld", files / "image.ome.tif", *psf, *words) == 0
    method = rln.RichardsonLucy(iterations=3, consensus=True, seed=5)
    np.testing.assert_array_equal(
        read(tmp_path / "c.ome.tif").data, deconvolve(image, PSF, method).data
    )
    words = ("--back-projector", "masked-wiener", "--iterations", 2, "-o", tmp_path / "o.ome.tif")
    assert _run("rld", files / "image.ome.tif", *psf, *words) == 0
    assert read(tmp_path / "o.ome.tif").record.settings["back_projector"] == "masked-wiener"


def test_a_dry_run_tells_the_tiles_of_a_filter(files, tmp_path, monkeypatch):
    job = _job(files, Wiener(noise_to_signal=0.5), tmp_path / "r.ome.zarr", tile=32)
    (rows,) = forecast_of_job(job).values()
    assert dict(rows)["tiles"].startswith("9 of 20 x 32 x 32, halo ")
    assert "iterations" not in dict(rows)["tiles"]
    # The less noise, the wider the halos, for which the memory may not suffice.
    halo = WienerTiles.halo

    def halo_with_a_limit(stage, psf, shared):
        if shared["noise_to_signal"] < 1e-5:
            raise RlnError("such tiles do not fit")
        return halo(stage, psf, shared)

    monkeypatch.setattr(WienerTiles, "halo", halo_with_a_limit)
    (sentence,) = forecast(task_of(replace(job, methods=(Wiener(),)))).missing
    assert sentence == "possibly memory: an image with less noise needs more"


def test_a_batch_of_wiener_filters(files, tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    for number in range(2):
        write(_noisy(60.0, seed=number), folder / f"{number}.ome.tif")
    words = ("--psf", files / "psf.ome.tif", "--no-repair", "-o", tmp_path / "out", "--quiet")
    assert _run("batch", "wiener", folder, *words) == 0
    for number in range(2):
        image = read(folder / f"{number}.ome.tif")
        result = read(tmp_path / "out" / f"{number}-wiener.ome.tif")
        np.testing.assert_allclose(
            result.data, deconvolve(image, PSF, Wiener()).data, atol=1e-4 * image.data.max()
        )


def test_several_methods_of_one_job_have_results_of_their_own(files, tmp_path):
    job = replace(
        _job(files, Wiener(), tmp_path / "r.ome.tif"),
        methods=tuple(METHODS[name][0] for name in ("wiener", "RLGC", "OMW")),
    )
    names = [outcome.out.name for outcome in run(job)]
    assert names == ["r-wiener.ome.tif", "r-rlgc.ome.tif", "r-omw.ome.tif"]
    assert all(math.isfinite(read(tmp_path / name).data.sum()) for name in names)
