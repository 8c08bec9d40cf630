"""Overview of a PSF: planes, profiles and findings."""

import html
import math
import re

import numpy as np
from napari.components import ViewerModel
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QCheckBox, QHBoxLayout, QLabel, QVBoxLayout, QWidget

from napari_rln.core.volume import FloatArray
from napari_rln.evaluate.profiles import Profile
from napari_rln.gui.layouts import fill
from napari_rln.gui.pictures import MICROMETRE, PictureBoard, Plane, Trace
from napari_rln.gui.psf.psf_pictures import PsfPictures
from napari_rln.gui.theme import ERROR, NOTE, OK, WARNING
from napari_rln.psf.findings import Finding, Severity

_COLOURS: dict[Severity, tuple[str, str]] = {
    "ok": (OK, "\N{CHECK MARK}"),
    "note": (NOTE, "\N{BULLET}"),
    "warning": (WARNING, "\N{BLACK UP-POINTING TRIANGLE}"),
    "error": (ERROR, "\N{MULTIPLICATION X}"),
}
_COLORMAP = "magma"
_ZOOM = 4.0  # FWHMs to each side of the peak
_DECADES = 3.5  # of the logarithmic display
_HEIGHT = 300  # pixels
_UM = re.compile(r"\bum\b")  # in the messages of the core


class Thumbnails(QWidget):
    """Planes, profiles and findings of a PSF."""

    def __init__(self, viewer: ViewerModel) -> None:
        super().__init__()
        self.board = PictureBoard(viewer)
        self.board.setFixedHeight(_HEIGHT)
        self.lateral, self.axial = Plane("xy"), Plane("xz")
        self.along_x, self.along_z = Trace(), Trace()
        for column, (plane, trace) in enumerate(
            ((self.lateral, self.along_x), (self.axial, self.along_z))
        ):
            self.board.place(plane, 0, column)
            self.board.place(trace, 1, column)
        self.board.set_row_weights({0: 5.0, 1: 3.0})
        decades = f"<p>Tick to show {_DECADES:g} decades, with the haze far from the focus.</p>"
        zoom = f"<p>Tick for the whole PSF, instead of {_ZOOM:g} FWHMs to each side.</p>"
        self.logarithm = QCheckBox("Logarithm", checked=True, toolTip=decades)
        self.whole = QCheckBox("Whole", checked=True, toolTip=zoom)
        for box in (self.logarithm, self.whole):
            box.toggled.connect(self._draw)
        selectable = Qt.TextInteractionFlag.TextSelectableByMouse
        self.size, self.findings = (
            QLabel(wordWrap=True, textInteractionFlags=selectable) for _ in range(2)
        )
        self.size.setToolTip("<p>Lengths along z, y and x. Compare them with what you expect.</p>")
        boxes = fill(QHBoxLayout(), self.logarithm, self.whole)
        boxes.addStretch(1)
        fill(QVBoxLayout(self), self.size, self.board, boxes, self.findings, margin=0)
        self._pictures: PsfPictures | None = None
        self.clear("")

    def clear(self, text: str, *, keep: bool = False) -> None:
        """Show a text instead of a PSF, with empty plots to keep the layout."""
        self._pictures = None
        self.size.setText(text)
        self.findings.clear()
        for plane in (self.lateral, self.axial):
            plane.clear_picture()
        for trace in (self.along_x, self.along_z):
            trace.clear()
            trace.set_title("")
        for part in (self.board, self.logarithm, self.whole):
            part.setVisible(keep)

    def show_pictures(self, pictures: PsfPictures) -> None:
        """Show a PSF."""
        self._pictures = pictures
        facts = pictures.report.facts
        for part in (self.board, self.logarithm, self.whole):
            part.setVisible(True)
        voxels, widths = (
            " \N{MULTIPLICATION SIGN} ".join(form(v) for v in values if not math.isnan(v))
            for values, form in ((facts.shape, str), (facts.fwhm_um, _length))
        )
        lines = [f"{voxels} voxels", f"FWHM {widths} {MICROMETRE}", pictures.note]
        self.size.setText("\n".join(line for line in lines if line))
        self.findings.setText(_as_html(pictures.report.findings))
        self._draw()

    def _draw(self) -> None:
        pictures = self._pictures
        if pictures is None:
            return
        facts = pictures.report.facts
        (_, ny, nx), (dz, dy, dx) = facts.shape, facts.voxel_um
        self._draw_plane(self.lateral, pictures.lateral, (dy, dx))
        self.axial.setVisible(pictures.axial is not None)
        self.along_z.setVisible(pictures.along_z is not None)
        if pictures.axial is not None:
            self._draw_plane(self.axial, pictures.axial, (dz, dx))
        lateral = _half_width(facts.fwhm_um[1:], max(ny * dy, nx * dx), self.whole.isChecked())
        self.lateral.look_at((0, 0), (2 * lateral, 2 * lateral))
        self._draw_trace(self.along_x, "x", pictures.along_x, facts.offset_um[2])
        if pictures.axial is not None and pictures.along_z is not None:
            axial = _half_width(facts.fwhm_um[:1], facts.shape[0] * dz, self.whole.isChecked())
            self.axial.look_at((0, 0), (2 * axial, 2 * lateral))
            self._draw_trace(self.along_z, "z", pictures.along_z, facts.offset_um[0])

    def _draw_plane(self, plane: Plane, picture: FloatArray, voxel_um: tuple[float, float]) -> None:
        rows, columns = picture.shape
        (height, width), limits = voxel_um, (0.0, 1.0)
        if self.logarithm.isChecked():
            picture = np.log10(np.maximum(picture, 10**-_DECADES))
            limits = (-_DECADES, 0.0)
        size = (rows * height, columns * width)
        corner = (-(rows // 2 + 0.5) * height, -(columns // 2 + 0.5) * width)
        plane.show_picture(picture, size, limits, _COLORMAP, corner_um=corner)
        plane.mark((0.0, 0.0), "#8888aa")

    def _draw_trace(self, trace: Trace, axis: str, profile: Profile, at_um: float) -> None:
        width = profile.fwhm_um
        trace.clear()
        trace.add(profile, "#e8743b")
        title = f"FWHM {_length(width)} {MICROMETRE}" if width else "no FWHM"
        trace.set_title(f"{axis}: {title}")
        ends = profile.offset_um[[0, -1]]
        low, high = ends
        if width:
            low, high = max(ends[0], at_um - _ZOOM * width), min(ends[1], at_um + _ZOOM * width)
        trace.setXRange(min(low, 0.0), max(high, 0.0), padding=0.02)


def _as_html(findings: tuple[Finding, ...]) -> str:
    """Return findings as rich text, the worst first: coloured symbol, check, and message."""
    rows, order = [], [*_COLOURS]
    for finding in sorted(findings, key=lambda finding: -order.index(finding.severity)):
        colour, symbol = _COLOURS[finding.severity]
        text = html.escape(_UM.sub(MICROMETRE, finding.message), quote=False)
        if finding.severity != "ok":
            text = f"<b>{finding.check.capitalize()}.</b> {text}"
        symbol = f'<td style="color: {colour}; padding-right: 6px">{symbol}</td>'
        rows.append(f"<tr>{symbol}<td>{text}</td></tr>")
    return f"<table>{''.join(rows)}</table>"


def _half_width(fwhm_um: tuple[float, ...], size_um: float, whole: bool) -> float:
    """Return half the side of the displayed part of a PSF."""
    widths = [width for width in fwhm_um if math.isfinite(width)]
    if whole or not widths:
        return size_um / 2
    return min(size_um / 2, _ZOOM * max(widths))


def _length(length_um: float) -> str:
    return f"{length_um:.3f}" if length_um < 10 else f"{length_um:.3g}"
