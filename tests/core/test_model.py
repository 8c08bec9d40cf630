"""Model files: what is saved is what is loaded, what is no model is refused, nothing is run."""

import json
import pickle
from pathlib import Path

import numpy as np
import phantoms
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from napari_rln.core.errors import RlnError
from napari_rln.core.record import Record
from napari_rln.core.volume import Volume
from napari_rln.networks.initial_estimate import StartSettings
from napari_rln.networks.model import (
    FORMAT,
    Model,
    load_model,
    psf_difference,
    read_card,
    shipped_models,
)

WIDTHS = {"axial": (1.5, 10.0), "lateral": (1.4, 5.5)}


def _model() -> Model:
    psf = phantoms.comatic_psf()
    return phantoms.small_model(
        name="mine",
        start=StartSettings(method="wiener-butterworth", iterations=7),
        normalisation="percentiles",
        output_scale=2.5,
        psf=Volume.from_array(
            psf.data, psf.voxel_um, name="beads", record=Record(method="psf measure")
        ),
        psf_widths=WIDTHS,
        record=Record(method="train", settings={"seed": 3}, facts={"steps": 12, "loss": [0.5]}),
    )


@pytest.fixture
def path(tmp_path) -> Path:
    """Return the path of a saved model."""
    path = tmp_path / "mine.safetensors"
    _model().save(path)
    return path


def _rewrite(path, *, card=None, tensors=None, text=None):
    """Change the card or the tensors of a model file in place."""
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
        found = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    (key,) = metadata
    known = json.loads(metadata[key])
    if card:
        card(known)
    if tensors:
        tensors(found)
    save_file(found, path, {key: json.dumps(known) if text is None else text})


def test_a_saved_model_comes_back_whole(path):
    model, loaded = _model(), Model.load(path)
    mine, other = model.network.state_dict(), loaded.network.state_dict()
    assert list(mine) == list(other)
    for name, values in mine.items():
        assert values.dtype == other[name].dtype
        assert torch.equal(values, other[name])
    assert loaded.hash == model.hash
    np.testing.assert_array_equal(loaded.psf.data, model.psf.data)
    assert loaded.psf.voxel_um == model.psf.voxel_um
    assert loaded.psf.record.method == "psf measure"
    assert loaded.start == model.start
    assert loaded.psf_widths == WIDTHS
    assert (loaded.normalisation, loaded.output_scale) == ("percentiles", 2.5)
    assert loaded.network.settings == model.network.settings
    assert not loaded.network.training
    record, kept = model.card(), loaded.card()
    record["record"]["time"] = kept["record"]["time"]
    record["psf"]["record"]["time"] = kept["psf"]["record"]["time"]
    assert kept == record


def test_a_model_without_psf_and_reach_comes_back_so(tmp_path):
    phantoms.small_model(psf=None).save(tmp_path / "m.safetensors")
    loaded = load_model(tmp_path / "m.safetensors")
    assert loaded.psf is None
    assert not loaded.psf_widths


def test_a_loaded_model_computes_the_same(path):
    x = torch.rand(1, 1, 8, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        mine, other = _model().network(x).output, Model.load(path).network(x).output
    assert torch.equal(mine, other)


def test_the_card_is_what_json_can_hold(path):
    card = _model().card()
    assert json.loads(json.dumps(card)) == card


def test_the_card_is_read_without_the_weights(path):
    whole = json.loads(json.dumps(Model.load(path).card()))
    assert read_card(path) == whole
    _rewrite(path, tensors=_spoil)  # which nobody looks at
    assert read_card(path) == whole
    for name in shipped_models():
        assert Record.from_dict(read_card(name)["record"]) == load_model(name).record


def test_a_card_that_cannot_be_read_is_refused(path):
    with pytest.raises(RlnError, match="nobody"):
        read_card("nobody")
    whole = path.read_bytes()
    for size in (0, 100, len(whole) - 1):
        path.write_bytes(whole[:size])
        with pytest.raises(RlnError, match=r"\.safetensors.* truncated"):
            read_card(path)
    path.write_bytes(whole)
    _rewrite(path, card=lambda card: card.update(format=FORMAT + 1))
    with pytest.raises(RlnError, match="later version"):
        read_card(path)


def test_the_hash_tells_weights_apart():
    assert phantoms.small_model().hash == phantoms.small_model("paper").hash
    assert phantoms.small_model().hash != phantoms.small_model(seed=1).hash


# What is no model


def test_a_file_cut_short_is_refused_wherever_it_was_cut(path):
    whole = path.read_bytes()
    for size in (0, 4, 8, 100, 3000, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:size])
        with pytest.raises(RlnError, match=r"\.safetensors.* truncated"):
            Model.load(path)


def test_a_file_of_something_else_is_refused(tmp_path):
    path = tmp_path / "other.safetensors"
    path.write_bytes(b"II*\x00" + bytes(1000))
    with pytest.raises(RlnError, match=r"other\.safetensors"):
        Model.load(path)
    save_file({"weight": torch.ones(3)}, path)
    with pytest.raises(RlnError, match="a model of napari-rln"):
        Model.load(path)
    save_file({"weight": torch.ones(3)}, path, {"format": "pt"})
    with pytest.raises(RlnError, match="a model of napari-rln"):
        Model.load(path)


class _Bomb:
    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return Path.touch, (self.target,)


@pytest.mark.parametrize("write", ["pickle", "torch"])
def test_a_renamed_pickle_is_refused_and_does_nothing(tmp_path, write):
    target, path = tmp_path / "done", tmp_path / "model.safetensors"
    if write == "pickle":
        path.write_bytes(pickle.dumps(_Bomb(target)))
        pickle.loads(path.read_bytes())
        assert target.exists()  # it would go off
        target.unlink()
    else:
        torch.save({"weight": torch.ones(3), "bomb": _Bomb(target)}, path)
    with pytest.raises(RlnError, match="read as a model"):
        Model.load(path)
    assert not target.exists()


def test_a_model_of_a_later_version_is_refused(path):
    _rewrite(path, card=lambda card: card.update(format=FORMAT + 1, network={"new": 1}))
    with pytest.raises(RlnError, match=f"format {FORMAT + 1}"):
        Model.load(path)


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", "{}", '{"format": "one"}', "[" * 99_999], ids=range(7)
)
def test_a_damaged_description_is_refused(path, text):
    _rewrite(path, text=text)
    with pytest.raises(RlnError, match=r"description.*mine\.safetensors"):
        Model.load(path)


@pytest.mark.parametrize("name", ["network", "start", "normalisation", "output_scale", "record"])
def test_a_description_that_lacks_something_is_refused(path, name):
    _rewrite(path, card=lambda card: card.pop(name))
    with pytest.raises(RlnError, match=rf"model.*describes.*{name}"):
        Model.load(path)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("network", {"views": "three"}),
        ("network", []),
        ("start", {"method": "guess"}),
        ("output_scale", "much"),
        ("reach", {"axial": [1.0]}),
        ("reach", []),
        ("record", {"who": "knows"}),
        ("psf", "beads"),
        ("psf", {"name": "psf", "voxel_um": [0.1, 0.1, 0.0], "record": None}),
    ],
)
def test_a_description_of_something_impossible_is_refused(path, name, value):
    _rewrite(path, card=lambda card: card.update({name: value}))
    with pytest.raises(RlnError, match=r"model.*describes"):
        Model.load(path)


def _lose(tensors):
    del tensors["H1.e_1.conv.weight"]


def _add(tensors):
    tensors["H4.weight"] = torch.ones(3)


def _reshape(tensors):
    tensors["H3.u_5.weight"] = torch.ones(8, 2, 3, 3, 3)


def _spoil(tensors):
    tensors["H3.u_5.weight"][0, 0, 1, 1, 1] = float("nan")


def _spoil_statistics(tensors):
    tensors["H1.DV.bn.running_var"][0] = float("inf")


def _below_zero(tensors):
    tensors["H1.DV.bn.running_var"][0] = -0.5


def _spoil_psf(tensors):
    tensors["psf"][0, 0, 0] = float("nan")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (_lose, "H1.e_1.conv.weight"),
        (_add, "H4.weight"),
        (_reshape, "H3.u_5.weight"),
        (_spoil, "H3.u_5.weight contain NaN"),
        (_spoil_statistics, "H1.DV.bn.running_var contain NaN"),
        (_below_zero, "H1.DV.bn.running_var contain negative variances"),
        (_spoil_psf, "NaN"),
    ],
)
def test_weights_that_are_not_the_networks_are_refused(path, change, said):
    _rewrite(path, tensors=change)
    with pytest.raises(RlnError, match=said):
        Model.load(path)


# Names and places


def test_a_model_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(RlnError, match="there is no model file"):
        load_model(tmp_path / "absent.safetensors")
    with pytest.raises(RlnError, match="nobody"):
        load_model("nobody")
    folder = tmp_path / "folder.safetensors"
    folder.mkdir()
    with pytest.raises(RlnError, match="there is no model file"):
        load_model(folder)


def test_shipped_models_load_by_their_names():
    for name in shipped_models():
        assert load_model(name).hash == load_model(name).hash


def test_a_model_cannot_be_saved_under_another_ending_or_in_no_folder(tmp_path):
    for name in ("m.pt", "m", "none/m.safetensors"):
        with pytest.raises(RlnError, match=r"must end in|a folder that exists"):
            _model().save(tmp_path / name)
    (tmp_path / "d.safetensors").mkdir()
    with pytest.raises(RlnError, match="a folder that exists"):
        _model().save(tmp_path / "d.safetensors")
    assert [entry.name for entry in tmp_path.iterdir()] == ["d.safetensors"]


def test_a_failed_save_leaves_nothing_behind_and_the_old_model_alone(path, monkeypatch):
    def fail(name, data):
        with name.open("wb") as file:
            file.write(data[: len(data) // 2])
        raise OSError("no space left on device")

    before = path.read_bytes()
    monkeypatch.setattr(Path, "write_bytes", fail)
    for target in (path, path.with_name("new.safetensors")):
        with pytest.raises(OSError, match="no space left"):
            _model().save(target)
    assert list(path.parent.iterdir()) == [path]
    assert path.read_bytes() == before


def test_a_model_may_be_read_by_whoever_may_read_a_new_file(path):
    plain = path.with_name("plain")
    plain.touch()
    assert path.stat().st_mode == plain.stat().st_mode


# How unlike two PSFs are


def test_unlikeness_is_the_share_of_light_elsewhere():
    psf = phantoms.gaussian_psf()
    assert psf_difference(psf, psf) == 0
    points = np.zeros((2, 5, 5, 5), np.float32)
    points[0, 2, 2, 2] = points[1, 2, 2, 3] = 0.25
    points[:, 2, 0, 0] = 0.75
    one, other = (Volume.from_array(data, psf.voxel_um) for data in points)
    assert psf_difference(one, other) == pytest.approx(0.25)
    assert psf_difference(other, one) == pytest.approx(0.25)


def test_unlikeness_does_not_see_sizes():
    psf = phantoms.gaussian_psf((15, 15, 15))
    for shape in ((11, 15, 15), (14, 16, 12), (20, 11, 17)):
        assert psf_difference(psf, phantoms.gaussian_psf(shape)) < 0.01
    assert psf_difference(psf, phantoms.gaussian_psf(sigma=(3.0, 1.2, 1.2))) > 0.2


@pytest.mark.parametrize("text", ['{"format": Infinity}', '{"format": 0}', "[" * 100_000])
def test_a_description_made_to_break_the_reader_is_refused(path, text):
    _rewrite(path, text=text)
    with pytest.raises(RlnError, match=r"description.*mine\.safetensors"):
        Model.load(path)


@pytest.mark.parametrize(
    "name", ["network", "start", "reach", "record", "output_scale", "share", "mirrors"]
)
@pytest.mark.parametrize("value", [["a"], "a"])
def test_a_description_of_other_types_is_refused(path, name, value):
    _rewrite(path, card=lambda card: card.update({name: value}))
    with pytest.raises(RlnError, match=r"model.*describes"):
        Model.load(path)


@pytest.mark.parametrize(
    "change",
    [
        {"normalisation": "none"},
        {"output_scale": 0},
        {"output_scale": float("inf")},
        {"share": 1.5},
        {"share": float("nan")},
        {"reach": {"axial": [3.0, 2.0], "lateral": [1.0, 2.0]}},
        {"mirrors": [True, True]},
        {"mirrors": [0, 1, 1]},
        {"name": 5},
    ],
)
def test_a_description_of_what_would_spoil_results_is_refused(path, change):
    _rewrite(path, card=lambda card: card.update(change))
    with pytest.raises(RlnError, match=r"model.*describes"):
        Model.load(path)
