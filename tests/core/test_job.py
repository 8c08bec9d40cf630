"""Jobs as documents: what is written is what is read, and what cannot be is said."""

import json
from dataclasses import replace
from pathlib import Path

import phantoms
import pytest

from napari_rln.core.errors import RlnError
from napari_rln.deconvolution.classical import RichardsonLucy
from napari_rln.deconvolution.views import DualSettings
from napari_rln.engine.execution import Execution, Output
from napari_rln.engine.job import VERSION, Job, PsfFile, SecondView
from napari_rln.io.image import ImageFile
from napari_rln.networks.network import Network


@pytest.fixture
def job(tmp_path):
    """Return a job in which all is other than by default."""
    phantoms.small_model().save(tmp_path / "mine.safetensors")
    image = ImageFile(
        path=str(tmp_path / "image.ome.tif"), voxel_um=(0.3, 0.1, 0.1), channel=1, time=2, series=3,
        planes_are="z", missing="mask", crop=((0, 8), (4, 40), (5, 50)),
    )  # fmt: skip
    psf = PsfFile(file=ImageFile(path=str(tmp_path / "psf.tif"), channel=1), repair=False)
    return Job(
        image=image,
        psfs=(psf, PsfFile(file=ImageFile(path=str(tmp_path / "red.tif")))),
        second=SecondView(
            image=replace(image, path=str(tmp_path / "b.ome.tif")),
            psf=psf,
            views=DualSettings(rotation="x+90", transform="rigid", background_b=7.0, gain_b=2.0),
            registered=tmp_path / "registered.ome.tif",
        ),
        methods=(
            RichardsonLucy(iterations=7, background=100.0, tv=0.01, resolution_um=(0.5, 0.2, 0.2)),
            RichardsonLucy(back_projector="wiener-butterworth", beta=0.1, device="cpu"),
            Network(model="bead-paper", precision="float64"),
            Network(model=tmp_path / "mine.safetensors", grid="resample"),
        ),
        output=Output(path=tmp_path / "r.ome.zarr", dtype="uint16", ome_zarr="0.4", overwrite=True),
        execution=Execution(memory_gb=3.5, tile=96, workers=2, gpus="0,1"),
    )


def _fields(**changes):
    return {
        "napari-rln job": VERSION, "image": {"path": "a.tif"}, "output": {"path": "r.tif"},
    } | changes  # fmt: skip


def test_a_job_comes_back_as_it_was(job, tmp_path):
    job.save(tmp_path / "job.json")
    assert Job.load(tmp_path / "job.json") == job
    assert Job.from_json(json.loads(json.dumps(job.as_json()))) == job
    remote = replace(job, second=None, execution=Execution(scheduler="tcp://10.0.0.5:8786"))
    assert Job.from_json(json.loads(json.dumps(remote.as_json()))) == remote


def test_what_is_left_out_is_as_by_default():
    assert Job.from_json(_fields()) == Job(
        image=ImageFile(path="a.tif"), output=Output(path=Path("r.tif"))
    )


def test_relative_names_are_meant_from_where_the_job_lies(tmp_path):
    phantoms.small_model().save(tmp_path / "mine.safetensors")
    fields = _fields(
        psfs=[{"file": {"path": "psfs/p.tif"}}],
        methods=[{"kind": "rln", "model": "mine.safetensors"}, {"kind": "rln"}],
        second={"image": {"path": "b.tif"}, "psf": {"file": {"path": "/elsewhere/q.tif"}},
                "registered": "moved.tif"},
    )  # fmt: skip
    (tmp_path / "job.json").write_text(json.dumps(fields))
    job = Job.load(tmp_path / "job.json")
    assert job.files == [
        tmp_path / "a.tif", tmp_path / "b.tif", tmp_path / "psfs" / "p.tif",
        Path("/elsewhere/q.tif"),
    ]  # fmt: skip
    assert job.output.path == tmp_path / "r.tif"
    assert job.second.registered == tmp_path / "moved.tif"
    assert [method.model for method in job.methods] == [tmp_path / "mine.safetensors", "universal"]
    assert job.methods[0].loaded.name == "started"


def test_a_job_saved_in_another_folder_is_loaded_with_the_same_files(tmp_path, monkeypatch):
    for name in ("here/jobs", "elsewhere"):
        (tmp_path / name).mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "here")
    for name in ("mine.safetensors", "jobs/own.safetensors"):
        phantoms.small_model().save(name)
    psf = PsfFile(file=ImageFile(path="psfs/p.tif"))
    job = Job(
        image=ImageFile(path="../a.tif"),
        psfs=(psf, PsfFile(file=ImageFile(path="/psfs/q.tif"))),
        second=SecondView(image=ImageFile(path="jobs/b.tif"), psf=psf, registered=Path("m.tif")),
        methods=tuple(
            Network(model=name)
            for name in ("mine.safetensors", Path("jobs/own.safetensors"), "universal")
        ),
        output=Output(path=Path("jobs/r.tif")),
    )
    job.save("jobs/job.json")
    assert json.loads(Path("jobs/job.json").read_text())["output"]["path"] == "r.tif"
    monkeypatch.chdir(tmp_path / "elsewhere")
    here = tmp_path / "here"
    for path in (Path("../here/jobs/job.json"), here / "jobs" / "job.json"):
        loaded = Job.load(path)
        files = [*loaded.files, loaded.output.path, loaded.second.registered]
        assert [file.resolve() for file in files] == [
            tmp_path / "a.tif", here / "jobs" / "b.tif", here / "psfs" / "p.tif",
            Path("/psfs/q.tif"), here / "psfs" / "p.tif", here / "jobs" / "r.tif", here / "m.tif",
        ]  # fmt: skip
        models = [Path(method.model).resolve() for method in loaded.methods[:2]]
        assert models == [here / "mine.safetensors", here / "jobs" / "own.safetensors"]
        assert loaded.methods[2].model == "universal"
        loaded.save(tmp_path / "again.json")
        assert Job.load(tmp_path / "again.json").files[1].resolve() == here / "jobs" / "b.tif"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ([1, 2], '"napari-rln job": 1'),
        ({"image": {"path": "a.tif"}}, "napari-rln job"),
        (_fields(**{"napari-rln job": "1"}), "napari-rln job"),
        (
            _fields(**{"napari-rln job": VERSION + 1}),
            f"version {VERSION + 1} .* {VERSION}; update the program",
        ),
        (_fields(psf="p.tif"), r"a job has no psf; it may have execution, image, methods"),
        (_fields(image={"path": "a.tif", "colour": 1}), "ImageFile has no setting colour"),
        (_fields(output={"path": "r.tif", "type": "uint8"}), "Output has no setting type"),
        (_fields(execution={"memory": 2}), "Execution has no setting memory"),
        (_fields(methods=[{"kind": "rld", "steps": 2}]), "RichardsonLucy has no setting steps"),
        (_fields(methods=[{"kind": "rln", "steps": 2}]), "Network has no setting steps"),
        (_fields(methods=[{"kind": "deep"}]), "`kind` is 'deep'; give rld, wiener, rln"),
        (_fields(methods=[{}]), "`kind` is None"),
        (_fields(methods=[]), "`methods` is empty; name at least one for a.tif"),
        (_fields(methods=[{"kind": "rld"}] * 2), "`methods` has number 1 twice; leave one out"),
        (_fields(methods=[{"kind": "rld", "iterations": 0}]), "`iterations` is 0 but must"),
        (_fields(output={"path": "r.tif", "dtype": "int8"}), "`dtype` is 'int8'; give float32"),
        (_fields(image="a.tif"), "the job cannot be read"),
        (_fields(psfs=[{"path": "p.tif"}]), "the job cannot be read .KeyError.'file'"),
        ({"napari-rln job": 1, "image": {"path": "a.tif"}}, "the job cannot be read .KeyError"),
    ],
)
def test_what_is_no_job_is_said(tmp_path, monkeypatch, fields, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RlnError, match=message):
        Job.from_json(fields)
    Path("job.json").write_text(json.dumps(fields))
    with pytest.raises(RlnError, match=rf"job\.json: .*{message}"):
        Job.load("job.json")


@pytest.mark.parametrize("content", [b"", b"{", b"image: a.tif", b"\xff\xfe"])
def test_a_file_that_is_no_json_is_said_by_its_name(tmp_path, content):
    (tmp_path / "job.json").write_bytes(content)
    for name in ("job.json", "absent.json"):
        with pytest.raises(RlnError, match=rf"{name} cannot be read as a job"):
            Job.load(tmp_path / name)


def test_a_model_that_lies_in_no_file_cannot_be_written(tmp_path):
    job = Job(
        image=ImageFile(path="a.tif"),
        methods=(Network(model=phantoms.small_model()),),
        output=Output(path=Path("r.tif")),
    )
    with pytest.raises(RlnError, match=r"model started .*save"):
        job.save(tmp_path / "job.json")
    assert list(tmp_path.iterdir()) == []


def test_results_of_several_methods_are_named_after_them(job):
    names = [job.output_of(method).path.name for method in job.methods]
    assert names == [
        "r-rld.ome.zarr", "r-wb.ome.zarr", "r-rln-bead-paper.ome.zarr", "r-rln-started.ome.zarr",
    ]  # fmt: skip
    assert job.output_of(job.methods[0]) == replace(
        job.output, path=job.output.path.with_name("r-rld.ome.zarr")
    )
    alike = replace(job, methods=[RichardsonLucy(iterations=n) for n in (5, 6, 7)])
    assert [alike.output_of(method).path.name for method in alike.methods] == [
        "r-rld.ome.zarr", "r-rld-2.ome.zarr", "r-rld-3.ome.zarr",
    ]  # fmt: skip
    alone = replace(job, methods=job.methods[:1])
    assert alone.output_of(alone.methods[0]) == job.output
