"""Result of a study of a real image: its table, its maps and its figure."""

import csv
import dataclasses
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from matplotlib.figure import Figure

from napari_rln.core.errors import RlnError
from napari_rln.core.limits import as_dict, check_limits
from napari_rln.core.record import jsonable
from napari_rln.core.volume import Box, Volume
from napari_rln.deconvolution.calibration import Gain, Level
from napari_rln.evaluate.agreement import Agreement
from napari_rln.evaluate.figure import figure, save_figure
from napari_rln.evaluate.figure_content import FigureSettings
from napari_rln.evaluate.half_photons import HalfPhotons
from napari_rln.io.image import Crop
from napari_rln.io.paths import atomic
from napari_rln.io.volumes import write, write_channels

FigureFormat = Literal["png", "pdf", "svg"]

COLUMNS = {
    "name": "name of the method or program",
    "kind": "image, method, or other: the result of another program",
    "seconds": "time of the method alone, start to end",
    "peak_mb": "peak memory, MB",
    "iterations": "iterations, of a network those of its start",
    "chi2": "reduced chi squared of the blurred result against the image, unscaled",
    "reblur_scale": "factor with which the blurred result would explain the image best",
    "flux_ratio": "light of the blurred result over that of the image",
    "halves_lateral_um": "resolution xy by the correlation of two halves of the photons at 1/7",
    "halves_axial_um": "resolution z by the same",
    "alone_added": "light shown by this method alone, over that of the others",
    "alone_missing": "light shown by the others and not by this one, over that of the others",
    "alone_voxels": "fraction of the voxels where it stands alone",
    "r": "Pearson's correlation with the reference",
    "nrmse": "error after a fit of scale and offset over the standard deviation of the reference",
    "r_inside": "correlation inside the object",
    "nrmse_inside": "error inside the object, fitted there",
    "reference_lateral_um": "resolution xy by the correlation with the reference at 1/7",
    "reference_axial_um": "resolution z by the same",
    "reference_lateral_inside_um": "resolution xy, inside the object",
    "reference_axial_inside_um": "resolution z, inside the object",
    "error": "why a method failed",
}
"""Columns of the table, and what they hold."""


@dataclass(frozen=True, kw_only=True)
class HeadlineSettings(FigureSettings):
    """Look of the figure: grey, without profiles, each column on its own scale.

    The units of columns may differ. The parameters are those of its base.
    """

    contrast: Literal["shared", "own"] = "own"
    gamma: Annotated[float, {"min": 0.1, "max": 5.0}] = 1.0
    colormap: str = "gray"
    profile: bool = False


@dataclass(frozen=True, kw_only=True)
class RealStudySettings:
    """Settings of a study of a real image.

    Parameters
    ----------
    halves
        Also measure the resolution by two halves of the photons, which takes each method twice
        again.
    seed
        Seed of the split of the photons.
    box
        Part compared with the reference and shown in the figure, as Z0:Z1 Y0:Y1 X0:X1 in voxels;
        by default what the reference covers.
    inside
        Value of the reference above which a voxel is inside the object, in its unit; auto separates
        two classes by Otsu's method.
    fit_others
        Fit scale and offset of other programs' results to the median of the methods before they are
        compared with these, as their unit and background are not known. chi squared is of the
        result as it is.
    background
        Background including the camera offset, in image units, for the residual; auto estimates
        it from the darkest parts of the image.
    offset
        Camera offset, the signal without light, in image units, for the residual; auto estimates
        it from the noise of the image.
    gain
        Camera gain in image units per photon, for the residual; auto estimates it from the noise.
    """

    halves: bool = False
    seed: Annotated[int, {"min": 0}] = 0
    box: Crop | None = None
    inside: float | Literal["auto"] = "auto"
    fit_others: bool = True
    background: Level = "auto"
    offset: Level = "auto"
    gain: Gain = "auto"

    def __post_init__(self) -> None:
        check_limits(self)
        for start, stop in self.box or ():
            if not 0 <= start < stop:
                raise RlnError(f"`box` has {start}:{stop}; give start:stop, such as 10:42.")


@dataclass(frozen=True, kw_only=True, eq=False)
class RealStudy:
    """Study of methods on a real image.

    Attributes
    ----------
    image, psf
        Image and PSF.
    results
        Results of the methods that did not fail, by their names.
    others
        Results of other programs.
    reference
        Reference on the image's grid.
    box
        Part compared with the reference and shown in the figure.
    rows
        Table: of the image, the methods and the others, each with the keys of :data:`COLUMNS` and
        None where unknown.
    agreement
        Agreement of results and others; none with fewer than two.
    halves
        Results from halves of the photons, by the names of the methods.
    notes
        Sentences that belong to the numbers: thresholds, what was fitted, cautions.
    settings
        Settings of the study.
    """

    image: Volume
    psf: Volume | None
    results: tuple[Volume, ...]
    others: tuple[Volume, ...]
    reference: Volume | None
    box: Box
    rows: tuple[Mapping[str, Any], ...]
    agreement: Agreement | None
    halves: Mapping[str, HalfPhotons]
    notes: tuple[str, ...]
    settings: RealStudySettings = field(default_factory=RealStudySettings)

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns with at least one value, in a fixed order."""
        return tuple(c for c in COLUMNS if any(row[c] is not None for row in self.rows))

    def to_csv(self, path: str | Path) -> None:
        """Write the table; unknown cells stay empty."""
        with atomic(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
            table = csv.DictWriter(file, self.columns, extrasaction="ignore")
            table.writeheader()
            table.writerows(self.rows)

    def to_dict(self) -> dict[str, Any]:
        """Return table, notes and settings in JSON's types."""
        return {
            "image": self.image.name,
            "psf": None if self.psf is None else self.psf.name,
            "reference": None if self.reference is None else self.reference.name,
            "columns": {name: COLUMNS[name] for name in self.columns},
            "rows": [jsonable({c: row[c] for c in self.columns}) for row in self.rows],
            "box": [[part.start, part.stop] for part in self.box],
            "typical_spread": None if self.agreement is None else self.agreement.typical_spread,
            "notes": list(self.notes),
            "settings": as_dict(self.settings),
        }

    def headline(self, look: FigureSettings = HeadlineSettings()) -> Figure:
        """Return the figure: image, results, others and reference; lateral, axial and magnified.

        Only the box is shown; positions and arrows of the look count from the corner of the image.
        """
        corner = [part.start for part in self.box]
        origin = np.multiply(corner, self.image.voxel_um)
        z, y, x = self.box
        shown, reference = (self.image, *self.results, *self.others), self.reference
        cropped = [v.with_data(v.data[z, y, x]) for v in shown]
        position = look.position and tuple(np.subtract(look.position, corner).tolist())
        arrows = tuple(tuple(np.subtract(arrow, origin).tolist()) for arrow in look.arrows)
        return figure(
            cropped,
            truth=None if reference is None else reference.with_data(reference.data[z, y, x]),
            settings=dataclasses.replace(look, position=position, arrows=arrows),
        )

    def save(
        self,
        folder: Path,
        *,
        look: FigureSettings = HeadlineSettings(),
        formats: Sequence[FigureFormat] = ("png",),
    ) -> list[Path]:
        """Write table, notes, results, maps and figure into a folder; return the files."""
        names = [result.name for result in self.results]
        files = files_of(folder, names, formats)
        table, notes, maps, *rest = files
        self.to_csv(table)
        with atomic(notes) as temporary:
            temporary.write_text(json.dumps(self.to_dict(), indent=1), encoding="utf-8")
        for result, file in zip(self.results, rest, strict=False):
            write(result, file)
        drawing = self.headline(look)
        for file in rest[len(names) :]:
            save_figure(drawing, file)
        if self.agreement is None:
            return [table, notes, *rest]
        write_channels([self.agreement.spread, *(a.map for a in self.agreement.alone)], maps)
        return files


def files_of(folder: Path, names: Sequence[str], formats: Sequence[FigureFormat]) -> list[Path]:
    """Return the files of a study: table, notes, maps, results by their names, and figures."""
    results = [folder / f"{file_name(name)}.ome.tif" for name in names]
    figures = [folder / f"figure.{kind}" for kind in formats]
    names = ("table.csv", "image-study.json", "agreement.ome.tif")
    return [*(folder / name for name in names), *results, *figures]


def file_name(name: str) -> str:
    """Return the name of a method as that of its file, without an ending."""
    return "result-" + re.sub(r"[^\w.+-]+", "-", name).strip("-.").lower()
