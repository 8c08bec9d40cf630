"""A thread pool whose idle threads sleep.

The threads of OpenMP, torch and FFTW wait by spinning. Beside another process a spinning thread
takes the core from the thread that it waits for, and many short parallel parts take tens to
thousands of times as long. OpenMP can be configured only before it is loaded. The threads of this
pool wait for a lock, and each takes the next item when it is done, so that a busy core gets less
work.
"""

import functools
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from typing import TypeVar

import torch

Item = TypeVar("Item")
Result = TypeVar("Result")

_here = threading.local()  # whether this thread belongs to the pool


def parallel_map(work: Callable[[Item], Result], items: Iterable[Item]) -> list[Result]:
    """Return a function's results for all items, computed on as many threads as torch uses.

    Items start in order. Each should take longer than the wake-up of a thread, about 50
    microseconds, and run outside of Python's lock: in torch, numpy, FFTW or compiled code. torch's
    operations use one thread each there.

    Raises
    ------
    BaseException
        Error of the function, after all threads have ended.
    """
    all_items = list(items)
    threads = torch.get_num_threads()
    if threads == 1 or getattr(_here, "shared", False):
        return [work(item) for item in all_items]
    results: list[Result | None] = [None] * len(all_items)
    remaining = iter(range(len(all_items)))
    pool = _pool(threads)
    workers = [
        pool.submit(_work, lambda n: results.__setitem__(n, work(all_items[n])), remaining)
        for _ in range(min(threads, len(all_items)))
    ]
    try:
        for worker in workers:
            worker.result()
    finally:
        _empty(remaining)
        wait(workers)
    return results  # type: ignore[return-value]


def _work(work: Callable[[int], None], remaining: Iterator[int]) -> None:
    try:
        for number in remaining:
            work(number)
    finally:
        _empty(remaining)  # after a failure the other threads stop


def _empty(remaining: Iterator[int]) -> None:
    for _ in remaining:
        pass


@functools.cache
def _pool(threads: int) -> ThreadPoolExecutor:
    """Return threads for the life of the process: starting some takes as long as a small item."""
    before = torch.get_num_threads()
    pool = ThreadPoolExecutor(threads, "parallel_map", initializer=_begin)
    together = threading.Barrier(threads + 1)
    for _ in range(threads):
        pool.submit(together.wait)
    together.wait()
    # torch's thread number is per thread; threads that start later have the number set last.
    torch.set_num_threads(before)
    return pool


def _begin() -> None:
    _here.shared = True
    torch.get_num_threads()  # sets the number of new threads, which would undo the next line later
    torch.set_num_threads(1)


if hasattr(os, "register_at_fork"):  # threads do not survive a fork
    os.register_at_fork(after_in_child=_pool.cache_clear)
