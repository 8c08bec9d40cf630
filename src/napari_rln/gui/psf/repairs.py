"""Repairs of a PSF, chosen by its findings or by the user."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from qtpy.QtWidgets import QCheckBox, QGridLayout, QVBoxLayout, QWidget

from napari_rln.gui.forms import Form
from napari_rln.gui.layouts import fill
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
    "Centre": "Tick to move the brightest point onto the middle voxel.",
    "Background": "Tick to subtract the background, and set voxels within the noise to 0.",
    "Hot pixels": "Tick to replace isolated bright voxels.",
    "Crop": "Tick to cut off the border, which has nearly no light.",
    RESAMPLE: "Tick to bring the PSF onto the voxels of the image.",
}


class Repairs(QWidget):
    """A checkbox per repair; parameters are under Advanced."""

    def __init__(self) -> None:
        super().__init__()
        self.boxes = {name: QCheckBox(name, toolTip=f"<p>{_TIPS[name]}</p>") for name in _FIELDS}
        boxes = enumerate(self.boxes.values())
        grid = fill(QGridLayout(), *((box, i // 3, i % 3) for i, box in boxes))
        self.form = Form(PrepareSettings, top=(), hidden=("centre", "hot_pixels"))
        fill(QVBoxLayout(self), grid, self.form, margin=0)

    @property
    def resample(self) -> bool:
        """Whether to resample the PSF to the image's voxels."""
        return bool(self.boxes[RESAMPLE].isChecked())

    def allow_resampling(self, allowed: bool) -> None:
        """Offer resampling or not."""
        box = self.boxes[RESAMPLE]
        box.setEnabled(allowed)
        box.setVisible(allowed)
        box.setChecked(allowed and box.isChecked())

    def advise(self, findings: Sequence[Finding]) -> None:
        """Check the repairs recommended by the findings, and no others."""
        changes: dict[str, Any] = {}
        for finding in findings:
            changes |= finding.settings or {}
        for name, fields in _FIELDS.items():
            self.boxes[name].setChecked(any(field in changes for field in fields))
        names = {field.name for field in dataclasses.fields(PrepareSettings)}
        shown = {name: value for name, value in changes.items() if name in names}
        self.form.show_settings(PrepareSettings(**shown))

    def check_all(self) -> None:
        """Check all enabled repairs."""
        for box in self.boxes.values():
            box.setChecked(box.isEnabled())

    def settings(self) -> PrepareSettings:
        """Return the settings of the checked repairs; see :meth:`Form.settings` for errors."""
        settings = self.form.settings(centre="peak", hot_pixels=True)
        changes = {
            field: getattr(settings, field)
            for name, fields in _FIELDS.items()
            if name != RESAMPLE and self.boxes[name].isChecked()
            for field in fields
        }
        return dataclasses.replace(RESAMPLE_ONLY, **changes)
