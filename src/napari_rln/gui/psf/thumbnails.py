"""Overview of a PSF: planes, profiles and findings."""

import html
import math
from functools import cached_property

from napari.components import ViewerModel
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QCheckBox, QHBoxLayout, QLabel, QVBoxLayout, QWidget

from napari_rln.gui.deferred import Deferred
from napari_rln.gui.forms import with_labels
from napari_rln.gui.layouts import fill
from napari_rln.gui.pictures import MICROMETRE
from napari_rln.gui.psf.psf_pictures import PsfPictures
from napari_rln.gui.psf.psf_plots import DECADES, ZOOM, PsfPlots, length_text
from napari_rln.gui.theme import ERROR, NOTE, OK, WARNING
from napari_rln.psf.findings import Finding, Severity

_COLOURS: dict[Severity, tuple[str, str]] = {
    "ok": (OK, "\N{CHECK MARK}"),
    "note": (NOTE, "\N{BULLET}"),
    "warning": (WARNING, "\N{BLACK UP-POINTING TRIANGLE}"),
    "error": (ERROR, "\N{MULTIPLICATION X}"),
}


class Thumbnails(QWidget):
    """Planes, profiles and findings of a PSF."""

    def __init__(self, viewer: ViewerModel) -> None:
        super().__init__()
        self._viewer = viewer
        self.board = Deferred(lambda: self.plots)
        decades = f"<p>Tick to show {DECADES:g} decades, with the haze far from the focus.</p>"
        zoom = f"<p>Tick for the whole PSF, instead of {ZOOM:g} FWHMs to each side.</p>"
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

    @cached_property
    def plots(self) -> PsfPlots:
        """The planes and profiles."""
        return PsfPlots(self._viewer)

    def clear(self, text: str, *, keep: bool = False) -> None:
        """Show a text instead of a PSF, with empty plots if there are any to keep the layout."""
        self._pictures = None
        self.size.setText(text)
        self.findings.clear()
        for part in (self.board, self.logarithm, self.whole):
            part.setVisible(keep and self.board.is_made)
        if self.board.is_made:
            self.plots.clear_pictures()

    def show_pictures(self, pictures: PsfPictures) -> None:
        """Show a PSF."""
        self._pictures = pictures
        facts = pictures.report.facts
        for part in (self.board, self.logarithm, self.whole):
            part.setVisible(True)
        voxels, widths = (
            " \N{MULTIPLICATION SIGN} ".join(form(v) for v in values if not math.isnan(v))
            for values, form in ((facts.shape, str), (facts.fwhm_um, length_text))
        )
        lines = [f"{voxels} voxels", f"FWHM {widths} {MICROMETRE}", pictures.note]
        self.size.setText("\n".join(line for line in lines if line))
        self.findings.setText(_as_html(pictures.report.findings))
        self._draw()

    def _draw(self) -> None:
        pictures = self._pictures
        if pictures is None:
            return
        logarithm, whole = self.logarithm.isChecked(), self.whole.isChecked()
        self.plots.draw(pictures, logarithm=logarithm, whole=whole)


def _as_html(findings: tuple[Finding, ...]) -> str:
    """Return findings as rich text, the worst first: coloured symbol, check, and message."""
    rows, order = [], [*_COLOURS]
    for finding in sorted(findings, key=lambda finding: -order.index(finding.severity)):
        colour, symbol = _COLOURS[finding.severity]
        text = html.escape(with_labels(finding.message), quote=False)
        if finding.severity != "ok":
            text = f"<b>{finding.check.capitalize()}.</b> {text}"
        symbol = f'<td style="color: {colour}; padding-right: 6px">{symbol}</td>'
        rows.append(f"<tr>{symbol}<td>{text}</td></tr>")
    return f"<table>{''.join(rows)}</table>"
