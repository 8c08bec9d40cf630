"""Who does the work: threads of this process, processes of this machine, or a cluster.

All of them are given functions and give futures; dask.distributed replaces workers that die, and
gives their work to others.
"""

import contextlib
import logging
import os
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from napari_rln import __version__
from napari_rln.core.device import resolve_device
from napari_rln.core.errors import RlnError
from napari_rln.core.machine import available_bytes, cores, taken_bytes
from napari_rln.engine.execution import Execution
from napari_rln.engine.plan import IN_FLIGHT
from napari_rln.engine.survey import survey

WORKER_BYTES = 450_000_000
"""Without which a worker's process can do nothing: its libraries, and the smallest of tiles."""

_CORES_PER_WORKER = 8  # not measured: of more, a transform is thought to make little
_WORKERS_PER_CORE = 2  # at the most: more only wait for each other
_ANSWER_S = 60.0  # for a scheduler to answer: a busy one takes its time
_WAIT_S = 120.0  # for workers to come up


@dataclass(frozen=True, kw_only=True)
class Engine:
    """Workers, ready to work.

    Attributes
    ----------
    submit
        Takes a function and its arguments, returns the future of what it returns.
    workers
        How many there are.
    crowd
        And on one machine at the most.
    threads
        With which each is to compute.
    device
        Type of their device.
    device_name
        As a worker is to resolve it.
    device_bytes
        Memory that is free on the device, the least of all.
    ram_bytes
        Memory of the machine that is free for a worker, the least of all.
    taken_bytes
        Of memory, that a worker has before it begins.
    beside_bytes
        And the process that drives them, where they are others of the same machine.
    """

    submit: Callable[..., "Future[Any]"]
    workers: int
    crowd: int
    threads: int
    device: str
    device_name: str
    device_bytes: int
    ram_bytes: int
    taken_bytes: int
    beside_bytes: int = 0


def worker_count(settings: Execution, device: str) -> int:
    """Return how many processes are to work on this machine.

    Raises
    ------
    RlnError
        If there are fewer GPUs, or this machine has not the cores or the memory for as many.
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
            f"{_WORKERS_PER_CORE * cores()}, more would only wait for each other."
        )
    available = available_bytes()
    if wanted > 1 and wanted * WORKER_BYTES > available:
        raise RlnError(
            f"`workers` is {wanted}, which take {wanted * WORKER_BYTES / 1e9:.1f} GB at least, but "
            f"{available / 1e9:.1f} GB are free; give at most "
            f"{max(1, available // WORKER_BYTES)}."
        )
    return wanted


def _gpus(settings: Execution, device: str) -> tuple[int, ...]:
    """Return the numbers of the GPUs to use; none where a CPU is to compute.

    Raises
    ------
    RlnError
        If one is not there.
    """
    there = torch.cuda.device_count() if torch.cuda.is_available() else 0
    wanted = settings.gpu_numbers
    if wanted and device == "cpu":
        raise RlnError(f"`gpus` is {settings.gpus} but `device` is cpu; leave one of them out.")
    if wanted and max(wanted) >= there:
        raise RlnError(
            f"`gpus` is {settings.gpus} but torch sees {there} CUDA devices; give numbers below "
            f"{there}."
            if there
            else f"`gpus` is {settings.gpus} but torch sees no CUDA device; leave it out."
        )
    if wanted:
        return wanted
    if device.startswith("cuda:"):
        return (resolve_device(device).index or 0,)
    return tuple(range(there)) if device in ("auto", "cuda") else ()


@contextlib.contextmanager
def engine(settings: Execution, device: str, folder: Path) -> Iterator[Engine]:
    """Start workers, or find those of a scheduler; stop those that were started.

    Parameters
    ----------
    settings
        Who is to work.
    device
        On what, as :func:`napari_rln.core.device.resolve_device` takes it.
    folder
        Where the result will be, which all workers must see.

    Raises
    ------
    RlnError
        If there is no such scheduler, it has no workers, they do not see the folder, have another
        version of napari-rln, or a GPU is not there.
    """
    if settings.scheduler is not None:
        with _remote(settings.scheduler, device, folder) as found:
            yield found
        return
    gpus, count = _gpus(settings, device), worker_count(settings, device)
    if count > 1 or settings.gpus:
        with _local(count, gpus, "cuda" if gpus else device, folder) as found:
            yield found
        return
    seen = survey(str(folder), device)
    with ThreadPoolExecutor(IN_FLIGHT, thread_name_prefix="tiles") as pool:
        try:
            yield _engine(pool.submit, [seen], min(torch.get_num_threads(), cores()), device)
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


@contextlib.contextmanager
def _local(count: int, gpus: tuple[int, ...], device: str, folder: Path) -> Iterator[Engine]:
    """Start processes on this machine, each with its share of the cores or a GPU of its own."""
    import dask
    from distributed import Client, Nanny, SpecCluster

    from napari_rln.engine.closed import ClosedScheduler, ClosedWorker

    # A queue of jobs may have given this process some GPUs only, under names of its own.
    names = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")

    def options(number: int) -> dict[str, Any]:
        env = {}
        if gpus:
            gpu = gpus[number]
            env["CUDA_VISIBLE_DEVICES"] = names[gpu] if gpu < len(names) and names[0] else str(gpu)
        return {
            "nthreads": IN_FLIGHT,
            "memory_limit": 0,  # the plan keeps it; dask would only pause or kill
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
        seen = _surveyed(client, device, folder)
        found = _engine(_submitter(client), seen, max(1, cores() // count), device)
        yield replace(found, beside_bytes=taken_bytes())


@contextlib.contextmanager
def _environment_kept() -> Iterator[None]:
    """Undo in the end what was changed of this process's environment.

    distributed sets there how many threads its workers are to have, and other programs that this
    process starts later would have as many.
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
def _remote(address: str, device: str, folder: Path) -> Iterator[Engine]:
    """Find the workers of a running scheduler."""
    from distributed import Client

    try:
        client = Client(address, timeout=_ANSWER_S)  # type: ignore[no-untyped-call]
    except (OSError, ValueError) as error:
        raise RlnError(
            f"there is no scheduler at {address} ({error}); give the address that it prints when "
            "it starts, such as tcp://10.0.0.5:8786."
        ) from error
    with client:
        try:
            client.wait_for_workers(1, timeout=_WAIT_S)
        except TimeoutError as error:
            raise RlnError(f"the scheduler at {address} has no workers; start some.") from error
        seen = _surveyed(client, device, folder)
        hosts = [s["host"] for s in seen]
        threads = max(1, min(s["cores"] // hosts.count(s["host"]) for s in seen))
        yield _engine(_submitter(client), seen, threads, device)


def _submitter(client: Any) -> Callable[..., "Future[Any]"]:
    """Return a function that gives work to a cluster, as an executor does."""
    executor = client.get_executor(pure=False, retries=0)
    submit: Callable[..., Future[Any]] = executor.submit
    return submit


def _surveyed(client: Any, device: str, folder: Path) -> list[dict[str, Any]]:
    """Return what the workers are.

    Raises
    ------
    RlnError
        If they cannot work together.
    """
    try:
        seen = list(client.run(survey, str(folder), device).values())
    except (ImportError, AttributeError) as error:
        raise RlnError(
            f"the workers cannot import napari_rln ({error}); install it where they run."
        ) from error
    versions = {s["version"] for s in seen}
    if versions != {__version__}:
        raise RlnError(
            f"the workers have napari-rln {', '.join(sorted(versions))} but this is {__version__}; "
            "install one version everywhere."
        )
    blind = {s["host"] for s in seen if not s["sees"]}
    if blind:
        raise RlnError(
            f"the folder {folder} is not there on {', '.join(sorted(blind))}; name one that all "
            "workers share."
        )
    kinds = {s["device"] for s in seen}
    if len(kinds) > 1:
        raise RlnError(
            f"the workers compute on {', '.join(sorted(kinds))}, whose results are not equal to "
            "the bit; name one with `device`."
        )
    return seen


def _engine(
    submit: Callable[..., "Future[Any]"], seen: list[dict[str, Any]], threads: int, device: str
) -> Engine:
    hosts = [s["host"] for s in seen]
    return Engine(
        submit=submit,
        workers=len(seen),
        crowd=max(hosts.count(host) for host in hosts),
        threads=threads,
        device=seen[0]["device"],
        device_name=device,
        device_bytes=min(s["device_free"] for s in seen),
        ram_bytes=min(s["ram"] // hosts.count(s["host"]) for s in seen),
        taken_bytes=max(s["taken"] for s in seen),
    )
