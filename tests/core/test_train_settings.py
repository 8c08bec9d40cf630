"""What a training is told: limits, presets, what goes together, and the file it goes on from."""

import json
from dataclasses import replace
from pathlib import Path

import phantoms
import pytest
import torch
from safetensors.torch import save_file

from napari_rln.core.errors import RlnError
from napari_rln.core.limits import as_dict
from napari_rln.core.record import Record
from napari_rln.io.volumes import write
from napari_rln.networks.initial_estimate import StartSettings
from napari_rln.networks.model import Model
from napari_rln.networks.rln import RLN
from napari_rln.psf.shape import fwhm_um
from napari_rln.simulate.imaging import ImagingSettings, simulate_pair
from napari_rln.train.checkpoint import BestWeights, Checkpoint
from napari_rln.train.training_set import choose_settings, training_set_of
from napari_rln.train.training_settings import PRESETS, Quality, TrainReport, TrainSettings

SMALL = TrainSettings(steps=1, patch=8, shape=(16, 16, 16), validate=1)


def _model(**changes) -> Model:
    given = {
        "name": "given", "network": RLN(), "start": StartSettings(iterations=7),
        "record": Record(method="train"),
    }  # fmt: skip
    return Model(**given | changes)


def _write_pairs(folder, count=5, shape=(16, 16, 16), psf=None):
    for part in ("input", "ground_truth"):
        (folder / part).mkdir(parents=True)
    for number in range(count):
        pair = simulate_pair(psf or phantoms.gaussian_psf(), shape=shape, seed=number)
        write(pair.image, folder / "input" / f"{number}.tif")
        write(pair.truth, folder / "ground_truth" / f"{number}.tif")
    return folder


# Settings


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"patch": 15}, "`patch`.*15.*even"),
        ({"patch": 6}, "`patch`.*6.*8.*512"),
        ({"patch": 8, "margin": 4}, "margin.*4.*8"),
        ({"shape": (64, 16, 64)}, "32.*volumes"),
        ({"start": "image"}, "`start=image`"),
        ({"variant": "mine"}, "mine.*started, paper"),
        ({"schedule": "linear"}, "linear.*cosine, paper"),
        ({"loss": "mse"}, "mse.*relative, paper"),
        ({"initial": "zeros"}, "zeros.*estimate, paper"),
        ({"normalisation": "none"}, "none.*brightness, percentiles"),
        ({"start_iterations": "soon"}, "soon.*auto"),
        ({"start_iterations": 0}, "`start_iterations`.*0"),
        ({"steps": 0}, "`steps`.*0"),
        ({"minutes": 0}, "`minutes`.*0"),
        ({"minutes": float("nan")}, "`minutes`.*nan"),
        ({"learning_rate": 2.0}, "`learning_rate`.*2.0"),
        ({"batch": 0}, "`batch`.*0"),
        ({"frozen": 1.5}, "`frozen`.*1.5"),
        ({"examples": 0}, "`examples`.*0"),
        ({"validate": -1}, "`validate`.*-1"),
        ({"validate_every": 0}, "`validate_every`.*0"),
        ({"seed": -1}, "`seed`.*-1"),
    ],
)
def test_settings_that_cannot_be(changes, message):
    with pytest.raises(RlnError, match=message):
        replace(TrainSettings(), **changes)


def test_the_start_follows_from_the_variant():
    started = TrainSettings(start="wiener-butterworth", start_iterations=2)
    assert started.start_settings == StartSettings(method="wiener-butterworth", iterations=2)
    assert TrainSettings().start_settings == StartSettings(beyond=1.4)
    paper = TrainSettings(variant="paper", start="image")
    assert paper.start_settings.method == "image"
    assert not paper.start_settings.needs_psf


def test_the_paper_preset_is_the_papers():
    paper = PRESETS["paper"]
    assert paper.variant == "paper"
    assert (paper.learning_rate, paper.schedule) == (0.015, "paper")
    assert (paper.batch, paper.patch, paper.margin, paper.fullness) == (4, 64, 0, 0.8)
    assert 10_000 <= paper.steps <= 60_000
    assert (paper.augment, paper.validate) == (False, 0)
    assert (paper.loss, paper.clip) == ("paper", 0)
    assert (paper.initial, paper.last_beta) == ("paper", 0)
    assert (paper.bn_momentum, paper.frozen) == (0.01, 0)
    assert (paper.normalisation, paper.shape) == ("percentiles", (128, 128, 128))


# What goes together


def test_nothing_to_begin_with_trains_in_full():
    assert choose_settings(initial_model="none") == (PRESETS["full"], None)
    assert choose_settings("full") == (PRESETS["full"], None)
    assert choose_settings("paper") == (PRESETS["paper"], None)
    settings, begin = choose_settings(variant="paper")
    assert begin is None
    assert settings == replace(PRESETS["full"], variant="paper")


def test_a_model_is_adapted_quickly_and_as_it_was_trained(tmp_path):
    _model().save(tmp_path / "given.safetensors")
    settings, begin = choose_settings(initial_model=str(tmp_path / "given.safetensors"))
    assert begin.name == "given"
    assert settings == replace(PRESETS["quick"], start_iterations=7, start_beyond=1.0)

    image = _model(start=StartSettings(method="image"), normalisation="percentiles")
    image.save(tmp_path / "image.safetensors")
    settings, _ = choose_settings(initial_model=str(tmp_path / "image.safetensors"))
    assert (settings.variant, settings.normalisation) == ("paper", "percentiles")
    assert settings.start_settings.method == "image"


def test_the_universal_preset_takes_the_weights_of_a_model_that_starts_otherwise(tmp_path):
    _model().save(tmp_path / "given.safetensors")
    settings, begin = choose_settings(
        "universal", initial_model=str(tmp_path / "given.safetensors")
    )
    assert begin.name == "given"
    assert settings == PRESETS["universal"]


def test_a_model_of_the_other_variant_is_refused(tmp_path):
    _model().save(tmp_path / "given.safetensors")
    with pytest.raises(RlnError, match=r"started.*paper"):
        choose_settings(variant="paper", initial_model=str(tmp_path / "given.safetensors"))
    with pytest.raises(RlnError, match="nobody"):
        choose_settings(initial_model="nobody")


def test_one_psf_or_any():
    for given in ({}, {"psf": phantoms.gaussian_psf(), "any_psf": True}):
        with pytest.raises(RlnError, match="PSF"):
            training_set_of(SMALL, **given)


def test_a_setting_tells_what_its_model_is_for():
    psf = phantoms.gaussian_psf()
    setting = training_set_of(SMALL, psf=psf)
    assert setting.psf is psf
    assert setting.inputs["psf"] == psf.hash
    z, y, x = (w / v for w, v in zip(fwhm_um(psf.data, psf.voxel_um), psf.voxel_um, strict=True))
    assert setting.psf_widths["axial"] == pytest.approx((z, z))
    assert setting.psf_widths["lateral"] == pytest.approx(((y + x) / 2,) * 2)

    family = training_set_of(SMALL, any_psf=True)
    assert family.psf is None
    assert all(low < high for low, high in family.psf_widths.values())
    begin = _model()
    assert (
        training_set_of(SMALL, any_psf=True, initial_model=begin).inputs["initial_model"]
        == begin.hash
    )
    with pytest.raises(RlnError, match="paper"):
        training_set_of(SMALL, psf=psf, initial_model=phantoms.small_model("paper"))


def test_nobody_is_examined_on_what_was_learnt_from():
    setting = training_set_of(SMALL, psf=phantoms.gaussian_psf())
    learnt = [setting.source.pair(i)[0].truth.hash for i in range(3)]
    held = [setting.held_out.pair(i)[0].truth.hash for i in range(3)]
    assert len({*learnt, *held}) == 6


def test_light_and_noise_are_those_of_an_image():
    psf = phantoms.gaussian_psf()
    told = ImagingSettings(
        photons=(400.0, 400.0), background=(0.1, 0.1), read_noise=(1.0, 1.0), gain=2.0, offset=50.0
    )
    image = simulate_pair(psf, None, told, shape=(24, 48, 48), seed=1).image
    setting = training_set_of(SMALL, psf=psf, like=image)
    found = setting.source.imaging
    assert found.gain == pytest.approx(2, rel=0.3)
    assert found.photons[0] < 400 < found.photons[1]
    assert setting.inputs != training_set_of(SMALL, psf=psf).inputs
    below = training_set_of(SMALL, psf=psf, like=image.with_data(image.data - 1000)).source.imaging
    assert below.gain == pytest.approx(found.gain, rel=1e-3)


def test_pairs_are_split_and_the_last_held_out(tmp_path):
    folder = _write_pairs(tmp_path / "pairs", 10)
    psf = phantoms.gaussian_psf()
    setting = training_set_of(replace(SMALL, validate=4), psf=psf, pairs=folder)
    learnt, held = (
        [image.name for image, _ in s.files] for s in (setting.source, setting.held_out)
    )
    assert learnt == [f"{i}.tif" for i in range(8)]
    assert held == ["8.tif", "9.tif"]
    every = training_set_of(replace(SMALL, validate=0), psf=psf, pairs=folder)
    assert len(every.source.files) == 10


def test_pairs_that_cannot_be_used_are_refused(tmp_path):
    psf = phantoms.gaussian_psf()
    with pytest.raises(RlnError, match=r"pairs.*absent"):
        training_set_of(SMALL, psf=psf, pairs=tmp_path / "absent")
    (tmp_path / "empty" / "input").mkdir(parents=True)
    with pytest.raises(RlnError, match="no pairs"):
        training_set_of(SMALL, psf=psf, pairs=tmp_path / "empty")
    folder = _write_pairs(tmp_path / "pairs", 4)
    with pytest.raises(RlnError, match=r"4 pairs.*5"):
        training_set_of(SMALL, psf=psf, pairs=folder)
    with pytest.raises(RlnError, match="PSF"):
        training_set_of(SMALL, pairs=folder)
    (folder / "ground_truth" / "2.tif").unlink()
    with pytest.raises(RlnError, match=r"2\.tif.*truth"):
        training_set_of(SMALL, psf=psf, pairs=folder)


def test_there_is_no_model_before_the_first_step():
    with pytest.raises(RlnError, match="no model yet"):
        TrainReport(phase="examples", step=1, total=2, seconds=0.0).model()


# The checkpoint


def _checkpoint() -> Checkpoint:
    return Checkpoint(
        settings={"seed": 1, "shape": [8, 8]},
        inputs={"psf": "abc"},
        step=3,
        total=9,
        frozen=True,
        losses={"total": 0.5},
        volumes=[20, 8],
        initial_errors=[-1.0],
        learning_rate={"plateaus": 2, "waited": 1, "least": -2.5},
        seconds=12.5,
        weights={"a.weight": torch.arange(6.0).reshape(2, 3).T},
        moments={0: {"step": torch.tensor(3.0)}, 10: {"step": torch.tensor(4.0)}},
        best=BestWeights(
            Quality(psnr_db=30.0, ssim=0.5), -1.5, 0.2, 2, {"a.weight": torch.ones(3, 2)}
        ),
    )


def test_a_checkpoint_comes_back_as_it_was(tmp_path):
    saved = _checkpoint()
    saved.save(tmp_path / "c.checkpoint")
    found = Checkpoint.load(tmp_path / "c.checkpoint")
    for name in (
        "settings", "inputs", "step", "total", "frozen", "losses", "volumes", "initial_errors",
        "learning_rate", "seconds",
    ):  # fmt: skip
        assert getattr(found, name) == getattr(saved, name)
    assert torch.equal(found.weights["a.weight"], saved.weights["a.weight"])
    assert {n: m["step"].item() for n, m in found.moments.items()} == {0: 3, 10: 4}
    assert found.best[:4] == saved.best[:4]
    assert torch.equal(found.best.weights["a.weight"], torch.ones(3, 2))
    assert [path.name for path in tmp_path.iterdir()] == ["c.checkpoint"]


def test_what_differs_from_a_checkpoint_is_named():
    saved = _checkpoint()
    path, inputs = Path("m.checkpoint"), {"psf": "abc"}
    saved.check({"seed": 1, "shape": (8, 8)}, inputs, path)
    now = {"seed": 2, "shape": [8, 8], "batch": 8}  # 4 unless set
    with pytest.raises(RlnError, match=r"m\.checkpoint.*batch, seed"):
        saved.check(now, inputs, path)
    with pytest.raises(RlnError, match="psf"):
        saved.check(saved.settings, {}, path)


def test_a_damaged_or_foreign_checkpoint_is_refused(tmp_path):
    path = tmp_path / "c.checkpoint"
    with pytest.raises(RlnError, match="there is no checkpoint"):
        Checkpoint.load(path)
    _checkpoint().save(path)
    whole = path.read_bytes()
    for content in (whole[:-4], whole[:50], whole[:4], b"", b"no safetensors at all"):
        path.write_bytes(content)
        with pytest.raises(RlnError, match="is not a training checkpoint"):
            Checkpoint.load(path)
    for metadata in (None, {}, *({"napari-rln training": text} for text in ("", "3", "{}"))):
        save_file({"a": torch.zeros(2)}, path, metadata)
        with pytest.raises(RlnError, match="is not a training checkpoint"):
            Checkpoint.load(path)


def test_a_checkpoint_of_before_a_setting_was_added_is_gone_on_with():
    settings = as_dict(TrainSettings(seed=1))
    older = {k: v for k, v in settings.items() if k not in ("architecture", "mirror")}
    saved = replace(_checkpoint(), settings=json.loads(json.dumps(older)))
    saved.check(settings, saved.inputs, Path("c"))
    care, _ = choose_settings("full", architecture="care")
    with pytest.raises(RlnError, match="architecture"):
        saved.check(as_dict(replace(care, seed=1)), saved.inputs, Path("c"))
