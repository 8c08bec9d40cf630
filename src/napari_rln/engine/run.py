"""Deconvolving from disk to disk: looking, planning, and driving the workers to the end."""

import contextlib
import errno
import math
import time
from collections.abc import Generator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import filelock
import torch

from napari_rln.core.device import resolve_device
from napari_rln.core.errors import ComputeError, RlnError, warn
from napari_rln.core.settings import as_dict
from napari_rln.deconvolution.check import explained, facts_of
from napari_rln.engine.executors import Engine, engine
from napari_rln.engine.forecast import forecast_of
from napari_rln.engine.identity import check_same, identity_of
from napari_rln.engine.imagej import is_plain_name, write_plain
from napari_rln.engine.job import (
    TILE,
    Completed,
    Folder,
    Job,
    WholeTile,
    changed_since,
    is_intact,
)
from napari_rln.engine.needs import check_disk, plan_of, worker_memory
from napari_rln.engine.reports import LargeReport
from napari_rln.engine.request import LargeRun, check_run
from napari_rln.engine.sampling import Samples, calibrated, look, looking_bytes, measured_crop
from napari_rln.engine.schedule import Drive
from napari_rln.engine.speed import Speed
from napari_rln.engine.worker import close, compute_with
from napari_rln.io.image import Image, checksum, open_image
from napari_rln.networks.suitability import doubts


class Outcome(NamedTuple):
    """What a run has made.

    Attributes
    ----------
    out
        Where it is.
    summary
        What was found and how long it took.
    made
        Whether it was made now; else it was there, complete.
    """

    out: Path
    summary: dict[str, Any]
    made: bool = True


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
        For what cannot be used, a result that is there already and is not what this run makes, or
        one that another run has begun with other settings or another image.
    ComputeError
        If the computation, reading or writing fails on the way. What is finished is kept.
    """
    began, threads = time.perf_counter(), torch.get_num_threads()
    source = open_image(run.origin)
    check_run(run, source)
    folder = Folder(run.out.absolute())
    folder.check_free()
    lock = filelock.FileLock(folder.lock)
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout as error:
        raise RlnError(f"another run is writing {run.out}; wait for it, or stop it.") from error
    try:
        samples = Samples(source, run.settings.negatives)
        if run.out.exists() and not run.large.overwrite:
            held = folder.completed()
            check_same(identity_of(run, source, samples), held and held.job, run.out)
            assert held is not None
            yield from _verified(folder, held, source, began)
            folder.tidy()
            return Outcome(run.out, held.summary, made=False)
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


def _begun(
    run: LargeRun,
    source: Image,
    samples: Samples,
    folder: Folder,
    workers: Engine,
    speed: Speed | None,
) -> Generator[LargeReport, None, Job]:
    """Yield reports, return the job: that of an interrupted run, or a new one."""
    identity = identity_of(run, source, samples)
    # What is looked at is so here, whatever the workers of a scheduler have.
    device = resolve_device("auto" if run.large.scheduler else run.settings.device)
    free, kind = workers.device_bytes, workers.device
    memory, ram = worker_memory(
        run, workers.ram_bytes, workers.taken_bytes, kind, free, workers.crowd,
        workers.beside_bytes,
    )  # fmt: skip
    stamp = source.stamp()
    job = _interrupted(folder, run.large.overwrite)
    if job is not None and run.large.overwrite and (job.identity, job.stamp) != (identity, stamp):
        job = None
    origin = replace(run.origin, path=str(Path(run.origin.path).absolute()))
    if job is not None:
        check_same(identity, job, run.out)
        if job.device != kind:
            raise RlnError(
                f"{run.out} was begun on {job.device}, whose results are not equal to the bit to "
                f"those of {kind}; go on there, or begin anew with `overwrite`."
            )
        if run.memory_gb != "auto" and ram < job.ram:
            warn(
                f"the run was begun with tiles for {job.ram / 1e9:.2f} GB for each worker and goes "
                f"on with them, not within {ram / 1e9:.2f} GB."
            )
        folder.clean()
        folder.provide(run.psf, run.model)  # the same again, should they be damaged
        before = job.stamp
        job = replace(job, origin=origin)  # which may lie elsewhere by now
        folder.write(job)
        if before != stamp:  # before anything is made of another image
            drive = Drive(folder, job, workers, time.perf_counter())
            try:
                yield from drive.check_source()
            finally:
                drive.cancel()
            job = replace(job, stamp=stamp)
            folder.write(job)
    else:
        if (needed := looking_bytes(source, run.psf, run.told)) > memory:
            raise RlnError(
                f"a part of the image with this PSF takes {needed / 1e9:.2f} GB but "
                f"{memory / 1e9:.2f} GB may be taken; allow more (`memory_gb`), or crop the PSF."
            )
        found = yield from look(run, samples, device)
        for doubt in doubts(run.model, run.psf) if run.model is not None else ():
            warn(doubt)
        plan = plan_of(run, source, found.iterations, kind, memory, ram)
        check_disk(run, plan)
        steps = calibrated(run, samples, found, device, whole=len(plan.tiles) == 1)
        found, estimate = yield from steps
        tile = None
        if estimate is not None:
            z, y, x = (slice(0, n) for n in source.shape)
            tile = WholeTile(estimate, checksum(source.read((z, y, x), found.time)))
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
            form=run.form,
            ome_zarr=run.large.ome_zarr,
            dtype=run.dtype,
            device=kind,
            threads=workers.threads,
            ram=ram,
            inputs={name: value for name, value in inputs.items() if value is not None},
            stamp=stamp,
        )
        folder.begin(job, run.psf, run.model, tile)
    told = forecast_of(
        run, source, job.plan, job.statistics.iterations, False, workers.workers,
        workers.taken_bytes, speed, kind,
    )  # fmt: skip
    yield LargeReport(phase="plan", done=0, total=0, seconds=0.0, forecast=told)
    return job


def _interrupted(folder: Folder, overwrite: bool) -> Job | None:
    """Return the job of an interrupted run; none where there is none, or it may be begun anew."""
    try:
        job = folder.job()
    except RlnError:
        if overwrite:
            return None
        raise
    if job is not None and not folder.is_whole(job):
        warn(f"what was begun of {folder.out} is damaged; it is begun anew.")
        return None
    return job


def _verified(
    folder: Folder, held: Completed, source: Image, began: float
) -> Generator[LargeReport, None, None]:
    """Yield reports; raise unless a complete result is as it was written, and of this image.

    Raises
    ------
    RlnError
        Naming what is not.
    """
    job, plan = held.job, held.job.plan
    changed = job.stamp != source.stamp()
    target = folder.target(job, folder.out)
    for done, (key, entry) in enumerate(held.finished.items(), 1):
        tile = key.level == TILE
        if changed and "source" in entry:
            core = (plan.tiles if tile else plan.blocks)[key.number].core
            if checksum(source.read(core, key.time)) != entry["source"]:
                raise changed_since(job, key)
        if not tile and not is_intact(target, job, key, entry["checksum"]):
            raise RlnError(
                f"{folder.out} is not as it was written (part {key.number} of level {key.level}); "
                "make it anew with `overwrite`."
            )
        lasted = time.perf_counter() - began
        yield LargeReport(phase="check", done=done, total=len(held.finished), seconds=lasted)


def _driven(
    run: LargeRun, folder: Folder, job: Job, workers: Engine, began: float
) -> Generator[LargeReport, None, dict[str, Any]]:
    """Yield reports until all is written; return what was found."""
    drive = Drive(folder, job, workers, began, run.first)
    blocks = job.plan.times * len(job.plan.blocks)
    try:
        yield from drive.check()
        yield from drive.blocks()
        yield from drive.levels()
        if open_image(job.origin).stamp() != job.stamp:  # somebody still writes it, perhaps
            yield from drive.check_source()
    except Exception as error:  # also what a cluster raises when workers keep dying
        told = sum(key.level == 0 for key in drive.finished)
        kept = (
            f"{_explained(error).rstrip('.')}. {told} of {blocks} blocks are finished and kept: "
            "the same command goes on from there."
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
    if is_plain_name(run.out):
        write_plain(folder.result, job)
    folder.complete(job, summary)
    if summary["clipped"]:
        warn(
            f"{summary['clipped']} voxels were clipped to {job.dtype}; write float32 to keep them."
        )
    return summary


def _summary(run: LargeRun, folder: Folder, job: Job, drive: Drive) -> dict[str, Any]:
    """Return what is to be known of a result: its light, and how well it explains the image.

    The ``light_ratio`` is that of the whole result and the whole image; ``chi2``, ``flux_ratio``
    and ``reblur_scale`` are those of the part that the stop was found in.
    """
    found, plan = job.statistics, job.plan
    finest = [entry for key, entry in drive.finished.items() if key.level == 0]
    light = math.fsum(entry["light"] for entry in finest)
    shown = math.fsum(entry.get("image", 0.0) for entry in drive.finished.values())
    flux = shown - found.background * plan.times * math.prod(plan.shape)
    facts: dict[str, Any] = found.calibrated.facts() | {
        "iterations": found.iterations,
        "clipped": sum(entry["clipped"] for entry in finest),
        "light_ratio": light / flux if flux > 0 else None,
        "seconds_of_tasks": {part: round(s, 3) for part, s in drive.seconds.items()},
    }
    if run.psf is None:
        return facts
    # As much around the telling part as light from there reaches, so that its blur is seen whole.
    z, y, x = (
        slice(max(0, start - p // 2), min(stop + p // 2, n))
        for (start, stop), p, n in zip(found.telling, run.psf.shape, plan.shape, strict=True)
    )
    image, seen = measured_crop(
        run, open_image(job.origin), found.calibrated, (z, y, x), found.time
    )
    result = folder.target(job).read((z, y, x), found.time).astype("float32")
    residual = explained(image, result, run.psf, found.calibrated, seen=seen)
    # Where too little is seen whole it is a judgement of the border, not of the result.
    judged = residual is not None and residual.inside.mean() < 1
    return facts | facts_of(residual) if judged else facts


def _explained(error: BaseException) -> str:
    """Return why a task failed, for a person."""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "the disk is full; make room on it"
    return str(error) or type(error).__name__
