"""The speed of a machine: measured by the real code, and a line through what was measured."""

import json
import math
from dataclasses import asdict, replace

import pytest
from napari_rln.engine.cost import rld_cost
from napari_rln.engine.speed import CalibrationReport, Line, Speed, calibrate

from napari_rln.core.errors import RlnError
from napari_rln.core.generators import finish, relay
from napari_rln.deconvolution.classical import RichardsonLucy

PARTS = ("iteration", "setup", "search", "network", "check")
NOTHING = Speed(device="cpu", network_voxel_bytes=32, **dict.fromkeys(PARTS, Line(0.0, 0.0)))


def test_a_line_goes_through_two_times_and_never_falls():
    line = Line.through(10, 2.0, 30, 4.0)
    assert line == pytest.approx((1.0, 0.1))
    assert line.at(50) == pytest.approx(6.0)
    assert Line.through(10, 2.0, 20, 1.0) == pytest.approx((0.0, 0.05))
    assert Line.through(10, 0.0, 20, 1.0).fixed == 0.0


@pytest.mark.parametrize("value", [-1.0, math.nan, math.inf])
def test_what_is_no_speed_is_refused(value):
    with pytest.raises(RlnError, match="iteration is"):
        replace(NOTHING, iteration=(0.0, value))
    with pytest.raises(RlnError, match="network_voxel_bytes is"):
        replace(NOTHING, network_voxel_bytes=value)


def test_a_speed_is_measured_and_kept_as_json():
    reports = []
    speed = finish(relay(calibrate("cpu"), reports.append))
    assert len(reports) > 20  # places to cancel at
    assert {type(report) for report in reports} == {CalibrationReport}
    assert [r.done for r in reports] == sorted(r.done for r in reports)
    assert reports[-1].done < reports[-1].total
    assert speed.device == "cpu"
    for line in (speed.iteration, speed.setup, speed.search, speed.network, speed.check):
        assert 0 <= line.fixed < 1
        assert 0 <= line.per_voxel < 1
    assert min(speed.iteration.per_voxel, speed.network.per_voxel) > 0
    assert speed.network_voxel_bytes > 0
    assert Speed(**json.loads(json.dumps(asdict(speed)))) == speed
    cost = rld_cost((64, 256, 256), (31, 31, 31), RichardsonLucy(device="cpu"), speed)
    assert 0 < cost.seconds < math.inf


def test_a_device_that_is_not_there_is_refused():
    with pytest.raises(RlnError, match="unknown"):
        finish(calibrate("abacus"))


def test_a_calibration_can_be_closed():
    steps = calibrate("cpu")
    next(steps)
    steps.close()
