"""``napari-rln run``: jobs in files, several methods at once, and what is wrong with a job."""

import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import phantoms
import pytest

from napari_rln import cli
from napari_rln.core.errors import RlnError
from napari_rln.deconvolution.classical import RichardsonLucy
from napari_rln.deconvolution.ladder import COUNTS
from napari_rln.deconvolution.views import DualSettings
from napari_rln.engine.execution import Execution, Output
from napari_rln.engine.job import Job, PsfFile, SecondView
from napari_rln.engine.run import run
from napari_rln.io.image import ImageFile, open_image
from napari_rln.io.volumes import read, write, write_channels
from napari_rln.networks.network import Network
from napari_rln.networks.stages import STAGES

PSF = phantoms.gaussian_psf()


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Write two images, a PSF and a model into a folder, and go to another."""
    place = tmp_path / "data"
    place.mkdir()
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    for number, name in enumerate(("raw", "b")):
        truth = phantoms.spots((16, 24, 24), seed=number)
        write(phantoms.noisy_image(truth, PSF), place / f"{name}.tif")
    write(PSF, place / "psf.tif")
    phantoms.small_model(name="mine").save(place / "mine.safetensors")
    return place


def _job(folder, *methods, **changes):
    given = {
        "image": ImageFile(path=str(folder / "raw.tif")),
        "psfs": (PsfFile(file=ImageFile(path=str(folder / "psf.tif"))),),
        "methods": methods or (RichardsonLucy(iterations=3),),
        "output": Output(path=folder / "r.ome.tif"),
    }
    return Job(**given | changes)


def _fields(**changes):
    """Return a job of names that are meant from where it lies."""
    return {
        "napari-rln job": 1, "image": {"path": "raw.tif"}, "psfs": [{"file": {"path": "psf.tif"}}],
        "methods": [{"kind": "rld", "iterations": 3}], "output": {"path": "r.ome.tif"},
    } | changes  # fmt: skip


def _written(folder, fields):
    path = folder / "job.json"
    path.write_text(fields if isinstance(fields, str) else json.dumps(fields))
    return path


def _run(*tokens):
    return cli.run([str(token) for token in tokens])


def test_a_job_in_a_file_does_what_the_command_does(folder, capsys):
    assert _run("run", _written(folder, _fields()), "--json") == 0
    report = json.loads(capsys.readouterr().out)
    assert report["out"] == str(folder / "r.ome.tif")
    assert report["facts"]["iterations"] == 3
    words = ("--psf", folder / "psf.tif", "--iterations", 3, "-o", folder / "c.ome.tif")
    assert _run("rld", folder / "raw.tif", *words) == 0
    assert "3 iterations" in capsys.readouterr().out
    by_job, by_command = (read(folder / name) for name in ("r.ome.tif", "c.ome.tif"))
    np.testing.assert_array_equal(by_job.data, by_command.data)
    assert by_job.record.settings == by_command.record.settings
    assert by_job.record.inputs == by_command.record.inputs


def test_a_job_from_standard_input_is_of_the_folder_where_one_is(folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    monkeypatch.setattr("sys.stdin", io.StringIO(json.dumps(_fields())))
    assert _run("run", "-") == 0
    assert "r.ome.tif: 3 iterations" in capsys.readouterr().out
    expected = run(_job(folder, output=Output(path=folder / "p.ome.tif")))
    assert expected[0].out == folder / "p.ome.tif"
    np.testing.assert_array_equal(read("r.ome.tif").data, read(folder / "p.ome.tif").data)


def test_a_dry_run_says_what_every_method_would_take(folder, capsys):
    bright = PSF.with_data(3 * PSF.data)
    write(bright, folder / "psf.tif")
    methods = [{"kind": "rld"}, {"kind": "rln", "model": "mine.safetensors"}]
    path = _written(folder, _fields(methods=methods))
    before = sorted(folder.rglob("*"))
    assert _run("run", path, "--dry-run") == 0
    said = capsys.readouterr()
    assert said.out.count("16 x 24 x 24 voxels") == 2
    assert "PSF warning: The sum is 3" in said.err
    assert _run("run", path, "--dry-run", "--json") == 0
    results = json.loads(capsys.readouterr().out)["results"]
    assert [result["out"] for result in results] == [
        str(folder / "r-rld.ome.tif"), str(folder / "r-rln-mine.ome.tif"),
    ]  # fmt: skip
    assert all("GB" in result["plan"]["memory"] for result in results)
    in_parts = _fields(output={"path": "r.ome.zarr"})
    assert _run("run", _written(folder, in_parts), "--dry-run", "--json") == 0
    assert json.loads(capsys.readouterr().out)["out"] == str(folder / "r.ome.zarr")
    assert sorted(folder.rglob("*")) == before


def test_two_methods_make_two_results_named_after_them(folder, capsys):
    methods = [{"kind": "rld"}, {"kind": "rln", "model": "mine.safetensors"}]
    assert _run("run", _written(folder, _fields(methods=methods)), "--json") == 0
    results = json.loads(capsys.readouterr().out)["results"]
    outs = [folder / "r-rld.ome.tif", folder / "r-rln-mine.ome.tif"]
    assert [result["out"] for result in results] == [str(out) for out in outs]
    assert not (folder / "r.ome.tif").exists()
    assert results[0]["facts"]["camera"] == results[1]["facts"]["camera"]
    for method, out in zip((RichardsonLucy(), Network(model=folder / "mine.safetensors")), outs,
                           strict=True):  # fmt: skip
        (alone,) = run(_job(folder, method, output=Output(path=folder / "alone.ome.tif")))
        np.testing.assert_array_equal(read(out).data, read(alone.out).data)
        alone.out.unlink()


def test_a_method_goes_on_where_the_one_before_it_ended(folder):
    fewer, more = RichardsonLucy(iterations=3), RichardsonLucy(iterations=5)
    first, second = run(_job(folder, fewer, more))
    assert [each.out.name for each in (first, second)] == ["r-rld.ome.tif", "r-rld-2.ome.tif"]
    assert "shared_iterations" not in first.facts[0]
    assert second.facts[0]["shared_iterations"] == 3
    (alone,) = run(_job(folder, more))
    assert "shared_iterations" not in alone.facts[0]
    np.testing.assert_array_equal(read(second.out).data, read(alone.out).data)


def test_one_method_twice_is_refused(folder):
    with pytest.raises(RlnError, match="`methods` has number 1 twice"):
        _job(folder, RichardsonLucy(), RichardsonLucy())


def test_a_result_that_is_there_is_said_before_the_first_method_is_begun(folder, capsys):
    (folder / "r-rln-mine.ome.tif").write_bytes(b"mine")
    methods = [{"kind": "rld"}, {"kind": "rln", "model": "mine.safetensors"}]
    assert _run("run", _written(folder, _fields(methods=methods))) == cli.CANNOT_BE_USED
    assert "r-rln-mine.ome.tif already exists" in capsys.readouterr().err
    assert not (folder / "r-rld.ome.tif").exists()
    assert (folder / "r-rln-mine.ome.tif").read_bytes() == b"mine"


def _interrupted(folder, *methods, **changes):
    """Return a job of several methods of which only the first has been done, and its result."""
    job = _job(folder, *methods, **changes)
    done, *missing = run(job)
    for outcome in missing:
        outcome.out.unlink()
    return job, done


def test_an_interrupted_job_goes_on_with_what_is_missing(folder, capsys):
    methods = RichardsonLucy(iterations=3), Network(model=folder / "mine.safetensors")
    job, done = _interrupted(folder, *methods)
    before = done.out.stat().st_mtime_ns
    first, second = run(job)
    assert (first.computed, second.computed) == (False, True)
    assert done.out.stat().st_mtime_ns == before
    assert first.facts[0]["iterations"] == 3
    alone = run(_job(folder, methods[1], output=Output(path=folder / "alone.ome.tif")))
    np.testing.assert_array_equal(read(second.out).data, read(alone[0].out).data)
    job.save(folder / "job.json")
    assert _run("run", folder / "job.json", "--json") == 0
    results = json.loads(capsys.readouterr().out)["results"]
    assert [result["computed"] for result in results] == [False, False]


def test_a_result_of_another_job_is_no_result_of_this_one(folder):
    methods = RichardsonLucy(iterations=3), RichardsonLucy(iterations=4)
    job, _ = _interrupted(folder, *methods)
    others = [
        replace(job, methods=(RichardsonLucy(iterations=5), methods[1])),
        replace(job, output=replace(job.output, dtype="uint16")),
        replace(job, image=replace(job.image, crop=((0, 16), (0, 20), (0, 24)))),
        replace(job, psfs=(PsfFile(file=ImageFile(path=str(folder / "wide.tif"))),)),
    ]
    write(phantoms.gaussian_psf(sigma=(2.0, 1.2, 1.2)), folder / "wide.tif")
    for other in others:
        with pytest.raises(RlnError, match=r"r-rld\.ome\.tif"):
            run(other)
    write(PSF, job.output_of(methods[0]).path)  # no result
    with pytest.raises(RlnError, match=r"r-rld\.ome\.tif"):
        run(job)
    again = replace(job, output=replace(job.output, overwrite=True))
    assert all(each.computed for each in run(again))


def test_an_interrupted_job_of_two_channels_goes_on(folder):
    volumes = [read(folder / f"{name}.tif") for name in ("raw", "b")]
    write_channels(volumes, folder / "both.ome.tif")
    job, done = _interrupted(
        folder,
        RichardsonLucy(iterations=2),
        RichardsonLucy(iterations=3),
        image=ImageFile(path=str(folder / "both.ome.tif")),
        psfs=tuple(PsfFile(file=ImageFile(path=str(folder / "psf.tif"))) for _ in volumes),
    )
    first, second = run(job)
    assert (first.computed, second.computed) == (False, True)
    assert first.facts == done.facts
    write_channels(volumes[::-1], folder / "both.ome.tif")
    with pytest.raises(RlnError, match=r"r-rld\.ome\.tif"):
        run(job)


def test_a_job_opens_image_and_psf_once_to_decide_how_to_run(folder, monkeypatch):
    opened = []
    monkeypatch.setattr(
        "napari_rln.engine.run.open_image", lambda file: opened.append(file) or open_image(file)
    )
    run(_job(folder, RichardsonLucy(iterations=2), RichardsonLucy(iterations=3)))
    assert sorted(Path(file.path).name for file in opened) == ["psf.tif", "raw.tif"]


def test_sizes_of_a_psf_may_be_a_list(folder):
    job = _job(folder, RichardsonLucy(iterations=2))
    file = ImageFile(path=str(folder / "psf.tif"), voxel_um=[*PSF.voxel_um])
    [outcome] = run(replace(job, psfs=(PsfFile(file=file),)))
    assert outcome.computed


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ("{", "job.json cannot be read as a job"),
        ([], 'job.json: this is not a job: its JSON must contain "napari-rln job": 1'),
        (_fields(psf="psf.tif"), "job.json: a job has no psf; it may have"),
        (_fields(methods=[{"kind": "deep"}]), "\"kind\" is 'deep'; give rld"),
        (_fields(methods=[{"kind": "rld", "iterations": 0}]), '"iterations" is 0 but must'),
        (_fields(methods=[{"kind": "rld", "device": 3}]), '"device" is 3'),
        (_fields(methods=[{"kind": "rln", "model": "absent.safetensors"}]), "absent.safetensors"),
        (_fields(image={"path": "raw.tif", "channel": "1"}), "\"channel\" is '1'"),
        (_fields(image={"path": "raw.tif", "voxel_um": [1]}), '"voxel_um" is [1]'),
        (_fields(image={"path": "absent.tif"}), "there is no file"),
        (_fields(psfs=[]), "needs the PSF"),
        (_fields(psfs=[{"file": {"path": "absent.tif"}}]), "absent.tif"),
        (_fields(output={"path": "no/r.tif"}), "there is no folder"),
        (_fields(output={"path": "r.png"}), "r.png must end in .tif"),
        (_fields(output={"path": "raw.tif", "overwrite": True}), "would lie on or in"),
        (_fields(output={"path": "r.tif", "overwrite": "yes"}), "\"overwrite\" is 'yes'"),
        (_fields(execution={"workers": True}), '"workers" is True'),
    ],
)
def test_what_is_wrong_with_a_job_is_said(folder, capsys, fields, message):
    path = _written(folder, fields)
    before = sorted(folder.rglob("*"))
    assert _run("run", path) == cli.CANNOT_BE_USED
    said = capsys.readouterr().err
    assert said.startswith("Error: ")
    assert message in said
    assert "Traceback" not in said
    assert sorted(folder.rglob("*")) == before


def test_a_job_that_is_not_there_or_no_json_is_said(folder, monkeypatch, capsys):
    assert _run("run", folder / "absent.json") == cli.CANNOT_BE_USED
    assert "absent.json cannot be read as a job" in capsys.readouterr().err
    monkeypatch.setattr("sys.stdin", io.StringIO("raw.tif"))
    assert _run("run", "-") == cli.CANNOT_BE_USED
    assert "standard input is not JSON" in capsys.readouterr().err


def test_two_views_by_two_methods_are_registered_for_both_and_written_once(folder):
    registered = folder / "moved.ome.tif"
    second = SecondView(
        image=ImageFile(path=str(folder / "b.tif")), views=DualSettings(transform="none"),
        registered=registered,
    )  # fmt: skip
    job = _job(folder, RichardsonLucy(iterations=2), Network(), second=second)
    outcomes = run(job)
    assert [each.out.name for each in outcomes] == ["r-rld.ome.tif", "r-rln-universal.ome.tif"]
    assert registered.exists()
    # Where to stop is found by the first view alone, as it would be without the second.
    alone = run(_job(folder, Network(), output=Output(path=folder / "alone.ome.tif")))
    both, one = (each.facts[0]["stop"] for each in (outcomes[1], alone[0]))
    assert both == pytest.approx(max(COUNTS[0], one / 2**0.5), rel=0.02)
    assert [each.computed for each in run(job)] == [False, False]
    with pytest.raises(RlnError, match=r"moved\.ome\.tif"):
        run(replace(job, methods=(RichardsonLucy(iterations=4),)))
    with pytest.raises(RlnError, match=r"r-rld\.ome\.tif"):
        run(replace(job, second=replace(second, views=DualSettings(transform="translation"))))
    for execution, message in (
        (Execution(workers=1), "leave out `workers`"),
        (Execution(tile=16), "`tile`.*`model`"),
    ):
        more = replace(job, methods=(RichardsonLucy(iterations=4),), execution=execution)
        again = replace(more, output=replace(job.output, overwrite=True))
        with pytest.raises(RlnError, match=message):
            run(again)


def test_stages_are_of_a_whole_volume_of_one_channel(folder, capsys):
    words = ("rln", folder / "raw.tif", "--psf", folder / "psf.tif", "-m",
             folder / "mine.safetensors", "--stages", folder / "stages")  # fmt: skip
    assert _run(*words, "-o", folder / "r.ome.zarr") == cli.CANNOT_BE_USED
    assert "--stages" in capsys.readouterr().err
    assert _run(*words, "-o", folder / "raw.tif") == cli.CANNOT_BE_USED
    assert "would lie on or in" in capsys.readouterr().err
    assert not (folder / "stages").exists()
    assert _run(*words, "-o", folder / "r.tif") == 0
    names = {path.name for path in (folder / "stages").iterdir()}
    assert names == {f"{name}.ome.tif" for name in STAGES}
    assert _run(*words, "-o", folder / "q.tif") == cli.CANNOT_BE_USED
    assert "already exists" in capsys.readouterr().err
    assert not (folder / "q.tif").exists()
