"""What a run will take, and what is missing for it, before it is started."""

import math
import shutil
import subprocess
import sys
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import phantoms
import pytest

from napari_rln import cli
from napari_rln.core.device import resolve_device
from napari_rln.core.errors import RlnError
from napari_rln.core.volume import Volume
from napari_rln.deconvolution.classical import (
    READ_BYTES,
    RichardsonLucy,
    residual_bytes,
    search_bytes,
)
from napari_rln.deconvolution.method import Observation
from napari_rln.deconvolution.prepared_view import PreparedView
from napari_rln.deconvolution.settings import memory_bytes
from napari_rln.deconvolution.stopping import structured_crop, structured_shape
from napari_rln.engine.division import make_plan
from napari_rln.engine.execution import Execution, Output
from napari_rln.engine.executors import Room
from napari_rln.engine.forecast import forecast, least_memory
from napari_rln.engine.history import remember
from napari_rln.engine.needs import plan_of, reserved_bytes, worker_memory
from napari_rln.engine.task import Task
from napari_rln.io.image import ImageFile, open_image
from napari_rln.io.volumes import write
from napari_rln.networks.network import Network

SHAPE = (48, 256, 320)
FORTY = RichardsonLucy(iterations=40)


@pytest.fixture(scope="module")
def psf():
    return phantoms.gaussian_psf()


@pytest.fixture
def file(psf, tmp_path):
    image = Volume.from_array(np.ones(SHAPE, np.uint8), psf.voxel_um)
    write(image, tmp_path / "image.ome.tif", dtype="uint8")
    return ImageFile(path=str(tmp_path / "image.ome.tif"))


@pytest.fixture
def of_400_mb(monkeypatch):
    """Have this process take 400 MB, whatever was loaded into it, of 8 GB."""
    seen = {"device": "cpu", "device_free": 8 * 10**9, "ram": 8 * 10**9, "used": 4 * 10**8}
    monkeypatch.setattr("napari_rln.engine.forecast.survey", lambda *_: seen)
    return seen


def _task(file, psf, out, *, method=FORTY, **execution):
    return Task(
        image=file, psf=psf, method=method, output=Output(path=out),
        execution=Execution(**execution),
    )  # fmt: skip


def test_what_fits_lacks_nothing(file, psf, tmp_path, of_400_mb):
    told = forecast(_task(file, psf, tmp_path / "r.ome.tif", memory_gb=2.0))
    assert told.missing == ()
    assert 0.5e9 < told.memory_bytes < 2e9
    assert told.stored_bytes == told.output_bytes == 4 * math.prod(SHAPE)
    assert told.most_bytes > told.stored_bytes


@pytest.mark.parametrize("method", ["rld", "rln"])
@pytest.mark.parametrize("much", [0.5, 0.7])
def test_too_little_memory_is_told_with_how_much_is_enough(
    file, psf, tmp_path, of_400_mb, method, much
):
    chosen = {"rld": FORTY, "rln": Network()}[method]

    def asked(memory_gb):
        return _task(file, psf, tmp_path / "r.ome.zarr", method=chosen, memory_gb=memory_gb)

    (said,) = forecast(asked(much)).missing
    assert said.startswith(f"memory: `memory_gb` is {much:g};")
    enough = float(said.split()[-3])
    assert forecast(asked(enough)).missing == ()
    # And that is no more than it takes, to some per cent.
    assert forecast(asked(round(enough - 0.1, 2))).missing


def test_what_it_says_fits_is_not_refused_by_the_run(file, psf, tmp_path, of_400_mb):
    source = open_image(file)
    for much in np.arange(0.8, 1.4, 0.1):
        task = _task(file, psf, tmp_path / "r.ome.tif", memory_gb=float(much))
        told = forecast(task)
        if told.missing:
            continue
        taken = of_400_mb["used"] + 4 * math.prod(SHAPE)  # with the samples
        memory, ram = worker_memory(task, Room(10**10, taken, "cpu", 10**10, 1))
        assert plan_of(task, source, {"iterations": 40}, "cpu", memory, ram) == told.plan


def test_an_image_that_might_take_more_iterations_than_usual_is_told_of(
    file, psf, tmp_path, of_400_mb
):
    task = _task(file, psf, tmp_path / "r.ome.tif", method=RichardsonLucy(max_iterations=10_000))
    assert forecast(task).missing == ()
    of_400_mb["ram"] = 10**9
    few = forecast(task)
    assert few.missing == () or "perhaps" in few.missing[0] or "have to be free" in few.missing[0]


def test_a_full_disk_is_told_by_how_much(file, psf, tmp_path, of_400_mb, monkeypatch):
    usage = SimpleNamespace(total=10**9, used=0, free=10_000_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    task = _task(file, psf, tmp_path / "r.ome.tif")
    told = forecast(task)
    needed = reserved_bytes(task, told.plan)
    assert needed >= 8 * math.prod(SHAPE)  # the result, and what waits to be blended
    (said,) = told.missing
    assert said.startswith(f"disk: up to {needed / 1e9:.3g} GB may be needed in ")
    assert said.endswith(f"{needed / 1e9 - 0.01:.3g} GB more than are free")


def test_a_plain_tif_is_copied_in_the_end(file, psf, tmp_path, of_400_mb):
    told = forecast(_task(file, psf, tmp_path / "r.tif", tile=64))
    assert told.most_bytes >= 2 * told.stored_bytes
    zarr = forecast(_task(file, psf, tmp_path / "r.ome.zarr"))
    assert zarr.stored_bytes < zarr.output_bytes
    assert "before compression" in dict(zarr.rows())["disk"]


def test_tiles_wait_for_blocks_that_are_as_wide_as_the_image(file, psf, tmp_path, of_400_mb):
    plan = forecast(_task(file, psf, tmp_path / "r.ome.tif", tile=48)).plan
    narrow, wide = (replace(plan, block=(48, 64, x)).scratch_bytes() for x in (64, 320))
    # Two rows of tiles along y and all of x, not two columns along x, the longest axis.
    assert wide > 1.1 * narrow


def test_the_least_that_is_enough_is_found():
    plan = object()
    found, much = least_memory(lambda much: plan if much >= 12_345_678_901 else None, 5)
    assert found is plan
    assert 12_345_678_901 <= much < 1.01 * 12_345_678_901
    assert least_memory(lambda _: None, 5) is None


@pytest.mark.parametrize("name", ["r.tif", "r.ome.zarr"])
def test_a_dry_run_never_refuses_for_want_of_memory(file, psf, tmp_path, capsys, monkeypatch, name):
    earlier = tmp_path / "earlier" / "seconds.json"
    monkeypatch.setattr("napari_rln.engine.history._path", lambda: earlier)
    remember(RichardsonLucy(), resolve_device().type, math.prod(SHAPE), {"seconds": 60.0})
    write(psf, tmp_path / "psf.ome.tif")
    words = ["rld", file.path, "--psf", str(tmp_path / "psf.ome.tif"), "--dry-run", "-o"]
    assert cli.run([*words, str(tmp_path / name), "--memory-gb", "0.5"]) == 0
    said = capsys.readouterr().out
    assert "missing" in said
    assert "memory" in said
    assert "about 60 s, by earlier runs" in said
    assert not list(tmp_path.glob("r.*"))


# Of a volume in memory

IMAGE, PSF = (64, 256, 256), (31, 31, 31)


@pytest.mark.parametrize("shape", [(64, 256, 256), (40, 201, 101), (1, 2000, 300), (300, 90, 90)])
@pytest.mark.parametrize("psf", [(31, 31, 31), (1, 9, 9), (79, 125, 125)])
def test_the_part_is_as_large_as_the_one_that_is_cut_out(shape, psf):
    cut = structured_crop(np.zeros(shape, np.float32), psf)
    assert structured_shape(shape, psf) == np.zeros(shape)[cut].shape


@pytest.mark.parametrize(
    "settings",
    [
        {}, {"tv": 0.01}, {"precision": "float64"}, {"acceleration": "none"},
        {"border": "periodic"}, {"back_projector": "butterworth"},
    ],
)  # fmt: skip
def test_memory_is_that_of_the_run_and_of_the_check_at_its_end(settings):
    method = RichardsonLucy(iterations=40, **settings)
    expected = memory_bytes(IMAGE, PSF, method) + residual_bytes(IMAGE, PSF)
    assert method.needed_bytes(IMAGE, PSF) == expected + READ_BYTES * math.prod(IMAGE)
    auto = replace(method, iterations="auto")  # which searches in a part
    more = auto.needed_bytes(IMAGE, PSF) - method.needed_bytes(IMAGE, PSF)
    assert more == search_bytes(IMAGE, PSF, auto) > 0


_TAKEN = """
import numpy as np
from scipy.ndimage import gaussian_filter
from napari_rln.core.machine import peak_bytes, used_bytes
from napari_rln.core.volume import Volume
from napari_rln.deconvolution.classical import RichardsonLucy
from napari_rln.engine.in_memory import deconvolve
def images():
    for shape in ((32, 40, 40), (48, 192, 192)):
        yield Volume.from_array(np.random.default_rng(0).poisson(100, shape), (0.2, 0.1, 0.1))
point = np.zeros((31, 31, 31))
point[15, 15, 15] = 1
psf = gaussian_filter(point, 4.0)
psf = Volume.from_array(psf / psf.sum(), (0.2, 0.1, 0.1))
method = RichardsonLucy(iterations=2, background=10.0, device="cpu")
small, image = images()
deconvolve(small, psf, method)  # loads the libraries
before = used_bytes() - image.data.nbytes
deconvolve(image, psf, method)
print(peak_bytes() - before, method.needed_bytes(image.shape, psf.shape))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the peak of a process is read from /proc")
def test_the_memory_that_is_foretold_is_what_is_taken():
    found = subprocess.run(
        [sys.executable, "-c", _TAKEN], capture_output=True, text=True, check=False
    )
    assert found.returncode == 0, found.stderr
    taken, foretold = map(float, found.stdout.split())
    assert 0.8 * foretold < taken < 1.1 * foretold


def test_what_fits_is_held_against_what_is_free(psf, monkeypatch):
    image = Volume.from_array(np.ones((4, 8, 8)), psf.voxel_um)
    scene = Observation.of(
        PreparedView(image=image, psf=psf, calibration=None), resolve_device("cpu")
    )
    method = RichardsonLucy()
    assert scene.fits_whole(method.needed_bytes((8, 64, 64), PSF))
    assert not scene.fits_whole(method.needed_bytes((1000, 10_000, 10_000), PSF))
    monkeypatch.setattr("napari_rln.core.device.free_bytes", lambda device: 5)
    assert [scene.fits_whole(needed) for needed in (5, 6)] == [True, False]


def test_a_network_takes_the_memory_that_it_may(file, psf, tmp_path, of_400_mb):
    model = phantoms.small_model()
    network = Network(model=model)
    assert network.needed_bytes(IMAGE, PSF) > residual_bytes(IMAGE, PSF)
    told = forecast(_task(file, psf, tmp_path / "r.ome.tif", method=network, memory_gb=4.0))
    assert told.memory_bytes < 4e9
    exact = Network(model=model, precision="float64")
    assert exact.blocks.voxel_bytes("cpu") > network.blocks.voxel_bytes("cpu")
    image, wide = Volume.from_array(np.ones(IMAGE), psf.voxel_um), (63, 255, 255)
    with pytest.raises(RlnError, match="crop the PSF"):
        make_plan(
            image, 1, phantoms.gaussian_psf(wide), network, {"iterations": 10}, form="tiff",
            version="0.5", kind="cpu", memory=10**8, ram=10**9,
        )  # fmt: skip
