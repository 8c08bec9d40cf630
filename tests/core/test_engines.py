"""Who does the work: how many can, and where they listen."""

import psutil
import pytest
import torch

from napari_rln.core.errors import RlnError
from napari_rln.engine import executors as engines
from napari_rln.engine.execution import Execution
from napari_rln.engine.executors import WORKER_BYTES, start_workers, worker_count


@pytest.fixture(autouse=True)
def without_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


def _machine(monkeypatch, cores, available):
    monkeypatch.setattr(engines, "cores", lambda: cores)
    monkeypatch.setattr(engines, "available_bytes", lambda: available)


@pytest.mark.parametrize(
    ("cores", "memory", "workers", "said"),
    [
        (2, 10**12, 4096, "`workers` is 4096 but this process may use 2 cores; give at most 4"),
        (1, 10**12, 3, "but this process may use 1 cores; give at most 2"),
        (64, 4 * WORKER_BYTES, 5, r"2\.2 GB, but 1\.8 GB .* most 4"),
        (64, 10, 2, "give at most 1"),
    ],
)
def test_more_workers_than_the_machine_holds_are_refused_before_any_is_started(
    monkeypatch, tmp_path, cores, memory, workers, said
):
    _machine(monkeypatch, cores, memory)
    monkeypatch.setattr(engines, "_local", lambda *_: pytest.fail("a process was started"))
    with (
        pytest.raises(RlnError, match=said),
        start_workers(Execution(workers=workers), "cpu", tmp_path),
    ):
        pass


def test_as_many_as_fit_are_taken(monkeypatch):
    _machine(monkeypatch, 2, 4 * WORKER_BYTES)
    for count in (1, 2, 4):
        assert worker_count(Execution(workers=count), "cpu") == count
    _machine(monkeypatch, 64, 10)
    assert worker_count(Execution(workers=1), "cpu") == 1
    assert worker_count(Execution(), "cpu") == 8


def test_gpus_that_are_not_there_are_said(monkeypatch, tmp_path):
    with pytest.raises(RlnError, match="`gpus` is 7 but torch sees no CUDA device"):
        worker_count(Execution(gpus="7"), "auto")
    with pytest.raises(RlnError, match="`gpus` is 0 but `device` is cpu"):
        worker_count(Execution(gpus="0"), "cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(RlnError, match="`gpus` is 1,2 but torch sees 2 CUDA devices"):
        worker_count(Execution(gpus="1,2"), "auto")
    with pytest.raises(RlnError, match="`workers` is 3 but there are 2 GPUs"):
        worker_count(Execution(workers=3), "auto")
    assert worker_count(Execution(gpus="1"), "auto") == 1


def test_workers_listen_to_each_other_only(monkeypatch, tmp_path):
    _machine(monkeypatch, 2, 10**12)
    this = psutil.Process()
    before = {c.laddr for c in this.net_connections() if c.status == psutil.CONN_LISTEN}
    with start_workers(Execution(workers=2), "cpu", tmp_path) as found:
        assert found.count == 2
        places = [
            [c.laddr for c in process.net_connections() if c.status == psutil.CONN_LISTEN]
            for process in (this, *this.children(recursive=True))
        ]
    own, *others = places
    new = set(own) - before
    everywhere = new.union(*others)
    assert {place.ip for place in everywhere} == {"127.0.0.1"}
    assert len(new) == 3  # the scheduler and what looks after each of the workers
    assert sorted(map(len, others))[-2:] == [1, 1]
    assert sum(map(len, others)) == 2
    assert 8787 not in {place.port for place in everywhere}
