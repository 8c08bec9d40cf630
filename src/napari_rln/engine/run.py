"""Execution of jobs: reading, deconvolution in memory or in parts, and writing."""

import contextlib
import json
import re
import shutil
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from napari_rln.core.device import resolve_device
from napari_rln.core.errors import RlnError
from napari_rln.core.generators import finish
from napari_rln.core.limits import as_dict
from napari_rln.core.machine import Allowance, used_bytes
from napari_rln.core.record import Record
from napari_rln.core.report import Report, duration
from napari_rln.core.volume import OnGrid, Volume, shape_on
from napari_rln.deconvolution.method import Json, Method
from napari_rln.deconvolution.settings import check_image
from napari_rln.deconvolution.shared import Shared
from napari_rln.deconvolution.views import pair_views_iter
from napari_rln.engine.forecast import forecast
from napari_rln.engine.history import expected_seconds
from napari_rln.engine.identity import NOT_IDENTIFYING
from napari_rln.engine.imagej import is_plain_name
from napari_rln.engine.in_memory import deconvolve_iter
from napari_rln.engine.in_parts import run_task_iter
from napari_rln.engine.job import Job, PsfFile
from napari_rln.engine.journal import RunFolder
from napari_rln.engine.psf_memory import check_psf_memory
from napari_rln.engine.task import Task, can_write_in_parts, check_output_name
from napari_rln.io.image import Image, ImageFile, files_read, open_contents, open_image
from napari_rln.io.paths import (
    check_apart,
    check_outputs,
    check_place,
    check_tiff_output,
    is_zarr_name,
)
from napari_rln.io.volumes import check_channels_output, read, write, write_channels
from napari_rln.psf.examine import fit_psf
from napari_rln.psf.findings import Finding
from napari_rln.psf.from_optics import CompletedOptics, GivenOptics, complete_optics
from napari_rln.psf.optics import Optics
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
    computed
        Whether the result was computed now; otherwise it already existed, complete.
    in_parts
        Whether it was computed and written in parts.
    findings
        Findings on the PSFs.
    """

    out: Path
    method: Method
    facts: tuple[dict[str, Any], ...]
    computed: bool = True
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

    An image that fits into the memory is deconvolved as a whole, any other in parts. An interrupted
    run in parts is resumed, and one of several methods continues with the missing results.

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
    runs = _runs(job, shared, on_findings, on_input)
    for each in runs:
        each.check()
    for method in job.methods:  # so that an earlier method's estimates serve a later one
        shared.marks.update(method.marks)
    outcomes = []
    for each in runs:
        outcomes.append((yield from each.go()))
    return tuple(outcomes)


def forecast_of_job(job: Job, *, on_findings: FindingsWatcher = _silent) -> dict[Path, Rows]:
    """Return the forecasts of a job by result, as rows of names and values, without starting it.

    Raises
    ------
    RlnError
        As :func:`run_iter`.
    """
    runs = _runs(job, on_findings=on_findings)
    return {run.output.path: run.rows() for run in runs}


def is_in_parts(job: Job) -> bool:
    """Tell whether any method of a job reads, deconvolves and writes the image in parts.

    Raises
    ------
    RlnError
        As :func:`run_iter`.
    """
    return any(run.in_parts for run in _runs(job))


def task_of(job: Job, *, on_findings: FindingsWatcher = _silent) -> Task:
    """Return the task, with its PSF read, of a job of one method that runs in parts.

    Raises
    ------
    RlnError
        If image, PSF or method cannot be used.
    """
    return _runs(job, on_findings=on_findings)[0].task()


class _Input:
    """The image of a job, opened once for all of its methods."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._last: tuple[int | None, Volume] | None = None
        self._computed: dict[int, Volume] = {}
        self._psfs: dict[str, Image] = {}

    @cached_property
    def channels(self) -> list[int]:
        """Channels to write into one file; empty for a single one."""
        return [] if self._job.second else channels_of(self._job)

    @cached_property
    def optics(self) -> dict[int, CompletedOptics]:
        """Optics of each channel to deconvolve, from which PSFs are computed; empty if not."""
        return optics_of_job(self._job)

    @cached_property
    def image(self) -> Image:
        """The image, or the first of its channels."""
        file = self._job.image
        return open_image(replace(file, channel=self.channels[0]) if self.channels else file)

    def opened_psf(self, file: ImageFile, channel: int | None) -> Image:
        """Return a PSF whose values are not read yet, opened once for all methods."""
        key = f"{file} {channel}"  # a file's sizes may be a list
        if key not in self._psfs:
            self._psfs[key] = open_psf(file, channel)
        return self._psfs[key]

    def read(self, channel: int | None) -> Volume:
        """Return a channel, kept until another one is read: each method of a job needs it."""
        if self._last is None or self._last[0] != channel:
            self._last = channel, read(replace(self._job.image, channel=channel))
        return self._last[1]

    def computed(self, channel: int | None) -> Volume:
        """Return the PSF of a channel computed from its optics, once for all methods."""
        number = channel or 0
        if number not in self._computed:
            name = f"PSF of {self.optics[number].channel or 'the optics'}"
            self._computed[number] = self.optics[number].psf(
                self.image.voxel_um, self.image.shape[0], name
            )
        return self._computed[number]


def _runs(
    job: Job,
    shared: Shared | None = None,
    on_findings: FindingsWatcher = _silent,
    on_input: Watcher = lambda image, psf, method: None,
) -> list["_Run"]:
    """Return a run for each method of a job."""
    source, shared = _Input(job), shared or Shared()
    return [_Run(job, method, source, shared, on_findings, on_input) for method in job.methods]


class _Run:
    """A job with one of its methods."""

    def __init__(
        self,
        job: Job,
        method: Method,
        source: _Input,
        shared: Shared,
        on_findings: FindingsWatcher,
        on_input: Watcher,
    ) -> None:
        self.job, self.method, self.source, self.shared = job, method, source, shared
        self.output = job.output_of(method)
        self._on_findings, self._on_input = on_findings, on_input
        self._findings: list[Finding] = []
        self._earlier: list[dict[str, Any]] | None = None

    def go(self) -> Generator[Report | RegistrationReport, None, Outcome]:
        """Run the method, after :meth:`check`; yield reports, return the outcome."""
        if self._earlier is not None:
            facts = tuple(record["facts"] for record in self._earlier)
            return Outcome(
                out=self.output.path, method=self.method, facts=facts, computed=False,
                findings=tuple(self._findings),
            )  # fmt: skip
        if self.job.second is not None:
            return (yield from self._two_views())
        return (yield from self._in_parts() if self.in_parts else self._in_memory())

    def rows(self) -> Rows:
        """Return the forecast as rows of names and values."""
        if self.job.second is not None:
            raise RlnError(
                "two views are always deconvolved in memory and have no forecast; start the job "
                "without one."
            )
        if self.in_parts:
            self._check_in_parts()
            return list(forecast(self.task()).rows())
        return self._rows_in_memory()

    # --- in parts

    @cached_property
    def in_parts(self) -> bool:
        """Whether the volume is read and written in parts, rather than as a whole.

        So if a setting requires it, if image or result are not a single TIFF, or if the whole would
        exceed the memory limit.
        """
        job, out = self.job, self.output.path
        if job.second is not None or self.source.channels:
            return False
        Allowance(job.execution.memory_gb)  # raises where that is no amount
        if job.execution.has_workers or is_zarr_name(out) or not Path(job.image.path).is_file():
            return True
        if not can_write_in_parts(out):
            return False
        image = self.source.image
        if image.times > 1:
            return not is_plain_name(out)
        if job.execution.tile != "auto":
            return True
        check_place(out)
        folder = RunFolder(out)
        if folder.part.exists() or folder.manifest.exists():  # started or completed in parts
            return True
        return self._whole_bytes() > self._allowed_bytes()

    def check(self) -> None:
        """Raise unless the result can be written, or exists from an earlier run of this job.

        Also if there is not enough memory for a PSF on the voxels of the image.
        """
        self._check_psfs()
        if self.in_parts:
            self._check_in_parts()
            return
        self._earlier = self._complete_records()
        if self._earlier is None:
            self._check_whole()

    def _check_in_parts(self) -> None:
        check_output_name(self.output.path)
        for source in files_read([*self.job.files, *self.method.files]):
            check_apart(self.output.path, source)

    def task(self) -> Task:
        return Task(
            image=self.job.image,
            psf=self._psf(self.source.image, self.job.image.channel),
            method=self.method,
            output=self.output,
            execution=self.job.execution,
        )

    def _in_parts(self) -> Generator[Report, None, Outcome]:
        outcome = yield from run_task_iter(self.task())
        return Outcome(
            out=outcome.out,
            method=self.method,
            facts=(outcome.summary,),
            computed=outcome.computed,
            in_parts=True,
            findings=tuple(self._findings),
        )

    # --- in memory

    def _in_memory(self) -> Generator[Report, None, Outcome]:
        output, execution = self.output, self.job.execution
        results = []
        for channel in self._channels:
            image = self.source.read(channel)
            psf = self._psf(image, channel)
            self._on_input(image, psf, self.method)
            results.append(
                (yield from deconvolve_iter(
                    image, psf, self.method, tile=execution.tile, memory_gb=execution.memory_gb,
                    shared=self.shared,
                ))
            )  # fmt: skip
        if self.source.channels:
            write_channels(results, output.path, dtype=output.dtype, replace=output.overwrite)
        else:
            write(results[0], output.path, dtype=output.dtype, replace=output.overwrite)
        return self._outcome(results)

    def _two_views(self) -> Generator[Report | RegistrationReport, None, Outcome]:
        job, second, output = self.job, self.job.second, self.output
        assert second is not None
        execution = job.execution
        if execution.has_workers:
            raise RlnError(
                "two views are deconvolved as a whole, by one process; leave out `workers`, `gpus` "
                "and `scheduler`."
            )
        if execution.tile != "auto" and self.method.blocks is None:
            raise RlnError("two views have tiles (`tile`) only with a network; name its `model`.")
        if len(job.psfs) != 1:
            raise RlnError("two views need one PSF, of the first or of both; give one (`psf`).")
        first, other = self.source.read(job.image.channel), read(second.image)
        psf = self._fitted(job.psfs[0], first, job.image.channel)
        psf_b = self._fitted(second.psf or job.psfs[0], other, second.image.channel)
        method = self.method
        pair = yield from pair_views_iter(first, other, psf, psf_b, second.views, method)
        for path in self._registered:
            write(pair.second.image, path, replace=output.overwrite)
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

    @property
    def _channels(self) -> list[int | None]:
        """Channels to deconvolve; None for the only one of a file."""
        return [*self.source.channels] or [self.job.image.channel]

    def _complete_records(self) -> list[dict[str, Any]] | None:
        """Return the records of the result, by channel, if an earlier run of this job wrote it.

        An interrupted job of several methods continues with the missing results. None if the
        result does not exist, may be replaced, or is another one.
        """
        job, output = self.job, self.output
        if len(job.methods) == 1 or output.overwrite or not output.path.is_file():
            return None
        try:
            existing_file = open_contents(output.path)
        except RlnError:
            return None
        if existing_file.record is None or existing_file.array.dtype != np.dtype(output.dtype):
            return None
        record = existing_file.record.as_dict()
        records = record["facts"].get("channels") if self.source.channels else [record]
        try:
            existing = [_identity(each) for each in records]
        except (TypeError, KeyError, AttributeError):  # a record of something else
            return None
        return records if existing == self._expected() else None

    def _expected(self) -> list[Json]:
        """Return the identities of the records of this run's result, by channel."""
        job, second = self.job, self.job.second
        method = self.method if second is None else self.method.of_views(2)
        described = method.describe()
        expected = []
        for channel in self._channels:
            image = check_image(self.source.read(channel), method.negatives)
            inputs, facts = {"image": image.hash}, {}
            psf = self._psf(image, channel)
            if psf is not None:
                inputs["psf"] = psf.hash
            if second is not None and psf is not None:
                other = check_image(read(second.image), method.negatives)
                psf_b = self._fitted(second.psf or job.psfs[0], other, second.image.channel)
                inputs |= {"image_b": other.hash, "psf_b": psf_b.hash}
                facts = {"dual": as_dict(second.views)}
            record = Record(
                method=f"{method.kind}{' dual' if second else ''}",
                settings=described.settings,
                facts=facts,
                inputs=inputs | described.inputs,
            )
            expected.append(_identity(json.loads(record.to_json())))
        return expected

    def _check_whole(self) -> None:
        outputs, channels = [self.output.path, *self._registered], self.source.channels
        if channels:
            self._check_channels_memory()
            check_channels_output(self.output.path)
        else:
            for path in outputs:
                check_tiff_output(path)
        check_outputs(
            outputs,
            inputs=files_read([*self.job.files, *self.method.files]),
            overwrite=self.output.overwrite,
            room=4 * max(1, len(channels)) * self.source.image.voxels,
        )

    def _outcome(self, results: Sequence[Volume]) -> Outcome:
        return Outcome(
            out=self.output.path,
            method=self.method,
            facts=tuple(result.record.facts for result in results if result.record),
            findings=tuple(self._findings),
        )

    # --- PSFs

    def _psf(self, image: OnGrid, channel: int | None) -> Volume | None:
        """Return the PSF prepared for the image, or for one of its channels."""
        psf = self._file(channel)
        if psf is not None:
            return self._fitted(psf, image, channel)
        return self.source.computed(channel) if self.source.optics else None

    def _check_psfs(self) -> None:
        memory_gb = self.job.execution.memory_gb
        for channel in self._channels:
            psf = self._file(channel)
            if psf is not None:
                opened = self.source.opened_psf(psf.file, channel)
                check_psf_memory(opened, self.source.image, self.method, memory_gb)

    def _file(self, channel: int | None) -> PsfFile | None:
        """Return the file of a channel's PSF, if any."""
        psfs = self.job.psfs
        return psfs[(channel or 0) % len(psfs)] if psfs else None

    def _fitted(self, psf: PsfFile, image: OnGrid, channel: int | None) -> Volume:
        fitted, findings = fit_psf(read_psf(psf.file, channel), image, repair=psf.repair)
        self._findings += findings
        self._on_findings(findings, psf.repair)
        return fitted

    # --- memory

    def _allowed_bytes(self) -> int:
        """Return the memory that this process may have, bytes."""
        return used_bytes() + Allowance(self.job.execution.memory_gb).left_bytes

    def _whole_bytes(self, channel: int | None = None) -> int:
        """Return the least memory of this process for the whole volume, bytes."""
        channel = self._channels[0] if channel is None else channel
        image, psf = self.source.image, self._file(channel)
        kernel: tuple[int, int, int] | None = None
        if psf is not None:
            kernel = shape_on(self.source.opened_psf(psf.file, channel), image.voxel_um)
        elif self.source.optics:
            kernel = self.source.computed(channel).shape
        elif self.method.needs_psf:
            self.method.check(image, None)  # raises with the reason
        return used_bytes() + self.method.needed_bytes(image.shape, kernel)

    def _waiting_bytes(self) -> int:
        """Return the memory of finished channels until the last one, bytes."""
        return (len(self._channels) - 1) * self.source.image.voxels * 4

    def _check_channels_memory(self) -> None:
        """Raise if the channels of one file, which are kept as a whole, exceed the memory limit.

        Raises
        ------
        RlnError
            If so, with both numbers.
        """
        allowed, channels = self._allowed_bytes(), self.source.channels
        needed = max(map(self._whole_bytes, channels)) + self._waiting_bytes()
        if needed > allowed:
            raise RlnError(
                f"{len(channels)} channels in one file need {needed / 1e9:.2f} GB of memory, more "
                f"than the limit of {allowed / 1e9:.2f} GB; raise it (`memory_gb`), or deconvolve "
                "one `channel` at a time, in parts."
            )

    def _rows_in_memory(self) -> Rows:
        """Return the forecast of a volume deconvolved as a whole, as rows of names and values."""
        opened, channels = self.source.image, self._channels
        count = len(channels)
        self._psf(opened, channels[0])
        needed = self._whole_bytes() + self._waiting_bytes()
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
            rows.append(("time", f"{duration(seconds, approximate=True)}, by earlier runs"))
        if needed > allowed:
            rows.append(
                ("missing", f"memory: {(needed - allowed) / 1e9:.2f} GB more than the limit")
            )
        if size > free:
            rows.append(("missing", f"disk: {(size - free) / 1e9:.3g} GB more than are free"))
        return rows


def channels_of(job: Job) -> list[int]:
    """Return the channels to write into one file; empty for a single channel.

    There are several if there is a PSF per channel: a file for each, one file with as many
    channels, or one computed from the optics of each.

    Raises
    ------
    RlnError
        If there are several PSFs, but not one for each channel.
    """
    psfs, image = job.psfs, job.image
    if not psfs and not job.computes_psfs:
        return []
    single = image.channel is not None or image.planes_are == "channel"
    count = 1 if single else open_contents(image.path, image.series).channels
    if psfs and len(psfs) not in (1, count):
        raise RlnError(
            f"there are {len(psfs)} PSFs but {Path(image.path).name} has {count} "
            f"{'channel' if count == 1 else 'channels'} to deconvolve; give one for each."
        )
    if count == 1 or (len(psfs) == 1 and open_contents(psfs[0].file.path, 0).channels != count):
        return []
    return list(range(count))


def optics_of_job(job: Job) -> dict[int, CompletedOptics]:
    """Return the optics of each channel of a job, whose PSFs are computed; empty with PSF files.

    Raises
    ------
    RlnError
        If the file and the job state too little for a PSF, or contradict themselves.
    """
    if job.optics is None or not job.computes_psfs:
        return {}
    channels = channels_of(job) or [job.image.channel or 0]
    return {channel: optics_of_file(job.image, job.optics, channel) for channel in channels}


def optics_of_file(file: ImageFile, given: GivenOptics, channel: int = 0) -> CompletedOptics:
    """Return the optics of a channel of a file, completed; errors as :func:`complete_optics`."""
    stated = open_contents(file.path, file.series).optics
    own = stated[channel] if channel < len(stated) else Optics()
    return complete_optics(own, given, channel=channel, name=Path(file.path).name)


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
    with _naming_psf():
        return read(_channel_of_psf(file, channel))


def open_psf(file: ImageFile, channel: int | None = None) -> Image:
    """Return a PSF whose values are not read yet; otherwise as :func:`read_psf`."""
    with _naming_psf():
        return open_image(_channel_of_psf(file, channel))


def _channel_of_psf(file: ImageFile, channel: int | None) -> ImageFile:
    if file.channel is not None or file.planes_are == "channel":
        channel = file.channel
    elif open_contents(file.path, file.series or 0).channels == 1:
        channel = None
    return replace(file, channel=channel)


@contextlib.contextmanager
def _naming_psf() -> Iterator[None]:
    """Convert errors of a file to ones with the option names of a PSF's."""
    try:
        yield
    except RlnError as error:
        raise RlnError(_of_psf(str(error))) from error


def _of_psf(sentence: str) -> str:
    """Return a message on an image's file with the option names of a PSF's."""
    whole, _, _ = sentence.partition(", or go on with `missing")  # such a PSF is useless
    names = "voxel_um|channel|time|series|planes_are"
    message = re.sub(rf"`({names})\b", r"`psf_\1", whole)
    return message if message.endswith(".") else f"{message}."


def _identity(record: Json) -> Json:
    """Return the fields of a record that identify a result."""
    settings = {k: v for k, v in record["settings"].items() if k not in NOT_IDENTIFYING}
    kept = {name: record[name] for name in ("method", "inputs", "version")}
    return kept | {"settings": settings, "dual": record["facts"].get("dual")}
