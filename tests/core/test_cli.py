"""The command line: what it writes, says and returns, in process and once as a program."""

import json
import signal
import subprocess
import sys
import time

import numpy as np
import phantoms
import pytest
import tifffile
from scipy import signal as scipy_signal

from napari_rln import cli, samples
from napari_rln.core.volume import Volume
from napari_rln.io.volumes import read, write


@pytest.fixture
def files(tmp_path):
    """Return paths of a blurred noisy image, its PSF and its truth."""
    psf, truth = phantoms.gaussian_psf(), phantoms.spots((16, 32, 32), level=300.0)
    blurred = scipy_signal.fftconvolve(truth, psf.data, mode="same").clip(0) + 10
    image = np.random.default_rng(0).poisson(blurred).astype(np.float32)
    paths = {name: tmp_path / f"{name}.ome.tif" for name in ("image", "psf", "truth")}
    write(Volume.from_array(image, psf.voxel_um), paths["image"])
    write(psf, paths["psf"])
    write(Volume.from_array(truth, psf.voxel_um), paths["truth"])
    return paths


# A job in the background of a plain shell is made deaf to Ctrl-C, and so are its children.
_HEARS_CTRL_C = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "


def _run(*tokens):
    return cli.run([str(token) for token in tokens])


def test_rld_writes_a_result_with_its_record(files, tmp_path, capsys):
    out = tmp_path / "result.ome.tif"
    assert _run("rld", files["image"], "--psf", files["psf"], "-o", out, "--iterations", 5) == 0
    result = read(out)
    assert result.voxel_um == phantoms.VOXEL_UM
    assert result.record.facts["iterations"] == 5
    assert result.record.settings["border"] == "extended"
    truth = read(files["truth"]).data
    assert phantoms.nrmse(result.data, truth) < phantoms.nrmse(read(files["image"]).data, truth)
    assert "5 iterations" in capsys.readouterr().out


def test_json_is_one_object_and_nothing_else(files, tmp_path, capsys):
    out = tmp_path / "result.tif"
    _run("rld", files["image"], "--psf", files["psf"], "-o", out, "--iterations", 2, "--json")
    report = json.loads(capsys.readouterr().out)
    assert report["out"] == str(out)
    assert report["facts"]["iterations"] == 2


def test_quiet_says_nothing(files, tmp_path, capsys):
    out = tmp_path / "result.tif"
    _run("rld", files["image"], "--psf", files["psf"], "-o", out, "--iterations", 1, "--quiet")
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == ""


def test_a_psf_on_another_grid_is_resampled(files, tmp_path, capsys):
    out = tmp_path / "result.tif"
    finer = ("--psf-voxel-um", 0.1, 0.05, 0.05)
    code = _run("rld", files["image"], "--psf", files["psf"], "-o", out, "--iterations", 1, *finer)
    assert code == 0
    assert "voxel size is (0.1, 0.05, 0.05)" in capsys.readouterr().err


def test_integers_are_rounded_and_clipped_with_a_warning(files, tmp_path, capsys):
    out = tmp_path / "result.tif"
    tokens = ("--iterations", 20, "--dtype", "uint8")
    assert _run("rld", files["image"], "--psf", files["psf"], "-o", out, *tokens) == 0
    assert "voxels were clipped to uint8" in capsys.readouterr().err
    assert tifffile.imread(out).dtype == np.uint8


def test_compare_writes_table_and_figure(files, tmp_path, capsys):
    out = tmp_path / "result.ome.tif"
    _run("rld", files["image"], "--psf", files["psf"], "-o", out, "--iterations", 10, "--quiet")
    folder = tmp_path / "comparison"
    code = _run(
        "compare", files["image"], out, "--truth", files["truth"], "--psf", files["psf"],
        "-o", folder, "--figure-format", "png", "svg", "--json",
    )  # fmt: skip
    assert code == 0
    report = json.loads(capsys.readouterr().out)
    raw, result = report["rows"]
    assert result["psnr_db"] > raw["psnr_db"]
    assert result["chi2"] < raw["chi2"]
    assert {"ssim_xz", "pearson_yz", "flux_ratio", "nrmse"} <= set(result)
    table = (folder / "table.csv").read_text().splitlines()
    assert len(table) == 3
    assert table[0].split(",") == report["columns"]
    assert (folder / "figure.png").stat().st_size > 10_000
    assert (folder / "figure.svg").read_text().rstrip().endswith("</svg>")


def test_psf_compute_info_and_repair(files, tmp_path, capsys):
    computed = tmp_path / "computed.tif"
    optics = ("--na", 1.2, "--immersion-index", 1.33, "--wavelength-um", 0.52)
    size = ("--size", 15, 21, 21)
    assert _run("psf", "compute", "--image", files["image"], "-o", computed, *optics, *size) == 0
    psf = read(computed)
    assert psf.voxel_um == phantoms.VOXEL_UM
    assert psf.shape == (15, 21, 21)
    assert psf.data.sum() == pytest.approx(1, abs=1e-5)

    spoilt = tmp_path / "spoilt.tif"
    write(psf.with_data(np.roll(psf.data, 3, axis=2) * 1000 + 50), spoilt)
    capsys.readouterr()
    assert _run("psf", "info", spoilt, "--json") == 0
    checks = {f["check"] for f in json.loads(capsys.readouterr().out)["findings"]}
    assert {"background", "centre", "sum"} <= checks

    repaired = tmp_path / "repaired.tif"
    assert _run("psf", "repair", spoilt, "-o", repaired) == 0
    capsys.readouterr()
    _run("psf", "info", repaired, "--json")
    findings = json.loads(capsys.readouterr().out)["findings"]
    assert not {"background", "centre", "sum"} & {f["check"] for f in findings}


def test_psf_measure(tmp_path):
    beads = np.zeros((24, 64, 64), np.float32)
    for y, x in ((16, 16), (16, 48), (48, 16), (48, 48)):
        beads[12, y, x] = 1
    psf = phantoms.gaussian_psf((15, 15, 15))
    blurred = scipy_signal.fftconvolve(beads, psf.data / psf.data.max(), mode="same").clip(0)
    stack = np.random.default_rng(0).poisson(1000 * blurred + 10)
    write(Volume.from_array(stack, psf.voxel_um), tmp_path / "beads.tif")
    out = tmp_path / "psf.ome.tif"
    size = ("--size", 15, 15, 15)
    assert _run("psf", "measure", tmp_path / "beads.tif", "-o", out, *size) == 0
    assert phantoms.nrmse(read(out).data, psf.data) < 0.05


def test_demo_ends_with_table_and_figure(tmp_path, capsys, monkeypatch):
    image, psf = samples.bead(), samples.bead_psf()
    image = image.with_data(image.data[9:41, 16:48, 16:48])
    psf = psf.with_data(psf.data[20:45, 20:45, 20:45])
    monkeypatch.setattr(samples, "bead", lambda: image)
    monkeypatch.setattr(samples, "bead_psf", lambda: psf)
    monkeypatch.setattr("napari_rln.cli.demo_command._MIDDLE", (16, 15, 16))
    assert _run("demo", "-o", tmp_path / "demo") == 0
    assert "chi2" in capsys.readouterr().out
    names = {path.name for path in (tmp_path / "demo").iterdir()}
    assert {"table.csv", "figure.png", "bead-rld.ome.tif"} <= names


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image": "absent.tif"}, "there is no file absent.tif"),
        ({"psf": "absent.tif"}, "there is no file absent.tif"),
        ({"out": "result.png"}, "must end in .tif"),
        ({"out": "no/folder/result.tif"}, "there is no folder"),
        ({"extra": ("--tolerance", -1)}, "tolerance is -1"),
        ({"extra": ("--device", "cuda:77")}, "device cuda:77"),
    ],
)
def test_what_cannot_be_used_is_said_in_a_sentence(files, tmp_path, capsys, change, message):
    given = {"image": files["image"], "psf": files["psf"], "out": tmp_path / "r.tif"} | change
    code = _run("rld", given["image"], "--psf", given["psf"], "-o", given["out"],
                *given.get("extra", ()))  # fmt: skip
    assert code == cli.CANNOT_BE_USED
    captured = capsys.readouterr()
    assert captured.err.startswith("Error: ")
    assert message in captured.err
    assert "Traceback" not in captured.err


def test_a_missing_voxel_size_is_not_guessed(files, tmp_path, capsys):
    plain = tmp_path / "plain.tif"
    tifffile.imwrite(plain, read(files["image"]).data)
    out = ("-o", tmp_path / "r.tif")
    assert _run("rld", plain, "--psf", files["psf"], *out) == cli.CANNOT_BE_USED
    assert "--voxel-um" in capsys.readouterr().err
    given = ("--voxel-um", *phantoms.VOXEL_UM, "--iterations", 1)
    assert _run("rld", plain, "--psf", files["psf"], *out, *given) == 0


def test_a_wrong_command_line_exits_with_2():
    with pytest.raises(SystemExit) as stopped:
        _run("rld", "image.tif", "--nonsense")
    assert stopped.value.code == 2


def test_help_comes_without_torch():
    code = (
        "import sys; from napari_rln import cli\n"
        "try: cli.run(['--help'])\n"
        "except SystemExit: pass\n"
        "assert 'torch' not in sys.modules, 'torch was loaded'"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "Exit codes" in done.stdout


def _commands(app, above=""):
    """Yield every command, those of groups too, with its name."""
    for name in app:
        if not name.startswith("-"):
            command = app[name]
            if command.default_command is not None:
                yield above + name, command
            yield from _commands(command, f"{above}{name} ")


def test_every_option_of_every_command_has_a_help_text():
    helps = {
        (verb, argument.name): argument.parameter.help
        for verb, command in _commands(cli.app)
        for argument in command.assemble_argument_collection(parse_docstring=True)
        if argument.parse and argument.show
    }
    assert len(helps) > 200
    assert [option for option, text in helps.items() if not text] == []


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGINT for another process")
def test_ctrl_c_leaves_no_half_written_file(files, tmp_path):
    out = tmp_path / "folder" / "result.tif"
    out.parent.mkdir()
    process = subprocess.Popen(
        [
            sys.executable, "-c",
            f"{_HEARS_CTRL_C}import napari_rln.cli.deconvolve_commands\n"
            "from napari_rln.cli import main; print('loaded', flush=True); main()", "rld",
            str(files["image"]), "--psf", str(files["psf"]), "-o", str(out),
            "--iterations", "100000",
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == "loaded\n"
    time.sleep(5)  # into the iterations
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=20)
    assert process.returncode == cli.INTERRUPTED
    assert "Interrupted" in err
    assert list(out.parent.iterdir()) == []
