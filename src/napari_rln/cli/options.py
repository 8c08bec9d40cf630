"""Options that several commands share, and what they read."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from napari_rln.cli.terminal import Terminal
from napari_rln.core.errors import RlnError
from napari_rln.core.volume import OnGrid, Volume, VoxelUm
from napari_rln.io.image import Crop, ImageFile, Missing, PlanesAre, open_image
from napari_rln.io.volumes import contents, read_origin, read_volume
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
class ImageSource:
    """How the image file is read.

    Parameters
    ----------
    voxel_um
        Voxel size z y x in micrometres, where the file does not say it or is wrong.
    channel
        Which channel, from 0, of a file with several.
    time
        Which time point, from 0, of a file with several.
    series
        Which image, from 0, of a file with several, such as positions.
    planes_are
        What the planes are of a file without an axis z: time or channel where they are the planes
        of one stack though they are called so, z where they are what they are called.
    missing
        What to do about planes or chunks that the file promises but does not hold: error, mask to
        go on as they were not measured, or zero to take them for zeros.
    crop
        Part of the image for a quick try, as Z0:Z1 Y0:Y1 X0:X1 in voxels.
    """

    voxel_um: VoxelUm | None = None
    channel: int | None = None
    time: int | None = None
    series: int | None = None
    planes_are: PlanesAre | None = None
    missing: Missing = "error"
    crop: CropOption = None

    def origin(self, path: Path) -> ImageFile:
        """Return where an image is read from."""
        return ImageFile(
            path=str(path),
            voxel_um=self.voxel_um,
            channel=self.channel,
            time=self.time,
            series=self.series,
            planes_are=self.planes_are,
            missing=self.missing,
            crop=self.crop,
        )

    def read(self, path: Path) -> Volume:
        """Return the volume."""
        return read_origin(self.origin(path))

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


@Flat
@dataclass(frozen=True, kw_only=True)
class PsfSource:
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

    def read(self, path: Path, channel: int | None = None) -> Volume:
        """Return the PSF as it is in the file.

        Parameters
        ----------
        path
            The file.
        channel
            Of the image.
        """
        if self.psf_channel is not None or self.psf_planes_are == "channel":
            channel = self.psf_channel
        elif contents(path, self.psf_series or 0).channels == 1:
            channel = None
        try:
            return read_volume(
                path,
                voxel_um=self.psf_voxel_um,
                channel=channel,
                time=self.psf_time,
                series=self.psf_series,
                planes_are=self.psf_planes_are,
            )
        except RlnError as error:
            raise RlnError(_of_psf(str(error))) from error

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


def _of_psf(sentence: str) -> str:
    """Return a message on an image's file with the names that options have of a PSF's."""
    whole, _, _ = sentence.partition(", or go on with `missing")  # there is no use for such a PSF
    names = "|".join(name.removeprefix("psf_") for name in PsfSource.__dataclass_fields__)
    said = re.sub(rf"`({names})\b", r"`psf_\1", whole)
    return said if said.endswith(".") else f"{said}."


def bytes_of(origin: ImageFile) -> int:
    """Return how many bytes a float32 result of an image takes."""
    return 4 * open_image(origin).voxels
