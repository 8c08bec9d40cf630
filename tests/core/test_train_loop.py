"""The training loop: repeatable to the bit, broken off and gone on with, the best model kept."""

import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import phantoms
import pytest
import torch
from torch.nn.functional import avg_pool3d

from napari_rln import cli
from napari_rln.core import generators as steps_module
from napari_rln.core.brightness import brightness
from napari_rln.core.errors import ComputeError, RlnError
from napari_rln.core.generators import finish
from napari_rln.core.record import Record
from napari_rln.core.volume import Volume
from napari_rln.deconvolution.method import Observation
from napari_rln.deconvolution.prepared_view import PreparedView
from napari_rln.deconvolution.views import rotated
from napari_rln.io.volumes import read, write
from napari_rln.networks.initial_estimate import StartSettings, initial_estimate
from napari_rln.networks.model import Model
from napari_rln.networks.rln import RLN, NetworkSettings, initialise, initialise_as_identity
from napari_rln.simulate.imaging import ImagingSettings, simulate_pair
from napari_rln.train import examples, learning_rate, pool, validation
from napari_rln.train import state as run
from napari_rln.train.batch_statistics import estimate_statistics
from napari_rln.train.batches import Batch, draw_batch
from napari_rln.train.examples import Symmetry, example
from napari_rln.train.loop import train_model, train_model_iter
from napari_rln.train.timing import Timing
from napari_rln.train.training_set import training_set_of
from napari_rln.train.training_settings import PRESETS, Quality, TrainReport, TrainSettings
from napari_rln.train.validation import ValidationResult, validate

TINY = TrainSettings(
    steps=4, start_iterations=2, batch=2, patch=8, shape=(16, 16, 16), examples=3,
    steps_per_example=1, validate=1, validate_every=2, device="cpu",
)  # fmt: skip
PSF = phantoms.gaussian_psf()


class Trained(NamedTuple):
    """What a training said, and the model it ended with; none where it was broken off."""

    reports: list[TrainReport]
    model: Model | None

    @property
    def steps(self) -> list[TrainReport]:
        return [report for report in self.reports if report.phase == "train"]


def _run(settings, *, until=None, psf=PSF, setting=None, **options) -> Trained:
    """Train, or break off after a step."""
    reports = []
    steps = train_model_iter(setting or training_set_of(settings, psf=psf), settings, **options)
    while True:
        try:
            reports.append(next(steps))
        except StopIteration as stop:
            return Trained(reports, stop.value)
        if until is not None and reports[-1].phase == "train" and reports[-1].step == until:
            steps.close()
            return Trained(reports, None)


def _batch(x: torch.Tensor, E0: torch.Tensor) -> Batch:
    return Batch(x, E0, truth=x, power=torch.ones(len(x)), about=torch.zeros(len(x), 2))


def _same(a: Model, b: Model) -> bool:
    """Tell whether two models are alike to the bit, the time that they took aside."""
    mine, other = a.network.state_dict(), b.network.state_dict()
    weights = all(torch.equal(mine[name], other[name]) for name in {*mine, *other})
    return weights and _record(a) == _record(b)


def _record(model: Model) -> dict:
    card = model.card()
    del card["record"]["facts"]["seconds"], card["record"]["time"]
    return card


def _said(report: TrainReport) -> tuple:
    """Return what a report says, times and pictures aside."""
    return tuple(
        getattr(report, name)
        for name in (
            "phase", "step", "total", "learning_rate", "loss", "mse", "ssim", "e_mse", "quality",
            "baseline", "best_step",
        )
    )  # fmt: skip


@pytest.fixture(autouse=True)
def _short(monkeypatch):
    """Take few classical iterations to judge by, and few batches for the statistics."""
    monkeypatch.setattr(run, "_STATISTICS", 4)
    monkeypatch.setattr(validation, "_ITERATIONS", (2, 4))
    monkeypatch.setattr(validation, "_WB_ITERATIONS", (1,))


@pytest.fixture
def few(monkeypatch):
    """Begin with one example, so that the others are made while the training runs."""
    monkeypatch.setattr(pool, "FIRST", 1)


@pytest.fixture
def judged(monkeypatch):
    """Return a function that has the network judged by given numbers; it returns its weights."""

    def judge(*decibels):
        left, seen = list(decibels), []

        def validate(network, held, **_):
            assert not network.training
            seen.append({k: v.clone() for k, v in network.state_dict().items()})
            decibels = left.pop(0)
            return ValidationResult(Quality(psnr_db=decibels, ssim=0.5), (-decibels,), 0.25, None)

        monkeypatch.setattr(run, "validate", validate)
        monkeypatch.setattr(run, "preview", lambda *_, **__: None)
        monkeypatch.setattr(run, "inference_of", lambda network, device, **options: network)
        return seen

    return judge


# First weights


def _initial(seed=0) -> RLN:
    network = RLN()
    initialise(network, torch.Generator().manual_seed(seed))
    return network


@torch.no_grad()
def test_first_weights_hand_the_estimate_on():
    source = training_set_of(replace(TINY, shape=(24, 24, 24)), psf=PSF).source
    start = StartSettings(iterations=15)
    made = [example(source, number, start, "brightness") for number in range(2)]
    x, E0 = (
        torch.from_numpy(np.stack([getattr(e, name) for e in made]))[:, None]
        for name in ("x", "E0")
    )
    for seed in range(2):
        likeness = {}
        for told in (True, False):
            network = _initial(seed)
            if told:
                initialise_as_identity(network)
            estimate_statistics(network, [_batch(x, E0)])
            stages = network.eval()(x, E0)
            likeness[told] = {
                name: np.corrcoef(getattr(stages, name).ravel(), E0.ravel())[0, 1]
                for name in ("E1", "E2", "output")
            }
        assert likeness[True]["E1"] > 0.95 > likeness[False]["E1"]
        assert likeness[True]["E2"] > 0.92 > likeness[False]["E2"]
        assert likeness[True]["output"] > max(0.75, likeness[False]["output"] + 0.1)


@torch.no_grad()
def test_statistics_are_the_mean_over_batches():
    network = _initial()
    generator = torch.Generator().manual_seed(1)
    batches = [torch.rand((2, 1, 8, 8, 8), generator=generator) for _ in range(3)]
    momenta = [m.momentum for m in network.modules() if isinstance(m, torch.nn.BatchNorm3d)]
    network.H1.e_1.bn.running_mean.fill_(77)  # what was there before does not count
    estimate_statistics(network, [_batch(x, x) for x in batches])
    pooled = [avg_pool3d(x, 2) for x in batches]
    maps = [network.H1.e_1.conv(x) for x in pooled]
    means = torch.stack([m.mean((0, 2, 3, 4)) for m in maps]).mean(0)
    variances = torch.stack([m.var((0, 2, 3, 4)) for m in maps]).mean(0)
    torch.testing.assert_close(network.H1.e_1.bn.running_mean, means)
    torch.testing.assert_close(network.H1.e_1.bn.running_var, variances)
    after = [m.momentum for m in network.modules() if isinstance(m, torch.nn.BatchNorm3d)]
    assert after == momenta


def test_held_statistics_are_those_of_the_first_weights(few):
    settings = replace(TINY, validate=0, steps=2, examples=1)
    found = _run(settings).model.network.state_dict()
    source = training_set_of(settings, psf=PSF).source
    made = example(source, 0, settings.start_settings, "brightness", by_truth=True)
    convolve = _initial().H1.e_1.conv
    with torch.no_grad():
        means = []
        for number in range(4):
            batch = draw_batch([made], settings, source.symmetry, (0, run._STATS, 0, number))
            means.append(convolve(avg_pool3d(batch.E0, 2)).mean((0, 2, 3, 4)))
    torch.testing.assert_close(found["H1.e_1.bn.running_mean"], torch.stack(means).mean(0))
    assert not torch.equal(found["H1.e_1.conv.weight"], convolve.weight)


def test_held_statistics_do_not_change(judged):
    seen = judged(1, 2, 3, 4, 5, 6)
    _run(replace(TINY, steps=6, frozen=0.5, validate_every=1))
    running = [[v for k, v in state.items() if "running" in k] for state in seen]

    def alike(i: int, j: int) -> bool:
        return all(torch.equal(a, b) for a, b in zip(running[i], running[j], strict=True))

    assert not alike(0, 1)
    assert not alike(1, 2)
    assert alike(3, 4)
    assert alike(4, 5)
    assert not torch.equal(seen[4]["H3.u_5.weight"], seen[5]["H3.u_5.weight"])


# Repeatable


def test_a_seed_gives_its_own_training_again(few):
    first, again = (_run(TINY) for _ in range(2))
    assert _same(first.model, again.model)
    assert [_said(r) for r in first.reports] == [_said(r) for r in again.reports]
    other = _run(replace(TINY, seed=1))
    assert not torch.equal(first.model.network.H3.u_5.weight, other.model.network.H3.u_5.weight)


def test_phases_are_told_in_order(few):
    ended = _run(TINY)
    said = [(r.phase, r.step, r.total) for r in ended.reports]
    assert list(dict.fromkeys(said)) == [
        ("examples", 0, 2), ("examples", 1, 2), ("examples", 2, 2), ("baseline", 0, 1),
        *(("train", step, 4) for step in (1, 2, 3, 4)),
    ]  # fmt: skip
    examined = [r.step for r in ended.steps if r.quality is not None]
    assert examined == [2, 4]
    assert all((r.quality is None) == (r.preview is None) for r in ended.steps)
    assert all(r.baseline is not None for r in ended.steps)
    facts = ended.model.record.facts
    assert (facts["steps"], facts["total"]) == (4, 4)
    assert facts["losses"]["total"] == ended.steps[-1].loss
    best = max((r for r in ended.steps if r.quality), key=lambda r: r.quality.psnr_db)
    assert facts["best_step"] == ended.steps[-1].best_step == best.step
    assert facts["validation"]["network"]["psnr_db"] == best.quality.psnr_db
    assert {"image", "rld", "wiener_butterworth"} < set(facts["validation"])


def test_the_time_left_is_known_from_the_first_volume_on(clock):
    timed = _run(replace(TIMED, minutes=1.0, validate=2, validate_every=1000))
    preparing = [report for report in timed.reports if report.phase != "train"]
    before, first, *_, last = preparing
    assert before.preparation_left is None
    assert before.seconds_left == pytest.approx(60)
    # Two volumes more of a second, then scores of the two held-out ones.
    assert first.preparation_left == pytest.approx(2 + 2 * (1.4 + 0.1))
    assert first.seconds_left == pytest.approx(60 - 1)
    assert last.preparation_left < first.preparation_left
    assert all(report.preparation_left is None for report in timed.steps)
    by_steps = _run(replace(TINY, validate=1))
    assert all(r.seconds_left is None for r in by_steps.reports if r.phase != "train")


def test_the_first_volume_is_shown_at_once_and_the_present_weights_at_any_time(monkeypatch):
    shown = {report.step: report.preview_now() for report in _shown_on_the_way(TINY)}
    assert set(shown) == {1, 2, 3, 4}
    assert not np.array_equal(shown[1].result[0], shown[4].result[0])
    again = _run(TINY)
    assert _same(again.model, _run(TINY).model)
    early = [report for report in again.reports if report.phase == "examples"]
    assert early[0].preview_now() is None
    assert early[1].preview is not None
    assert early[1].preview.result is None
    assert early[1].preview.start[0].shape == early[1].preview.truth[0].shape == (16, 16)


def _shown_on_the_way(settings):
    for report in train_model_iter(training_set_of(settings, psf=PSF), settings):
        if report.phase == "train":
            yield report


def test_nothing_is_computed_while_a_training_is_paused(few, monkeypatch):
    begun, make = [], pool.example

    def made_slowly(source, number, *options, **named):
        begun.append(number)
        time.sleep(0.05)
        return make(source, number, *options, **named)

    monkeypatch.setattr(pool, "example", made_slowly)
    settings = replace(TINY, examples=400)
    steps = train_model_iter(training_set_of(settings, psf=PSF), settings)
    while next(steps).phase != "train":
        pass
    monkeypatch.setattr(pool, "_PREFETCH", 300)
    next(steps)
    time.sleep(0.3)  # the example that has begun is finished
    before = len(begun)
    time.sleep(0.5)
    assert len(begun) == before < 300
    next(steps)
    time.sleep(0.3)
    assert len(begun) > before
    steps.close()


def test_the_model_is_ready_for_use():
    model = train_model(training_set_of(TINY, psf=PSF), TINY, name="mine")
    assert model.name == "mine"
    assert not model.network.training
    assert model.psf is PSF
    assert model.start == StartSettings(method="matched", iterations=2)
    assert model.normalisation == "brightness"
    assert model.record.settings["seed"] == 0
    source = training_set_of(TINY, psf=PSF).source
    first = [example(source, n, model.start, "brightness", by_truth=True) for n in range(3)]
    scale = np.median([brightness(e.target) for e in first])
    assert model.output_scale == pytest.approx(scale, abs=1e-3)


# Broken off and gone on with

VARIANTS = {
    "as usual": TINY,
    "statistics held late": replace(TINY, frozen=0.5),
    "none held out": replace(TINY, frozen=0.0, validate=0),
    "paper": replace(
        PRESETS["paper"], steps=4, batch=2, patch=8, shape=(16, 16, 16), examples=3,
        steps_per_example=1, validate_every=2, device="cpu",
    ),
}  # fmt: skip


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_training_gone_on_with_is_one_that_was_not_broken_off(few, tmp_path, variant):
    settings = VARIANTS[variant]
    whole = _run(settings)
    path = tmp_path / "training.checkpoint"
    for until in (2, 3):  # where the state is saved anyhow, and elsewhere
        _run(settings, until=until, checkpoint=path)
        assert path.is_file()
        resumed = _run(settings, checkpoint=path, resume=True)
        assert [report.step for report in resumed.steps] == [*range(until + 1, 5)]
        assert list(map(_said, resumed.steps)) == list(map(_said, whole.steps[until:]))
        assert _same(resumed.model, whole.model)
        assert not path.exists()


def test_an_adaptation_is_gone_on_with(few, judged, tmp_path):
    begin = replace(train_model(training_set_of(TINY, psf=PSF), TINY), estimate_weight=0.35)
    setting = training_set_of(TINY, psf=PSF, initial_model=begin)
    path = tmp_path / "training.checkpoint"
    judged(30.0, 29.0, 28.0)
    whole = _run(TINY, setting=setting)
    judged(30.0, 29.0)
    _run(TINY, until=2, setting=setting, checkpoint=path)
    judged(28.0)
    resumed = _run(TINY, setting=setting, checkpoint=path, resume=True)
    assert _same(resumed.model, whole.model)
    assert resumed.model.record.facts["best_step"] == 0


def test_the_estimate_weight_of_the_initial_model_is_tried(few, monkeypatch):
    begin = replace(train_model(training_set_of(TINY, psf=PSF), TINY), estimate_weight=0.35)
    tried = []

    def seen(network, held, *, estimate_weights, **options):
        tried.append(tuple(estimate_weights))
        return validate(network, held, estimate_weights=estimate_weights, **options)

    monkeypatch.setattr(run, "validate", seen)
    _run(TINY, setting=training_set_of(TINY, psf=PSF, initial_model=begin))
    assert set(tried) == {(0.0, 0.1, 0.2, 0.3, 0.35, 0.4, 0.5)}


def test_a_training_killed_after_its_last_step_is_finished(few, tmp_path):
    path = tmp_path / "training.checkpoint"
    whole = _run(TINY)
    _run(TINY, until=4, checkpoint=path)
    resumed = _run(TINY, checkpoint=path, resume=True)
    assert resumed.steps == []
    mine, other = (m.record.facts for m in (resumed.model, whole.model))
    assert resumed.model.hash == whole.model.hash
    for fact in ("steps", "total", "best_step", "validation"):
        assert mine[fact] == other[fact]


def test_a_finished_training_knows_its_last_losses(few, tmp_path):
    path = tmp_path / "training.checkpoint"
    said = _run(TINY, until=4, checkpoint=path).steps[-1].loss
    resumed = _run(TINY, checkpoint=path, resume=True)
    assert resumed.model.record.facts["losses"]["total"] == said


def test_a_training_gone_on_with_knows_how_long_it_takes(clock, tmp_path):
    settings = replace(TINY, steps=40, validate=0, examples=1, batch=1, validate_every=30)
    path = tmp_path / "training.checkpoint"
    _run(settings, until=30, checkpoint=path)
    resumed = _run(settings, checkpoint=path, resume=True)
    assert resumed.steps[1].seconds_left == pytest.approx(0.8, rel=0.5)


KILLED = """
import os, signal, sys
sys.path.insert(0, {folder!r})
import test_train_loop as tests
from napari_rln.cli import main
from napari_rln.train import examples
from napari_rln.train import pool
from napari_rln.train import state as run
from napari_rln.train import validation
from napari_rln.train.training_settings import PRESETS

PRESETS["full"], run._STATISTICS = tests.TINY, 4
validation._ITERATIONS, validation._WB_ITERATIONS = (2, 4), (1,)
draw = pool.draw_batch

def kill(examples, settings, symmetry, seed, **options):
    if seed[1:] == (run._STEPS, 3):
        os.kill(os.getpid(), signal.SIGKILL)
    return draw(examples, settings, symmetry, seed, **options)

pool.draw_batch = kill
main(["train", "--initial-model", "none", "--psf", {psf!r}, "-o", {out!r}])
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGKILL")
def test_a_killed_command_is_gone_on_with(tmp_path, monkeypatch):
    psf, out = tmp_path / "psf.ome.tif", tmp_path / "model.safetensors"
    write(PSF, psf)
    code = KILLED.format(folder=str(Path(__file__).parent), psf=str(psf), out=str(out))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    left = ["model.checkpoint", "model.prepared", "psf.ome.tif"]
    assert sorted(p.name for p in tmp_path.iterdir()) == left

    monkeypatch.setitem(PRESETS, "full", TINY)
    tokens = ["train", "--initial-model", "none", "--psf", str(psf), "--quiet", "-o"]
    assert cli.run([*tokens, str(out), "--resume"]) == 0
    assert not out.with_suffix(".checkpoint").exists()
    assert not out.with_suffix(".prepared").exists()
    whole = tmp_path / "whole" / "model.safetensors"
    whole.parent.mkdir()
    assert cli.run([*tokens, str(whole)]) == 0
    assert _same(Model.load(out), Model.load(whole))


def test_what_was_prepared_is_kept_where_the_preparation_is_broken_off(tmp_path, monkeypatch):
    checkpoint = tmp_path / "m.checkpoint"
    whole = finish(train_model_iter(training_set_of(TINY, psf=PSF), TINY))
    steps = train_model_iter(training_set_of(TINY, psf=PSF), TINY, checkpoint=checkpoint)
    while next(steps).step < 3:
        pass
    steps.close()
    kept = sorted((tmp_path / "m.prepared").iterdir())
    assert len(kept) >= 3
    kept[0].write_bytes(b"damaged")
    made = []
    original = examples.initial_estimate
    monkeypatch.setattr(examples, "initial_estimate", lambda *a: made.append(a) or original(*a))
    again = finish(train_model_iter(training_set_of(TINY, psf=PSF), TINY, checkpoint=checkpoint))
    assert len(made) == 1 + TINY.validate + TINY.examples - len(kept)
    assert again.hash == whole.hash
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def broken_off(few, tmp_path):
    """Return the checkpoint of a training broken off after two steps."""
    path = tmp_path / "training.checkpoint"
    _run(TINY, until=2, checkpoint=path)
    return path


def test_only_the_same_training_can_be_gone_on_with(broken_off):
    before = broken_off.read_bytes()
    for changes, names in (({"seed": 1}, "seed"), ({"batch": 3, "steps": 5}, "batch, steps")):
        with pytest.raises(RlnError, match=names):
            _run(replace(TINY, **changes), checkpoint=broken_off, resume=True)
    with pytest.raises(RlnError, match="psf"):
        _run(TINY, psf=phantoms.gaussian_psf((7, 7, 7)), checkpoint=broken_off, resume=True)
    with pytest.raises(RlnError, match=r"`resume`.*`checkpoint`"):
        _run(TINY, resume=True)
    assert broken_off.read_bytes() == before


def test_what_is_no_checkpoint_is_not_gone_on_with(broken_off):
    whole = broken_off.read_bytes()
    broken_off.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(RlnError, match="is not a training checkpoint"):
        _run(TINY, checkpoint=broken_off, resume=True)
    broken_off.unlink()
    with pytest.raises(RlnError, match="there is no checkpoint"):
        _run(TINY, checkpoint=broken_off, resume=True)
    Model(
        name="m", network=RLN(), start=StartSettings(), record=Record(method="train")
    ).save(broken_off.with_suffix(".safetensors"))  # fmt: skip
    with pytest.raises(RlnError, match="is not a training checkpoint"):
        _run(TINY, checkpoint=broken_off.with_suffix(".safetensors"), resume=True)


def test_a_wrong_checkpoint_is_refused_before_the_long_work(tmp_path):
    reports = train_model_iter(
        training_set_of(TINY, psf=PSF), TINY, checkpoint=tmp_path / "absent.checkpoint", resume=True
    )
    with pytest.raises(RlnError, match="there is no checkpoint"):
        next(reports)


# The best is kept


def test_the_best_is_what_the_held_out_volumes_say(judged):
    seen = judged(20.0, 31.0, 25.0, 30.9)
    ended = _run(replace(TINY, validate_every=1))
    assert [report.best_step for report in ended.steps] == [1, 2, 2, 2]
    assert ended.model.record.facts["best_step"] == 2
    assert ended.model.record.facts["validation"]["network"]["psnr_db"] == 31
    found = ended.model.network.state_dict()
    assert all(torch.equal(found[name], seen[1][name]) for name in found)
    assert not torch.equal(found["H3.u_5.weight"], seen[3]["H3.u_5.weight"])


def test_a_model_to_begin_with_is_kept_where_training_does_not_improve_it(few, judged):
    begin = train_model(
        training_set_of(replace(TINY, validate=0), psf=PSF), replace(TINY, validate=0)
    )
    judged(30.0, 29.0, 28.0)
    ended = _run(TINY, setting=training_set_of(TINY, psf=PSF, initial_model=begin))
    first = next(report for report in ended.reports if report.quality)
    assert (first.phase, first.quality.psnr_db) == ("baseline", 30)  # said before the first step
    assert ended.model.record.facts["best_step"] == 0
    found, given = ended.model.network.state_dict(), begin.network.state_dict()
    assert all(torch.equal(found[name], given[name]) for name in found)


def test_without_held_out_volumes_the_last_is_kept(few):
    ended = _run(replace(TINY, validate=0))
    facts = ended.model.record.facts
    assert facts["best_step"] == 4
    assert "validation" not in facts
    assert all(report.baseline is None for report in ended.steps)


def test_a_cancelled_training_leaves_the_best_so_far(judged):
    seen = judged(30.0, 20.0, 25.0)
    ended = _run(replace(TINY, validate_every=1), until=3)
    model = ended.reports[-1].model()
    assert model.record.facts["steps"] == 3
    assert model.record.facts["total"] == 4
    assert model.record.facts["best_step"] == 1
    found = model.network.state_dict()
    assert all(torch.equal(found[name], seen[0][name]) for name in found)


def test_a_training_cancelled_before_it_was_examined_leaves_what_there_is(few):
    ended = _run(replace(TINY, validate_every=100), until=1)
    model = ended.reports[-1].model()
    assert model.record.facts["best_step"] == 1
    assert all(torch.isfinite(v).all() for v in model.network.state_dict().values())


def test_the_statistics_can_be_estimated_after_a_training_was_cancelled(few):
    ended = _run(replace(TINY, frozen=0.0, validate=0, examples=8), until=1)
    model = ended.reports[-1].model()
    assert model.record.facts["steps"] == 1


def test_a_report_has_no_model_while_examples_are_made(few):
    steps = train_model_iter(training_set_of(TINY, psf=PSF), TINY)
    report = next(steps)
    steps.close()
    with pytest.raises(RlnError, match="no model yet"):
        report.model()


def test_cancelling_leaves_no_thread_behind(few):
    ended = _run(TINY, until=1)
    assert ended.model is None
    assert not [t for t in threading.enumerate() if t.name.startswith("examples")]


# Learning


def test_the_loss_falls_on_what_can_be_learnt_by_heart():
    settings = replace(
        TINY, steps=30, examples=1, validate=0, patch=16, batch=1, augment=False,
        start_iterations=10,
    )  # fmt: skip
    ended = _run(settings)
    losses = [report.loss for report in ended.steps]
    mses = [report.mse for report in ended.steps]
    assert np.mean(losses[-5:]) < losses[0] - 0.5
    assert np.mean(mses[-5:]) < 0.5 * mses[0]


def test_the_learning_rate_rises_and_falls_as_a_cosine(few):
    settings = replace(TINY, steps=30, examples=1, validate=0, batch=1)
    rates = [report.learning_rate for report in _run(settings).steps]
    step = np.arange(30)
    expected = 0.02 * np.minimum(1, (step + 1) / 20) * (1 + np.cos(np.pi * step / 30)) / 2
    np.testing.assert_allclose(rates, expected)


def test_the_papers_recipe_trains(few):
    settings = replace(VARIANTS["paper"], steps=2, patch=16)
    ended = _run(settings)
    rates = [report.learning_rate for report in ended.steps]
    assert rates == pytest.approx([0.015, 0.015 * 0.95 ** (1 / 600)])
    model = ended.model
    assert model.variant == "paper"
    assert (model.normalisation, model.output_scale) == ("percentiles", 1)
    # Adam moves a weight by the learning rate at first: they began where the paper's begin.
    first, found = _initial().state_dict(), model.network.state_dict()
    for name, value in first.items():
        if name.endswith(("weight", "bias")):
            assert (found[name] - value).abs().max() <= 2 * 0.0151, name
    assert (found["H2.u_4.conv.weight"] - first["H2.u_4.conv.weight"]).abs().median() > 0.01


def test_a_model_is_where_a_training_begins(few):
    begin = replace(train_model(training_set_of(TINY, psf=PSF), TINY), estimate_weight=0.3)
    other = phantoms.gaussian_psf((7, 7, 7), (1.2, 1.0, 1.0))
    settings = replace(TINY, seed=5, steps=1, learning_rate=1e-6, validate=0)
    model = train_model(training_set_of(settings, psf=other, initial_model=begin), settings)
    assert model.output_scale == begin.output_scale
    assert model.estimate_weight == begin.estimate_weight > 0
    assert model.record.inputs["initial_model"] == begin.hash
    found = model.network.state_dict()
    for name, value in begin.network.state_dict().items():
        if name.endswith(("weight", "bias")):
            assert torch.allclose(found[name], value, atol=1e-6), name
        else:  # statistics that are held are those that the model goes with
            assert torch.equal(found[name], value), name
    assert (
        begin.hash == model.record.inputs["initial_model"]
    )  # the given model was not trained itself


def test_a_training_for_any_psf(few):
    setting = training_set_of(TINY, any_psf=True)
    model = train_model(setting, replace(TINY, steps=2))
    assert model.psf is None
    assert model.psf_widths == setting.psf_widths


# Minutes


class _Clock:
    """Time that passes only when told."""

    now = 0.0

    def perf_counter(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch, few):
    """Return a clock by which examples take a second, steps a tenth, an examination two."""
    clock = _Clock()
    monkeypatch.setattr(steps_module, "time", clock)

    def takes(owner, name, seconds):
        work = getattr(owner, name)

        def timed(*given, **named):
            clock.now += seconds
            return work(*given, **named)

        monkeypatch.setattr(owner, name, timed)

    takes(pool, "example", 1.0)
    takes(run.TrainingState, "_descend", 0.1)
    takes(run, "validate", 2.0)
    monkeypatch.setattr(run, "WARM_UP", 6)
    monkeypatch.setattr(learning_rate, "WARM_UP", 6)
    return clock


TIMED = replace(TINY, steps=None, minutes=8.05 / 60, examples=1, batch=1)


def test_minutes_decide_how_many_steps_there_are(clock):
    ended = _run(replace(TIMED, validate=1, validate_every=20))
    # Two examples, 6 steps of 0.1 s and two examinations, one of them the last; from then on a step
    # costs a twentieth of an examination as well.
    total = 6 + int((8.05 - 2 - 0.6 - 2 - 2) / (0.1 + 2 / 20))
    assert ended.steps[-1].total == ended.steps[-1].step == total
    assert ended.model.record.facts["total"] == total
    assert {report.total for report in ended.steps[5:]} == {total}


def test_minutes_are_kept_to(clock):
    ended = _run(replace(TIMED, validate=0))
    assert clock.now == pytest.approx(8.05, abs=0.1)
    lefts = [report.seconds_left for report in ended.steps if report.seconds_left is not None]
    assert lefts[0] == pytest.approx(8.05 - 1.7, abs=0.1)
    assert lefts[-1] == pytest.approx(0, abs=0.01)


def test_too_few_minutes_are_a_few_steps(clock):
    ended = _run(replace(TIMED, minutes=0.05, validate=1, validate_every=1))
    assert ended.steps[-1].step == 7


def test_minutes_are_kept_to_where_steps_become_slow(clock, monkeypatch):
    """Later steps take three times as long, as on a machine that other work keeps busy."""
    descend = run.TrainingState._descend

    def slower(state):
        clock.now += 0.2 * (state.step >= 30)
        return descend(state)

    monkeypatch.setattr(run.TrainingState, "_descend", slower)
    settings = replace(TIMED, minutes=40 / 60, validate=1, validate_every=20)
    ended = _run(settings)
    assert ended.reports[-1].seconds == pytest.approx(40, abs=5)
    assert ended.steps[30].total > ended.steps[-1].total == ended.steps[-1].step


def test_a_short_training_is_prepared_in_a_part_of_its_time(clock, monkeypatch):
    """Of twenty held-out and eight first volumes, each of which takes half a second, a few."""
    monkeypatch.setattr(pool, "FIRST", 8)
    settings = replace(TIMED, minutes=20 / 60, validate=20, examples=8, validate_every=1000)
    for minutes, expected in ((1 / 3, (9, 3)), (0.05, (4, 3)), (5.0, (20, 8))):
        timed = replace(settings, minutes=minutes)
        assert Timing(timed).volumes_in_time(0.5, (20, 8)) == expected
    prepared = [r for r in _run(settings).reports if r.phase == "examples"]
    assert prepared[-1].step == prepared[-1].total < 28


def test_an_interrupted_training_takes_its_minutes_once(clock, tmp_path):
    settings = replace(TIMED, minutes=20 / 60, validate=1, validate_every=20)
    whole = _run(settings)
    path = tmp_path / "training.checkpoint"
    _run(settings, until=45, checkpoint=path)
    resumed = _run(settings, checkpoint=path, resume=True)
    # Two examples are created again: 20 steps less, of a tenth of a second each.
    assert whole.steps[-1].step - 30 < resumed.steps[-1].step < whole.steps[-1].step
    assert resumed.model.record.facts["seconds"] == pytest.approx(20, abs=1)
    assert resumed.reports[0].seconds > 5  # those before the interruption count


def test_pauses_take_nothing_of_the_minutes(clock):
    ends = []
    for slow in (0.0, 1000.0):
        steps = train_model_iter(training_set_of(TIMED, psf=PSF), replace(TIMED, validate=0))
        for report in steps:
            clock.now += slow * (report.step in (1, 3, 40))  # somebody pauses
        ends.append((report.step, report.seconds))
    assert ends[1] == pytest.approx(ends[0])


def test_a_timed_training_warms_up_like_any_other(clock):
    rates = [report.learning_rate for report in _run(replace(TIMED, validate=0)).steps[:6]]
    assert np.all(np.diff(rates) > 0)


def test_a_timed_training_holds_its_statistics_late_only(clock, monkeypatch):
    held = []
    monkeypatch.setattr(
        run.TrainingState, "_freeze", lambda run: held.append((run.step, run.total))
    )
    _run(replace(TIMED, frozen=0.2, validate=0))
    assert held[0][0] >= 0.8 * held[0][1] > 6


# Pairs from files


def _pairs(folder, count=5, shape=(16, 16, 16)):
    for part in ("input", "ground_truth"):
        (folder / part).mkdir(parents=True)
    for number in range(count):
        imaging = ImagingSettings(photons=(200.0, 200.0))
        pair = simulate_pair(PSF, None, imaging, shape=shape, seed=number)
        write(pair.image, folder / "input" / f"{number}.ome.tif")
        write(pair.truth, folder / "ground_truth" / f"{number}.ome.tif")
    return folder


@pytest.mark.parametrize("variant", ["started", "paper"])
def test_a_folder_of_pairs_is_learnt_from(few, tmp_path, variant):
    psf = PSF if variant == "started" else None
    folder = _pairs(tmp_path / "pairs")
    settings = replace(TINY, variant=variant, normalisation="brightness", steps=2)
    setting = training_set_of(settings, psf=psf, pairs=folder)
    ended = _run(settings, setting=setting)
    assert np.isfinite(ended.steps[-1].quality.psnr_db)
    assert ended.model.variant == variant
    assert ended.model.record.inputs["pairs"] == "pairs"
    assert ended.model.psf is psf


def _refused(settings, make_setting):
    """Return what is said of pairs that are refused, before the first step."""
    phases = []
    with pytest.raises(RlnError) as refused:  # noqa: PT012
        for report in train_model_iter(make_setting(), settings):
            phases.append(report.phase)
    assert "train" not in phases
    return str(refused.value)


@pytest.mark.parametrize("number", [0, 2, 4])
def test_a_pair_of_two_shapes_is_refused_before_the_first_step(few, tmp_path, number):
    folder = _pairs(tmp_path / "pairs")
    shorter = simulate_pair(PSF, shape=(16, 16, 14)).truth
    write(shorter, folder / "ground_truth" / f"{number}.ome.tif")
    said = _refused(TINY, lambda: training_set_of(TINY, psf=PSF, pairs=folder))
    assert f"{number}.ome.tif is (16, 16, 14)" in said


def test_pairs_smaller_than_a_patch_are_refused_before_the_first_step(few, tmp_path):
    folder = _pairs(tmp_path / "pairs", shape=(12, 16, 16))
    settings = replace(TINY, patch=16)
    assert "patch" in _refused(settings, lambda: training_set_of(settings, psf=PSF, pairs=folder))


def test_negative_voxels_are_learnt_from_as_others(few, tmp_path):
    folder = _pairs(tmp_path / "pairs")
    image = read(folder / "input" / "0.ome.tif")
    image.data[3, 3, 3] = -5
    write(image, folder / "input" / "0.ome.tif")
    assert _run(TINY, setting=training_set_of(TINY, psf=PSF, pairs=folder)).model is not None


def test_pairs_on_other_voxels_than_the_psfs_are_refused(few, tmp_path):
    folder = _pairs(tmp_path / "pairs")
    for part in ("input", "ground_truth"):
        for path in (folder / part).iterdir():
            write(replace(read(path), voxel_um=(0.5, 0.5, 0.5)), path)
    assert "voxel" in _refused(TINY, lambda: training_set_of(TINY, psf=PSF, pairs=folder))


# What goes wrong on the way


class _Failing:
    """A source whose examples after the first cannot be made."""

    symmetry, psf_b = Symmetry(), None

    def __init__(self, error):
        self.error, self.source = error, training_set_of(TINY, psf=PSF).source

    def pair(self, number):
        if number:
            raise self.error
        return self.source.pair(number)


@pytest.mark.parametrize(
    ("error", "expected"),
    [(RlnError("the file is gone"), RlnError), (RuntimeError("the disk is on fire"), ComputeError)],
)
def test_an_example_that_cannot_be_made_ends_the_training_with_its_reason(few, error, expected):
    setting = training_set_of(TINY, psf=PSF)._replace(source=_Failing(error))
    with pytest.raises(expected, match=str(error)):
        _run(TINY, setting=setting)
    assert not [t for t in threading.enumerate() if t.name.startswith("examples")]


def test_a_model_of_two_views_is_refused_before_the_long_work():
    network = RLN(NetworkSettings(views="concatenated"))
    begin = Model(
        name="two", network=network, start=StartSettings(iterations=2), record=Record(method="x")
    )
    with pytest.raises(RlnError, match="view"):
        next(train_model_iter(training_set_of(TINY, psf=PSF, initial_model=begin), TINY))


def test_an_unknown_device_is_refused_before_the_long_work():
    with pytest.raises(RlnError, match="cuda:77"):
        next(train_model_iter(training_set_of(TINY, psf=PSF), replace(TINY, device="cuda:77")))


# Two views


PSF_B = Volume(data=PSF.data.transpose(2, 1, 0).copy(), voxel_um=PSF.voxel_um, name="side")


@pytest.mark.parametrize("variant", ["started", "paper"])
@pytest.mark.parametrize("views", ["averaged", "concatenated"])
def test_two_views_are_trained_on_resumed_and_kept(tmp_path, views, variant):
    settings = replace(TINY, views=views, variant=variant)
    if variant == "paper":
        settings = replace(settings, loss="paper", normalisation="percentiles")
    setting = training_set_of(settings, psf=PSF, psf_b=PSF_B)
    whole = _run(settings, setting=setting)
    assert whole.model.network.settings.views == views
    assert whole.steps[-1].loss == whole.steps[-1].loss  # no NaN
    checkpoint = tmp_path / "c.checkpoint"
    _run(settings, setting=setting, until=3, checkpoint=checkpoint)
    again = _run(settings, setting=setting, checkpoint=checkpoint, resume=True)
    assert _same(whole.model, again.model)

    whole.model.save(tmp_path / "m.safetensors")
    loaded = Model.load(tmp_path / "m.safetensors")
    np.testing.assert_array_equal(loaded.psf.data, PSF.data)
    np.testing.assert_array_equal(loaded.psf_b.data, PSF_B.data)
    assert loaded.card() == whole.model.card()
    assert loaded.card()["record"]["inputs"]["psf_b"] == PSF_B.hash


def test_two_views_of_one_object_and_their_joint_estimate():
    settings = replace(TINY, views="averaged", shape=(24, 24, 24))
    source = training_set_of(settings, psf=PSF, psf_b=PSF_B).source
    start = StartSettings(iterations=8)
    made = example(source, 0, start, "brightness", views="averaged")
    alone = example(training_set_of(TINY, psf=PSF).source, 0, start, "brightness")
    assert alone.second is None
    [x], [E0] = made.network_input()
    np.testing.assert_allclose(x, made.x + made.x_b)
    assert np.corrcoef(made.x.ravel(), made.x_b.ravel())[0, 1] > 0.4
    assert made.pair.second.data.mean() == pytest.approx(made.pair.image.data.mean(), rel=0.1)
    view = PreparedView(image=made.pair.image, psf=made.psf, calibration=made.calibration)
    single = finish(initial_estimate(Observation.of(view, torch.device("cpu")), start)).data
    truth = made.pair.truth.data
    assert phantoms.nrmse(E0, truth) < phantoms.nrmse(single, truth)
    both = example(source, 0, start, "brightness", views="concatenated").network_input()
    assert [len(channels) for channels in both] == [2, 2]
    np.testing.assert_array_equal(both[1][0], both[1][1])
    assert source.symmetry == Symmetry(flips=(True, True, True), quarter_turn=False)


def test_a_second_image_changes_nothing_of_the_first():
    pairs = [simulate_pair(PSF, shape=(16, 16, 16), psf_b=other) for other in (None, PSF_B)]
    np.testing.assert_array_equal(pairs[0].image.data, pairs[1].image.data)
    np.testing.assert_array_equal(pairs[0].truth.data, pairs[1].truth.data)
    again = phantoms.simulated_again(pairs[1].image.record, PSF, PSF_B)
    np.testing.assert_array_equal(again.second.data, pairs[1].second.data)


@pytest.mark.parametrize(
    ("views", "given", "message"),
    [
        ("single", {"psf": PSF, "psf_b": PSF_B}, "views=averaged"),
        ("averaged", {"psf": PSF}, "psf_b"),
        ("averaged", {"any_psf": True}, "psf_b"),
        (
            "averaged",
            {"psf": PSF, "psf_b": Volume(data=PSF.data, voxel_um=(1, 1, 1))},
            "0.2, 0.1, 0.1.* one grid",
        ),
        (
            "averaged",
            {"psf": PSF, "psf_b": PSF_B, "initial_model": phantoms.small_model()},
            "single",
        ),
    ],
)
def test_what_two_views_cannot_be_trained_on(views, given, message):
    with pytest.raises(RlnError, match=message):
        training_set_of(replace(TINY, views=views), **given)


def test_the_command_trains_for_two_views(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(PRESETS, "quick", TINY)
    side = rotated(PSF_B, "y-90")
    write(PSF, tmp_path / "a.ome.tif")
    write(side, tmp_path / "b.ome.tif")
    out = tmp_path / "two.safetensors"
    words = ["train", "--psf", str(tmp_path / "a.ome.tif"), "--out", str(out), "--steps", "2"]
    assert cli.run([*words, "--rotation", "y+90"]) == 1
    assert "choose --views" in capsys.readouterr().err
    words += [
        "--psf-b",
        str(tmp_path / "b.ome.tif"),
        "--rotation",
        "y+90",
        "--views",
        "concatenated",
    ]
    assert cli.run([*words, "--initial-model", "universal"]) == 1
    assert "of views single" in capsys.readouterr().err
    assert cli.run([*words, "--preset", "quick"]) == 0
    model = Model.load(out)
    assert model.network.settings.views == "concatenated"
    assert model.psf_b.shape == model.psf.shape
