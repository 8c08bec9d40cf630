"""The commands of the network: what they write, say and return, and what they refuse at once."""

import json

import numpy as np
import phantoms
import pytest
import tifffile
import torch
from scipy.signal import fftconvolve
from test_tensorflow import random_variables
from test_tensorflow import write as write_checkpoint

from napari_rln import cli
from napari_rln.cli import train_command
from napari_rln.core.record import Record
from napari_rln.core.volume import Volume
from napari_rln.io.volumes import read, write
from napari_rln.networks.initial_estimate import StartSettings
from napari_rln.networks.model import Model
from napari_rln.networks.rln import RLN, initialise, initialise_as_identity
from napari_rln.simulate.imaging import ImagingSettings, simulate_pair
from napari_rln.train import pool, validation
from napari_rln.train import state as run
from napari_rln.train.batch_statistics import estimate_statistics
from napari_rln.train.batches import Batch
from napari_rln.train.training_settings import PRESETS, TrainSettings

PSF = phantoms.gaussian_psf()
TINY = TrainSettings(
    steps=4, start_iterations=2, batch=2, patch=8, shape=(16, 16, 16), examples=2, validate=1,
    validate_every=2, device="cpu",
)  # fmt: skip


@pytest.fixture
def files(tmp_path):
    """Return paths of a blurred noisy image, its PSF and its truth."""
    truth = phantoms.spots((16, 24, 24), level=300.0)
    blurred = fftconvolve(truth, PSF.data, mode="same").clip(0) + 10
    image = np.random.default_rng(0).poisson(blurred).astype(np.float32)
    paths = {name: tmp_path / f"{name}.ome.tif" for name in ("image", "psf", "truth")}
    write(Volume.from_array(image, PSF.voxel_um), paths["image"])
    write(PSF, paths["psf"])
    write(Volume.from_array(truth, PSF.voxel_um), paths["truth"])
    return paths


@pytest.fixture
def tiny(monkeypatch):
    """Have the presets train for four steps on small volumes."""
    monkeypatch.setitem(PRESETS, "full", TINY)
    monkeypatch.setitem(PRESETS, "quick", TINY)
    monkeypatch.setattr(run, "_STATISTICS", 1)
    monkeypatch.setattr(validation, "_ITERATIONS", (2, 4))


@pytest.fixture
def no_work(monkeypatch):
    """Fail a test in which anything long is begun."""

    def begun(*_, **__):
        raise AssertionError("the long work was begun")

    monkeypatch.setattr(pool, "example", begun)
    monkeypatch.setattr("napari_rln.engine.run.deconvolve_iter", begun)
    monkeypatch.setattr("napari_rln.engine.run.run_task_iter", begun)
    monkeypatch.setattr("napari_rln.cli.simulate_command.simulate_pair", begun)
    monkeypatch.setattr("napari_rln.cli.check_command.check_result", begun)


def _run(*tokens):
    return cli.run([str(token) for token in tokens])


@torch.no_grad()
def _model(name="mine", variant="started", **changes) -> Model:
    """Return a model that hands its first estimate on, more or less."""
    network = RLN()
    initialise(network, torch.Generator().manual_seed(0))
    initialise_as_identity(network)
    x = torch.from_numpy(phantoms.spots((16, 24, 24), level=1.0))[None, None]
    estimate_statistics(
        network, [Batch(x, x, truth=x, power=torch.ones(1), about=torch.zeros(1, 2))]
    )
    start = StartSettings(method="image" if variant == "paper" else "matched", iterations=2)
    given = {
        "name": name, "network": network, "start": start, "psf": PSF,
        "record": Record(method="train", facts={"steps": 12, "best_step": 10}),
    }  # fmt: skip
    return Model(**given | changes)


def _saved(folder, **changes):
    path = folder / "mine.safetensors"
    _model(**changes).save(path)
    return path


def _pairs(folder, count=5):
    for part in ("input", "ground_truth"):
        (folder / part).mkdir(parents=True)
    for number in range(count):
        pair = simulate_pair(PSF, None, ImagingSettings(), shape=(16, 16, 16), seed=number)
        write(pair.image, folder / "input" / f"{number}.tif")
        write(pair.truth, folder / "ground_truth" / f"{number}.tif")
    return folder


# Every command refuses in a sentence, before the long work

REFUSED = {
    "rln, no model of that name": (
        "rln image psf -o r.tif --model nobody", "there is no model called nobody"),
    "rln, no model file": (
        "rln image psf -o r.tif --model none.safetensors", "there is no model file"),
    "rln, image as model": ("rln image psf -o r.tif --model image", "cannot be read as a model"),
    "rln, no image": ("rln absent.tif psf -o r.tif --model model", "there is no file absent.tif"),
    "rln, wrong ending": ("rln image psf -o r.png --model model", "must end in .tif"),
    "rln, absent folder": ("rln image psf -o no/r.tif --model model", "there is no folder"),
    "rln, small tile": ("rln image psf -o r.tif --model model --tile 4", "tile is 4"),
    "rln, background": (
        "rln image psf -o r.tif --model model --background nan", "background is nan"),
    "train, neither PSF": ("train -o m.safetensors --initial-model none", "--any-psf"),
    "train, both PSFs": ("train psf -o m.safetensors --initial-model none --any-psf", "--any-psf"),
    "train, minutes and steps": (
        "train psf -o m.safetensors --initial-model none --minutes 1 --steps 5",
        "--minutes and --steps"),
    "train, wrong ending": (
        "train psf -o m.pt --initial-model none", "m.pt must end in .safetensors"),
    "train, absent folder": (
        "train psf -o no/m.safetensors --initial-model none", "a folder that exists"),
    "train, no model": (
        "train psf -o m.safetensors --initial-model nobody", "no model called nobody"),
    "train, other variant": (
        "train psf -o m.safetensors --initial-model model --variant paper", "variant started"),
    "train, odd patch": (
        "train psf -o m.safetensors --initial-model none --patch 31", "must be even"),
    "train, no steps": ("train psf -o m.safetensors --initial-model none --steps 0", "steps is 0"),
    "train, no minutes": (
        "train psf -o m.safetensors --initial-model none --minutes 0", "minutes is 0"),
    "train, no device": (
        "train psf -o m.safetensors --initial-model none --device cuda:77", "device cuda:77"),
    "train, no pairs": (
        "train psf -o m.safetensors --initial-model none --pairs no", "there are no pairs in no"),
    "train, few pairs": (
        "train psf -o m.safetensors --initial-model none --pairs few", "at least 5"),
    "train, pairs without PSF": (
        "train -o m.safetensors --initial-model none --pairs few", "--psf"),
    "train, dark light": (
        "train psf -o m.safetensors --initial-model none --photons 9 3", "photons is (9.0, 3.0)"),
    "train, no image to imitate": (
        "train psf -o m.safetensors --initial-model none --like absent.tif",
        "there is no file absent.tif"),
    "simulate, no pairs": ("simulate psf -o out --count 0", "count is 0"),
    "simulate, image and light": (
        "simulate psf -o out --like image --photons 9 30", "--like sets"),
    "simulate, no PSF": ("simulate --psf absent.tif -o out", "there is no file absent.tif"),
    "check, wrong ending": ("check image image psf --residual r.png", "must end in .tif"),
    "check, no result": ("check image absent.tif psf", "there is no file absent.tif"),
    "model, none of that name": ("model nobody", "there is no model called nobody"),
    "model, another file": ("model image", "cannot be read as a model"),
    "import-tf, absent": ("import-tf absent -o m.safetensors", "absent"),
    "import-tf, wrong ending": ("import-tf absent -o m.pt", "must end in .safetensors"),
}  # fmt: skip


def _refused(files, folder, monkeypatch, capsys, line):
    monkeypatch.chdir(folder)
    _pairs(folder / "few", 4)
    words = {
        "image": [files["image"]], "psf": ["--psf", files["psf"]],
        "model": [_saved(folder)],
    }  # fmt: skip
    verb, *rest = line.split()
    before = sorted(folder.rglob("*"))
    code = _run(verb, *(token for word in rest for token in words.get(word, [word])))
    captured = capsys.readouterr()
    assert code == cli.CANNOT_BE_USED, captured
    assert captured.err.startswith("Error: ")
    assert "Traceback" not in captured.err
    assert sorted(folder.rglob("*")) == before
    return captured.err


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_used_is_refused_at_once(
    files, tmp_path, monkeypatch, capsys, no_work, case
):
    line, message = REFUSED[case]
    assert message in _refused(files, tmp_path, monkeypatch, capsys, line)


def test_nothing_to_resume_is_refused_at_once(files, tmp_path, monkeypatch, capsys, no_work):
    line = "train psf -o m.safetensors --initial-model none --resume"
    assert "no checkpoint" in _refused(files, tmp_path, monkeypatch, capsys, line)


def test_an_image_to_imitate_and_its_light_are_refused_at_once(
    files, tmp_path, monkeypatch, capsys, no_work
):
    line = "train psf -o m.safetensors --initial-model none --like image --photons 9 30"
    assert "--like" in _refused(files, tmp_path, monkeypatch, capsys, line)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("--shape 0 16 16", "shape"),
        ("--seed -1", "seed"),
    ],
)
def test_simulate_refuses_numbers_that_cannot_be(
    files, tmp_path, monkeypatch, capsys, given, message
):
    line = f"simulate psf -o {tmp_path / 'out'} {given}"
    assert message in _refused(files, tmp_path, monkeypatch, capsys, line)


# rln


def test_rln_writes_a_result_with_its_record(files, tmp_path, capsys):
    model, out = _saved(tmp_path), tmp_path / "result.ome.tif"
    tokens = ("--psf", files["psf"], "-o", out, "--model", model, "--device", "cpu")
    assert _run("rln", files["image"], *tokens) == 0
    result = read(out)
    assert result.voxel_um == phantoms.VOXEL_UM
    assert result.shape == (16, 24, 24)
    assert result.record.method == "rln"
    assert result.record.facts["start_iterations"] == 2
    assert result.record.inputs["model"] == Model.load(model).hash
    said = capsys.readouterr().out
    assert "model mine on cpu" in said
    assert "chi2" in said


def test_rln_says_json_and_nothing_else(files, tmp_path, capsys):
    model, out = _saved(tmp_path), tmp_path / "result.tif"
    tokens = ("--psf", files["psf"], "-o", out, "-m", model)
    assert _run("rln", files["image"], *tokens, "--json") == 0
    report = json.loads(capsys.readouterr().out)
    assert report["out"] == str(out)
    assert {"chi2", "flux_ratio", "device", "tiles"} <= set(report["facts"])
    uint16 = ("--quiet", "--dtype", "uint16", "--overwrite")
    assert _run("rln", files["image"], *tokens, *uint16) == 0
    assert capsys.readouterr().out == ""
    assert tifffile.imread(out).dtype == np.uint16


def test_rln_needs_the_psf_unless_the_model_starts_from_the_image(files, tmp_path, capsys):
    out = tmp_path / "result.tif"
    started = _saved(tmp_path)
    assert _run("rln", files["image"], "-o", out, "-m", started) == cli.CANNOT_BE_USED
    assert "the PSF cannot be computed without the numerical aperture" in capsys.readouterr().err
    assert not out.exists()
    _model(variant="paper", psf=None).save(started)
    assert _run("rln", files["image"], "-o", out, "-m", started) == 0
    assert "chi2 unknown" in capsys.readouterr().out


def test_rln_warns_of_a_psf_that_the_model_does_not_know(files, tmp_path, capsys):
    model, psf = _saved(tmp_path), tmp_path / "wide.tif"
    write(phantoms.gaussian_psf((15, 15, 15), (2.5, 2.5, 2.5)), psf)
    out = tmp_path / "result.tif"
    assert _run("rln", files["image"], "--psf", psf, "-o", out, "-m", model) == 0
    assert "was trained for another PSF" in capsys.readouterr().err


# train


def test_train_writes_a_model_that_rln_takes(files, tmp_path, capsys, tiny):
    out = tmp_path / "mine.safetensors"
    assert _run("train", "--psf", files["psf"], "-o", out, "--initial-model", "none") == 0
    said = capsys.readouterr().out
    assert "best model at step" in said
    assert "PSNR dB" in said
    model = Model.load(out)
    assert model.name == "mine"
    assert model.record.method == "train"
    assert model.record.settings["steps"] == 4
    assert model.psf.shape == PSF.shape
    assert sorted(p.suffix for p in tmp_path.iterdir()) == [".safetensors", *3 * [".tif"]]
    result = tmp_path / "result.tif"
    assert _run("rln", files["image"], "--psf", files["psf"], "-o", result, "-m", out) == 0
    assert read(result).shape == (16, 24, 24)


def test_train_begins_with_a_model_and_says_json(files, tmp_path, capsys, tiny):
    begin, out = _saved(tmp_path), tmp_path / "adapted.safetensors"
    tokens = ("--psf", files["psf"], "--initial-model", begin, "-o", out, "--json")
    given = (
        "--steps", 3, "--patch", 16, "--batch", 1, "--seed", 7, "--device", "cpu",
        "--learning-rate", 0.002, "--start-beyond", 1.2,
    )  # fmt: skip
    assert _run("train", *tokens, *given) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["out"] == str(out)
    record = report["model"]["record"]
    told = ("steps", "patch", "batch", "seed", "learning_rate", "start_beyond")
    assert {name: record["settings"][name] for name in told} == {
        "steps": 3, "patch": 16, "batch": 1, "seed": 7, "learning_rate": 0.002, "start_beyond": 1.2,
    }  # fmt: skip
    assert record["inputs"]["initial_model"] == Model.load(begin).hash
    assert report["model"] == json.loads(json.dumps(Model.load(out).card()))


def test_minutes_replace_the_steps_of_a_preset(files, tmp_path, monkeypatch):
    told = []

    def steps(setting, settings, **_):
        told.append(settings)
        raise KeyboardInterrupt
        yield

    monkeypatch.setattr(train_command, "train_model_iter", steps)
    tokens = ("--psf", files["psf"], "-o", tmp_path / "m.safetensors", "--preset", "paper")
    assert _run("train", *tokens, "--minutes", 3) == cli.INTERRUPTED
    assert _run("train", *tokens) == cli.INTERRUPTED
    assert [(s.steps, s.minutes) for s in told] == [(None, 3.0), (20_000, 5.0)]


def test_train_learns_from_pairs(files, tmp_path, tiny):
    folder, out = _pairs(tmp_path / "pairs"), tmp_path / "mine.safetensors"
    tokens = ("--initial-model", "none", "--pairs", folder, "-o", out, "--quiet")
    assert _run("train", *tokens, "--psf", files["psf"]) == 0
    assert Model.load(out).variant == "started"
    assert _run("train", *tokens, "--variant", "paper") == cli.CANNOT_BE_USED  # it is there
    assert _run("train", *tokens, "--variant", "paper", "--overwrite") == 0
    model = Model.load(out)
    assert model.variant == "paper"
    assert model.psf is None


def test_pairs_whose_files_state_no_voxel_size_are_given_it(files, tmp_path, tiny):
    folder, out = _pairs(tmp_path / "pairs"), tmp_path / "mine.safetensors"
    for path in folder.rglob("*.tif"):
        tifffile.imwrite(path, read(path).data)
    tokens = (
        "--initial-model",
        "none",
        "--variant",
        "paper",
        "--pairs",
        folder,
        "-o",
        out,
        "--quiet",
    )
    assert _run("train", *tokens) == cli.CANNOT_BE_USED
    assert _run("train", *tokens, "--voxel-um", *phantoms.VOXEL_UM) == 0


def test_train_imitates_an_image(files, tmp_path, tiny):
    out = tmp_path / "mine.safetensors"
    tokens = ("--psf", files["psf"], "--initial-model", "none", "--quiet", "-o", out)
    assert _run("train", *tokens, "--like", files["image"], "--steps", 1) == 0
    imitated = Model.load(out).record.inputs["imaging"]
    light = ("--photons", 50, 60, "--structures", "dots", "--steps", 1, "--overwrite")
    assert _run("train", *tokens, *light) == 0
    told = Model.load(out).record.inputs
    assert imitated != told["imaging"]
    assert "'photons': [50.0, 60.0]" in told["imaging"]
    assert "'structures': ['dots']" in told["structures"]


def test_a_psf_on_other_voxels_is_resampled_to_the_image_to_imitate(files, tmp_path, tiny):
    out = tmp_path / "mine.safetensors"
    finer = ("--psf-voxel-um", 0.1, 0.05, 0.05)
    tokens = ("--psf", files["psf"], "--initial-model", "none", "--quiet", "-o", out, "--steps", 1)
    assert _run("train", *tokens, *finer, "--like", files["image"]) == 0
    assert Model.load(out).psf.voxel_um == pytest.approx(phantoms.VOXEL_UM)


def _interrupt_at(monkeypatch, name, call):
    """Have Ctrl-C come in the middle of some call of a function of the training loop."""
    work, calls = getattr(pool, name), []

    def interrupted(*given, **named):
        calls.append(1)
        if len(calls) == call:
            raise KeyboardInterrupt
        return work(*given, **named)

    for module in (run, pool):
        monkeypatch.setattr(module, name, interrupted, raising=False)


def test_ctrl_c_keeps_the_best_model_so_far(files, tmp_path, monkeypatch, capsys, tiny):
    _interrupt_at(monkeypatch, "draw_batch", 5)  # in step 4; the first was for the statistics
    out = tmp_path / "mine.safetensors"
    assert _run("train", "--psf", files["psf"], "-o", out, "--initial-model", "none") == 0
    captured = capsys.readouterr()
    assert "best model at step 2 of 3" in captured.out
    assert captured.err == ""
    facts = Model.load(out).record.facts
    assert (facts["steps"], facts["total"], facts["best_step"]) == (3, 4, 2)
    # It can be gone on with all the same.
    assert out.with_suffix(".checkpoint").is_file()
    monkeypatch.undo()
    monkeypatch.setitem(PRESETS, "full", TINY)
    monkeypatch.setattr(run, "_STATISTICS", 1)
    tokens = ("--psf", files["psf"], "-o", out, "--initial-model", "none", "--resume", "--quiet")
    assert _run("train", *tokens) == 0
    assert Model.load(out).record.facts["steps"] == 4
    assert not out.with_suffix(".checkpoint").exists()


@pytest.mark.parametrize("call", [1, 2])
def test_ctrl_c_before_the_first_step_is_an_interruption(
    files, tmp_path, monkeypatch, capsys, tiny, call
):
    _interrupt_at(monkeypatch, "example", call)
    out = tmp_path / "mine.safetensors"
    code = _run("train", "--psf", files["psf"], "-o", out, "--initial-model", "none")
    assert not out.exists()
    assert code == cli.INTERRUPTED
    assert "Interrupted" in capsys.readouterr().err


# simulate


def test_simulate_writes_pairs_and_how_they_were_made(files, tmp_path, capsys):
    out = tmp_path / "new" / "pairs"
    tokens = ("--psf", files["psf"], "--shape", 16, 20, 24, "--seed", 3)
    assert _run("simulate", *tokens, "-o", out, "--count", 2) == 0
    assert f"2 pairs in {out}" in capsys.readouterr().out
    assert sorted(str(p.relative_to(out)) for p in out.rglob("*.*")) == [
        "ground_truth/pair0000.tif", "ground_truth/pair0001.tif",
        "input/pair0000.tif", "input/pair0001.tif", "records.json",
    ]  # fmt: skip
    psf = read(files["psf"])
    for number in range(2):
        pair = simulate_pair(psf, shape=(16, 20, 24), seed=(3, number))
        for part, volume in (("input", pair.image), ("ground_truth", pair.truth)):
            written = read(out / part / f"pair{number:04d}.tif")
            np.testing.assert_allclose(written.data, volume.data, rtol=1e-5)
            assert written.voxel_um == pytest.approx(phantoms.VOXEL_UM)
    records = json.loads((out / "records.json").read_text())
    assert list(records) == ["pair0000.tif", "pair0001.tif"]
    assert records["pair0001.tif"]["settings"]["seed"] == [3, 1]
    # More of them later begin with the same.
    assert _run("simulate", *tokens, "-o", tmp_path / "more", "--json") == 0
    assert json.loads(capsys.readouterr().out) == {"out": str(tmp_path / "more"), "count": 1}
    first = [read(f / "input" / "pair0000.tif").hash for f in (out, tmp_path / "more")]
    assert first[0] == first[1]


def test_simulate_takes_settings_or_an_image(files, tmp_path):
    tokens = ("--psf", files["psf"], "--shape", 16, 16, 16, "--quiet", "-o", tmp_path / "pairs")
    light = ("--photons", 100, 100, "--background", 0.5, 0.5, "--read-noise", 0, 0, "--offset", 7)
    kinds = ("--structures", "dots", "--structures", "rods")
    assert _run("simulate", *tokens, *light, *kinds) == 0
    record = json.loads((tmp_path / "pairs" / "records.json").read_text())["pair0000.tif"]
    assert record["facts"]["background"] == pytest.approx(0.5 * 100 + 7)
    assert set(record["facts"]["structures"]) <= {"dots", "rods"}
    assert _run("simulate", *tokens, "--like", files["image"]) == cli.CANNOT_BE_USED  # are there
    assert _run("simulate", *tokens, "--like", files["image"], "--overwrite") == 0
    record = json.loads((tmp_path / "pairs" / "records.json").read_text())["pair0000.tif"]
    assert record["settings"]["imaging"]["gain"] == pytest.approx(1, rel=0.3)


def test_several_structures_are_named_in_a_row(files, tmp_path):
    tokens = ("--psf", files["psf"], "--shape", 16, 16, 16, "--quiet", "-o", tmp_path / "pairs")
    try:
        code = _run("simulate", *tokens, "--structures", "dots", "rods")
    except SystemExit as stopped:
        code = stopped.code
    assert code == 0


# check


def test_check_tells_what_explains_the_image(files, tmp_path, capsys):
    def chi2(result, *more):
        tokens = ("check", files["image"], result, "--psf", files["psf"], "--json")
        assert _run(*tokens, *more) == 0
        return json.loads(capsys.readouterr().out)

    residual = tmp_path / "residual.ome.tif"
    good = chi2(files["truth"], "--residual", residual, "--background", 10)
    assert good["chi2"] == pytest.approx(1, abs=0.3)
    assert good["scale"] == pytest.approx(1, abs=0.05)
    assert good["flux_ratio"] == pytest.approx(1, abs=0.1)
    assert good["residual"] == str(residual)
    noise = read(residual)
    assert noise.data.std() == pytest.approx(1, abs=0.2)
    assert noise.record.method == "check"

    truth, wrong = read(files["truth"]), tmp_path / "wrong.tif"
    write(truth.with_data(np.roll(truth.data, 3, axis=2)), wrong)
    bad = chi2(wrong, "--background", 10)
    assert bad["chi2"] > 3 * good["chi2"]
    assert bad["residual"] is None
    write(truth.with_data(1.25 * truth.data), wrong)
    scaled = chi2(wrong, "--background", 10)
    assert scaled["chi2"] > 1.2 * good["chi2"]
    assert scaled["scale"] == pytest.approx(good["scale"] / 1.25, rel=0.03)

    assert _run("check", files["image"], files["truth"], "--psf", files["psf"]) == 0
    assert "1 explains the image to within its noise" in capsys.readouterr().out


def test_check_refuses_a_result_of_another_shape(files, tmp_path, capsys):
    cut = tmp_path / "cut.tif"
    truth = read(files["truth"])
    write(truth.with_data(truth.data[:-1]), cut)
    code = _run("check", files["image"], cut, "--psf", files["psf"])
    assert code == cli.CANNOT_BE_USED
    assert "crop or resample it to the image's shape" in capsys.readouterr().err


# model and import-tf


def test_model_tells_what_is_known(tmp_path, capsys):
    path = _saved(tmp_path, psf_widths={"axial": (2.0, 9.0), "lateral": (1.5, 4.0)})
    assert _run("model", path) == 0
    said = capsys.readouterr().out
    for words in ("mine", "started", "2 iterations, matched", "axial FWHM", "2.0 to 9.0 voxels",
                  PSF.hash, "best step"):  # fmt: skip
        assert words in said
    assert _run("model", path, "--json") == 0
    cards = json.loads(capsys.readouterr().out)["models"]
    assert cards == [json.loads(json.dumps(Model.load(path).card()))]


def test_model_lists_those_that_come_with_the_package(capsys):
    assert _run("model", "--json") == 0
    names = [card["name"] for card in json.loads(capsys.readouterr().out)["models"]]
    assert names == sorted(names)


def test_import_tf_makes_a_model_that_rln_takes(files, tmp_path, capsys):
    checkpoint, out = tmp_path / "tf" / "model", tmp_path / "paper.safetensors"
    checkpoint.parent.mkdir()
    write_checkpoint(checkpoint, random_variables())
    assert _run("import-tf", checkpoint.parent, "-o", out, "--division-eps", 1e-3) == 0
    assert "single view" in capsys.readouterr().out
    model = Model.load(out)
    assert (model.variant, model.normalisation) == ("paper", "percentiles")
    assert model.network.settings.division_eps == 1e-3
    assert model.record.method == "import-tf"
    result = tmp_path / "result.tif"
    assert _run("rln", files["image"], "-o", result, "-m", out, "--quiet") == 0
    assert np.isfinite(read(result).data).all()
    assert _run("import-tf", checkpoint.parent, "-o", out, "--json", "--overwrite") == 0
    report = json.loads(capsys.readouterr().out)
    assert report["model"]["network"]["division_eps"] == 1e-4


def test_a_network_of_two_views_is_not_applied_to_one_image(files, tmp_path, capsys):
    checkpoint, out = tmp_path / "model", tmp_path / "paper.safetensors"
    write_checkpoint(checkpoint, random_variables(2))
    assert _run("import-tf", checkpoint, "-o", out) == 0
    assert "concatenated view" in capsys.readouterr().out
    result = tmp_path / "result.tif"
    assert _run("rln", files["image"], "-o", result, "-m", out) == cli.CANNOT_BE_USED
    assert "two views" in capsys.readouterr().err
