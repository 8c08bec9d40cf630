"""Batches: what is found, what belongs to it, and that one failure does not stop the others."""

import csv

import numpy as np
import phantoms
import pytest
import tifffile

from napari_rln.core.errors import RlnError
from napari_rln.core.generators import finish
from napari_rln.core.volume import Volume
from napari_rln.deconvolution.classical import RichardsonLucy
from napari_rln.engine.batch import REPORT, BatchSettings, listed, run_batch
from napari_rln.engine.execution import Execution
from napari_rln.engine.task import LargeRun
from napari_rln.io.volumes import write_volume


@pytest.fixture
def folder(tmp_path):
    """Return a folder with two images and what is none."""
    place = tmp_path / "in"
    place.mkdir()
    for n in range(2):
        image = Volume.from_array(phantoms.spots((8, 20, 20), seed=n) + 10, phantoms.VOXEL_UM)
        write_volume(image, place / f"cell{n}.ome.tif")
    (place / "notes.txt").write_text("nothing")
    return place


def _settings(tmp_path, **more):
    return BatchSettings(folder=tmp_path / "out", method="rld", **more)


def _prepare(item):
    return LargeRun(
        origin=item.origin, psf=phantoms.gaussian_psf(), settings=RichardsonLucy(iterations=2),
        out=item.out,
    )  # fmt: skip


def test_folders_patterns_and_files_are_found(folder, tmp_path):
    names = ["cell0-rld.ome.tif", "cell1-rld.ome.tif"]
    assert [i.out.name for i in listed([str(folder)], _settings(tmp_path))] == names
    pattern = str(folder / "*.tif")
    assert [i.out.name for i in listed([pattern], _settings(tmp_path))] == names
    one = listed([str(folder / "cell1.ome.tif")], _settings(tmp_path, ending="ome.zarr"))
    assert [i.out.name for i in one] == ["cell1-rld.ome.zarr"]


def test_nothing_found_and_names_that_clash_are_said(folder, tmp_path):
    with pytest.raises(RlnError, match="there are no images"):
        listed([str(folder / "*.nothing")], _settings(tmp_path))
    with pytest.raises(RlnError, match="would both become"):
        listed([str(folder), str(folder / "cell0.ome.tif")], _settings(tmp_path))


def test_a_table_says_what_belongs_to_each(folder, tmp_path):
    table = folder / "jobs.csv"
    table.write_text(
        "\ufeffimage,psf,model,time,voxel_um,out\n"
        "cell0.ome.tif,a.tif,one,0,0.3 0.1 0.1,first.ome.zarr\n"
        "cell1.ome.tif,,,,,\n"
    )
    given = _settings(tmp_path, psfs=[folder / "common.tif"], voxel_um=(1.0, 1.0, 1.0))
    first, second = listed([str(table)], given)
    assert (first.psf, first.model, first.time) == (folder / "a.tif", "one", 0)
    assert first.voxel_um == (0.3, 0.1, 0.1)
    assert first.out == tmp_path / "out" / "first.ome.zarr"
    assert (second.psf, second.model, second.time) == (folder / "common.tif", None, None)
    assert second.voxel_um == (1.0, 1.0, 1.0)
    assert second.out.name == "cell1-rld.ome.tif"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file\na.tif\n", "its columns may be"),
        ("image,colour\na.tif,red\n", "has colour"),
        ("image,channel\na.tif,first\n", "line 2"),
        ("image,voxel_um\na.tif,1 2\n", "no voxel size"),
        ("", "its columns may be"),
        ("image,psf\na.tif,b.tif,c.tif\n", "more cells"),
        ("image,psf\n,b.tif\n", "names no image"),
    ],
)
def test_tables_that_cannot_be_used(tmp_path, text, message):
    (tmp_path / "jobs.csv").write_text(text)
    with pytest.raises(RlnError, match=message):
        listed([str(tmp_path / "jobs.csv")], _settings(tmp_path))


def test_every_channel_has_its_own_psf(tmp_path):
    both = np.stack([phantoms.spots((8, 20, 20)) + 10] * 2, axis=1)
    tifffile.imwrite(tmp_path / "two.ome.tif", both, metadata={"axes": "ZCYX"})
    given = _settings(tmp_path, psfs=[tmp_path / "green.tif", tmp_path / "red.tif"])
    items = listed([str(tmp_path / "two.ome.tif")], given)
    assert [(i.channel, i.psf.name, i.out.name) for i in items] == [
        (0, "green.tif", "two-c0-rld.ome.tif"), (1, "red.tif", "two-c1-rld.ome.tif"),
    ]  # fmt: skip
    three = _settings(tmp_path, psfs=[tmp_path / f"{n}.tif" for n in "abc"])
    assert (
        "2 channels but there are 3 PSFs"
        in listed([str(tmp_path / "two.ome.tif")], three)[0].problem
    )


def test_one_failure_does_not_stop_the_others_and_a_second_start_does_nothing(folder, tmp_path):
    (folder / "broken.tif").write_text("nothing")
    dark = Volume.from_array(np.zeros((8, 20, 20)), phantoms.VOXEL_UM)
    write_volume(dark, folder / "dark.ome.tif")
    settings = _settings(tmp_path)
    settings.folder.mkdir()
    items = listed([str(folder)], settings)
    ended = finish(run_batch(items, _prepare, settings.folder, Execution()))
    status = {one.item.image.name: one.status for one in ended}
    assert status == {
        "broken.tif": "failed", "cell0.ome.tif": "done", "cell1.ome.tif": "done",
        "dark.ome.tif": "failed",
    }  # fmt: skip
    rows = list(csv.DictReader((settings.folder / REPORT).read_text().splitlines()))
    assert [row["status"] for row in rows] == ["failed", "done", "done", "failed"]
    assert "cannot be read as TIFF" in rows[0]["error"]
    assert "all voxels of dark are 0" in rows[3]["error"]
    again = finish(run_batch(items, _prepare, settings.folder, Execution()))
    assert [one.status for one in again] == ["failed", "there before", "there before", "failed"]


def test_results_and_reports_are_not_taken_for_images(folder, tmp_path):
    settings = BatchSettings(folder=folder, method="rld")
    items = listed([str(folder)], settings)
    finish(run_batch(items, _prepare, folder, Execution()))
    assert [i.image.name for i in listed([str(folder)], settings)] == [i.image.name for i in items]
    table = folder / REPORT
    with pytest.raises(RlnError, match="would be overwritten"):
        listed([str(table)], settings)
