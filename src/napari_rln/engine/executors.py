"""Executors: threads of this process, processes of this machine, or a cluster.

All of them take functions and return futures; dask.distributed replaces workers that die, and
reassigns their work.
"""

import contextlib
import logging
import os
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch

from napari_rln import __version__
from napari_rln.core.device import resolve_device
from napari_rln.core.errors import RlnError
from napari_rln.core.machine import available_bytes, cores, used_bytes
from napari_rln.engine.execution import Execution
from napari_rln.engine.plan import IN_FLIGHT
from napari_rln.engine.survey import survey

WORKER_BYTES = 450_000_000
"""Least memory of a worker process: its libraries, and the smallest tile."""

_CORES_PER_WORKER = 8  # assumed, not measured: Fourier transforms hardly gain from more
_WORKERS_PER_CORE = 2  # at most: more only wait for each other
_ANSWER_S = 60.0  # for the answer of a scheduler, which may be busy
_WAIT_S = 120.0  # for the start of workers


class Room(NamedTuple):
    """Memory of a worker before its first task, bytes.

    Attributes
    ----------
    ram
        Free memory of the machine for a worker.
    used
        Memory that it already has.
    kind, device_free
        Type of its device, and free memory there.
    per_machine
        Number of workers on its machine.
    driver_bytes
        Memory of the driving process, where it is another one.
    """

    ram: int
    used: int
    kind: str
    device_free: int
    per_machine: int
    driver_bytes: int = 0


@dataclass(frozen=True, kw_only=True)
class Workers:
    """Workers that are ready.

    Attributes
    ----------
    submit
        Function that takes a function and its arguments, and returns a future.
    count
        Number of workers.
    threads
        Number of computing threads of each worker.
    device_name
        Name of the device, resolved by each worker.
    room
        Least free memory of any worker.
    """

    submit: Callable[..., "Future[Any]"]
    count: int
    threads: int
    device_name: str
    room: Room


def worker_count(settings: Execution, device: str) -> int:
    """Return the number of worker processes on this machine.

    Raises
    ------
    RlnError
        If there are fewer GPUs, or too few cores or too little memory.
    """
    gpus = _gpus(settings, device)
    if settings.workers == "auto":
        return len(gpus) or max(1, cores() // _CORES_PER_WORKER)
    wanted = settings.workers
    if gpus and wanted > len(gpus):
        raise RlnError(
            f"`workers` is {wanted} but there are {len(gpus)} GPUs; give as many, or the device "
            "cpu."
        )
    if not gpus and wanted > _WORKERS_PER_CORE * cores():
        raise RlnError(
            f"`workers` is {wanted} but this process may use {cores()} cores; give at most "
            f"{_WORKERS_PER_CORE * cores()}, as more would only wait for each other."
        )
    available = available_bytes()
    if wanted > 1 and wanted * WORKER_BYTES > available:
        raise RlnError(
            f"`workers` is {wanted}, which need at least {wanted * WORKER_BYTES / 1e9:.1f} GB, but "
            f"{available / 1e9:.1f} GB are free; give at most "
            f"{max(1, available // WORKER_BYTES)}."
        )
    return wanted


def _gpus(settings: Execution, device: str) -> tuple[int, ...]:
    """Return the numbers of the GPUs to use; empty for a CPU.

    Raises
    ------
    RlnError
        If a GPU does not exist.
    """
    available = torch.cuda.device_count() if torch.cuda.is_available() else 0
    wanted = settings.gpu_numbers
    if wanted and device == "cpu":
        raise RlnError(f"`gpus` is {settings.gpus} but `device` is cpu; leave one of them out.")
    if wanted and max(wanted) >= available:
        raise RlnError(
            f"`gpus` is {settings.gpus} but torch sees {available} CUDA devices; give numbers "
            f"below {available}."
            if available
            else f"`gpus` is {settings.gpus} but torch sees no CUDA device; leave it out."
        )
    if wanted:
        return wanted
    if device.startswith("cuda:"):
        return (resolve_device(device).index or 0,)
    return tuple(range(available)) if device in ("auto", "cuda") else ()


@contextlib.contextmanager
def start_workers(settings: Execution, device: str, folder: Path) -> Iterator[Workers]:
    """Start workers, or connect to those of a scheduler; stop those that were started.

    Raises
    ------
    RlnError
        If the scheduler does not answer or has no workers, if they do not see the folder or have
        another version of napari-rln, or if a GPU does not exist.
    """
    if settings.scheduler is not None:
        with _remote(settings.scheduler, device, folder) as workers:
            yield workers
        return
    gpus, count = _gpus(settings, device), worker_count(settings, device)
    if count > 1 or settings.gpus:
        with _local(count, gpus, "cuda" if gpus else device, folder) as workers:
            yield workers
        return
    properties = survey(str(folder), device)
    with ThreadPoolExecutor(IN_FLIGHT, thread_name_prefix="tiles") as pool:
        try:
            yield _workers(pool.submit, [properties], min(torch.get_num_threads(), cores()), device)
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


@contextlib.contextmanager
def _local(count: int, gpus: tuple[int, ...], device: str, folder: Path) -> Iterator[Workers]:
    """Start processes on this machine, each with its part of the cores or a GPU of its own."""
    import dask
    from distributed import Client, Nanny, SpecCluster

    from napari_rln.engine.closed import ClosedScheduler, ClosedWorker

    # A batch system may restrict this process to some GPUs, under names of its own.
    names = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")

    def options(number: int) -> dict[str, Any]:
        env = {}
        if gpus:
            gpu = gpus[number]
            env["CUDA_VISIBLE_DEVICES"] = names[gpu] if gpu < len(names) and names[0] else str(gpu)
        return {
            "nthreads": IN_FLIGHT,
            "memory_limit": 0,  # the plan respects the limit; dask would only pause or kill
            "env": {"OMP_WAIT_POLICY": "PASSIVE", **env},
            "silence_logs": logging.CRITICAL,
            "host": "127.0.0.1",
            "worker_class": ClosedWorker,
        }

    spec = {n: {"cls": Nanny, "options": options(n)} for n in range(count)}
    head = {
        "cls": ClosedScheduler,
        "options": {"dashboard": False, "host": "127.0.0.1", "port": 0},
    }
    with (
        _environment_kept(),
        dask.config.set({"distributed.logging.distributed": "critical"}),
        SpecCluster(  # type: ignore[no-untyped-call]
            workers=spec, scheduler=head, silence_logs=logging.CRITICAL
        ) as cluster,
        Client(cluster) as client,  # type: ignore[no-untyped-call]
    ):
        client.wait_for_workers(count, timeout=_WAIT_S)
        surveys = _surveyed(client, device, folder)
        workers = _workers(_submitter(client), surveys, max(1, cores() // count), device)
        yield replace(workers, room=workers.room._replace(driver_bytes=used_bytes()))


@contextlib.contextmanager
def _environment_kept() -> Iterator[None]:
    """Restore this process's environment at the end.

    distributed sets the thread numbers of its workers there, which programs started later by this
    process would inherit.
    """
    before = dict(os.environ)
    try:
        yield
    finally:
        for name in set(os.environ) - set(before):
            del os.environ[name]
        for name, value in before.items():
            if os.environ.get(name) != value:
                os.environ[name] = value


@contextlib.contextmanager
def _remote(address: str, device: str, folder: Path) -> Iterator[Workers]:
    """Connect to the workers of a running scheduler."""
    from distributed import Client

    try:
        if not address:  # for which dask would start workers of its own
            raise ValueError("it is empty")
        client = Client(address, timeout=_ANSWER_S)  # type: ignore[no-untyped-call]
    except (OSError, ValueError) as error:
        raise RlnError(
            f"there is no scheduler at {address} ({error}); give the address that it prints at its "
            "start, such as tcp://10.0.0.5:8786."
        ) from error
    with client:
        try:
            client.wait_for_workers(1, timeout=_WAIT_S)
        except TimeoutError as error:
            raise RlnError(
                f"the scheduler at {address} has no workers; start at least one."
            ) from error
        surveys = _surveyed(client, device, folder)
        hosts = [s["host"] for s in surveys]
        threads = max(1, min(s["cores"] // hosts.count(s["host"]) for s in surveys))
        yield _workers(_submitter(client), surveys, threads, device)


def _submitter(client: Any) -> Callable[..., "Future[Any]"]:
    """Return a function that submits work to a cluster, as an executor does."""
    executor = client.get_executor(pure=False, retries=0)
    submit: Callable[..., Future[Any]] = executor.submit
    return submit


def _surveyed(client: Any, device: str, folder: Path) -> list[dict[str, Any]]:
    """Return the properties of the workers.

    Raises
    ------
    RlnError
        If they cannot work together.
    """
    try:
        surveys = list(client.run(survey, str(folder), device).values())
    except (ImportError, AttributeError) as error:
        raise RlnError(
            f"the workers cannot import napari_rln ({error}); install it where they run."
        ) from error
    versions = {s["version"] for s in surveys}
    if versions != {__version__}:
        raise RlnError(
            f"the workers have napari-rln {', '.join(sorted(versions))} but this is {__version__}; "
            "install one version everywhere."
        )
    without_folder = {s["host"] for s in surveys if not s["sees"]}
    if without_folder:
        raise RlnError(
            f"the folder {folder} does not exist on {', '.join(sorted(without_folder))}; name "
            "one that all workers share."
        )
    kinds = {s["device"] for s in surveys}
    if len(kinds) > 1:
        raise RlnError(
            f"the workers compute on {', '.join(sorted(kinds))}, whose results differ in the last "
            "digits; name one with `device`."
        )
    return surveys


def _workers(
    submit: Callable[..., "Future[Any]"], surveys: list[dict[str, Any]], threads: int, device: str
) -> Workers:
    hosts = [s["host"] for s in surveys]
    return Workers(
        submit=submit,
        count=len(surveys),
        threads=threads,
        device_name=device,
        room=Room(
            ram=min(s["ram"] // hosts.count(s["host"]) for s in surveys),
            used=max(s["used"] for s in surveys),
            kind=surveys[0]["device"],
            device_free=min(s["device_free"] for s in surveys),
            per_machine=max(hosts.count(host) for host in hosts),
        ),
    )
