"""The command line on volumes that are written in parts, and on many of them."""

import json

import numpy as np
import phantoms
import pytest
import tifffile

from napari_rln import cli
from napari_rln.core.volume import Volume
from napari_rln.io.image import ImageFile, open_image
from napari_rln.io.volumes import read, write


@pytest.fixture
def files(tmp_path):
    psf = phantoms.gaussian_psf()
    image = Volume.from_array(phantoms.spots((16, 70, 80)) + 10, psf.voxel_um)
    write(image, tmp_path / "image.ome.tif")
    write(psf, tmp_path / "psf.ome.tif")
    return tmp_path


def _run(*tokens):
    return cli.run([str(token) for token in tokens])


def _data(path):
    source = open_image(ImageFile(path=str(path)))
    return source.read(tuple(slice(0, n) for n in source.shape))


def test_rld_to_ome_zarr_is_what_it_is_to_tiff(files, capsys):
    common = ("rld", files / "image.ome.tif", "--psf", files / "psf.ome.tif", "--iterations", 4)
    assert _run(*common, "-o", files / "r.ome.tif") == 0
    assert _run(*common, "-o", files / "r.ome.zarr", "--quiet") == 0
    np.testing.assert_array_equal(_data(files / "r.ome.zarr"), read(files / "r.ome.tif").data)
    assert _run(*common, "-o", files / "r.ome.zarr", "--quiet", "--json") == 0
    out = capsys.readouterr().out
    told = json.loads(out[out.index("{") :])
    assert (told["out"], told["computed"]) == (str(files / "r.ome.zarr"), False)
    assert told["facts"]["iterations"] == 4


def test_rln_from_ome_zarr_in_tiles(files):
    image, psf = files / "image.ome.tif", files / "psf.ome.tif"
    assert (
        _run("rld", image, "--psf", psf, "--iterations", 1, "-o", files / "in.ome.zarr", "--quiet")
        == 0
    )
    common = ("rln", files / "in.ome.zarr", "--psf", psf, "--quiet")
    assert _run(*common, "-o", files / "whole.ome.zarr") == 0
    assert _run(*common, "-o", files / "tiles.ome.tif", "--tile", 64, "--workers", 1) == 0
    assert phantoms.nrmse(_data(files / "tiles.ome.tif"), _data(files / "whole.ome.zarr")) < 0.05


def test_a_dry_run_only_tells(files, capsys):
    before = sorted(p.name for p in files.iterdir())
    assert _run("rln", files / "image.ome.tif", "--psf", files / "psf.ome.tif",
                "-o", files / "r.ome.zarr", "--dry-run") == 0  # fmt: skip
    said = capsys.readouterr().out
    assert "16 x 70 x 80" in said
    assert "time" in said
    assert sorted(p.name for p in files.iterdir()) == before


def test_a_series_needs_no_choice_where_it_is_written_in_parts(files):
    image = read(files / "image.ome.tif").data
    tifffile.imwrite(files / "series.ome.tif", np.stack([image, image]), metadata={"axes": "TZYX"})
    common = ("rld", files / "series.ome.tif", "--psf", files / "psf.ome.tif", "--iterations", 2,
              "--voxel-um", *phantoms.VOXEL_UM, "--quiet")  # fmt: skip
    assert _run(*common, "-o", files / "r.ome.tif") == 0
    assert open_image(ImageFile(path=str(files / "r.ome.tif"))).times == 2
    assert _run(*common, "-o", files / "one.ome.tif", "--time", 1) == 0
    assert read(files / "one.ome.tif").shape == image.shape
    assert _run(*common, "-o", files / "r.tif") == cli.CANNOT_BE_USED


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--workers", 4096, "-o", "r.tif"], "cores; give at most"),
        (["--gpus", "0,0", "-o", "r.ome.zarr"], "different numbers"),
        (["--tolerance", 0.1, "-o", "r.ome.zarr"], "tolerance"),
        (["--memory-gb", 0.5, "-o", "r.ome.zarr"], "too little"),
        *[
            (["--memory-gb", f"{much}", "-o", name], f"is {float(much)} but must lie between 0.5")
            for much in ("0", "-1", "nan", "inf")
            for name in ("r.tif", "r.ome.zarr")
        ],
    ],
)
def test_what_cannot_be_is_said(files, capsys, monkeypatch, more, message):
    monkeypatch.chdir(files)
    code = _run("rld", "image.ome.tif", "--psf", "psf.ome.tif", "--quiet", *more)
    assert code in (cli.CANNOT_BE_USED, 2)
    assert message in capsys.readouterr().err


def test_a_batch_reports_what_failed(files, capsys):
    (files / "images").mkdir()
    (files / "image.ome.tif").rename(files / "images" / "a.ome.tif")
    (files / "images" / "b.tif").write_text("nothing")
    common = ("batch", "rln", files / "images", "--psf", files / "psf.ome.tif", "-o", files / "out")
    assert _run(*common, "--ending", "ome.zarr") == cli.FAILED
    captured = capsys.readouterr()
    assert "1 of 2 images failed" in captured.err
    assert "a.ome.tif: done" in captured.out
    assert (files / "out" / "a-rln.ome.zarr").is_dir()
    (files / "images" / "b.tif").unlink()
    assert _run(*common, "--ending", "ome.zarr") == 0
    assert "already complete" in capsys.readouterr().out
