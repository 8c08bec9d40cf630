"""Findings about a PSF, derived from measured facts.

Every finding states the value and its limit. Its repair is the change of
:class:`napari_rln.psf.prepare.PrepareSettings` that removes it; a finding without one needs another
measurement, or is for information only.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from napari_rln.core.volume import Shape, VoxelUm, same_grid
from napari_rln.psf.peak import Triple
from napari_rln.psf.placement import Fault

Severity = Literal["ok", "note", "warning", "error"]

HARMFUL: tuple[Severity, ...] = ("warning", "error")
"""Severities that harm the result."""

# Limits above which a fact becomes a finding.
_SUM = 1e-3  # distance of the sum from 1
_BACKGROUND = 0.05  # of the PSF's light; the far tails of computed PSFs have up to 0.02
_HOT = 1e-3  # of the PSF's light
_NOISE = 0.01  # negative light over light, after the background is subtracted
_OFFSET = 0.2  # voxels
_EDGE = 0.1  # brightest mean on a face over the peak
_CUT = 0.05  # of the light
_ASYMMETRY = 0.2
_NYQUIST = 1.05  # voxel size over the sampling limit
_NARROW, _BROAD = 0.6, 1.6  # lateral FWHM over that of widefield; 0.7 for ideal confocal
_SPARE = 2.0  # number of voxels over that of the recommended crop
_FWHM_VOXELS = 2.0  # lower limit


@dataclass(frozen=True, kw_only=True)
class PsfFacts:
    """Measured facts about a PSF; triples are (z, y, x).

    Attributes
    ----------
    name, shape, voxel_um
        Name, size and voxel size of the examined PSF.
    total
        Sum of all voxels.
    negative_voxels, negative_fraction
        Number of negative voxels, and their absolute sum over the sum of the positive ones.
    background, background_fraction
        Constant level in the file's unit, and its sum over the PSF's own light.
    noise_to_peak, noise_fraction
        Noise of the background over the peak; negative light after subtracting the background
        over the PSF's light.
    hot_pixels, hot_fraction
        Number of isolated voxels far above their neighbours, and their sum over the PSF's light.
    offset_voxels, offset_um
        Position of the main lobe's peak minus that of voxel ``n // 2``.
    fault
        Reason why the PSF cannot be used unrepaired, or none.
    fwhm_um, fwhm_voxels
        Full widths at half maximum; nan along z for a single plane, inf where the
        profile does not fall to half.
    asymmetry
        Fraction of light that differs from the mirror image across each axis.
    saturated_voxels
        Number of voxels at the highest value, if they are too many for a peak; else 0.
    edge_to_peak
        Brightest 3 x 3 mean on the two faces across each axis, over the peak.
    cut_fraction
        Fraction of all light outside the file along each axis, extrapolated from the decay of the
        light per plane at the edge.
    nyquist_um
        Largest voxel size that samples widefield light of this NA and wavelength without loss;
        nan where unknown.
    expected_fwhm_um
        Lateral FWHM in focus, 0.51 wavelength / NA; nan where unknown.
    image_voxel_um, image_shape
        Voxel size and size of the image to deconvolve, if known.
    size_on_image
        Shape of the PSF in voxels of the image, or its own without an image.
    recommended_size
        Shape in those voxels that holds 99.9 % of the light, or none if it cannot be prepared.
    """

    name: str
    shape: Shape
    voxel_um: VoxelUm
    total: float
    negative_voxels: int
    negative_fraction: float
    background: float
    background_fraction: float
    noise_to_peak: float
    noise_fraction: float
    hot_pixels: int
    hot_fraction: float
    offset_voxels: Triple
    offset_um: Triple
    fault: Fault | None
    fwhm_um: Triple
    fwhm_voxels: Triple
    asymmetry: Triple
    saturated_voxels: int
    edge_to_peak: Triple
    cut_fraction: Triple
    nyquist_um: Triple
    expected_fwhm_um: float
    image_voxel_um: VoxelUm | None
    image_shape: Shape | None
    size_on_image: Shape
    recommended_size: Shape | None


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One finding about a PSF.

    Attributes
    ----------
    check
        Short name of the check, such as ``"background"``.
    severity
        ``"note"`` for information; ``"warning"`` if it harms the result; ``"error"`` if it makes
        it useless, so that the PSF is refused unless repaired; ``"ok"`` if nothing is wrong.
    message
        A sentence with the value and the limit.
    repair
        Settings of ``prepare`` that remove it, such as ``"background=auto"``; none if none does.
    settings
        The same as fields of the settings, or as the argument ``image_voxel_um``.
    """

    check: str
    severity: Severity
    message: str
    repair: str | None = None
    settings: dict[str, Any] | None = None


def findings_of(facts: PsfFacts) -> tuple[Finding, ...]:
    """Return the findings that follow from the facts; a single ``"ok"`` if none."""
    findings = (
        *_light(facts),
        *_place(facts),
        *_grid(facts),
        *_resolution(facts),
        *_extent(facts),
    )
    if findings:
        return findings
    return (Finding(check="all", severity="ok", message="Nothing to repair."),)


def _repairable(check: str, severity: Severity, message: str, **settings: Any) -> Finding:
    text = ", ".join(f"{name}={_plain(value)}" for name, value in settings.items())
    return Finding(
        check=check,
        severity=severity,
        message=message,
        repair=text or "any preparation",
        settings=settings,
    )


def _light(facts: PsfFacts) -> Iterator[Finding]:
    """Yield findings on sum, negatives, background, noise, hot pixels, saturation."""
    if facts.hot_fraction > _HOT:
        message = (
            f"{facts.hot_pixels} hot pixels, more than 4 times as bright as their neighbours, have "
            f"{facts.hot_fraction:.2%} of the light (limit {_HOT:.1%})."
        )
        yield _repairable("hot pixels", "warning", message, hot_pixels=True)
    if abs(facts.background_fraction) > _BACKGROUND:
        message = (
            f"A constant background of {facts.background:.4g} sums to "
            f"{facts.background_fraction:.0%} of the PSF's light (limit {_BACKGROUND:.0%})."
        )
        yield _repairable("background", "warning", message, background="auto")
    if facts.noise_fraction > _NOISE:
        message = (
            f"Noise of {facts.noise_to_peak:.2%} of the peak causes negative values of "
            f"{facts.noise_fraction:.0%} of the light (limit {_NOISE:.0%}); if they were only "
            "clipped, a pedestal would remain."
        )
        yield _repairable("noise", "warning", message, background="auto", noise_floor=3.0)
    if facts.negative_voxels:
        message = (
            f"{facts.negative_voxels} voxels are negative, {facts.negative_fraction:.2%} of the "
            "light; a PSF has none."
        )
        yield _repairable("negatives", "warning", message)
    if abs(facts.total - 1) > _SUM:
        message = f"The sum is {facts.total:.6g}; a PSF sums to 1, so that brightness is preserved."
        yield _repairable("sum", "warning", message)
    if facts.saturated_voxels:
        message = (
            f"{facts.saturated_voxels} voxels at the peak have the highest value: the detector was "
            "saturated. Measure again with less light or a shorter exposure."
        )
        yield Finding(check="saturation", severity="warning", message=message)


def _place(facts: PsfFacts) -> Iterator[Finding]:
    """Yield findings on centre and symmetry."""
    if facts.fault:
        check, message = facts.fault.check, facts.fault.message
        message = message[:1].upper() + message[1:]
        if facts.fault.split:
            yield _repairable(check, "error", message, centre="peak")
        else:
            yield Finding(check=check, severity="error", message=message)
    elif max(abs(offset) for offset in facts.offset_voxels) > _OFFSET:
        message = (
            f"The peak is off the middle voxel by {_zyx(facts.offset_voxels, '+.2f')} voxels or "
            f"{_zyx(facts.offset_um, '+.3f')} um (z, y, x; limit {_OFFSET} voxels): results "
            "would be shifted by as much."
        )
        yield _repairable("centre", "warning", message, centre="peak")
    if max(facts.asymmetry) > _ASYMMETRY:
        message = (
            f"The mirror image differs in {_zyx(facts.asymmetry, '.0%')} of the light (z, y, x; "
            f"limit {_ASYMMETRY:.0%}): the PSF is aberrated and must have the image's orientation."
        )
        yield Finding(check="asymmetry", severity="note", message=message)


def _grid(facts: PsfFacts) -> Iterator[Finding]:
    """Yield findings on voxel size and size, compared with the image."""
    if facts.image_voxel_um is None or facts.image_shape is None:
        return
    own, image = facts.voxel_um, facts.image_voxel_um
    if not same_grid(own if facts.shape[0] > 1 else (image[0], *own[1:]), image):
        message = (
            f"The voxel size is {_zyx(own, 'g')} um but the image's is {_zyx(image, 'g')} um "
            "(z, y, x)."
        )
        yield _repairable("voxel size", "warning", message, image_voxel_um=image)
    if facts.image_shape[0] == 1 < facts.shape[0]:
        message = (
            f"The image is one plane but the PSF has {facts.shape[0]}: its middle plane is used, "
            "and light from other planes cannot be removed."
        )
        most = (1, *facts.size_on_image[1:])
        yield _repairable("size", "warning", message, max_size=most)
    elif any(p > n for p, n in zip(facts.size_on_image, facts.image_shape, strict=True)):
        message = (
            f"On the image's grid the PSF has {_zyx(facts.size_on_image, 'd')} voxels but the "
            f"image {_zyx(facts.image_shape, 'd')} (z, y, x): only the extended border removes "
            "haze from farther away."
        )
        yield Finding(check="size", severity="note", message=message)
    if facts.shape[0] == 1 and facts.image_shape[0] > 1:
        message = (
            f"The PSF is one plane and the image has {facts.image_shape[0]}: light from other "
            "planes cannot be removed. Use a 3D PSF."
        )
        yield Finding(check="planes", severity="warning", message=message)


def _resolution(facts: PsfFacts) -> Iterator[Finding]:
    """Yield findings on widths and sampling."""
    if any(math.isinf(width) for width in facts.fwhm_um):
        message = (
            f"The FWHM is {_zyx(facts.fwhm_um, '.3g')} um (z, y, x): the light does not fall to "
            "half within the file. Use a larger one."
        )
        yield Finding(check="width", severity="warning", message=message)
    steps = zip(facts.shape, facts.voxel_um, facts.nyquist_um, strict=True)
    if any(n > 1 and voxel > _NYQUIST * limit for n, voxel, limit in steps):
        message = (
            f"The voxel size of {_zyx(facts.voxel_um, '.3g')} um exceeds the sampling limit of "
            f"{_zyx(facts.nyquist_um, '.3g')} um (z, y, x): the finest detail is lost."
        )
        yield Finding(check="sampling", severity="warning", message=message)
    elif any(width < _FWHM_VOXELS for width in facts.fwhm_voxels):
        message = (
            f"The FWHM is {_zyx(facts.fwhm_voxels, '.2f')} voxels (z, y, x); below "
            f"{_FWHM_VOXELS:g} it is undersampled."
        )
        yield Finding(check="sampling", severity="warning", message=message)
    ratio = max(facts.fwhm_um[1:]) / facts.expected_fwhm_um
    if ratio < _NARROW or _BROAD < ratio < math.inf:
        message = (
            f"The lateral FWHM of {max(facts.fwhm_um[1:]):.3g} um is {ratio:.2f} times the "
            f"{facts.expected_fwhm_um:.3g} um of this NA and wavelength (limits {_NARROW} to "
            f"{_BROAD})"
        )
        message += (
            "; check voxel size, NA and wavelength."
            if ratio < _NARROW
            else ": aberrations, a large bead, or a wrong voxel size."
        )
        severity: Severity = "warning" if ratio < _NARROW else "note"
        yield Finding(check="resolution", severity=severity, message=message)


def _extent(facts: PsfFacts) -> Iterator[Finding]:
    """Yield findings on light outside the file, and on cropping."""
    if max(facts.edge_to_peak) > _EDGE:
        message = (
            f"Faces of the file have up to {_zyx(facts.edge_to_peak, '.0%')} of the peak (z, y, x; "
            f"limit {_EDGE:.0%}): the PSF is cut. Use a larger file."
        )
        yield Finding(check="cut", severity="warning", message=message)
    elif max(facts.cut_fraction) > _CUT:
        message = (
            f"About {_zyx(facts.cut_fraction, '.0%')} of the light is outside the file (z, y, x), "
            "extrapolated from its decay: a larger PSF would remove more haze."
        )
        yield Finding(check="cut", severity="note", message=message)
    if facts.recommended_size is None:
        return
    if math.prod(facts.size_on_image) > _SPARE * math.prod(facts.recommended_size):
        message = (
            f"{_zyx(facts.recommended_size, 'd')} of {_zyx(facts.size_on_image, 'd')} voxels "
            "(z, y, x) contain 99.9 % of the light: a smaller PSF is faster."
        )
        yield _repairable("crop", "note", message, energy_fraction=0.999)


def _zyx(values: tuple[float, ...], form: str) -> str:
    return "(" + ", ".join(format(v, form) for v in values) + ")"


def _plain(value: Any) -> str:
    return " ".join(f"{v:g}" for v in value) if isinstance(value, tuple) else str(value)
