"""The input of a voxel size, with what speaks against it below."""

from qtpy.QtWidgets import QAbstractSpinBox, QLabel, QSizePolicy, QVBoxLayout, QWidget

from napari_rln.core.errors import RlnError
from napari_rln.core.volume import LARGEST_VOXEL_UM, VoxelUm, check_voxel_um, voxel_um_doubt
from napari_rln.gui.field_errors import FieldError
from napari_rln.gui.fields import Field, Number, Row

LABEL = "Voxel (\N{MICRO SIGN}m)"
_DOUBTFUL, _WRONG = "#d9822b", "#e0524c"
_UNLIMITED = 16_777_215  # pixels, as Qt has it


class VoxelField(Field):
    """Voxel size z, y, x in micrometres; 0 where none is given.

    Parameters
    ----------
    blank
        What is shown in place of 0.
    """

    def __init__(self, blank: str) -> None:
        limits = {"min": 0.0, "max": LARGEST_VOXEL_UM}
        sizes = [Number(limits, blank=blank) for _ in range(3)]
        for size in sizes:  # without them there is room for the digits
            size.box.setButtonSymbols(QAbstractSpinBox.ButtonSymbols.NoButtons)
        self.sizes = Row(sizes)
        self.sizes.call(LABEL)
        self.said = QLabel()
        self.said.setWordWrap(True)
        column = QWidget()
        layout = QVBoxLayout(column)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(2)
        layout.addWidget(self.sizes)
        layout.addWidget(self.said)
        super().__init__(column)
        self.setSizePolicy(QSizePolicy.Policy.Preferred, QSizePolicy.Policy.Maximum)
        self.setFocusProxy(sizes[0].box)
        self.sizes.changed.connect(self._on_change)
        self._judge()

    @property
    def value(self) -> VoxelUm:
        """The three sizes."""
        z, y, x = self.sizes.value
        return z, y, x

    @value.setter
    def value(self, value: VoxelUm) -> None:
        self.sizes.value = value
        self._judge()

    def voxel_um(self, what: str) -> VoxelUm:
        """Return what is given.

        Parameters
        ----------
        what
            Whose voxels they are, as in "the image".

        Raises
        ------
        FieldError
            If that can be no voxel size.
        """
        voxel_um = self.value
        try:
            check_voxel_um(voxel_um, what)
        except RlnError as error:
            raise FieldError(str(error), self) from error
        return voxel_um

    def _on_change(self) -> None:
        self._judge()
        self.changed.emit()

    def _judge(self) -> None:
        """Say below what is wrong with it, or likely to be."""
        said, colour = "", _WRONG
        try:
            given = self.value
            if all(given):
                check_voxel_um(given, "it")
                said, colour = voxel_um_doubt(given), _DOUBTFUL
        except RlnError as error:
            said = str(error)
        self.said.setText(f"{said[:1].upper()}{said[1:]}")
        self.said.setStyleSheet(f"QLabel {{ color: {colour}; }}")
        # Hidden it would leave its room behind: forms do not take rows back that wrapped text had.
        self.said.setMaximumHeight(_UNLIMITED if said else 0)
