"""The commands ``napari-rln batch rld``, ``batch wiener`` and ``batch rln``."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from napari_rln.cli.options import Flat, JobOptions, Out
from napari_rln.cli.terminal import Terminal, number
from napari_rln.core.errors import ComputeError, warn
from napari_rln.core.machine import Allowance
from napari_rln.deconvolution.classical import RichardsonLucy
from napari_rln.deconvolution.method import Method
from napari_rln.deconvolution.wiener import Wiener
from napari_rln.engine.batch import REPORT, BatchSettings, Ending, list_jobs, run_batch_iter
from napari_rln.engine.reports import BatchItem, BatchReport
from napari_rln.engine.run import optics_of_job, task_of
from napari_rln.engine.task import Task
from napari_rln.io.paths import make_folder
from napari_rln.networks.model import UNIVERSAL
from napari_rln.networks.network import NetworkOptions
from napari_rln.psf.findings import HARMFUL, Finding
from napari_rln.psf.from_optics import GivenOptics


@Flat
@dataclass(frozen=True, kw_only=True)
class BatchOptions:
    """Options of the commands.

    Parameters
    ----------
    out
        Folder of the results, and of batch.csv with the outcome of every image; created if absent.
    psf
        Point spread function for all channels, or one per channel, in order. Without it, one is
        computed from the optics that each file states.
    ending
        Ending of the results.
    """

    out: Out
    psf: list[Path] | None = None
    ending: Ending = "ome.tif"
    optics: Annotated[GivenOptics, Flat] = field(default_factory=GivenOptics)
    common: JobOptions = field(default_factory=JobOptions)

    def template(self, mark: str, methods: tuple[Method, ...]) -> BatchSettings:
        """Return the settings of all images; the image of their job is the output folder."""
        Allowance(self.common.execution.memory_gb)  # reported once, not per image
        make_folder(self.out)
        return BatchSettings(
            job=self.common.job(self.out, self.psf or (), methods, self.out, optics=self.optics),
            mark=mark,
            ending=self.ending,
            repair=self.common.repair,
            psf_voxel_um=self.common.psf.psf_voxel_um,
        )


def rld(
    images: list[str],
    *,
    options: BatchOptions,
    method: Annotated[RichardsonLucy, Flat] = RichardsonLucy(),
) -> None:
    """Deconvolve many images by Richardson-Lucy; one that fails does not stop the others.

    Parameters
    ----------
    images
        Files, folders of files, patterns ("plate/*.tif"), or tables (.csv) with a column image
        and optional columns psf, channel, time, series, voxel_um, psf_voxel_um and out.
    """
    _run(images, options.template("rld", (method,)), options.common.terminal)


def wiener(
    images: list[str],
    *,
    options: BatchOptions,
    method: Annotated[Wiener, Flat] = Wiener(),
) -> None:
    """Deconvolve many images by Wiener filters; one that fails does not stop the others.

    Parameters
    ----------
    images
        Files, folders of files, patterns ("plate/*.tif"), or tables (.csv) with a column image
        and optional columns psf, channel, time, series, voxel_um, psf_voxel_um and out.
    """
    _run(images, options.template("wiener", (method,)), options.common.terminal)


def rln(
    images: list[str],
    *,
    model: Annotated[list[str] | None, Parameter(name=["--model", "-m"])] = None,
    options: BatchOptions,
    network: Annotated[NetworkOptions, Flat] = NetworkOptions(),
) -> None:
    """Deconvolve many images by networks; one that fails does not stop the others.

    Parameters
    ----------
    images
        Files, folders of files, patterns ("plate/*.tif"), or tables (.csv) with a column image
        and optional columns psf, model, channel, time, series, voxel_um, psf_voxel_um and out.
    model
        Name or file of a model for all channels, or one per channel; universal by default.
    """
    methods = tuple(network.of(name) for name in model or [UNIVERSAL])
    _run(images, options.template("rln", methods), options.common.terminal)


def _run(images: list[str], template: BatchSettings, terminal: Terminal) -> None:
    """Run a batch and print its outcomes; raise a ComputeError if an image failed."""
    out, execution = template.folder, template.job.execution
    items = list_jobs(images, template)

    def shown(report: BatchReport) -> None:
        if report.outcome is not None:
            item = report.item
            what = report.outcome.error or f"{report.outcome.status}, {item.out.name}"
            for warning in report.outcome.warnings:
                warn(f"{item.label}: {warning}")
            line = f"{report.done}/{report.total} {item.label}: {what}"
            if report.outcome.error and terminal.quiet:
                warn(line)
            terminal.say(line)

    def on_findings(findings: Sequence[Finding], repaired: bool) -> None:
        Terminal(quiet=True).findings(findings, repaired=HARMFUL if repaired else ())

    said: set[tuple[str, ...]] = set()

    def prepare(item: BatchItem) -> Task:
        for channel, optics in optics_of_job(item.job).items():
            if optics.lines() not in said:  # once for all images of a microscope
                said.add(optics.lines())
                terminal.optics(optics, channel)
        return task_of(item.job, on_findings=on_findings)

    device = template.job.methods[0].device
    steps = run_batch_iter(items, out, execution, device, prepare)
    ended = terminal.follow(steps, watch=shown)
    columns = ("image", "channel", "time", "status", "seconds", "chi2", "flux ratio")
    rows = [
        (
            Path(one.item.job.image.path).name,
            number(one.item.job.image.channel),
            number(one.item.job.image.time),
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
                    "image": one.item.job.image.path,
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
