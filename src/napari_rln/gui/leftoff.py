"""The row of the trainings that were left off: to go on with one, or to discard it."""

from collections.abc import Collection

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QComboBox, QHBoxLayout, QLabel, QMessageBox, QPushButton, QWidget

from napari_rln.gui import preferences
from napari_rln.gui.course import LeftOff, left_off


class LeftOffRow(QWidget):
    """Trainings that were left off; seen only where there are any."""

    resumed = Signal(object)  # left off

    def __init__(self) -> None:
        super().__init__()
        self.box = QComboBox()
        self.box.setSizeAdjustPolicy(
            QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon
        )
        self.resume_button, self.discard_button = QPushButton("Resume"), QPushButton("Discard")
        layout = QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(QLabel("Left off"))
        layout.addWidget(self.box, 1)
        layout.addWidget(self.resume_button)
        layout.addWidget(self.discard_button)
        self.resume_button.clicked.connect(lambda: self.resumed.emit(self.box.currentData()))
        self.discard_button.clicked.connect(self._discard)
        self.setVisible(False)

    def refresh(self, busy: Collection[str] = ()) -> None:
        """Look which there are.

        Parameters
        ----------
        busy
            Names of those that are under way.
        """
        self.box.clear()
        for left in left_off(preferences.library()):
            if left.name not in busy:
                self.box.addItem(f"{left.name}, step {left.step} of {left.total}", left)
        self.box.setToolTip(
            "<p>Trainings that were cancelled, or that napari was closed on. Open their PSF and "
            "image to go on.</p>"
        )
        self.setVisible(self.box.count() > 0)

    def _discard(self) -> None:
        left: LeftOff = self.box.currentData()
        question = f"Discard {self.box.currentText()}?"
        if QMessageBox.question(self, "Discard", question) == QMessageBox.StandardButton.Yes:
            left.path.unlink(missing_ok=True)
            self.refresh()
