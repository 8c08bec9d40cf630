"""What ``rld``, ``rln`` and ``batch`` share where volumes are written in parts."""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from cyclopts import Parameter

from napari_rln.cli.options import Flat, ImageSource, bytes_of
from napari_rln.cli.terminal import Terminal, judgement
from napari_rln.core.errors import RlnError
from napari_rln.core.generators import relay
from napari_rln.core.machine import Allowance, taken_bytes
from napari_rln.core.volume import Volume
from napari_rln.deconvolution.rld_settings import RldSettings
from napari_rln.engine.cost import READ_BYTES, rld_cost, rln_cost, whole_bytes
from napari_rln.engine.execution import LargeSettings
from napari_rln.engine.forecast import duration, forecast
from napari_rln.engine.imagej import is_plain_name
from napari_rln.engine.job import Folder
from napari_rln.engine.needs import MOVING_S, WHOLE_S
from napari_rln.engine.reports import LargeReport
from napari_rln.engine.request import LargeRun, check_large_name, has_large_name
from napari_rln.engine.run import run_large
from napari_rln.engine.speed import calibrate_apart
from napari_rln.io.image import Image, ImageFile, files_read, held, open_image
from napari_rln.io.paths import (
    check_apart,
    check_outputs,
    check_place,
    check_tiff_output,
    is_zarr_name,
)
from napari_rln.io.volumes import OutputType, check_channels_output
from napari_rln.networks.model import Model
from napari_rln.networks.rln_settings import RlnSettings, kept_bytes, seeking_bytes

Memory = float | Literal["auto"]

_LONG = 20_000_000  # voxels of a run, below which it takes as long to measure how long it takes


@Flat
@dataclass(frozen=True, kw_only=True)
class LargeOptions:
    """How a volume is written in parts.

    Parameters
    ----------
    dry_run
        Say how the volume would be divided and what it would take, and do nothing.
    settings
        Who does it.
    """

    dry_run: Annotated[bool, Parameter(negative="")] = False
    settings: Annotated[LargeSettings, Flat] = field(default_factory=LargeSettings)


def check_result(
    out: Path,
    inputs: list[Path],
    options: LargeOptions,
    image: ImageFile | None = None,
    channels: int = 1,
) -> None:
    """Raise unless a result can be written, of a kind that is written whole or in parts.

    Parameters
    ----------
    out
        Where.
    inputs
        What is read.
    options
        Whether it may replace what is there.
    image
        What it is of, where it is written whole; else it is resumed where it was interrupted.
    channels
        That it has.
    """
    if image is None:
        check_large_name(out)
        for source in files_read(inputs):
            check_apart(out, source)
        return
    if channels > 1:
        check_channels_output(out)
    else:
        check_tiff_output(out)
    room = channels * bytes_of(replace(image, channel=image.channel if channels == 1 else 0))
    check_outputs([out], inputs=files_read(inputs), overwrite=options.settings.overwrite, room=room)


def in_parts(
    image: Path,
    source: ImageSource,
    out: Path,
    options: LargeOptions,
    memory: Memory,
    psf: Path | None,
    settings: RldSettings | RlnSettings,
    model: Model | None = None,
) -> bool:
    """Tell whether a volume is to be read and written in parts, rather than whole.

    It is where somebody asks for what only that has, where file or result are no single TIFF, and
    where it would take more memory than it may.
    """
    allowance = Allowance(memory)
    if options.settings.asked or is_zarr_name(out) or not image.is_file():
        return True
    if not has_large_name(out):
        return False
    opened = open_image(source.origin(image))
    if opened.times > 1:
        return not is_plain_name(out)
    check_place(out)
    folder = Folder(out)
    if folder.part.exists() or folder.manifest.exists():  # begun so, or done so
        return True
    return _whole_bytes(opened, psf, settings, model) > taken_bytes() + allowance.left_bytes


def check_channels(
    image: Path,
    source: ImageSource,
    channels: Sequence[tuple[int, Path]],
    memory: Memory,
    settings: RldSettings | RlnSettings,
    model: Model | None = None,
) -> None:
    """Raise if the channels of one file take more memory than they may: they are written whole.

    Raises
    ------
    RlnError
        With both numbers.
    """
    allowed = taken_bytes() + Allowance(memory).left_bytes
    opened = open_image(replace(source, channel=channels[0][0]).origin(image))
    needed = max(_whole_bytes(opened, psf, settings, model) for _, psf in channels)
    needed += _waiting_bytes(opened, len(channels))
    if needed > allowed:
        raise RlnError(
            f"{len(channels)} channels in one file take {needed / 1e9:.2f} GB of memory and "
            f"{allowed / 1e9:.2f} GB may be taken; allow more with `memory_gb`, or choose a "
            "`channel` at a time, which is done in parts."
        )


def _whole_bytes(
    opened: Image, psf: Path | None, settings: RldSettings | RlnSettings, model: Model | None
) -> int:
    """Return what this process will have at least to deconvolve a volume whole, in bytes."""
    kernel = None
    if psf is not None:
        there = held(ImageFile(path=str(psf), series=0))
        sizes = dict(zip(there.axes, there.array.shape, strict=True))
        kernel = (sizes.get("Z", 1), sizes.get("Y", 1), sizes.get("X", 1))
    return whole_bytes(opened.shape, kernel, settings, model)


def _waiting_bytes(opened: Image, channels: int) -> int:
    """Return what results take that wait for the last channel."""
    return (channels - 1) * opened.voxels * np.dtype(np.float32).itemsize


def foretell(
    image: Path,
    source: ImageSource,
    out: Path,
    dtype: OutputType,
    memory: Memory,
    psf: Volume | None,
    settings: RldSettings | RlnSettings,
    terminal: Terminal,
    model: Model | None = None,
    channels: int = 1,
) -> None:
    """Say what a volume would take that is deconvolved whole, and do nothing.

    Parameters
    ----------
    image, source, out, dtype, memory
        What is asked for; of several channels the first.
    psf
        Fit for the image.
    settings, model
        Of the method.
    terminal
        To whom.
    channels
        That go into one file.
    """
    opened = open_image(source.origin(image))
    taken, allowed = taken_bytes(), Allowance(memory).left_bytes
    speed, shape = calibrate_apart(settings.device), opened.shape
    needed = READ_BYTES * opened.voxels + _waiting_bytes(opened, channels)
    if isinstance(settings, RldSettings):
        assert psf is not None
        cost = rld_cost(shape, psf.shape, settings, speed)
        needed += seeking_bytes(shape, psf.shape, settings)
    else:
        assert model is not None
        cost = rln_cost(shape, psf.shape if psf else None, model, settings, speed)
        needed += kept_bytes(shape, psf.shape if psf else None, model)
    if speed.device != "cuda":
        needed += cost.bytes
    size = channels * opened.voxels * np.dtype(dtype).itemsize
    free = shutil.disk_usage(out.parent).free
    seconds = WHOLE_S + channels * (cost.seconds + MOVING_S * opened.voxels)
    several = f"{channels} channels of " if channels > 1 else ""
    rows = [
        (
            "image",
            f"{several}{' x '.join(map(str, shape))} voxels, {opened.voxels / 1e6:.4g} Mvoxel, "
            "whole",
        ),
        ("memory", f"{(taken + needed) / 1e9:.2f} GB"),
        ("disk", f"{size / 1e9:.3g} GB, {free / 1e9:.4g} GB free"),
        ("time", duration(seconds)),
    ]
    if needed > allowed:
        rows.append(
            ("missing", f"memory: {(needed - allowed) / 1e9:.2f} GB more than may be taken")
        )
    if size > free:
        rows.append(("missing", f"disk: {(size - free) / 1e9:.3g} GB more than there are"))
    terminal.table("", ("plan", ""), rows)
    terminal.report({"out": str(out), "plan": _named(rows)})


def _named(rows: list[tuple[str, str]]) -> dict[str, str]:
    """Return rows by their names; what is missing in one."""
    named: dict[str, str] = {}
    for name, text in rows:
        named[name] = f"{named[name]}; {text}" if name in named else text
    return named


def _is_long(run: LargeRun) -> bool:
    """Tell whether a run takes so long that it is worth measuring how long."""
    source = open_image(run.origin)
    return source.times * source.voxels > _LONG


def go(run: LargeRun, options: LargeOptions, terminal: Terminal) -> None:
    """Do a run, or only say what it would take."""
    silent = terminal.quiet or terminal.json_output
    measured = options.dry_run or (not silent and _is_long(run))
    speed = calibrate_apart(run.settings.device) if measured else None
    if options.dry_run:
        rows = forecast(run, speed).rows()
        terminal.table("", ("plan", ""), rows)
        terminal.report({"out": str(run.out), "plan": _named(rows)})
        return

    def shown(report: LargeReport) -> LargeReport:
        if report.forecast is not None:
            terminal.table("", ("plan", ""), report.forecast.rows())
        return report

    try:
        outcome = terminal.follow(relay(run_large(run, speed), shown))
    except KeyboardInterrupt as stop:
        raise KeyboardInterrupt(
            "what is finished is kept: the same command goes on from there"
        ) from stop
    found = outcome.summary
    if not outcome.made:
        terminal.say(f"{outcome.out}: complete already, nothing was done")
    else:
        terminal.say(
            f"{outcome.out}: {duration(found['seconds'])}, background {found['background']:.4g}, "
            f"{judgement(found)}, at most {found['peak_mb'] / 1e3:.2f} GB for each of "
            f"{found['workers']} worker{'' if found['workers'] == 1 else 's'}"
        )
    terminal.report({"out": str(outcome.out), "made": outcome.made, "facts": found})
