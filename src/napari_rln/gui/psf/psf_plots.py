"""Planes and profiles of a PSF."""

import math

import numpy as np
from napari.components import ViewerModel

from napari_rln.core.volume import FloatArray
from napari_rln.evaluate.profiles import Profile
from napari_rln.gui.pictures import MICROMETRE, PictureBoard, Plane, Trace
from napari_rln.gui.psf.psf_pictures import PsfPictures

ZOOM = 4.0
"""FWHMs to each side of the peak that are shown, unless the whole PSF is."""

DECADES = 3.5
"""Decades of the logarithmic display."""

_COLORMAP = "magma"
_HEIGHT = 300  # pixels


class PsfPlots(PictureBoard):
    """Planes xy and xz of a PSF, and its profiles along x and z below them."""

    def __init__(self, viewer: ViewerModel) -> None:
        super().__init__(viewer)
        self.setFixedHeight(_HEIGHT)
        self.lateral, self.axial = Plane("xy"), Plane("xz")
        self.along_x, self.along_z = Trace(), Trace()
        for column, (plane, trace) in enumerate(
            ((self.lateral, self.along_x), (self.axial, self.along_z))
        ):
            self.place(plane, 0, column)
            self.place(trace, 1, column)
        self.set_row_weights({0: 5.0, 1: 3.0})

    def clear_pictures(self) -> None:
        """Show empty plots."""
        for plane in (self.lateral, self.axial):
            plane.clear_picture()
        for trace in (self.along_x, self.along_z):
            trace.clear()
            trace.set_title("")

    def draw(self, pictures: PsfPictures, *, logarithm: bool, whole: bool) -> None:
        """Show a PSF: by the logarithm of its intensity or not, and whole or about its peak."""
        facts = pictures.report.facts
        (_, ny, nx), (dz, dy, dx) = facts.shape, facts.voxel_um
        self._draw_plane(self.lateral, pictures.lateral, (dy, dx), logarithm)
        self.axial.setVisible(pictures.axial is not None)
        self.along_z.setVisible(pictures.along_z is not None)
        if pictures.axial is not None:
            self._draw_plane(self.axial, pictures.axial, (dz, dx), logarithm)
        lateral = _half_width(facts.fwhm_um[1:], max(ny * dy, nx * dx), whole)
        self.lateral.look_at((0, 0), (2 * lateral, 2 * lateral))
        self._draw_trace(self.along_x, "x", pictures.along_x, facts.offset_um[2])
        if pictures.axial is not None and pictures.along_z is not None:
            axial = _half_width(facts.fwhm_um[:1], facts.shape[0] * dz, whole)
            self.axial.look_at((0, 0), (2 * axial, 2 * lateral))
            self._draw_trace(self.along_z, "z", pictures.along_z, facts.offset_um[0])

    def _draw_plane(
        self, plane: Plane, picture: FloatArray, voxel_um: tuple[float, float], logarithm: bool
    ) -> None:
        rows, columns = picture.shape
        (height, width), limits = voxel_um, (0.0, 1.0)
        if logarithm:
            picture = np.log10(np.maximum(picture, 10**-DECADES))
            limits = (-DECADES, 0.0)
        size = (rows * height, columns * width)
        corner = (-(rows // 2 + 0.5) * height, -(columns // 2 + 0.5) * width)
        plane.show_picture(picture, size, limits, _COLORMAP, corner_um=corner)
        plane.mark((0.0, 0.0), "#8888aa")

    def _draw_trace(self, trace: Trace, axis: str, profile: Profile, at_um: float) -> None:
        width = profile.fwhm_um
        trace.clear()
        trace.add(profile, "#e8743b")
        title = f"FWHM {length_text(width)} {MICROMETRE}" if width else "no FWHM"
        trace.set_title(f"{axis}: {title}")
        ends = profile.offset_um[[0, -1]]
        low, high = ends
        if width:
            low, high = max(ends[0], at_um - ZOOM * width), min(ends[1], at_um + ZOOM * width)
        trace.setXRange(min(low, 0.0), max(high, 0.0), padding=0.02)


def _half_width(fwhm_um: tuple[float, ...], size_um: float, whole: bool) -> float:
    """Return half the side of the displayed part of a PSF."""
    widths = [width for width in fwhm_um if math.isfinite(width)]
    if whole or not widths:
        return size_um / 2
    return min(size_um / 2, ZOOM * max(widths))


def length_text(length_um: float) -> str:
    """Return a length in micrometres with three digits."""
    return f"{length_um:.3f}" if length_um < 10 else f"{length_um:.3g}"
