"""The comparison's numbers as a table that can be copied and saved."""

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

_UM = "\N{MICRO SIGN}m"
_COLUMNS = {
    "name": ("", "", ""),
    "seconds": ("time", "s", "Computing time."),
    "peak_mb": (
        "memory",
        "MB",
        "By how much the process grew; what it held from runs before is not counted.",
    ),
    "chi2": (
        "\N{GREEK SMALL LETTER CHI}\N{SUPERSCRIPT TWO}",
        "",
        "The result as it is, blurred again, against the image: 1 explains it to within its noise, "
        "more means that something was lost or invented, less that noise was fitted.",
    ),
    "reblur_scale": (
        "scale",
        "",
        "Factor on the blurred result by which it fits the image best: 1 for a result as bright as "
        "the image says.",
    ),
    "flux_ratio": (
        "flux",
        "",
        "Light of the blurred result, with what comes from outside the field of view, over that of "
        "the image: 1 where all of it is explained.",
    ),
    "psnr_db": ("PSNR", "dB", "Against the truth, after the fit of scale and offset."),
    "ssim": ("SSIM", "", "Structural similarity with the truth."),
    "ssim_xz": ("SSIM xz", "", "Structural similarity with the truth, mean over the xz planes."),
    "pearson": ("Pearson", "", "Correlation with the truth."),
    "lateral_um": ("lateral", _UM, "Resolution across, by Fourier shell correlation."),
    "axial_um": ("axial", _UM, "Resolution along the axis, by Fourier shell correlation."),
}


class Table(QWidget):
    """Numbers of a comparison, a row a volume; all columns are in the CSV file."""

    def __init__(self) -> None:
        super().__init__()
        self._comparison: Comparison | None = None
        self.table = QTableWidget()
        self.table.setEditTriggers(QTableWidget.EditTrigger.NoEditTriggers)
        self.table.verticalHeader().setVisible(False)
        self.table.horizontalHeader().setSectionResizeMode(QHeaderView.ResizeMode.ResizeToContents)
        copy, save = QPushButton("Copy table"), QPushButton("Save CSV\N{HORIZONTAL ELLIPSIS}")
        copy.clicked.connect(self._copy)
        save.clicked.connect(self._save)
        buttons = QHBoxLayout()
        buttons.addWidget(copy)
        buttons.addWidget(save)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        self.outdated = QLabel(
            "Grey rows are of what is no longer shown, such as another iteration; Compare again."
        )
        self.outdated.setWordWrap(True)
        self.outdated.setVisible(False)
        layout.addWidget(self.table)
        layout.addWidget(self.outdated)
        layout.addLayout(buttons)
        self.setVisible(False)

    @property
    def comparison(self) -> Comparison | None:
        """What is shown."""
        return self._comparison

    def show_comparison(self, comparison: Comparison) -> None:
        """Show these numbers."""
        self._comparison = comparison
        names = [name for name in _COLUMNS if name in comparison.columns]
        self.table.setRowCount(len(comparison.rows))
        self.table.setColumnCount(len(names))
        for column, name in enumerate(names):
            label, unit, tip = _COLUMNS[name]
            header = QTableWidgetItem(f"{label} ({unit})" if unit else label)
            header.setToolTip(f"<p>{tip}</p>" if tip else "")
            self.table.setHorizontalHeaderItem(column, header)
            for row, held in enumerate(comparison.rows):
                value = held.cells().get(name, "")
                item = QTableWidgetItem(f"{value:.3g}" if isinstance(value, float) else str(value))
                if column:
                    item.setTextAlignment(
                        Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter
                    )
                self.table.setItem(row, column, item)
        rows = self.table.verticalHeader().length() + self.table.horizontalHeader().height()
        self.table.setFixedHeight(rows + 20)
        self.setVisible(True)

    def mark(self, outdated: Sequence[bool]) -> None:
        """Show in grey the rows that are of what is no longer shown."""
        for row, old in enumerate(outdated):
            for column in range(self.table.columnCount()):
                brush = self.palette().placeholderText() if old else QBrush()
                self.table.item(row, column).setForeground(brush)
        self.outdated.setVisible(any(outdated))

    def _copy(self) -> None:
        if self._comparison is None:
            return
        columns = self._comparison.columns
        lines = ["\t".join(columns)]
        lines += [
            "\t".join(str(row.cells().get(column, "")) for column in columns)
            for row in self._comparison.rows
        ]
        QApplication.clipboard().setText("\n".join(lines))

    def _save(self) -> None:
        path, _ = QFileDialog.getSaveFileName(self, "Save the table", "table.csv", "CSV (*.csv)")
        if path and self._comparison is not None:
            self._comparison.to_csv(Path(path))
