"""What ``rld``, ``rln`` and ``batch`` share where volumes are written in parts."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from napari_rln.cli.options import Flat, ImageSource, PsfSource
from napari_rln.cli.terminal import Terminal, number
from napari_rln.cost import whole_bytes
from napari_rln.large.forecast import Forecast, duration, forecast
from napari_rln.large.job import Folder
from napari_rln.large.plain import is_plain_name
from napari_rln.large.reports import LargeReport
from napari_rln.large.request import LargeRun, has_large_name
from napari_rln.large.run import run_large
from napari_rln.large.settings import LargeSettings
from napari_rln.machine import Allowance, taken_bytes
from napari_rln.model import Model
from napari_rln.rld import RldSettings
from napari_rln.rln import RlnSettings
from napari_rln.speed import calibrate
from napari_rln.steps import finish, relay
from napari_rln.stores.ngff import is_zarr_name
from napari_rln.stores.source import Origin, open_source

Memory = float | Literal["auto"]


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


def origin_of(image: Path, source: ImageSource) -> Origin:
    """Return where an image is read from."""
    return Origin(
        path=str(image), voxel_um=source.voxel_um, channel=source.channel, time=source.time
    )


def in_parts(
    image: Path,
    source: ImageSource,
    out: Path,
    options: LargeOptions,
    memory: Memory,
    psf: Path | None,
    psf_source: PsfSource,
    settings: RldSettings | RlnSettings,
    model: Model | None = None,
) -> bool:
    """Tell whether a volume is to be read and written in parts, rather than whole.

    It is where somebody asks for what only that has, where file or result are no single TIFF, and
    where it would take more memory than it may.
    """
    allowance = Allowance(memory)
    if options.dry_run or options.settings.asked or is_zarr_name(out) or not image.is_file():
        return True
    if not has_large_name(out):
        return False
    opened = open_source(origin_of(image, source))
    if opened.times > 1:
        return not is_plain_name(out)
    folder = Folder(out)
    if folder.part.exists() or folder.manifest.exists():  # begun so, or done so
        return True
    kernel = None
    if psf is not None:
        kernel = open_source(Origin(path=str(psf), voxel_um=psf_source.psf_voxel_um or (1, 1, 1)))
    needed = whole_bytes(opened.shape, kernel.shape if kernel else None, settings, model)
    return needed > taken_bytes() + allowance.left_bytes


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
    if not found:
        terminal.say(f"{outcome.out}: complete already, nothing was done")
    else:
        terminal.say(
            f"{outcome.out}: {duration(found['seconds'])}, background {found['background']:.4g}, "
            f"chi2 {number(found.get('chi2')) or 'unknown'}, flux ratio "
            f"{number(found.get('flux_ratio')) or 'unknown'}, at most "
            f"{found['peak_mb'] / 1e3:.2f} GB for each of {found['workers']} workers"
        )
    terminal.report({"out": str(outcome.out), "facts": found})
