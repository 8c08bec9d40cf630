"""The command ``napari-rln study-image``."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from napari_rln.cli.options import (
    Flat,
    ImageOptions,
    Out,
    Overwrite,
    PsfOptions,
    check_optics_apply,
    psf_of_optics,
    spans,
)
from napari_rln.cli.terminal import Terminal, number
from napari_rln.core.errors import RlnError
from napari_rln.core.generators import relay
from napari_rln.core.volume import Mask, Volume, check_on_grid
from napari_rln.deconvolution.classical import RichardsonLucy
from napari_rln.deconvolution.method import Method
from napari_rln.engine.in_memory import deconvolve_iter
from napari_rln.engine.methods import METHODS
from napari_rln.evaluate.agreement import AgreementSettings
from napari_rln.evaluate.reference import covered_by
from napari_rln.io.image import Crop, files_read
from napari_rln.io.paths import check_outputs, make_folder, title
from napari_rln.io.volumes import read, write
from napari_rln.networks.network import Network
from napari_rln.psf.from_optics import GivenOptics
from napari_rln.registration.register import RegistrationSettings, TransformKind, register_iter
from napari_rln.study.real_data import study_volume_iter
from napari_rln.study.real_data_result import (
    FigureFormat,
    HeadlineSettings,
    RealStudy,
    RealStudySettings,
    files_of,
)

_RLD = re.compile(r"(rld(?:-[a-z-]+)?)(?:-(\d+))?")
_VARIANTS = {
    "rld": ("RLD", RichardsonLucy()),
    "rld-plain": ("plain RLD", RichardsonLucy(acceleration="none")),
    "rld-wb": ("WB", RichardsonLucy(back_projector="wiener-butterworth")),
    "rld-masked-wiener": ("masked Wiener", RichardsonLucy(back_projector="masked-wiener")),
    "rld-tv": ("RL-TV", RichardsonLucy(tv=0.005)),
    "rld-consensus": ("RLGC", RichardsonLucy(consensus=True)),
    "rld-periodic": ("periodic RLD", RichardsonLucy(border="periodic")),
    "rld-plain-periodic": (
        "plain periodic RLD", RichardsonLucy(acceleration="none", border="periodic"),
    ),
    "rld-tv-periodic": ("periodic RL-TV", RichardsonLucy(tv=0.005, border="periodic")),
    "rld-consensus-periodic": (
        "periodic RLGC", RichardsonLucy(consensus=True, border="periodic"),
    ),
}  # fmt: skip
_GROUPS = {
    "Cost, and how well the blurred result explains the image": (
        "seconds", "iterations", "chi2", "reblur_scale", "flux_ratio",
    ),
    "Repeatability (um), and where a method stands alone": (
        "halves_lateral_um", "halves_axial_um", "alone_added", "alone_missing", "alone_voxels",
    ),
    "Likeness to the reference": (
        "r", "nrmse", "reference_lateral_um", "reference_axial_um",
    ),
    "Likeness to the reference, inside the object": (
        "r_inside", "nrmse_inside", "reference_lateral_inside_um", "reference_axial_inside_um",
    ),
    "Failed": ("error",),
}  # fmt: skip
HEADLINE = ("rld-100", "rld", "rln")
"""Words of the methods that are compared by default."""


@Flat
@dataclass(frozen=True, kw_only=True)
class StudyOptions(RealStudySettings):
    """Options of the study; their help is that of its settings."""

    box: Annotated[Crop | None, Parameter(converter=spans, n_tokens=3)] = None


def study_image(
    image: Path,
    *,
    out: Out,
    psf: Path | None = None,
    methods: tuple[str, ...] = HEADLINE,
    reference: Path | None = None,
    register: bool = False,
    transform: TransformKind = "affine",
    other: tuple[Path, ...] = (),
    repair: bool = True,
    figure_format: tuple[FigureFormat, ...] = ("png",),
    device: str = "auto",
    overwrite: Overwrite = False,
    image_options: ImageOptions = ImageOptions(),
    psf_options: PsfOptions = PsfOptions(),
    optics: Annotated[GivenOptics, Flat] = GivenOptics(),
    settings: StudyOptions = StudyOptions(),
    agreement: Annotated[AgreementSettings, Flat] = AgreementSettings(),
    look: Annotated[HeadlineSettings, Flat] = HeadlineSettings(),
    terminal: Terminal = Terminal(),
) -> None:
    """Study several methods on a real image: residual, repeatability, agreement, a reference.

    Parameters
    ----------
    image
        Raw image.
    out
        Folder for table.csv, image-study.json, agreement.ome.tif, the results and figure.png;
        created if absent.
    psf
        Point spread function; by default computed from the optics that the image's file states, if
        a method needs it.
    methods
        rld, or rld-plain without acceleration, rld-wb, rld-masked-wiener, rld-tv, rld-consensus;
        rld-periodic, rld-plain-periodic, rld-tv-periodic, rld-consensus-periodic with that border;
        each to its automatic stop, or with a number of iterations, such as rld-100; wiener; rln;
        rln:MODEL with the name of a model; or a model file.
    reference
        Image of the same object by another microscope, such as a confocal one.
    register
        Register the reference to the image, with a PSF to the image deconvolved by Richardson-Lucy;
        else it must be on the image's grid.
    transform
        Transform of the registration.
    other
        Results of other programs, on the image's grid.
    repair
        Repair defects of the PSF, as rld does.
    figure_format
        One or more of png, pdf, svg.
    device
        Compute device: auto, cpu, cuda, cuda:1 or mps.
    overwrite
        Replace the files of an earlier study.
    """
    named = named_methods(methods, device)
    check_optics_apply([psf] if psf else [], optics)
    make_folder(out)
    read_files = files_read([image, psf, reference, *other, *_model_files(named)])
    files = files_of(out, list(named), figure_format)
    if register and reference is not None:
        files.append(out / "reference.ome.tif")
    check_outputs(files, inputs=read_files, overwrite=overwrite)
    raw = image_options.read(image)
    others = [image_options.read_beside(path) for path in other]
    blur = None
    if psf is not None:
        blur, _ = psf_options.fitted(
            psf, raw, terminal, channel=image_options.channel, repair=repair
        )
    elif optics != GivenOptics() or any(method.needs_psf for method in named.values()):
        blur = psf_of_optics(image_options.of(image), raw, optics, terminal)
    truth, covered = None, None
    if reference is not None:
        if register:
            how = RegistrationSettings(transform=transform)
            truth, covered = _registered(reference, raw, blur, how, device, terminal)
        else:
            truth = _reference(reference, raw, image_options)
    steps = study_volume_iter(
        raw, blur, named, reference=truth, covered=covered,
        others=[_named(o, path) for o, path in zip(others, other, strict=True)],
        settings=settings, agreement_settings=agreement,
    )  # fmt: skip
    study: RealStudy = terminal.follow(relay(steps, lambda report: report.inner))
    written = study.save(out, look=look, formats=figure_format)
    if register and truth is not None:
        write(truth, out / "reference.ome.tif")
        written.append(out / "reference.ome.tif")
    show_study(study, terminal)
    terminal.say(f"Written: {', '.join(str(file) for file in written)}")
    terminal.report(study.to_dict() | {"files": [str(file) for file in written]})


def show_study(study: RealStudy, terminal: Terminal) -> None:
    """Print the table of a study in parts as wide as a terminal, and its notes."""
    for heading, group in _GROUPS.items():
        columns = [column for column in group if column in study.columns]
        if columns:
            rows = ([str(row["name"]), *(number(row[c]) for c in columns)] for row in study.rows)
            terminal.table(heading, ("name", *columns), rows)
    for note in study.notes:
        terminal.say(note)


def named_methods(words: Sequence[str], device: str = "auto") -> dict[str, Method]:
    """Return the methods of words of the command line, by their names in tables.

    Raises
    ------
    RlnError
        If a word names no method, or two are the same.
    """
    named: dict[str, Method] = {}
    for word in words:
        name, method = _method(word)
        if name in named:
            raise RlnError(f"`methods` names {word} twice; name each method once.")
        changes: dict[str, Any] = {"device": device}
        named[name] = replace(method, **changes)  # type: ignore[type-var]
    return named


def _method(word: str) -> tuple[str, Method]:
    """Return the name and the method of a word."""
    classical = _RLD.fullmatch(word)
    if classical and classical[1] in _VARIANTS:
        name, variant = _VARIANTS[classical[1]]
        if classical[2] is None:
            return f"{name} auto", variant
        return f"{name} {classical[2]}", replace(variant, iterations=int(classical[2]))
    if word == "rln":
        return "RLN", Network()
    if word.startswith("rln:"):
        model = word.removeprefix("rln:")
        return f"RLN {title(Path(model))}", Network(model=model)
    if word in METHODS:
        method = METHODS[word]()
        return method.title, method
    if Path(word).is_file():
        method = Network(model=word)
        return method.title, method
    raise RlnError(
        f"`methods` names {word}, which is no method; give {', '.join(_VARIANTS)}, each also with "
        "a number of iterations, such as rld-100; wiener, rln, rln:MODEL, or a model file."
    )


def _model_files(methods: dict[str, Method]) -> list[Path]:
    return [file for method in methods.values() for file in method.files]


def _named(volume: Volume, path: Path) -> Volume:
    """Return a volume with the name of its file without the ending."""
    return replace(volume, name=title(path))


def _reference(path: Path, image: Volume, options: ImageOptions) -> Volume:
    """Return a reference that is on the image's grid."""
    beside = _named(options.read_beside(path), path)
    try:
        check_on_grid(beside, image)
    except RlnError as error:
        raise RlnError(f"{error} Or register it (`register`).") from error
    return beside


def _registered(
    path: Path,
    image: Volume,
    psf: Volume | None,
    settings: RegistrationSettings,
    device: str,
    terminal: Terminal,
) -> tuple[Volume, Mask]:
    """Return a reference registered to an image, and where it was measured.

    With a PSF it is registered to the image deconvolved by Richardson-Lucy, in which haze hides
    less of the object.
    """
    found, target = _named(read(path), path), image
    if psf is not None:
        target = terminal.follow(deconvolve_iter(image, psf, RichardsonLucy(device=device)))
    registered = terminal.follow(register_iter(found, target, settings))
    return replace(registered, name=found.name), covered_by(found, registered)
