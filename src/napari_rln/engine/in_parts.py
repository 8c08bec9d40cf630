"""Deconvolution from disk to disk: sampling, planning, and driving the workers."""

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
from napari_rln.core.record import Record
from napari_rln.core.report import Report
from napari_rln.deconvolution.residual import facts_of, residual_of
from napari_rln.engine.executors import Workers, start_workers
from napari_rln.engine.forecast import forecast_of
from napari_rln.engine.history import remember
from napari_rln.engine.identity import check_same, identity_of
from napari_rln.engine.imagej import is_plain_name, write_plain
from napari_rln.engine.journal import (
    TILE,
    Completed,
    RunFolder,
    RunState,
    box_of,
    changed_since,
    is_intact,
)
from napari_rln.engine.methods import method_as_json
from napari_rln.engine.needs import check_disk, plan_of, worker_memory
from napari_rln.engine.sampling import (
    Samples,
    calibrate_samples,
    fit_stages,
    prepared_crop,
    search_bytes,
)
from napari_rln.engine.schedule import Driver
from napari_rln.engine.task import Task, check_task
from napari_rln.engine.tiled import parts_facts
from napari_rln.engine.worker import close, set_threads
from napari_rln.io.image import Image, checksum, open_image


class TaskOutcome(NamedTuple):
    """Outcome of a run in parts.

    Attributes
    ----------
    out
        Path of the result.
    summary
        Measured facts and the duration.
    computed
        Whether the result was computed now; otherwise it already existed, complete.
    """

    out: Path
    summary: dict[str, Any]
    computed: bool = True


def run_task_iter(
    task: Task, workers: Workers | None = None
) -> Generator[Report, None, TaskOutcome]:
    """Deconvolve an image on disk to a result on disk; yield reports, return the outcome.

    Closing the generator interrupts the run, as killing the process does. The same call resumes it;
    the result is equal to the bit to that of an uninterrupted run.

    Raises
    ------
    RlnError
        If an input is invalid, if another result exists, or if a run with other settings or another
        image was interrupted there.
    ComputeError
        If computing, reading or writing fails. Finished parts are kept.
    """
    started, threads = time.perf_counter(), torch.get_num_threads()
    image = open_image(task.image)
    check_task(task, image)
    folder = RunFolder(task.out.absolute())
    folder.check_free()
    lock = filelock.FileLock(folder.lock)
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout as error:
        raise RlnError(
            f"another run is writing {task.out}; wait for it to end, or stop it."
        ) from error
    try:
        samples = Samples(image, task.method.negatives)
        if task.out.exists() and not task.output.overwrite:
            completed = folder.completed()
            check_same(identity_of(task, image, samples), completed and completed.state, task.out)
            assert completed is not None
            yield from _verified(folder, completed, image, started)
            folder.tidy()
            return TaskOutcome(task.out, completed.summary, computed=False)
        with (
            start_workers(task.execution, task.method.device, folder.out.parent)
            if workers is None
            else contextlib.nullcontext(workers)
        ) as started_workers:
            state = yield from _prepared(task, image, samples, folder, started_workers)
            summary = yield from _computed(task, folder, state, started_workers, started)
        return TaskOutcome(task.out, summary)
    finally:
        close()
        set_threads(threads)
        with contextlib.suppress(OSError):  # Windows cannot delete open files
            folder.lock.unlink()
        lock.release()


def _prepared(
    task: Task,
    image: Image,
    samples: Samples,
    folder: RunFolder,
    workers: Workers,
) -> Generator[Report, None, RunState]:
    """Yield reports; return the state of an interrupted run, or a new one."""
    identity = identity_of(task, image, samples)
    # Samples are computed in this process, whatever device the workers of a scheduler have.
    device = resolve_device("auto" if task.execution.scheduler else task.method.device)
    kind = workers.room.kind
    memory, ram = worker_memory(task, workers.room)
    stamp = image.stamp()
    state = _interrupted(folder, task.output.overwrite)
    differs = state is not None and (state.identity, state.stamp) != (identity, stamp)
    if differs and task.output.overwrite:
        state = None
    file = replace(task.image, path=str(Path(task.image.path).absolute()))
    if state is not None:
        check_same(identity, state, task.out)
        if state.device != kind:
            raise RlnError(
                f"{task.out} was started on {state.device}, whose results differ from those of "
                f"{kind} in the last digits; resume it there, or start over with `overwrite`."
            )
        if task.execution.memory_gb != "auto" and ram < state.ram:
            warn(
                f"the interrupted run was planned for {state.ram / 1e9:.2f} GB per worker and "
                f"keeps its tiles, so it will exceed the limit of {ram / 1e9:.2f} GB; start over "
                "with `overwrite` to avoid that."
            )
        folder.clean()
        folder.save_inputs(task.psf, task.method)  # rewritten, as they may be damaged
        before = state.stamp
        state = replace(state, image=file)  # which may have been moved
        folder.write(state)
        if before != stamp:  # before tiles of two images are mixed
            driver = Driver(folder, state, workers, time.perf_counter())
            try:
                yield from driver.check_source()
            finally:
                driver.cancel()
            state = replace(state, stamp=stamp)
            folder.write(state)
    else:
        needed = search_bytes(image.shape, task.psf, task.method.tiles)
        if needed > memory:
            raise RlnError(
                f"a part of the image with this PSF needs {needed / 1e9:.2f} GB, more than the "
                f"limit of {memory / 1e9:.2f} GB; raise it (`memory_gb`), or crop the PSF."
            )
        image_state = yield from calibrate_samples(
            samples, task.psf, task.method, device, task.execution.memory_gb
        )
        for message in task.method.warnings(task.psf):
            warn(message)
        plan = plan_of(task, image, image_state.tiles, kind, memory, ram)
        check_disk(task, plan)
        image_state, estimate = yield from fit_stages(
            samples, task.psf, task.method, image_state, device, whole=len(plan.tiles) == 1
        )
        source = ""
        if estimate is not None:
            z, y, x = (slice(0, n) for n in image.shape)
            source = checksum(image.read((z, y, x), image_state.time))
        described = task.method.describe()
        inputs = {"image": samples.hash} | described.inputs
        facts = image_state.calibrated.facts() | parts_facts(task.method, image_state, plan)
        if task.psf is not None:
            inputs["psf"] = task.psf.hash
            facts |= {"psf": task.psf.record.as_dict()} if task.psf.record else {}
        record = Record(
            method=task.method.kind,
            settings=described.settings,
            facts=facts,
            inputs=inputs,
        )
        state = RunState(
            method=method_as_json(folder.begin(task.psf, task.method)),
            image=file,
            identity=identity,
            record=record,
            name=f"{image.name} · {task.method.title}",
            voxel_um=image.voxel_um,
            image_state=image_state,
            plan=plan,
            form=task.form,
            ome_zarr=task.output.ome_zarr,
            dtype=task.output.dtype,
            device=kind,
            threads=workers.threads,
            ram=ram,
            stamp=stamp,
        )
        folder.create(state, estimate, source)
    expected = forecast_of(
        task, state.plan, state.image_state.tiles, workers.count, kind, workers.room.used
    )
    yield Report(phase="plan", done=0, total=0, seconds=0.0, rows=expected.rows())
    return state


def _interrupted(folder: RunFolder, overwrite: bool) -> RunState | None:
    """Return the state of an interrupted run; None without one, or if it may be overwritten."""
    try:
        state = folder.state()
    except RlnError:
        if overwrite:
            return None
        raise
    if state is not None and not folder.is_whole(state):
        warn(f"the interrupted run of {folder.out} is damaged; it starts over.")
        return None
    return state


def _verified(
    folder: RunFolder, completed: Completed, image: Image, started: float
) -> Generator[Report, None, None]:
    """Yield reports; raise unless a complete result is undamaged, and of this image.

    Raises
    ------
    RlnError
        If a part differs.
    """
    state = completed.state
    changed = state.stamp != image.stamp()
    target = folder.target(state, folder.out)
    for done, (key, entry) in enumerate(completed.finished.items(), 1):
        same = not changed or "source" not in entry
        if not same and checksum(image.read(box_of(state, key), key.time)) != entry["source"]:
            raise changed_since(state, key)
        if key.level != TILE and not is_intact(target, state, key, entry["checksum"]):
            raise RlnError(
                f"{folder.out} is damaged or was changed (part {key.number} of level {key.level}); "
                "compute it again with `overwrite`."
            )
        seconds = time.perf_counter() - started
        yield Report(phase="check", done=done, total=len(completed.finished), seconds=seconds)


def _computed(
    task: Task, folder: RunFolder, state: RunState, workers: Workers, started: float
) -> Generator[Report, None, dict[str, Any]]:
    """Yield reports until everything is written; return the summary."""
    driver = Driver(folder, state, workers, started, task.first)
    blocks = state.plan.times * len(state.plan.blocks)
    try:
        yield from driver.check()
        yield from driver.blocks()
        yield from driver.levels()
        if open_image(state.image).stamp() != state.stamp:  # perhaps still being written
            yield from driver.check_source()
    except Exception as error:  # also what a cluster raises when workers keep dying
        written = sum(key.level == 0 for key in driver.finished)
        kept = (
            f"{_explained(error).rstrip('.')}. {written} of {blocks} blocks are finished and kept: "
            "the same command resumes from there."
        )
        if isinstance(error, RlnError):
            raise RlnError(kept) from error
        raise ComputeError(kept) from error
    finally:
        driver.cancel()
    summary = _summary(task, folder, state, driver) | {
        "workers": workers.count,
        "seconds": round(time.perf_counter() - started, 3),
        "peak_mb": round(driver.peak_bytes / 1e6),
    }
    if is_plain_name(task.out):
        write_plain(folder.result, state.plan.shape, state.voxel_um, state.record)
    folder.complete(state, summary)
    remember(task.method, state.device, state.plan.times * math.prod(state.plan.shape), summary)
    if summary["clipped"]:
        warn(
            f"{summary['clipped']} voxels were clipped to {state.dtype}; write float32 to avoid "
            "that."
        )
    return summary


def _summary(task: Task, folder: RunFolder, state: RunState, driver: Driver) -> dict[str, Any]:
    """Return the facts of a result: its light, and how well it explains the image.

    The ``light_ratio`` is that of the whole result and the whole image; ``chi2``, ``flux_ratio``
    and ``reblur_scale`` are those of the part with most structure, which sets the stop.
    """
    image_state, plan = state.image_state, state.plan
    finest = [entry for key, entry in driver.finished.items() if key.level == 0]
    light = math.fsum(entry["light"] for entry in finest)
    shown = math.fsum(entry.get("image", 0.0) for entry in driver.finished.values())
    flux = shown - image_state.background * plan.times * math.prod(plan.shape)
    facts: dict[str, Any] = image_state.calibrated.facts() | {
        "iterations": image_state.tiles.get("iterations", 0),
        "clipped": sum(entry["clipped"] for entry in finest),
        "light_ratio": light / flux if flux > 0 else None,
        "seconds_of_tasks": {part: round(s, 3) for part, s in driver.seconds.items()},
    }
    if task.psf is None:
        return facts
    # With a margin of the PSF's size, so that the blur of that part lies within.
    z, y, x = (
        slice(max(0, start - p // 2), min(stop + p // 2, n))
        for (start, stop), p, n in zip(
            image_state.structure, task.psf.shape, plan.shape, strict=True
        )
    )
    image = open_image(state.image)
    crop = prepared_crop(
        image, (z, y, x), image_state.calibrated, task.psf, task.method, image_state.time
    )
    result = folder.target(state).read((z, y, x), image_state.time).astype("float32")
    residual = residual_of(crop.image, result, task.psf, image_state.calibrated, mask=crop.mask)
    # With too few such voxels this would assess the border, not the result.
    judged = residual is not None and residual.inside.mean() < 1
    return facts | facts_of(residual) if judged else facts


def _explained(error: BaseException) -> str:
    """Return the reason of a failure as text."""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "the disk is full; make room on it"
    return str(error) or type(error).__name__
