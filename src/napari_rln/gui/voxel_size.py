"""The input of a voxel size, with a warning below of what is likely to be wrong."""

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QLabel, QSizePolicy, QVBoxLayout, QWidget

from napari_rln.core.errors import RlnError
from napari_rln.core.volume import VoxelUm, check_voxel_um, voxel_um_problem
from napari_rln.gui.field_errors import FieldError
from napari_rln.gui.fields import Numbers

LABEL = "Voxel (\N{MICRO SIGN}m)"
_DOUBTFUL, _WRONG = "#d9822b", "#e0524c"
_UNLIMITED = 16_777_215  # pixels, as Qt has it


class VoxelField(QWidget):
    """Voxel size z, y, x in micrometres; 0 for unknown.

    Parameters
    ----------
    placeholder
        Shown in place of 0.
    """

    changed = Signal()

    def __init__(self, placeholder: str) -> None:
        super().__init__()
        # No upper limit: what is below says what a value beyond it may mean.
        self.sizes = Numbers(
            annotation=tuple[float, float, float], label=LABEL, min=0.0, words={placeholder: 0.0}
        )
        self.warning = QLabel()
        self.warning.setWordWrap(True)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(2)
        layout.addWidget(self.sizes.native)
        layout.addWidget(self.warning)
        self.setSizePolicy(QSizePolicy.Policy.Preferred, QSizePolicy.Policy.Maximum)
        self.setFocusProxy(self.sizes.native)
        self.sizes.changed.connect(self._on_change)
        self._show_warning()

    @property
    def value(self) -> VoxelUm:
        """The three sizes."""
        z, y, x = self.sizes.value
        return z, y, x

    @value.setter
    def value(self, value: VoxelUm) -> None:
        self.sizes.value = value

    def voxel_um(self, name: str) -> VoxelUm:
        """Return the three sizes, checked.

        Parameters
        ----------
        name
            Of the volume, for messages, such as "the image".

        Raises
        ------
        FieldError
            If they are no possible voxel size.
        """
        voxel_um = self.value
        try:
            check_voxel_um(voxel_um, name)
        except RlnError as error:
            raise FieldError(str(error), self) from error
        return voxel_um

    def _on_change(self) -> None:
        self._show_warning()
        self.changed.emit()

    def _show_warning(self) -> None:
        text, colour = "", _WRONG
        try:
            sizes = self.value
            if all(sizes):
                check_voxel_um(sizes, "it")
                text, colour = voxel_um_problem(sizes), _DOUBTFUL
        except RlnError as error:
            text = str(error)
        self.warning.setText(f"{text[:1].upper()}{text[1:]}")
        self.warning.setStyleSheet(f"QLabel {{ color: {colour}; }}")
        # A hidden label would keep its height: forms do not shrink rows of wrapped text.
        self.warning.setMaximumHeight(_UNLIMITED if text else 0)
