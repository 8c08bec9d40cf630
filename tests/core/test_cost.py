"""Costs: they grow as the work does, with a made-up speed."""

import math
from dataclasses import replace

import numpy as np
import phantoms
import pytest
from napari_rln.engine.cost import Cost, rld_cost, rln_cost
from napari_rln.engine.speed import Line, Speed

from napari_rln.core.device import free_bytes, resolve_device
from napari_rln.core.errors import RlnError
from napari_rln.deconvolution.classical import RichardsonLucy, memory_bytes
from napari_rln.deconvolution.convolution import padded_shape
from napari_rln.deconvolution.stopping import telling_crop, telling_shape
from napari_rln.networks.initial_estimate import StartSettings
from napari_rln.networks.network import CHECK_BYTES, RlnSettings, checking_bytes

NOTHING = Line(0.0, 0.0)
SPEED = Speed(
    device="cpu",
    iteration=(1e-3, 1e-8),
    setup=(1e-2, 2e-8),
    search=(1e-2, 3e-7),
    network=(1e-2, 1e-7),
    check=(0.0, 2e-7),
    network_voxel_bytes=32,
)
ONLY = dict.fromkeys(("iteration", "setup", "search", "network", "check"), NOTHING)
"""What a speed is made of, for one in which a single part takes time."""

IMAGE, PSF = (64, 256, 256), (31, 31, 31)
WORK = math.prod(padded_shape(IMAGE, PSF, "extended"))


def _rld(image=IMAGE, psf=PSF, *, speed=SPEED, **settings) -> Cost:
    return rld_cost(image, psf, RichardsonLucy(device="cpu", **settings), speed)


def _rln(image=IMAGE, psf=PSF, *, start=None, speed=SPEED, **settings) -> Cost:
    model = phantoms.small_model(start=start or StartSettings(iterations=10))
    return rln_cost(image, psf, model, RlnSettings(device="cpu", **settings), speed)


# Richardson-Lucy


def test_seconds_are_setup_and_iterations():
    expected = 1e-2 + 2e-8 * WORK + 20 * (1e-3 + 1e-8 * WORK)
    assert _rld(iterations=20).seconds == pytest.approx(expected)


def test_seconds_grow_with_iterations_and_voxels():
    once = _rld(iterations=10).seconds
    assert _rld(iterations=20).seconds - once == pytest.approx(
        _rld(iterations=30).seconds - _rld(iterations=20).seconds
    )
    only = Speed(device="cpu", network_voxel_bytes=32, **ONLY | {"iteration": (0.0, 1e-8)})
    for shape in ((64, 256, 512), (128, 256, 256)):
        ratio = math.prod(padded_shape(shape, PSF, "extended")) / WORK
        more = _rld(shape, iterations=10, speed=only).seconds
        assert more / _rld(iterations=10, speed=only).seconds == pytest.approx(ratio)
    assert _rld(psf=(63, 63, 63), iterations=10).seconds > once
    assert _rld(iterations=10, border="periodic").seconds < once


@pytest.mark.parametrize(
    "slower", [{"tv": 0.005}, {"precision": "float64"}, {"tv": 0.005, "precision": "float64"}]
)
def test_what_takes_longer_costs_more(slower):
    for same in ({"iterations": 30}, {}, {"back_projector": "wiener-butterworth"}):
        assert _rld(**same, **slower).seconds > 1.3 * _rld(**same).seconds


def test_where_it_stops_by_itself_it_searches_on_a_part_first():
    searching = Speed(device="cpu", network_voxel_bytes=32, **ONLY | {"search": (0.0, 1e-7)})
    part = telling_shape(IMAGE, PSF)
    assert _rld(speed=searching).seconds == pytest.approx(1e-7 * math.prod(part))
    assert _rld(speed=searching, iterations=40).seconds == 0
    iterating = Speed(device="cpu", network_voxel_bytes=32, **ONLY | {"iteration": (1.0, 0.0)})
    assert _rld(speed=iterating).seconds == 81  # sought in 41, 40 done
    assert _rld(speed=iterating, max_iterations=20).seconds == 41
    assert _rld(speed=iterating, acceleration="none").seconds > 150
    assert _rld(speed=iterating, back_projector="wiener-butterworth").seconds == pytest.approx(
        0.93 * (26 + 19)
    )


@pytest.mark.parametrize("shape", [(64, 256, 256), (40, 201, 101), (1, 2000, 300), (300, 90, 90)])
@pytest.mark.parametrize("psf", [(31, 31, 31), (1, 9, 9), (79, 125, 125)])
def test_the_part_is_as_large_as_the_one_that_is_cut_out(shape, psf):
    cut = telling_crop(np.zeros(shape, np.float32), psf)
    assert telling_shape(shape, psf) == np.zeros(shape)[cut].shape


@pytest.mark.parametrize(
    "settings",
    [
        {}, {"tv": 0.01}, {"precision": "float64"}, {"acceleration": "none"},
        {"border": "periodic"}, {"back_projector": "butterworth"},
    ],
)  # fmt: skip
def test_memory_is_that_of_the_run_and_of_the_check_at_its_end(settings):
    expected = memory_bytes(IMAGE, PSF, RichardsonLucy(**settings)) + checking_bytes(IMAGE, PSF)
    assert _rld(**settings).bytes == expected


def test_what_fits_is_held_against_what_is_free():
    cost = _rld()
    assert cost.fits
    assert cost.free_bytes == pytest.approx(free_bytes(resolve_device("cpu")), rel=0.5)
    assert not _rld((1000, 10_000, 10_000)).fits
    assert Cost(seconds=1.0, bytes=5, free_bytes=5).fits


# The network


def test_a_network_starts_with_a_deconvolution():
    only = Speed(device="cpu", network_voxel_bytes=32, **ONLY | {"iteration": (1.0, 0.0)})
    assert _rln(speed=only).seconds == 10
    auto = StartSettings(iterations="auto", beyond=1.5)
    assert _rln(speed=only, start=auto).seconds == 41 + 60
    paper = phantoms.small_model("paper")
    cost = rln_cost(IMAGE, None, paper, RlnSettings(device="cpu"), SPEED)
    assert cost.seconds == pytest.approx(1e-2 + 1e-7 * math.prod(IMAGE))
    checked = rln_cost(IMAGE, PSF, paper, RlnSettings(device="cpu"), SPEED)
    assert checked.seconds - cost.seconds == pytest.approx(2e-7 * WORK)


def test_tiles_cost_their_overlap():
    only = Speed(device="cpu", network_voxel_bytes=32, **ONLY | {"network": (0.0, 1.0)})
    whole = _rln(speed=only).seconds
    assert whole == math.prod(IMAGE)
    assert _rln(speed=only, tile=64).seconds > 1.5 * whole
    assert _rln(speed=only, tile=32).seconds > _rln(speed=only, tile=64).seconds
    assert _rln(speed=only, tile=256).seconds == whole


def test_a_network_takes_the_memory_that_it_may(monkeypatch):
    monkeypatch.setattr("napari_rln.core.machine.taken_bytes", lambda: 0)
    large = (256, 1024, 1024)
    with pytest.raises(
        RlnError, match=r"takes \d+\.\d\d GB with the program but `memory_gb` is 2;"
    ):
        _rln(large, memory_gb=2.0)
    assert _rln(large, memory_gb=60.0).bytes > CHECK_BYTES * math.prod(large)
    assert _rln(memory_gb=4.0).bytes < 4e9
    assert not _rln(memory_gb=99_999.0).fits
    assert _rln(precision="float64").bytes > _rln().bytes
    assert _rln(precision="float64").seconds > _rln().seconds
    monkeypatch.setattr("napari_rln.engine.cost.bytes_allowed", lambda *_: 30_000_000)
    with pytest.raises(RlnError, match="crop the PSF"):
        _rln(psf=(63, 255, 255))


# What cannot be


def test_what_is_no_shape_is_refused():
    for shape in ((64, 64), (0, 64, 64), (64, 64, 64, 64)):
        with pytest.raises(RlnError, match="is no shape; give three sizes"):
            _rld(shape)
        with pytest.raises(RlnError, match="is no shape"):
            _rld(psf=shape)
        with pytest.raises(RlnError, match="is no shape"):
            _rln(shape)


def test_a_model_that_needs_a_psf_is_not_estimated_without():
    with pytest.raises(RlnError, match="give the PSF's shape"):
        _rln(psf=None)


def test_the_speed_of_another_device_is_refused(monkeypatch):
    monkeypatch.setattr("napari_rln.engine.cost.resolve_device", lambda name: name)
    with pytest.raises(RlnError, match="measured on cuda but the run is for cpu"):
        _rld(speed=replace(SPEED, device="cuda"))
