"""A network of several estimates, with a refinement and without: file, tiles, light, sharing."""

from dataclasses import replace

import numpy as np
import phantoms
import pytest
import torch
from safetensors.torch import load_file
from scipy.signal import fftconvolve
from test_model import _rewrite

from napari_rln.core.errors import RlnError, RlnWarning
from napari_rln.core.generators import finish, relay
from napari_rln.core.volume import Volume
from napari_rln.deconvolution import stopping
from napari_rln.deconvolution.classical import RichardsonLucy
from napari_rln.deconvolution.ladder import COUNTS, MOST, STATISTICS, StopPrediction
from napari_rln.deconvolution.shared import Shared
from napari_rln.deconvolution.views import DualSettings, pair_views_iter, rotated
from napari_rln.engine.execution import Execution, Output
from napari_rln.engine.in_memory import deconvolve, deconvolve_iter
from napari_rln.engine.in_parts import run_task_iter
from napari_rln.engine.task import Task
from napari_rln.io.image import ImageFile
from napari_rln.io.volumes import read, write
from napari_rln.networks import blocks
from napari_rln.networks.model import Model
from napari_rln.networks.network import Network
from napari_rln.networks.refinement import Refinement, RefinementSettings

PSF = phantoms.gaussian_psf()
VOXEL_UM = (0.1, 0.1, 0.1)
MODEL = phantoms.refined_model()
REFINED = Network(model=MODEL, device="cpu", background=10.0)
ALONE = replace(REFINED, model=phantoms.refined_model(refinement=None))
LINEAR = replace(
    REFINED,
    model=phantoms.refined_model(
        refinement=None, normalisation="brightness", mirrors=(True, True, True)
    ),
)
EACH = pytest.mark.parametrize(
    "method", [REFINED, ALONE, LINEAR], ids=["refined", "alone", "linear"]
)
RLD = RichardsonLucy(device="cpu", background=10.0, iterations=60)


def _image(shape=(16, 24, 24), **options) -> Volume:
    return phantoms.noisy_image(phantoms.spots(shape, level=300.0), PSF, **options)


def _apart(a, b) -> float:
    """Return the largest difference as a share of the largest value."""
    return float(np.abs(a - b).max() / np.abs(b).max())


# Files


@pytest.fixture
def path(tmp_path):
    """Return the path of a saved model."""
    path = tmp_path / "mine.safetensors"
    MODEL.save(path)
    return path


def test_a_saved_model_comes_back_whole(path):
    loaded = Model.load(path)
    assert loaded.refinement.settings == MODEL.refinement.settings
    assert not loaded.refinement.training
    mine, other = MODEL.refinement.state_dict(), loaded.refinement.state_dict()
    assert list(mine) == list(other)
    assert all(torch.equal(mine[name], other[name]) for name in mine)
    assert (loaded.stop, loaded.start, loaded.normalisation) == (
        MODEL.stop, MODEL.start, "photons",
    )  # fmt: skip
    assert loaded.card() == MODEL.card()
    assert (loaded.hash, loaded.identity) == (MODEL.hash, MODEL.identity)


def test_weights_of_the_refinement_and_the_prediction_identify_the_model():
    other = phantoms.random_refinement(seed=1)
    assert replace(MODEL, refinement=other).hash != MODEL.hash
    assert replace(MODEL, refinement=None).hash != MODEL.hash
    later = replace(MODEL, stop=StopPrediction((*MODEL.stop.weights[:-1], 2.0)))
    assert later.hash == MODEL.hash
    assert later.identity != MODEL.identity


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda card: card.pop("stop"), "start is a ladder"),
        (lambda card: card.update(stop=[1.0]), f"{2 * STATISTICS + 1} finite weights"),
        (lambda card: card.update(stop="late"), "describes"),
        (lambda card: card["start"].update(method="matched"), "start is a ladder"),
        (lambda card: card.update(normalisation="brightness"), "normalisation by photons"),
        (lambda card: card["refinement"].update(width=5), "describes"),
        (lambda card: card["refinement"].update(width=0), "`width`"),
        (lambda card: card["refinement"].update(depth=5), "describes.*depth"),
        (lambda card: card.update(refinement=[]), "describes"),
        (lambda card: card.pop("refinement"), "describes"),
    ],
)
def test_a_description_of_another_refinement_is_refused(path, change, said):
    _rewrite(path, card=change)
    with pytest.raises(RlnError, match=said):
        Model.load(path)


def test_a_refinement_of_other_candidates_is_refused():
    three = Refinement(RefinementSettings(candidates=3, width=4, deep_width=4))
    with pytest.raises(RlnError, match="candidates"):
        replace(MODEL, refinement=three)
    with pytest.raises(RlnError, match="normalisation by photons"):
        replace(MODEL, normalisation="brightness")


def _lose(tensors):
    del tensors["refinement.first.weight"]


def _cut(tensors):
    tensors["refinement.first.weight"] = tensors["refinement.first.weight"][:, :-1].contiguous()


def _spoil(tensors):
    tensors["refinement.last.bias"][0] = torch.nan


def _alter(tensors):
    tensors["refinement.last.bias"] += 0.5


def _lose_all(tensors):
    for name in [name for name in tensors if name.startswith("refinement.")]:
        del tensors[name]


@pytest.mark.parametrize("change", [_lose, _cut, _spoil, _alter, _lose_all])
def test_damaged_weights_of_a_refinement_are_refused(path, change):
    _rewrite(path, tensors=change)
    with pytest.raises(RlnError, match="describes"):
        Model.load(path)


def test_a_truncated_file_is_refused(path):
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(RlnError, match="truncated"):
        Model.load(path)


def test_the_tensors_of_the_network_keep_their_names(path):
    network = set(MODEL.network.state_dict())
    names = set(load_file(path))
    assert network < names
    assert all(name.startswith("refinement.") for name in names - network)


# Tiles


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_tiles_together_are_the_whole_and_less_halo_would_not_do(axis, monkeypatch):
    shape = [7, 8, 9]
    shape[axis] = 91
    image = _image(tuple(shape))
    whole = deconvolve(image, PSF, REFINED, tile=128)
    tiled = deconvolve(image, PSF, REFINED, tile=16)
    assert (whole.record.facts["tiles"], tiled.record.facts["tiles"]) == (1, 6)
    assert _apart(tiled.data, whole.data) < 1e-5
    monkeypatch.setattr(blocks, "halo_of", lambda model, network=None: 8)
    short = deconvolve(image, PSF, REFINED, tile=16)
    assert _apart(short.data, whole.data) > 1e-4


@EACH
def test_odd_sizes_in_tiles_are_the_whole(method):
    image = _image((9, 37, 43))
    whole = deconvolve(image, PSF, method, tile=128)
    tiled = deconvolve(image, PSF, method, tile=19)
    assert tiled.record.facts["tiles"] == 9
    assert _apart(tiled.data, whole.data) < 1e-5


@pytest.fixture
def task(tmp_path):
    """Return a function that deconvolves an image from disk to disk, and its result."""

    def run(image, method, **how):
        write(image, tmp_path / "image.ome.tif", dtype="uint16")
        task = Task(
            image=ImageFile(path=str(tmp_path / "image.ome.tif")), psf=PSF, method=method,
            output=Output(path=tmp_path / "r.ome.zarr"), execution=Execution(**how),
        )  # fmt: skip
        outcome = finish(run_task_iter(task))
        return outcome, read(tmp_path / "r.ome.zarr").data

    return run


@EACH
def test_from_disk_in_one_tile_it_is_the_whole(task, method):
    image = _image((16, 40, 48))
    outcome, data = task(image, method)
    whole = deconvolve(image, PSF, method)
    facts = whole.record.facts
    assert _apart(data, whole.data) < 2e-5
    assert outcome.summary["iterations"] == facts["start_iterations"]
    assert outcome.summary["flux_ratio"] == pytest.approx(facts["flux_ratio"], rel=1e-4)


@EACH
def test_from_disk_in_tiles_it_is_near_the_whole(task, method):
    image = _image((16, 66, 70))
    _, data = task(image, method, tile=32)
    whole = deconvolve(image, PSF, method).data
    assert 0 < phantoms.nrmse(data, whole) < 0.05
    assert data.sum() == pytest.approx(whole.sum(), rel=0.02)


# Light and facts


def _brighter(refinement, logarithm) -> Network:
    """Return the method of a refinement with one factor on all voxels."""
    torch.nn.init.zeros_(refinement.last.weight[-8:])
    torch.nn.init.constant_(refinement.last.bias[-8:], np.arctanh(logarithm / 2))
    return replace(REFINED, model=replace(MODEL, refinement=refinement))


def _explained(image, result) -> float:
    """Return the factor on a blurred result that fits the image best, by its photons."""
    blurred = fftconvolve(result.data.astype(float), PSF.data, mode="same")
    weight = 1 / (blurred + 10)
    light = image.data.astype(float) - 10
    return float((weight * light * blurred).sum() / (weight * blurred**2).sum())


def test_a_result_explains_the_light_of_its_image_however_bright_the_network_is():
    image = _image((24, 32, 32))
    one, two = (
        deconvolve(image, PSF, _brighter(phantoms.random_refinement(), logarithm))
        for logarithm in (0.0, 0.4)
    )
    assert _explained(image, one) == pytest.approx(1, abs=0.02)
    assert _apart(two.data, one.data) < 1e-3
    first, second = (r.record.facts["consistency"]["result"] for r in (one, two))
    assert second / first == pytest.approx(np.exp(-0.4), rel=1e-3)


def test_a_network_alone_explains_the_light_of_its_image():
    dim = replace(ALONE, model=replace(ALONE.model, output_scale=0.5 * ALONE.model.output_scale))
    facts = deconvolve(_image((24, 32, 32)), PSF, dim).record.facts
    assert facts["reblur_scale"] == pytest.approx(1, abs=0.05)
    assert set(facts["consistency"]) == {"output"}


@pytest.mark.parametrize("method", [ALONE, LINEAR], ids=["root", "affine"])
def test_the_factor_that_explains_the_light_is_not_on_bright_points(method):
    truth = phantoms.spots((24, 40, 40), level=300.0)
    truth[12, 20, 20] = 5e4
    image = phantoms.noisy_image(truth, PSF)
    scale = method.model.output_scale
    results = [
        deconvolve(image, PSF, replace(method, model=replace(method.model, output_scale=s)))
        for s in (scale, 0.7 * scale)
    ]
    first, second = (r.record.facts["consistency"]["output"] for r in results)
    assert second / first > 1.2
    peaks = [r.data[12, 20, 20] for r in results]
    assert peaks[0] == pytest.approx(peaks[1], rel=1e-3)


def test_a_bead_alone_is_that_of_the_estimate():
    truth = np.zeros((24, 40, 40), np.float32)
    truth[12, 20, 20] = 3e5
    facts = deconvolve(phantoms.noisy_image(truth, PSF), PSF, LINEAR).record.facts
    assert facts["consistency"] == {"output": 1.0}
    assert facts["reblur_scale"] == pytest.approx(1, abs=0.05)


def test_the_residual_says_that_the_light_is_explained():
    classical = Refinement(phantoms.SMALL_REFINEMENT)
    torch.nn.init.constant_(classical.last.bias[-16:-8], -30.0)  # no network
    facts = deconvolve(_image((24, 32, 32)), PSF, _brighter(classical, 0.5)).record.facts
    assert facts["reblur_scale"] == pytest.approx(1, abs=0.02)
    assert facts["flux_ratio"] == pytest.approx(1, abs=0.02)
    assert facts["consistency"]["result"] == pytest.approx(np.exp(-0.5), rel=0.03)


def test_the_record_has_the_predicted_stop():
    facts = deconvolve(_image(), PSF, REFINED).record.facts
    assert COUNTS[0] <= facts["stop"] <= MOST / MODEL.start.beyond
    assert facts["start_iterations"] == MODEL.ladder.iterations(facts["stop"])


def test_the_stop_of_a_large_image_is_that_of_its_part_with_most_structure(monkeypatch):
    """The whole is then not deconvolved further than it needs."""
    image = _image((8, 64, 64))
    monkeypatch.setattr(stopping, "_CROP_VOXELS", 8 * 24 * 24)
    part = image.data[stopping.structured_crop(image.data, PSF.shape)]
    assert part.shape == (8, 24, 24)
    phases = []
    steps = deconvolve_iter(image, PSF, REFINED)
    result = finish(relay(steps, lambda report: phases.append(report)))
    of_part = deconvolve(image.with_data(part), PSF, REFINED).record.facts
    facts = result.record.facts
    # The part alone has a noise of its own.
    assert facts["stop"] == pytest.approx(of_part["stop"], rel=0.02)
    assert sum(report.phase == "stop" for report in phases) == COUNTS[-1]
    assert facts["start_iterations"] == MODEL.ladder.iterations(facts["stop"])


def test_a_result_is_in_the_units_of_its_image():
    image = _image()
    one = deconvolve(image, PSF, REFINED)
    brighter = replace(REFINED, background=70.0, gain=7.0, offset=0.0)
    other = deconvolve(image.with_data(7 * image.data), PSF, brighter)
    same = deconvolve(image, PSF, replace(REFINED, gain=1.0, offset=0.0))
    assert _apart(other.data, 7 * same.data) < 1e-3
    assert _apart(one.data, same.data) < 0.2


def test_more_iterations_than_the_last_count_are_run_for_a_clear_image():
    late = StopPrediction((*[0.0] * (2 * STATISTICS), np.log(60.0)))
    model = replace(MODEL, stop=late)
    facts = deconvolve(_image(), PSF, replace(REFINED, model=model)).record.facts
    assert (facts["stop"], facts["start_iterations"]) == (pytest.approx(60), 84)


def test_saturated_voxels_do_not_shine():
    image = _image()
    unit = 65535 / (0.6 * float(image.data.max()))
    method = replace(REFINED, background=10 * unit, gain=unit, offset=0.0)
    usual = deconvolve(image.with_data(unit * image.data), PSF, method).data
    clipped = np.minimum(np.float32(unit) * image.data, 65535)
    with pytest.warns(RlnWarning, match="excluded .* voxels saturated"):
        result = deconvolve(image.with_data(clipped), PSF, method).data
    bright = clipped == 65535
    assert 0.3 < result[bright].mean() / usual[bright].mean() < 2
    assert result.max() < 2 * usual.max()


def test_a_plane_is_a_volume_too():
    flat = phantoms.gaussian_psf((1, 9, 9))
    truth = phantoms.spots((9, 48, 40), level=300.0)[4:5]
    image = phantoms.noisy_image(truth, flat)
    result = deconvolve(image, flat, REFINED)
    assert result.shape == image.shape
    assert result.data.max() > 0


def test_two_views_are_refined_together():
    narrow = phantoms.gaussian_psf((9, 9, 9), (2.0, 1.0, 1.0)).data
    psf_a = Volume(data=narrow, voxel_um=VOXEL_UM, name="psf")
    psf_b = psf_a.with_data(narrow.swapaxes(0, 2).copy())
    truth = phantoms.spots((20, 24, 20), level=300.0)
    first, side = (
        replace(phantoms.noisy_image(truth, psf, seed=seed), voxel_um=VOXEL_UM)
        for seed, psf in enumerate((psf_a, psf_b))
    )
    settings = DualSettings(rotation="y+90", transform="none")
    second, kernel = rotated(side, "y-90"), rotated(psf_b, "y-90")
    pair = finish(pair_views_iter(first, second, psf_a, kernel, settings=settings))
    result = deconvolve(pair, None, REFINED)
    assert result.shape == first.shape
    assert np.isfinite(result.data).all()
    assert result.record.facts["reblur_scale"] == pytest.approx(1, abs=0.02)
    alone = deconvolve(first, psf_a, REFINED)
    stop = max(COUNTS[0], alone.record.facts["stop"] / 2**0.5)
    assert result.record.facts["stop"] == pytest.approx(stop, rel=0.02)  # by its own calibration


# Shared work


@pytest.mark.parametrize("order", [(RLD, REFINED), (REFINED, RLD)], ids=["before", "after"])
def test_rld_beside_the_network_and_both_alone_are_equal(order):
    image = _image()
    shared = Shared(REFINED.marks)
    for method in order:
        together = deconvolve(image, PSF, method, shared=shared)
        np.testing.assert_array_equal(together.data, deconvolve(image, PSF, method).data)


def test_a_shared_run_is_gone_on_with_only_if_it_kept_what_is_needed():
    image = _image()
    few = replace(RLD, iterations=20)
    for marks, continued in ((REFINED.marks, True), ((), False)):
        shared = Shared(marks)
        deconvolve(image, PSF, few, shared=shared)
        before = shared._path[1]
        deconvolve(image, PSF, REFINED, shared=shared)
        assert (before.done > 20) == continued


def test_a_network_takes_its_estimates_from_a_longer_run_that_kept_them():
    image = _image()
    shared = Shared(REFINED.marks)
    deconvolve(image, PSF, replace(RLD, iterations=70), shared=shared)
    run = shared._path[1]
    together = deconvolve(image, PSF, REFINED, shared=shared)
    assert run.done == 70  # no iteration is repeated or added
    np.testing.assert_array_equal(together.data, deconvolve(image, PSF, REFINED).data)


def test_a_shorter_run_is_not_taken_from_a_longer_one():
    image, few = _image(), replace(RLD, iterations=COUNTS[0])
    shared = Shared(REFINED.marks)
    deconvolve(image, PSF, replace(RLD, iterations=70), shared=shared)
    together = deconvolve(image, PSF, few, shared=shared)
    np.testing.assert_array_equal(together.data, deconvolve(image, PSF, few).data)
