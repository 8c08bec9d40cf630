"""Deconvolving from disk to disk: looking, planning, and driving the workers to the end."""

import contextlib
import hashlib
import json
import math
import shutil
import time
from collections.abc import Generator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import filelock
import torch

from napari_rln import __version__
from napari_rln.cost import usual_iterations
from napari_rln.device import resolve_device
from napari_rln.errors import ComputeError, RlnError, warn
from napari_rln.large.drive import Drive
from napari_rln.large.engines import Engine, engine, worker_count
from napari_rln.large.forecast import Forecast, check_disk, computing_seconds
from napari_rln.large.job import Folder, Job
from napari_rln.large.plan import Plan, make_plan
from napari_rln.large.request import LargeRun, check_run
from napari_rln.large.sampling import Samples, calibrated, look
from napari_rln.large.settings import LargeReport
from napari_rln.large.work import close, compute_with, explained, survey
from napari_rln.model import Model
from napari_rln.networks.folded import TORCH_VOXEL_BYTES, Folded
from napari_rln.residual import reconvolution_residual
from napari_rln.rln import SHARE, RlnSettings
from napari_rln.settings import as_dict
from napari_rln.speed import Speed
from napari_rln.stores.ngff import is_zarr_name
from napari_rln.stores.source import Source, open_source
from napari_rln.suitability import doubts

# Settings that say where and how much at once, not what: a run may go on with others.
_WHERE = ("device", "memory_gb", "tile", "report_every")
_LEAST_BYTES = 200_000_000  # a worker can do nothing with less
_LIBRARIES_BYTES = 250_000_000  # of libraries and kernels that a worker loads with its first tile


class Outcome(NamedTuple):
    """What a run has made.

    Attributes
    ----------
    out
        Where it is.
    summary
        What was found and how long it took; empty where it was there before.
    """

    out: Path
    summary: dict[str, Any]


def forecast(run: LargeRun, speed: Speed | None = None) -> Forecast:
    """Return what a run would take, of which nothing is started.

    Where the image decides on the iterations, those of most images are taken.

    Raises
    ------
    RlnError
        If it cannot be run.
    """
    source = open_source(run.origin)
    check_run(run, source)
    kind = resolve_device(run.settings.device).type
    seen = survey(str(run.out.parent), run.settings.device)
    count = 1 if run.large.scheduler else worker_count(run.large, run.settings.device)
    told = run.told
    ahead = usual_iterations(told) if told else 0
    auto = told is not None and told.iterations == "auto"
    if auto and run.model is not None:
        ahead = max(1, round(run.model.start.beyond * ahead))
    free, taken = seen["ram"] // count, seen["taken"]
    memory, ram = _memory(run, free, taken, kind, seen["device_free"], count)
    plan = _plan(run, source, ahead, kind, memory, ram)
    memory_bytes = ram + taken + _LIBRARIES_BYTES
    told_ahead = _forecast(run, source, plan, ahead, auto, count, memory_bytes, speed)
    check_disk(
        run.out.absolute().parent,
        told_ahead.output_bytes + told_ahead.scratch_bytes,
        run.out.name,
    )
    return told_ahead


def run_large(
    run: LargeRun, speed: Speed | None = None, workers: Engine | None = None
) -> Generator[LargeReport, None, Outcome]:
    """Deconvolve an image on disk to a result on disk; yield reports, return where it is.

    Closing the generator interrupts it, as killing the process does. The same call goes on where
    it was and gives, to the bit, what it would have given at once.

    Parameters
    ----------
    run
        What is asked for.
    speed
        Of this machine, to tell how long it will take.
    workers
        That are there already; started, or found, by the run's settings when none.

    Raises
    ------
    RlnError
        For what cannot be used, a result that is there already, or one that another run has begun
        with other settings.
    ComputeError
        If the computation, reading or writing fails on the way. What is finished is kept.
    """
    began, threads = time.perf_counter(), torch.get_num_threads()
    source = open_source(run.origin)
    check_run(run, source)
    folder = Folder(run.out.absolute())
    lock = filelock.FileLock(folder.lock)
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout as error:
        raise RlnError(f"another run is writing {run.out}; wait for it, or stop it.") from error
    try:
        samples = Samples(source, run.settings.negatives)
        if run.out.exists() and not run.large.overwrite:
            _same(_identity(run, source, samples), folder.completed(), run.out)
            folder.tidy()
            return Outcome(run.out, {})
        with (
            engine(run.large, run.settings.device, folder.out.parent)
            if workers is None
            else contextlib.nullcontext(workers)
        ) as found:
            job = yield from _begun(run, source, samples, folder, found, speed)
            summary = yield from _driven(run, folder, job, found, began)
        return Outcome(run.out, summary)
    finally:
        close()
        compute_with(threads)
        with contextlib.suppress(OSError):  # Windows keeps what is open
            folder.lock.unlink()
        lock.release()


def _memory(
    run: LargeRun, ram: int, taken: int, kind: str, device_free: int, crowd: int
) -> tuple[int, int]:
    """Return what a worker may compute in on its device, and take in memory, beside what it has.

    Raises
    ------
    RlnError
        If that is too little to do anything.
    """
    taken += _LIBRARIES_BYTES
    if run.memory_gb is None:
        mine = int(SHARE * ram)
    else:
        mine = int(run.memory_gb * 1e9 / crowd) - taken
    if mine < _LEAST_BYTES:
        least = crowd * (taken + _LEAST_BYTES) / 1e9
        raise RlnError(
            f"{crowd} workers have {taken / 1e9:.2f} GB each before they begin, so "
            f"{run.memory_gb or ram / 1e9:.2f} GB are too little; allow at least {least:.1f} GB."
        )
    return (mine if kind == "cpu" else int(SHARE * device_free)), mine


def _plan(run: LargeRun, source: Source, iterations: int, kind: str, memory: int, ram: int) -> Plan:
    """Return how the volume is divided for workers with a kind of device."""
    per_voxel = None
    if isinstance(run.settings, RlnSettings):
        assert run.model is not None
        precision = run.settings.precision
        per_voxel = TORCH_VOXEL_BYTES[precision]
        if kind == "cpu":
            per_voxel = Folded(run.model.network, torch.device(kind), precision).bytes_per_voxel
    return make_plan(
        source.shape,
        source.voxel_um,
        source.times,
        "zarr" if is_zarr_name(run.out) else "tiff",
        run.large.ome_zarr,
        psf=run.psf,
        told=run.told,
        iterations=iterations,
        network_voxel_bytes=per_voxel,
        memory=memory,
        ram=ram,
        side=run.tile,
    )


def _forecast(
    run: LargeRun,
    source: Source,
    plan: Plan,
    iterations: int,
    assumed: bool,
    workers: int,
    memory: int,
    speed: Speed | None,
) -> Forecast:
    seconds = None
    if speed is not None:
        precision = run.settings.precision if isinstance(run.settings, RlnSettings) else None
        psf_shape = run.psf.shape if run.psf is not None else None
        seconds = computing_seconds(plan, psf_shape, run.told, iterations, precision, speed)
        apart = run.large.scheduler is not None or speed.device != "cpu"
        seconds /= workers if apart else 1  # workers of one CPU share its cores
    return Forecast(
        plan=plan,
        iterations=iterations,
        assumed=assumed,
        workers=workers,
        memory_bytes=memory,
        output_bytes=plan.output_bytes(run.dtype),
        scratch_bytes=plan.scratch_bytes(),
        free_bytes=shutil.disk_usage(run.out.absolute().parent).free,
        seconds=seconds,
    )


def _identity(run: LargeRun, source: Source, samples: Samples) -> dict[str, Any]:
    """Return all that a result depends on."""
    zarr = is_zarr_name(run.out)
    identity = {
        "method": run.method,
        "image": samples.hash,
        "shape": list(source.shape),
        "times": source.times,
        "voxel_um": list(source.voxel_um),
        "psf": run.psf.hash if run.psf is not None else None,
        "model": None if run.model is None else _model_hash(run.model),
        "form": run.large.ome_zarr if zarr else "tiff",
        "dtype": run.dtype,
        "version": __version__,
    }
    settings = {k: v for k, v in as_dict(run.settings).items() if k not in _WHERE}
    found: dict[str, Any] = json.loads(json.dumps(identity | settings))
    return found


def _model_hash(model: Model) -> str:
    """Return a hash of the weights and of all that tells how they are applied."""
    card = model.card()
    kept = ("network", "start", "normalisation", "output_scale", "share")
    told = json.dumps({name: card[name] for name in kept}, sort_keys=True)
    return f"{model.hash}-{hashlib.sha256(told.encode()).hexdigest()[:8]}"


def _same(identity: dict[str, Any], job: Job | None, out: Path) -> None:
    """Raise unless what is there is the same work as what is asked for.

    Raises
    ------
    RlnError
        With what differs.
    """
    if job is None:
        raise RlnError(
            f"{out} is there already; name another result, or replace it with --overwrite."
        )
    other = [
        f"{name} {job.identity.get(name)!r}, not {value!r}"
        for name, value in identity.items()
        if job.identity.get(name) != value
    ]
    if other:
        raise RlnError(
            f"{out} was begun with {'; '.join(other)}; give the same again, name another "
            "result, or begin anew with --overwrite."
        )


def _begun(
    run: LargeRun,
    source: Source,
    samples: Samples,
    folder: Folder,
    workers: Engine,
    speed: Speed | None,
) -> Generator[LargeReport, None, Job]:
    """Yield reports, return the job: that of an interrupted run, or a new one."""
    identity = _identity(run, source, samples)
    # What is looked at is so here, whatever the workers of a scheduler have.
    device = resolve_device("auto" if run.large.scheduler else run.settings.device)
    free, kind = workers.device_bytes, workers.device
    memory, ram = _memory(run, workers.ram_bytes, workers.taken_bytes, kind, free, workers.crowd)
    job = folder.job()
    if job is not None and run.large.overwrite and job.identity != identity:
        job = None
    origin = replace(run.origin, path=str(Path(run.origin.path).absolute()))
    if job is not None:
        _same(identity, job, run.out)
        if job.device != kind:
            raise RlnError(
                f"{run.out} was begun on {job.device}, whose results are not equal to the bit to "
                f"those of {kind}; go on there, or begin anew with --overwrite."
            )
        if run.memory_gb is not None and ram < job.ram:
            warn(
                f"the run was begun with tiles for {job.ram / 1e9:.2f} GB for each worker and goes "
                f"on with them, not within {ram / 1e9:.2f} GB."
            )
        folder.clean()
        job = replace(job, origin=origin)  # which may lie elsewhere by now
        folder.write(job)
    else:
        if samples.telling_bytes(run.psf, run.told) > memory:
            needed = samples.telling_bytes(run.psf, run.told) / 1e9
            raise RlnError(
                f"a part of the image with this PSF takes {needed:.2f} GB but {memory / 1e9:.2f} "
                "GB may be taken; allow more (--memory-gb), or crop the PSF."
            )
        found = yield from look(run, samples, device)
        for doubt in doubts(run.model, run.psf) if run.model is not None else ():
            warn(doubt)
        plan = _plan(run, source, found.iterations, kind, memory, ram)
        needed = plan.output_bytes(run.dtype) + plan.scratch_bytes()
        check_disk(folder.out.parent, needed, run.out.name)
        steps = calibrated(run, samples, found, device, whole=len(plan.tiles) == 1)
        found, estimate = yield from steps
        title = "RLD" if run.model is None else f"RLN {run.model.name}"
        model_hash = None if run.model is None else run.model.hash
        inputs = {"image": samples.hash, "psf": identity["psf"], "model": model_hash}
        job = Job(
            method=run.method,
            origin=origin,
            identity=identity,
            name=f"{source.name} · {title}",
            settings=as_dict(run.settings),
            voxel_um=source.voxel_um,
            statistics=found,
            plan=plan,
            form="zarr" if is_zarr_name(run.out) else "tiff",
            ome_zarr=run.large.ome_zarr,
            dtype=run.dtype,
            device=kind,
            threads=workers.threads,
            ram=ram,
            inputs={name: value for name, value in inputs.items() if value is not None},
        )
        folder.begin(job, run.psf, run.model, estimate)
    told = _forecast(
        run, source, job.plan, job.statistics.iterations, False, workers.workers,
        ram + workers.taken_bytes + _LIBRARIES_BYTES, speed,
    )  # fmt: skip
    yield LargeReport(phase="plan", done=0, total=0, seconds=0.0, forecast=told)
    return job


def _driven(
    run: LargeRun, folder: Folder, job: Job, workers: Engine, began: float
) -> Generator[LargeReport, None, dict[str, Any]]:
    """Yield reports until all is written; return what was found."""
    drive = Drive(folder, job, workers, began)
    blocks = job.plan.times * len(job.plan.blocks)
    try:
        yield from drive.check()
        yield from drive.blocks()
        yield from drive.levels()
    except Exception as error:  # also what a cluster raises when workers keep dying
        told = sum(key.level == 0 for key in drive.finished)
        kept = (
            f"{explained(error).rstrip('.')}. {told} of {blocks} blocks are finished and kept: the "
            "same command goes on from there."
        )
        if isinstance(error, RlnError):
            raise RlnError(kept) from error
        raise ComputeError(kept) from error
    finally:
        drive.cancel()
    summary = _summary(run, folder, job, drive) | {
        "workers": workers.workers,
        "seconds": round(time.perf_counter() - began, 3),
        "peak_mb": round(drive.peak_bytes / 1e6),
    }
    folder.complete(job, summary)
    if summary["clipped"]:
        warn(
            f"{summary['clipped']} voxels were clipped to {job.dtype}; write float32 to keep them."
        )
    return summary


def _summary(run: LargeRun, folder: Folder, job: Job, drive: Drive) -> dict[str, Any]:
    """Return what is to be known of a result: its light, and how well it explains the image."""
    found, plan = job.statistics, job.plan
    finest = [entry for key, entry in drive.finished.items() if key.level == 0]
    result = math.fsum(entry["light"] for entry in finest)
    image = math.fsum(entry.get("image", 0.0) for entry in drive.finished.values())
    flux = image - found.background * plan.times * math.prod(plan.shape)
    facts: dict[str, Any] = {
        "background": found.background,
        "iterations": found.iterations,
        "clipped": sum(entry["clipped"] for entry in finest),
        "flux_ratio": result / flux if flux > 0 else None,
        "seconds_of_tasks": {part: round(s, 3) for part, s in drive.seconds.items()},
    }
    if run.psf is None or found.gain <= 0:
        return facts
    # As much around the telling part as light from there reaches, so that its blur is seen whole.
    z, y, x = (
        slice(max(0, start - p // 2), min(stop + p // 2, n))
        for (start, stop), p, n in zip(found.telling, run.psf.shape, plan.shape, strict=True)
    )
    try:
        residual = reconvolution_residual(
            open_source(job.origin).read((z, y, x)),
            folder.target(job).read((z, y, x)).astype("float32"),
            run.psf.data,
            gain=found.gain,
            intercept=found.intercept,
        )
    except RlnError:  # too few voxels to tell the noise by; the result is there all the same
        return facts
    # Where too little is seen whole it is a judgement of the border, not of the result.
    return facts if residual.inside.all() else facts | {"chi2": residual.chi2}
