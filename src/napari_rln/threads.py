"""Work shared among threads that sleep while they have none.

OpenMP's threads, torch's and FFTW's own, wait by spinning. Where another process runs beside, a
thread that spins takes the core from the very thread it waits for, and a run of many short parallel
parts takes up to thousands of times as long. Threads of ours wait for a lock, and whoever is done
takes the next item, so that a core that is busy elsewhere gets less to do.
"""

import functools
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import torch

Item = TypeVar("Item")


def share(work: Callable[[Item], object], items: Iterable[Item]) -> None:
    """Call a function with every item, on as many threads as torch uses, this one among them.

    In no order; all is done when it returns. Items should take longer than what a thread needs to
    wake up, some 50 microseconds, and the function should spend them outside of Python's lock and
    outside of OpenMP: in numpy, FFTW or compiled code.

    Raises
    ------
    BaseException
        What the function raised, once all threads have ended.
    """
    given = list(items)
    waiting, count = iter(given), min(torch.get_num_threads(), len(given))
    helpers: list[Future[None]] = []
    try:
        if count > 1:
            helpers = [_pool(count - 1).submit(_work, work, waiting) for _ in range(count - 1)]
        _work(work, waiting)
    finally:
        # Those that have not begun, as others' work came first, have nothing left to do.
        failures = [helper.exception() for helper in helpers if not helper.cancel()]
    for failure in failures:
        if failure is not None:
            raise failure


def _work(work: Callable[[Item], object], waiting: Iterator[Item]) -> None:
    try:
        for item in waiting:
            work(item)
    except BaseException:
        for _ in waiting:  # the other threads need not go on
            pass
        raise


@functools.cache
def _pool(threads: int) -> ThreadPoolExecutor:
    """Return threads for the life of the process: to start some takes as long as a small pass."""
    return ThreadPoolExecutor(threads, thread_name_prefix="share")
