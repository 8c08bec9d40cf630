"""Applying a model: tiles give what the whole would, units are the image's, refusals say why."""

import json
import math
from dataclasses import replace

import numpy as np
import phantoms
import pytest
import tifffile
import torch

from napari_rln.core.errors import RlnError, RlnWarning
from napari_rln.core.generators import finish, relay
from napari_rln.core.grid import on_grid, resampled_image
from napari_rln.core.volume import Volume
from napari_rln.engine import tiled
from napari_rln.engine.in_memory import deconvolve, deconvolve_iter
from napari_rln.engine.progress import progress_of
from napari_rln.io.volumes import read, write
from napari_rln.networks import blocks, network
from napari_rln.networks.data_consistency import Consistency, Merge
from napari_rln.networks.initial_estimate import StartSettings
from napari_rln.networks.model import Model
from napari_rln.networks.network import Network
from napari_rln.networks.rln import RLN, NetworkSettings, Stages, initialise
from napari_rln.networks.stages import network_stages

PSF = phantoms.gaussian_psf()
SMALL = (16, 24, 24)
MODELS = {"started": phantoms.small_model("started"), "paper": phantoms.small_model("paper")}
VARIANTS = pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)


def _image(shape=SMALL, **options) -> Volume:
    return phantoms.noisy_image(phantoms.spots(shape, level=300.0), PSF, **options)


def _settings(**changes):
    return {"background": 10.0, "device": "cpu"} | changes


def _asked(image, psf, model, settings):
    """Return the arguments of a deconvolution by a model."""
    memory = {name: settings[name] for name in ("tile", "memory_gb") if name in settings}
    own = {name: value for name, value in settings.items() if name not in memory}
    return (image, psf, Network(model=model, **own)), memory


def apply_model(*given):
    asked, memory = _asked(*given)
    return deconvolve(*asked, **memory)


def apply_steps(*given):
    asked, memory = _asked(*given)
    return deconvolve_iter(*asked, **memory)


def _run(*given):
    """Return all reports and the result."""
    reports, steps = [], apply_steps(*given)
    while True:
        try:
            reports.append(next(steps))
        except StopIteration as stop:
            return reports, stop.value


def _apart(a, b) -> float:
    """Return the largest difference as a share of the largest value."""
    return float(np.abs(a - b).max() / np.abs(b).max())


# Tiles


@VARIANTS
@pytest.mark.parametrize("shape", [(18, 40, 56), (19, 41, 55)])
def test_tiles_together_are_the_whole(model, shape):
    image = _image(shape)
    whole = apply_model(image, PSF, model, _settings(tile=64))
    assert whole.record.facts["tiles"] == 1
    for tile in (16, 19, 30):
        tiled = apply_model(image, PSF, model, _settings(tile=tile))
        side = tile - tile % 2
        counts = [math.ceil(n / side) if tile < n else 1 for n in shape]
        assert tiled.record.facts["tiles"] == math.prod(counts)
        assert _apart(tiled.data, whole.data) < 1e-5


@VARIANTS
def test_streamed_pieces_are_the_result(model):
    image = _image((17, 40, 35))
    reports, result = _run(image, PSF, model, _settings(tile=16))
    streamed = np.full(image.shape, np.nan, np.float32)
    for report in reports:
        if report.tile is not None:
            assert np.isnan(streamed[report.tile.core]).all()
            streamed[report.tile.core] = report.piece
    np.testing.assert_array_equal(streamed, result.data)


@pytest.mark.parametrize(
    ("model", "phases"),
    [
        (MODELS["started"], ["start", "network"]),
        (MODELS["paper"], ["network"]),
        (phantoms.small_model(start=StartSettings()), ["stop", "start", "network"]),
    ],
)
def test_reports_count_every_phase_to_its_end(model, phases):
    reports, result = _run(_image((16, 40, 24)), PSF, model, _settings(tile=16))
    assert list(dict.fromkeys(report.phase for report in reports)) == phases
    for phase in phases:
        said = [report for report in reports if report.phase == phase]
        assert [report.done for report in said] == list(range(1, len(said) + 1))
        assert len({report.total for report in said}) == 1
        assert phase == "stop" or said[-1].done == said[-1].total
    assert (
        sum(report.phase == "start" for report in reports)
        == (result.record.facts["start_iterations"])
    )
    seconds = [report.seconds for report in reports]
    assert seconds == sorted(seconds)


def test_closing_the_generator_ends_it_at_any_point():
    for point in (1, 3, 4, 5):  # in the start, and between tiles
        steps = apply_steps(_image(), PSF, MODELS["started"], _settings(tile=16))
        for _ in range(point):
            next(steps)
        steps.close()
        with pytest.raises(StopIteration):
            next(steps)


# Units


@VARIANTS
def test_a_result_is_in_the_units_of_its_image(model):
    image = _image()
    brighter = image.with_data(7 * image.data)
    one = apply_model(image, PSF, model, _settings())
    other = apply_model(brighter, PSF, model, _settings(background=70.0))
    assert _apart(other.data, 7 * one.data) < 1e-3
    found = [apply_model(v, PSF, model, _settings(background="auto")) for v in (image, brighter)]
    assert _apart(found[1].data, 7 * found[0].data) < 1e-3


@pytest.mark.parametrize("normalisation", ["brightness", "percentiles"])
def test_a_constant_that_is_named_as_background_does_not_show(normalisation):
    model = phantoms.small_model("paper", normalisation=normalisation)
    image = _image()
    one = apply_model(image, None, model, _settings())
    raised = image.with_data(image.data + 100)
    other = apply_model(raised, None, model, _settings(background=110.0))
    assert _apart(other.data, one.data) < 1e-4


# Odd inputs


def test_a_started_model_without_a_psf_is_refused():
    with pytest.raises(RlnError, match=r"needs the PSF; give one \(`psf`\)"):
        apply_model(_image(), None, MODELS["started"], _settings())


def test_the_papers_model_needs_no_psf():
    with_psf = apply_model(_image(), PSF, MODELS["paper"], _settings())
    without = apply_model(_image(), None, MODELS["paper"], _settings())
    np.testing.assert_array_equal(without.data, with_psf.data)
    assert without.record.facts["start_iterations"] == 0
    assert "psf" not in without.record.inputs
    assert "chi2" not in without.record.facts


@VARIANTS
def test_a_psf_on_other_voxels_is_refused(model):
    other = Volume.from_array(PSF.data, (0.4, 0.1, 0.1))
    with pytest.raises(RlnError, match="the PSF's voxels are"):
        apply_model(_image(), other, model, _settings())


def test_a_model_of_two_views_is_refused():
    model = phantoms.small_model(network=RLN(NetworkSettings(views="averaged")))
    with pytest.raises(RlnError, match="two views"):
        apply_model(_image(), PSF, model, _settings())


@VARIANTS
def test_a_plane_is_a_volume_too(model):
    flat = phantoms.gaussian_psf((1, 9, 9))
    truth = phantoms.spots((9, 48, 40), level=300.0)[4:5]
    image = phantoms.noisy_image(truth, flat)
    plane = phantoms.small_model(model.variant, psf=None)
    result = apply_model(image, flat, plane, _settings(tile=16))
    whole = apply_model(image, flat, plane, _settings(tile=64))
    assert result.shape == image.shape
    assert _apart(result.data, whole.data) < 1e-5
    assert np.corrcoef(result.data.ravel(), truth.ravel())[0, 1] > 0.8


def test_a_plane_with_a_psf_of_many_is_refused():
    image = phantoms.noisy_image(phantoms.spots((9, 48, 40))[4:5], phantoms.gaussian_psf((1, 9, 9)))
    with pytest.raises(RlnError, match="single plane but the PSF has 9 planes"):
        apply_model(image, PSF, MODELS["started"], _settings())


@VARIANTS
def test_negative_voxels_are_kept_refused_or_set_to_zero(model):
    image = _image()
    low = image.data.copy()
    low[3, :4, 5] = -5
    with pytest.raises(RlnError, match="4 negative voxels"):
        apply_model(image.with_data(low), PSF, model, _settings(negatives="error"))
    clipped = apply_model(image.with_data(low), PSF, model, _settings(negatives="clip"))
    zeroed = apply_model(image.with_data(low.clip(0)), PSF, model, _settings())
    np.testing.assert_array_equal(clipped.data, zeroed.data)
    whole = apply_model(image, PSF, model, _settings(background="auto"))
    below = image.with_data(image.data - 20)
    shifted = apply_model(below, PSF, model, _settings(background="auto"))
    assert below.data.min() < 0
    assert _apart(shifted.data, whole.data) < 1e-3


@VARIANTS
@pytest.mark.parametrize(
    ("data", "said"),
    [
        (np.zeros(SMALL), "all voxels of volume are 0"),
        (np.full(SMALL, 10.0), "all voxels of volume are 10"),
        (np.arange(np.prod(SMALL)).reshape(SMALL) / 1e4, "the background is 10"),
    ],
    ids=["dark", "flat", "below the background"],
)
def test_an_image_with_nothing_in_it_is_refused(model, data, said):
    with pytest.raises(RlnError, match=said):
        apply_model(Volume.from_array(data, PSF.voxel_um), PSF, model, _settings())


def test_float16_on_the_cpu_is_refused():
    with pytest.raises(RlnError, match="float16"):
        apply_model(_image(), None, MODELS["paper"], _settings(precision="float16"))


def test_double_precision_gives_the_same():
    single = apply_model(_image(), PSF, MODELS["started"], _settings())
    double = apply_model(_image(), PSF, MODELS["started"], _settings(precision="float64"))
    assert double.data.dtype == np.float32
    assert _apart(single.data, double.data) < 1e-4


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"tile": 8}, "`tile` is 8"),
        ({"memory_gb": 0.0}, "`memory_gb` is 0"),
        ({"memory_gb": -1.0}, "`memory_gb` is -1"),
        ({"memory_gb": math.nan}, "`memory_gb` is nan"),
        ({"memory_gb": math.inf}, "`memory_gb` is inf"),
        ({"memory_gb": "much"}, "`memory_gb` is 'much'"),
        ({"background": math.nan}, "`background` is nan"),
        ({"background": "some"}, "`background` is 'some'"),
        ({"grid": "stretch"}, "`grid` is 'stretch'"),
        ({"negatives": "drop"}, "`negatives` is 'drop'"),
        ({"precision": "int8"}, "`precision` is 'int8'"),
    ],
)
def test_settings_out_of_their_limits_are_refused(given, said):
    with pytest.raises(RlnError, match=said):
        apply_model(_image(), PSF, MODELS["paper"], given)


# Memory


def _allow(monkeypatch, allowed):
    for module in (network, tiled):
        monkeypatch.setattr(module, "bytes_allowed", lambda *_: allowed)
    monkeypatch.setattr(tiled, "_KEPT_BYTES", 0)


def test_with_little_memory_the_initial_estimate_is_tiled_and_hardly_differs(monkeypatch):
    pytest.importorskip("numba")  # torch takes more than this memory for a single block
    image = _image((16, 64, 256))
    model = phantoms.small_model(start=StartSettings(iterations=8))
    whole = apply_model(image, PSF, model, _settings())
    _allow(monkeypatch, 10_000_000)
    reports, result = _run(image, PSF, model, _settings())
    tiles = sum(report.phase == "deconvolve" for report in reports)
    assert tiles > 1
    assert result.record.facts["start_iterations"] == 8
    apart = np.sqrt(np.mean((result.data - whole.data) ** 2) / np.mean(whole.data**2))
    assert apart < 0.0025


def test_with_too_little_memory_it_says_so_before_the_work(monkeypatch):
    _allow(monkeypatch, 10_000_000)
    psf = phantoms.gaussian_psf((31, 63, 63), (3.0, 3.0, 3.0))
    model = phantoms.small_model(psf=None)
    with pytest.raises(RlnError, match=r"memory limit.*`memory_gb`"):
        apply_model(_image((40, 72, 96)), psf, model, _settings())


def test_more_memory_than_there_is_is_refused():
    steps = apply_steps(_image(), PSF, MODELS["started"], _settings(memory_gb=90_000.0))
    with pytest.raises(RlnError, match=r"this needs 8999\d\.\d+ GB on cpu but"):
        next(steps)


def test_the_whole_with_its_program_stays_within_what_was_allowed_or_is_refused(monkeypatch):
    monkeypatch.setattr("napari_rln.core.machine.used_bytes", lambda: 450_000_000)
    steps = apply_steps(_image(), PSF, MODELS["started"], _settings(memory_gb=0.5))
    with pytest.raises(RlnError, match=r"0\.\d+ GB.* `memory_gb` is 0\.5"):
        next(steps)
    monkeypatch.setattr("napari_rln.core.machine.used_bytes", lambda: 100_000_000)
    assert apply_model(_image(), PSF, MODELS["started"], _settings(memory_gb=0.8)).shape


# Other voxels


def test_an_image_on_other_voxels_is_refused_unless_resampling_is_asked_for():
    model = phantoms.small_model("paper")
    coarse = Volume.from_array(_image().data, (0.4, 0.2, 0.2), name="coarse")
    with pytest.raises(RlnError, match=r"coarse has voxels of .*`grid=resample`"):
        apply_model(coarse, None, model, _settings())
    result = apply_model(coarse, None, model, _settings(grid="resample"))
    assert (result.shape, result.voxel_um) == (coarse.shape, coarse.voxel_um)
    assert result.record.inputs["image"] == coarse.hash


def test_resampling_keeps_places_and_levels():
    z, y, x = np.indices((20, 30, 36))
    spot = 300 * np.exp(-((z - 9) ** 2 + (y - 12) ** 2 + (x - 21) ** 2) / 2 / 2.5**2)
    image = Volume.from_array(spot, (0.4, 0.2, 0.2))
    for voxel_um in ((0.2, 0.1, 0.1), (0.3, 0.25, 0.16)):
        found = resampled_image(image, voxel_um)
        back = on_grid(found.data, voxel_um, image.shape, image.voxel_um)
        assert found.voxel_um == voxel_um
        assert found.data.max() == pytest.approx(300, rel=0.08)
        for volume in (found, image.with_data(back)):
            for axis, centre in enumerate((9, 12, 21)):
                along = volume.data.sum(tuple(a for a in range(3) if a != axis), dtype=float)
                places = (np.arange(along.size) + 0.5) * volume.voxel_um[axis]
                expected = (centre + 0.5) * image.voxel_um[axis]
                mean = (along * places).sum() / along.sum()
                assert mean == pytest.approx(expected, abs=0.02 * volume.voxel_um[axis])


def test_a_resampled_result_is_that_of_the_resampled_image_on_the_images_voxels():
    coarse = Volume.from_array(_image((8, 12, 13)).data, (0.3, 0.2, 0.15))
    fine = resampled_image(coarse, PSF.voxel_um)
    assert fine.shape == (12, 24, 20)
    expected = apply_model(fine, None, MODELS["paper"], _settings())
    result = apply_model(coarse, None, MODELS["paper"], _settings(grid="resample"))
    back = on_grid(expected.data, fine.voxel_um, coarse.shape, coarse.voxel_um)
    np.testing.assert_array_equal(result.data, back)


# What is said of a result


@VARIANTS
def test_the_record_says_what_was_done_with_what(model):
    image = _image()
    result = apply_model(image, PSF, model, _settings(tile=16))
    record, facts = result.record, result.record.facts
    assert record.method == "rln"
    assert record.inputs == {"image": image.hash, "model": model.hash, "psf": PSF.hash}
    assert record.settings["model"] == model.name
    assert record.settings["start"]["iterations"] == 3
    assert facts["background"] == 10.0
    assert facts["tiles"] == 4
    assert facts["start_iterations"] == (3 if model.variant == "started" else 0)
    assert facts["flux_ratio"] > 0
    assert facts["reblur_scale"] > 0
    assert facts["chi2"] > 0
    assert (result.voxel_um, result.data.dtype) == (image.voxel_um, np.float32)
    assert model.name in result.name
    json.dumps(json.loads(record.to_json()))


def test_equal_calls_give_equal_results():
    one, two = (apply_model(_image(), PSF, MODELS["started"], _settings()) for _ in range(2))
    np.testing.assert_array_equal(one.data, two.data)


def test_the_background_is_found_where_none_is_given():
    record = apply_model(_image(), PSF, MODELS["started"], _settings(background="auto")).record
    assert record.facts["background"] == pytest.approx(10, abs=1)


def test_a_psf_unlike_the_models_is_warned_of():
    other = phantoms.gaussian_psf(sigma=(2.4, 2.0, 2.0))
    share = 0.5 * np.abs(other.data.astype(float) - PSF.data).sum()
    assert share > 0.2
    with pytest.warns(RlnWarning, match=f"another PSF .*{share:.0%} of the light lies elsewhere"):
        apply_model(_image(), other, MODELS["started"], _settings())


def test_who_waits_for_kernels_to_be_compiled_is_told(monkeypatch):
    monkeypatch.setattr(network, "is_compiling", lambda: True)
    phases = []
    finish(relay(apply_steps(_image(), PSF, MODELS["started"], _settings()), phases.append))
    told = [report.phase for report in phases]
    assert told.index("compile") == told.index("network") - 1
    assert progress_of(phases[told.index("compile")]).total == 0


# The stages


@VARIANTS
@pytest.mark.parametrize("shape", [SMALL, (15, 23, 24)])
def test_every_stage_is_a_volume_on_its_grid(model, shape):
    image = _image(shape)
    stages = network_stages(image, PSF, Network(model=model, **_settings()))
    assert list(stages) == ["x", "E0", *Stages._fields]
    for name, stage in stages.items():
        if name in ("FP1", "DV1"):
            assert stage.shape == tuple(-(-n // 2) for n in shape)
            assert stage.voxel_um == tuple(2 * v for v in image.voxel_um)
        else:
            assert (stage.shape, stage.voxel_um) == (shape, image.voxel_um)
        assert np.isfinite(stage.data).all()


@VARIANTS
def test_the_last_stage_is_the_result(model):
    image = _image((15, 23, 24))
    result = apply_model(image, PSF, model, _settings())
    scaling = result.record.facts["normalisation"]
    stages = network_stages(image, PSF, Network(model=model, **_settings()))
    output = stages["output"].data * scaling["scale"] + scaling["offset"] - 10
    if "consistency" in result.record.facts:
        start = stages["E0"].data * scaling["scale"]
        merge = Merge(Consistency(**result.record.facts["consistency"]), PSF.data)
        output = merge(output, start, scaling["scale"])
    assert _apart(output, result.data) < 1e-4
    np.testing.assert_allclose(
        stages["x"].data, (image.data - scaling["offset"]) / scaling["scale"], rtol=0, atol=1e-5
    )
    same = np.array_equal(stages["x"].data, stages["E0"].data)
    assert same == (model.variant == "paper")


def test_the_stages_are_computed_with_gradients_off():
    MODELS["paper"].network.zero_grad()
    network_stages(_image(), None, Network(model=MODELS["paper"], **_settings()))
    assert torch.is_grad_enabled()


def _mixing(variant) -> Model:
    """Return a model of random weights, whose output depends on its whole receptive field.

    Its output is faint, so that merging hardly limits it, whatever weights this torch draws.
    """
    network = RLN()
    initialise(network, torch.Generator().manual_seed(0))
    x = torch.from_numpy(phantoms.spots((16, 24, 24), level=1.0))[None, None]
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm3d):
            module.momentum = 1.0
    with torch.no_grad():
        network(x, x)
    return phantoms.small_model(variant, network=network, psf=None, output_scale=0.1)


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("variant", MODELS)
def test_tiles_see_as_far_as_the_network_and_less_would_not_do(variant, axis, monkeypatch):
    shape = [7, 8, 9]
    shape[axis] = 75  # so long that windows end within the volume on both sides
    image, model = _image(tuple(shape)), _mixing(variant)
    whole = apply_model(image, PSF, model, _settings(tile=128))
    tiled = apply_model(image, PSF, model, _settings(tile=16))
    assert (whole.record.facts["tiles"], tiled.record.facts["tiles"]) == (1, 5)
    assert _apart(tiled.data, whole.data) < 1e-5
    monkeypatch.setattr(blocks, "halo_of", lambda model, network=None: 12)
    short = apply_model(image, PSF, model, _settings(tile=16))
    assert _apart(short.data, whole.data) > 1e-4


@VARIANTS
def test_a_psf_that_cannot_be_used_is_refused_also_where_it_only_judges_the_result(model):
    for wrong, said in (
        (replace(PSF, voxel_um=(1.0, 1.0, 1.0)), "the PSF's voxels are"),
        (PSF.with_data(2 * PSF.data), "sums to 2"),
        (PSF.with_data(0 * PSF.data), "zero everywhere"),
        (PSF.with_data(PSF.data - np.float32(1e-3)), "negative values"),
    ):
        with pytest.raises(RlnError, match=said):
            apply_model(_image(), wrong, model, _settings())


def test_a_result_can_be_written_as_integers(tmp_path):
    result = apply_model(_image(), PSF, MODELS["started"], _settings())
    write(result, tmp_path / "result.ome.tif", dtype="uint16")
    back = read(tmp_path / "result.ome.tif")
    assert tifffile.imread(tmp_path / "result.ome.tif").dtype == np.uint16
    np.testing.assert_allclose(back.data, result.data, rtol=0, atol=0.5001)
    assert json.loads(back.record.to_json()) == json.loads(result.record.to_json())


def test_too_little_memory_for_the_network_is_refused_before_its_first_tile(monkeypatch):
    monkeypatch.setattr(network, "bytes_allowed", lambda *_: 20_000_000)
    steps = apply_steps(
        _image((40, 48, 48)), None, MODELS["paper"],
        _settings(precision="float64"),
    )  # fmt: skip
    with pytest.raises(RlnError, match=r"network .* 0\.02 GB"):
        next(steps)
