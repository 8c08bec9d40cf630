"""The commands ``rld``, ``wiener``, ``rln``, ``dual`` and ``run``, which build or load a job."""

import json
import sys
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from napari_rln.cli.options import Flat, JobOptions, Out
from napari_rln.cli.terminal import Terminal, exposure, judgement, number
from napari_rln.core.errors import RlnError
from napari_rln.core.report import Report, duration
from napari_rln.core.volume import Volume, VoxelUm
from napari_rln.deconvolution.classical import RichardsonLucy
from napari_rln.deconvolution.method import Method
from napari_rln.deconvolution.views import DualSettings
from napari_rln.deconvolution.wiener import Wiener
from napari_rln.engine.job import Job, SecondView
from napari_rln.engine.run import (
    Outcome,
    channels_of,
    forecast_of_job,
    is_in_parts,
    optics_of_job,
    run_iter,
)
from napari_rln.io.image import files_read
from napari_rln.io.paths import check_outputs, make_folder
from napari_rln.io.volumes import write
from napari_rln.networks.model import UNIVERSAL
from napari_rln.networks.network import Network, NetworkOptions
from napari_rln.networks.stages import STAGES, network_stages
from napari_rln.psf.findings import HARMFUL, Finding
from napari_rln.psf.from_optics import GivenOptics

DryRun = Annotated[bool, Parameter(negative="")]

_CLASSICAL_ONLY = {field.name for field in fields(RichardsonLucy)} - {
    field.name for field in fields(NetworkOptions)
}


def rld(
    image: Path,
    *,
    out: Out,
    psf: list[Path] | None = None,
    dry_run: DryRun = False,
    method: Annotated[RichardsonLucy, Flat] = RichardsonLucy(),
    optics: Annotated[GivenOptics, Flat] = GivenOptics(),
    options: JobOptions = JobOptions(),
) -> None:
    """Deconvolve an image by Richardson-Lucy.

    Parameters
    ----------
    image
        TIFF, ImageJ hyperstack, OME-TIFF, OME-Zarr, LSM, CZI, LIF, ND2, OIB, OIF, or a folder of
        planes.
    psf
        Point spread function, in the same formats; resampled to the image's voxels if necessary.
        One per channel, or a file with as many channels, deconvolves all into one .ome.tif. Without
        it, one for each channel is computed from the optics that the image's file states.
    out
        Result, .tif (ImageJ), .ome.tif or .ome.zarr. Volumes beyond the memory limit are written in
        parts; an interrupted run is resumed.
    dry_run
        Only print the division of the volume, memory and disk space.
    """
    job = options.job(image, psf or (), (method,), out, optics=optics)
    do(job, options.terminal, dry_run=dry_run)


def wiener(
    image: Path,
    *,
    out: Out,
    psf: list[Path] | None = None,
    dry_run: DryRun = False,
    method: Annotated[Wiener, Flat] = Wiener(),
    optics: Annotated[GivenOptics, Flat] = GivenOptics(),
    options: JobOptions = JobOptions(),
) -> None:
    """Deconvolve an image by a Wiener filter.

    Parameters
    ----------
    image
        TIFF, ImageJ hyperstack, OME-TIFF, OME-Zarr, LSM, CZI, LIF, ND2, OIB, OIF, or a folder of
        planes.
    psf
        Point spread function, in the same formats; resampled to the image's voxels if necessary.
        One per channel, or a file with as many channels, deconvolves all into one .ome.tif. Without
        it, one for each channel is computed from the optics that the image's file states.
    out
        Result, .tif (ImageJ), .ome.tif or .ome.zarr. Volumes beyond the memory limit are written in
        parts; an interrupted run is resumed.
    dry_run
        Only print the division of the volume, memory and disk space.
    """
    job = options.job(image, psf or (), (method,), out, optics=optics)
    do(job, options.terminal, dry_run=dry_run)


def rln(
    image: Path,
    *,
    out: Out,
    psf: list[Path] | None = None,
    model: Annotated[str, Parameter(name=["--model", "-m"])] = UNIVERSAL,
    stages: Path | None = None,
    dry_run: DryRun = False,
    network: Annotated[NetworkOptions, Flat] = NetworkOptions(),
    optics: Annotated[GivenOptics, Flat] = GivenOptics(),
    options: JobOptions = JobOptions(),
) -> None:
    """Deconvolve an image by a Richardson-Lucy Network.

    Parameters
    ----------
    image
        TIFF, ImageJ hyperstack, OME-TIFF, OME-Zarr, LSM, CZI, LIF, ND2, OIB, OIF, or a folder of
        planes.
    out
        Result, .tif (ImageJ), .ome.tif or .ome.zarr. Volumes beyond the memory limit are written in
        parts; an interrupted run is resumed.
    psf
        Point spread function, in the same formats; resampled to the image's voxels if necessary.
        One per channel, or a file with as many channels, deconvolves all into one .ome.tif. Without
        it, one for each channel is computed from the optics that the image's file states, unless
        the network starts from the image alone.
    model
        Name of a shipped model, or a model file.
    stages
        Folder for the intermediate images of the network (FP1, DV1, BP1, e, E1, ...), on its own
        scale and untiled; created if absent.
    dry_run
        Only print the division of the volume, memory and disk space.
    """
    job = options.job(image, psf or (), (network.of(model),), out, optics=optics)
    do(job, options.terminal, dry_run=dry_run, stages=stages)


def dual(
    image: Path,
    image_b: Path,
    *,
    psf: Path,
    psf_b: Path | None = None,
    out: Out,
    model: Annotated[str | None, Parameter(name=["--model", "-m"])] = None,
    registered: Path | None = None,
    channel_b: int | None = None,
    voxel_um_b: VoxelUm | None = None,
    psf_b_voxel_um: VoxelUm | None = None,
    views: Annotated[DualSettings, Flat] = DualSettings(),
    settings: Annotated[RichardsonLucy, Flat] = RichardsonLucy(),
    options: JobOptions = JobOptions(),
) -> None:
    """Deconvolve two views of one object together, as of a diSPIM.

    By Richardson-Lucy, or by a network where a model is named.

    Parameters
    ----------
    image
        First view: TIFF, ImageJ hyperstack or OME-TIFF. The result has its orientation.
    image_b
        Second view, in its camera's orientation.
    psf
        Point spread function of the first view; without --psf-b that of both, each in its own
        orientation.
    psf_b
        Point spread function of the second view, in its camera's orientation; --psf by default.
    out
        Result, .tif (ImageJ) or .ome.tif.
    model
        Name of a shipped model, such as universal, or a model file.
    registered
        File for the registered second view, for inspection.
    channel_b
        Channel of the second view; that of the first by default.
    voxel_um_b
        Voxel size z y x of the second view in micrometres; --voxel-um by default.
    psf_b_voxel_um
        Voxel size z y x of the second view's PSF in micrometres; --psf-voxel-um by default.
    """
    image_options_b = replace(
        options.image,
        voxel_um=voxel_um_b or options.image.voxel_um,
        channel=options.image.channel if channel_b is None else channel_b,
    )
    psf_options_b = replace(options.psf, psf_voxel_um=psf_b_voxel_um or options.psf.psf_voxel_um)
    second = SecondView(
        image=image_options_b.of(image_b),
        psf=psf_options_b.of(psf_b or psf, repair=options.repair),
        views=views,
        registered=registered,
    )
    method = settings if model is None else _network_of(settings, model)
    do(options.job(image, [psf], (method,), out, second), options.terminal)


def run(
    job: Annotated[str, Parameter(allow_leading_hyphen=True)],
    *,
    dry_run: DryRun = False,
    terminal: Terminal = Terminal(),
) -> None:
    """Run a job from a JSON file.

    Parameters
    ----------
    job
        Job file; - for standard input. Relative paths in it start from its folder.
    dry_run
        Only print the division of the volume, memory and disk space.
    """
    try:
        loaded = Job.load(job) if job != "-" else Job.from_json(json.load(sys.stdin))
    except RlnError as error:  # with names of fields, not of options
        raise RlnError(str(error).replace("`", '"')) from error
    except ValueError as error:
        raise RlnError(f"standard input is not JSON ({error}); pipe in a job.") from error
    do(loaded, terminal, dry_run=dry_run)


def do(
    job: Job, terminal: Terminal, *, dry_run: bool = False, stages: Path | None = None
) -> tuple[Outcome, ...]:
    """Run a job, or only print its needs; print the outcome.

    ``stages`` is the folder for the intermediate images of a network; not written if None.
    """
    if stages is not None and channels_of(job):
        raise RlnError("`stages` needs a single channel; choose one with `channel`.")
    for channel, optics in optics_of_job(job).items():
        terminal.optics(optics, channel)
    in_parts = is_in_parts(job)
    if stages is not None and in_parts:
        raise RlnError("`stages` needs a run that is not in parts; crop the image (`crop`).")

    def on_findings(findings: Sequence[Finding], repaired: bool) -> None:
        terminal.findings(findings, repaired=HARMFUL if repaired else ())

    if dry_run:
        plans = forecast_of_job(job, on_findings=on_findings)
        for rows in plans.values():
            terminal.table("", ("plan", ""), rows)
        reports = [{"out": str(out), "plan": _named(rows)} for out, rows in plans.items()]
        terminal.report(reports[0] if len(reports) == 1 else {"results": reports})
        return ()

    def write_stages(image: Volume, psf: Volume | None, method: Method) -> None:
        if stages is not None and isinstance(method, Network):
            make_folder(stages)
            paths = {name: stages / f"{name}.ome.tif" for name in STAGES}
            overwrite = job.output.overwrite
            check_outputs(paths.values(), inputs=files_read(job.files), overwrite=overwrite)
            for name, stage in network_stages(image, psf, method).items():
                write(stage, paths[name])

    def shown(report: Any) -> None:
        if isinstance(report, Report) and report.rows:
            terminal.table("", ("plan", ""), report.rows)

    steps = run_iter(job, on_findings=on_findings, on_input=write_stages)
    try:
        outcomes = terminal.follow(steps, watch=shown)
    except KeyboardInterrupt as stop:
        if not in_parts:
            raise
        raise KeyboardInterrupt("finished parts are kept; repeat the command to continue") from stop
    for outcome in outcomes:
        _say(job, outcome, terminal)
    terminal.report(_reported(outcomes))
    return outcomes


def _network_of(settings: RichardsonLucy, model: str) -> Network:
    """Return the network for two views, with the applicable settings of Richardson-Lucy.

    Raises
    ------
    RlnError
        If a setting does not apply to a model.
    """
    plain = RichardsonLucy()
    changed = [
        f"--{name.replace('_', '-')}"
        for name in sorted(_CLASSICAL_ONLY)
        if getattr(settings, name) != getattr(plain, name)
    ]
    if changed:
        raise RlnError(
            f"{', '.join(changed)} applies to Richardson-Lucy, not to a model; leave it out, or "
            "leave out `model`."
        )
    common = {field.name for field in fields(NetworkOptions)} & {
        field.name for field in fields(RichardsonLucy)
    }
    return Network(model=model, **{name: getattr(settings, name) for name in common})


def _say(job: Job, outcome: Outcome, terminal: Terminal) -> None:
    """Print a line on the outcome of one method."""
    out = outcome.out
    if not outcome.computed:
        terminal.say(f"{out}: already complete")
        return
    if outcome.in_parts:
        (facts,) = outcome.facts
        terminal.say(
            f"{out}: {duration(facts['seconds'])}, background {facts['background']:.4g}, "
            f"{judgement(facts)}, at most {facts['peak_mb'] / 1e3:.2f} GB for each of "
            f"{facts['workers']} worker{'' if facts['workers'] == 1 else 's'}"
        )
        return
    for channel, facts in enumerate(outcome.facts):
        where = f"{out}, channel {channel}" if len(outcome.facts) > 1 else str(out)
        how = f"model {outcome.method.title.removeprefix('RLN ')}"
        if "noise_to_signal" in facts:
            ratio, source = facts["noise_to_signal"], facts["noise_to_signal_from"]
            how = f"noise-to-signal ratio {ratio:.2g} ({source})"
        if "iterations" in facts:
            how = f"{facts['iterations']} iterations"
            how += f" ({facts['stopped_by']})" if job.second is None else ""
        spent = f"{how} on {facts['device']} in {facts['seconds']:.1f} s"
        if job.second is None:
            terminal.say(f"{where}: {spent}, {exposure(facts)}, {judgement(facts)}")
            continue
        registration = facts.get("registration")
        similarity = ""
        if registration is not None:
            similarity = f", correlation of the views {number(registration['similarity_after'])}"
        terminal.say(
            f"{where}: {spent}, backgrounds {facts['background']:.4g} and "
            f"{facts['background_b']:.4g}{similarity}"
        )


def _reported(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """Return the outcome of a job for JSON: of a single method, or a list of several."""
    reports = []
    for outcome in outcomes:
        findings = [finding.message for finding in outcome.findings]
        one: dict[str, Any] = {"out": str(outcome.out), "psf_findings": findings}
        if outcome.in_parts or not outcome.computed:
            one["computed"] = outcome.computed
        if len(outcome.facts) > 1:
            one["channels"] = [{"out": str(outcome.out), "facts": facts} for facts in outcome.facts]
        else:
            one["facts"] = outcome.facts[0]
        reports.append(one)
    return reports[0] if len(reports) == 1 else {"results": reports}


def _named(rows: Sequence[tuple[str, str]]) -> dict[str, str]:
    """Return rows as a dictionary, with all problems under one name."""
    named: dict[str, str] = {}
    for name, text in rows:
        named[name] = f"{named[name]}; {text}" if name in named else text
    return named
