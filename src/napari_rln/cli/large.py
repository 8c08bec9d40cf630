"""What ``rld``, ``rln`` and ``batch`` share where volumes are written in parts."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from napari_rln.cli.options import Flat, ImageSource, PsfSource, bytes_of
from napari_rln.cli.terminal import Terminal, judgement
from napari_rln.device import free_bytes, resolve_device
from napari_rln.files import check_apart, check_outputs, check_tiff_output, is_zarr_name
from napari_rln.io import check_channels_output
from napari_rln.large.forecast import Forecast, duration, forecast
from napari_rln.large.job import Folder
from napari_rln.large.reports import LargeReport
from napari_rln.large.request import LargeRun, check_large_name, has_large_name
from napari_rln.large.run import run_large
from napari_rln.large.settings import LargeSettings
from napari_rln.rld import RldSettings, memory_bytes
from napari_rln.rln import SHARE
from napari_rln.speed import calibrate
from napari_rln.steps import finish, relay
from napari_rln.stores.source import Origin, held, open_source

Memory = float | Literal["auto"]

_BYTES = 16  # per voxel of an image beside the computation: as read, as float32, and the result


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
    image: Origin | None = None,
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
        for source in inputs:
            check_apart(out, source)
        return
    if channels > 1:
        check_channels_output(out)
    else:
        check_tiff_output(out)
    room = channels * bytes_of(replace(image, channel=image.channel if channels == 1 else 0))
    check_outputs([out], inputs=inputs, overwrite=options.settings.overwrite, room=room)


def in_parts(
    image: Path,
    source: ImageSource,
    out: Path,
    options: LargeOptions,
    memory: Memory,
    device: str,
    psf: Path | None,
    psf_source: PsfSource,
    told: RldSettings | None,
) -> bool:
    """Tell whether a volume is to be read and written in parts, rather than whole.

    It is where somebody asks for what only that has, where file or result are no single TIFF, and
    where it would take more memory than it may.
    """
    if options.dry_run or options.settings.asked or is_zarr_name(out) or not image.is_file():
        return True
    if not has_large_name(out):
        return False
    folder = Folder(out)
    if folder.part.exists() or folder.manifest.exists():  # begun so, or done so
        return True
    opened = open_source(source.origin(image))
    if opened.times > 1:
        return True
    z, y, x = opened.shape
    needed = _BYTES * z * y * x
    if told is not None and psf is not None:
        kernel = held(Origin(path=str(psf)))
        sizes = dict(zip(kernel.axes, kernel.array.shape, strict=True))
        shape = (sizes.get("Z", 1), sizes.get("Y", 1), sizes.get("X", 1))
        needed += memory_bytes(opened.shape, shape, told)
    where = resolve_device(device)
    allowed = SHARE * free_bytes(where) if memory == "auto" else memory * 1e9
    return needed > allowed


def say_forecast(told: Forecast, terminal: Terminal) -> None:
    """Print what a run will take."""
    terminal.table("", ("plan", ""), told.rows())


def go(run: LargeRun, options: LargeOptions, terminal: Terminal) -> None:
    """Do a run, or only say what it would take."""
    silent = terminal.quiet or terminal.json_output
    speed = None if silent else finish(calibrate(run.settings.device))
    if options.dry_run:
        ahead = forecast(run, speed)
        say_forecast(ahead, terminal)
        terminal.report({"out": str(run.out), "plan": dict(ahead.rows())})
        return

    def shown(report: LargeReport) -> LargeReport:
        if report.forecast is not None:
            say_forecast(report.forecast, terminal)
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
