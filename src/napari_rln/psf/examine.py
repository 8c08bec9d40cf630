"""Examination and repair of a PSF.

:func:`examine_psf` measures and assesses a PSF; :func:`repair_psf` prepares it with exactly the
settings that the findings name, which removes them; :func:`fit_psf` does both for an image to
deconvolve.
"""

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from napari_rln.core.errors import RlnError
from napari_rln.core.generators import checkpoint
from napari_rln.core.record import jsonable
from napari_rln.core.volume import (
    Float64Array,
    OnGrid,
    Shape,
    Volume,
    VoxelUm,
    on_one_grid,
    shape_on,
)
from napari_rln.psf.findings import HARMFUL, Finding, PsfFacts, findings_of
from napari_rln.psf.peak import Triple, peak_centre, triple
from napari_rln.psf.pedestal import background_level
from napari_rln.psf.placement import find_fault, in_image_order
from napari_rln.psf.prepare import (
    RESAMPLE_ONLY,
    PrepareSettings,
    above_noise,
    is_computed,
    place,
    prepare_psf,
    unusable,
    without_hot,
)
from napari_rln.psf.resampling import check_preparation
from napari_rln.psf.shape import asymmetry, fwhm_um

_UNKNOWN: Triple = (math.nan, math.nan, math.nan)
_SLOWEST = 0.95  # limit of the ratio of light per plane at the edge, for the extrapolation


@dataclass(frozen=True, kw_only=True)
class PsfReport:
    """Facts and findings about a PSF.

    Attributes
    ----------
    facts
        Measured values.
    findings
        Their assessment; a single ``"ok"`` if nothing is wrong.
    """

    facts: PsfFacts
    findings: tuple[Finding, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return facts and findings for JSON; unknown or non-finite values are null."""
        report: dict[str, Any] = jsonable(dataclasses.asdict(self))
        return report

    def rows(self) -> list[tuple[str, str]]:
        """Return the facts as (label, value with unit) in display order."""
        f = self.facts
        rows = [
            ("size (z, y, x)", _join(f.shape, "d", "voxels")),
            ("voxel size", _join(f.voxel_um, ".4g", "um")),
            ("FWHM", _join(f.fwhm_um, ".3f", "um")),
            ("FWHM", _join(f.fwhm_voxels, ".2f", "voxels")),
            ("sampling limit", _join(f.nyquist_um, ".3f", "um")),
            ("expected lateral FWHM", f"{f.expected_fwhm_um:.3f} um"),
            ("peak off the middle", _join(f.offset_voxels, "+.2f", "voxels")),
            ("peak off the middle", _join(f.offset_um, "+.3f", "um")),
            ("asymmetry", _join(f.asymmetry, ".1%", "")),
            ("sum", f"{f.total:.6g}"),
            ("negative voxels", f"{f.negative_voxels} ({f.negative_fraction:.2%} of the light)"),
            ("background", f"{f.background:.4g} ({f.background_fraction:.1%} of the light)"),
            ("noise", f"{f.noise_to_peak:.2%} of the peak"),
            ("hot pixels", f"{f.hot_pixels} ({f.hot_fraction:.2%} of the light)"),
            ("saturated voxels", str(f.saturated_voxels)),
            ("faces over peak", _join(f.edge_to_peak, ".1%", "")),
            ("light outside the file", _join(f.cut_fraction, ".0%", "")),
        ]
        if f.recommended_size is not None:
            rows.append(("recommended size", _join(f.recommended_size, "d", "voxels")))
        return [row for row in rows if "nan um" not in row[1] and "nan, nan" not in row[1]]


def examine_psf(
    psf: Volume,
    *,
    image: OnGrid | None = None,
    na: float | None = None,
    wavelength_um: float | None = None,
    immersion_index: float | None = None,
) -> PsfReport:
    """Return facts and findings about a PSF.

    Parameters
    ----------
    psf
        Measured or computed, prepared or not.
    image
        The image to deconvolve, for comparing voxel size and size.
    na
        Numerical aperture; with the wavelength it determines the lateral sampling limit
        ``wavelength / (4 na)`` and the expected width.
    wavelength_um
        Emission wavelength in micrometres.
    immersion_index
        Refractive index of the immersion; also determines the axial sampling limit of widefield,
        ``wavelength / (2 n (1 - cos(asin(na / n))))``.

    Raises
    ------
    RlnError
        If the PSF has no peak, or if NA, index or wavelength are out of range.
    """
    nyquist, expected = _sampling_limits(na, wavelength_um, immersion_index)
    fault = find_fault(psf.data)
    data = psf.data.astype(np.float64)
    if fault:
        data = in_image_order(data, fault.split)
    computed = is_computed(psf)
    filtered, hot_pixels = (data, 0) if computed else without_hot(data)
    hot_light = float((data - filtered).sum())
    data = filtered
    level, noise_sd = background_level(data)
    clean = data - level
    centre = peak_centre(clean)
    peak = float(clean.max())
    ready = above_noise(clean, noise_sd, PrepareSettings().noise_floor)
    checkpoint()
    kept = np.clip(ready, 0, None)
    light = float(kept.sum())
    if not light > 0:
        raise RlnError(
            f"{psf.name} has no signal above its noise; give a file with one bright spot on a dark "
            "background."
        )
    checkpoint()
    offset = triple(c - n // 2 for c, n in zip(centre, psf.shape, strict=True))
    fwhm_voxels = fwhm_um(clean, (1.0, 1.0, 1.0), centre)
    checkpoint()
    negative, positive = _signed_sums(psf.data)
    facts = PsfFacts(
        name=psf.name,
        shape=psf.shape,
        voxel_um=psf.voxel_um,
        total=float(psf.data.sum(dtype=np.float64)),
        negative_voxels=int((psf.data < 0).sum()),
        negative_fraction=negative / positive if positive else math.inf,
        background=level,
        background_fraction=level * data.size / light,
        noise_to_peak=noise_sd / peak,
        noise_fraction=0.0 if computed else _signed_sums(clean)[0] / light,
        hot_pixels=hot_pixels,
        hot_fraction=hot_light / light,
        offset_voxels=offset,
        offset_um=triple(np.multiply(offset, psf.voxel_um)),
        fault=fault,
        fwhm_um=triple(np.multiply(fwhm_voxels, psf.voxel_um)),
        fwhm_voxels=fwhm_voxels,
        asymmetry=asymmetry(clean, centre, floor=max(3 * noise_sd, 1e-3 * peak)),
        saturated_voxels=_saturated(data, centre, fwhm_voxels),
        edge_to_peak=_edges(kept / peak),
        cut_fraction=_cut(kept),
        nyquist_um=nyquist,
        expected_fwhm_um=expected,
        image_voxel_um=None if image is None else image.voxel_um,
        image_shape=None if image is None else image.shape,
        size_on_image=psf.shape if image is None else shape_on(psf, image.voxel_um),
        recommended_size=_recommended(psf, clean if computed else ready, image),
    )
    return PsfReport(facts=facts, findings=findings_of(facts))


def repair_psf(psf: Volume, report: PsfReport, image_voxel_um: VoxelUm | None = None) -> Volume:
    """Return the PSF prepared with exactly the settings that the findings name.

    Parameters
    ----------
    psf
        The examined PSF.
    report
        Result of :func:`examine_psf`.
    image_voxel_um
        Voxel size (z, y, x) in micrometres to resample to; by default that of the report's image.

    Returns
    -------
    Volume
        The PSF itself if no finding has a repair; otherwise of odd size, non-negative, with sum 1.

    Raises
    ------
    RlnError
        If the PSF cannot be used and cannot be repaired.
    """
    fault = report.facts.fault
    if fault and not fault.split:
        raise unusable(psf, fault)
    changes: dict[str, Any] = {} if image_voxel_um is None else {"image_voxel_um": image_voxel_um}
    repairs = [f.settings for f in report.findings if f.settings is not None]
    for settings in repairs:
        changes = settings | changes
    if not repairs and image_voxel_um is None:
        return psf
    target = changes.pop("image_voxel_um", None)
    return prepare_psf(psf, dataclasses.replace(RESAMPLE_ONLY, **changes), image_voxel_um=target)


def fit_psf(
    psf: Volume, image: OnGrid | None = None, *, repair: bool = True
) -> tuple[Volume, tuple[Finding, ...]]:
    """Return a PSF ready for use and the findings about the original.

    Parameters
    ----------
    psf
        Unprepared PSF, such as that of a file.
    image
        Image to deconvolve, if known; the PSF is resampled to its voxels where they differ.
    repair
        Repair findings that harm the result (warnings and errors); otherwise only resample and
        normalise the sum.

    Raises
    ------
    RlnError
        If a finding of severity ``"error"`` is not repaired, or the memory does not suffice.
    """
    check_preparation(psf, psf.voxel_um if image is None else image.voxel_um)
    report = examine_psf(psf, image=image)
    harmful = tuple(f for f in report.findings if f.severity in HARMFUL)
    target = None if image is None or on_one_grid(psf, image) else image.voxel_um
    if repair:
        ready = repair_psf(psf, dataclasses.replace(report, findings=harmful), target)
    elif report.facts.fault:
        raise unusable(psf, report.facts.fault)
    else:
        ready = prepare_psf(psf, RESAMPLE_ONLY, image_voxel_um=target)
    return ready, report.findings


def _sampling_limits(
    na: float | None, wavelength_um: float | None, index: float | None
) -> tuple[Triple, float]:
    """Return the sampling limits (z, y, x) and the lateral FWHM in um; nan where unknown."""
    if wavelength_um is not None and not 0.1 <= wavelength_um <= 3:
        raise RlnError(
            f"`wavelength_um` is {wavelength_um} um but must lie between 0.1 and 3; give it in "
            "micrometres."
        )
    if na is not None and not 0 < na < (index or 2.0):
        raise RlnError(
            f"`na` is {na} but must lie between 0 and the refractive index of the immersion, "
            f"{index or 2.0}; correct one of them."
        )
    if na is None or wavelength_um is None:
        return _UNKNOWN, math.nan
    lateral = wavelength_um / (4 * na)
    axial = math.nan
    if index is not None:
        axial = wavelength_um / (2 * index * (1 - math.sqrt(1 - (na / index) ** 2)))
    return (axial, lateral, lateral), 0.51 * wavelength_um / na


def _saturated(data: Float64Array, centre: Triple, fwhm_voxels: Triple) -> int:
    """Return the number of voxels at the highest value if they are a plateau, else 0.

    A peak half-way between voxels has two equal ones for each such axis, and coarse integers
    flatten the top of a broad peak: up to 5 % of the volume inside half maximum is accepted.
    """
    checkpoint()
    labels, _ = ndimage.label(data >= data.max() * (1 - 1e-6))
    count = int(np.bincount(labels.ravel())[1:].max())
    twins = math.prod(2 if abs(c % 1 - 0.5) < 0.05 else 1 for c in centre)
    inside = math.prod(w for w in fwhm_voxels if math.isfinite(w))
    return count if count > max(twins, 2, 0.05 * inside) else 0


def _edges(relative: Float64Array) -> Triple:
    """Return the brightest 3 x 3 mean on the faces across each axis; 0 for a single plane."""
    brightest = [0.0, 0.0, 0.0]
    for axis in (a for a in range(3) if relative.shape[a] > 1):
        for side in (0, -1):
            face = ndimage.uniform_filter(relative.take(side, axis=axis), 3, mode="nearest")
            brightest[axis] = max(brightest[axis], float(face.max()))
    return triple(brightest)


def _cut(light: Float64Array) -> Triple:
    """Return the fraction of light outside along each axis, extrapolated geometrically."""
    checkpoint()
    fractions = [0.0, 0.0, 0.0]
    for axis in (a for a in range(3) if light.shape[a] > 4):
        planes = light.sum(axis=tuple(a for a in range(3) if a != axis))
        outside = 0.0
        for last, before in (planes[[0, 2]], planes[[-1, -3]]):
            ratio = min(math.sqrt(last / before), _SLOWEST) if before > 0 else 0.0
            outside += float(last) * ratio / (1 - ratio)
        fractions[axis] = outside / (outside + float(planes.sum()))
    return triple(fractions)


def _recommended(psf: Volume, clean: Float64Array, image: OnGrid | None) -> Shape | None:
    """Return the size after full preparation of cleaned data; none if that is impossible."""
    voxel_um = psf.voxel_um if image is None else image.voxel_um
    try:
        z, y, x = place(psf, clean, PrepareSettings(), voxel_um).data.shape
    except RlnError:
        return None
    return z, y, x


def _signed_sums(data: npt.NDArray[Any]) -> tuple[float, float]:
    """Return the absolute sums of the negative and of the positive values."""
    return (
        float(np.abs(data[data < 0]).sum(dtype=np.float64)),
        float(data[data > 0].sum(dtype=np.float64)),
    )


def _join(values: tuple[float, ...], form: str, unit: str) -> str:
    return " ".join([", ".join(format(v, form) for v in values), unit]).strip()
