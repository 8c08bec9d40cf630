"""Examples in a folder: made once, the same in every folder, those made live but for rounding."""

import json
from dataclasses import replace

import numpy as np
import phantoms
import pytest

from napari_rln.core.errors import RlnError
from napari_rln.deconvolution.ladder import AROUND
from napari_rln.networks.initial_estimate import StartSettings
from napari_rln.simulate.conditions import FieldConditions
from napari_rln.simulate.imaging import ImagingSettings
from napari_rln.simulate.structures import StructureSettings
from napari_rln.train import example_folder
from napari_rln.train.example_folder import ExampleFolder
from napari_rln.train.examples import SyntheticPairs, example

PSF = phantoms.gaussian_psf()
SOURCE = SyntheticPairs(
    psf=PSF, structures=StructureSettings(), imaging=ImagingSettings(photons=(50.0, 500.0)),
    shape=(16, 18, 20), seed=3,
)  # fmt: skip
START = StartSettings(method="ladder", beyond=1.4)
ARRAYS = ("x", "E0", "target", "light")


def _same(a, b) -> bool:
    return (
        all(np.array_equal(getattr(a, name), getattr(b, name)) for name in ARRAYS)
        and all(map(np.array_equal, a.candidates, b.candidates))
        and a.about == b.about
    )


@pytest.fixture
def folder(tmp_path):
    return ExampleFolder(tmp_path / "examples", SOURCE, START, "photons")


def test_an_example_is_created_once_and_loaded(folder, monkeypatch):
    assert folder.numbers() == []
    folder.create(4)
    first = folder.load(1)
    assert folder.numbers() == [1, 4]
    monkeypatch.setattr(example_folder, "ladder_volumes", None)  # no more are created
    assert _same(folder.load(1), first)
    assert not _same(folder.load(4), first)
    with pytest.raises(TypeError):
        folder.load(2)


def test_an_example_has_what_a_training_needs_in_half_precision(folder):
    made = folder.load(0)
    assert len(made.candidates) == len(AROUND) + 1
    for data in (*(getattr(made, name) for name in ARRAYS), *made.candidates):
        assert (data.shape, data.dtype) == (SOURCE.shape, np.float16)
        assert np.isfinite(data).all()
    assert made.pair is None
    assert made.power == pytest.approx(float(made.target.astype(float).var()), rel=0.01)
    photons, background = made.about
    assert photons > 1
    assert background > 0


@pytest.mark.parametrize("conditions", [None, FieldConditions()], ids=["plain", "field"])
def test_an_example_is_the_one_made_live_within_half_precision(tmp_path, conditions):
    source = replace(SOURCE, conditions=conditions)
    folder = ExampleFolder(tmp_path, source, START, "photons")
    for number in range(2):
        made = folder.load(number)
        live = example(source, number, START, "photons")
        assert made.about == pytest.approx(live.about, rel=1e-3)
        assert made.scaling.offset == live.scaling.offset == 0
        for name in ARRAYS:
            found, expected = getattr(made, name), getattr(live, name)
            error = np.abs(found - expected).max() / np.abs(expected).max()
            assert error < 3e-3, name
        for found, expected in zip(made.candidates, live.candidates, strict=True):
            assert np.abs(found - expected).max() / expected.max() < 3e-3


def test_two_folders_have_the_same_examples(folder, tmp_path):
    other = ExampleFolder(tmp_path / "other", SOURCE, START, "photons")
    assert other.hash == folder.hash
    for number in (2, 0):
        other.create(number)
    folder.create(0)
    mine, same, another = folder.read(0), other.read(0), other.read(2)
    assert np.array_equal(mine.light, same.light)
    assert not np.array_equal(mine.light, another.light)
    assert mine.deviances == same.deviances != another.deviances
    assert _same(folder.load(0), other.load(0))


def test_the_factor_beyond_the_stop_is_that_of_the_training(folder, tmp_path):
    farther = ExampleFolder(folder.folder, SOURCE, replace(START, beyond=3.0), "photons")
    made, other = folder.load(0), farther.load(0)
    assert np.array_equal(made.candidates[0], other.candidates[0])
    assert not np.array_equal(made.candidates[-1], other.candidates[-1])


@pytest.mark.parametrize(
    "changes",
    [
        {"seed": 4},
        {"shape": (16, 18, 22)},
        {"psf": phantoms.gaussian_psf((7, 7, 7))},
        {"psf": None},
        {"imaging": ImagingSettings()},
        {"structures": StructureSettings(structures=("beads",))},
        {"conditions": FieldConditions()},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_a_folder_of_other_settings_is_refused(folder, changes):
    before = (folder.folder / "recipe.json").read_bytes()
    with pytest.raises(RlnError, match="examples of other settings; give another folder"):
        ExampleFolder(folder.folder, replace(SOURCE, **changes), START, "photons")
    assert (folder.folder / "recipe.json").read_bytes() == before
    assert ExampleFolder(folder.folder, SOURCE, START, "photons").hash == folder.hash


def test_a_folder_of_another_version_is_refused(folder):
    path = folder.folder / "recipe.json"
    recipe = json.loads(path.read_text())
    path.write_text(json.dumps(recipe | {"version": "0.0.1"}, indent=1))
    with pytest.raises(RlnError, match="other settings"):
        ExampleFolder(folder.folder, SOURCE, START, "photons")


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[: len(data) // 2],
        lambda data: b"",
        lambda data: data.replace(b'"scale"', b'"skale"'),
        lambda data: data.replace(b'"data"', b'"date"'),
        lambda data: data.replace(b'"deviances":"[', b'"deviances":"<'),
    ],
    ids=["truncated", "empty", "no scale", "no data", "no deviances"],
)
def test_a_damaged_example_is_refused_with_its_name(folder, damage):
    folder.create(0)
    path = folder.path(0)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(RlnError, match=r"000000\.safetensors is damaged .*; delete it"):
        folder.load(0)
    path.unlink()
    assert folder.load(0).light is not None
