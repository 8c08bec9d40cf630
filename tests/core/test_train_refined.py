"""Training of a network and then of its refinement: repeatable, gone on with, adapted."""

import shutil
from dataclasses import replace

import numpy as np
import phantoms
import pytest
import torch
from test_train_loop import _record, _run, _said

from napari_rln.core.errors import RlnError
from napari_rln.deconvolution.ladder import STOP
from napari_rln.engine.in_memory import deconvolve
from napari_rln.networks.model import Model
from napari_rln.networks.network import Network
from napari_rln.networks.refinement import RefinementSettings
from napari_rln.train import pool, validation
from napari_rln.train import state as run
from napari_rln.train.training_set import choose_settings, training_set_of
from napari_rln.train.training_settings import PRESETS, TrainSettings

PSF = phantoms.gaussian_psf()
TINY = TrainSettings(
    steps=6, start="ladder", normalisation="photons", refine=0.5, batch=1, patch=16,
    shape=(16, 16, 16), examples=2, steps_per_example=1, validate=1, validate_every=2, device="cpu",
)  # fmt: skip
SMALL = {
    name: getattr(TINY, name)
    for name in (
        "steps", "batch", "patch", "shape", "examples", "steps_per_example", "validate",
        "validate_every", "device",
    )
}  # fmt: skip


@pytest.fixture(autouse=True)
def _short(monkeypatch):
    """Take few classical iterations and batches, one first example and small refinements."""
    monkeypatch.setattr(run, "_STATISTICS", 2)
    monkeypatch.setattr(validation, "_ITERATIONS", (2, 4))
    monkeypatch.setattr(validation, "_WB_ITERATIONS", (1,))
    monkeypatch.setattr(pool, "FIRST", 1)
    small = RefinementSettings(width=4, deep_width=4, before=0, deep=1, after=0)
    original = run.Refinement
    monkeypatch.setattr(run, "Refinement", lambda settings=small: original(settings))


@pytest.fixture
def judged(monkeypatch):
    """Return a function that has networks judged by given errors; it returns what was judged.

    An error is that of one held-out volume, or a tuple of those of each.
    """

    def judge(*errors):
        left, seen = list(errors), []

        def validate(network, held, *, refinement=None, **options):
            result = validation.validate(network, held, refinement=refinement, **options)
            seen.append(refinement)
            errors = left.pop(0)
            return result._replace(errors=errors if isinstance(errors, tuple) else (errors,))

        monkeypatch.setattr(run, "validate", validate)
        return seen

    return judge


def _alike(a: Model, b: Model) -> bool:
    """Tell whether two models are alike to the bit, the time that they took aside."""
    return _record(a) == _record(b)  # with the hash of all weights


def _network_alike(a: Model, b: Model) -> bool:
    mine, other = a.network.state_dict(), b.network.state_dict()
    return all(torch.equal(mine[name], other[name]) for name in mine)


def _begin(psf=PSF) -> Model:
    """Return a refined model as the one to begin with."""
    return phantoms.refined_model(output_scale=1.0, psf=psf)


# Both parts


def test_a_training_ends_with_a_refined_model_that_is_ready_for_use(tmp_path):
    ended = _run(TINY)
    model = ended.model
    assert model.refinement is not None
    assert (model.stop, model.ladder.beyond, model.start.method) == (STOP, 1.4, "ladder")
    assert (model.normalisation, model.output_scale, model.estimate_weight) == ("photons", 1, 0)
    assert model.record.facts["best_step"] in (4, 6)  # of the second part
    assert all(np.isfinite(report.loss) for report in ended.steps)

    path = tmp_path / "m.safetensors"
    model.save(path)
    loaded = Model.load(path)
    assert loaded.card() == model.card()
    image = phantoms.noisy_image(phantoms.spots((16, 20, 24), level=300.0), PSF)
    one, other = (
        deconvolve(image, PSF, Network(model=m, device="cpu", background=10.0))
        for m in (model, loaded)
    )
    np.testing.assert_array_equal(one.data, other.data)
    assert np.corrcoef(one.data.ravel(), phantoms.spots((16, 20, 24)).ravel())[0, 1] > 0.5


def test_the_second_part_trains_the_refinement_behind_the_best_network(judged):
    settings = replace(TINY, validate_every=1)
    seen = judged(3.0, 1.0, 2.0, 9.0, 8.0, 8.5)
    whole = _run(settings)
    assert [refinement is None for refinement in seen] == [True] * 3 + [False] * 3
    assert [report.best_step for report in whole.steps] == [1, 2, 2, 4, 5, 5]
    judged(3.0, 1.0)
    first = _run(settings, until=2).reports[-1].model()  # the best network, alone
    assert first.refinement is None
    assert _network_alike(whole.model, first)
    assert whole.model.record.facts["best_step"] == 5


def test_each_part_has_its_own_learning_rate():
    rates = [report.learning_rate for report in _run(replace(TINY, validate=0)).steps]
    step = np.arange(3)
    shape = (step + 1) / 20 * (1 + np.cos(np.pi * step / 3)) / 2
    np.testing.assert_allclose(rates[:3], TINY.learning_rate * shape)
    np.testing.assert_allclose(rates[3:], TINY.refine_rate * shape)


def test_several_estimates_are_trained_with_without_a_refinement(tmp_path):
    settings = replace(TINY, refine=0.0, steps=2)
    model = _run(settings).model
    assert (model.refinement, model.stop) == (None, STOP)
    model.save(tmp_path / "m.safetensors")
    image = phantoms.noisy_image(phantoms.spots((16, 16, 16), level=300.0), PSF)
    loaded = Model.load(tmp_path / "m.safetensors")
    result = deconvolve(image, PSF, Network(model=loaded, device="cpu", background=10.0))
    assert "stop" in result.record.facts


def test_a_refinement_learns_by_heart():
    settings = replace(
        TINY, steps=40, refine=1.0, refine_rate=0.02, examples=1, validate=0, augment=False
    )
    losses = [report.loss for report in _run(settings).steps]
    assert np.mean(losses[-5:]) < losses[0] - 0.05


# Repeatable, and gone on with

VARIANTS = {
    "as usual": TINY,
    "none held out": replace(TINY, validate=0),
    "statistics held late": replace(TINY, frozen=0.2),
    "the refinement alone": replace(TINY, refine=1.0),
}


@pytest.mark.parametrize(
    ("variant", "killed"), [*((variant, False) for variant in VARIANTS), ("as usual", True)]
)
def test_a_training_gone_on_with_is_one_that_was_not_broken_off(tmp_path, variant, killed):
    settings = VARIANTS[variant]
    whole = _run(settings)
    path, copy = tmp_path / "training.checkpoint", tmp_path / "copy.checkpoint"
    points = (2, 4) if killed else (1, 3, 5)  # in the first part, at its end, in the second
    for until in points:
        _run(settings, until=until, checkpoint=path)
        if killed:  # after the next step, whose state was not saved
            shutil.copy(path, copy)
            _run(settings, until=until + 1, checkpoint=path, resume=True)
            shutil.copy(copy, path)
        resumed = _run(settings, checkpoint=path, resume=True)
        assert [report.step for report in resumed.steps] == [*range(until + 1, 7)]
        assert list(map(_said, resumed.steps)) == list(map(_said, whole.steps[until:]))
        assert _alike(resumed.model, whole.model)
        assert not path.exists()


def test_a_training_from_a_folder_of_examples_is_repeatable(tmp_path):
    setting = training_set_of(TINY, psf=PSF, folder=tmp_path / "examples")
    first = _run(TINY, setting=setting)
    assert setting.folder.numbers() == [0, 1]
    assert first.model.record.inputs["examples"] == setting.folder.hash
    again = _run(TINY, setting=training_set_of(TINY, psf=PSF, folder=tmp_path / "examples"))
    assert _alike(first.model, again.model)
    live = _run(TINY)
    assert [r.loss for r in live.steps] == pytest.approx([r.loss for r in first.steps], abs=0.05)
    assert live.model.hash != first.model.hash  # which is of rounded examples


# Without a refinement


AFFINE = replace(TINY, refine=0.0, normalisation="brightness", mirror=True)


def test_a_ladder_is_trained_on_by_brightness_too_and_mirrored(tmp_path):
    ended = _run(AFFINE)
    model = ended.model
    assert (model.stop, model.normalisation, model.refinement) == (STOP, "brightness", None)
    assert model.mirrors == (True, True, True)
    assert model.output_scale != 1
    assert all(np.isfinite(report.loss) for report in ended.steps)
    path = tmp_path / "m.safetensors"
    model.save(path)
    settings, initial = choose_settings("quick", initial_model=str(path))
    assert (settings.normalisation, settings.mirror, settings.refine) == ("brightness", True, 0.0)
    assert initial.mirrors == model.mirrors
    again = _run(AFFINE, setting=training_set_of(AFFINE, psf=PSF, folder=tmp_path / "examples"))
    assert [r.loss for r in ended.steps] == pytest.approx([r.loss for r in again.steps], abs=0.05)
    assert again.model.output_scale == pytest.approx(model.output_scale, rel=1e-3)


def test_a_mirrored_training_is_gone_on_with(tmp_path):
    whole = _run(AFFINE)
    path = tmp_path / "training.checkpoint"
    _run(AFFINE, until=3, checkpoint=path)
    resumed = _run(AFFINE, checkpoint=path, resume=True)
    assert _alike(resumed.model, whole.model)
    assert resumed.model.output_scale == whole.model.output_scale != 1


def test_images_are_mirrored_as_the_psf_allows():
    data = PSF.data.copy()
    data[:, :, : data.shape[2] // 2] *= 0.2
    skewed = PSF.with_data(data / data.sum())
    settings = replace(AFFINE, steps=2, validate=0)
    ended = _run(settings, setting=training_set_of(settings, psf=skewed))
    assert ended.model.mirrors == (True, True, False)
    assert _run(replace(settings, mirror=False)).model.mirrors == (False, False, False)


# Adaptation


def test_adapting_a_refined_model_trains_its_refinement_alone(tmp_path, judged):
    begin = _begin()
    begin.save(tmp_path / "begin.safetensors")
    settings, initial = choose_settings("quick", initial_model=str(tmp_path / "begin.safetensors"))
    assert (settings.refine, settings.normalisation) == (1.0, "photons")
    assert settings.start_settings == begin.start
    settings = replace(settings, **SMALL)
    judged(9.0, 3.0, 2.0, 1.0)
    ended = _run(settings, setting=training_set_of(settings, psf=PSF, initial_model=initial))
    assert ended.model.record.facts["best_step"] == 6
    assert _network_alike(ended.model, begin)
    mine, other = (m.refinement.state_dict() for m in (ended.model, begin))
    apart = [float((mine[name] - other[name]).abs().max()) for name in mine]
    assert 0 < max(apart) < 6 * 2 * settings.refine_rate


def test_a_refined_model_is_kept_whole_where_training_does_not_improve_it(judged):
    begin = _begin()
    settings = replace(TINY, refine=1.0)
    seen = judged(1.0, 2.0, 3.0, 4.0)
    ended = _run(settings, setting=training_set_of(settings, psf=PSF, initial_model=begin))
    assert all(refinement is not None for refinement in seen)
    assert ended.model.record.facts["best_step"] == 0
    assert ended.model.hash == begin.hash


def test_no_class_of_structures_gets_worse_by_an_adaptation(judged, tmp_path):
    """Each held-out volume is of another class; an error in the mean is not enough."""
    begin = _begin()
    settings = replace(TINY, refine=1.0, validate=2, validate_every=1)
    setting = training_set_of(settings, psf=PSF, initial_model=begin)
    errors = (1.0, 1.0), (0.1, 1.02), (0.9, 1.005), (0.1, 1.1), (1.0, 1.0), (0.8, 0.9), (0.1, 1.5)
    judged(*errors)
    whole = _run(settings, setting=setting)
    assert [report.best_step for report in whole.steps] == [0, 2, 2, 2, 5, 5]
    path = tmp_path / "training.checkpoint"
    judged(*errors[:4])
    _run(settings, until=3, setting=setting, checkpoint=path)
    judged(*errors[4:])
    resumed = _run(settings, setting=setting, checkpoint=path, resume=True)
    assert [report.best_step for report in resumed.steps] == [2, 5, 5]
    assert _alike(resumed.model, whole.model)


def test_an_adaptation_is_gone_on_with(tmp_path):
    settings = replace(TINY, refine=1.0)
    setting = training_set_of(settings, psf=PSF, initial_model=_begin())
    whole = _run(settings, setting=setting)
    path = tmp_path / "training.checkpoint"
    _run(settings, until=3, setting=setting, checkpoint=path)
    resumed = _run(settings, setting=setting, checkpoint=path, resume=True)
    assert _alike(resumed.model, whole.model)


# Settings


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"start": "matched"}, "`start=matched`.*`normalisation=photons`"),
        ({"start": "matched", "normalisation": "brightness"}, "refinement needs"),
        ({"normalisation": "brightness"}, "refinement needs the normalisation photons"),
        ({"normalisation": "percentiles", "refine": 0.0}, "`normalisation=percentiles`"),
        ({"variant": "paper"}, "`normalisation=photons`"),
        ({"views": "averaged"}, "two views cannot start from a ladder"),
        ({"refine": 1.5}, "`refine`"),
        ({"refine_rate": 0.0}, "`refine_rate`"),
        ({"patch": 14}, "a multiple of 4 of at least 11"),
        ({"patch": 8}, "a multiple of 4 of at least 11"),
        ({"margin": 6}, "a multiple of 4 of at least 17"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(changes, said):
    with pytest.raises(RlnError, match=said):
        replace(TINY, **changes)


def test_the_least_patch_can_be_trained_on():
    settings = replace(TINY, steps=2, patch=12, validate=0)
    assert np.isfinite([report.loss for report in _run(settings).steps]).all()


def test_a_folder_of_examples_needs_several_estimates(tmp_path):
    settings = replace(TINY, refine=0.0, start="matched", normalisation="brightness")
    with pytest.raises(RlnError, match=r"`example_folder`.*`start=ladder`"):
        training_set_of(settings, psf=PSF, folder=tmp_path)


def test_the_universal_preset_trains_on_several_estimates_of_images_of_the_field():
    settings = PRESETS["universal"]
    assert settings.start_settings.method == "ladder"
    source = training_set_of(settings, any_psf=True).source
    assert source.conditions is not None
    assert source.psf is None
