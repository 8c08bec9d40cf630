"""Runs from disk to disk: equal to the whole, resumable, within their memory, refused in time."""

import itertools
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import phantoms
import psutil
import pytest
import tifffile
import torch
from scipy import signal as scipy_signal

from napari_rln.core.errors import ComputeError, RlnError
from napari_rln.core.generators import finish
from napari_rln.core.tiles import overlap
from napari_rln.core.volume import Volume
from napari_rln.deconvolution.classical import RichardsonLucy
from napari_rln.engine.division import make_plan
from napari_rln.engine.execution import Execution, Output
from napari_rln.engine.forecast import forecast
from napari_rln.engine.imagej import check_plain
from napari_rln.engine.in_memory import deconvolve
from napari_rln.engine.in_parts import run_task_iter
from napari_rln.engine.journal import Key, RunFolder
from napari_rln.engine.plan import Plan, blend
from napari_rln.engine.task import Task
from napari_rln.io.image import ImageFile, open_image
from napari_rln.io.volumes import read, write
from napari_rln.networks.model import load_model
from napari_rln.networks.network import Network

SHAPE = (21, 131, 150)  # odd, and no multiple of anything
SIX = RichardsonLucy(iterations=6)


@pytest.fixture(scope="module")
def psf():
    return phantoms.gaussian_psf()


@pytest.fixture(scope="module")
def image(psf):
    """Return a blurred noisy volume of odd sizes."""
    truth = phantoms.spots(SHAPE, level=300.0)
    blurred = scipy_signal.fftconvolve(truth, psf.data, mode="same").clip(0) + 10
    photons = np.random.default_rng(0).poisson(blurred)
    return Volume.from_array(photons, psf.voxel_um, name="spots")


@pytest.fixture
def file(image, tmp_path):
    write(image, tmp_path / "spots.ome.tif", dtype="uint16")
    return ImageFile(path=str(tmp_path / "spots.ome.tif"))


@pytest.fixture(scope="module")
def whole(image, psf, tmp_path_factory):
    """Return where a run in tiles ended that nothing interrupted."""
    folder = tmp_path_factory.mktemp("whole")
    write(image, folder / "spots.ome.tif", dtype="uint16")
    run = _task(ImageFile(path=str(folder / "spots.ome.tif")), psf, folder / "r.ome.zarr", tile=32)
    finish(run_task_iter(run))
    return run.out


def _read(path):
    source = open_image(ImageFile(path=str(path)))
    return source.read(tuple(slice(0, n) for n in source.shape))


def _manifest(path):
    return json.loads(path.with_name(f"{path.name}.run.json").read_text())


def _plan_for(shape, psf, method, iterations, *, memory, version="0.5", side=None):
    """Return the plan of an OME-Zarr of an image that is not there."""
    image = SimpleNamespace(shape=shape, voxel_um=phantoms.VOXEL_UM, name="image")
    return make_plan(
        image, 1, psf, method, {"iterations": iterations}, form="zarr", version=version,
        kind="cpu", memory=memory, ram=memory, side=side,
    )  # fmt: skip


def _plan(path):
    return Plan.of(_manifest(path)["plan"])


def _checksums(path):
    entries = _manifest(path)["finished"]
    return {tuple(e["key"]): e["checksum"] for e in entries if "checksum" in e}


def _task(file, psf, out, *, method=SIX, first=None, **how):
    output = {name: how.pop(name) for name in ("dtype", "overwrite") if name in how}
    return Task(
        image=file, psf=psf, method=method, output=Output(path=out, **output),
        execution=Execution(**how), first=first,
    )  # fmt: skip


@pytest.mark.parametrize("name", ["r.ome.zarr", "r.ome.tif"])
def test_one_tile_is_what_the_whole_gives(file, image, psf, tmp_path, name):
    finish(run_task_iter(_task(file, psf, tmp_path / name)))
    whole = deconvolve(image, psf, SIX)
    np.testing.assert_array_equal(_read(tmp_path / name), whole.data)


@pytest.mark.parametrize("name", ["r.ome.zarr", "r.ome.tif"])
def test_blended_tiles_are_near_the_whole(file, image, psf, tmp_path, name):
    method = RichardsonLucy(iterations=6, acceleration="none")
    finish(run_task_iter(_task(file, psf, tmp_path / name, tile=32, method=method)))
    assert len(_plan(tmp_path / name).tiles) > 8
    whole = deconvolve(image, psf, method)
    found = _read(tmp_path / name)
    assert phantoms.nrmse(found, whole.data) < 3e-3
    assert np.abs(found - whole.data).max() < 0.02 * whole.data.max()


def test_blocks_of_a_network_are_the_whole(file, image, tmp_path):
    model = load_model("bead-paper")  # starts from the image: nothing is deconvolved in tiles
    out = tmp_path / "r.ome.zarr"
    image = Volume(data=image.data, voxel_um=model.psf.voxel_um, name=image.name)
    file = ImageFile(path=file.path, voxel_um=model.psf.voxel_um)
    network = Network(model=model)
    finish(run_task_iter(_task(file, None, out, method=network, tile=64)))
    whole = deconvolve(image, None, network).data
    assert len(_plan(out).blocks) > 4
    np.testing.assert_allclose(_read(out), whole, atol=2e-5 * whole.max())


def test_a_started_network_in_one_tile_is_the_whole(file, image, psf, tmp_path):
    out = tmp_path / "r.ome.zarr"
    outcome = finish(run_task_iter(_task(file, psf, out, method=Network())))
    whole = deconvolve(image, psf, Network())
    np.testing.assert_allclose(_read(out), whole.data, atol=2e-5 * whole.data.max())
    assert outcome.summary["iterations"] == whole.record.facts["start_iterations"]
    assert outcome.summary["flux_ratio"] == pytest.approx(
        whole.record.facts["flux_ratio"], rel=1e-4
    )


def test_a_started_network_in_tiles_is_near_the_whole(file, image, psf, tmp_path):
    out = tmp_path / "r.ome.zarr"
    finish(run_task_iter(_task(file, psf, out, method=Network(), tile=64)))
    whole = deconvolve(image, psf, Network()).data
    assert phantoms.nrmse(_read(out), whole) < 0.05


def test_weights_of_tiles_add_up_to_one(psf):
    plan = _plan_for((40, 130, 66), psf, RichardsonLucy(), 10, memory=10**9, side=32)
    assert len(plan.tiles) > 8
    ones = {
        n: np.ones([k.stop - k.start for k in plan.stored_part(tile)], np.float32)
        for n, tile in enumerate(plan.tiles)
    }
    whole = tuple(slice(0, n) for n in plan.shape)
    np.testing.assert_allclose(blend(plan, whole, ones), 1, rtol=1e-6)
    for block in plan.blocks:
        needed = plan.needed(block.core)
        np.testing.assert_allclose(
            blend(plan, block.core, {n: ones[n] for n in needed}), 1, rtol=1e-6
        )


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_no_two_blocks_share_a_chunk(version):
    network = Network(model="bead-paper")
    plan = _plan_for((300, 500, 700), None, network, 0, memory=10**9, version=version)
    for block in plan.blocks:
        for part, c, n in zip(block.core, plan.chunk, plan.shape, strict=True):
            assert part.start % c == 0
            assert part.stop % c == 0 or part.stop == n
            assert part.start % 2 == 0
    assert sum(np.prod([p.stop - p.start for p in b.core]) for b in plan.blocks) == 300 * 500 * 700


def test_the_halo_grows_with_psf_and_iterations(psf):
    stage = RichardsonLucy().tiles
    few, many = (stage.halo(psf, {"iterations": n}) for n in (10, 100))
    assert all(m > f for f, m in zip(few, many, strict=True))
    wide = phantoms.gaussian_psf(sigma=(4, 4, 4))
    assert all(w >= f for f, w in zip(few, stage.halo(wide, {"iterations": 10}), strict=True))


def test_less_memory_makes_smaller_tiles():
    sizes = []
    for memory in (4 * 10**8, 8 * 10**9):
        plan = _plan_for((2000,) * 3, phantoms.gaussian_psf(), Network(), 20, memory=memory)
        sizes.append((np.prod(plan.core), np.prod(plan.block)))
    assert sizes[0][0] < sizes[1][0]
    assert sizes[0][1] < sizes[1][1]


@pytest.mark.parametrize("model", [None, "bead-paper"])
def test_what_is_looked_at_comes_first_and_changes_nothing(file, image, psf, tmp_path, model):
    first = (slice(20, 21), slice(100, 131), slice(110, 150))
    outs, orders = (tmp_path / "as_it_comes.ome.zarr", tmp_path / "first.ome.zarr"), []
    for out, part in zip(outs, (None, first), strict=True):
        if model is None:
            run = _task(file, psf, out, tile=32, first=part)
        else:
            net = load_model(model)
            where = ImageFile(path=file.path, voxel_um=net.psf.voxel_um)
            run = _task(where, None, out, method=Network(model=net), tile=32, first=part)
        reports = []
        finish(_collected(run_task_iter(run), reports))
        orders.append([report.box for report in reports if report.phase == "tiles"])
    assert _checksums(outs[0]) == _checksums(outs[1])
    assert sorted(map(str, orders[0])) == sorted(map(str, orders[1]))
    seen = [overlap(box, first) for box in orders[1]]
    # Those that are computed at once may change places with the next.
    assert all(seen[: sum(seen) - 1])
    assert not all(overlap(box, first) for box in orders[0][: sum(seen)])


def test_an_interrupted_run_goes_on_and_is_equal_to_the_bit(file, psf, whole, tmp_path):
    broken = tmp_path / "broken.ome.zarr"
    _interrupted(run_task_iter(_task(file, psf, broken, tile=32)), 5)
    assert not broken.exists()
    folder = RunFolder(broken)
    done = {key: entry for key, entry in folder.finished().items() if key.level == 0}
    stamps = {key: entry["checksum"] for key, entry in done.items()}
    reports = []
    again = run_task_iter(_task(file, psf, broken, tile=32))
    outcome = finish(_collected(again, reports))
    assert outcome.summary
    assert sum(r.phase == "check" and r.box is not None for r in reports) == len(done)
    rewritten = sum(report.phase == "tiles" for report in reports)
    total = len([key for key in _checksums(whole) if key[1] == 0])
    assert rewritten == total - len(done)
    assert _checksums(broken) == _checksums(whole)
    assert stamps.items() <= {Key(*k): v for k, v in _checksums(broken).items()}.items()
    assert not folder.part.exists()


def _interrupted(steps, blocks=1):
    """Close a run when so many of its blocks are written."""
    written = (report for report in steps if report.phase == "tiles")
    assert len(list(itertools.islice(written, blocks))) == blocks
    steps.close()


def _collected(steps, reports):
    while True:
        try:
            report = next(steps)
        except StopIteration as stop:
            return stop.value
        reports.append(report)
        yield report


_DRIVER = """
import sys
from napari_rln.engine.task import Task
from napari_rln.engine.in_parts import run_task_iter
from napari_rln.engine.execution import Execution, Output
from napari_rln.io.volumes import read
from napari_rln.deconvolution.classical import RichardsonLucy
from napari_rln.io.image import ImageFile
from pathlib import Path
image, psf, out = sys.argv[1:]
task = Task(image=ImageFile(path=image), psf=read(psf), output=Output(path=Path(out)),
            method=RichardsonLucy(iterations=6), execution=Execution(tile=32))
for report in run_task_iter(task):
    print(report.phase, flush=True)
"""


def test_a_driver_killed_at_once_is_resumed(file, psf, whole, tmp_path):
    write(psf, tmp_path / "psf.ome.tif")
    psf = read(tmp_path / "psf.ome.tif")
    broken = tmp_path / "broken.ome.zarr"
    driver = subprocess.Popen(
        [sys.executable, "-c", _DRIVER, file.path, tmp_path / "psf.ome.tif", broken],
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    with driver:
        for line in driver.stdout:
            if line.strip() == "tiles":
                driver.send_signal(signal.SIGKILL)
                break
    assert driver.returncode == -signal.SIGKILL
    assert not broken.exists()
    assert RunFolder(broken).finished()
    finish(run_task_iter(_task(file, psf, broken, tile=32)))
    assert _checksums(broken) == _checksums(whole)


def test_a_worker_that_dies_is_replaced(file, psf, whole, tmp_path):
    broken = tmp_path / "broken.ome.zarr"
    threads, environment = torch.get_num_threads(), dict(os.environ)
    killed = None
    for report in (steps := run_task_iter(_task(file, psf, broken, tile=32, workers=2))):
        if report.phase == "tiles" and killed is None:
            killed = next(
                child for child in psutil.Process().children(recursive=True)
                if "spawn_main" in " ".join(child.cmdline())
            )  # fmt: skip
            killed.kill()
    del steps
    assert killed is not None
    assert torch.get_num_threads() == threads  # those of two workers are not this process's
    environment |= {"PYTEST_CURRENT_TEST": os.environ["PYTEST_CURRENT_TEST"]}
    assert dict(os.environ) == environment
    assert _checksums(broken) == _checksums(whole)


def test_the_workers_of_a_scheduler_do_it(file, psf, whole, tmp_path):
    from distributed import LocalCluster

    out = tmp_path / "r.ome.zarr"
    with LocalCluster(
        n_workers=1, threads_per_worker=8, processes=False, dashboard_address=None
    ) as cluster:
        scheduler = cluster.scheduler_address
        outcome = finish(run_task_iter(_task(file, psf, out, tile=32, scheduler=scheduler)))
    assert outcome.summary["workers"] == 1
    np.testing.assert_allclose(_read(out), _read(whole), atol=1e-4 * _read(whole).max())


def test_a_part_without_light_stays_dark(psf, tmp_path):
    data = np.zeros(SHAPE, np.float32)
    data[:, :60, :70] = phantoms.spots((21, 60, 70), level=300.0)
    write(Volume.from_array(data, psf.voxel_um), tmp_path / "half.ome.tif")
    file = ImageFile(path=str(tmp_path / "half.ome.tif"))
    out = tmp_path / "r.ome.zarr"
    method = RichardsonLucy(iterations=6, background=0.0)
    finish(run_task_iter(_task(file, psf, out, tile=32, method=method)))
    result = _read(out)
    assert np.isfinite(result).all()
    assert result[:, 100:, 110:].max() < 1e-3 * result.max()


def test_the_light_is_told_of_a_resumed_run_too(file, psf, whole, tmp_path):
    broken = tmp_path / "broken.ome.zarr"
    expected = _manifest(whole)["summary"]["flux_ratio"]
    _interrupted(run_task_iter(_task(file, psf, broken, tile=32)), 3)
    found = finish(run_task_iter(_task(file, psf, broken, tile=32))).summary["flux_ratio"]
    assert found == pytest.approx(expected, rel=1e-9)


def test_a_result_is_never_written_over_its_image(file, psf, tmp_path):
    before = Path(file.path).read_bytes()
    run = _task(file, psf, Path(file.path), overwrite=True)
    with pytest.raises(RlnError, match=r"lie on or in .*spots\.ome\.tif"):
        finish(run_task_iter(run))
    assert Path(file.path).read_bytes() == before


def test_an_old_result_stays_until_the_new_one_is_complete(file, psf, tmp_path):
    out = tmp_path / "r.ome.zarr"
    finish(run_task_iter(_task(file, psf, out, tile=32)))
    old = _read(out)
    anew = _task(file, psf, out, tile=32, method=RichardsonLucy(iterations=9),
                overwrite=True)  # fmt: skip
    _interrupted(run_task_iter(anew))
    np.testing.assert_array_equal(_read(out), old)
    reports = []
    finish(_collected(run_task_iter(anew), reports))
    assert reports[0].phase == "plan"  # it went on: nothing was looked at again
    assert _manifest(out)["summary"]["iterations"] == 9
    assert not np.array_equal(_read(out), old)


def test_an_image_that_was_moved_is_read_where_it_is(file, psf, tmp_path):
    out = tmp_path / "r.ome.zarr"
    _interrupted(run_task_iter(_task(file, psf, out, tile=32)))
    elsewhere = tmp_path / "elsewhere.ome.tif"
    Path(file.path).rename(elsewhere)
    finish(run_task_iter(_task(ImageFile(path=str(elsewhere)), psf, out, tile=32)))
    assert out.exists()


def test_a_single_plane_is_run(psf, tmp_path):
    plane = phantoms.spots((5, 60, 70), level=300.0)[2:3] + 10
    write(Volume.from_array(plane, psf.voxel_um), tmp_path / "plane.ome.tif")
    flat = Volume(data=psf.data[4:5] / psf.data[4].sum(), voxel_um=psf.voxel_um)
    for name in ("r.ome.tif", "r.ome.zarr"):
        run = _task(ImageFile(path=str(tmp_path / "plane.ome.tif")), flat, tmp_path / name)
        finish(run_task_iter(run))
        assert _read(tmp_path / name).shape == (1, 60, 70)


def test_other_settings_on_the_same_result_are_refused(file, psf, tmp_path):
    out = tmp_path / "r.ome.zarr"
    _interrupted(run_task_iter(_task(file, psf, out, tile=32)))
    other = _task(file, psf, out, tile=32, method=RichardsonLucy(iterations=7))
    with pytest.raises(RlnError, match="iterations 6, not 7"):
        finish(run_task_iter(other))
    finish(run_task_iter(_task(file, psf, out, tile=32)))
    with pytest.raises(RlnError, match="iterations 6, not 7"):
        finish(run_task_iter(other))
    again = finish(run_task_iter(_task(file, psf, out, tile=32)))
    assert not again.computed
    assert again.summary["iterations"] == 6
    anew = _task(file, psf, out, tile=32, method=RichardsonLucy(iterations=7),
                overwrite=True)  # fmt: skip
    assert finish(run_task_iter(anew)).summary["iterations"] == 7


def test_what_is_there_from_elsewhere_is_not_touched(file, psf, tmp_path):
    out = tmp_path / "r.ome.tif"
    out.write_text("precious")
    with pytest.raises(RlnError, match="`overwrite`"):
        finish(run_task_iter(_task(file, psf, out)))
    assert out.read_text() == "precious"


def test_two_runs_do_not_write_one_result(file, psf, tmp_path):
    out = tmp_path / "r.ome.zarr"
    first = run_task_iter(_task(file, psf, out, tile=32))
    next(first)
    with pytest.raises(RlnError, match="another run is writing"):
        next(run_task_iter(_task(file, psf, out, tile=32)))
    first.close()


def test_a_full_disk_stops_the_run_which_then_goes_on(file, psf, whole, tmp_path, monkeypatch):
    import napari_rln.engine.worker as work

    out = tmp_path / "r.ome.zarr"
    save, count = np.save, itertools.count()

    def full(file, data):
        if next(count) == 20:
            raise OSError(28, "No space left on device")
        save(file, data)

    with monkeypatch.context() as patch:
        patch.setattr(work.np, "save", full)
        with pytest.raises(ComputeError, match=r"the disk is full.*same command resumes"):
            finish(run_task_iter(_task(file, psf, out, tile=32)))
    finish(run_task_iter(_task(file, psf, out, tile=32)))
    assert _checksums(out) == _checksums(whole)


def test_a_damaged_chunk_is_done_again(file, psf, whole, tmp_path):
    out = tmp_path / "r.ome.zarr"
    _interrupted(run_task_iter(_task(file, psf, out, tile=32)))
    files = (RunFolder(out).result / "0").rglob("*")
    chunk = next(path for path in files if path.is_file() and path.name != "zarr.json")
    data = bytearray(chunk.read_bytes())
    data[len(data) // 3] ^= 0xFF
    chunk.write_bytes(data)
    finish(run_task_iter(_task(file, psf, out, tile=32)))
    assert _checksums(out) == _checksums(whole)
    np.testing.assert_array_equal(_read(out), _read(whole))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_bad_voxels_are_said_before_the_work(image, psf, tmp_path, bad):
    import tifffile

    data = image.data.copy()
    data[20, 60, 70] = bad
    tifffile.imwrite(tmp_path / "bad.tif", data)
    file = ImageFile(path=str(tmp_path / "bad.tif"), voxel_um=psf.voxel_um)
    with pytest.raises(RlnError, match="NaN"):
        finish(run_task_iter(_task(file, psf, tmp_path / "r.ome.zarr")))
    assert not (tmp_path / "r.ome.zarr.part").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"out": Path("r.png")}, "must end in .ome.zarr, .ome.tif or .tif"),
        ({"out": Path("nowhere/r.ome.zarr")}, "there is no folder"),
        ({"memory_gb": 0.5}, "too little"),
    ],
)
def test_what_cannot_be_run_is_said(file, psf, tmp_path, change, message):
    given = {"out": tmp_path / "r.ome.zarr"} | change
    if not given["out"].is_absolute():
        given["out"] = tmp_path / given["out"]
    with pytest.raises(RlnError, match=message):
        finish(run_task_iter(_task(file, psf, given.pop("out"), **given)))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"workers": 0}, "between 1 and"),
        ({"gpus": "0,0"}, "different numbers"),
        ({"gpus": "a"}, "different numbers"),
        ({"gpus": "0,1", "workers": 3}, "0,1"),
        ({"scheduler": "tcp://x:1", "workers": 2}, "one or the other"),
    ],
)
def test_settings_that_cannot_be(fields, message):
    with pytest.raises(RlnError, match=message):
        Execution(**fields)


def test_a_missing_scheduler_or_gpu_is_said(file, psf, tmp_path):
    gone = str(torch.cuda.device_count() + 7)
    with pytest.raises(RlnError, match="CUDA device"):
        finish(run_task_iter(_task(file, psf, tmp_path / "r.ome.zarr", gpus=gone)))


def test_the_forecast_tells_without_doing(file, psf, tmp_path):
    told = forecast(_task(file, psf, tmp_path / "r.ome.zarr", tile=32))
    rows = dict(told.rows())
    assert rows["image"].startswith("21 x 131 x 150 voxels")
    assert told.output_bytes >= 4 * np.prod(SHAPE)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["spots.ome.tif"]


def test_a_series_is_one_result(image, psf, tmp_path):
    import tifffile

    times = np.stack([image.data, 10 + (image.data - 10).clip(0) * 0.5]).astype(np.uint16)
    tifffile.imwrite(tmp_path / "series.ome.tif", times, metadata={"axes": "TZYX"})
    file = ImageFile(path=str(tmp_path / "series.ome.tif"), voxel_um=psf.voxel_um)
    for name in ("r.ome.zarr", "r.ome.tif"):
        out = tmp_path / name
        finish(run_task_iter(_task(file, psf, out, tile=64)))
        source = open_image(ImageFile(path=str(out)))
        assert source.times == 2
        assert source.voxel_um == pytest.approx(psf.voxel_um)
        box = tuple(slice(0, n) for n in source.shape)
        first, second = source.read(box, 0), source.read(box, 1)
        bright = first > 0.3 * first.max()
        assert second[bright].mean() == pytest.approx(0.5 * first[bright].mean(), rel=0.1)


def test_integers_are_rounded_and_clipped_with_a_warning(file, image, psf, tmp_path):
    out = tmp_path / "r.ome.zarr"
    with pytest.warns(UserWarning, match="clipped to uint8"):
        finish(run_task_iter(_task(file, psf, out, dtype="uint8")))
    whole = deconvolve(image, psf, SIX).data
    np.testing.assert_array_equal(_read(out), np.rint(whole).clip(0, 255))


_BOUND = """
import sys
from pathlib import Path
import numpy as np
from napari_rln.io.volumes import read
from napari_rln.engine.needs import LEAST_BYTES
from napari_rln.engine.task import Task
from napari_rln.engine.in_parts import run_task_iter
from napari_rln.engine.execution import Execution, Output
from napari_rln.core.machine import LIBRARIES_BYTES, used_bytes
from napari_rln.deconvolution.classical import RichardsonLucy
from napari_rln.io.image import ImageFile
image, psf, out = sys.argv[1:]
gb = 1.05 * (used_bytes() + LIBRARIES_BYTES + LEAST_BYTES) / 1e9 + 0.3
task = Task(image=ImageFile(path=image, voxel_um=(0.2, 0.1, 0.1)), psf=read(psf),
            output=Output(path=Path(out)), execution=Execution(memory_gb=gb),
            method=RichardsonLucy(iterations=1, acceleration="none"))
steps = run_task_iter(task)
try:
    while True:
        next(steps)
except StopIteration as stop:
    print(1000 * gb, stop.value.summary["peak_mb"])
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the peak of a process is read from /proc")
def test_memory_stays_within_its_bound_on_a_volume_that_is_larger(psf, tmp_path):
    shape = 64, 640, 640  # of which a run in memory takes 2.8 GB
    import zarr

    array = zarr.create_array(
        tmp_path / "big.zarr", shape=shape, chunks=(32, 128, 128), dtype="uint16",
        dimension_names=["z", "y", "x"],
    )  # fmt: skip
    noise = np.random.default_rng(0).poisson(20, (32, 128, 128)).astype(np.uint16)
    for z in range(0, shape[0], 32):
        array[z : z + 32] = np.tile(noise, (1, 5, 5))
    write(psf, tmp_path / "psf.ome.tif")
    found = subprocess.run(
        [sys.executable, "-c", _BOUND,
         tmp_path / "big.zarr", tmp_path / "psf.ome.tif", tmp_path / "r.ome.zarr"],
        capture_output=True, text=True, check=False,
        env=os.environ | {"XDG_CACHE_HOME": str(tmp_path / "cache")},
    )  # fmt: skip
    assert found.returncode == 0, found.stderr
    bound, peak = map(float, found.stdout.split())
    assert peak < bound


@pytest.mark.parametrize("dtype", ["float32", "uint16"])
def test_a_plain_tif_in_parts_is_the_file_that_the_whole_gives(file, psf, tmp_path, dtype):
    out = tmp_path / "r.tif"
    run = _task(file, psf, out, tile=32, dtype=dtype)
    finish(run_task_iter(run))
    assert len(_plan(out).tiles) > 8
    parts = read(out)
    write(parts, tmp_path / "whole.tif", dtype=dtype)
    with tifffile.TiffFile(out) as one, tifffile.TiffFile(tmp_path / "whole.tif") as other:
        assert one.is_imagej
        assert one.imagej_metadata == other.imagej_metadata
        np.testing.assert_array_equal(one.asarray(), other.asarray())
        assert one.series[0].dtype == dtype
        assert one.series[0].dataoffset == other.series[0].dataoffset  # in one piece
    assert parts.voxel_um == psf.voxel_um
    assert parts.record.method == "rld"
    assert sorted(p.name for p in tmp_path.iterdir() if "r.tif" in p.name) == [
        "r.tif", "r.tif.run.json"
    ]  # fmt: skip
    assert not finish(run_task_iter(run)).computed  # complete already


def test_what_imagej_cannot_hold_is_refused_with_the_name_that_can(file, psf, tmp_path):
    source = open_image(file)
    source.shape = (2000, 1000, 1000)
    with pytest.raises(RlnError, match=r"r\.tif would hold 8\.0 GB, .* name it r\.ome\.tif"):
        check_plain(tmp_path / "r.tif", source, "float32")
    check_plain(tmp_path / "r.ome.tif", source, "float32")
    check_plain(tmp_path / "r.tif", source, "uint16")
    source.times = 2
    with pytest.raises(RlnError, match=r"2 time points .* r\.ome\.tif"):
        check_plain(tmp_path / "r.tif", source, "uint8")
