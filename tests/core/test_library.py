"""The library: what is in it, names that are kept unique, and what is refused."""

import json
from pathlib import Path

import phantoms
import pytest
from safetensors.torch import load_file, save_file

from napari_rln.core.errors import RlnError
from napari_rln.core.record import Record
from napari_rln.networks.library import Library, default_folder
from napari_rln.networks.model import Model, load_model, shipped_models

SHIPPED = ("universal", "bead-paper")


@pytest.fixture
def library(tmp_path) -> Library:
    """Return a library whose folder is not there yet."""
    return Library(tmp_path / "share" / "models")


def _model(name="mine", time="2026-01-02T00:00:00+00:00", **changes) -> Model:
    quality = {"network": {"psnr_db": 30.0, "ssim": 0.9}}
    record = Record(method="train", facts={"validation": quality}, time=time)
    return phantoms.small_model(name=name, record=record, **changes)


def test_without_a_folder_there_are_the_shipped_ones(library):
    assert library.names() == SHIPPED
    assert set(SHIPPED) == set(shipped_models())
    universal, bead = library.entries()
    assert universal.path is None
    assert universal.variant == "started"
    assert universal.voxel_um is None
    assert bead.psf_name == "bead_psf"
    assert bead.voxel_um == (0.1, 0.1, 0.1)
    assert bead.validation["network"]["psnr_db"] > 30
    assert library.load("universal").hash == load_model("universal").hash
    assert library.path("universal") is None
    assert not library.folder.exists()


def test_the_folder_is_the_users_own():
    assert Library().folder == default_folder()
    assert default_folder().parts[-2:] == ("napari-rln", "models")


def test_a_saved_model_is_listed_and_loaded(library):
    path = library.save(_model())
    assert path == library.folder / "mine.safetensors"
    entry = library.entries()[-1]
    assert (entry.name, entry.path, entry.error) == ("mine", path, "")
    assert entry.time == "2026-01-02T00:00:00+00:00"
    assert entry.variant == "started"
    assert entry.psf_name == "psf"
    assert entry.voxel_um == phantoms.VOXEL_UM
    assert entry.validation == {"network": {"psnr_db": 30.0, "ssim": 0.9}}
    assert library.load("mine").hash == _model().hash
    assert library.path("mine") == path


def test_the_newest_are_first(library):
    for name, year in (("b", 2024), ("a", 2026), ("c", 2025)):
        library.save(_model(name, time=f"{year}-01-01T00:00:00+00:00"))
    (library.folder / "torn.safetensors").write_bytes(b"torn")
    assert library.names() == (*SHIPPED, "a", "c", "b")
    assert [entry.name for entry in library.entries()] == [*SHIPPED, "a", "c", "b", "torn"]


def test_a_taken_name_gets_a_number(library):
    names = [library.save(_model(name)).name for name in ("mine", "mine", "Mine", "universal")]
    assert names == [f"{n}.safetensors" for n in ("mine", "mine-2", "Mine-3", "universal-2")]
    assert library.load("mine-2").name == "mine-2"
    assert Model.load(library.path("mine-2")).name == "mine-2"


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("a/b\\c", "a-b-c"),
        ("../up", "-up"),
        (" .hidden. ", "hidden"),
        ("", "model"),
        ("...", "model"),
        ("60x 1.4 oil (DAPI)", "60x 1.4 oil (DAPI)"),
        ("Bürste", "Bürste"),
        ("ä" * 300, "ä" * 45),
        ("a\nb", "a-b"),
    ],
)
def test_any_name_becomes_one_for_a_file(library, name, file):
    path = library.save(_model(name))
    assert path == library.folder / f"{file}.safetensors"
    assert library.load(file).name == file
    assert library.names() == (*SHIPPED, file)


def test_a_damaged_file_is_listed_with_its_error_and_can_be_deleted(library):
    path = library.save(_model())
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    entry = library.entries()[-1]
    assert (entry.name, entry.path, entry.variant) == ("mine", path, None)
    assert "truncated" in entry.error
    assert library.names() == SHIPPED
    for refused in (library.load, lambda name: library.rename(name, "other")):
        with pytest.raises(RlnError, match="truncated"):
            refused("mine")
    library.delete("mine")
    assert library.entries()[-1].name == "bead-paper"


@pytest.mark.parametrize("change", [{"psf": "beads"}, {"record": None}, {"variant": ...}])
def test_a_damaged_description_is_listed_as_such(library, change):
    path = library.save(_model())
    card = _model().card()
    for key, value in change.items():
        card.pop(key) if value is ... else card.update({key: value})
    save_file(load_file(path), path, {"napari-rln": json.dumps(card)})
    assert "the description in mine.safetensors is damaged" in library.entries()[-1].error


def test_other_files_and_those_being_written_are_not_listed(library):
    library.save(_model())
    for name in (".1234-new.safetensors", "notes.txt", "mine.checkpoint"):
        (library.folder / name).write_bytes(b"")
    (library.folder / "folder.safetensors").mkdir()
    assert [entry.name for entry in library.entries()] == [*SHIPPED, "mine"]


def test_a_file_called_as_a_shipped_one_does_not_stand_in_for_it(library):
    library.save(_model()).rename(library.folder / "universal.safetensors")
    assert "rename the file" in library.entries()[-1].error
    assert library.names() == SHIPPED
    assert library.load("universal").hash == load_model("universal").hash


def test_a_model_is_called_as_its_file(library, tmp_path):
    library.save(_model()).rename(library.folder / "by hand.safetensors")
    assert library.load("by hand").name == "by hand"
    _model("card").save(tmp_path / "file.v2.safetensors")
    assert library.add(tmp_path / "file.v2.safetensors").name == "file.v2.safetensors"
    assert library.load("file.v2").name == "file.v2"


def test_renaming_keeps_all_but_the_name(library):
    before = library.save(_model())
    after = library.rename("mine", "60x oil")
    assert after == library.folder / "60x oil.safetensors"
    assert not before.exists()
    assert Model.load(after).card() == _model("60x oil").card()


@pytest.mark.parametrize(
    ("new", "said"),
    [
        ("", "cannot be called ''"),
        ("a/b", "cannot be called 'a/b'"),
        ("a\\b", "none of"),
        ("..", "no dot or blank"),
        (".a", "no dot or blank"),
        ("a ", "no dot or blank"),
        ("a\n", "cannot be called"),
        ("n" * 51, "1 to 50 characters"),
        ("universal", "a model called universal already"),
        ("Universal", "a model called Universal already"),
        ("other", "a model called other already"),
        ("mine", "a model called mine already"),
    ],
)
def test_a_name_that_is_taken_or_none_is_refused(library, new, said):
    library.save(_model())
    library.save(_model("other"))
    with pytest.raises(RlnError, match=said):
        library.rename("mine", new)
    assert set(library.names()) == {*SHIPPED, "mine", "other"}


def test_shipped_models_stay(library):
    for refused in (library.delete, lambda name: library.rename(name, "other")):
        with pytest.raises(RlnError, match=r"universal.*napari-rln"):
            refused("universal")


@pytest.mark.parametrize("name", ["nobody", "", "../secret", "mine.safetensors"])
def test_what_is_not_in_the_library_is_not_reached(library, name):
    library.save(_model())
    _model().save(library.folder.parent / "secret.safetensors")
    for refused in (library.load, library.delete, library.path):
        with pytest.raises(RlnError, match="no model called"):
            refused(name)
    assert (library.folder.parent / "secret.safetensors").exists()


def test_models_go_out_and_come_in(library, tmp_path):
    out = tmp_path / "mine.safetensors"
    library.save(_model())
    library.load("mine").save(out)
    library.load("mine").save(out)  # again, over the former
    assert Model.load(out).hash == _model().hash
    assert library.add(out).name == "mine-2.safetensors"
    assert library.add(str(out)).name == "mine-3.safetensors"
    library.load("universal").save(out)
    assert Model.load(out).hash == load_model().hash
    with pytest.raises(RlnError, match="must end in"):
        library.load("mine").save(tmp_path / "mine.pt")


def test_a_foreign_file_is_not_let_in(library, tmp_path):
    path = tmp_path / "notes.safetensors"
    with pytest.raises(RlnError, match="there is no model file"):
        library.add(path)
    path.write_bytes(b"notes")
    with pytest.raises(RlnError, match="read as a model"):
        library.add(path)
    assert library.names() == SHIPPED


def test_a_failed_save_leaves_nothing_behind(library, monkeypatch):
    library.save(_model())

    def fail(*_):
        raise OSError("no space left on device")

    monkeypatch.setattr(Path, "write_bytes", fail)
    for failing in (lambda: library.save(_model()), lambda: library.rename("mine", "other")):
        with pytest.raises(OSError, match="no space left"):
            failing()
    assert [path.name for path in library.folder.iterdir()] == ["mine.safetensors"]
