"""The tab of the page PSF that measures a PSF from beads, shown as editable points."""

import contextlib
import dataclasses
import importlib
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from weakref import ref

import numpy as np
import numpy.typing as npt
from napari.components import ViewerModel
from napari.layers import Layer, Points
from qtpy.QtCore import Signal
from qtpy.QtWidgets import QFormLayout, QHBoxLayout, QLabel, QPushButton, QVBoxLayout, QWidget

from napari_rln.core.errors import RlnError
from napari_rln.core.volume import Volume
from napari_rln.engine.progress import Progress
from napari_rln.gui.copy_button import CopyButton, Run, image_arguments
from napari_rln.gui.events import follow
from napari_rln.gui.forms import Form
from napari_rln.gui.jobs import BackgroundJob, JobQueue, Steps, Update
from napari_rln.gui.layer_jobs import path_of
from napari_rln.gui.layers import LayerImage
from napari_rln.gui.layouts import fill
from napari_rln.gui.pickers import LayerPicker, VolumePicker
from napari_rln.gui.runbar import RunBar
from napari_rln.psf.beads import BeadTable, find_beads
from napari_rln.psf.measure import MeasureSettings, align, measure_psf

_COLOURS = {
    "used": "#3fd34d",
    "chosen": "#40c4ff",
    "cut": "#ff9f40",
    "saturated": "#ff5c5c",
    "clustered": "#ff5cd6",
    "too dim": "#b0b0b0",
    "unlike": "#ffe04d",
}
_CHOSEN = "chosen"  # added or moved by the user
_USED = ("used", _CHOSEN)
_METADATA_KEY = "napari-rln beads"  # of a layer's metadata


@dataclass(frozen=True, eq=False)
class DetectedBeads:
    """Detected beads of a stack, for comparison with the points edited by the user."""

    stack: ref[Layer]
    indices: dict[str, int]  # on the axes before z; see LayerImage
    table: BeadTable

    def mark_chosen(self, layer: Points) -> None:
        """Set the status of points that were added or moved."""
        detected = {tuple(position) for position in self.table.positions[:, 1:]}
        status = layer.features["status"].astype(str)
        new = np.array([tuple(position) not in detected for position in layer.data], bool)
        if len(status) == len(new) and any(new & (status != _CHOSEN)):
            layer.features = layer.features.assign(
                status=status.mask(new, _CHOSEN),
                why=layer.features["why"].astype(str).mask(new, ""),
            )
            layer.refresh_colors()

    def edited(self, layer: Points) -> tuple[npt.NDArray[np.float64], dict[str, int]]:
        """Return the positions (N, 3) to use, and the numbers of removed and added beads.

        Raises :class:`RlnError` if no bead is left.
        """
        planes = {(y, x): z for z, y, x in self.table.positions}
        detected = {(y, x) for _, y, x in self.table.positions[self.table.used]}
        used = layer.data[layer.features["status"].isin(_USED).to_numpy(bool)]
        now = {(y, x) for y, x in used}
        if not now:
            raise RlnError(f"{layer.name} has no usable bead; add points, or find beads again.")
        positions = np.array([(planes.get((y, x), np.nan), y, x) for y, x in sorted(now)])
        if now == detected:
            return positions, {}
        return positions, {"beads_removed": len(detected - now), "beads_added": len(now - detected)}


class BeadsPage(QWidget):
    """A stack of beads, its detected beads, and buttons to find and average them."""

    created = Signal(object)

    def __init__(self, viewer: ViewerModel, jobs: JobQueue, bar: RunBar) -> None:
        super().__init__()
        self._viewer, self._jobs = viewer, jobs
        self.stack = VolumePicker(viewer)
        self.form = Form(MeasureSettings, top=("size", "minimum_snr"))
        self.points = LayerPicker(viewer, accept=has_beads, optional="not detected yet")
        self.find_button, self.average_button = QPushButton("Find beads"), QPushButton("Average")
        self.find_button.setToolTip("<p>Click to show the beads as points, to choose among.</p>")
        self.average_button.setToolTip("<p>Click for the mean of the beads, as a new PSF.</p>")
        self.copy = CopyButton(lambda: [self._run()], bar)
        hint = QLabel(
            "Delete, move or add points before averaging; those in "
            f'<span style="color: {_COLOURS["used"]}">green</span> and '
            f'<span style="color: {_COLOURS["chosen"]}">blue</span> are used.',
            wordWrap=True,
        )
        label, self._chosen_part = QLabel("Stack of beads"), QWidget()
        row = fill(QFormLayout(), ("Beads", self.points))
        fill(QVBoxLayout(self._chosen_part), row, hint, margin=0)
        buttons = fill(QHBoxLayout(), (self.find_button, 1), (self.average_button, 1), self.copy)
        fill(QVBoxLayout(self), label, self.stack, self.form, self._chosen_part, buttons, margin=6)
        self.find_button.clicked.connect(lambda: bar.attempt(self.find))
        self.average_button.clicked.connect(lambda: bar.attempt(self.average))
        for event in (viewer.layers.events.inserted, viewer.layers.events.removed):
            follow(self, event, self._show_chosen)
        self._show_chosen()

    def find(self) -> None:
        """Queue the detection of beads, to be shown as points.

        Raises :class:`RlnError` if no stack is chosen, or it or the settings are invalid.
        """
        stack, settings = self.stack.source("the stack of beads"), self.form.settings()
        stack.check_upright()  # else the points would be displaced

        def steps() -> Steps[BeadTable]:
            yield Update(Progress(activity="reading"))
            volume = stack.read()
            importlib.import_module("pandas")  # else the points layer does, in the GUI thread
            yield Update(Progress(activity="finding"))
            keys = ("size", "minimum_snr", "saturation")
            table = find_beads(volume, **{key: getattr(settings, key) for key in keys})
            yield Update(Progress(activity="comparing"))
            with contextlib.suppress(RlnError):  # no usable bead: all are shown with the reasons
                table = align(volume, table, settings)
            yield None
            return table

        key, title = (id(stack.layer), settings), f"Beads of {stack.name}"
        show = partial(self._show, stack=stack)
        self._jobs.add(BackgroundJob(title, steps, key=key, done=show))

    def average(self) -> None:
        """Queue the average of the beads shown as points, or of all usable beads.

        Raises :class:`RlnError` if no stack is chosen, no bead is left, or the settings are
        invalid.
        """
        stack = self.stack.source("the stack of beads")
        settings, positions, edits = self._chosen(stack)
        name = f"{stack.name} \N{MIDDLE DOT} PSF"

        def steps() -> Steps[Volume]:
            yield Update(Progress(activity="reading"))
            volume = stack.read()
            yield Update(Progress(activity="averaging"))
            psf = measure_psf(volume, settings, positions=positions, name=name)
            yield None
            assert psf.record is not None
            record = dataclasses.replace(psf.record, facts=psf.record.facts | edits)
            return dataclasses.replace(psf, record=record)

        key = (id(stack.layer), settings)
        self._jobs.add(
            BackgroundJob(f"PSF of {stack.name}", steps, key=key, done=self.created.emit)
        )

    def _show_chosen(self) -> None:
        """Show the choice of beads once there are some."""
        self._chosen_part.setVisible(any(map(has_beads, self._viewer.layers)))

    def _show(self, table: BeadTable, stack: LayerImage) -> None:
        """Add the points, without z to be visible and editable in any plane."""
        detected, size = DetectedBeads(ref(stack.layer), stack.indices, table), max(table.size[1:])
        layer = Points(
            table.positions[:, 1:],
            name=f"{stack.name} \N{MIDDLE DOT} beads",
            features={
                "status": [*table.status],
                "why": ["" if status in _USED else status for status in table.status],
            },
            text={"string": "{why}", "size": 8, "color": "white", "translation": (0.6 * size, 0)},
            size=size,
            face_color="transparent",
            border_color="status",
            border_color_cycle=_COLOURS,
            border_width=0.06,
            metadata={_METADATA_KEY: detected},
            **stack.lateral_transform,
        )
        self._viewer.add_layer(layer)
        follow(self, layer.events.data, lambda: detected.mark_chosen(layer))
        self.points.layer = layer

    def _run(self) -> Run:
        stack = self.stack.source("the stack of beads")
        settings, positions, _ = self._chosen(stack)
        return "psf measure", {
            **image_arguments(stack, "beads"),
            "out": Path(f"{path_of(stack.layer).stem} PSF.tif"),
            "settings": settings,
            "positions": None if positions is None else tuple(map(tuple, positions.tolist())),
        }

    def _chosen(
        self, stack: LayerImage
    ) -> tuple[MeasureSettings, npt.NDArray[np.float64] | None, dict[str, int]]:
        """Return settings, positions (N, 3) or none if not edited, and facts of the edits.

        Raises :class:`RlnError` if the points belong to another stack, or no bead is left.
        """
        settings = self.form.settings()
        if self.points.layer is None:
            return settings, None, {}
        detected: DetectedBeads = self.points.layer.metadata[_METADATA_KEY]
        if detected.stack() is not stack.layer or detected.indices != stack.indices:
            raise RlnError(
                f"{self.points.layer.name} belong to another stack; choose the beads of "
                f"{stack.name}, or find them."
            )
        positions, edits = detected.edited(self.points.layer)
        if not edits:
            return settings, None, {}
        size = settings.size or detected.table.size
        return dataclasses.replace(settings, size=size), positions, edits


def has_beads(layer: Layer) -> bool:
    """Return whether a layer shows detected beads."""
    return isinstance(layer, Points) and _METADATA_KEY in layer.metadata
