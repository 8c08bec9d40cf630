"""Repairs of a PSF, ticked by its findings or by the user."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from qtpy.QtWidgets import QCheckBox, QGridLayout, QVBoxLayout, QWidget

from napari_rln.gui.forms import Form
from napari_rln.psf.findings import Finding
from napari_rln.psf.prepare import RESAMPLE_ONLY, PrepareSettings

RESAMPLE = "Resample"
_FIELDS = {
    "Centre": ("centre",),
    "Background": ("background", "noise_floor"),
    "Hot pixels": ("hot_pixels",),
    "Crop": ("energy_fraction", "max_size"),
    RESAMPLE: ("image_voxel_um",),
}
_TIPS = {
    "Centre": "Move the peak of the main lobe onto the middle voxel.",
    "Background": "Subtract the level around the PSF, and set voxels within the noise to 0.",
    "Hot pixels": "Replace isolated bright voxels.",
    "Crop": "Crop to the box that holds nearly all of the light.",
    RESAMPLE: "Resample to the voxels of the image.",
}


class Repairs(QWidget):
    """A tick per repair; their parameters are under Advanced."""

    def __init__(self) -> None:
        super().__init__()
        self.boxes = {name: QCheckBox(name) for name in _FIELDS}
        grid = QGridLayout()
        for i, (name, box) in enumerate(self.boxes.items()):
            box.setToolTip(f"<p>{_TIPS[name]}</p>")
            grid.addWidget(box, i // 3, i % 3)
        self.form = Form(PrepareSettings, top=(), hidden=("centre", "hot_pixels"))
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addLayout(grid)
        layout.addWidget(self.form)

    @property
    def resample(self) -> bool:
        """Whether to resample the PSF to the image's voxels."""
        return bool(self.boxes[RESAMPLE].isChecked())

    def allow_resampling(self, allowed: bool) -> None:
        """Enable resampling only where there is an image."""
        box = self.boxes[RESAMPLE]
        box.setEnabled(allowed)
        box.setChecked(allowed and box.isChecked())

    def advise(self, findings: Sequence[Finding]) -> None:
        """Tick the repairs that the findings call for, and no others."""
        changes: dict[str, Any] = {}
        for finding in findings:
            changes |= finding.settings or {}
        for name, fields in _FIELDS.items():
            self.boxes[name].setChecked(any(field in changes for field in fields))
        shown = {f.name: changes[f.name] for f in _fields() if f.name in changes}
        self.form.show_settings(PrepareSettings(**shown))

    def tick_all(self) -> None:
        """Tick all enabled repairs."""
        for box in self.boxes.values():
            box.setChecked(box.isEnabled())

    def settings(self) -> PrepareSettings:
        """Return the settings of the ticked repairs.

        Raises
        ------
        RlnError
            If a number is not valid.
        """
        settings = self.form.settings(centre="peak", hot_pixels=True)
        changes = {
            field: getattr(settings, field)
            for name, fields in _FIELDS.items()
            if name != RESAMPLE and self.boxes[name].isChecked()
            for field in fields
        }
        return dataclasses.replace(RESAMPLE_ONLY, **changes)


def _fields() -> tuple[dataclasses.Field[Any], ...]:
    return dataclasses.fields(PrepareSettings)
