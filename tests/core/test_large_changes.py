"""Runs from disk to disk whose image, checkpoint or result was changed or damaged."""

import itertools
import json
import os
import random
import re
from pathlib import Path

import numpy as np
import phantoms
import pytest
from scipy import signal as scipy_signal

from napari_rln.core.errors import ComputeError, RlnError
from napari_rln.core.generators import finish
from napari_rln.core.record import Record
from napari_rln.deconvolution.classical import RichardsonLucy
from napari_rln.engine.execution import Execution, Output
from napari_rln.engine.in_parts import run_task_iter
from napari_rln.engine.journal import RunFolder
from napari_rln.engine.task import Task
from napari_rln.io.image import ImageFile
from napari_rln.io.tiff import TiffTarget
from napari_rln.io.volumes import read

SHAPE = (20, 40, 64)
WHOLE = tuple(slice(0, n) for n in SHAPE)


@pytest.fixture(scope="module")
def psf():
    return phantoms.gaussian_psf((5, 5, 5), (1.5, 1.0, 1.0))


@pytest.fixture(scope="module")
def photons(psf):
    """Return two blurred noisy volumes."""
    truth = phantoms.spots(SHAPE, level=300.0)
    blurred = scipy_signal.fftconvolve(truth, psf.data, mode="same").clip(0) + 10
    return np.random.default_rng(0).poisson([blurred, blurred[::-1]]).astype(np.uint16)


@pytest.fixture
def series(photons, psf, tmp_path):
    """Return a series of two volumes on disk."""
    return _series(tmp_path / "series.ome.tif", photons, psf)


@pytest.fixture(scope="module")
def whole(photons, psf, tmp_path_factory):
    """Return the first volume of the series, deconvolved without interruption."""
    folder = tmp_path_factory.mktemp("whole")
    file = _series(folder / "series.ome.tif", photons[:1], psf)
    finish(run_task_iter(_task(file, psf, folder / "whole.ome.zarr")))
    return read(folder / "whole.ome.zarr").data


def _series(path, volumes, psf):
    target = TiffTarget.create(
        path, SHAPE, len(volumes), "uint16", psf.voxel_um, "series", Record(method="simulate")
    )
    for time, volume in enumerate(volumes):
        target.write(WHOLE, volume, time)
    return ImageFile(path=str(path))


def _task(file, psf, out, *, overwrite=False):
    return Task(
        image=file, psf=psf, method=RichardsonLucy(iterations=3),
        output=Output(path=out, overwrite=overwrite), execution=Execution(tile=16),
    )  # fmt: skip


def _interrupted(task, blocks=1):
    steps = run_task_iter(task)
    written = (report for report in steps if report.phase == "tiles")
    assert len(list(itertools.islice(written, blocks))) == blocks
    steps.close()


def _change(file, time, box=WHOLE):
    """Add light to a part of a volume on disk."""
    target = TiffTarget(Path(file.path), SHAPE, 2)
    target.write(box, target.read(box, time) + 40, time)


def _touch(file):
    os.utime(file.path, (1e9, 1e9))


def _data(path, time):
    return read(path, time=time).data


def test_a_changed_volume_is_not_complete_already(series, psf, tmp_path):
    out = tmp_path / "r.ome.tif"
    finish(run_task_iter(_task(series, psf, out)))
    assert not finish(run_task_iter(_task(series, psf, out))).computed
    _touch(series)  # looks another, and is not
    again = finish(run_task_iter(_task(series, psf, out)))
    assert (again.computed, again.summary["iterations"]) == (False, 3)
    before = _data(out, 1)
    # Nothing that the samples show: in the second volume, and in the middle.
    _change(series, 1, (slice(8, 12), slice(10, 20), slice(20, 30)))
    with pytest.raises(
        RlnError, match=r"image .*, not |has changed since the run started .*time 1"
    ):
        finish(run_task_iter(_task(series, psf, out)))
    np.testing.assert_array_equal(_data(out, 1), before)
    assert finish(run_task_iter(_task(series, psf, out, overwrite=True))).computed
    assert not np.array_equal(_data(out, 1), before)


def test_a_large_image_of_which_the_samples_are_the_same_is_known_to_be_another(
    series, psf, tmp_path, monkeypatch
):
    # As of a volume of which a small part is looked at before the first tile.
    monkeypatch.setattr("napari_rln.deconvolution.calibration.MOST_VOXELS", 1000)
    monkeypatch.setattr("napari_rln.deconvolution.calibration._BLOCK", (8, 8, 8))
    out = tmp_path / "r.ome.zarr"
    one = ImageFile(path=series.path, time=0)
    finish(run_task_iter(_task(one, psf, out)))
    _change(series, 0, (slice(0, 20), slice(0, 10), slice(0, 64)))
    with pytest.raises(RlnError, match="has changed since the run started"):
        finish(run_task_iter(_task(one, psf, out)))


def test_an_image_that_is_replaced_before_a_run_goes_on_is_noticed(series, psf, tmp_path):
    out = tmp_path / "r.ome.zarr"
    fileal = Path(series.path).read_bytes()
    _interrupted(_task(series, psf, out), 2)
    _change(series, 0, (slice(8, 12), slice(10, 20), slice(0, 30)))
    with pytest.raises(RlnError, match=r"image .*, not |has changed since the run started"):
        finish(run_task_iter(_task(series, psf, out)))
    Path(series.path).write_bytes(fileal)  # another file, of the same content
    assert finish(run_task_iter(_task(series, psf, out))).computed
    whole = tmp_path / "whole.ome.zarr"
    finish(run_task_iter(_task(series, psf, whole)))
    for time in range(2):
        np.testing.assert_array_equal(_data(out, time), _data(whole, time))


def test_an_image_that_is_still_written_is_noticed(series, psf, tmp_path):
    steps = run_task_iter(_task(series, psf, tmp_path / "r.ome.zarr"))
    for report in steps:
        if report.phase == "deconvolve":
            break
    _change(series, 0)
    with pytest.raises((RlnError, ComputeError), match="has changed since the run started"):
        finish(steps)
    assert not (tmp_path / "r.ome.zarr").exists()


@pytest.mark.parametrize("name", ["r.ome.tif", "r.ome.zarr"])
def test_a_damaged_result_is_not_complete_already(series, psf, tmp_path, name):
    out = tmp_path / name
    finish(run_task_iter(_task(series, psf, out)))
    if out.is_dir():
        damaged = next(p for p in (out / "0").rglob("*") if p.is_file() and p.name.isdigit())
        damaged.write_bytes(damaged.read_bytes()[:-7])
    else:
        TiffTarget(out, SHAPE, 2).write(WHOLE, np.zeros(SHAPE, np.float32), 1)
    with pytest.raises(RlnError, match=r"part \d+ of level .*`overwrite`"):
        finish(run_task_iter(_task(series, psf, out)))
    assert finish(run_task_iter(_task(series, psf, out, overwrite=True))).computed


@pytest.mark.parametrize(
    "name", ["r.ome.tif.part/notes.txt", "r.ome.tif.run.json", "r.ome.tif.lock"]
)
def test_what_belongs_to_somebody_else_is_left_alone(series, psf, tmp_path, name):
    mine = tmp_path / name
    mine.parent.mkdir(exist_ok=True)
    mine.write_text('{"years": "of work"}')
    there = rf"{re.escape(name.partition('/')[0])} was not written by napari-rln"
    for overwrite in (False, True):
        with pytest.raises(RlnError, match=there):
            finish(run_task_iter(_task(series, psf, tmp_path / "r.ome.tif", overwrite=overwrite)))
    assert mine.read_text() == '{"years": "of work"}'


def _mutated(path, rng):
    """Damage a file: cut it, change a byte, or put other text into it."""
    content = bytearray(path.read_bytes())
    at = rng.randrange(len(content))
    kind = rng.randrange(4)
    if kind == 0:
        del content[at:]
    elif kind == 1:
        content[at] ^= 1 << rng.randrange(8)
    elif kind == 2:
        content[at : at + 4] = rng.choice([b"null", b"[[[[", b"1e99", b"\xff\xfe\x00", b'"":'])
    else:
        content = bytearray(rng.choice([b"", b"{}", b"[]", b"null", b'{"seal": "0"}']))
    path.write_bytes(bytes(content))


@pytest.mark.filterwarnings("ignore:the interrupted run of")
@pytest.mark.parametrize("seed", range(8))  # of 20 that were tried
def test_a_damaged_checkpoint_is_said_or_done_again(series, psf, whole, tmp_path, seed):
    rng = random.Random(seed)
    out = tmp_path / "r.ome.zarr"
    one = ImageFile(path=series.path, time=0)
    _interrupted(_task(one, psf, out), 1)
    part = RunFolder(out).part
    names = [p for p in sorted(part.rglob("*")) if p.is_file() and p.stat().st_size]
    damaged = rng.choice(names)
    _mutated(damaged, rng)
    try:
        finish(run_task_iter(_task(one, psf, out)))
    except (RlnError, ComputeError, OSError):
        assert finish(run_task_iter(_task(one, psf, out, overwrite=True))).computed
    np.testing.assert_array_equal(read(out).data, whole, str(damaged))


def test_a_series_that_begins_in_the_dark_is_deconvolved(photons, psf, tmp_path):
    file = _series(tmp_path / "dark.ome.tif", [0 * photons[0], photons[0]], psf)
    finish(run_task_iter(_task(file, psf, tmp_path / "r.ome.tif")))
    finish(run_task_iter(_task(ImageFile(path=file.path, time=1), psf, tmp_path / "one.ome.tif")))
    assert np.abs(_data(tmp_path / "r.ome.tif", 0)).max() < 1e-3
    np.testing.assert_array_equal(
        _data(tmp_path / "r.ome.tif", 1), read(tmp_path / "one.ome.tif").data
    )
    manifest = json.loads((tmp_path / "r.ome.tif.run.json").read_text())
    assert manifest["image_state"]["time"] == 1
