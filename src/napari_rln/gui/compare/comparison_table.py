"""Table of a comparison, which can be copied and saved."""

from collections.abc import Sequence
from pathlib import Path

from qtpy.QtCore import Qt
from qtpy.QtGui import QBrush
from qtpy.QtWidgets import (
    QApplication,
    QFileDialog,
    QHBoxLayout,
    QHeaderView,
    QLabel,
    QPushButton,
    QTableWidget,
    QTableWidgetItem,
    QVBoxLayout,
    QWidget,
)

from napari_rln.evaluate.comparison import Comparison
from napari_rln.gui.layouts import fill
from napari_rln.gui.runbar import RunBar

_NARROWEST, _NAME = 30, 118  # pixels of a column, and of that of names
# Header and tooltip of the columns that are shown.
_COLUMNS = {
    "name": ("", ""),
    "seconds": ("s", "Computing time in seconds."),
    "peak_mb": ("MB", "Additional memory of the process at its peak, in megabytes."),
    "chi2": (
        "\N{GREEK SMALL LETTER CHI}\N{SUPERSCRIPT TWO}",
        "Reduced chi squared of the residual between the blurred result and the image: 1 agrees "
        "with the image to within its noise, more means lost or invented structure, less means "
        "fitted noise.",
    ),
    "reblur_scale": (
        "scale",
        "Factor on the blurred result that fits the image best: 1 for the right brightness.",
    ),
    "flux_ratio": (
        "flux",
        "Flux of the blurred result, with light from outside the field of view, divided by that of "
        "the image; ideally 1.",
    ),
    "psnr_db": (
        "PSNR (dB)",
        "Peak signal-to-noise ratio against the truth, after a fit of scale and offset.",
    ),
    "ssim": ("SSIM", "Structural similarity to the truth."),
    "ssim_xz": ("SSIM xz", "Structural similarity to the truth, mean over the xz planes."),
    "pearson": ("Pearson", "Correlation with the truth."),
    "lateral_um": (
        "lateral (\N{MICRO SIGN}m)", "Lateral resolution by Fourier shell correlation."
    ),
    "axial_um": ("axial (\N{MICRO SIGN}m)", "Axial resolution by Fourier shell correlation."),
}  # fmt: skip


class Table(QWidget):
    """Table of a comparison, one row per volume; the CSV file has further columns.

    The bar shows that it is copied or saved, or why not.
    """

    def __init__(self, bar: RunBar) -> None:
        super().__init__()
        self._bar = bar
        self.comparison: Comparison | None = None
        self.table = QTableWidget()
        self.table.setEditTriggers(QTableWidget.EditTrigger.NoEditTriggers)
        self.table.verticalHeader().setVisible(False)
        header = self.table.horizontalHeader()
        header.setSectionResizeMode(QHeaderView.ResizeMode.ResizeToContents)
        header.setMinimumSectionSize(_NARROWEST)
        self.table.setWordWrap(False)
        copy, save = QPushButton("Copy table"), QPushButton("Save CSV\N{HORIZONTAL ELLIPSIS}")
        copy.clicked.connect(lambda: bar.attempt(self._copy))
        save.clicked.connect(lambda: bar.attempt(self._save))
        self.outdated = QLabel(
            "The layers of grey rows show another iteration now. Press Compare to measure it.",
            wordWrap=True,
        )
        self.outdated.setVisible(False)
        buttons = fill(QHBoxLayout(), copy, save)
        fill(QVBoxLayout(self), self.table, self.outdated, buttons, margin=0)
        self.setVisible(False)

    def show_comparison(self, comparison: Comparison, prefix: str = "") -> None:
        """Fill the table; what all results begin with, such as the image's name, is left out."""
        self.comparison = comparison
        names = [name for name in _COLUMNS if name in comparison.columns]
        self.table.setRowCount(len(comparison.rows))
        self.table.setColumnCount(len(names))
        right = Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter
        for column, name in enumerate(names):
            label, tip = _COLUMNS[name]
            header = QTableWidgetItem(label)
            header.setToolTip(f"<p>{tip}</p>" if tip else "")
            self.table.setHorizontalHeaderItem(column, header)
            for row, scores in enumerate(comparison.rows):
                value = scores.cells().get(name, "")
                item = QTableWidgetItem(_text(value).removeprefix(prefix))
                if column:
                    item.setTextAlignment(right)
                else:
                    item.setToolTip(str(value))
                self.table.setItem(row, column, item)
        header = self.table.horizontalHeader()
        header.setSectionResizeMode(0, QHeaderView.ResizeMode.Interactive)
        header.resizeSection(0, _NAME)
        rows = self.table.verticalHeader().length() + self.table.horizontalHeader().height()
        self.table.setFixedHeight(rows + 20)
        self.setVisible(True)

    def mark_outdated(self, outdated: Sequence[bool]) -> None:
        """Show the rows of results whose layers have changed since in grey."""
        for row, old in enumerate(outdated):
            brush = self.palette().placeholderText() if old else QBrush()
            for column in range(self.table.columnCount()):
                self.table.item(row, column).setForeground(brush)
        self.outdated.setVisible(any(outdated))

    def _copy(self) -> None:
        if self.comparison is not None:
            columns = self.comparison.columns
            rows = (row.cells() for row in self.comparison.rows)
            lines = [columns, *([str(row.get(column, "")) for column in columns] for row in rows)]
            QApplication.clipboard().setText("\n".join("\t".join(line) for line in lines))
            self._bar.show_message("Copied the table; paste it into a spreadsheet.")

    def _save(self) -> None:
        path, _ = QFileDialog.getSaveFileName(self, "Save the table", "table.csv", "CSV (*.csv)")
        if path and self.comparison is not None:
            self.comparison.to_csv(Path(path))
            self._bar.show_message(f"The table is in {path}.")


def _text(value: str | float) -> str:
    if isinstance(value, str):
        return value
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
