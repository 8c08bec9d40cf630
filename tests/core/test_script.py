"""Runs as text: the command line reads back what was written, and the Python computes the same."""

import dataclasses
import shlex
from pathlib import Path
from typing import Literal, Union, get_args, get_origin, get_type_hints

import numpy as np
import phantoms
import pytest
from test_cli_rln import TINY

import napari_rln as rln
from napari_rln import samples
from napari_rln.cli import app, train_command
from napari_rln.cli.script import command, python
from napari_rln.io.volumes import read_volume, write_volume
from napari_rln.train import state as run
from napari_rln.train import validation
from napari_rln.train.training_settings import PRESETS

IMAGE, PSF, OUT = Path("my image.tif"), Path("psf.tif"), Path("out.ome.tif")
MODEL = Path("mine.safetensors")

VERBS = {
    "rld": (rln.RichardsonLucy, {"image": IMAGE, "psf": PSF, "out": OUT}),
    "rln": (rln.RlnSettings, {"image": IMAGE, "psf": PSF, "out": OUT}),
    "psf compute": (rln.psf.MicroscopeSettings, {"image": IMAGE, "out": OUT}),
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
    "start_iterations": 7,
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
    kinds = get_args(hint) if get_origin(hint) is Union else (hint,)
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


@pytest.mark.parametrize("verb", VERBS)
def test_the_defaults_need_no_option(verb):
    settings, files = VERBS[verb]
    parsed = _parsed(command(verb, **files, settings=settings()))
    assert parsed["settings"] == settings()
    given = {name: parsed[name] for name in files}
    if verb in ("rld", "rln"):  # they take one for each channel
        (given["psf"],) = given["psf"]
    assert given == files
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
    assert _parsed(line)["settings"] == changed


def test_several_at_once_and_how_files_are_read():
    settings = rln.RichardsonLucy(iterations=20, background=100.5, resolution_um=(0.3, 0.2, 0.2))
    how = {"voxel_um": (0.3, 0.1, 0.1), "channel": 1, "time": 0, "psf_voxel_um": (0.1, 0.1, 0.1)}
    line = command("rld", **VERBS["rld"][1], settings=settings, repair=False, dtype="uint16", **how)
    parsed = _parsed(line)
    assert parsed["settings"] == settings
    assert not parsed["repair"]
    assert parsed["dtype"] == "uint16"
    read = dataclasses.asdict(parsed["image_source"]) | dataclasses.asdict(parsed["psf_source"])
    assert {name: read[name] for name in how} == how
    assert "'my image.tif'" in line
    assert "--iterations 20 " in line
    assert line.endswith("--resolution-um 0.3 0.2 0.2")


def test_a_model_by_name_or_file_and_no_psf():
    files = {"image": IMAGE, "psf": None, "out": OUT}
    for model in ("bead-paper", MODEL):
        parsed = _parsed(command("rln", **files, model=model))
        assert parsed["model"] == str(model)
        assert parsed["psf"] is None
    assert "--model" not in command("rln", **files, model="universal")


def test_a_file_that_looks_like_an_option_stays_a_file():
    parsed = _parsed(
        command("rld", image=Path("-1.tif"), psf=Path("--psf.tif"), out=Path("-o.tif"))
    )
    assert parsed["image"] == Path("-1.tif")
    assert parsed["psf"] == [Path("--psf.tif")]
    assert parsed["out"] == Path("-o.tif")


def test_everything_of_a_repair_is_a_flag():
    assert _parsed(command("psf repair", psf=PSF, out=OUT, everything=True))["everything"]
    assert "--all" not in command("psf repair", psf=PSF, out=OUT, everything=False)


def test_what_the_command_does_not_know_or_lacks_is_an_error():
    with pytest.raises(TypeError, match="rld has no model, stages"):
        command("rld", **VERBS["rld"][1], model="mine", stages=Path("stages"))
    with pytest.raises(TypeError, match="rld needs psf"):
        command("rld", image=IMAGE, out=OUT)


# Training


@pytest.fixture
def trained(monkeypatch):
    """Return a function that runs a train command up to the training and returns what it is of."""
    seen = {}
    monkeypatch.setattr(train_command.PsfSource, "fitted", lambda *_, **__: ("psf", ()))
    monkeypatch.setattr(train_command, "psfs_of_views", lambda psf, psf_b, dual: (psf, psf_b))
    monkeypatch.setattr(train_command, "setting_of", lambda settings, **of: seen.update(of))

    def stop(setting, settings, **_):
        seen["settings"] = settings
        raise KeyboardInterrupt

    monkeypatch.setattr(train_command, "train_steps", stop)

    def run(line):
        seen.clear()
        words = shlex.split(line, comments=True)[1:]
        function, bound, _ = app.parse_args(words, print_error=False, exit_on_error=False)
        with pytest.raises(KeyboardInterrupt):
            function(*bound.args, **bound.kwargs)
        return seen

    return run


OPTIONS = {
    "steps", "minutes", "variant", "learning_rate", "start_beyond", "patch", "batch", "seed",
    "device", "views",
}  # fmt: skip


@pytest.mark.parametrize("name", [f.name for f in dataclasses.fields(rln.train.TrainSettings)])
def test_every_setting_of_a_training_is_an_option_or_said_not_to_be(trained, name):
    full = PRESETS["full"]
    value = "wiener-butterworth" if name == "start" else _other(rln.train.TrainSettings, name)
    changed = dataclasses.replace(full, **{name: value})
    line = command("train", psf=PSF, out=MODEL, preset="full", settings=changed)
    if name in OPTIONS:
        assert not line.startswith("#")
        assert trained(line)["settings"] == changed
    else:
        note, line = line.split("\n")
        assert note == f"# not an option of the command line: {name}={value!r}"
        assert trained(line)["settings"] == full


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_is_said_by_its_name(trained, name):
    settings, begin = rln.train.choose_settings(name)
    line = command("train", psf=PSF, out=MODEL, preset=name, settings=settings)
    assert line == f"napari-rln train --out {MODEL} --psf {PSF} --preset {name}"
    seen = trained(line)
    assert seen["settings"] == settings
    assert (seen["begin"] and seen["begin"].hash) == (begin and begin.hash)


@pytest.mark.parametrize("name", ["universal", "paper"])
def test_minutes_take_the_place_of_a_presets_steps(trained, name):
    settings = dataclasses.replace(PRESETS[name], steps=None, minutes=PRESETS[name].minutes)
    line = command("train", any_psf=True, out=MODEL, preset=name, settings=settings)
    assert line.endswith("--minutes 5.0")
    assert trained(line)["settings"] == settings


@pytest.mark.parametrize(
    "given", [{}, {"variant": "paper"}, {"begin": "bead-paper"}, {"begin": "none"}]
)
def test_what_a_training_begins_with_is_said(trained, given):
    settings, begin = rln.train.choose_settings(None, given.get("variant"), given.get("begin"))
    seen = trained(command("train", psf=PSF, out=MODEL, settings=settings, **given))
    assert seen["settings"] == settings
    assert (seen["begin"] and seen["begin"].hash) == (begin and begin.hash)


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
    write_volume(samples.bead(), "my image.tif")
    write_volume(samples.bead_psf(), "psf.tif")


def _run(text):
    names = {}
    exec(compile(text, "script", "exec"), names)
    return names


@pytest.mark.usefixtures("bead")
@pytest.mark.parametrize("repair", [True, False])
def test_the_python_of_rld_computes_what_the_command_does(repair):
    settings = rln.RichardsonLucy(iterations=3, background=200.0)
    files = {"image": IMAGE, "psf": PSF, "out": OUT}
    _run(python("rld", **files, settings=settings, repair=repair))
    image = samples.bead()
    psf, _ = rln.psf.fit_psf(samples.bead_psf(), image, mend=repair)
    assert read_volume(OUT).hash == rln.deconvolve(image, psf, settings).hash
    OUT.unlink()
    words = shlex.split(command("rld", **files, settings=settings, repair=repair, dtype="uint16"))
    with pytest.warns(rln.RlnWarning, match="PSF warning"):
        app(words[1:], result_action="return_value")


@pytest.mark.usefixtures("bead")
def test_the_python_of_rln_computes_the_same():
    settings = rln.RlnSettings(background=200.0)
    files = {"image": IMAGE, "psf": None, "out": OUT}
    _run(python("rln", **files, model="bead-paper", settings=settings, dtype="uint16"))
    expected = rln.apply_model(samples.bead(), None, rln.load_model("bead-paper"), settings)
    np.testing.assert_array_equal(read_volume(OUT).data, expected.data.round().clip(0))
    assert "psf" in python("rln", **files | {"psf": PSF})


@pytest.mark.usefixtures("bead")
def test_the_python_of_psf_computes_the_same():
    optics = rln.psf.MicroscopeSettings(modality="gaussian", size=(15, 21, 21))
    own = (0.2, 0.1, 0.1)
    for where, voxel_um in (({"image": IMAGE}, samples.NOMINAL_VOXEL_UM), ({"voxel_um": own}, own)):
        _run(python("psf compute", **where, out=OUT, settings=optics))
        assert read_volume(OUT).hash == rln.psf.compute_psf(optics, voxel_um, planes=64).hash
        assert read_volume(OUT).voxel_um == pytest.approx(voxel_um)

    _run(python("psf repair", psf=PSF, out=OUT))
    psf = samples.bead_psf()
    assert read_volume(OUT).hash == rln.psf.repair_psf(psf, rln.psf.examine_psf(psf)).hash
    settings = rln.psf.PrepareSettings(max_size=(31, 31, 31))
    _run(python("psf repair", psf=PSF, image=IMAGE, out=OUT, settings=settings))
    assert read_volume(OUT).hash == rln.psf.prepare_psf(psf, settings).hash
    _run(python("psf repair", psf=PSF, out=OUT, everything=True))
    assert read_volume(OUT).hash == rln.psf.prepare_psf(psf).hash


def test_the_python_of_psf_measure_computes_the_same(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    beads = np.zeros((24, 48, 48), np.float32)
    beads[8:17, 20:29, 20:29] = 5000 * phantoms.gaussian_psf().data
    stack = np.random.default_rng(0).poisson(beads + 10)
    write_volume(rln.Volume.from_array(stack, phantoms.VOXEL_UM), IMAGE)
    settings = rln.psf.MeasureSettings(size=(9, 9, 9))
    _run(python("psf measure", beads=IMAGE, out=OUT, settings=settings))
    assert read_volume(OUT).hash == rln.psf.measure_psf(read_volume(IMAGE), settings).hash


@pytest.mark.usefixtures("bead")
def test_the_python_of_a_training_trains_the_same(monkeypatch):
    monkeypatch.setattr(run, "_STATISTICS", 1)
    monkeypatch.setattr(validation, "_ITERATIONS", (2, 4))
    structures = rln.simulate.StructureSettings(structures=("dots",))
    given = {"psf": PSF, "like": IMAGE, "begin": "none", "settings": TINY, "structures": structures}
    _run(python("train", out=MODEL, **given))
    psf, _ = rln.psf.fit_psf(samples.bead_psf(), samples.bead())
    setting = rln.train.setting_of(TINY, psf=psf, like=samples.bead(), structures=structures)
    model = rln.load_model(MODEL)
    assert model.name == "mine"
    assert model.hash == rln.train.train_model(setting, TINY).hash


def test_the_python_of_other_trainings_says_what_they_are_of():
    text = python("train", pairs=Path("pairs"), out=MODEL, voxel_um=(0.3, 0.1, 0.1), preset="quick")
    assert text.startswith("from pathlib import Path\n\nimport napari_rln as rln\n")
    assert (
        "pairs=Path('pairs'), pairs_voxel_um=(0.3, 0.1, 0.1), begin=rln.load_model('universal')"
        in text
    )
    settings = dataclasses.replace(PRESETS["full"], variant="paper")
    text = python("train", any_psf=True, out=MODEL, preset="full", settings=settings)
    assert "setting = rln.train.setting_of(settings, any_psf=True)\n" in text
    compile(text, "script", "exec")
