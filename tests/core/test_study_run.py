"""Studies: configuration, plan, run, resumption, command."""

import csv
import json
import shutil
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import filelock
import numpy as np
import phantoms
import pytest
import tifffile

from napari_rln import cli
from napari_rln.core import metrics
from napari_rln.core.errors import RlnError, RlnWarning
from napari_rln.core.generators import finish
from napari_rln.core.volume import Volume
from napari_rln.deconvolution.classical import RichardsonLucy
from napari_rln.engine.in_memory import deconvolve
from napari_rln.evaluate.fourier_shell import fourier_shell_correlation
from napari_rln.evaluate.scores import score
from napari_rln.io.volumes import write
from napari_rln.networks.model import Model, load_model
from napari_rln.networks.network import Network
from napari_rln.psf.compute import compute_psf
from napari_rln.psf.microscope import MicroscopeSettings
from napari_rln.psf.shape import centre_crop
from napari_rln.simulate.aberrations import Aberrations, aberrated_psf
from napari_rln.study import folder as study_folder
from napari_rln.study import plan as study_plan
from napari_rln.study import run as study_run
from napari_rln.study.conclusion import conclude
from napari_rln.study.config import MOST_SEED, Condition, PsfSettings
from napari_rln.study.config_file import load_study, study_of
from napari_rln.study.plan import by_image, plan_study, trainings_of
from napari_rln.study.results import SCORES, CellResult, Planes
from napari_rln.study.run import run_study, run_study_iter, time_needed
from napari_rln.study.tables import read_results

ROOT = Path(__file__).resolve().parents[2]
COUNTS = [2, 4, 8]
TINY = """
name = "tiny"
shape = [20, 20, 20]
photons = [300]
seeds = [0]
device = "cpu"
train_structures = ["dots"]
test_structures = ["dots", "rods"]

[budget]
steps = 4

[[psf]]
name = "round"
modality = "gaussian"
voxel_um = [0.2, 0.1, 0.1]
fwhm_um = [0.6, 0.3, 0.3]
size = [9, 9, 9]

[[condition]]
name = "deeper focus"
optics = { fwhm_um = [0.8, 0.3, 0.3] }

[[method]]
name = "auto"
kind = "rld"

[[method]]
name = "best"
kind = "rld"
stop = "best"
counts = [2, 4, 8]

[[method]]
name = "2"
kind = "rld"
stop = 2

[[method]]
name = "4"
kind = "rld"
stop = 4

[[method]]
name = "8"
kind = "rld"
stop = 8

[[method]]
name = "RLN"
kind = "train"
preset = "paper"
batch = 1
patch = 16
shape = [16, 16, 16]
examples = 3
validate_every = 2
"""


def _table(text: str = TINY) -> dict:
    import tomllib

    return tomllib.loads(text)


def _settings(**changes):
    return study_of({**_table(), **changes}, Path())


def _cells(results) -> dict:
    """Return results by cell."""
    return {result.cell: result for result in results}


def _saved(folder: Path) -> dict:
    return {path.stem: CellResult.load(path) for path in (folder / "cells").glob("*.json")}


def _scores(folder: Path) -> dict:
    """Return the scores in the files of cells, as text."""
    found = {}
    for path in sorted((folder / "cells").glob("*.json")):
        found[path.stem] = json.dumps(json.loads(path.read_text())["scores"])
    return found


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Return the folder of a finished study, its settings and results."""
    folder = tmp_path_factory.mktemp("study")
    settings = _settings()
    return folder, settings, run_study(settings, folder)


def _one(finished, method, tested_on="dots", condition=""):
    for result in finished[2]:
        cell = result.cell
        if (cell.method, cell.tested_on, cell.condition) == (method, tested_on, condition):
            return result
    raise AssertionError(method)


def _image(finished, tested_on="dots", condition=""):
    """Return the planned image of cells, and the pair."""
    for planned in plan_study(finished[1]).cells:
        if (planned.cell.tested_on, planned.cell.condition) == (tested_on, condition):
            return planned.image, planned.image.simulate()
    raise AssertionError(tested_on)


# --- the whole


def test_a_study_has_every_cell_once(finished):
    folder, _, results = finished
    cells = [r.cell for r in results]
    # 5 classical on 2 structures and 2 conditions; RLN also where it was not trained, but under
    # a condition only on its own structures.
    assert len(cells) == len(set(cells)) == 5 * 2 * 2 + 3
    assert [r.error for r in results] == [None] * len(results)
    assert _saved(folder) == {r.key: r for r in results}
    assert all(set(r.scores) == set(SCORES) for r in results)
    assert all(np.isfinite(list(r.scores.values())).all() for r in results)
    assert all(r.seconds > 0 for r in results)
    trained = [r for r in results if r.cell.method == "RLN"]
    tests = {(r.cell.tested_on, r.cell.condition): r.cell.test for r in trained}
    assert tests == {
        ("dots", ""): "conventional",
        ("rods", ""): "generalisation",
        ("dots", "deeper focus"): "generalisation",
    }
    assert {(r.cell.trained_on, r.cell.trained_photons) for r in trained} == {("dots", 300.0)}
    assert {r.cell.training_volumes for r in trained} == {3}
    assert {r.parameters for r in trained} == {15968}
    assert all(r.training_seconds > 0 for r in trained)
    assert {r.cell.condition: r.facts["wrong_psf"] for r in trained} == {
        "": False, "deeper focus": True
    }  # fmt: skip
    assert len(list((folder / "models").glob("*.safetensors"))) == 1
    assert not list((folder / "models").glob("*.checkpoint"))


def test_the_scores_are_those_of_the_method_by_itself(finished):
    planned, pair = _image(finished, condition="deeper focus")
    auto = deconvolve(pair.image, planned.assumed, RichardsonLucy(device="cpu"))
    fixed = deconvolve(pair.image, planned.assumed, RichardsonLucy(iterations=4, device="cpu"))
    model = next((finished[0] / "models").glob("*.safetensors"))
    network = deconvolve(pair.image, None, Network(model=load_model(model), device="cpu"))
    for method, result in (("auto", auto), ("4", fixed), ("RLN", network)):
        found = _one(finished, method, condition="deeper focus")
        whole, planes = score(result, pair.truth), score(result, pair.truth, "xz")
        expected = {
            "psnr_db": whole.psnr_db, "ssim": whole.ssim, "psnr_xz_db": planes.psnr_db,
            "ssim_xz": planes.ssim, "nrmse": whole.nrmse, "pearson": whole.pearson,
            "flux": result.data.sum() / pair.truth.data.sum(),
        }  # fmt: skip
        for name in ("lateral", "axial"):
            curve = fourier_shell_correlation(
                result.data, pair.truth.data, pair.truth.voxel_um, name
            )
            expected[f"{name}_um"] = curve.resolution_um
        assert found.scores == pytest.approx(expected, rel=1e-4), method
        assert found.facts["image"] == pair.image.hash
    assert (
        _one(finished, "auto", condition="deeper focus").iterations
        == (auto.record.facts["iterations"])
    )
    assert _one(finished, "4").iterations == 4
    assert _one(finished, "RLN").iterations is None


def test_the_best_stop_is_that_of_each_score_among_the_counts(finished):
    for tested_on in ("dots", "rods"):
        fixed = [_one(finished, str(n), tested_on) for n in COUNTS]
        best = _one(finished, "best", tested_on)
        for name in SCORES:
            values = [r.scores[name] for r in fixed]
            lowest = name in ("nrmse", "lateral_um", "axial_um")
            if name != "flux":
                assert best.scores[name] == (min if lowest else max)(values), name
        chosen = max(fixed, key=lambda r: r.scores["psnr_db"])
        assert best.iterations == chosen.iterations
        assert best.scores["flux"] == chosen.scores["flux"]
        assert best.facts["oracle"] is True
        assert best.facts["at_last_count"] is (chosen.iterations == 8)
        assert best.seconds == pytest.approx(chosen.seconds)
    assert "oracle" not in _one(finished, "auto").facts


def test_a_later_stop_takes_longer_and_an_automatic_one_searches_for_it(finished):
    seconds = [_one(finished, str(n)).seconds for n in COUNTS]
    assert seconds == sorted(seconds)
    assert seconds[0] < seconds[2]
    auto = _one(finished, "auto")
    assert auto.iterations > 2
    assert auto.seconds > seconds[0]


def test_planes_are_those_of_image_truth_and_fitted_result(finished):
    folder = finished[0]
    planned, pair = _image(finished)
    image, truth, result = (
        Planes.load(folder / "planes" / f"{name}.npz")
        for name in (
            f"image-{pair.image.hash}",
            f"truth-{pair.image.hash}",
            _one(finished, "4").key,
        )
    )
    background = 0.1 * 300  # of the photons
    np.testing.assert_allclose(image.xy, pair.image.data[10] - background, rtol=1e-5)
    np.testing.assert_allclose(image.xz, pair.image.data[:, 10] - background, rtol=1e-5)
    np.testing.assert_array_equal(truth.xz, pair.truth.data[:, 10])
    alone = deconvolve(pair.image, planned.assumed, RichardsonLucy(iterations=4, device="cpu"))
    fit = metrics.fitted(alone.data, pair.truth.data)
    np.testing.assert_allclose(result.xy, fit[10], rtol=1e-4, atol=1e-3)
    assert result.voxel_um == (0.2, 0.1, 0.1)


def test_only_the_first_seed_has_planes(tmp_path):
    methods = [m for m in _table()["method"] if m["name"] == "2"]
    settings = _settings(method=methods, condition=[], seeds=[3, 1], test_structures=["dots"])
    first, second = run_study(settings, tmp_path)
    assert (first.cell.seed, second.cell.seed) == (3, 1)
    assert first.scores != second.scores
    names = {path.stem for path in (tmp_path / "planes").iterdir()}
    assert names == {first.key, *(f"{kind}-{first.facts['image']}" for kind in ("image", "truth"))}


# --- resumption


def _broken_off(settings, folder, when):
    """Run until a report, and break off."""
    steps = run_study_iter(settings, folder)
    for report in steps:
        if when(report):
            steps.close()
            return report
    raise AssertionError("it was not broken off")


def test_an_interrupted_study_ends_as_an_uninterrupted_one(finished, tmp_path):
    folder, settings, _ = finished
    _broken_off(
        settings, tmp_path,
        lambda r: r.phase == "train" and (r.inner.phase, r.inner.step) == ("train", 3),
    )  # fmt: skip
    (checkpoint,) = (tmp_path / "models").glob("*.checkpoint")
    assert _saved(tmp_path) == {}
    first = json.loads(checkpoint.with_suffix(".json").read_text())["seconds"]
    _broken_off(settings, tmp_path, lambda r: r.done == 7)
    assert not checkpoint.exists()
    assert json.loads(checkpoint.with_suffix(".json").read_text())["seconds"] > first > 0
    kept = {p: p.stat().st_mtime_ns for p in (tmp_path / "cells").iterdir()}
    assert len(kept) == 7
    reports = []
    steps = run_study_iter(settings, tmp_path)
    while True:
        try:
            reports.append(next(steps))
        except StopIteration as stop:
            results = stop.value
            break
    assert {p: p.stat().st_mtime_ns for p in kept} == kept
    assert len(results) == 23
    assert _scores(tmp_path) == _scores(folder)
    assert {r.total for r in reports} == {23 - 7}
    assert [r.done for r in reports] == sorted(r.done for r in reports)
    assert reports[-1].done == 16
    assert reports[-1].seconds_left == 0
    assert not any(r.phase == "train" for r in reports)


def test_models_are_listed_with_what_they_are_trained_for(finished):
    folder, settings, results = finished
    conclude(folder)
    with (folder / "models.csv").open(encoding="utf-8") as file:
        (row,) = csv.DictReader(file)
    cells = [r for r in results if r.cell.method == "RLN"]
    cell = cells[0].cell
    assert (row["method"], row["psf"]) == (cell.method, cell.psf)
    assert (row["structures"], float(row["photons"])) == (cell.trained_on, cell.trained_photons)
    assert load_model(folder / "models" / row["file"]).record is not None
    (seed,) = settings.train_seeds or settings.seeds[:1]
    assert int(row["seed"]) == seed
    assert {r.facts["train_seed"] for r in cells} == {seed}


def test_a_damaged_checkpoint_is_trained_anew(finished, tmp_path):
    folder, settings, _ = finished
    (model,) = (folder / "models").glob("*.safetensors")
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / f"{model.stem}.checkpoint").write_bytes(b"half a file")
    training = next(iter(trainings_of(plan_study(settings).cells).values()))
    assert training.key == model.stem
    result = finish(run_study_iter(settings, tmp_path, only=_one(finished, "RLN").key))
    assert [r.scores for r in result] == [_one(finished, "RLN").scores]


def test_one_cell_is_repeated_with_equal_scores(finished, monkeypatch):
    folder, settings, results = finished

    def forbidden(*args, **more):
        raise AssertionError("trained again")

    monkeypatch.setattr(study_run, "train_model_iter", forbidden)
    times = {p.stem: p.stat().st_mtime_ns for p in (folder / "cells").iterdir()}
    for method in ("best", "RLN"):
        before = _one(finished, method, condition="deeper focus")
        (again,) = run_study(settings, folder, only=before.key)
        assert again.scores == before.scores
        assert again.cell == before.cell
        now = {p.stem: p.stat().st_mtime_ns for p in (folder / "cells").iterdir()}
        assert {key for key in now if now[key] != times[key]} == {before.key}
        times = now
    with pytest.raises(RlnError, match="no cell 0123"):
        run_study(settings, folder, only="0123")
    assert len(_saved(folder)) == len(results)


def test_runs_of_one_folder_share_the_work(tmp_path, monkeypatch):
    """Two runs, a step of one after a step of the other; a third one is interrupted before."""
    monkeypatch.setattr(study_run, "_PAUSE", 0.0)
    trained = []
    train = study_run.train_model_iter

    def counted(*args, **options):
        trained.append(options["resume"])
        return train(*args, **options)

    monkeypatch.setattr(study_run, "train_model_iter", counted)
    settings = _settings()
    third = run_study_iter(settings, tmp_path)
    while next(third).phase != "train":
        pass
    third.close()  # ends its claim
    assert trained == [False]
    runs = {number: run_study_iter(settings, tmp_path) for number in range(2)}
    made: list[list[str]] = [[], []]
    phases, results = set(), []
    while runs:
        for number, steps in list(runs.items()):
            try:
                report = next(steps)
            except StopIteration as stop:
                results.append(stop.value)
                del runs[number]
                continue
            phases.add(report.phase)
            if report.result is not None:
                made[number].append(report.result.key)
    assert "wait" in phases
    assert made[0]
    assert made[1]
    assert len(made[0]) + len(made[1]) == len({*made[0], *made[1]}) == 23  # none twice
    assert len(trained) == 2  # and one training
    for own in results:
        assert {r.key for r in own} == {*made[0], *made[1]}
    assert not list((tmp_path / "locks").iterdir())


def test_the_configuration_of_a_running_study_is_not_replaced(tmp_path):
    methods = [m for m in _table()["method"] if m["name"] in ("2", "4")]
    base = {"condition": [], "test_structures": ["dots"]}
    steps = run_study_iter(_settings(method=methods, **base), tmp_path)
    next(steps)
    with pytest.raises(RlnError, match=r"another process runs the study in .*; end it"):
        run_study(_settings(method=methods[:1], **base), tmp_path, overwrite=True)
    assert len(finish(steps)) == 2


def test_without_locks_a_study_runs_alone(tmp_path, monkeypatch):
    def refused(self, *args, **options):
        raise OSError("no locks available")

    monkeypatch.setattr(filelock.FileLock, "acquire", refused)
    methods = [m for m in _table()["method"] if m["name"] == "2"]
    settings = _settings(method=methods, condition=[])
    with pytest.warns(RlnWarning, match=r"cannot be locked \(no locks available\)") as caught:
        results = run_study(settings, tmp_path)
    assert len(caught) == 1
    assert [r.error for r in results] == [None, None]


def test_another_configuration_needs_another_folder_or_overwrite(finished, tmp_path):
    methods = [m for m in _table()["method"] if m["name"] in ("2", "4")]
    base = {"condition": [], "test_structures": ["dots"]}
    run_study(_settings(method=methods, **base), tmp_path)
    kept = {p.stem: p.stat().st_mtime_ns for p in (tmp_path / "cells").iterdir()}
    more = _settings(method=[methods[1], _table()["method"][4]], **base)
    with pytest.raises(RlnError, match="method differ; name another folder, or replace"):
        run_study(more, tmp_path)
    assert len(kept) == 2
    results = run_study(more, str(tmp_path), overwrite=True)
    now = {p.stem: p.stat().st_mtime_ns for p in (tmp_path / "cells").iterdir()}
    assert {r.cell.method for r in results} == {"4", "8"}
    # Nothing finished is lost, and the tables are of the present configuration alone.
    assert {key: now[key] for key in kept} == kept
    assert len(now) == 3
    assert {r.key for r in read_results(tmp_path)} == {r.key for r in results}
    assert load_study(tmp_path / "study.json") == more


def test_a_study_of_another_version_is_not_continued(finished, monkeypatch):
    monkeypatch.setattr(study_folder, "__version__", "9.9")
    with pytest.raises(RlnError, match=r"the versions .* and 9.9 differ"):
        run_study(finished[1], finished[0])


# --- failures


def test_a_cell_that_fails_is_recorded_and_the_others_are_not_stopped(tmp_path):
    elsewhere = replace(phantoms.gaussian_psf(), voxel_um=(0.5, 0.3, 0.3))
    phantoms.small_model("paper", psf=elsewhere).save(tmp_path / "far.safetensors")
    two = [m for m in _table()["method"] if m["name"] == "2"]
    methods = [{"name": "far", "kind": "model", "model": str(tmp_path / "far.safetensors")}, *two]
    settings = _settings(method=methods, condition=[])
    out = tmp_path / "study"
    results = _cells(run_study(settings, out))
    failed = [r for cell, r in results.items() if cell.method == "far"]
    assert [r.error is None for c, r in results.items() if c.method == "2"] == [True, True]
    assert len(failed) == 2
    for result in failed:
        assert "was trained" in result.error
        assert "`" not in result.error
        assert (result.scores, result.seconds) == ({}, None)
        assert "image" in result.facts
    times = {p.stem: p.stat().st_mtime_ns for p in (out / "cells").iterdir()}
    run_study(settings, out)  # computes the failed ones again, and no other
    changed = {p.stem for p in (out / "cells").iterdir() if p.stat().st_mtime_ns != times[p.stem]}
    assert changed == {r.key for r in failed}


def test_a_training_that_fails_fails_its_cells_alone(monkeypatch, tmp_path):
    def broken(*args, **more):
        raise RuntimeError("no luck")
        yield

    monkeypatch.setattr(study_run, "train_model_iter", broken)
    methods = [m for m in _table()["method"] if m["name"] in ("2", "RLN")]
    results = run_study(_settings(method=methods, condition=[]), tmp_path)
    errors = {(r.cell.method, r.error) for r in results}
    assert errors == {("2", None), ("RLN", "the training failed: RuntimeError: no luck")}
    assert {r.training_seconds for r in results} == {None}


def test_an_image_that_fails_fails_its_cells_alone(monkeypatch, tmp_path):
    simulate = study_plan.simulate_pair

    def broken(psf, structures, *args, **more):
        if structures.structures == ("rods",):
            raise ValueError("no rods")
        return simulate(psf, structures, *args, **more)

    monkeypatch.setattr(study_plan, "simulate_pair", broken)
    methods = [m for m in _table()["method"] if m["name"] == "2"]
    results = run_study(_settings(method=methods, condition=[]), tmp_path)
    errors = {r.cell.tested_on: r.error for r in results}
    assert errors == {"dots": None, "rods": "the image failed: ValueError: no rods"}


# --- plan and keys


def _keys(**changes) -> dict:
    """Return keys by cell, and the seed and photons as the cells have them."""
    return {c.cell: c.key for c in plan_study(_settings(**changes)).cells}


def _with(kind, name, **changes):
    """Return the tables of a kind with changes of one of them; None removes a key."""
    tables = deepcopy(_table()[kind])
    for table in tables:
        if table["name"] == name:
            table.update(changes)
            for key in [key for key, value in table.items() if value is None]:
                del table[key]
    return tables


def test_keys_depend_on_nothing_else():
    before = _keys()
    assert len(set(before.values())) == len(before)
    assert _keys() == before
    assert _keys(name="another", baseline="auto", photons=[300.0]) == before
    assert _keys(method=_table()["method"][::-1]) == before
    assert _keys(shape=[20, 20, 20], camera={"read_noise": 1, "gain": 1}) == before
    for more in (
        {"method": [*_table()["method"], {"name": "WB", "kind": "rld", "stop": 2,
                                          "back_projector": "wiener-butterworth"}]},
        {"seeds": [1, 0]},
        {"photons": [1000, 300]},
        {"test_structures": ["rods", "dots", "coils"]},
        {"train_structures": ["rods", "dots"]},
        {"condition": [*_table()["condition"], {"name": "emccd", "camera": {"detector": "emccd"}}]},
    ):  # fmt: skip
        after = _keys(**more)
        assert len(after) > len(before), more
        assert {cell: after[cell] for cell in before} == before, more


@pytest.mark.parametrize(
    ("changes", "methods"),
    [
        ({"shape": [20, 20, 22]}, "all"),
        ({"camera": {"read_noise": 2.0}}, "all"),
        ({"psf": _with("psf", "round", fwhm_um=[0.6, 0.3, 0.31])}, "all"),
        ({"psf": _with("psf", "round", voxel_um=[0.2, 0.11, 0.11])}, "all"),
        ({"device": "auto"}, "all"),
        ({"budget": {"steps": 5}}, {"RLN"}),
        ({"method": _with("method", "RLN", learning_rate=0.1)}, {"RLN"}),
        ({"method": _with("method", "auto", seed=1)}, {"auto"}),
        ({"method": _with("method", "best", counts=[2, 4])}, {"best"}),
        ({"method": _with("method", "2", stop=3)}, {"2"}),
        ({"method": _with("method", "2", tv=0.002)}, {"2"}),
    ],
)
def test_keys_depend_on_what_the_result_does(changes, methods):
    before, after = _keys(), _keys(**changes)
    assert set(before) == set(after)
    changed = {cell.method for cell in before if before[cell] != after[cell]}
    same = {cell.method for cell in before if before[cell] == after[cell]}
    assert changed == ({cell.method for cell in before} if methods == "all" else methods)
    assert not changed & same


def test_keys_depend_on_the_version(monkeypatch):
    before = _keys()
    monkeypatch.setattr(study_plan, "__version__", "9.9")
    assert not set(before.values()) & set(_keys().values())


def test_a_model_file_counts_by_its_weights(tmp_path):
    path = tmp_path / "m.safetensors"
    methods = [{"name": "m", "kind": "model", "model": str(path)}]
    keys = []
    for seed in (0, 0, 1):
        phantoms.small_model(seed=seed).save(path)
        keys.append(_keys(method=methods, condition=[]))
    assert keys[0] == keys[1]
    assert not set(keys[0].values()) & set(keys[2].values())


def test_an_image_and_a_training_are_made_once_for_all_cells():
    plan = plan_study(
        _settings(photons=[100, 300], train_photons=[100], train_structures=["dots", "rods"])
    )
    assert len(by_image(plan.cells)) == 2 * 2 * 2  # photons, structures, conditions
    assert len(trainings_of(plan.cells)) == 2
    trained = [c.cell for c in plan.cells if c.training]
    assert len(trained) == 2 * (2 * 2 + 2)  # all pairs, and under the condition the same structures
    assert {c.test for c in trained if c.photons == 300} == {"generalisation"}


def test_few_trainings_serve_many_test_images():
    plan = plan_study(_settings(seeds=[3, 4, 5], train_seeds=[7, 8]))
    trained = [c for c in plan.cells if c.training and not c.cell.condition]
    seeds = {(c.cell.seed, c.training.settings.seed % 100) for c in trained}
    assert seeds == {(3, 7), (4, 8), (5, 7)}
    assert len(trainings_of(plan.cells)) == 2
    with pytest.raises(RlnError, match=r"train_seeds is .*different whole numbers"):
        _settings(train_seeds=[7, 7])


def test_a_condition_applies_to_some_psfs_and_photons():
    emccd = {"name": "emccd", "camera": {"detector": "emccd"}, "photons": [100]}
    cells = [
        c.cell
        for c in plan_study(
            _settings(photons=[30, 100, 300], train_photons=[30, 100], condition=[emccd])
        ).cells
    ]
    changed = [c for c in cells if c.condition and c.tested_on == "dots"]
    assert {c.photons for c in changed} == {100.0}
    assert {c.test for c in changed} == {"generalisation"}
    assert [c.trained_photons for c in changed if c.method == "RLN"] == [100.0]
    # What it costs is seen beside the same cell without it.
    assert {replace(c, condition="") for c in changed} <= set(cells)


def test_training_volumes_are_all_met_and_conditions_test_the_most():
    plan = plan_study(_settings(training_volumes=[1, 40], budget={"steps": 200}))
    trainings = trainings_of(plan.cells).values()
    assert sorted(t.settings.examples for t in trainings) == [1, 40]
    for training in trainings:
        steps, each = training.settings.steps, training.settings.steps_per_example
        assert steps // 2 // each >= training.settings.examples - 8  # 8 are there at the start
    conditions = [c.cell for c in plan.cells if c.training and c.cell.condition]
    assert [c.training_volumes for c in conditions] == [40]


def test_no_test_image_is_a_training_or_validation_image():
    settings = _settings(seeds=[0, 1, MOST_SEED], condition=[])
    plan = plan_study(settings)
    first = {c.image.seeds[0] for c in plan.cells}
    seeds = {t.settings.seed for t in trainings_of(plan.cells).values()}
    assert len(seeds) == 3
    assert not first & {s + validation for s in seeds for validation in (0, 1_000_000)}
    assert len(seeds | {s + 1_000_000 for s in seeds}) == 6
    training = next(iter(trainings_of(plan.cells).values()))
    sources = training.training_set()
    images = [g[0].image for g in by_image(plan.cells) if g[0].cell.tested_on == "dots"]
    tested = [image.simulate().truth.data[2:18, 2:18, 2:18] for image in images]
    tested += [image.simulate().truth.data[:16, :16, :16] for image in images]
    for source in (sources.source, sources.held_out):
        for number in range(3):
            truth = source.pair(number)[0].truth.data
            assert truth.shape == (16, 16, 16)
            assert all(abs(metrics.pearson(truth, other)) < 0.5 for other in tested)


# --- conditions

OPTICS = {"name": "w", "voxel_um": [0.2, 0.1, 0.1], "na": 1.2, "wavelength_um": 0.5,
          "size": [15, 15, 15], "model": "scalar"}  # fmt: skip


def _true_psf(condition: dict, **optics) -> tuple[Volume, Volume]:
    """Return the PSF of the images under a condition, and the assumed one."""
    methods = [m for m in _table()["method"] if m["name"] == "2"]
    plan = plan_study(
        _settings(
            psf=[{**OPTICS, **optics}], condition=[{"name": "c", **condition}], method=methods
        )
    )
    image = next(c.image for c in plan.cells if c.cell.condition)
    assert image.assumed is plan.cells[0].image.psf
    return image.psf, image.assumed


def test_conditions_change_the_true_psf_alone():
    size = (15, 15, 15)
    optics = MicroscopeSettings(na=1.2, wavelength_um=0.5, model="scalar", size=size)
    voxel = (0.2, 0.1, 0.1)
    for condition, expected in (
        ({"factors": {"wavelength_um": 1.1}},
         compute_psf(replace(optics, wavelength_um=0.55), voxel)),
        ({"optics": {"sample_index": 1.4, "depth_um": 5}},
         compute_psf(replace(optics, sample_index=1.4, depth_um=5.0), voxel)),
        ({"factors": {"z_step": 1.2, "na": 0.9}},
         compute_psf(replace(optics, na=1.08), (0.24, 0.1, 0.1))),
        ({"aberrations": {"spherical": 0.1}},
         aberrated_psf(optics, voxel, Aberrations(spherical=0.1), size=size)),
    ):  # fmt: skip
        true, assumed = _true_psf(condition)
        np.testing.assert_allclose(true.data, expected.data, atol=1e-7)
        np.testing.assert_array_equal(assumed.data, compute_psf(optics, voxel).data)
        assert true.voxel_um == assumed.voxel_um == voxel


def test_a_measured_psf_may_have_another_distance_of_planes_or_be_another_one(tmp_path):
    size = (15, 15, 15)
    optics = MicroscopeSettings(na=1.2, wavelength_um=0.5, model="scalar", size=size)
    voxel, methods = (0.2, 0.1, 0.1), [m for m in _table()["method"] if m["name"] == "2"]
    for name, made in (
        ("shallow", compute_psf(optics, voxel)),
        ("deep", compute_psf(replace(optics, sample_index=1.4, depth_um=5.0), (0.1, 0.1, 0.1))),
    ):
        write(made.with_data(1000 * made.data, record=None), tmp_path / f"{name}.ome.tif")
    shallow, deep = (str(tmp_path / f"{name}.ome.tif") for name in ("shallow", "deep"))
    settings = _settings(
        psf=[{"name": "measured", "file": shallow}],
        condition=[
            {"name": "step", "factors": {"z_step": 1.25}},
            {"name": "deep", "file": deep},
        ],
        method=methods,
    )
    images = {c.cell.condition: c.image for c in plan_study(settings).cells}
    for condition, expected in (
        ("step", compute_psf(optics, (0.25, 0.1, 0.1))),
        ("deep", compute_psf(replace(optics, sample_index=1.4, depth_um=5.0), voxel)),
    ):
        true, assumed = images[condition].psf, images[condition].assumed
        assert assumed is images[""].psf
        assert true.voxel_um == assumed.voxel_um == voxel
        inner, wanted, away = (
            crop / crop.sum()
            for crop in (centre_crop(v.data, (5, 11, 11)) for v in (true, expected, assumed))
        )
        assert abs(inner - wanted).max() < 0.25 * abs(away - wanted).max()
    written = json.loads(json.dumps(settings.as_json()))
    assert study_of(written, Path("elsewhere")) == settings
    tifffile.imwrite(tmp_path / "plain.tif", 1000 * expected.data)  # states no voxel size
    tifffile.imwrite(tmp_path / "plane.tif", 1000 * expected.data[7])
    for file, voxel_um, message in (
        ("plain.tif", None, r"\[\[condition\]\] c: .*voxel"),
        ("plain.tif", voxel, ""),
        ("plane.tif", voxel, "has 1 plane and the PSF m 15; both must be volumes"),
    ):
        condition = {"name": "c", "file": str(tmp_path / file)}
        condition |= {"voxel_um": list(voxel_um)} if voxel_um else {}
        given = {"psf": [{"name": "m", "file": shallow}], "condition": [condition]}
        changed = _settings(**given, method=methods)
        if message:
            with pytest.raises(RlnError, match=message):
                plan_study(changed)
        else:
            images = {c.cell.condition: c.image for c in plan_study(changed).cells}
            assert images["c"].psf.voxel_um == voxel
            assert study_of(json.loads(json.dumps(changed.as_json())), Path()) == changed
    for wrong, message in (
        ({"factors": {"z_step": 1.1, "na": 0.9}}, "only the z_step can be changed"),
        ({"factors": {"z_step": 1.1}, "aberrations": {"coma": 0.1}}, "only the z_step can be"),
        ({"factors": {"z_step": 1.1}, "voxel_um": [1, 1, 1]}, "that of a file, and there is none"),
        ({"file": deep, "voxel_um": [1, 1]}, "give three lengths"),
        ({"file": deep, "factors": {"z_step": 1.1}}, "either the file of the true PSF or changes"),
        ({"file": "absent.tif"}, "there is no file"),
        ({"file": 3}, "give the name of a file"),
    ):
        with pytest.raises(RlnError, match=message):
            _settings(
                psf=[{"name": "m", "file": shallow}], condition=[{"name": "c", **wrong}],
                method=methods,
            )  # fmt: skip


def test_a_condition_that_changes_nothing_of_a_psf_is_an_error():
    with pytest.raises(RlnError, match=r"c changes nothing of the PSF w"):
        _true_psf({"factors": {"depth_um": 2.0}})


def test_a_condition_changes_the_camera():
    conditions = [
        {"name": "emccd", "camera": {"detector": "emccd", "offset": 100, "gain": 4}},
        {"name": "counts", "camera": {"read_noise": 0}},
    ]
    methods = [m for m in _table()["method"] if m["name"] == "2"]
    plan = plan_study(_settings(condition=conditions, method=methods, test_structures=["dots"]))
    images = {c.cell.condition: c.image.simulate() for c in plan.cells}
    same = images[""].truth.data
    emccd, counts = images["emccd"], images["counts"]
    np.testing.assert_allclose(emccd.truth.data, 4 * same, rtol=1e-5)
    np.testing.assert_array_equal(counts.truth.data, same)
    assert (emccd.image.data % 1 == 0).all()
    dark = emccd.image.data[emccd.truth.data < np.median(emccd.truth.data) + 1]
    assert dark.mean() == pytest.approx(100 + 4 * 30, rel=0.5)
    assert emccd.image.data.min() >= 100  # no read noise below the offset
    assert (counts.image.data % 1 == 0).all()  # whole photons
    assert (images[""].image.data % 1 != 0).any()


# --- configuration


def test_a_configuration_returns_from_its_json():
    more = {
        "classes": {"mix": ["dots", "rods"]},
        "test_structures": ["dots", "mix", ["shells", "tubes"]],
        "training_volumes": [2, 4],
        "baseline": "auto",
        "psf": [OPTICS, {**OPTICS, "name": "coma", "aberrations": {"coma": 0.1}}],
        "condition": [
            {"name": "a", "psfs": ["w"], "factors": {"na": 0.9}, "optics": {"depth_um": 1.0}},
            {"name": "b", "aberrations": {"spherical": 0.1}, "photons": [300],
             "camera": {"detector": "scmos"}},
        ],
    }  # fmt: skip
    settings = _settings(**more)
    written = json.loads(json.dumps(settings.as_json()))
    assert study_of(written, Path("elsewhere")) == settings
    assert [c.name for c in settings.test_structures] == ["dots", "mix", "shells + tubes"]
    keys = {c.cell: c.key for c in plan_study(settings).cells}
    assert {c.cell: c.key for c in plan_study(study_of(written, Path())).cells} == keys


@pytest.mark.parametrize(
    ("name", "cells", "trainings"),
    [
        ("quick", 104, 2),
        ("paper", 5376, 48),
        ("volumes", 168, 24),
        ("long", 48, 2),
        ("loss", 84, 6),
    ],
)
def test_the_studies_of_this_project_are_valid(name, cells, trainings):
    settings = load_study(str(ROOT / "benchmarks" / f"study_{name}.toml"))
    plan = plan_study(settings)
    assert len(plan.cells) == cells
    assert len(trainings_of(plan.cells)) == trainings


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"fotons": [1]}, "the key fotons is unknown; do you mean photons?"),
        ({"photons": []}, r"photons is \[\]; give a list of different numbers"),
        ({"photons": [3, 3]}, "photons is"),
        ({"seeds": [0.5]}, "whole numbers"),
        ({"seeds": [1_000_000]}, "from 0 to 999999"),
        ({"shape": [10, 64, 64]}, "from 12 to 2048"),
        ({"test_structures": ["dot"]}, "test_structures: the structure dot is unknown; do you "),
        ({"test_structures": [["dots", "dots"]]}, "test_structures, dots"),
        ({"train_structures": []}, "RLN is trained, but train_structures is empty"),
        ({"psf": []}, r"no \[\[psf\]\]"),
        ({"psf": [{"voxel_um": [1, 1, 1]}]}, r"\[\[psf\]\] number 1 has no name"),
        ({"psf": [{"name": "w"}]}, r"\[\[psf\]\] w: give voxel_um"),
        ({"psf": [{**OPTICS, "naa": 1}]}, r"\[\[psf\]\] w: the key naa is unknown; do you mean na"),
        ({"psf": [{**OPTICS, "na": 2.0}]}, r"\[\[psf\]\] w: na is 2.0 but must"),
        ({"psf": [{**OPTICS, "file": "a.tif"}]}, "either a file or the optics"),
        ({"psf": [{"name": "f", "file": "a.tif"}]}, "there is no file"),
        ({"psf": [OPTICS, OPTICS]}, "psf: the name w occurs twice"),
        ({"method": [{"name": "a", "kind": "rl"}]}, "kind is 'rl'; give rld"),
        ({"method": [{"name": "a", "kind": "rld", "iterations": 3}]}, "that of stop"),
        ({"method": [{"name": "a", "kind": "rld", "stop": "bast"}]}, "stop is 'bast'"),
        ({"method": [{"name": "a", "kind": "rld", "counts": [1]}]}, "counts are for stop"),
        ({"method": [{"name": "a", "kind": "rld", "tv": 3}]}, r"\[\[method\]\] a: tv is 3 but"),
        ({"method": [{"name": "a", "kind": "rld", "alfa": 3}]}, "do you mean alpha"),
        ({"method": [{"name": "a", "kind": "model", "model": "uni"}]}, "no model"),
        ({"method": [{"name": "a", "kind": "train", "preset": "papr"}]}, "do you mean paper"),
        (
            {"method": [{"name": "a", "kind": "train", "patches": 3}]},
            "the key patches is unknown; do",
        ),
        ({"method": [{"name": "a", "kind": "train", "seed": 3}]}, "the key seed is unknown"),
        ({"method": [{"name": "a", "kind": "train", "patch": 7}]}, r"\] a: patch is 7 but"),
        ({"method": [{"name": "a", "kind": "train", "patch": "big"}]}, "patch is 'big', of the"),
        ({"budget": {"steps": 1, "minutes": 1}}, r"\[budget\]: steps and minutes"),
        ({"budget": {"step": 1}}, r"\[budget\]: the key step is unknown; do you mean steps"),
        ({"baseline": "atuo"}, "baseline: the method atuo is unknown; do you mean auto?"),
        ({"camera": {"gian": 1}}, r"\[camera\]: the key gian is unknown; do you mean gain"),
        ({"condition": [{"name": "c"}]}, r"\[\[condition\]\] c: it changes nothing"),
        (
            {"condition": [{"name": "c", "psfs": ["rund"], "camera": {"gain": 2}}]},
            "the PSF rund is unknown",
        ),
        ({"condition": [{"name": "c", "photons": [300]}]}, "it changes nothing"),
        ({"condition": [{"name": "c", "photons": 300, "camera": {"gain": 2}}]}, "photons is 300"),
        (
            {"condition": [{"name": "c", "photons": [20], "camera": {"gain": 2}}]},
            r"c: photons is \[20\], but those of the study are \[300\]",
        ),
        ({"condition": [{"name": "c", "factors": {"zstep": 2}}]}, "do you mean factors.z_step"),
        ({"condition": [{"name": "c", "factors": {"z_step": 0}}]}, "factors.z_step is 0"),
        ({"condition": [{"name": "c", "aberrations": {"coma": 0.1}}]}, "not gaussian"),
        ({"condition": [{"name": "c", "camera": {"gain": -1}}]}, "gain is -1 but"),
    ],
)
def test_mistakes_are_named_with_their_table(changes, message):
    with pytest.raises(RlnError, match=message) as caught:
        _settings(**changes)
    assert "`" not in str(caught.value)


def test_aberrations_need_the_scalar_model_where_nothing_else_may_differ():
    vectorial = {**OPTICS, "model": "vectorial"}
    condition = {"name": "c", "aberrations": {"spherical": 0.1}}
    with pytest.raises(RlnError, match=r'PSF w: .*set model = "scalar"'):
        _settings(psf=[vectorial], condition=[condition])
    own = PsfSettings(
        name="a", voxel_um=(0.2, 0.1, 0.1), aberrations=Aberrations(coma=0.1),
        optics=MicroscopeSettings(na=1.2),
    )  # fmt: skip
    assert own.aberrations is not None  # such a PSF is scalar anyhow
    with pytest.raises(RlnError, match="no number to multiply"):
        Condition(name="c", factors={"sample_index": 1.1}).microscope(own.optics)


def test_a_file_that_is_no_configuration_is_named(tmp_path):
    path = tmp_path / "study.toml"
    with pytest.raises(RlnError, match=r"study.toml cannot be read as a study"):
        load_study(path)
    path.write_text("shape = [1,", encoding="utf-8")
    with pytest.raises(RlnError, match=r"study.toml cannot be read as a study"):
        load_study(path)


def test_the_budget_gives_what_a_method_leaves_open():
    methods = [
        {"name": "common", "kind": "train", "variant": "started"},
        {"name": "own", "kind": "train", "preset": "paper", "minutes": 2.5, "batch": 3},
    ]
    settings = _settings(method=methods, budget={"steps": 70, "batch": 5, "validate": 0})
    common, own = (method.training(settings.budget)[0] for method in settings.methods)
    assert (common.steps, common.batch, common.validate) == (70, 5, 0)
    assert (common.variant, own.variant) == ("started", "paper")
    assert (own.steps, own.minutes, own.batch, own.validate) == (None, 2.5, 3, 0)


# --- command


def test_the_command_runs_and_continues_a_study(finished, tmp_path, capfd):
    config, out = tmp_path / "study.toml", tmp_path / "out"
    text = TINY[: TINY.index("[[condition]]")] + TINY[TINY.index("[[method]]") :]
    config.write_text(text[: text.index('[[method]]\nname = "RLN"')], encoding="utf-8")
    run = ["study", str(config), "-o", str(out)]
    assert cli.run([*run, "--dry-run"]) == 0
    said = capfd.readouterr().out
    assert "10 cells, 10 of them to compute, on 2 images" in said
    assert "time: known once each method has been timed" in said
    assert not out.exists()
    assert cli.run(run) == 0
    said = capfd.readouterr().out
    assert "10/10 8: round, rods, 300 photons, seed 0: " in said
    assert "\nBest image: " in said
    assert "Fastest near it: " in said
    assert {"cells.csv", "summary.csv", "report.html"} <= {path.name for path in out.iterdir()}
    best = next(r for r in _saved(out).values() if r.cell.method == "best")
    assert f"{best.scores['psnr_db']:.2f} dB" in said
    table = said[said.index("Conventional tests") :]
    means = {
        method: np.mean([r.scores["psnr_db"] for r in _saved(out).values()
                         if r.cell.method == method])
        for method in ("auto", "2", "8")
    }  # fmt: skip
    for method, mean in means.items():
        (row,) = [line for line in table.splitlines() if f" {method} " in line and "│" in line]
        assert f" {mean:.2f} " in row
    assert cli.run([*run, "--json"]) == 0
    answer = json.loads(capfd.readouterr().out)
    assert (answer["cells"], answer["failed"]) == (10, {})
    assert cli.run([*run, "--dry-run", "--json"]) == 0
    answer = json.loads(capfd.readouterr().out)
    assert (answer["cells"], answer["cells_left"], answer["seconds"]) == (10, 0, 0.0)
    assert cli.run([*run, "--cell", "none"]) == 1
    assert "no cell none" in capfd.readouterr().err
    assert cli.run(["study", *best.command.split()[2:], "--quiet"]) == 0
    assert cli.run(["study", str(ROOT / "benchmarks" / "study_quick.toml"), "-o", str(out)]) == 1
    assert "--overwrite" in capfd.readouterr().err


def test_the_command_says_which_cells_failed(finished, tmp_path, capfd):
    folder, _, results = finished
    out = tmp_path / "out"
    (out / "cells").mkdir(parents=True)
    (out / "study.json").write_text((folder / "study.json").read_text())
    replace(results[0], error="it broke", scores={}).save(out / "cells")
    results[1].save(out / "cells")
    command = ["study", str(out / "study.json"), "-o", str(out), "--report-only"]
    assert cli.run(command) == 3
    assert "1 of 2 cells failed" in capfd.readouterr().err
    assert len(_saved(out)) == 2


def test_the_time_needed_is_that_of_what_is_left(finished, tmp_path):
    folder, settings, _ = finished
    plan = plan_study(settings)
    assert time_needed(plan, folder) == (0.0, True, 0, 0)
    assert time_needed(plan, tmp_path) == (0.0, False, 1, 23)
    timed = plan_study(_settings(budget={"minutes": 2.0}))
    assert time_needed(timed, tmp_path) == (120.0, False, 1, 23)
    more = plan_study(_settings(seeds=[0, 1]))
    needed = time_needed(more, folder)
    assert (needed.complete, needed.trainings, needed.cells) == (True, 1, 23)
    results = _saved(folder).values()
    (seconds,) = {r.training_seconds for r in results if r.training_seconds}
    cells = sum(r.facts["wall_seconds"] for r in results)
    assert needed.seconds == pytest.approx(seconds + cells, rel=1e-3)


def test_cells_of_an_earlier_plan_are_in_no_table(finished, tmp_path):
    """As after the content of a PSF's file changed, with which all keys change."""
    folder, _, results = finished
    out = tmp_path / "out"
    shutil.copytree(folder, out)
    replace(results[0], key="0" * 16, scores={"psnr_db": 1.0}).save(out / "cells")
    assert {r.key for r in read_results(out)} == {r.key for r in results}
    (out / "plan.json").unlink()
    assert len(read_results(out)) == len(results) + 1


def test_a_training_that_cannot_be_saved_is_not_lost(tmp_path, monkeypatch):
    settings = _settings(condition=[], test_structures=["dots"])

    def full(self, path):
        raise OSError("the disk is full")

    with monkeypatch.context() as patched:
        patched.setattr(Model, "save", full)
        results = run_study(settings, tmp_path)
    (failed,) = {r.error for r in results if r.error}
    assert "the disk is full" in failed
    assert len(list((tmp_path / "models").glob("*.checkpoint"))) == 1
    again = run_study(settings, tmp_path)
    assert not [r for r in again if r.error]
    assert not list((tmp_path / "models").glob("*.checkpoint"))
