"""Options common to several commands, and reading of their files."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from napari_rln.cli.terminal import Terminal
from napari_rln.core.errors import RlnError
from napari_rln.core.volume import OnGrid, Volume, VoxelUm
from napari_rln.deconvolution.method import Method
from napari_rln.engine.execution import Execution, OutputFormat
from napari_rln.engine.job import Job, PsfFile, SecondView
from napari_rln.engine.run import optics_of_file, read_psf
from napari_rln.io.image import Crop, ImageFile, ImagePart, PlanesAre, open_contents
from napari_rln.io.volumes import read
from napari_rln.psf.examine import fit_psf
from napari_rln.psf.findings import HARMFUL, Finding
from napari_rln.psf.from_optics import GivenOptics

Out = Annotated[Path, Parameter(name=["--out", "-o"])]
Overwrite = Annotated[bool, Parameter(negative="")]
Flat = Parameter(name="*")  # a settings dataclass whose fields become options of their own


def _span(word: str) -> tuple[int, int]:
    """Return the start and stop of a text such as ``10:20``; cyclopts reports a ValueError."""
    start, _, stop = word.partition(":")
    if not (start.isdecimal() and stop.isdecimal()):
        raise ValueError(f"{word} is not a range of voxels; write start:stop, such as 10:42")
    return int(start), int(stop)


def spans(_: Any, tokens: Sequence[Any]) -> Crop:
    """Return the ranges of three words such as ``10:42``, along z, y and x; for cyclopts."""
    z, y, x = (_span(token.value) for token in tokens)
    return z, y, x


@Flat
@dataclass(frozen=True, kw_only=True)
class ImageOptions(ImagePart):
    """Options of the part of the image file to read; their help is that of :class:`ImagePart`."""

    crop: Annotated[Crop | None, Parameter(converter=spans, n_tokens=3)] = None

    def read(self, path: Path) -> Volume:
        """Return the volume."""
        return read(self.of(path))

    def read_beside(self, path: Path) -> Volume:
        """Return another volume on the image's grid, such as a result.

        The image's voxel size, channel and time, where set, apply to it too.
        """
        there = open_contents(path)
        return read(
            path,
            voxel_um=self.voxel_um,
            channel=self.channel if there.channels > 1 else None,
            time=self.time if there.times > 1 else None,
        )


@Flat
@dataclass(frozen=True, kw_only=True)
class PsfOptions:
    """Options of the part of the PSF file to read.

    Parameters
    ----------
    psf_voxel_um
        Voxel size z y x in micrometres of the PSF, where its file does not state it or is wrong.
    psf_channel
        Channel, from 0, of a PSF file with several; that of the image by default.
    psf_time
        Time point, from 0, of a PSF file with several.
    psf_series
        Image, from 0, of a PSF file with several.
    psf_planes_are
        Axis that holds the planes of a PSF in a file without an axis z; as --planes-are.
    """

    psf_voxel_um: VoxelUm | None = None
    psf_channel: int | None = None
    psf_time: int | None = None
    psf_series: int | None = None
    psf_planes_are: PlanesAre | None = None

    def of(self, path: Path, *, repair: bool = True) -> PsfFile:
        """Return the PSF file with these options."""
        file = ImageFile(
            path=str(path),
            voxel_um=self.psf_voxel_um,
            channel=self.psf_channel,
            time=self.psf_time,
            series=self.psf_series,
            planes_are=self.psf_planes_are,
        )
        return PsfFile(file=file, repair=repair)

    def read(self, path: Path, channel: int | None = None) -> Volume:
        """Return the PSF as it is in the file; ``channel`` is the image's."""
        return read_psf(self.of(path).file, channel)

    def fitted(
        self,
        path: Path,
        image: OnGrid | None,
        terminal: Terminal,
        *,
        channel: int | None = None,
        repair: bool = True,
    ) -> tuple[Volume, Sequence[Finding]]:
        """Return the PSF prepared for an image, if any, and its findings, which are also printed.

        ``channel`` is the image's.
        """
        psf, findings = fit_psf(self.read(path, channel), image, repair=repair)
        terminal.findings(findings, repaired=HARMFUL if repair else ())
        return psf, findings


@Flat
@dataclass(frozen=True, kw_only=True)
class JobOptions:
    """Options of the commands that deconvolve.

    Parameters
    ----------
    repair
        Repair defects of the PSF (background, centre, ...) and report them.
    """

    repair: bool = True
    image: ImageOptions = field(default_factory=ImageOptions)
    psf: PsfOptions = field(default_factory=PsfOptions)
    output: Annotated[OutputFormat, Flat] = field(default_factory=OutputFormat)
    execution: Annotated[Execution, Flat] = field(default_factory=Execution)
    terminal: Terminal = field(default_factory=Terminal)

    def job(
        self,
        image: Path,
        psfs: Sequence[Path],
        methods: tuple[Method, ...],
        out: Path,
        second: SecondView | None = None,
        optics: GivenOptics | None = None,
    ) -> Job:
        """Return the job with these options.

        Without PSFs they are computed from the image's optics, which ``optics`` completes; not if
        it is None.
        """
        check_optics_apply(psfs, optics)
        return Job(
            image=self.image.of(image),
            psfs=tuple(self.psf.of(file, repair=self.repair) for file in psfs),
            optics=None if psfs else optics,
            second=second,
            methods=methods,
            output=self.output.at(out),
            execution=self.execution,
        )


def psf_of_optics(file: ImageFile, image: OnGrid, given: GivenOptics, terminal: Terminal) -> Volume:
    """Return the PSF of an image by the optics of its file, whose sources are printed."""
    known = optics_of_file(file, given, file.channel or 0)
    terminal.optics(known)
    return known.psf(image.voxel_um, image.shape[0])


def check_optics_apply(psfs: Sequence[Path], optics: GivenOptics | None) -> None:
    """Raise an RlnError if optics are given for PSFs that come from files."""
    given = optics.as_json() if optics is not None else {}
    if psfs and given:
        names = ", ".join(f"`{name}`" for name in given)
        raise RlnError(
            f"{names} would be of a PSF computed from the image's optics, but a file of a PSF "
            "(`psf`) is named; leave out one of them."
        )
