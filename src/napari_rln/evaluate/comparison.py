"""A table that sets results beside the raw image: scores, flux, resolution, residual, cost."""

import csv
import dataclasses
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from napari_rln.core.errors import RlnError
from napari_rln.core.generators import finish, relay
from napari_rln.core.record import jsonable
from napari_rln.core.settings import as_dict, check_limits
from napari_rln.core.volume import Volume, check_on_grid, on_one_grid, voxel_message
from napari_rln.deconvolution.calibration import Gain, Level
from napari_rln.evaluate.fourier_shell import Direction, fourier_shell_correlation
from napari_rln.evaluate.scores import Scores, score
from napari_rln.evaluate.sections import PLANES
from napari_rln.io.paths import atomic

if TYPE_CHECKING:
    from napari_rln.deconvolution.study import Study


@dataclass(frozen=True, kw_only=True)
class CompareSettings:
    """How to compare.

    Parameters
    ----------
    planes
        Score the xy, xz and yz planes too.
    background
        Light that is not of the object, camera offset included, in image units; auto takes
        the darkest parts of the image.
    offset
        What the camera gives without light, in image units; auto tells it by the image's noise.
    gain
        Image units per photon of the camera; auto tells it by the image's noise.
    """

    planes: bool = True
    background: Level = "auto"
    offset: Level = "auto"
    gain: Gain = "auto"

    def __post_init__(self) -> None:
        check_limits(self)


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of the table; None where something was not given or does not apply.

    Attributes
    ----------
    name
        Of the volume.
    seconds, peak_mb
        What the result cost, from its record.
    flux_ratio
        Light of the blurred result, and of what comes from outside the field of view, over light
        of the image after its background: 1 where all of it is explained.
    chi2
        Reduced chi squared of the blurred result, as it is, against the image; see
        :func:`napari_rln.deconvolution.residual.reconvolution_residual`.
    reblur_scale
        Factor on the blurred result by which it fits the image best: 1 for a result that is as
        bright as the image says.
    volume, xy, xz, yz
        Agreement with the truth, on the volume and as means over planes.
    lateral_um, axial_um
        Fourier shell correlation resolution against the truth at 1/7.
    """

    name: str
    seconds: float | None = None
    peak_mb: float | None = None
    flux_ratio: float | None = None
    chi2: float | None = None
    reblur_scale: float | None = None
    lateral_um: float | None = None
    axial_um: float | None = None
    volume: Scores | None = None
    xy: Scores | None = None
    xz: Scores | None = None
    yz: Scores | None = None

    def cells(self) -> dict[str, str | float]:
        """Return what is known, by column name; plane scores end in the plane: ``ssim_xz``."""
        cells: dict[str, str | float] = {}
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if isinstance(value, Scores):
                end = "" if field.name == "volume" else f"_{field.name}"
                cells |= {
                    f"{score}{end}": number
                    for score, number in dataclasses.asdict(value).items()
                    if number is not None
                }
            elif value is not None:
                cells[field.name] = value
        return cells


def _columns() -> Iterator[str]:
    """Yield every possible column in the order of the table."""
    scores = [field.name for field in dataclasses.fields(Scores)]
    for field in dataclasses.fields(Row):
        if field.name == "volume":
            yield from scores
        elif field.name in PLANES:
            yield from (f"{score}_{field.name}" for score in scores)
        else:
            yield field.name


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """The table and what it was made from.

    Attributes
    ----------
    rows
        The raw image first, then the results in their order.
    settings
        As used; with the noise that was estimated if none was given.
    truth, psf
        Names of the volumes that were compared with, if any.
    """

    rows: tuple[Row, ...]
    settings: CompareSettings
    truth: str | None = None
    psf: str | None = None

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the columns that hold at least one value, in a fixed order."""
        held = {column for row in self.rows for column in row.cells()}
        return tuple(column for column in _columns() if column in held)

    def to_csv(self, path: str | Path) -> None:
        """Write the table, one line per volume; cells that do not apply stay empty."""
        with atomic(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
            table = csv.DictWriter(file, self.columns)
            table.writeheader()
            table.writerows(row.cells() for row in self.rows)

    def to_dict(self) -> dict[str, Any]:
        """Return all of it in JSON's types; the infinite PSNR of a perfect result becomes None."""
        return {
            "columns": list(self.columns),
            "rows": [jsonable(row.cells()) for row in self.rows],
            "settings": as_dict(self.settings),
            "truth": self.truth,
            "psf": self.psf,
        }


@dataclass(frozen=True, kw_only=True)
class CompareReport:
    """Where a comparison stands.

    Attributes
    ----------
    phase
        ``"outside"`` while the light from beyond the field of view is found, then ``"compare"``.
    done, total
        Iterations, or rows of the table.
    row
        That was just finished.
    """

    phase: Literal["outside", "compare"]
    done: int
    total: int
    row: Row | None = None


def compare(
    image: Volume,
    results: Sequence[Volume],
    *,
    truth: Volume | None = None,
    psf: Volume | None = None,
    settings: CompareSettings | None = None,
    study: "Study | None" = None,
) -> Comparison:
    """Return the table; see :func:`compare_steps`, of which this is the last word."""
    steps = compare_steps(image, results, truth=truth, psf=psf, settings=settings, study=study)
    return finish(steps)


def compare_steps(
    image: Volume,
    results: Sequence[Volume],
    *,
    truth: Volume | None = None,
    psf: Volume | None = None,
    settings: CompareSettings | None = None,
    study: "Study | None" = None,
) -> Generator[CompareReport, None, Comparison]:
    """Compare; yield reports, return a table of the raw image and the results made from it.

    Closing the generator cancels.

    Parameters
    ----------
    image
        The raw image, in counts; it becomes the first row.
    results
        Volumes on the image's grid.
    truth
        What is known to be there, on the image's grid; without it there are no scores.
    psf
        The point spread function, for the reconvolution residual.
    settings
        How to compare.
    study
        That the methods were given: what they found out need not be found again.

    Raises
    ------
    RlnError
        If shapes or voxel sizes disagree, or the truth is flat.
    """
    settings = settings or CompareSettings()
    for other in (*results, *((truth,) if truth else ())):
        check_on_grid(other, image)
    if truth is not None and np.ptp(truth.data) == 0:
        raise RlnError(f"{truth.name} is flat; choose a region that holds structure.")
    if psf is not None and not on_one_grid(psf, image):
        raise RlnError(voxel_message(psf, image, "load it for the image's voxel size"))
    explain: Callable[[Volume], dict[str, Any]] | None = None
    calibration = None
    if psf is not None and np.ptp(image.data):
        from napari_rln.deconvolution.study import Study  # loads torch: only where it is needed

        study = study or Study()
        calibration = study.calibrate(image, settings)
    if psf is not None and calibration is not None and calibration.camera.counts_photons:
        from napari_rln.deconvolution.check import explained, facts_of, outside_steps

        kernel, found = psf, calibration
        assert study is not None
        clean, seen, _ = study.measure(image, psf, calibration, repair=True)
        outside = yield from relay(
            outside_steps(clean, psf, calibration, seen=seen, study=study),
            lambda r: CompareReport(phase="outside", done=r.iteration, total=r.total),
        )

        def of_volume(volume: Volume) -> dict[str, Any]:
            data, own = clean.data - np.float32(found.background), found
            if volume is not image:
                data, facts = volume.data, volume.record.facts if volume.record else {}
                if facts.get("background") is not None:
                    own = dataclasses.replace(found, background=facts["background"])
            return facts_of(explained(clean, data, kernel, own, outside=outside, seen=seen))

        explain = of_volume

    rows: list[Row] = []
    for volume in (image, *results):
        rows.append(_row(volume, truth, explain(volume) if explain else {}, settings))
        yield CompareReport(phase="compare", done=len(rows), total=1 + len(results), row=rows[-1])
    return Comparison(
        rows=tuple(rows),
        settings=settings,
        truth=truth.name if truth else None,
        psf=psf.name if psf else None,
    )


def _row(
    volume: Volume, truth: Volume | None, explains: dict[str, Any], settings: CompareSettings
) -> Row:
    """Return the line of one volume."""
    facts = volume.record.facts if volume.record else {}
    values: dict[str, Any] = {"seconds": facts.get("seconds"), "peak_mb": facts.get("peak_mb")}
    values |= explains
    if truth is not None:
        values["volume"] = score(volume, truth)
        # A single plane is its own xy plane and has no others.
        if settings.planes and truth.shape[0] > 1:
            values |= {plane: score(volume, truth, plane) for plane in PLANES}
        values |= _resolution(volume, truth)
    return Row(name=volume.name, **values)


def _resolution(volume: Volume, truth: Volume) -> dict[str, float]:
    """Return the resolutions that the shape allows, by column name."""
    sides: dict[Direction, int] = {"lateral": min(truth.shape[1:]), "axial": truth.shape[0]}
    curves = {
        direction: fourier_shell_correlation(volume.data, truth.data, truth.voxel_um, direction)
        for direction, n in sides.items()
        if n >= 8
    }
    return {f"{direction}_um": curve.resolution_um for direction, curve in curves.items()}
