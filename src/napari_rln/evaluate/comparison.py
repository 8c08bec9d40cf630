"""Comparison table of the raw image and results: scores, flux, resolution, residual, cost."""

import csv
import dataclasses
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from napari_rln.core.errors import RlnError
from napari_rln.core.generators import finish, relay
from napari_rln.core.limits import as_dict, check_limits
from napari_rln.core.record import jsonable
from napari_rln.core.volume import Volume, check_on_grid, on_one_grid, voxel_message
from napari_rln.deconvolution.calibration import Gain, Level
from napari_rln.evaluate.fourier_shell import Direction, fourier_shell_correlation
from napari_rln.evaluate.plane_sections import PLANES
from napari_rln.evaluate.scores import Scores, score
from napari_rln.io.paths import atomic, check_folder

if TYPE_CHECKING:
    from napari_rln.deconvolution.shared import Shared


@dataclass(frozen=True, kw_only=True)
class CompareSettings:
    """Settings of a comparison.

    Parameters
    ----------
    planes
        Score the xy, xz and yz planes too.
    background
        Background including the camera offset, in image units; auto estimates it from the darkest
        parts of the image.
    offset
        Camera offset, the signal without light, in image units; auto estimates it from the noise
        of the image.
    gain
        Camera gain in image units per photon; auto estimates it from the noise of the image.
    """

    planes: bool = True
    background: Level = "auto"
    offset: Level = "auto"
    gain: Gain = "auto"

    def __post_init__(self) -> None:
        check_limits(self)


@dataclass(frozen=True, kw_only=True)
class Row:
    """Row of the table; values are None where unknown or not applicable.

    Attributes
    ----------
    name
        Name of the volume.
    seconds, peak_mb
        Computing time and peak memory, from the record of the result.
    flux_ratio
        Flux of the blurred result plus that of light from outside the field of view, divided by
        the flux of the image above its background; ideally 1.
    chi2
        Reduced chi squared between the blurred result, without a fit, and the image; see
        :func:`napari_rln.deconvolution.residual.reconvolution_residual`.
    reblur_scale
        Factor on the blurred result that fits the image best; 1 for a result of the right
        brightness.
    volume, xy, xz, yz
        Scores against the truth, for the volume and as means over planes.
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
        """Return the known values by column name; plane scores end in the plane: ``ssim_xz``."""
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
    """Comparison table, the raw image first, and its settings; names of truth and PSF, if any."""

    rows: tuple[Row, ...]
    settings: CompareSettings
    truth: str | None = None
    psf: str | None = None

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the columns with at least one value, in a fixed order."""
        filled = {column for row in self.rows for column in row.cells()}
        return tuple(column for column in _columns() if column in filled)

    def to_csv(self, path: str | Path) -> None:
        """Write the table, one line per volume; unknown cells stay empty.

        Raises :class:`RlnError` if the folder does not exist or is not writable.
        """
        check_folder(Path(path))
        with atomic(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
            table = csv.DictWriter(file, self.columns)
            table.writeheader()
            table.writerows(row.cells() for row in self.rows)

    def to_dict(self) -> dict[str, Any]:
        """Return the comparison in JSON's types; the infinite PSNR of a perfect result is None."""
        return {
            "columns": list(self.columns),
            "rows": [jsonable(row.cells()) for row in self.rows],
            "settings": as_dict(self.settings),
            "truth": self.truth,
            "psf": self.psf,
        }


@dataclass(frozen=True, kw_only=True)
class CompareReport:
    """Progress of a comparison: iterations or rows done, and the last finished row.

    ``"outside"`` is the phase in which the light from outside the field of view is estimated.
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
    shared: "Shared | None" = None,
) -> Comparison:
    """Return the table; see :func:`compare_iter`."""
    steps = compare_iter(image, results, truth=truth, psf=psf, settings=settings, shared=shared)
    return finish(steps)


def compare_iter(
    image: Volume,
    results: Sequence[Volume],
    *,
    truth: Volume | None = None,
    psf: Volume | None = None,
    settings: CompareSettings | None = None,
    shared: "Shared | None" = None,
) -> Generator[CompareReport, None, Comparison]:
    """Yield reports, return the table of a raw image and the results made from it.

    Closing the generator cancels.

    Parameters
    ----------
    image
        The raw image in counts; the first row.
    results
        Volumes on the image's grid.
    truth
        Ground truth on the image's grid; without it there are no scores.
    psf
        The point spread function, for the reconvolution residual.
    settings
        Settings of the comparison; the defaults if None.
    shared
        Results that the methods share, reused here.

    Raises
    ------
    RlnError
        If shapes or voxel sizes differ, or the truth is constant.
    """
    settings = settings or CompareSettings()
    for other in (*results, *((truth,) if truth else ())):
        check_on_grid(other, image)
    if truth is not None and np.ptp(truth.data) == 0:
        raise RlnError(f"{truth.name} is constant; choose a region with structure.")
    if psf is not None and not on_one_grid(psf, image):
        raise RlnError(voxel_message(psf, image, "load it with the image's voxel size"))
    residual = None
    if psf is not None and np.ptp(image.data):
        residual = yield from _residual_iter(image, psf, settings, shared)
    rows: list[Row] = []
    for volume in (image, *results):
        rows.append(_row(volume, truth, residual(volume) if residual else {}, settings))
        yield CompareReport(phase="compare", done=len(rows), total=1 + len(results), row=rows[-1])
    return Comparison(
        rows=tuple(rows),
        settings=settings,
        truth=truth.name if truth else None,
        psf=psf.name if psf else None,
    )


def _residual_iter(
    image: Volume, psf: Volume, settings: CompareSettings, shared: "Shared | None"
) -> Generator[CompareReport, None, Callable[[Volume], dict[str, Any]] | None]:
    """Yield reports, return a function for the facts of a volume's reconvolution residual.

    None if the noise of the image cannot be measured.
    """
    # All of these load torch.
    from napari_rln.deconvolution.residual import facts_of, residual_of
    from napari_rln.deconvolution.shared import Shared
    from napari_rln.evaluate.check import outside_light_iter

    shared = shared or Shared()
    calibration = shared.calibrate(image, settings)
    if not calibration.camera.counts_photons:
        return None
    clean, mask, _ = shared.prepare(image, psf, calibration, repair=True)
    outside = yield from relay(
        outside_light_iter(clean, psf, calibration, mask=mask, shared=shared),
        lambda r: CompareReport(phase="outside", done=r.done, total=r.total),
    )

    def residual(volume: Volume) -> dict[str, Any]:
        data, calibrated = clean.data - np.float32(calibration.background), calibration
        if volume is not image:
            data, facts = volume.data, volume.record.facts if volume.record else {}
            if facts.get("background") is not None:
                calibrated = dataclasses.replace(calibration, background=facts["background"])
        return facts_of(residual_of(clean, data, psf, calibrated, outside=outside, mask=mask))

    return residual


def _row(
    volume: Volume, truth: Volume | None, residual: dict[str, Any], settings: CompareSettings
) -> Row:
    """Return the row of one volume."""
    facts = volume.record.facts if volume.record else {}
    values: dict[str, Any] = {"seconds": facts.get("seconds")}
    values["peak_mb"] = facts.get("peak_mb") or None  # 0: too little or too short to be measured
    values |= residual
    if truth is not None:
        values["volume"] = score(volume, truth)
        # For a single plane, the xy scores equal those of the volume.
        if settings.planes and truth.shape[0] > 1:
            values |= {plane: score(volume, truth, plane) for plane in PLANES}
        values |= _resolution(volume, truth)
    return Row(name=volume.name, **values)


def _resolution(volume: Volume, truth: Volume) -> dict[str, float]:
    """Return the lateral and axial resolution by column name, where there are 8 voxels or more."""
    sides: dict[Direction, int] = {"lateral": min(truth.shape[1:]), "axial": truth.shape[0]}
    curves = {
        direction: fourier_shell_correlation(volume.data, truth.data, truth.voxel_um, direction)
        for direction, n in sides.items()
        if n >= 8
    }
    return {f"{direction}_um": curve.resolution_um for direction, curve in curves.items()}
