"""Long work in steps: its result, its reports as others, its own time."""

import gc
import inspect
import weakref

import numpy as np
import pytest

from napari_rln.core import generators
from napari_rln.core.generators import Stopwatch, finish, interruptible, relay


def counting(n, result="result"):
    yield from range(n)
    return result


def test_a_work_that_is_finished_gives_its_result():
    assert finish(counting(3)) == "result"
    assert finish(counting(0, None)) is None


def test_reports_are_converted_and_the_result_is_not():
    steps = relay(counting(3, 7), str)
    assert [next(steps) for _ in range(3)] == ["0", "1", "2"]
    with pytest.raises(StopIteration) as end:
        next(steps)
    assert end.value.value == 7


@pytest.fixture
def clock(monkeypatch):
    """Return a clock that goes on only when it is told to."""

    class Clock:
        now = 100.0

        def perf_counter(self):
            return self.now

    clock = Clock()
    monkeypatch.setattr(generators, "time", clock)
    return clock


def test_a_stopwatch_stands_between_reports(clock):
    def working():
        clock.now += 2
        yield "first"
        clock.now += 3
        yield "second"
        clock.now += 4
        return "result"

    watch = Stopwatch()
    assert watch.seconds == 0
    steps = watch.follow(working())
    for report, seconds in (("first", 2), ("second", 5)):
        assert next(steps) == report
        assert watch.seconds == seconds
        clock.now += 50  # somebody looks at the report
        assert watch.seconds == seconds
    with pytest.raises(StopIteration) as end:
        next(steps)
    assert end.value.value == "result"
    assert watch.seconds == 9


def test_a_stopwatch_goes_while_the_work_does(clock):
    watch, during = Stopwatch(), []

    def working():
        clock.now += 2
        during.append(watch.seconds)
        yield

    finish(watch.follow(working()))
    finish(watch.follow(working()))
    assert during == [2, 4]


def test_a_stopwatch_that_is_closed_or_fails_ends_the_work(clock):
    watch, work = Stopwatch(), counting(3)
    steps = watch.follow(work)
    next(steps)
    steps.close()
    assert inspect.getgeneratorstate(work) == inspect.GEN_CLOSED

    def failing():
        clock.now += 6
        yield
        clock.now += 1
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        finish(watch.follow(failing()))
    assert watch.seconds == 7


def test_a_function_in_a_thread_that_fails_frees_its_data():
    held = []

    def failing():
        data = np.ones(9)
        held.append(weakref.ref(data))
        raise ValueError("no")

    def run():
        try:
            finish(interruptible(failing))
        except ValueError as error:
            return str(error)

    gc.disable()
    try:
        assert run() == "no"
        assert held[0]() is None
    finally:
        gc.enable()
