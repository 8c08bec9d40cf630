"""Batches: what is found, what belongs to it, and that one failure does not stop the others."""

import csv
from pathlib import Path

import numpy as np
import phantoms
import pytest
import tifffile

from napari_rln.core.errors import RlnError
from napari_rln.core.generators import finish
from napari_rln.core.volume import Volume
from napari_rln.deconvolution.classical import RichardsonLucy
from napari_rln.engine.batch import REPORT, BatchSettings, list_jobs, run_batch_iter
from napari_rln.engine.execution import Execution, Output
from napari_rln.engine.job import Job, PsfFile
from napari_rln.engine.task import Task
from napari_rln.io.image import ImageFile
from napari_rln.io.volumes import write
from napari_rln.networks.network import Network

TWO = RichardsonLucy(iterations=2)


@pytest.fixture
def folder(tmp_path):
    """Return a folder with two images and what is none."""
    place = tmp_path / "in"
    place.mkdir()
    for n in range(2):
        image = Volume.from_array(phantoms.spots((8, 20, 20), seed=n) + 10, phantoms.VOXEL_UM)
        write(image, place / f"cell{n}.ome.tif")
    (place / "notes.txt").write_text("nothing")
    return place


def _template(folder, *, psfs=(), method=TWO, voxel_um=None, **more):
    job = Job(
        image=ImageFile(path=".", voxel_um=voxel_um),
        psfs=tuple(PsfFile(file=ImageFile(path=str(path))) for path in psfs),
        methods=(method,),
        output=Output(path=folder),
    )
    return BatchSettings(job=job, mark=method.kind, **more)


def _prepare(item):
    (method,) = item.job.methods
    return Task(
        image=item.job.image, psf=phantoms.gaussian_psf(), method=method, output=item.job.output
    )


def _names(items):
    return [Path(item.job.image.path).name for item in items]


def test_folders_patterns_and_files_are_found(folder, tmp_path):
    names = ["cell0-rld.ome.tif", "cell1-rld.ome.tif"]
    assert [i.out.name for i in list_jobs([str(folder)], _template(tmp_path / "out"))] == names
    pattern = str(folder / "*.tif")
    assert [i.out.name for i in list_jobs([pattern], _template(tmp_path / "out"))] == names
    one = list_jobs([str(folder / "cell1.ome.tif")], _template(tmp_path / "out", ending="ome.zarr"))
    assert [i.out.name for i in one] == ["cell1-rld.ome.zarr"]


def test_nothing_found_and_names_that_clash_are_said(folder, tmp_path):
    with pytest.raises(RlnError, match="there are no images"):
        list_jobs([str(folder / "*.nothing")], _template(tmp_path / "out"))
    with pytest.raises(RlnError, match="rename one"):
        list_jobs([str(folder), str(folder / "cell0.ome.tif")], _template(tmp_path / "out"))


def test_a_table_says_what_belongs_to_each(folder, tmp_path):
    table = folder / "jobs.csv"
    table.write_text(
        "\ufeffimage,psf,model,time,voxel_um,out\n"
        "cell0.ome.tif,a.tif,one,0,0.3 0.1 0.1,first.ome.zarr\n"
        "cell1.ome.tif,,,,,\n"
    )
    given = _template(
        tmp_path / "out", psfs=[folder / "common.tif"], method=Network(), voxel_um=(1.0, 1.0, 1.0)
    )
    first, second = list_jobs([str(table)], given)
    assert _chosen(first) == (folder / "a.tif", "one", 0, (0.3, 0.1, 0.1))
    assert first.out == tmp_path / "out" / "first.ome.zarr"
    assert _chosen(second) == (folder / "common.tif", "universal", None, (1.0, 1.0, 1.0))
    assert second.out.name == "cell1-rln.ome.tif"


def _chosen(item):
    (psf,), (network,), image = item.job.psfs, item.job.methods, item.job.image
    return Path(psf.file.path), network.model, image.time, image.voxel_um


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file\na.tif\n", "its columns may be"),
        ("image,colour\na.tif,red\n", "has colour"),
        ("image,channel\na.tif,first\n", "line 2"),
        ("image,voxel_um\na.tif,1 2\n", "1 2"),
        ("", "its columns may be"),
        ("image,psf\na.tif,b.tif,c.tif\n", "more cells"),
        ("image,psf\n,b.tif\n", "names no image"),
    ],
)
def test_tables_that_cannot_be_used(tmp_path, text, message):
    (tmp_path / "jobs.csv").write_text(text)
    with pytest.raises(RlnError, match=message):
        list_jobs([str(tmp_path / "jobs.csv")], _template(tmp_path / "out"))


def test_every_channel_has_its_own_psf(tmp_path):
    both = np.stack([phantoms.spots((8, 20, 20)) + 10] * 2, axis=1)
    tifffile.imwrite(tmp_path / "two.ome.tif", both, metadata={"axes": "ZCYX"})
    given = _template(tmp_path / "out", psfs=[tmp_path / "green.tif", tmp_path / "red.tif"])
    items = list_jobs([str(tmp_path / "two.ome.tif")], given)
    assert [
        (i.job.image.channel, Path(i.job.psfs[0].file.path).name, i.out.name) for i in items
    ] == [(0, "green.tif", "two-c0-rld.ome.tif"), (1, "red.tif", "two-c1-rld.ome.tif")]
    three = _template(tmp_path / "out", psfs=[tmp_path / f"{n}.tif" for n in "abc"])
    assert (
        "2 channels but there are 3 PSFs"
        in list_jobs([str(tmp_path / "two.ome.tif")], three)[0].problem
    )


def test_one_failure_does_not_stop_the_others_and_a_second_start_does_nothing(folder, tmp_path):
    (folder / "broken.tif").write_text("nothing")
    dark = Volume.from_array(np.zeros((8, 20, 20)), phantoms.VOXEL_UM)
    write(dark, folder / "dark.ome.tif")
    template = _template(tmp_path / "out")
    template.folder.mkdir()
    items = list_jobs([str(folder)], template)
    ended = finish(run_batch_iter(items, template.folder, Execution(), prepare=_prepare))
    names = _names(one.item for one in ended)
    assert dict(zip(names, [one.status for one in ended], strict=True)) == {
        "broken.tif": "failed", "cell0.ome.tif": "done", "cell1.ome.tif": "done",
        "dark.ome.tif": "failed",
    }  # fmt: skip
    rows = list(csv.DictReader((template.folder / REPORT).read_text().splitlines()))
    assert [row["status"] for row in rows] == ["failed", "done", "done", "failed"]
    assert "is not a TIFF file" in rows[0]["error"]
    assert "all voxels of dark are 0" in rows[3]["error"]
    again = finish(run_batch_iter(items, template.folder, Execution(), prepare=_prepare))
    assert [one.status for one in again] == [
        "failed",
        "already complete",
        "already complete",
        "failed",
    ]


def test_results_and_reports_are_not_taken_for_images(folder, tmp_path):
    template = _template(folder)
    items = list_jobs([str(folder)], template)
    finish(run_batch_iter(items, folder, Execution(), prepare=_prepare))
    assert _names(list_jobs([str(folder)], template)) == _names(items)
    table = folder / REPORT
    with pytest.raises(RlnError, match="would be overwritten"):
        list_jobs([str(table)], template)
