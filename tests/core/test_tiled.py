"""Tiles in memory: the same as in parts from disk to disk, and near the whole."""

import numpy as np
import phantoms

from napari_rln import cli
from napari_rln.core.generators import finish
from napari_rln.deconvolution.classical import RichardsonLucy
from napari_rln.engine.execution import Execution, Output
from napari_rln.engine.in_memory import deconvolve
from napari_rln.engine.in_parts import run_task_iter
from napari_rln.engine.task import Task
from napari_rln.io.image import ImageFile
from napari_rln.io.volumes import read, write, write_channels

SHAPE = (21, 131, 150)  # odd, and no multiple of anything


def test_tiles_in_memory_are_those_on_disk_and_their_seams_are_faint(tmp_path):
    psf, method = phantoms.gaussian_psf(), RichardsonLucy(iterations=40)
    image = phantoms.noisy_image(phantoms.spots(SHAPE, level=300.0), psf)
    write(image, tmp_path / "image.ome.tif", dtype="uint16")
    tiles = deconvolve(image, psf, method, tile=64)
    task = Task(
        image=ImageFile(path=str(tmp_path / "image.ome.tif")), psf=psf, method=method,
        output=Output(path=tmp_path / "r.ome.zarr"), execution=Execution(tile=64),
    )  # fmt: skip
    finish(run_task_iter(task))
    np.testing.assert_array_equal(tiles.data, read(tmp_path / "r.ome.zarr").data)
    assert tiles.record.facts["tile"] == [21, 64, 64]
    whole = deconvolve(image, psf, method).data
    assert 0 < phantoms.nrmse(tiles.data, whole) < 2.5e-3


def test_channels_of_one_file_are_done_in_tiles_too(tmp_path, capsys):
    psf = phantoms.gaussian_psf()
    image = phantoms.noisy_image(phantoms.spots((16, 48, 48)), psf)
    write_channels([image, image], tmp_path / "two.ome.tif")
    write(psf, tmp_path / "psf.tif")
    kernel, out = str(tmp_path / "psf.tif"), str(tmp_path / "out.ome.tif")
    words = ["rld", str(tmp_path / "two.ome.tif"), "--psf", kernel, kernel, "--out", out]
    for iterations, ended_by in (("3", "iterations"), ("auto", "held-out photons")):
        words_of = [*words, "--iterations", iterations, "--tile", "32", "--overwrite"]
        assert cli.run(words_of) == cli.DONE
        assert f"({ended_by})" in capsys.readouterr().out
