"""Work shared among threads that sleep while they have none.

OpenMP's threads, torch's and FFTW's own, wait by spinning. Where another process runs beside, a
thread that spins takes the core from the very thread it waits for, and many short parallel parts
take tens to thousands of times as long. That can only be told OpenMP before it is loaded. Threads
of ours wait for a lock, and whoever is done takes the next item, so that a core that is busy
elsewhere gets less to do.
"""

import functools
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from typing import TypeVar

import torch

Item = TypeVar("Item")
Found = TypeVar("Found")

_here = threading.local()  # whether this thread is one of those that share


def share(work: Callable[[Item], Found], items: Iterable[Item]) -> list[Found]:
    """Return what a function returns for every item, called on as many threads as torch uses.

    Items are begun in their order. They should take longer than what a thread needs to wake up,
    some 50 microseconds, and spend it outside of Python's lock: in torch, numpy, FFTW or compiled
    code. torch's operations use one thread each there.

    Raises
    ------
    BaseException
        What the function raised, once all threads have ended.
    """
    given = list(items)
    threads = torch.get_num_threads()
    if threads == 1 or getattr(_here, "shared", False):
        return [work(item) for item in given]
    found: list[Found | None] = [None] * len(given)
    waiting = iter(range(len(given)))
    pool = _pool(threads)
    workers = [
        pool.submit(_work, lambda n: found.__setitem__(n, work(given[n])), waiting)
        for _ in range(min(threads, len(given)))
    ]
    try:
        for worker in workers:
            worker.result()
    finally:
        _empty(waiting)
        wait(workers)
    return found  # type: ignore[return-value]


def _work(work: Callable[[int], None], waiting: Iterator[int]) -> None:
    try:
        for number in waiting:
            work(number)
    finally:
        _empty(waiting)  # after a failure the other threads need not go on


def _empty(waiting: Iterator[int]) -> None:
    for _ in waiting:
        pass


@functools.cache
def _pool(threads: int) -> ThreadPoolExecutor:
    """Return threads for the life of the process: to start some takes as long as a small pass."""
    before = torch.get_num_threads()
    pool = ThreadPoolExecutor(threads, "share", initializer=_begin)
    together = threading.Barrier(threads + 1)
    for _ in range(threads):
        pool.submit(together.wait)
    together.wait()
    # Each thread has a number of its own; threads that begin later have the one that was set last.
    torch.set_num_threads(before)
    return pool


def _begin() -> None:
    _here.shared = True
    torch.get_num_threads()  # looks up what new threads have, which would undo the next line later
    torch.set_num_threads(1)


if hasattr(os, "register_at_fork"):  # where threads do not live on
    os.register_at_fork(after_in_child=_pool.cache_clear)
