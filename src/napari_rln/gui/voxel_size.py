"""Input of a voxel size, with a warning below if it is unlikely."""

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QLabel, QSizePolicy, QVBoxLayout, QWidget

from napari_rln.core.errors import RlnError
from napari_rln.core.volume import VoxelUm, check_voxel_um, voxel_um_problem
from napari_rln.gui.field_errors import FieldError
from napari_rln.gui.fields import Numbers
from napari_rln.gui.layouts import fill
from napari_rln.gui.theme import ERROR, WARNING

LABEL = "Voxel (\N{MICRO SIGN}m)"
_UNLIMITED = 16_777_215  # pixels, Qt's own limit


class VoxelField(QWidget):
    """Voxel size z, y, x in micrometres; 0 for unknown, shown as a placeholder."""

    changed = Signal()

    def __init__(self, placeholder: str) -> None:
        super().__init__()
        # No upper limit: the warning below suggests what a larger value may mean.
        self.sizes = Numbers(
            annotation=tuple[float, float, float], label=LABEL, min=0.0, keywords={placeholder: 0.0}
        )
        self.warning = QLabel(wordWrap=True)
        fill(QVBoxLayout(self), self.sizes.native, self.warning, margin=0, spacing=2)
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

        Raises :class:`FieldError`, with the ``name`` of the volume such as "the image", if they are
        not a possible voxel size.
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
        text, colour = "", ERROR
        try:
            sizes = self.value
            if all(sizes):
                check_voxel_um(sizes, "it")
                text, colour = voxel_um_problem(sizes), WARNING
        except RlnError as error:
            text = str(error)
        self.warning.setText(f"{text[:1].upper()}{text[1:]}")
        self.warning.setStyleSheet(f"QLabel {{ color: {colour}; }}")
        # A hidden label would keep its height: forms do not shrink rows of wrapped text.
        self.warning.setMaximumHeight(_UNLIMITED if text else 0)
