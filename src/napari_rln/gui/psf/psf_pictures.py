"""Planes, profiles and findings of a PSF, computed in a thread."""

import dataclasses
import math
from dataclasses import dataclass

import numpy as np

from napari_rln.core.record import Record
from napari_rln.core.volume import FloatArray, Volume
from napari_rln.evaluate.profiles import Profile, profile_at
from napari_rln.psf.examine import PsfReport, examine_psf
from napari_rln.psf.microscope import MicroscopeSettings
from napari_rln.psf.placement import in_image_order


@dataclass(frozen=True, kw_only=True, eq=False)
class PsfPictures:
    """Planes and profiles through the peak, and findings of a PSF.

    The background is subtracted, the peak is 1, and an origin in the corner is moved to the middle.
    Profiles are by distance from the middle voxel.
    """

    report: PsfReport
    lateral: FloatArray  # (Y, X)
    axial: FloatArray | None  # (Z, X); None for a 2D PSF
    along_x: Profile
    along_z: Profile | None
    note: str = ""  # numbers of beads of a measured PSF


def psf_pictures(
    psf: Volume, image: Volume | None, optics: MicroscopeSettings | None
) -> PsfPictures:
    """Return planes, profiles and findings of a PSF, for an image and by a microscope if known.

    Raises :class:`RlnError` if the PSF has no peak.
    """
    known = {}
    if optics is not None and optics.modality != "gaussian":
        known = {name: getattr(optics, name) for name in ("na", "wavelength_um", "immersion_index")}
    report = examine_psf(psf, image=image, **known)
    facts = report.facts
    data = in_image_order(psf.data, facts.fault.split) if facts.fault else psf.data
    clean = (data - np.float32(facts.background)).astype(np.float32)
    z, y, x = (
        min(max(round(n // 2 + offset), 0), n - 1)
        for n, offset in zip(psf.shape, facts.offset_voxels, strict=True)
    )
    clean /= max(float(clean[z, y, x]), 1e-30)
    return PsfPictures(
        report=report,
        lateral=clean[z],
        axial=clean[:, y] if psf.shape[0] > 1 else None,
        along_x=_profile(clean[z, y], x, psf.voxel_um[2], facts.fwhm_um[2]),
        along_z=_profile(clean[:, y, x], z, psf.voxel_um[0], facts.fwhm_um[0])
        if psf.shape[0] > 1
        else None,
        note=_note(psf.record),
    )


def _note(record: Record | None) -> str:
    """Return the numbers of used and rejected beads of a measured PSF."""
    if record is None or record.method != "psf measure":
        return ""
    facts = record.facts
    rejected = ", ".join(f"{n} {why}" for why, n in facts["beads_rejected"].items())
    used = f"Mean of {facts['beads_used']} of {facts['beads_found']} beads"
    return f"{used} ({rejected})" if rejected else used


def _profile(line: FloatArray, at: int, step_um: float, fwhm_um: float) -> Profile:
    """Return a line's profile by distance from its middle voxel, with a known width."""
    profile = profile_at(line, at, step_um, line.size * step_um)
    return dataclasses.replace(
        profile,
        offset_um=profile.offset_um + (at - line.size // 2) * step_um,
        fwhm_um=fwhm_um if math.isfinite(fwhm_um) else None,
    )
