"""``napari-rln batch rld`` and ``napari-rln batch rln``."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from napari_rln.cli.options import CropOption, Flat, Out, PsfSource
from napari_rln.cli.parts import Memory
from napari_rln.cli.terminal import Terminal, number
from napari_rln.core.errors import ComputeError, warn
from napari_rln.core.generators import relay
from napari_rln.core.machine import Allowance
from napari_rln.core.volume import Volume, VoxelUm
from napari_rln.deconvolution.rld_settings import RldSettings
from napari_rln.engine.batch import (
    REPORT,
    BatchSettings,
    Ending,
    Item,
    listed,
    run_batch,
)
from napari_rln.engine.execution import LargeSettings
from napari_rln.engine.reports import BatchReport
from napari_rln.engine.request import LargeRun
from napari_rln.io.image import Missing, PlanesAre, open_image
from napari_rln.io.paths import make_folder
from napari_rln.io.volumes import OutputType
from napari_rln.networks.model import UNIVERSAL, load_model
from napari_rln.networks.rln_settings import RlnSettings


@Flat
@dataclass(frozen=True, kw_only=True)
class BatchOptions:
    """What both kinds of batch take.

    Parameters
    ----------
    out
        Folder of the results, and of batch.csv, which says what became of every image; made if it
        is not there.
    psf
        Point spread function for all channels, or one for each, in their order.
    ending
        Of the results.
    repair
        Repair what is wrong with a PSF.
    dtype
        Type of the written values; uint16 and uint8 round and clip.
    voxel_um
        Voxel size z y x in micrometres, where the files do not say it or are wrong.
    psf_voxel_um
        The same of the PSFs.
    time
        Which time point, from 0; all of them when not given.
    planes_are, missing, crop
        As for rld.
    """

    out: Out
    psf: list[Path] = field(default_factory=list)
    ending: Ending = "ome.tif"
    repair: bool = True
    dtype: OutputType = "float32"
    voxel_um: VoxelUm | None = None
    psf_voxel_um: VoxelUm | None = None
    time: int | None = None
    planes_are: PlanesAre | None = None
    missing: Missing = "error"
    crop: CropOption = None

    def items(self, images: list[str], method: str, models: list[str]) -> list[Item]:
        """Return the images, and make the folder of the results."""
        make_folder(self.out)
        settings = BatchSettings(
            folder=self.out,
            method=method,
            ending=self.ending,
            psfs=self.psf,
            models=models,
            voxel_um=self.voxel_um,
            psf_voxel_um=self.psf_voxel_um,
            time=self.time,
            planes_are=self.planes_are,
            missing=self.missing,
            crop=self.crop,
        )
        return listed(images, settings)

    def fitted(self, item: Item) -> Volume | None:
        """Return the PSF of an image, fit for it."""
        if item.psf is None:
            return None
        like = open_image(item.origin)
        source = PsfSource(psf_voxel_um=item.psf_voxel_um)
        fitted, _ = source.fitted(
            item.psf, like, Terminal(quiet=True), channel=item.channel, repair=self.repair
        )
        return fitted


def rld(
    images: list[str],
    *,
    options: Annotated[BatchOptions, Flat],
    memory_gb: Memory = "auto",
    settings: Annotated[RldSettings, Flat] = RldSettings(),
    large: Annotated[LargeSettings, Flat] = LargeSettings(),
    terminal: Annotated[Terminal, Flat] = Terminal(),
) -> None:
    """Deconvolve many images by Richardson-Lucy; one that fails does not stop the others.

    Parameters
    ----------
    images
        Files, folders of files, patterns ("plate/*.tif"), or tables (.csv) with a column image
        and, where wanted, psf, channel, time, series, voxel_um, psf_voxel_um and out.
    memory_gb
        Memory that may be taken, by the program and all workers of a machine together; auto takes
        half of what is free.
    """
    Allowance(memory_gb)  # no amount is refused once, not for every image
    items = options.items(images, "rld", [])

    def prepare(item: Item) -> LargeRun:
        return LargeRun(
            origin=item.origin,
            psf=options.fitted(item),
            settings=settings,
            out=item.out,
            dtype=options.dtype,
            memory_gb=memory_gb,
            large=large,
        )

    _go(items, prepare, options.out, large, settings.device, terminal)


def rln(
    images: list[str],
    *,
    options: Annotated[BatchOptions, Flat],
    model: Annotated[list[str] | None, Parameter(name=["--model", "-m"])] = None,
    settings: Annotated[RlnSettings, Flat] = RlnSettings(),
    large: Annotated[LargeSettings, Flat] = LargeSettings(),
    terminal: Annotated[Terminal, Flat] = Terminal(),
) -> None:
    """Deconvolve many images by networks; one that fails does not stop the others.

    Parameters
    ----------
    images
        Files, folders of files, patterns ("plate/*.tif"), or tables (.csv) with a column image
        and, where wanted, psf, model, channel, time, series, voxel_um, psf_voxel_um and out.
    model
        Name or file of a model for all channels, or one for each; the universal one when not given.
    """
    items = options.items(images, "rln", model or [])

    def prepare(item: Item) -> LargeRun:
        return LargeRun(
            origin=item.origin,
            psf=options.fitted(item),
            model=load_model(item.model or UNIVERSAL),
            settings=settings,
            out=item.out,
            dtype=options.dtype,
            memory_gb=settings.memory_gb,
            tile=settings.tile,
            large=large,
        )

    _go(items, prepare, options.out, large, settings.device, terminal)


def _go(
    items: list[Item],
    prepare: Callable[[Item], LargeRun],
    out: Path,
    large: LargeSettings,
    device: str,
    terminal: Terminal,
) -> None:
    """Do a batch and say what became of it.

    Raises
    ------
    ComputeError
        If an image failed.
    """

    def shown(report: BatchReport) -> BatchReport:
        if report.ended is not None:
            item = report.item
            what = report.ended.error or f"{report.ended.status}, {item.out.name}"
            mark = "" if item.channel is None else f" channel {item.channel}"
            mark += "" if item.time is None else f" time {item.time}"
            for warning in report.ended.warnings:
                warn(f"{item.image.name}{mark}: {warning}")
            said = f"{report.done}/{report.total} {item.image.name}{mark}: {what}"
            if report.ended.error and terminal.quiet:
                warn(said)
            terminal.say(said)
        return report

    ended = terminal.follow(relay(run_batch(items, prepare, out, large, device), shown))
    columns = ("image", "channel", "time", "status", "seconds", "chi2", "flux ratio")
    rows = [
        (
            one.item.image.name,
            number(one.item.channel),
            number(one.item.time),
            one.status,
            f"{one.seconds:.1f}",
            number(one.summary.get("chi2")),
            number(one.summary.get("flux_ratio")),
        )
        for one in ended
    ]
    terminal.table("", columns, rows)
    failed = sum(bool(one.error) for one in ended)
    terminal.report(
        {
            "out": str(out),
            "images": [
                {
                    "image": str(one.item.image),
                    "out": str(one.item.out),
                    "status": one.status,
                    "error": one.error,
                    "warnings": list(one.warnings),
                    "facts": one.summary,
                }
                for one in ended
            ],
        }
    )
    if failed:
        raise ComputeError(f"{failed} of {len(ended)} images failed; {out / REPORT} says why.")
