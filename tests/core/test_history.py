"""How long earlier runs took: kept, and no loss where it cannot be."""

import json

import phantoms
import pytest
import torch

from napari_rln.core.device import resolve_device
from napari_rln.core.generators import finish
from napari_rln.core.report import duration
from napari_rln.core.volume import Volume
from napari_rln.deconvolution.classical import RichardsonLucy
from napari_rln.engine import history
from napari_rln.engine.execution import Output
from napari_rln.engine.forecast import forecast
from napari_rln.engine.history import expected_seconds, remember
from napari_rln.engine.in_memory import deconvolve
from napari_rln.engine.in_parts import run_task_iter
from napari_rln.engine.job import Job, PsfFile
from napari_rln.engine.run import forecast_of_job
from napari_rln.engine.task import Task
from napari_rln.io.image import ImageFile
from napari_rln.io.volumes import read, write
from napari_rln.networks.network import Network

METHOD = RichardsonLucy()


@pytest.fixture(autouse=True)
def path(tmp_path, monkeypatch):
    """Return where runs are kept, in a folder that is not there yet."""
    found = tmp_path / "cache" / "seconds.json"
    monkeypatch.setattr(history, "_path", lambda: found)
    return found


def _ran(*seconds, device="cpu", voxels=100):
    for taken in seconds:
        remember(METHOD, device, voxels, {"seconds": taken})


def test_it_is_the_middle_of_earlier_runs_by_their_voxels():
    assert expected_seconds(METHOD, "cpu", 100) is None
    _ran(2.0)
    assert expected_seconds(METHOD, "cpu", 300) == pytest.approx(6.0)
    _ran(3.0, 500.0)  # the machine was busy
    assert expected_seconds(METHOD, "cpu", 100) == pytest.approx(3.0)
    _ran(8.0, voxels=200)
    assert expected_seconds(METHOD, "cpu", 100) == pytest.approx(3.5)


def test_methods_and_devices_have_their_own():
    _ran(2.0)
    assert expected_seconds(METHOD, "cuda", 100) is None
    assert expected_seconds(Network(), "cpu", 100) is None
    _ran(0.5, device="cuda")
    assert expected_seconds(METHOD, "cuda", 100) == pytest.approx(0.5)
    assert expected_seconds(METHOD, "cpu", 100) == pytest.approx(2.0)


def test_what_is_long_past_is_forgotten(path):
    _ran(*[1000.0] * 9, *[1.0] * 5)
    assert expected_seconds(METHOD, "cpu", 100) == pytest.approx(1.0)
    assert json.loads(path.read_text()) == {"rld auto cpu": [0.01] * 5}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[1]",
        b"null",
        b'{"rld auto cpu": 5}',
        b'{"rld auto cpu": ["a"]}',
        b"\xff\xfe\x00",
    ],
)
def test_a_damaged_file_is_as_none_and_is_replaced(path, content):
    path.parent.mkdir()
    path.write_bytes(content)
    assert expected_seconds(METHOD, "cpu", 100) is None
    _ran(2.0)
    assert expected_seconds(METHOD, "cpu", 100) == pytest.approx(2.0)


def test_a_folder_that_cannot_be_written_is_no_error(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setattr(history, "_path", lambda: tmp_path / "file" / "seconds.json")
    _ran(2.0)
    assert expected_seconds(METHOD, "cpu", 100) is None
    (tmp_path / "taken").mkdir()
    monkeypatch.setattr(history, "_path", lambda: tmp_path / "taken")  # a folder of that name
    _ran(2.0)
    assert expected_seconds(METHOD, "cpu", 100) is None


@pytest.fixture
def file(tmp_path):
    image = Volume.from_array(phantoms.spots((8, 20, 20)) + 10, phantoms.VOXEL_UM)
    write(image, tmp_path / "image.ome.tif")
    return ImageFile(path=str(tmp_path / "image.ome.tif"))


def test_a_run_is_kept_and_the_next_is_foretold_by_it(file, tmp_path):
    task = Task(
        image=file,
        psf=phantoms.gaussian_psf(),
        method=RichardsonLucy(iterations=2),
        output=Output(path=tmp_path / "r.ome.tif"),
    )
    ahead = forecast(task)
    assert ahead.seconds is None
    assert "time" not in dict(ahead.rows())
    summary = finish(run_task_iter(task)).summary
    ahead = forecast(task)
    assert ahead.seconds == pytest.approx(summary["seconds"])
    expected = duration(ahead.seconds, approximate=True)
    assert dict(ahead.rows())["time"] == f"{expected}, by earlier runs"


def test_runs_in_memory_are_kept_too(file):
    image = read(file)
    deconvolve(image, phantoms.gaussian_psf(), RichardsonLucy(iterations=2))
    device, voxels = resolve_device().type, image.data.size
    assert expected_seconds(RichardsonLucy(iterations=2), device, voxels) > 0
    assert expected_seconds(RichardsonLucy(iterations=200), device, voxels) is None  # takes longer


def test_a_job_in_memory_is_foretold_by_runs_on_its_device(file, tmp_path, monkeypatch):
    write(phantoms.gaussian_psf(), tmp_path / "psf.ome.tif")
    psf = PsfFile(file=ImageFile(path=str(tmp_path / "psf.ome.tif")), repair=False)
    job = Job(image=file, psfs=(psf,), output=Output(path=tmp_path / "r.tif"))
    _ran(20.0, voxels=8 * 20 * 20)
    monkeypatch.setattr("napari_rln.engine.run.resolve_device", lambda name: torch.device("cuda"))
    (rows,) = forecast_of_job(job).values()
    assert "time" not in dict(rows)
    _ran(40.0, device="cuda", voxels=8 * 20 * 20)
    (rows,) = forecast_of_job(job).values()
    assert dict(rows)["time"] == "about 40 s, by earlier runs"
