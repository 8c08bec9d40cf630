"""Work as text: the command line reads back what was written, and the Python computes the same."""

import dataclasses
import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from types import UnionType
from typing import Literal, Union, get_args, get_origin, get_type_hints

import numpy as np
import phantoms
import pytest
import tifffile
from test_cli_rln import TINY

import napari_rln as rln
from napari_rln import cli, samples
from napari_rln.cli import app, deconvolve_commands, train_command
from napari_rln.cli.script import command, job_command, job_python, python
from napari_rln.engine.execution import OutputFormat
from napari_rln.io.image import ImagePart
from napari_rln.io.volumes import read, write
from napari_rln.networks.network import NetworkOptions
from napari_rln.train import state as run
from napari_rln.train import validation
from napari_rln.train.training_settings import PRESETS

IMAGE, PSF, OUT = Path("my image.tif"), Path("psf.tif"), Path("out.ome.tif")
MODEL = Path("mine.safetensors")

VERBS = {
    "psf compute": (rln.psf.MicroscopeSettings, {"out": OUT}),
    "psf measure": (rln.psf.MeasureSettings, {"beads": IMAGE, "out": OUT}),
    "psf repair": (rln.psf.PrepareSettings, {"psf": PSF, "out": OUT}),
}
OTHER = {
    "modality": "light-sheet",  # the others of its kind ask for a second wavelength
    "beta": 0.02, "resolution_um": (0.3, 0.1, 0.1), "sample_index": 1.33, "excitation_um": 0.488,
    "size": (15, 21, 21), "max_size": (31, 31, 31), "saturation": 4095.0, "device": "cpu",
    "structures": ("dots", "coils"), "fwhm_um": (0.9, 0.3, 0.3), "background": 12.5,
    "density_jitter": (0.5, 1.5), "brightness": (10.0, 20.0), "photons": (30.0, 300.0),
    "read_noise": (1.0, 2.0), "steps": 50, "minutes": 0.5, "shape": (48, 64, 64),
    "start_iterations": 7, "voxel_um": (0.3, 0.2, 0.2), "channel": 1, "time": 2, "series": 3,
    "planes_are": "time", "crop": ((0, 8), (1, 20), (2, 30)), "gpus": "0,1",
    "scheduler": "tcp://10.0.0.5:8786",
}  # fmt: skip


def _other(settings, name):
    """Return another value than the default that a field may have."""
    value, hint = getattr(settings(), name), get_type_hints(settings)[name]
    if settings is rln.simulate.ImagingSettings and name == "background":
        return (0.1, 0.2)
    if name in OTHER:
        return OTHER[name]
    words = get_args(hint) if get_origin(hint) is Literal else ()
    if words:
        return next(word for word in words if word != value)
    if isinstance(value, bool):
        return not value
    kinds = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    if value == "auto":
        return {int: 33, float: 12.5}[kinds[0]]
    return value + 2 if isinstance(value, int) else value * 0.9 + 0.05


def _one_by_one(*classes):
    return [
        pytest.param(settings, field.name, id=f"{settings.__name__}-{field.name}")
        for settings in classes
        for field in dataclasses.fields(settings)
    ]


def _parsed(line):
    """Return what the command line makes of the words of a command, by its parameters' names."""
    name, *words = shlex.split(line)
    assert name == "napari-rln"
    _, bound, _ = app.parse_args(words, print_error=False, exit_on_error=False)
    bound.apply_defaults()
    return bound.arguments


def _settings(line):
    """Return the settings that the command line makes of the words of a command."""
    parsed = _parsed(line)
    return parsed["settings"] if "settings" in parsed else parsed["options"].settings


@pytest.mark.parametrize("verb", VERBS)
def test_the_defaults_need_no_option(verb):
    settings, files = VERBS[verb]
    line = command(verb, **files, settings=settings())
    parsed = _parsed(line)
    assert _settings(line) == settings()
    assert {name: parsed[name] for name in files} == files
    assert command(verb, **files, settings=settings()) == command(verb, **files, settings=None)
    assert command(verb, **files).count("--") == len(files) - (verb not in ("psf compute",))


@pytest.mark.parametrize(
    ("verb", "name"),
    [(verb, f.name) for verb, (cls, _) in VERBS.items() for f in dataclasses.fields(cls)],
)
def test_every_setting_goes_through_the_command_line(verb, name):
    settings, files = VERBS[verb]
    changed = settings(**{name: _other(settings, name)})
    assert changed != settings()
    line = command(verb, **files, settings=changed)
    assert not line.startswith("#")
    assert _settings(line) == changed


def test_a_psf_for_an_image_names_the_optics_that_the_file_may_state_otherwise():
    line = command("psf compute", image=IMAGE, out=OUT)
    given = _parsed(line)["options"].of_channel(0)
    default = rln.psf.MicroscopeSettings()
    assert given == {
        name: getattr(default, name)
        for name in ("modality", "na", "immersion_index", "wavelength_um")
    }


def test_several_at_once_and_how_files_are_read():
    settings = rln.psf.PrepareSettings(max_size=(31, 31, 31), centre="file")
    line = command(
        "psf repair", psf=PSF, image=IMAGE, out=OUT, settings=settings, everything=True,
        voxel_um=(0.3, 0.1, 0.1), channel=1, time=0, psf_voxel_um=(0.1, 0.1, 0.1),
    )  # fmt: skip
    parsed = _parsed(line)
    assert parsed["settings"] == settings
    assert parsed["everything"]
    of_image, of_psf = parsed["image_options"], parsed["psf_options"]
    assert (of_image.voxel_um, of_image.channel, of_image.time) == ((0.3, 0.1, 0.1), 1, 0)
    assert of_psf.psf_voxel_um == (0.1, 0.1, 0.1)
    assert "'my image.tif'" in line
    assert "--max-size 31 31 31" in line


def test_a_file_that_looks_like_an_option_stays_a_file():
    line = command("psf repair", psf=Path("--psf.tif"), image=Path("-1.tif"), out=Path("-o.tif"))
    parsed = _parsed(line)
    assert parsed["image"] == Path("-1.tif")
    assert parsed["psf"] == Path("--psf.tif")
    assert parsed["out"] == Path("-o.tif")


def test_everything_of_a_repair_is_a_flag():
    assert _parsed(command("psf repair", psf=PSF, out=OUT, everything=True))["everything"]
    assert "--all" not in command("psf repair", psf=PSF, out=OUT, everything=False)


def test_what_the_command_does_not_know_or_lacks_is_an_error():
    with pytest.raises(TypeError, match="psf repair has no model, stages"):
        command("psf repair", psf=PSF, out=OUT, model="mine", stages=Path("stages"))
    with pytest.raises(TypeError, match="psf repair needs psf"):
        command("psf repair", image=IMAGE, out=OUT)


# Jobs


def _job(**changes):
    given = {
        "image": rln.ImageFile(path=str(IMAGE)),
        "psfs": (rln.PsfFile(file=rln.ImageFile(path=str(PSF))),),
        "output": rln.Output(path=OUT),
    }  # fmt: skip
    return rln.Job(**given | changes)


def _of_here_document(text):
    """Return the job that a shell would hand over."""
    first, *lines, last = text.split("\n")
    assert (first, last) == ("napari-rln run - <<'END'", "END")
    return rln.Job.from_json(json.loads("\n".join(lines)))


@pytest.fixture
def commanded(monkeypatch):
    """Return a function that returns the job that a command line would do."""
    jobs = []
    monkeypatch.setattr(deconvolve_commands, "do", lambda job, *_, **__: jobs.append(job))

    def job_of(*words):
        app([str(word) for word in words], result_action="return_value", exit_on_error=False)
        return jobs.pop()

    return job_of


@pytest.fixture
def pasted(monkeypatch):
    """Return a function that returns the job that Python would do."""
    jobs = []
    monkeypatch.setattr(rln, "run", jobs.append, raising=False)

    def job_of(text):
        _run(text)
        return jobs.pop()

    return job_of


def _option(name, value):
    """Return the words of an option; spans of voxels have their own."""
    option = f"--{name.replace('_', '-')}"
    if isinstance(value, bool):
        return [option if value else option.replace("--", "--no-")]
    if name == "crop":
        return [option, *(f"{start}:{stop}" for start, stop in value)]
    return [option, *value] if isinstance(value, tuple) else [option, value]


LINES = {
    "rld": ("rld", IMAGE, "--psf", PSF, "-o", OUT),
    "rln": ("rln", IMAGE, "--psf", PSF, "-o", OUT),
    "dual": ("dual", IMAGE, "b.tif", "--psf", PSF, "-o", OUT),
}


def _plain(verb):
    second = rln.SecondView(image=rln.ImageFile(path="b.tif"), psf=_job().psfs[0])
    return {
        "rld": _job(),
        "rln": _job(methods=(rln.Network(),)),
        "dual": _job(second=second),
    }[verb]


@pytest.mark.parametrize("verb", LINES)
def test_a_job_of_defaults_needs_no_option(verb, commanded, pasted):
    job = _plain(verb)
    assert commanded(*LINES[verb]) == job
    assert _of_here_document(job_command(job)) == job
    assert pasted(job_python(job)) == job


@pytest.mark.parametrize(
    ("verb", "settings", "name"),
    [
        pytest.param(verb, settings, field.name, id=f"{verb}-{settings.__name__}-{field.name}")
        for verb, kinds in {
            "rld": (rln.RichardsonLucy, ImagePart, rln.Execution, OutputFormat),
            "rln": (NetworkOptions,),
            "dual": (rln.views.DualSettings, rln.RichardsonLucy),
        }.items()
        for settings in kinds
        for field in dataclasses.fields(settings)
        # Of two views the seed is that of the registration.
        if (verb, settings, field.name) != ("dual", rln.RichardsonLucy, "seed")
    ],
)
def test_every_setting_of_a_job_is_an_option_and_is_copied(verb, settings, name, commanded, pasted):
    plain, changed = _plain(verb), settings(**{name: _other(settings, name)})
    assert changed != settings()
    parts = {
        rln.RichardsonLucy: lambda: {"methods": (changed,)},
        NetworkOptions: lambda: {"methods": (changed.of("universal"),)},
        ImagePart: lambda: {"image": changed.of(IMAGE)},
        rln.Execution: lambda: {"execution": changed},
        OutputFormat: lambda: {"output": changed.at(OUT)},
        rln.views.DualSettings: lambda: {
            "second": dataclasses.replace(plain.second, views=changed)
        },
    }[settings]()
    job = dataclasses.replace(plain, **parts)
    assert commanded(*LINES[verb], *_option(name, getattr(changed, name))) == job
    assert _of_here_document(job_command(job)) == job
    assert pasted(job_python(job)) == job


def test_several_at_once_and_how_the_files_of_a_job_are_read(commanded, pasted):
    words = (
        *LINES["rld"], "green.tif", "--iterations", 20, "--background", 100.5,
        "--resolution-um", 0.3, 0.2, 0.2, "--no-repair", "--dtype", "uint16",
        "--voxel-um", 0.3, 0.1, 0.1, "--channel", 1, "--time", 0, "--psf-voxel-um", 0.1, 0.1, 0.1,
        "--psf-channel", 2, "--psf-time", 3, "--psf-series", 4, "--psf-planes-are", "channel",
    )  # fmt: skip
    words = (*words[:4], *words[6:7], *words[4:6], *words[7:])  # the second PSF beside the first
    how = {"voxel_um": (0.1, 0.1, 0.1), "channel": 2, "time": 3, "series": 4,
           "planes_are": "channel"}  # fmt: skip
    job = rln.Job(
        image=rln.ImageFile(path=str(IMAGE), voxel_um=(0.3, 0.1, 0.1), channel=1, time=0),
        psfs=tuple(
            rln.PsfFile(file=rln.ImageFile(path=path, **how), repair=False)
            for path in (str(PSF), "green.tif")
        ),
        methods=(
            rln.RichardsonLucy(iterations=20, background=100.5, resolution_um=(0.3, 0.2, 0.2)),
        ),
        output=rln.Output(path=OUT, dtype="uint16"),
    )
    assert commanded(*words) == job
    assert _of_here_document(job_command(job)) == job
    assert pasted(job_python(job)) == job


def test_what_a_second_view_has_of_its_own(commanded, pasted):
    words = (
        *LINES["dual"], "--psf-b", "q.tif", "--registered", "moved.tif", "--channel", 1,
        "--channel-b", 0, "--voxel-um", 0.3, 0.1, 0.1, "--voxel-um-b", 0.4, 0.2, 0.2,
        "--psf-voxel-um", 0.2, 0.1, 0.1, "--psf-b-voxel-um", 0.5, 0.3, 0.3, "-m", "universal",
        "--precision", "float64", "--tile", 64,
    )  # fmt: skip
    job = rln.Job(
        image=rln.ImageFile(path=str(IMAGE), voxel_um=(0.3, 0.1, 0.1), channel=1),
        psfs=(rln.PsfFile(file=rln.ImageFile(path=str(PSF), voxel_um=(0.2, 0.1, 0.1))),),
        second=rln.SecondView(
            image=rln.ImageFile(path="b.tif", voxel_um=(0.4, 0.2, 0.2), channel=0),
            psf=rln.PsfFile(file=rln.ImageFile(path="q.tif", voxel_um=(0.5, 0.3, 0.3))),
            registered=Path("moved.tif"),
        ),
        methods=(rln.Network(precision="float64"),),
        output=rln.Output(path=OUT),
        execution=rln.Execution(tile=64),
    )
    assert commanded(*words) == job
    assert _of_here_document(job_command(job)) == job
    assert pasted(job_python(job)) == job


def test_a_model_by_name_or_file_and_no_psf(commanded, pasted):
    for model in ("bead-paper", str(MODEL)):
        job = _job(psfs=(), optics=rln.psf.GivenOptics(), methods=(rln.Network(model=model),))
        assert commanded("rln", IMAGE, "-o", OUT, "-m", model) == job
        assert _of_here_document(job_command(job)) == job
        assert pasted(job_python(job)) == job


@pytest.mark.skipif(sys.platform == "win32", reason="needs a shell")
def test_a_shell_hands_over_any_name_as_it_is(tmp_path):
    job = _job(image=rln.ImageFile(path='-1 $(date) `id` ${HOME} it\'s "x" \\n \N{SNOWMAN}\nEND\n'))
    told = tmp_path / "told.json"
    _shell(tmp_path, f"cat > {shlex.quote(str(told))}", job_command(job))
    assert rln.Job.load(told).image.path == str(tmp_path / job.image.path)


def _shell(folder, program, text):
    """Run lines by a shell to which ``napari-rln`` is a program in a folder."""
    (folder / "bin").mkdir(exist_ok=True)
    script = folder / "bin" / "napari-rln"
    script.write_text(f"#!/bin/sh\n{program}\n")
    script.chmod(0o755)
    env = os.environ | {
        "PATH": f"{script.parent}{os.pathsep}{os.environ['PATH']}",
        "XDG_CACHE_HOME": str(folder / "cache"), "OMP_WAIT_POLICY": "PASSIVE",
    }  # fmt: skip
    done = subprocess.run(["sh", "-c", text], env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.fixture
def volumes(tmp_path, monkeypatch):
    """Write a small image of one and of two channels, two PSFs and a model, and go there."""
    monkeypatch.chdir(tmp_path)
    psf = phantoms.gaussian_psf()
    images = [phantoms.noisy_image(phantoms.spots((16, 24, 24), seed=n), psf) for n in range(2)]
    write(images[0], IMAGE)
    write(images[1], "b.tif")
    z, y, x = phantoms.VOXEL_UM
    tifffile.imwrite(
        "two.ome.tif", np.stack([image.data for image in images]),
        metadata={"axes": "CZYX", "PhysicalSizeZ": z, "PhysicalSizeY": y, "PhysicalSizeX": x},
    )  # fmt: skip
    write(psf, PSF)
    write(phantoms.gaussian_psf(sigma=(1.4, 1.0, 1.0)), "red.tif")
    phantoms.small_model().save(MODEL)


KINDS = {
    "rld": ("rld", IMAGE, "--psf", PSF, "--iterations", 3, "--dtype", "uint16", "-o", OUT),
    "rln with a model": ("rln", IMAGE, "--psf", PSF, "-m", MODEL, "--background", 9, "-o", OUT),
    "two views": (
        "dual", IMAGE, "b.tif", "--psf", PSF, "--psf-b", "red.tif", "--transform", "none",
        "--iterations", 2, "--registered", "moved.tif", "-o", OUT,
    ),
    "in parts": (
        "rld", IMAGE, "--psf", PSF, "--iterations", 2, "--tile", 16, "--workers", 1,
        "-o", "out.ome.zarr",
    ),
    "channels": (
        "rld", "two.ome.tif", "--psf", PSF, "red.tif", "--iterations", 2, "-o", OUT,
    ),
}  # fmt: skip


@pytest.mark.skipif(sys.platform == "win32", reason="needs a shell")
@pytest.mark.usefixtures("volumes")
@pytest.mark.parametrize("kind", KINDS)
def test_a_copied_job_does_what_the_command_does(kind, tmp_path, monkeypatch):
    jobs, do = [], deconvolve_commands.do

    def watched(job, *given, **named):
        jobs.append(job)
        return do(job, *given, **named)

    monkeypatch.setattr(deconvolve_commands, "do", watched)

    def made():
        """Return what was written, and take it away."""
        (job,) = jobs
        out = job.output.path
        channels = [0, 1] if kind == "channels" else [None]
        results = [read(out, channel=channel) for channel in channels]
        data = [result.data for result in results]
        settings = [result.record and result.record.settings for result in results]
        (shutil.rmtree if out.is_dir() else Path.unlink)(out)
        Path(f"{out}.run.json").unlink(missing_ok=True)
        if job.second is not None:
            data.append(read(job.second.registered).data)
            job.second.registered.unlink()
        assert not [path for path in Path().iterdir() if path.name.startswith(("out", "moved"))]
        return data, settings

    assert cli.run([str(word) for word in KINDS[kind]]) == 0
    data, settings = made()
    assert settings[0] is not None
    (job,) = jobs
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    program = f'exec {shlex.quote(sys.executable)} -m napari_rln "$@"'
    for run_it in (
        lambda: _run(job_python(job)), lambda: _shell(tmp_path, program, job_command(job)),
    ):  # fmt: skip
        run_it()
        again, their = made()
        assert their == settings
        for one, other in zip(data, again, strict=True):
            np.testing.assert_array_equal(one, other)


# Training


@pytest.fixture
def trained(monkeypatch):
    """Return a function that runs a train command up to the training and returns what it is of."""
    seen = {}
    monkeypatch.setattr(train_command.PsfOptions, "fitted", lambda *_, **__: ("psf", ()))
    monkeypatch.setattr(train_command, "psfs_of_views", lambda psf, psf_b, dual: (psf, psf_b))
    monkeypatch.setattr(train_command, "training_set_of", lambda settings, **of: seen.update(of))

    def stop(setting, settings, **_):
        seen["settings"] = settings
        raise KeyboardInterrupt

    monkeypatch.setattr(train_command, "train_model_iter", stop)

    def run(line):
        seen.clear()
        words = shlex.split(line, comments=True)[1:]
        function, bound, _ = app.parse_args(words, print_error=False, exit_on_error=False)
        with pytest.raises(KeyboardInterrupt):
            function(*bound.args, **bound.kwargs)
        return seen

    return run


CARE, _ = rln.train.choose_settings("full", architecture="care")
OPTIONS = {
    "architecture", "steps", "minutes", "variant", "learning_rate", "start_beyond", "patch",
    "batch", "seed", "device", "views",
}  # fmt: skip


@pytest.mark.parametrize("name", [f.name for f in dataclasses.fields(rln.train.TrainSettings)])
def test_every_setting_of_a_training_is_an_option_or_said_not_to_be(trained, name):
    preset = "universal" if name == "refine" else "full"  # a refinement needs a ladder
    full = PRESETS[preset]
    value = "wiener-butterworth" if name == "start" else _other(rln.train.TrainSettings, name)
    if isinstance(value, bool):
        value = not getattr(full, name)
    changes = {name: value} | ({"normalisation": "photons"} if name == "refine" else {})
    changed = dataclasses.replace(full, **changes) if name != "architecture" else CARE
    line = command("train", psf=PSF, out=MODEL, preset=preset, settings=changed)
    if name in OPTIONS:
        assert not line.startswith("#")
        assert trained(line)["settings"] == changed
    else:
        note, line = line.split("\n")
        said = ", ".join(f"{field}={given!r}" for field, given in changes.items())
        assert note == f"# not an option of the command line: {said}"
        assert trained(line)["settings"] == full


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_is_said_by_its_name(trained, name):
    settings, begin = rln.train.choose_settings(name)
    line = command("train", psf=PSF, out=MODEL, preset=name, settings=settings)
    assert line == f"napari-rln train --out {MODEL} --psf {PSF} --preset {name}"
    seen = trained(line)
    assert seen["settings"] == settings
    assert (seen["initial_model"] and seen["initial_model"].hash) == (begin and begin.hash)


@pytest.mark.parametrize("name", ["universal", "paper"])
def test_minutes_take_the_place_of_a_presets_steps(trained, name):
    settings = dataclasses.replace(PRESETS[name], steps=None, minutes=PRESETS[name].minutes)
    line = command("train", any_psf=True, out=MODEL, preset=name, settings=settings)
    assert line.endswith("--minutes 5.0")
    assert trained(line)["settings"] == settings


@pytest.mark.parametrize(
    "given", [{}, {"variant": "paper"}, {"initial_model": "bead-paper"}, {"initial_model": "none"}]
)
def test_what_a_training_begins_with_is_said(trained, given):
    settings, begin = rln.train.choose_settings(
        None, given.get("variant"), given.get("initial_model")
    )
    seen = trained(command("train", psf=PSF, out=MODEL, settings=settings, **given))
    assert seen["settings"] == settings
    assert (seen["initial_model"] and seen["initial_model"].hash) == (begin and begin.hash)


@pytest.mark.parametrize(
    ("cls", "name"), _one_by_one(rln.simulate.StructureSettings, rln.simulate.ImagingSettings)
)
def test_what_is_imagined_goes_through_the_command_line(trained, cls, name):
    changed = cls(**{name: _other(cls, name)})
    key = "structures" if cls is rln.simulate.StructureSettings else "imaging"
    line = command("train", psf=PSF, out=MODEL, **{key: changed})
    assert trained(line)[key] == changed


# Python


@pytest.fixture
def bead(tmp_path, monkeypatch):
    """Write the shipped bead and its PSF into a folder and go there."""
    monkeypatch.chdir(tmp_path)
    write(samples.bead(), "my image.tif")
    write(samples.bead_psf(), "psf.tif")


def _run(text):
    names = {}
    exec(compile(text, "script", "exec"), names)
    return names


@pytest.mark.usefixtures("bead")
@pytest.mark.parametrize("repair", [True, False])
def test_the_python_of_rld_computes_what_the_command_does(repair):
    method = rln.RichardsonLucy(iterations=3, background=200.0)
    psf = rln.PsfFile(file=rln.ImageFile(path=str(PSF)), repair=repair)
    job = _job(psfs=(psf,), methods=(method,))
    _run(job_python(job))
    image = samples.bead()
    fitted, _ = rln.psf.fit_psf(samples.bead_psf(), image, repair=repair)
    assert read(OUT).hash == rln.deconvolve(image, fitted, method).hash
    OUT.unlink()
    words = [*LINES["rld"], "--iterations", 3, "--background", 200, "--dtype", "uint16"]
    words += [] if repair else ["--no-repair"]
    with pytest.warns(rln.RlnWarning, match="PSF warning"):
        app([str(word) for word in words], result_action="return_value")


@pytest.mark.usefixtures("bead")
def test_the_python_of_rln_computes_the_same():
    method = rln.Network(model="bead-paper", background=200.0)
    output = rln.Output(path=OUT, dtype="uint16")
    _run(job_python(_job(psfs=(), methods=(method,), output=output)))
    expected = rln.deconvolve(samples.bead(), method=method)
    np.testing.assert_array_equal(read(OUT).data, expected.data.round().clip(0))


@pytest.mark.usefixtures("bead")
def test_the_python_of_psf_computes_the_same():
    optics = rln.psf.MicroscopeSettings(modality="gaussian", size=(15, 21, 21))
    own = (0.2, 0.1, 0.1)
    for where, voxel_um in (({"image": IMAGE}, samples.NOMINAL_VOXEL_UM), ({"voxel_um": own}, own)):
        _run(python("psf compute", **where, out=OUT, settings=optics))
        assert read(OUT).hash == rln.psf.compute_psf(optics, voxel_um, planes=64).hash
        assert read(OUT).voxel_um == pytest.approx(voxel_um)

    _run(python("psf repair", psf=PSF, out=OUT))
    psf = samples.bead_psf()
    assert read(OUT).hash == rln.psf.repair_psf(psf, rln.psf.examine_psf(psf)).hash
    settings = rln.psf.PrepareSettings(max_size=(31, 31, 31))
    _run(python("psf repair", psf=PSF, image=IMAGE, out=OUT, settings=settings))
    assert read(OUT).hash == rln.psf.prepare_psf(psf, settings).hash
    _run(python("psf repair", psf=PSF, out=OUT, everything=True))
    assert read(OUT).hash == rln.psf.prepare_psf(psf).hash


def test_the_python_of_psf_measure_computes_the_same(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    beads = np.zeros((24, 48, 48), np.float32)
    beads[8:17, 20:29, 20:29] = 5000 * phantoms.gaussian_psf().data
    stack = np.random.default_rng(0).poisson(beads + 10)
    write(rln.Volume.from_array(stack, phantoms.VOXEL_UM), IMAGE)
    settings = rln.psf.MeasureSettings(size=(9, 9, 9))
    _run(python("psf measure", beads=IMAGE, out=OUT, settings=settings))
    assert read(OUT).hash == rln.psf.measure_psf(read(IMAGE), settings).hash


@pytest.mark.usefixtures("bead")
def test_the_python_of_a_training_trains_the_same(monkeypatch):
    monkeypatch.setattr(run, "_STATISTICS", 1)
    monkeypatch.setattr(validation, "_ITERATIONS", (2, 4))
    structures = rln.simulate.StructureSettings(structures=("dots",))
    given = {
        "psf": PSF,
        "like": IMAGE,
        "initial_model": "none",
        "settings": TINY,
        "structures": structures,
    }
    _run(python("train", out=MODEL, **given))
    psf, _ = rln.psf.fit_psf(samples.bead_psf(), samples.bead())
    setting = rln.train.training_set_of(TINY, psf=psf, like=samples.bead(), structures=structures)
    model = rln.load_model(MODEL)
    assert model.name == "mine"
    assert model.hash == rln.train.train_model(setting, TINY).hash


def test_the_python_of_other_trainings_says_what_they_are_of():
    text = python("train", pairs=Path("pairs"), out=MODEL, voxel_um=(0.3, 0.1, 0.1), preset="quick")
    assert text.startswith("from pathlib import Path\n\nimport napari_rln as rln\n")
    assert (
        "pairs=Path('pairs'), pairs_voxel_um=(0.3, 0.1, 0.1), "
        "initial_model=rln.load_model('universal')" in text
    )
    settings = dataclasses.replace(PRESETS["full"], variant="paper")
    text = python("train", any_psf=True, out=MODEL, preset="full", settings=settings)
    assert "setting = rln.train.training_set_of(settings, any_psf=True)\n" in text
    compile(text, "script", "exec")
