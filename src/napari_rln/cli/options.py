"""Options that several commands share, and what they read."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from napari_rln.cli.terminal import Terminal
from napari_rln.core.volume import OnGrid, Volume, VoxelUm
from napari_rln.engine.job import PsfFile
from napari_rln.engine.run import read_psf
from napari_rln.io.image import Crop, ImageFile, ImagePart, PlanesAre
from napari_rln.io.volumes import contents, read_volume
from napari_rln.psf.examine import fit_psf
from napari_rln.psf.findings import HARMFUL, Finding

Out = Annotated[Path, Parameter(name=["--out", "-o"])]
Overwrite = Annotated[bool, Parameter(negative="")]
Flat = Parameter(name="*")  # a settings dataclass whose fields become options of their own


def _span(word: str) -> tuple[int, int]:
    """Return the start and stop in a word such as ``10:20``.

    Raises
    ------
    ValueError
        If it is no such word.
    """
    start, _, stop = word.partition(":")
    if not (start.isdecimal() and stop.isdecimal()):
        raise ValueError(f"{word} is no span of voxels; give it as start:stop, such as 10:42")
    return int(start), int(stop)


def _spans(_: Any, tokens: Sequence[Any]) -> Crop:
    z, y, x = (_span(token.value) for token in tokens)
    return z, y, x


CropOption = Annotated[Crop | None, Parameter(converter=_spans, n_tokens=3)]


@Flat
@dataclass(frozen=True, kw_only=True)
class ImageOptions(ImagePart):
    """What of the image file is read, as options."""

    crop: CropOption = None

    def read(self, path: Path) -> Volume:
        """Return the volume."""
        return read_volume(self.of(path))

    def read_beside(self, path: Path) -> Volume:
        """Return another volume of the image's grid, such as a result of it.

        It has the image's voxel size where that is given, and of several channels and times
        those of the image.
        """
        there = contents(path)
        return read_volume(
            path,
            voxel_um=self.voxel_um,
            channel=self.channel if there.channels > 1 else None,
            time=self.time if there.times > 1 else None,
        )


ImageOptions.__doc__ = ImagePart.__doc__  # from which the help of the options is taken


@Flat
@dataclass(frozen=True, kw_only=True)
class PsfOptions:
    """How the PSF file is read.

    Parameters
    ----------
    psf_voxel_um
        Voxel size z y x in micrometres of the PSF, where its file does not say it or is wrong.
    psf_channel
        Which channel, from 0, of a PSF file with several; that of the image when not given.
    psf_time, psf_series, psf_planes_are
        The same of the PSF as time, series and planes_are of the image.
    """

    psf_voxel_um: VoxelUm | None = None
    psf_channel: int | None = None
    psf_time: int | None = None
    psf_series: int | None = None
    psf_planes_are: PlanesAre | None = None

    def of(self, path: Path, *, repair: bool = True) -> PsfFile:
        """Return the PSF in a file."""
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
        """Return the PSF fit for an image, and what was found wrong with it, which is also said.

        Parameters
        ----------
        path
            Its file.
        image
            What it is for; none where that is not known.
        terminal
            Where it is said.
        channel
            Of the image.
        repair
            Whether to repair what is wrong.
        """
        psf, findings = fit_psf(self.read(path, channel), image, mend=repair)
        terminal.findings(findings, mended=HARMFUL if repair else ())
        return psf, findings
