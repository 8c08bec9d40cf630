"""Options that several commands share, and what they read."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from napari_rln.cli.terminal import Terminal
from napari_rln.io import read_volume
from napari_rln.psf.doctor import HARMFUL, fit_psf
from napari_rln.psf.findings import Finding
from napari_rln.volume import Volume, VoxelUm

Out = Annotated[Path, Parameter(name=["--out", "-o"])]
Flat = Parameter(name="*")  # a settings dataclass whose fields become options of their own


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
    """

    voxel_um: VoxelUm | None = None
    channel: int | None = None
    time: int | None = None

    def read(self, path: Path) -> Volume:
        """Return the volume."""
        return read_volume(path, voxel_um=self.voxel_um, channel=self.channel, time=self.time)


@Flat
@dataclass(frozen=True, kw_only=True)
class PsfSource:
    """How the PSF file is read.

    Parameters
    ----------
    psf_voxel_um
        Voxel size z y x in micrometres of the PSF, where its file does not say it or is wrong.
    """

    psf_voxel_um: VoxelUm | None = None

    def read(self, path: Path) -> Volume:
        """Return the PSF as it is in the file."""
        return read_volume(path, voxel_um=self.psf_voxel_um)

    def fitted(
        self, path: Path, image: Volume | None, terminal: Terminal, *, repair: bool = True
    ) -> tuple[Volume, Sequence[Finding]]:
        """Return the PSF fit for an image, and what was found wrong with it, which is also said."""
        psf, findings = fit_psf(self.read(path), image, mend=repair)
        terminal.findings(findings, mended=HARMFUL if repair else ())
        return psf, findings
