"""What is written replaces nothing that somebody needs: one rule for every result."""

import os
from pathlib import Path

import pytest

from napari_rln.core.errors import RlnError
from napari_rln.io.paths import atomic, check_outputs, make_folder


@pytest.fixture
def raw(tmp_path):
    path = tmp_path / "raw.tif"
    path.write_bytes(b"photons")
    return path


def test_an_output_that_is_an_input_is_refused_whatever_it_is_called(raw, monkeypatch):
    linked, hard = raw.with_name("link.tif"), raw.with_name("hard.tif")
    linked.symlink_to(raw)
    hard.hardlink_to(raw)
    monkeypatch.chdir(raw.parent)
    for name in (raw, Path("raw.tif"), raw.parent / "x" / ".." / "raw.tif", linked, hard):
        make_folder(raw.parent / "x")
        with pytest.raises(RlnError, match="would lie on or in"):
            check_outputs([name], inputs=[None, raw], overwrite=True)
    assert raw.read_bytes() == b"photons"


def test_a_result_within_what_is_read_is_refused(tmp_path):
    zarr, planes = tmp_path / "a.ome.zarr", tmp_path / "planes"
    for folder in (zarr, planes):
        folder.mkdir()
    with pytest.raises(RlnError, match="would lie on or in"):
        check_outputs([zarr / "result.tif"], inputs=[zarr])
    with pytest.raises(RlnError, match="would lie on or in"):
        check_outputs([tmp_path / "a.ome.zarr"], inputs=[zarr / "0"], overwrite=True)
    # A TIFF there would be one of the planes.
    with pytest.raises(RlnError, match="would lie on or in"):
        check_outputs([planes / "result.tif"], inputs=[planes])
    check_outputs([planes / "result.ome.zarr"], inputs=[planes])


def test_what_is_there_is_replaced_only_where_that_is_wanted(raw):
    with pytest.raises(RlnError, match=r"already exists.*`overwrite`"):
        check_outputs([raw])
    check_outputs([raw], overwrite=True)
    dangling = raw.with_name("dangling.tif")
    dangling.symlink_to(raw.with_name("nowhere.tif"))
    with pytest.raises(RlnError, match="already exists"):
        check_outputs([dangling])


def test_two_results_of_one_name_are_refused(tmp_path):
    with pytest.raises(RlnError, match="are one file"):
        check_outputs([tmp_path / "a.tif", tmp_path / "." / "a.tif"])


def test_places_where_no_file_can_be_are_said(tmp_path):
    (tmp_path / "folder.tif").mkdir()
    (tmp_path / "file").write_text("")
    for path, message in (
        (tmp_path / "none" / "a.tif", "no folder"),
        (tmp_path / "file" / "a.tif", "is a file, where a folder"),
        (tmp_path / "folder.tif", "is a folder"),
        (tmp_path / ("n" * 240 + ".tif"), "244 bytes"),
        (tmp_path / ("\N{GREEK SMALL LETTER MU}" * 120 + ".tif"), "244 bytes"),
    ):
        with pytest.raises(RlnError, match=message):
            check_outputs([path])
    with pytest.raises(RlnError, match="cannot be made"):
        make_folder(tmp_path / "file" / "results")
    with pytest.raises(RlnError, match=r"1e\+09 GB.* GB"):
        check_outputs([tmp_path / "a.tif"], room=10**18)


def test_loops_of_links_are_no_traceback(tmp_path):
    loop = tmp_path / "loop.tif"
    os.symlink(loop, loop)  # noqa: PTH211
    with pytest.raises(RlnError):
        check_outputs([loop], inputs=[loop])


def test_what_appeared_meanwhile_is_left_as_it_is(raw):
    with (
        pytest.raises(RlnError, match="meanwhile"),
        atomic(raw, replace=False) as temporary,
    ):
        temporary.write_bytes(b"other")
    assert raw.read_bytes() == b"photons"
    assert [path.name for path in raw.parent.iterdir()] == ["raw.tif"]


def test_a_folder_that_is_no_zarr_is_not_replaced_by_one(tmp_path):
    mine = tmp_path / "mine.zarr"
    mine.mkdir()
    check_outputs([mine], overwrite=True)
    (mine / "thesis.txt").write_text("years")
    with pytest.raises(RlnError, match="that is not a Zarr"):
        check_outputs([mine], overwrite=True)
    (mine / "zarr.json").write_text("{}")
    check_outputs([mine], overwrite=True)


def test_a_zarr_is_known_by_what_it_holds(tmp_path):
    image = tmp_path / "image" / "0"
    image.mkdir(parents=True)
    for folder in (image, image.parent):
        (folder / "zarr.json").write_text("{}")
    for named in (image.parent, image, image / "zarr.json"):
        with pytest.raises(RlnError, match="would lie on or in"):
            check_outputs([image.parent / "result.tif"], inputs=[named])
    check_outputs([tmp_path / "result.tif"], inputs=[image])
