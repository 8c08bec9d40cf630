"""What the command line never does: lose a file, hide a warning, end in a traceback."""

import os
import signal
import subprocess
import sys

import numpy as np
import phantoms
import pytest
import tifffile
from scipy import signal as scipy_signal

from napari_rln import cli
from napari_rln.cli.terminal import as_options
from napari_rln.core.volume import Volume
from napari_rln.io.volumes import read, write

SHAPE = (10, 24, 28)
VOXEL_UM = phantoms.VOXEL_UM


def _blurred(seed=0):
    psf = phantoms.gaussian_psf()
    truth = phantoms.spots(SHAPE, seed=seed, level=300.0)
    blurred = scipy_signal.fftconvolve(truth, psf.data, mode="same").clip(0) + 10
    return np.random.default_rng(seed).poisson(blurred).astype(np.float32)


@pytest.fixture
def files(tmp_path, monkeypatch):
    """Write an image, a PSF and two channels into a folder, and go there."""
    monkeypatch.chdir(tmp_path)
    psf = phantoms.gaussian_psf()
    write(Volume.from_array(_blurred(), VOXEL_UM), "raw.tif")
    write(Volume.from_array(_blurred(), VOXEL_UM), "raw.ome.tif")
    write(psf, "psf.tif")
    return tmp_path


def _run(*tokens):
    return cli.run([str(token) for token in tokens])


def _type(line):
    """Run a line as it is typed, without quotes."""
    return _run(*line.split())


WRITERS = {
    "rld": "rld raw.tif --psf psf.tif --iterations 1 -o",
    "rld in parts": "rld raw.ome.tif --psf psf.tif --iterations 1 --tile 16 -o",
    "rln": "rln raw.tif --psf psf.tif -m bead-paper -o",
    "dual": "dual raw.tif raw.ome.tif --psf psf.tif --iterations 1 -o",
    "psf compute": "psf compute --image raw.tif --modality gaussian -o",
    "psf measure": "psf measure raw.tif -o",
    "psf repair": "psf repair psf.tif --image raw.tif -o",
    "check": "check raw.tif raw.ome.tif --psf psf.tif --residual",
}


@pytest.mark.parametrize("verb", WRITERS)
@pytest.mark.parametrize("more", [[], ["--overwrite"]])
def test_no_command_writes_over_what_it_reads(files, verb, more, capfd):
    words = WRITERS[verb].split()
    inputs = [word for word in words if word.endswith(".tif")]
    before = {path.name: path.read_bytes() for path in files.iterdir()}
    for name in dict.fromkeys(inputs):
        if verb == "rld in parts" and not name.endswith(".ome.tif"):
            continue
        assert _run(*words, name, *more) == cli.CANNOT_BE_USED
        assert "would lie on or in" in capfd.readouterr().err
    assert {path.name: path.read_bytes() for path in files.iterdir()} == before


@pytest.mark.parametrize("verb", [v for v in WRITERS if v != "rld in parts"])
def test_no_command_replaces_a_file_unasked(files, verb, capfd):
    (files / "there.tif").write_bytes(b"mine")
    assert _run(*WRITERS[verb].split(), "there.tif") == cli.CANNOT_BE_USED
    assert "already exists" in capfd.readouterr().err
    assert (files / "there.tif").read_bytes() == b"mine"


@pytest.mark.parametrize("more", [[], ["--tile", "16"]])
def test_no_file_of_what_is_read_is_written_over(files, more, capfd):
    (files / "planes").mkdir()
    for z, plane in enumerate(_blurred()):
        tifffile.imwrite(files / "planes" / f"p{z:02d}.tif", plane.astype(np.uint16))
    before = {path.name: path.read_bytes() for path in (files / "planes").iterdir()}
    line = ["rld", "planes", "--voxel-um", *VOXEL_UM, "--psf", "psf.tif", "--iterations", 1, *more]
    for name in ("p03.tif", "p10.tif"):
        assert _run(*line, "-o", f"planes/{name}", "--overwrite") == cli.CANNOT_BE_USED
        assert "would lie on or in" in capfd.readouterr().err
    named = ["rld", "planes/p00.tif", *line[2:]]
    assert _run(*named[: -len(more) or None], "-o", "one.tif") == 0  # a file alone is a plane
    assert {path.name: path.read_bytes() for path in (files / "planes").iterdir()} == before


def test_a_result_of_several_channels_is_checked_by_that_of_the_image(files, capfd):
    channels = np.stack([_blurred(0), _blurred(1)])
    metadata = {"axes": "CZYX"} | {
        f"PhysicalSize{axis}": size for axis, size in zip("ZYX", VOXEL_UM, strict=True)
    }
    tifffile.imwrite("two.ome.tif", channels, metadata=metadata)
    line = "rld two.ome.tif --psf psf.tif psf.tif --iterations 3 -o r.ome.tif"
    assert _type(line) == 0
    assert _type("check two.ome.tif r.ome.tif --channel 1 --psf psf.tif") == 0
    assert _type("compare two.ome.tif r.ome.tif --channel 1 -o compared") == 0
    assert _type("check two.ome.tif raw.tif --channel 1 --psf psf.tif") == 0
    coarse = Volume.from_array(_blurred(), tuple(2 * v for v in VOXEL_UM))
    write(coarse, "coarse.tif")
    write(Volume.from_array(-_blurred(), VOXEL_UM), "dark.tif")
    capfd.readouterr()
    for name, said in (("coarse", "correct the one that is wrong"), ("dark", "no positive value")):
        assert _type(f"check raw.tif {name}.tif --psf psf.tif") == cli.CANNOT_BE_USED
        assert said in capfd.readouterr().err


def test_what_is_wrong_with_a_psf_file_is_mended_by_its_own_options(files, capfd):
    psf = phantoms.gaussian_psf()
    tifffile.imwrite("bare.tif", psf.data, photometric="minisblack")
    line = "rld raw.tif --iterations 1 -o r.tif --overwrite"
    assert _type(f"{line} --psf bare.tif") == cli.CANNOT_BE_USED
    assert "(--psf-voxel-um)" in capfd.readouterr().err
    z, y, x = VOXEL_UM
    sized = f"--psf-voxel-um {z} {y} {x}"
    assert _type(f"{line} --psf bare.tif {sized}") == 0
    metadata = {"axes": "TYX"}
    tifffile.imwrite("times.tif", psf.data, imagej=True, metadata=metadata)
    assert _type(f"{line} --psf times.tif {sized}") == cli.CANNOT_BE_USED
    assert "--psf-planes-are time" in capfd.readouterr().err
    assert _type(f"{line} --psf times.tif {sized} --psf-planes-are time") == 0
    one = read("r.tif").data
    assert _type(f"{line} --psf bare.tif {sized}") == 0
    np.testing.assert_array_equal(one, read("r.tif").data)
    assert _type(f"psf info times.tif --voxel-um {z} {y} {x} --planes-are time") == 0
    with tifffile.TiffWriter("two.ome.tif") as tif:
        for data in (psf.data, psf.data[:5]):
            tif.write(data, metadata={"axes": "ZYX"})
    capfd.readouterr()
    assert _type(f"{line} --psf two.ome.tif {sized}") == cli.CANNOT_BE_USED
    assert "choose one with --psf-series=0..1" in capfd.readouterr().err
    assert _type(f"{line} --psf two.ome.tif {sized} --psf-series 0") == 0


def test_a_batch_does_every_position_once_and_sets_once(files):
    positions = np.stack([_blurred(0), _blurred(1)]).astype(np.uint16)
    sizes = {f"PhysicalSize{axis}": size for axis, size in zip("ZYX", VOXEL_UM, strict=True)}
    (files / "plate").mkdir()
    with tifffile.TiffWriter(files / "plate" / "two.ome.tif") as tif:
        for data in positions:
            tif.write(data, metadata={"axes": "ZYX"} | sizes)
    assert _type("batch rld plate --psf psf.tif --iterations 2 -o out") == 0
    for number in range(2):
        write(Volume.from_array(positions[number], VOXEL_UM), "one.tif")
        assert _type("rld one.tif --psf psf.tif --iterations 2 -o r.tif --overwrite") == 0
        np.testing.assert_array_equal(
            read(files / "out" / f"two-s{number}-rld.ome.tif").data,
            read("r.tif").data,
        )


def test_tables_pairs_and_models_are_not_replaced_unasked(files, capfd):
    for name in ("table.csv", "pairs/records.json", "m.safetensors", "m.checkpoint"):
        (files / name).parent.mkdir(exist_ok=True)
        (files / name).write_bytes(b"mine")
    for line in (
        "compare raw.tif raw.ome.tif -o .",
        "simulate --psf psf.tif --shape 16 16 16 -o pairs",
        "train --psf psf.tif -o m.safetensors",
    ):
        assert _type(line) == cli.CANNOT_BE_USED
        assert "already exists" in capfd.readouterr().err
    (files / "m.safetensors").unlink()
    assert _type("train --psf psf.tif -o m.safetensors") == cli.CANNOT_BE_USED
    assert (files / "m.checkpoint").read_bytes() == b"mine"


def test_a_batch_names_no_result_like_what_it_reads(files, capfd):
    (files / "table.csv").write_text("image,out\nraw.tif,x.ome.tif\nraw.ome.tif,raw.ome.tif\n")
    assert _run("batch", "rld", "table.csv", "--psf", "psf.tif", "-o", ".") == cli.CANNOT_BE_USED
    assert "would replace an input" in capfd.readouterr().err


def test_warnings_are_said_where_nothing_else_is(files, capfd):
    psf = phantoms.gaussian_psf()
    write(psf.with_data(3 * psf.data), "bright.tif")
    line = "rld raw.tif --psf bright.tif --iterations 1 --quiet -o r.tif"
    assert _type(line) == 0
    said = capfd.readouterr()
    assert said.out == ""
    assert "Warning: PSF warning: The sum is 3" in said.err


def test_a_batch_says_and_writes_what_is_wrong_with_each_image(files, capfd):
    psf = phantoms.gaussian_psf()
    write(psf.with_data(3 * psf.data), "bright.tif")
    line = "batch rld raw.ome.tif raw.tif --psf bright.tif --iterations 2 -o out --quiet"
    assert _type(line) == cli.CANNOT_BE_USED  # both would be raw-rld.ome.tif
    capfd.readouterr()
    line = line.replace(" raw.tif", " absent.tif")
    assert _type(line) == cli.FAILED
    said = capfd.readouterr().err
    assert "Warning: raw.ome.tif: PSF warning: The sum is 3" in said
    assert "absent.tif: there is no file" in said
    rows = (files / "out" / "batch.csv").read_text().splitlines()
    assert "The sum is 3" in rows[1]
    again = line.replace(" absent.tif", "")
    assert _type(again) == 0
    restarted = (files / "out" / "batch.csv").read_text().splitlines()
    names = restarted[0].split(",")
    first, second = (
        dict(zip(names, row.split(","), strict=False)) for row in (rows[1], restarted[1])
    )
    assert (first["status"], second["status"]) == ("done", "already complete")
    for name in ("iterations", "chi2", "flux_ratio"):
        assert first[name] == second[name] != ""


def test_a_warning_is_said_once_however_often_a_file_is_opened(files, capfd):
    for out in ("r.tif", "r.ome.zarr"):
        line = "rld raw.tif --psf psf.tif --iterations 1 --quiet --voxel-um 6.5 6.5 6.5 -o"
        assert _type(f"{line} {out} --psf-voxel-um 6.5 6.5 6.5") == 0
        warnings = capfd.readouterr().err.splitlines()
        assert len(warnings) == len(set(warnings))
        assert sum("raw.tif: pixels of 6.5" in line for line in warnings) == 1


def test_messages_name_options_as_they_are_typed(files, capfd):
    for line, option in (
        ("rld raw.tif --psf psf.tif -o r.tif --iterations 0", "--iterations is 0"),
        ("rld raw.tif --psf psf.tif -o psf.ome.tif --crop 0:99 0:9 0:9", "--crop is 0:99 0:9 0:9"),
        (
            "psf compute -o r.tif --wavelength-um 520 --voxel-um 0.1 0.1 0.1",
            "--wavelength-um is 520",
        ),
        ("psf compute -o r.tif", "(--voxel-um)"),
        ("rld raw.tif --psf psf.tif -o raw.ome.tif", "--overwrite"),
    ):
        assert _type(line) == cli.CANNOT_BE_USED
        said = capfd.readouterr().err
        assert option in said
        assert "`" not in said
    assert (
        as_options("give `missing=mask`, or `initial_model=none`")
        == "give --missing mask, or --initial-model none"
    )


def test_a_crop_is_a_quick_try(files):
    line = "rld raw.tif --psf psf.tif --iterations 2 --crop 2:8 4:20 0:24 -o r.tif"
    assert _type(line) == 0
    assert read("r.tif").shape == (6, 16, 24)
    large = line.replace("-o r.tif", "-o r.ome.zarr")
    assert _type(large) == 0
    np.testing.assert_array_equal(read("r.ome.zarr").data, read("r.tif").data)


def test_the_crop_has_to_be_three_spans(files, capfd):
    for spans in ("2:8 4:20", "a:b 0:9 0:9"):
        line = f"rld raw.tif --psf psf.tif -o r.tif --crop {spans}"
        with pytest.raises(SystemExit):
            _type(line)
        assert "Traceback" not in capfd.readouterr().err


def test_a_psf_for_each_channel_makes_one_file(files, capfd):
    channels = np.stack([_blurred(0), _blurred(1)], axis=1)
    z, y, x = VOXEL_UM
    tifffile.imwrite(
        "two.tif", channels, imagej=True, resolution=(1 / x, 1 / y),
        metadata={"axes": "ZCYX", "spacing": z, "unit": "um"},
    )  # fmt: skip
    narrow = phantoms.gaussian_psf((9, 9, 9), (1.5, 1.0, 1.0))
    write(narrow, "narrow.tif")
    tokens = ("rld", "two.tif", "--psf", "psf.tif", "narrow.tif", "--iterations", 3)
    assert _run(*tokens, "-o", "r.ome.tif") == 0
    assert "chi2" in capfd.readouterr().out
    for channel, psf in enumerate(("psf.tif", "narrow.tif")):
        one = ("rld", "two.tif", "--psf", psf, "--iterations", 3, "--channel", channel)
        assert _run(*one, "-o", f"c{channel}.tif") == 0
        np.testing.assert_array_equal(
            read("r.ome.tif", channel=channel).data, read(f"c{channel}.tif").data
        )
    assert _run(*tokens, "-o", "r.tif") == cli.CANNOT_BE_USED
    assert "must end in .ome.tif" in capfd.readouterr().err
    assert _run(*tokens, "-o", "s.ome.tif", "--dry-run") == 0
    assert "2 channels of 10 x 24 x 28 voxels" in capfd.readouterr().out
    assert not (files / "s.ome.tif").exists()
    three = (*tokens[:3], "psf.tif", "psf.tif", "psf.tif", "-o", "s.ome.tif")
    assert _run(*three) == cli.CANNOT_BE_USED
    assert "3 PSFs but two.tif has 2 channels" in capfd.readouterr().err


def test_channels_of_one_file_take_no_more_memory_than_they_may(files, capfd):
    z, y, x = VOXEL_UM
    tifffile.memmap(
        "large.ome.tif", shape=(2, 64, 512, 512), dtype=np.uint8,
        metadata={"axes": "CZYX", "PhysicalSizeZ": z, "PhysicalSizeY": y, "PhysicalSizeX": x},
    ).flush()  # fmt: skip
    line = "rld large.ome.tif --psf psf.tif psf.tif -o r.ome.tif --memory-gb 0.5"
    assert _type(line) == cli.CANNOT_BE_USED
    assert "2 channels in one file" in capfd.readouterr().err
    assert not (files / "r.ome.tif").exists()


def test_the_channel_of_a_psf_is_that_of_the_image(files, capfd):
    psfs = [phantoms.gaussian_psf(), phantoms.gaussian_psf(sigma=(1.5, 1.0, 1.0))]
    z, y, x = VOXEL_UM
    tifffile.imwrite(
        "psfs.ome.tif", np.stack([psf.data for psf in psfs]),
        metadata={"axes": "CZYX", "PhysicalSizeZ": z, "PhysicalSizeY": y, "PhysicalSizeX": x},
    )  # fmt: skip
    write(psfs[1], "second.tif")
    assert _type("rld raw.tif --psf psfs.ome.tif --iterations 2 -o a.tif") == 1
    assert "2 entries along channel; choose one with --psf-channel=0..1." in capfd.readouterr().err
    line = "rld raw.tif --psf psfs.ome.tif --psf-channel 1 --iterations 2 -o a.tif"
    assert _type(line) == 0
    assert _type("rld raw.tif --psf second.tif --iterations 2 -o b.tif") == 0
    np.testing.assert_array_equal(read("a.tif").data, read("b.tif").data)


def test_every_format_is_taken_for_images_psfs_and_results(files, capfd):
    assert _type("rld raw.tif --psf psf.tif --iterations 3 -o r.ome.zarr") == 0
    assert _type("rld psf.tif --psf psf.tif --iterations 1 -o p.ome.zarr") == 0
    for line in (
        "check raw.tif r.ome.zarr --psf psf.tif",
        "compare raw.tif r.ome.zarr --truth r.ome.zarr --psf p.ome.zarr -o figures",
        "psf info p.ome.zarr",
        "psf repair p.ome.zarr -o q.tif",
        "dual raw.tif r.ome.zarr --psf p.ome.zarr --iterations 1 --transform none -o d.tif",
    ):
        assert _type(line) == 0, (line, capfd.readouterr().err)


@pytest.mark.skipif(sys.platform != "linux", reason="names are text elsewhere")
def test_names_that_are_no_text_are_names(files, capfd):
    name = os.fsdecode(b"\xff\xfe.tif")
    os.rename("raw.tif", name)  # noqa: PTH104
    for out in ("r.tif", "r.ome.tif", "r.ome.zarr"):
        assert _run("rld", name, "--psf", "psf.tif", "--iterations", 1, "-o", out) == 0
    assert read("r.ome.zarr").name.startswith("??")
    assert _run("batch", "rld", name, "--psf", "psf.tif", "--iterations", 1, "-o", "out") == 0
    assert _run("rld", name, "--psf", "psf.tif", "-o", name, "--overwrite") == 1
    assert "would lie on or in" in capfd.readouterr().err


def test_a_voxel_size_for_one_file_is_taken_under_either_name(files, capfd):
    for option in ("--voxel-um", "--psf-voxel-um"):
        assert _run("psf", "info", "psf.tif", option, 0.4, 0.2, 0.2, "--json") == 0
        assert '"voxel_um": [0.4, 0.2, 0.2]' in capfd.readouterr().out
    for size in (200, 50):
        assert _run("psf", "info", "psf.tif", "--voxel-um", size, size, size) == 1
        assert "nm)?" in capfd.readouterr().err


def test_measuring_says_which_beads_were_used(files, capfd):
    beads = np.zeros((24, 60, 60), np.float32)
    for y, x in ((15, 15), (40, 42), (16, 45)):
        beads[12, y, x] = 1e5
    psf = phantoms.gaussian_psf((15, 15, 15))
    blurred = scipy_signal.fftconvolve(beads, psf.data, mode="same").clip(0) + 20
    noisy = np.random.default_rng(0).poisson(blurred)
    write(Volume.from_array(noisy, VOXEL_UM), "beads.tif")
    assert _run("psf", "measure", "beads.tif", "-o", "m.tif", "--size", 11, 11, 11) == 0
    assert "mean of 3 of 3 beads" in capfd.readouterr().out


def test_help_lists_every_command_with_the_first_line_of_its_docstring(capfd):
    for group in ("", "batch", "psf"):
        app = cli.app[group] if group else cli.app
        for name in app:
            if name.startswith("-"):
                continue
            command = app[name]
            assert command.help, name
            function = command.default_command
            if function is not None:
                assert command.help == function.__doc__.splitlines()[0], name
    assert _run("--help") == 0
    said = " ".join(capfd.readouterr().out.split())
    for words in ("Deconvolve an image by Richardson-Lucy.", "--install-completion"):
        assert words in said


_SLOW = """
import os, signal, sys, threading
from napari_rln import cli
from napari_rln.cli import terminal
follow = terminal.Terminal.follow

def hit(self, steps, keep=None, **more):
    def then():
        for n, report in enumerate(steps):
            if n == 3:
                os.kill(os.getpid(), signal.SIGTERM)
            yield report
    return follow(self, then(), keep, **more)

terminal.Terminal.follow = hit
sys.exit(cli.run(sys.argv[1:]))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="batch systems of Windows send no SIGTERM")
def test_a_batch_system_that_ends_the_job_leaves_it_to_be_gone_on_with(files):
    line = "rld raw.ome.tif --psf psf.tif --iterations 4 --tile 32 -o r.ome.zarr"
    ended = subprocess.run(
        [sys.executable, "-c", _SLOW, *line.split()], capture_output=True, text=True, check=False,
        env=os.environ | {"OMP_WAIT_POLICY": "PASSIVE"},
    )  # fmt: skip
    assert ended.returncode == cli.INTERRUPTED, ended.stderr
    assert ended.stderr.splitlines()[-1] == (
        "Interrupted; finished parts are kept; repeat the command to continue."
    )
    assert not list(files.glob(".*"))
    assert not (files / "r.ome.zarr").exists()
    assert _type(line) == 0
    small = "rld raw.tif --psf psf.tif --iterations 9 -o s.tif"
    ended = subprocess.run(
        [sys.executable, "-c", _SLOW, *small.split()], capture_output=True, text=True, check=False
    )
    assert ended.returncode == cli.INTERRUPTED, ended.stderr
    assert ended.stderr.splitlines()[-1] == "Interrupted; no partial file is left."
    assert sorted(path.name for path in files.glob("*s.tif")) == []


def test_nothing_is_left_of_a_command_that_is_interrupted(files, monkeypatch, capfd):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("napari_rln.engine.run.write", interrupt)
    assert _type("rld raw.tif --psf psf.tif --iterations 1 -o r.tif") == cli.INTERRUPTED
    assert "Interrupted; no partial file is left." in capfd.readouterr().err
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
