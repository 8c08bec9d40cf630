"""What a network learns from: examples by number, patches in register, scores of the held-out."""

from dataclasses import replace
from itertools import product

import numpy as np
import phantoms
import pytest
import tifffile
import torch

from napari_rln.core.errors import RlnError
from napari_rln.core.generators import finish
from napari_rln.core.metrics import psnr
from napari_rln.core.volume import Volume
from napari_rln.deconvolution.calibration import Calibration
from napari_rln.deconvolution.classical import RichardsonLucy
from napari_rln.deconvolution.method import Observation
from napari_rln.deconvolution.prepared_view import PreparedView
from napari_rln.engine.in_memory import deconvolve
from napari_rln.io.volumes import write
from napari_rln.networks.initial_estimate import StartSettings, initial_estimate
from napari_rln.networks.normalisation import HIGH, LOW, Normalisation
from napari_rln.simulate.conditions import FieldConditions
from napari_rln.simulate.imaging import ImagingSettings, Pair, simulate_pair
from napari_rln.simulate.structures import TRAINING, StructureSettings
from napari_rln.train.batches import Batch, draw_batch, inner
from napari_rln.train.examples import (
    Example,
    PairFolder,
    Symmetry,
    SyntheticPairs,
    example,
    pairs_in,
    symmetry_of,
)
from napari_rln.train.training_settings import TrainSettings
from napari_rln.train.validation import apply_whole, baseline_iter, validate

SHAPE = (16, 16, 16)
START = StartSettings(iterations=2)
NONE = Symmetry(flips=(False, False, False), quarter_turn=False)
SETTINGS = TrainSettings(patch=8, shape=SHAPE, batch=4, augment=False, fullness=0.0)


def _one_psf(psf=None, seed=0, shape=SHAPE) -> SyntheticPairs:
    return SyntheticPairs(
        psf=psf or phantoms.gaussian_psf(), structures=StructureSettings(),
        imaging=ImagingSettings(), shape=shape, seed=seed,
    )  # fmt: skip


def _any_psf(seed=0) -> SyntheticPairs:
    return replace(_one_psf(seed=seed), psf=None, largest=(9, 9, 9))


def _example(target: np.ndarray, x: np.ndarray | None = None, power=1.0) -> Example:
    """Return an example of given arrays; the first estimate is the image and a quarter."""
    x = target if x is None else x
    x, target = x.astype(np.float32), target.astype(np.float32)
    volume = Volume.from_array(target, phantoms.VOXEL_UM)
    return Example(
        pair=Pair(image=volume, truth=volume), psf=None, calibration=Calibration(),
        scaling=Normalisation(offset=0.0, scale=1.0), x=x, E0=x + np.float32(0.25), target=target,
        mean=float(target.mean()), power=power,
    )  # fmt: skip


def _numbered(shape=(12, 14, 18)) -> Example:
    """Return an example whose voxels hold their own index, the truth a half more."""
    index = np.arange(np.prod(shape)).reshape(shape)
    return _example(index + 0.5, index)


# Examples


def test_synthetic_pairs_pass_on_the_conditions():
    source = replace(_one_psf(), conditions=FieldConditions(no_offset=0, offset=(90, 90)))
    image = source.pair(1)[0].image
    assert image.record.settings["conditions"]["offset"] == [90, 90]
    np.testing.assert_array_equal(image.data, np.rint(image.data))
    assert "conditions" not in _one_psf().pair(1)[0].image.record.settings


@pytest.mark.parametrize("source", [_one_psf, _any_psf])
def test_an_example_follows_from_its_number(source):
    def made(number, seed=0):
        return example(source(seed=seed), number, START, "brightness")

    first, other = made(3), made(4)
    again = made(3)
    for name in ("x", "E0", "target"):
        assert np.array_equal(getattr(first, name), getattr(again, name))
        assert getattr(first, name).shape == SHAPE
        assert getattr(first, name).dtype == np.float32
        assert not np.array_equal(getattr(first, name), getattr(other, name))
    assert not np.array_equal(first.x, made(3, seed=1).x)


def test_every_number_of_a_family_has_its_own_psf():
    psfs = [_any_psf().pair(number)[1] for number in range(3)]
    assert len({psf.hash for psf in psfs}) == 3
    assert all(psf.data.sum() == pytest.approx(1, abs=1e-4) for psf in psfs)


def test_image_estimate_and_truth_are_on_one_scale():
    start = StartSettings(iterations=15)
    made = example(_one_psf(), 0, start, "brightness", output_scale=3.0)
    offset, scale = made.scaling.offset, made.scaling.scale
    assert offset == made.calibration.background
    np.testing.assert_allclose(scale * made.x + offset, made.pair.image.data, rtol=1e-5, atol=1e-3)
    np.testing.assert_allclose(3 * scale * made.target, made.pair.truth.data, rtol=1e-5, atol=1e-3)
    view = PreparedView(image=made.pair.image, psf=made.psf, calibration=made.calibration)
    estimate = finish(initial_estimate(Observation.of(view, torch.device("cpu")), start)).data
    np.testing.assert_allclose(scale * made.E0, estimate, rtol=1e-5, atol=1e-3)
    assert phantoms.nrmse(made.E0, made.target) < phantoms.nrmse(made.x, made.target)
    assert made.mean == pytest.approx(made.target.mean())
    assert made.power == pytest.approx(made.target.var())


def test_the_papers_network_starts_from_the_image():
    made = example(_one_psf(), 0, StartSettings(method="image"), "percentiles")
    np.testing.assert_allclose(made.E0, made.x, atol=1e-5)
    low, high = np.percentile(made.pair.image.data, (LOW, HIGH))
    assert (made.scaling.offset, made.scaling.scale) == pytest.approx((low, high - low))


def test_the_truth_stops_the_start_only_where_it_stops_by_itself():
    source, auto = _one_psf(), StartSettings()
    fixed = [example(source, 0, START, "brightness", by_truth=told).E0 for told in (True, False)]
    assert np.array_equal(*fixed)
    first, again = (example(source, 0, auto, "brightness", by_truth=True) for _ in range(2))
    assert np.array_equal(first.E0, again.E0)
    assert phantoms.nrmse(first.E0, first.target) < phantoms.nrmse(first.x, first.target)


def test_a_start_that_goes_beyond_the_stop_does_so_where_the_truth_stops_it():
    source = _one_psf()
    run = [example(source, 0, StartSettings(iterations=n), "brightness") for n in range(3, 121, 3)]

    def iteration(beyond: float) -> int:
        """Return that of which the estimate is."""
        made = example(source, 0, StartSettings(beyond=beyond), "brightness", by_truth=True)
        estimate = made.scaling.scale * made.E0
        errors = [np.abs(estimate - e.scaling.scale * e.E0).max() / estimate.max() for e in run]
        assert min(errors) < 1e-4
        return 3 * (1 + int(np.argmin(errors)))

    one = iteration(1.0)
    assert iteration(1.5) == pytest.approx(1.5 * one, abs=3)
    assert iteration(0.5) == pytest.approx(0.5 * one, abs=3)


def test_a_large_psf_is_cropped_to_its_middle():
    wide = phantoms.gaussian_psf((9, 81, 9), (1.6, 1.2, 1.2))
    _, psf = _one_psf(wide).pair(0)
    assert psf.shape == (9, 63, 9)
    assert np.unravel_index(psf.data.argmax(), psf.shape) == (4, 31, 4)
    assert psf.data.sum() == pytest.approx(1, abs=1e-5)


# Pairs from files


@pytest.fixture
def folder(tmp_path):
    """Return a folder with three pairs."""
    for part in ("input", "ground_truth"):
        (tmp_path / part).mkdir()
    for number in range(3):
        pair = simulate_pair(phantoms.gaussian_psf(), shape=SHAPE, seed=number)
        write(pair.image, tmp_path / "input" / f"{number}.tif")
        write(pair.truth, tmp_path / "ground_truth" / f"{number}.tif")
    return tmp_path


def test_pairs_of_a_folder_come_by_name_and_again_after_the_last(folder):
    psf = phantoms.gaussian_psf()
    source = PairFolder(files=pairs_in(folder), psf=psf, symmetry=NONE)
    for number in range(5):
        expected = simulate_pair(psf, shape=SHAPE, seed=number % 3)
        pair, believed = source.pair(number)
        assert believed is psf
        np.testing.assert_array_equal(pair.image.data, expected.image.data)
        np.testing.assert_array_equal(pair.truth.data, expected.truth.data)
    made = example(source, 1, START, "brightness")
    assert np.array_equal(made.x, example(source, 4, START, "brightness").x)


def test_pairs_that_do_not_match_are_refused(folder):
    truth = Volume.from_array(np.ones((16, 16, 14)), phantoms.VOXEL_UM)
    write(truth, folder / "ground_truth" / "1.tif")
    source = PairFolder(files=pairs_in(folder), psf=None, symmetry=NONE)
    with pytest.raises(RlnError, match=r"\(16, 16, 14\) but .* \(16, 16, 16\)"):
        source.pair(1)
    (folder / "ground_truth" / "2.tif").unlink()
    with pytest.raises(RlnError, match=r"2\.tif.*truth"):
        pairs_in(folder)
    with pytest.raises(RlnError, match=r"input/.*ground_truth/"):
        pairs_in(folder / "input")


def test_a_voxel_size_that_no_file_states_is_given_or_an_error(folder):
    for part in ("input", "ground_truth"):
        values = np.random.default_rng(0).poisson(20, SHAPE).astype(np.float32)
        tifffile.imwrite(folder / part / "0.tif", values)
    psf = phantoms.gaussian_psf()
    files = pairs_in(folder)
    told = PairFolder(files=files, psf=psf, symmetry=NONE, voxel_um=psf.voxel_um)
    assert told.pair(0)[0].image.voxel_um == psf.voxel_um
    with pytest.raises(RlnError, match="voxel"):
        PairFolder(files=pairs_in(folder), psf=None, symmetry=NONE).pair(0)


# Symmetry


def test_symmetric_psfs_may_be_turned_and_others_not():
    assert symmetry_of(phantoms.gaussian_psf()) == Symmetry()
    assert symmetry_of(phantoms.comatic_psf()) == NONE
    oval = symmetry_of(phantoms.gaussian_psf(sigma=(1.6, 1.2, 2.0)))
    assert oval == Symmetry(quarter_turn=False)
    round_ = phantoms.gaussian_psf()
    assert not symmetry_of(replace(round_, voxel_um=(0.2, 0.1, 0.11))).quarter_turn
    skewed = round_.data.copy()
    skewed[6:] *= 4  # light on one side of the focus only, as with spherical aberration
    assert symmetry_of(round_.with_data(skewed / skewed.sum())).flips == (False, True, True)


# Batches


def _origin(block: np.ndarray, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return where a block of numbered voxels starts, and check that it is whole."""
    corner = np.unravel_index(int(block.min()), shape)
    whole = np.arange(np.prod(shape)).reshape(shape)
    cut = whole[tuple(slice(c, c + 8) for c in corner)]
    assert np.array_equal(np.sort(block.ravel()), np.sort(cut.ravel()))
    return tuple(int(c) for c in corner)


def test_a_batch_has_its_shape_and_follows_from_its_seed():
    examples = [_numbered(), _example(np.ones((10, 10, 10)), power=2.0)]
    batch, again, other = (draw_batch(examples, SETTINGS, NONE, seed)
                           for seed in ((0, 1), (0, 1), (0, 2)))  # fmt: skip
    for part, same in zip(batch, again, strict=True):
        assert torch.equal(part, same)
        assert part.dtype == torch.float32
    assert batch.x.shape == batch.E0.shape == batch.truth.shape == (4, 1, 8, 8, 8)
    assert batch.power.shape == (4,)
    assert not torch.equal(batch.x, other.x)


def test_every_patch_has_the_power_of_its_volume():
    examples = [_example(np.full((8, 8, 8), level), power=level) for level in (1.0, 2.0, 3.0)]
    batch = draw_batch(examples, replace(SETTINGS, batch=12), NONE, (0,))
    assert torch.equal(batch.power, batch.truth.mean((1, 2, 3, 4)))
    assert set(batch.power.tolist()) == {1.0, 2.0, 3.0}


def test_patches_start_on_even_voxels_and_reach_every_one():
    numbered = _numbered()
    batch = draw_batch([numbered], replace(SETTINGS, batch=800), NONE, (0,))
    corners = {_origin(block[0].numpy(), numbered.x.shape) for block in batch.x}
    assert corners == set(product((0, 2, 4), (0, 2, 4, 6), (0, 2, 4, 6, 8, 10)))


@pytest.mark.parametrize("shape", [(8, 8, 8), (9, 9, 9)])
def test_a_patch_may_be_the_whole_volume(shape):
    batch = draw_batch([_numbered(shape)], SETTINGS, NONE, (0,))
    assert {_origin(block[0].numpy(), shape) for block in batch.x} == {(0, 0, 0)}


@pytest.mark.parametrize(
    ("symmetry", "ways"),
    [
        (NONE, 1),
        (Symmetry(flips=(True, False, False), quarter_turn=False), 2),
        (Symmetry(flips=(False, True, True), quarter_turn=False), 4),
        (Symmetry(flips=(False, False, False), quarter_turn=True), 2),
        (Symmetry(), 16),
    ],
)
def test_turned_patches_stay_in_register(symmetry, ways):
    shape = (10, 12, 12)
    numbered = _numbered(shape)
    settings = replace(SETTINGS, batch=200, augment=True)
    batch = draw_batch([numbered], settings, symmetry, (0,))
    assert torch.all(batch.E0 - batch.x == 0.25)
    assert torch.all(batch.truth - batch.x == 0.5)
    seen = set()
    whole = numbered.x
    for block in batch.x[:, 0].numpy():
        corner = _origin(block, shape)
        cut = whole[tuple(slice(c, c + 8) for c in corner)]
        found = [
            (flips, turn)
            for flips in product(*((False, True) if f else (False,) for f in symmetry.flips))
            for turn in ((False, True) if symmetry.quarter_turn else (False,))
            if np.array_equal(block, _turn(cut, flips, turn))
        ]
        assert len(found) == 1
        seen.add(found[0])
    assert len(seen) == ways
    plain = draw_batch([numbered], replace(settings, augment=False), symmetry, (0,))
    assert all(
        np.array_equal(b, whole[tuple(slice(c, c + 8) for c in _origin(b, shape))])
        for b in plain.x[:, 0].numpy()
    )


def _turn(block, flips, turn):
    axes = [axis for axis, flip in enumerate(flips) if flip]
    block = np.flip(block, axes) if axes else block
    return block.swapaxes(1, 2) if turn else block


def test_empty_places_are_avoided():
    data = np.zeros((64, 8, 8))
    data[:8] = 8.0  # mean 1; of 29 places 4 hold at least 0.8 times that
    settings = replace(SETTINGS, batch=400)
    full = [
        float((draw_batch([_example(data)], replace(settings, fullness=f), NONE, (0,))
               .truth.mean((1, 2, 3, 4)) >= 0.8).float().mean())
        for f in (0.0, 0.8)
    ]  # fmt: skip
    assert full[0] == pytest.approx(4 / 29, abs=0.05)
    assert full[1] == pytest.approx(1 - (25 / 29) ** 4, abs=0.08)


def test_the_paper_stretches_every_patch_by_itself():
    rng = np.random.default_rng(0)
    data = rng.gamma(1.0, size=(12, 12, 12))
    examples = [_example(factor * data, factor * data + 7) for factor in (1.0, 50.0)]
    settings = replace(SETTINGS, normalisation="percentiles")
    batch = draw_batch(examples, settings, NONE, (0,))
    for part in (batch.x, batch.E0):
        for patch in part:
            assert np.percentile(patch, (LOW, HIGH)) == pytest.approx((0, 1), abs=1e-4)
        assert part.min() < 0
    for patch in batch.truth:
        assert patch.min() == 0
        assert np.percentile(patch, HIGH) == pytest.approx(1, abs=1e-4)
        assert patch.max() > 1
    # A flat patch stays finite.
    flat = draw_batch([_example(np.ones((8, 8, 8)))], settings, NONE, (0,))
    assert all(torch.isfinite(part).all() for part in flat)


def test_margins_are_taken_off_on_all_sides():
    batch = draw_batch([_numbered()], SETTINGS, NONE, (0,))
    assert torch.equal(inner(batch.x, 0), batch.x)
    assert torch.equal(inner(batch.x, 3), batch.x[:, :, 3:5, 3:5, 3:5])
    seen: Batch = batch.without_margin(1)
    assert torch.equal(seen.E0 - seen.x, torch.full((4, 1, 6, 6, 6), 0.25))
    assert torch.equal(seen.truth - seen.x, torch.full((4, 1, 6, 6, 6), 0.5))
    assert torch.equal(seen.power, batch.power)


# Scores


def test_what_is_to_be_beaten_is_the_best_of_classical_deconvolution():
    source = _one_psf(shape=(16, 20, 20))
    held = [example(source, number, START, "brightness") for number in range(2)]
    found = finish(baseline_iter(held))
    for kind in (found.rld, found.wiener_butterworth):
        assert kind.psnr_db > found.image.psnr_db
        assert kind.ssim > found.image.ssim
    image = [psnr(h.pair.image.data, h.pair.truth.data, fit=True) for h in held]
    assert found.image.psnr_db == pytest.approx(np.mean(image))
    for iterations in (5, 20, 60):
        each = []
        for h in held:
            told = RichardsonLucy(
                iterations=iterations, background=h.calibration.background, device="cpu"
            )
            result = deconvolve(h.pair.image, h.psf, told)
            each.append(psnr(result.data, h.pair.truth.data, fit=True))
        assert found.rld.psnr_db >= np.mean(each) - 1e-4


def test_held_out_examples_show_one_kind_at_a_time():
    held = replace(_one_psf(shape=(16, 16, 16)), structures=StructureSettings(), one_kind=True)
    kinds = [kind for kind in TRAINING if kind != "haze"]
    numbers = range(len(kinds) + 1)
    shown = [held.pair(n)[0].image.record.facts["structures"] for n in numbers]
    assert [next(k for k in s if k != "haze") for s in shown] == [*kinds, kinds[0]]
    assert all(len(s) == 1 or s[-1] == "haze" for s in shown)
    assert any(len(s) == 2 for s in shown)
    only = replace(held, structures=StructureSettings(structures=("haze",)))
    assert only.pair(0)[0].image.record.facts["structures"] == ["haze"]


def test_without_examples_or_psf_there_is_nothing_classical_to_beat():
    assert finish(baseline_iter([])) is None
    source = PairFolder(files=[], psf=None, symmetry=NONE)
    pair, _ = _one_psf().pair(0)
    object.__setattr__(source, "pair", lambda number: (pair, None))
    held = example(source, 0, StartSettings(method="image"), "percentiles")
    found = finish(baseline_iter([held]))
    assert found.image.psnr_db > 0
    assert found.rld is found.wiener_butterworth is None


def _hand_on(x, E0):
    """Return what is given as the first estimate."""
    assert x.shape == E0.shape
    assert E0.ndim == 4
    assert all(n % 2 == 0 for n in E0.shape[1:])
    return E0


def test_the_weight_of_the_initial_estimate_is_the_one_that_errs_least():
    """Of two estimates with opposite errors of one size, half of each is the truth."""
    source = _one_psf(shape=(16, 16, 16))
    held = [example(source, number, START, "brightness", output_scale=2.0) for number in range(2)]
    wrong = [np.random.default_rng(n).normal(0, 0.3, (16, 16, 16)) for n in range(2)]
    held = [
        replace(one, E0=(2 * (one.target + w)).astype(np.float32))
        for one, w in zip(held, wrong, strict=True)
    ]
    errors = [
        (one.target - w - one.E0).astype(np.float32) for one, w in zip(held, wrong, strict=True)
    ]
    weights = (0.0, 0.25, 0.5, 0.75)
    left = [torch.from_numpy(error)[None] for error in errors]
    found = validate(
        lambda x, E0: E0 + left.pop(0), held, estimate_weights=weights, output_scale=2.0
    )
    assert found.estimate_weight == 0.5
    assert found.quality.psnr_db > 60


def test_the_network_is_judged_on_whole_volumes_in_the_mean():
    source = _one_psf(shape=(15, 16, 17))
    held = [example(source, number, START, "brightness") for number in range(2)]
    for one in held:
        np.testing.assert_array_equal(apply_whole(_hand_on, one), one.E0)
    quality, errors, weight, preview = validate(_hand_on, held)
    assert len(errors) == 2
    assert weight == 0
    expected = np.mean([psnr(one.E0, one.target, fit=True) for one in held])
    assert quality.psnr_db == pytest.approx(expected)
    assert 0 < quality.ssim < 1
    first = held[0]
    for shown, data in (
        (preview.image, first.x), (preview.start, first.E0),
        (preview.result, first.E0), (preview.truth, first.target),
    ):  # fmt: skip
        assert np.array_equal(shown[0], data[7])
        assert np.array_equal(shown[1], data[:, 8])
