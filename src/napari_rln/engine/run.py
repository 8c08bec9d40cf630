"""Execution of jobs: reading, deconvolution in memory or in parts, and writing."""

import re
import shutil
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from napari_rln.core.device import resolve_device
from napari_rln.core.errors import RlnError
from napari_rln.core.generators import finish
from napari_rln.core.machine import Allowance, used_bytes
from napari_rln.core.report import Report
from napari_rln.core.volume import OnGrid, Volume
from napari_rln.deconvolution.method import Method
from napari_rln.deconvolution.shared import Shared
from napari_rln.deconvolution.views import pair_views_iter
from napari_rln.engine.forecast import duration, forecast
from napari_rln.engine.history import expected_seconds
from napari_rln.engine.imagej import is_plain_name
from napari_rln.engine.in_memory import deconvolve_iter
from napari_rln.engine.in_parts import run_task_iter
from napari_rln.engine.job import Job, PsfFile
from napari_rln.engine.journal import RunFolder
from napari_rln.engine.task import Task, can_write_in_parts, check_output_name
from napari_rln.io.image import Image, ImageFile, files_read, open_held, open_image
from napari_rln.io.paths import (
    check_apart,
    check_outputs,
    check_place,
    check_tiff_output,
    is_zarr_name,
)
from napari_rln.io.volumes import (
    check_channels_output,
    contents,
    read,
    write,
    write_channels,
)
from napari_rln.psf.examine import fit_psf
from napari_rln.psf.findings import Finding
from napari_rln.registration.register import RegistrationReport

Rows = list[tuple[str, str]]


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """Outcome of one method of a job.

    Attributes
    ----------
    out
        Path of the result.
    method
        Method of the result.
    facts
        Measured facts and the duration, for each channel.
    made
        Whether the result was computed now; otherwise it already existed, complete.
    in_parts
        Whether it was computed and written in parts.
    findings
        Findings on the PSFs.
    """

    out: Path
    method: Method
    facts: tuple[dict[str, Any], ...]
    made: bool = True
    in_parts: bool = False
    findings: tuple[Finding, ...] = ()


Watcher = Callable[[Volume, Volume | None, Method], None]
"""Called with image, PSF and method of a deconvolution in memory."""

FindingsWatcher = Callable[[Sequence[Finding], bool], None]
"""Called with the findings on a PSF, and whether they were repaired."""


def _silent(findings: Sequence[Finding], repaired: bool) -> None:
    pass


def run(job: Job, *, shared: Shared | None = None) -> tuple[Outcome, ...]:
    """Run a job; see :func:`run_iter`, which yields reports."""
    return finish(run_iter(job, shared=shared))


def run_iter(
    job: Job,
    *,
    shared: Shared | None = None,
    on_findings: FindingsWatcher = _silent,
    on_input: Watcher = lambda image, psf, method: None,
) -> Generator[Report | RegistrationReport, None, tuple[Outcome, ...]]:
    """Run a job; yield reports, return its outcomes. Closing the generator cancels.

    An image that fits into the memory is deconvolved as a whole, any other in parts; an interrupted
    job in parts is resumed.

    Parameters
    ----------
    job
        Job to run.
    shared
        Calibration and other measurements of the image, shared with other runs.
    on_findings
        Called with the findings on a PSF, and whether they were repaired.
    on_input
        Called with image, PSF and method of a deconvolution in memory.

    Returns
    -------
    tuple of Outcome
        One outcome per method.

    Raises
    ------
    RlnError
        If an input is invalid, before the work starts.
    ComputeError
        If the computation fails on the way.
    OSError
        If a file cannot be read, or the disk is full.
    """
    shared = shared or Shared()
    runs = [_Run(job, method, shared, on_findings, on_input) for method in job.methods]
    for later in runs[1:]:  # not when the first has been done
        later.check()
    outcomes = []
    for each in runs:
        outcomes.append((yield from each.go()))
    return tuple(outcomes)


def forecast_of_job(job: Job, *, on_findings: FindingsWatcher = _silent) -> dict[Path, Rows]:
    """Return the forecasts of a job by result, as rows of names and values, without starting it.

    Parameters
    ----------
    job
        Job to estimate.
    on_findings
        Called with the findings on a PSF, and whether they would be repaired.

    Raises
    ------
    RlnError
        As :func:`run_iter`.
    """
    runs = [_Run(job, method, Shared(), on_findings) for method in job.methods]
    return {run.output.path: run.rows() for run in runs}


def is_in_parts(job: Job) -> bool:
    """Tell whether any method of a job reads, deconvolves and writes the image in parts.

    Raises
    ------
    RlnError
        As :func:`run_iter`.
    """
    runs = [_Run(job, method, Shared()) for method in job.methods]
    return job.second is None and not channels_of(job) and any(run.goes_in_parts() for run in runs)


def task_of(job: Job, *, on_findings: FindingsWatcher = _silent) -> Task:
    """Return the task, with its PSF read, of a job of one method that runs in parts.

    Parameters
    ----------
    job
        Job of one method.
    on_findings
        Called with the findings on the PSF, and whether they were repaired.

    Raises
    ------
    RlnError
        If image, PSF or method cannot be used.
    """
    return _Run(job, job.methods[0], Shared(), on_findings).task()


class _Run:
    """A job with one of its methods."""

    def __init__(
        self,
        job: Job,
        method: Method,
        shared: Shared,
        on_findings: FindingsWatcher = _silent,
        on_input: Watcher = lambda image, psf, method: None,
    ) -> None:
        self.job, self.method, self.shared = job, method, shared
        self.output = job.output_of(method)
        self._on_findings, self._on_input = on_findings, on_input
        self._findings: list[Finding] = []

    def go(self) -> Generator[Report | RegistrationReport, None, Outcome]:
        if self.job.second is not None:
            return (yield from self._two_views())
        channels = channels_of(self.job)
        if not channels and self.goes_in_parts():
            return (yield from self._in_parts())
        return (yield from self._in_memory(channels))

    def rows(self) -> Rows:
        """Return the forecast as rows of names and values."""
        if self.job.second is not None:
            raise RlnError("two views are deconvolved in memory; there is nothing to foretell.")
        channels = channels_of(self.job)
        if not channels and self.goes_in_parts():
            self._check_in_parts()
            return list(forecast(self.task()).rows())
        return self._rows_in_memory(channels)

    # --- in parts

    def goes_in_parts(self) -> bool:
        """Tell whether the volume is read and written in parts, rather than as a whole.

        So if a setting requires it, if image or result are not a single TIFF, or if the whole would
        exceed the memory limit.
        """
        job, out = self.job, self.output.path
        Allowance(job.execution.memory_gb)  # raises where that is no amount
        image = Path(job.image.path)
        if job.execution.has_workers or is_zarr_name(out) or not image.is_file():
            return True
        if not can_write_in_parts(out):
            return False
        opened = open_image(job.image)
        if opened.times > 1:
            return not is_plain_name(out)
        if job.execution.tile != "auto":
            return True
        check_place(out)
        folder = RunFolder(out)
        if folder.part.exists() or folder.manifest.exists():  # started or completed in parts
            return True
        return self._whole_bytes(opened) > self._allowed_bytes()

    def check(self) -> None:
        """Raise unless the result can be written."""
        channels = [] if self.job.second else channels_of(self.job)
        if self.job.second is None and not channels and self.goes_in_parts():
            self._check_in_parts()
        else:
            self._check_whole(channels)

    def _check_in_parts(self) -> None:
        check_output_name(self.output.path)
        for source in files_read([*self.job.files, *self.method.files]):
            check_apart(self.output.path, source)

    def task(self) -> Task:
        return Task(
            image=self.job.image,
            psf=self._psf(open_image(self.job.image), self.job.image.channel),
            method=self.method,
            output=self.output,
            execution=self.job.execution,
        )

    def _in_parts(self) -> Generator[Report, None, Outcome]:
        self._check_in_parts()
        outcome = yield from run_task_iter(self.task())
        return Outcome(
            out=outcome.out,
            method=self.method,
            facts=(outcome.summary,),
            made=outcome.made,
            in_parts=True,
            findings=tuple(self._findings),
        )

    # --- in memory

    def _in_memory(
        self, channels: Sequence[tuple[int, PsfFile]]
    ) -> Generator[Report, None, Outcome]:
        self._check_whole(channels)
        out, output = self.output.path, self.output
        results = []
        numbers: list[int | None] = [number for number, _ in channels]
        for channel in numbers or [self.job.image.channel]:
            file = self.job.image if channel is None else self._image(channel)
            image = read(file)
            psf = self._psf(image, channel)
            self._on_input(image, psf, self.method)
            execution = self.job.execution
            results.append(
                (yield from deconvolve_iter(
                    image, psf, self.method, tile=execution.tile, memory_gb=execution.memory_gb,
                    shared=self.shared,
                ))
            )  # fmt: skip
        if channels:
            write_channels(results, out, dtype=output.dtype, replace=output.overwrite)
        else:
            write(results[0], out, dtype=output.dtype, replace=output.overwrite)
        return self._outcome(results)

    def _two_views(self) -> Generator[Report | RegistrationReport, None, Outcome]:
        job, second, output = self.job, self.job.second, self.output
        assert second is not None
        self._check_whole()
        execution = job.execution
        if execution.has_workers:
            raise RlnError(
                "two views are deconvolved whole, by one process; leave out `workers`, `gpus` and "
                "`scheduler`."
            )
        if execution.tile != "auto" and self.method.blocks is None:
            raise RlnError("two views have tiles (`tile`) with a network only; name its `model`.")
        if len(job.psfs) != 1:
            raise RlnError("two views need the PSF of the first, or of both; give one (`psf`).")
        first, other = read(job.image), read(second.image)
        psf = self._fitted(job.psfs[0], first, job.image.channel)
        psf_b = self._fitted(second.psf or job.psfs[0], other, second.image.channel)
        method = self.method
        pair = yield from pair_views_iter(first, other, psf, psf_b, second.views, method)
        for path in self._registered:
            write(pair.second, path, replace=output.overwrite)
        result = yield from deconvolve_iter(
            pair, method=method, tile=execution.tile, memory_gb=execution.memory_gb,
            shared=self.shared,
        )  # fmt: skip
        write(result, output.path, dtype=output.dtype, replace=output.overwrite)
        return self._outcome([result])

    @property
    def _registered(self) -> list[Path]:
        """File for the registered second view, which the first method writes."""
        second = self.job.second
        first = self.method is self.job.methods[0]
        return [second.registered] if second and second.registered and first else []

    def _check_whole(self, channels: Sequence[tuple[int, PsfFile]] = ()) -> None:
        outputs = [self.output.path, *self._registered]
        if channels:
            self._check_channels_memory(channels)
            check_channels_output(self.output.path)
        else:
            for path in outputs:
                check_tiff_output(path)
        first = self._image(channels[0][0]) if channels else self.job.image
        check_outputs(
            outputs,
            inputs=files_read([*self.job.files, *self.method.files]),
            overwrite=self.output.overwrite,
            room=4 * max(1, len(channels)) * open_image(first).voxels,
        )

    def _outcome(self, results: Sequence[Volume]) -> Outcome:
        return Outcome(
            out=self.output.path,
            method=self.method,
            facts=tuple(result.record.facts for result in results if result.record),
            findings=tuple(self._findings),
        )

    def _image(self, channel: int) -> ImageFile:
        return replace(self.job.image, channel=channel)

    # --- PSFs

    def _psf(self, image: OnGrid, channel: int | None) -> Volume | None:
        """Return the PSF prepared for the image, or for one of its channels."""
        psfs = self.job.psfs
        if not psfs:
            return None
        return self._fitted(psfs[(channel or 0) % len(psfs)], image, channel)

    def _fitted(self, psf: PsfFile, image: OnGrid, channel: int | None) -> Volume:
        fitted, findings = fit_psf(read_psf(psf.file, channel), image, repair=psf.repair)
        self._findings += findings
        self._on_findings(findings, psf.repair)
        return fitted

    # --- memory

    def _allowed_bytes(self) -> int:
        """Return the memory that this process may have, bytes."""
        return used_bytes() + Allowance(self.job.execution.memory_gb).left_bytes

    def _whole_bytes(self, opened: Image, psf: PsfFile | None = None) -> int:
        """Return the least memory of this process for the whole volume, bytes."""
        psfs = [psf] if psf is not None else self.job.psfs
        kernel: tuple[int, int, int] | None = None
        if psfs:
            there = open_held(replace(psfs[0].file, series=psfs[0].file.series or 0))
            sizes = dict(zip(there.axes, there.array.shape, strict=True))
            kernel = (sizes.get("Z", 1), sizes.get("Y", 1), sizes.get("X", 1))
        elif self.method.needs_psf:
            self.method.check(opened, None)  # raises with the reason
        return used_bytes() + self.method.needed_bytes(opened.shape, kernel)

    def _check_channels_memory(self, channels: Sequence[tuple[int, PsfFile]]) -> None:
        """Raise if the channels of one file, which are kept as a whole, exceed the memory limit.

        Raises
        ------
        RlnError
            If so, with both numbers.
        """
        allowed = self._allowed_bytes()
        opened = open_image(self._image(channels[0][0]))
        needed = max(self._whole_bytes(opened, psf) for _, psf in channels)
        needed += _waiting_bytes(opened, len(channels))
        if needed > allowed:
            raise RlnError(
                f"{len(channels)} channels in one file take {needed / 1e9:.2f} GB of memory and "
                f"{allowed / 1e9:.2f} GB may be taken; allow more with `memory_gb`, or choose a "
                "`channel` at a time, which is done in parts."
            )

    def _rows_in_memory(self, channels: Sequence[tuple[int, PsfFile]]) -> Rows:
        """Return the forecast of a volume deconvolved as a whole, as rows of names and values."""
        count = len(channels) or 1
        opened = open_image(self._image(channels[0][0]) if channels else self.job.image)
        self._psf(opened, channels[0][0] if channels else self.job.image.channel)
        needed = self._whole_bytes(opened) + _waiting_bytes(opened, count)
        allowed = self._allowed_bytes()
        size = count * opened.voxels * np.dtype(self.output.dtype).itemsize
        free = shutil.disk_usage(self.output.path.absolute().parent).free
        several = f"{count} channels of " if count > 1 else ""
        shape = " x ".join(map(str, opened.shape))
        rows = [
            ("image", f"{several}{shape} voxels, {opened.voxels / 1e6:.4g} Mvoxel, whole"),
            ("memory", f"{needed / 1e9:.2f} GB"),
            ("disk", f"{size / 1e9:.3g} GB, {free / 1e9:.4g} GB free"),
        ]
        kind = resolve_device(self.method.device).type
        seconds = expected_seconds(self.method, kind, count * opened.voxels)
        if seconds is not None:
            rows.append(("time", f"about {duration(seconds)}, by earlier runs"))
        if needed > allowed:
            rows.append(
                ("missing", f"memory: {(needed - allowed) / 1e9:.2f} GB more than may be taken")
            )
        if size > free:
            rows.append(("missing", f"disk: {(size - free) / 1e9:.3g} GB more than there are"))
        return rows


def channels_of(job: Job) -> list[tuple[int, PsfFile]]:
    """Return the channels to write into one file with their PSF files; empty for a single channel.

    There are several if there is a PSF per channel: a file for each, or one file with as many
    channels.

    Raises
    ------
    RlnError
        If there are several PSFs, but not one for each channel.
    """
    psfs, image = job.psfs, job.image
    if not psfs:
        return []
    single = image.channel is not None or image.planes_are == "channel"
    count = 1 if single else contents(image.path).channels
    if len(psfs) not in (1, count):
        raise RlnError(
            f"there are {len(psfs)} PSFs but {Path(image.path).name} has {count} "
            f"{'channel' if count == 1 else 'channels'} to deconvolve; give one for each."
        )
    if count == 1 or (len(psfs) == 1 and contents(psfs[0].file.path, 0).channels != count):
        return []
    return [(channel, psfs[channel % len(psfs)]) for channel in range(count)]


def read_psf(file: ImageFile, channel: int | None = None) -> Volume:
    """Return a PSF from its file, without preparation.

    Parameters
    ----------
    file
        PSF file.
    channel
        Channel of the image, used if the PSF's file has several and none is named.

    Raises
    ------
    RlnError
        As :func:`napari_rln.io.volumes.read`, naming the options of the PSF.
    """
    if file.channel is not None or file.planes_are == "channel":
        channel = file.channel
    elif contents(file.path, file.series or 0).channels == 1:
        channel = None
    try:
        return read(replace(file, channel=channel))
    except RlnError as error:
        raise RlnError(_of_psf(str(error))) from error


def _of_psf(sentence: str) -> str:
    """Return a message on an image's file with the option names of a PSF's."""
    whole, _, _ = sentence.partition(", or go on with `missing")  # such a PSF is useless
    names = "voxel_um|channel|time|series|planes_are"
    message = re.sub(rf"`({names})\b", r"`psf_\1", whole)
    return message if message.endswith(".") else f"{message}."


def _waiting_bytes(opened: Image, channels: int) -> int:
    """Return the memory of finished channels until the last one, bytes."""
    return (channels - 1) * opened.voxels * np.dtype(np.float32).itemsize
