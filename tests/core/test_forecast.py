"""What a run from disk to disk will take, and what is missing for it, before it is started."""

import math
import shutil
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import phantoms
import pytest
from napari_rln.engine.speed import Line, Speed

from napari_rln import cli
from napari_rln.core.volume import Volume
from napari_rln.deconvolution.classical import RichardsonLucy
from napari_rln.engine.forecast import forecast, least
from napari_rln.engine.needs import computing_seconds, plan_of, reserved_bytes, worker_memory
from napari_rln.engine.task import LargeRun
from napari_rln.io.image import ImageFile, open_image
from napari_rln.io.volumes import write_volume
from napari_rln.networks.network import RlnSettings

SPEED = Speed(
    device="cpu",
    iteration=Line(1e-3, 1e-8),
    setup=Line(1e-2, 2e-8),
    search=Line(1e-2, 3e-7),
    network=Line(1e-2, 1e-7),
    check=Line(0.0, 2e-7),
    network_voxel_bytes=32,
)
SHAPE = (48, 256, 320)


@pytest.fixture(scope="module")
def psf():
    return phantoms.gaussian_psf()


@pytest.fixture
def origin(psf, tmp_path):
    image = Volume.from_array(np.ones(SHAPE, np.uint8), psf.voxel_um)
    write_volume(image, tmp_path / "image.ome.tif", dtype="uint8")
    return ImageFile(path=str(tmp_path / "image.ome.tif"))


@pytest.fixture
def of_400_mb(monkeypatch):
    """Have this process take 400 MB, whatever was loaded into it, of 8 GB."""
    seen = {"device": "cpu", "device_free": 8 * 10**9, "ram": 8 * 10**9, "taken": 4 * 10**8}
    monkeypatch.setattr("napari_rln.engine.forecast.survey", lambda *_: seen)
    return seen


def _run(origin, psf, out, **changes):
    settings = changes.pop("settings", RichardsonLucy(iterations=40))
    return LargeRun(origin=origin, psf=psf, settings=settings, out=out, **changes)


def test_what_fits_lacks_nothing(origin, psf, tmp_path, of_400_mb):
    told = forecast(_run(origin, psf, tmp_path / "r.ome.tif", memory_gb=2.0), SPEED)
    assert told.missing == ()
    assert 0.5e9 < told.memory_bytes < 2e9
    assert told.stored_bytes == told.output_bytes == 4 * math.prod(SHAPE)
    assert told.most_bytes > told.stored_bytes


@pytest.mark.parametrize("method", ["rld", "rln"])
@pytest.mark.parametrize("much", [0.5, 0.7])
def test_too_little_memory_is_told_with_how_much_is_enough(
    origin, psf, tmp_path, of_400_mb, method, much
):
    settings = RichardsonLucy(iterations=40) if method == "rld" else RlnSettings()

    def asked(memory_gb):
        return _run(origin, psf, tmp_path / "r.ome.zarr", settings=settings, memory_gb=memory_gb)

    (said,) = forecast(asked(much)).missing
    assert said.startswith(f"memory: `memory_gb` is {much:g};")
    enough = float(said.split()[-3])
    assert forecast(asked(enough)).missing == ()
    # And that is no more than it takes, to some per cent.
    assert forecast(asked(round(enough - 0.1, 2))).missing


def test_what_it_says_fits_is_not_refused_by_the_run(origin, psf, tmp_path, of_400_mb):
    source = open_image(origin)
    for much in np.arange(0.8, 1.4, 0.1):
        run = _run(origin, psf, tmp_path / "r.ome.tif", memory_gb=float(much))
        told = forecast(run)
        if told.missing:
            continue
        taken = of_400_mb["taken"] + 4 * math.prod(SHAPE)  # with the samples
        memory, ram = worker_memory(run, 10**10, taken, "cpu", 10**10, 1)
        assert plan_of(run, source, 40, "cpu", memory, ram) == told.plan


def test_an_image_that_might_take_more_iterations_than_usual_is_told_of(
    origin, psf, tmp_path, of_400_mb
):
    run = _run(origin, psf, tmp_path / "r.ome.tif", settings=RichardsonLucy(max_iterations=10_000))
    assert forecast(run).missing == ()
    of_400_mb["ram"] = 10**9
    few = forecast(run)
    assert few.missing == () or "perhaps" in few.missing[0] or "have to be free" in few.missing[0]


def test_a_full_disk_is_told_by_how_much(origin, psf, tmp_path, of_400_mb, monkeypatch):
    usage = SimpleNamespace(total=10**9, used=0, free=10_000_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    run = _run(origin, psf, tmp_path / "r.ome.tif")
    told = forecast(run)
    needed = reserved_bytes(run, told.plan)
    assert needed >= 8 * math.prod(SHAPE)  # the result, and what waits to be blended
    (said,) = told.missing
    assert said.startswith(f"disk: up to {needed / 1e9:.3g} GB may be needed in ")
    assert said.endswith(f"{needed / 1e9 - 0.01:.3g} GB more than there are")


def test_a_plain_tif_is_copied_in_the_end(origin, psf, tmp_path, of_400_mb):
    told = forecast(_run(origin, psf, tmp_path / "r.tif", tile=64))
    assert told.most_bytes >= 2 * told.stored_bytes
    zarr = forecast(_run(origin, psf, tmp_path / "r.ome.zarr"))
    assert zarr.stored_bytes < zarr.output_bytes
    assert "before compression" in dict(zarr.rows())["disk"]


def test_tiles_wait_for_blocks_that_are_as_wide_as_the_image(origin, psf, tmp_path, of_400_mb):
    plan = forecast(_run(origin, psf, tmp_path / "r.ome.tif", tile=48)).plan
    narrow, wide = (replace(plan, block=(48, 64, x)).scratch_bytes() for x in (64, 320))
    # Two rows of tiles along y and all of x, not two columns along x, the longest axis.
    assert wide > 1.1 * narrow


def test_time_is_of_all_that_is_done(origin, psf, tmp_path, of_400_mb):
    run = _run(origin, psf, tmp_path / "r.ome.tif")
    told = forecast(run, SPEED)
    computing = computing_seconds(told.plan, psf.shape, run.told, 40, None, SPEED)
    assert told.seconds > computing + 0.4e-6 * math.prod(SHAPE)
    seeking = forecast(_run(origin, psf, run.out, settings=RichardsonLucy()), SPEED)
    assert seeking.seconds > told.seconds  # the stop is sought besides
    zarr = forecast(_run(origin, psf, tmp_path / "r.ome.zarr"), SPEED)
    assert zarr.seconds > told.seconds  # levels, compression


def test_the_least_that_is_enough_is_found():
    plan = object()
    found, much = least(lambda much: plan if much >= 12_345_678_901 else None, 5)
    assert found is plan
    assert 12_345_678_901 <= much < 1.01 * 12_345_678_901
    assert least(lambda _: None, 5) is None


@pytest.mark.parametrize("name", ["r.tif", "r.ome.zarr"])
def test_a_dry_run_never_refuses_for_want_of_memory(
    origin, psf, tmp_path, capsys, monkeypatch, name
):
    monkeypatch.setattr("napari_rln.cli.parts.calibrate_apart", lambda _: SPEED)
    write_volume(psf, tmp_path / "psf.ome.tif")
    words = ["rld", origin.path, "--psf", str(tmp_path / "psf.ome.tif"), "--dry-run", "-o"]
    assert cli.run([*words, str(tmp_path / name), "--memory-gb", "0.5"]) == 0
    said = capsys.readouterr().out
    assert "missing" in said
    assert "memory" in said
    assert "time" in said
    assert not list(tmp_path.glob("r.*"))
