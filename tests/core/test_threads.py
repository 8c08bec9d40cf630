"""Work shared among threads, and that nothing spins while it waits."""

import os
import subprocess
import sys
import threading
import time

import pytest
import torch

from napari_rln.core.threads import parallel_map


@pytest.fixture(params=[1, 2, 3])
def threads(request):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def test_results_come_in_the_order_of_the_items(threads):
    assert parallel_map(lambda n: (time.sleep(0.001 * (5 - n)), n)[1], range(5)) == list(range(5))
    assert parallel_map(abs, []) == []


def test_all_threads_work_and_torch_has_one_in_each(threads):
    together = threading.Barrier(threads)

    def work(_):
        together.wait(10)  # passed only if as many are at it at once
        return torch.get_num_threads()

    assert parallel_map(work, range(threads)) == [1] * threads
    found = []
    thread = threading.Thread(target=lambda: found.append(torch.get_num_threads()))
    thread.start()
    thread.join()
    assert torch.get_num_threads() == threads
    assert found == [threads]  # nor has any that begins later fewer


def test_a_failure_ends_the_work_and_is_raised(threads):
    begun = []

    def work(n):
        begun.append(n)
        if n == 3:
            raise ValueError("the fourth")
        time.sleep(0.001)

    with pytest.raises(ValueError, match="the fourth"):
        parallel_map(work, range(1000))
    assert len(begun) < 100
    assert parallel_map(abs, [-1]) == [1]  # the threads are there for the next


def test_work_may_share_its_own(threads):
    assert parallel_map(lambda n: sum(parallel_map(lambda m: m * n, range(4))), range(3)) == [
        0,
        6,
        12,
    ]


_BESIDE = """
import os, subprocess, sys, time
import numpy as np, torch
torch.ones(1 << 20).sum()  # OpenMP is loaded before anything of ours
from napari_rln.deconvolution.convolution import Convolution
from napari_rln.deconvolution.richardson_lucy import RichardsonLucyIteration, View

def cpu_seconds(threads):
    torch.set_num_threads(threads)
    run.step()
    began = time.process_time()
    for _ in range(20):
        run.step()
    return time.process_time() - began

psf = np.ones((9, 9, 9), np.float32) / 729
blur = Convolution(psf, (40, 66, 66))
run = RichardsonLucyIteration(View(blur=blur, image=torch.ones(40, 66, 66)))
alone = min(cpu_seconds(1) for _ in range(2))
spin = [sys.executable, "-c", "while True: pass"]
others = [subprocess.Popen(spin) for _ in range(os.cpu_count())]
try:
    print(min(cpu_seconds(2) for _ in range(3)) / alone)
finally:
    for other in others:
        other.kill()
        other.wait()
"""


@pytest.mark.skipif((os.cpu_count() or 1) > 8, reason="would keep many cores busy")
def test_threads_sleep_beside_busy_processes_whatever_openmp_was_told():
    # Threads that spin are seen in the CPU time: 5 to 100 times as much as one thread takes.
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("OMP_", "GOMP_"))}
    done = subprocess.run(
        [sys.executable, "-c", _BESIDE], env=environment, capture_output=True, text=True, check=True
    )
    assert float(done.stdout) < 3
