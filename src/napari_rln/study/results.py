"""Results of the cells of a study, kept one file each, so that an interrupted study goes on."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np

from napari_rln.core.errors import RlnError
from napari_rln.core.limits import as_dict
from napari_rln.core.volume import FloatArray, VoxelUm
from napari_rln.io.paths import atomic

SCORES = {
    "psnr_db": "PSNR (dB)",
    "ssim": "SSIM",
    "psnr_xz_db": "PSNR, xz planes (dB)",
    "ssim_xz": "SSIM, xz planes",
    "nrmse": "NRMSE",
    "pearson": "Pearson's r",
    "lateral_um": "FSC resolution, xy (um)",
    "axial_um": "FSC resolution, z (um)",
    "flux": "Light, of true",
}
"""Names of scores, and what they are called in tables; all but the light after a fit of scale and
offset."""

Test = Literal["conventional", "generalisation"]


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One method, on one test image.

    Attributes
    ----------
    method
        Name of the method in the study.
    psf
        Name of the PSF.
    photons
        Photons of the brightest structures of the test image.
    tested_on
        Structures of the test image.
    trained_on, trained_photons, training_volumes
        Structures, photons and number of volumes that the method was trained on; none for one that
        is not trained in the study.
    condition
        What differs from the training or from the assumed PSF, such as ``"z step +10 %"``; empty
        if nothing.
    seed
        Seed of the test image.
    """

    method: str
    psf: str
    photons: float
    tested_on: str
    trained_on: str | None = None
    trained_photons: float | None = None
    training_volumes: int | None = None
    condition: str = ""
    seed: int = 0

    @property
    def test(self) -> Test:
        """Whether the test image is like those of the training, from a method that is trained."""
        same = self.trained_on in (None, self.tested_on)
        same &= self.trained_photons in (None, self.photons)
        return "conventional" if same and not self.condition else "generalisation"


@dataclass(frozen=True, kw_only=True)
class CellResult:
    """Result of a cell.

    Attributes
    ----------
    key
        Hash of everything that the cell depends on; the name of its files.
    cell
        The cell.
    scores
        Scores by the names of :data:`SCORES`; empty if the cell failed.
    seconds, training_seconds
        Seconds of the application, and of the training.
    parameters
        Number of trained parameters; none for a classical method.
    iterations
        Iterations of a classical method, or of the start of a network.
    error
        Message of the error, if the cell failed.
    command
        Command that computes the cell again.
    facts
        Further facts, JSON types.
    """

    key: str
    cell: Cell
    scores: Mapping[str, float] = field(default_factory=dict)
    seconds: float | None = None
    training_seconds: float | None = None
    parameters: int | None = None
    iterations: int | None = None
    error: str | None = None
    command: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)

    def save(self, folder: Path) -> None:
        """Write the result into a folder, atomically."""
        described = as_dict(self) | {"cell": as_dict(self.cell), "facts": dict(self.facts)}
        described["scores"] = {k: v if math.isfinite(v) else None for k, v in self.scores.items()}
        with atomic(folder / f"{self.key}.json") as temporary:
            temporary.write_text(json.dumps(described, indent=1), encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> Self:
        """Return the result in a file.

        Raises
        ------
        RlnError
            If the file is damaged.
        """
        try:
            described = json.loads(path.read_text(encoding="utf-8"))
            described["cell"] = Cell(**described["cell"])
            scores = described["scores"].items()
            described["scores"] = {k: math.nan if v is None else float(v) for k, v in scores}
            return cls(**described)
        except (OSError, ValueError, TypeError, LookupError, AttributeError) as error:
            raise RlnError(
                f"{path} is no result of a study ({error}); delete it to compute the cell again."
            ) from error


@dataclass(frozen=True, kw_only=True, eq=False)
class Planes:
    """Middle planes (Y, X) and (Z, X) of an image, its ground truth or a result.

    In image units without background, a result after the fit of scale and offset to the truth.
    """

    xy: FloatArray
    xz: FloatArray
    voxel_um: VoxelUm

    def save(self, path: Path) -> None:
        """Write the planes into an .npz file, atomically."""
        with atomic(path) as temporary, temporary.open("wb") as file:
            np.savez_compressed(file, xy=self.xy, xz=self.xz, voxel_um=np.asarray(self.voxel_um))

    @classmethod
    def load(cls, path: Path) -> Self:
        """Return the planes in a file."""
        with np.load(path, allow_pickle=False) as file:
            z, y, x = (float(v) for v in file["voxel_um"])
            return cls(xy=file["xy"], xz=file["xz"], voxel_um=(z, y, x))
