"""The page of the PSF dock that measures one from beads, which the user may edit as points."""

import contextlib
import dataclasses
import importlib
from dataclasses import dataclass
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
from napari_rln.gui.copy_button import CopyButton, Run, image_of
from napari_rln.gui.events import follow
from napari_rln.gui.forms import Form
from napari_rln.gui.jobs import Job, Jobs, Steps, Update
from napari_rln.gui.layer_jobs import path_of
from napari_rln.gui.layers import LayerImage
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
_CHOSEN = "chosen"  # by hand: added or moved
_TAKEN = ("used", _CHOSEN)
_FOUND = "napari-rln beads"  # of a layer's metadata


@dataclass(frozen=True, eq=False)
class Found:
    """Beads as they were found, to tell what was made of them since.

    Attributes
    ----------
    stack
        Where.
    at
        On the axes before its z; see :class:`napari_rln.gui.layers.LayerImage`.
    table
        The beads.
    """

    stack: ref[Layer]
    at: dict[str, int]
    table: BeadTable

    def mark_chosen(self, layer: Points) -> None:
        """Give points that were added or moved a status of their own."""
        known = {tuple(position) for position in self.table.positions[:, 1:]}
        status = layer.features["status"].astype(str)
        new = np.array([tuple(position) not in known for position in layer.data], bool)
        if len(status) == len(new) and any(new & (status != _CHOSEN)):
            layer.features = layer.features.assign(
                status=status.mask(new, _CHOSEN),
                why=layer.features["why"].astype(str).mask(new, ""),
            )
            layer.refresh_colors()

    def edited(self, layer: Points) -> tuple[npt.NDArray[np.float64], dict[str, int]]:
        """Return the positions (N, 3) to use and, where they are not those found, how many differ.

        Raises
        ------
        RlnError
            If there is none to use.
        """
        planes = {(y, x): z for z, y, x in self.table.positions}
        found = {(y, x) for _, y, x in self.table.positions[self.table.used]}
        taken = layer.data[layer.features["status"].isin(_TAKEN).to_numpy(bool)]
        now = {(y, x) for y, x in taken}
        if not now:
            raise RlnError(f"{layer.name} holds no bead to use; add points, or find them anew.")
        positions = np.array([(planes.get((y, x), np.nan), y, x) for y, x in sorted(now)])
        if now == found:
            return positions, {}
        return positions, {"beads_removed": len(found - now), "beads_added": len(now - found)}


class Beads(QWidget):
    """A stack of beads, what was found in it, and buttons that find and average.

    Parameters
    ----------
    viewer
        Where the beads are shown as points.
    jobs, bar
        Of the dock.
    """

    made = Signal(object)

    def __init__(self, viewer: ViewerModel, jobs: Jobs, bar: RunBar) -> None:
        super().__init__()
        self._viewer, self._jobs = viewer, jobs
        self.stack = VolumePicker(viewer)
        self.form = Form(MeasureSettings, top=("size", "minimum_snr"))
        self.points = LayerPicker(viewer, accept=holds_beads, optional="not looked for yet")
        self.find_button, self.average_button = QPushButton("Find beads"), QPushButton("Average")
        self.copy = CopyButton(lambda: [self._described()], bar.attempt)
        hint = QLabel(
            "Delete, move or add points before averaging; those in "
            f'<span style="color: {_COLOURS["used"]}">green</span> and '
            f'<span style="color: {_COLOURS["chosen"]}">blue</span> are used.'
        )
        hint.setWordWrap(True)
        found = QFormLayout()
        found.addRow("Beads", self.points)
        buttons = QHBoxLayout()
        buttons.addWidget(self.find_button, 1)
        buttons.addWidget(self.average_button, 1)
        buttons.addWidget(self.copy)
        layout = QVBoxLayout(self)
        layout.addWidget(self.stack)
        layout.addWidget(self.form)
        layout.addLayout(found)
        layout.addWidget(hint)
        layout.addLayout(buttons)
        self.find_button.clicked.connect(lambda: bar.attempt(self.find))
        self.average_button.clicked.connect(lambda: bar.attempt(self.average))

    def find(self) -> None:
        """Queue the search for beads, which are then shown as points.

        Raises
        ------
        RlnError
            If no stack is chosen, or it or the settings cannot be.
        """
        stack, settings = self.stack.source("the stack of beads"), self.form.settings()
        stack.check_upright()  # else the points would not lie where the beads are

        def steps() -> Steps[BeadTable]:
            yield Update(Progress(doing="reading"))
            volume = stack.read()
            importlib.import_module("pandas")  # a points layer would, in the GUI's thread
            yield Update(Progress(doing="finding"))
            table = find_beads(
                volume,
                size=settings.size,
                minimum_snr=settings.minimum_snr,
                saturation=settings.saturation,
            )
            yield Update(Progress(doing="comparing"))
            with contextlib.suppress(RlnError):  # none is fit: shown with the reasons all the same
                table = align(volume, table, settings)
            yield None
            return table

        self._jobs.add(
            Job(
                f"Beads of {stack.name}",
                steps,
                key=(id(stack.layer), settings),
                done=lambda table: self._show(table, stack),
            )
        )

    def average(self) -> None:
        """Queue the average of the beads that the points show, or of all that are fit for use.

        Raises
        ------
        RlnError
            If no stack is chosen, no bead is left, or the settings cannot be.
        """
        stack = self.stack.source("the stack of beads")
        settings, positions, edits = self._chosen(stack)
        name = f"{stack.name} \N{MIDDLE DOT} PSF"

        def steps() -> Steps[Volume]:
            yield Update(Progress(doing="reading"))
            volume = stack.read()
            yield Update(Progress(doing="averaging"))
            psf = measure_psf(volume, settings, positions=positions, name=name)
            yield None
            assert psf.record is not None
            record = dataclasses.replace(psf.record, facts=psf.record.facts | edits)
            return dataclasses.replace(psf, record=record)

        key = (id(stack.layer), settings)
        self._jobs.add(Job(f"PSF of {stack.name}", steps, key=key, done=self.made.emit))

    def _show(self, table: BeadTable, stack: LayerImage) -> None:
        """Add the points; without a z, so that they are seen, and can be added, in any plane."""
        found, size = Found(ref(stack.layer), stack.at, table), max(table.size[1:])
        layer = Points(
            table.positions[:, 1:],
            name=f"{stack.name} \N{MIDDLE DOT} beads",
            features={
                "status": [*table.status],
                "why": ["" if status in _TAKEN else status for status in table.status],
            },
            text={
                "string": "{why}",
                "size": 8,
                "color": "white",
                "translation": (0.6 * size, 0.0),
            },
            size=size,
            face_color="transparent",
            border_color="status",
            border_color_cycle=_COLOURS,
            border_width=0.06,
            metadata={_FOUND: found},
            **stack.plane_place,
        )
        self._viewer.add_layer(layer)
        follow(self, layer.events.data, lambda: found.mark_chosen(layer))
        self.points.layer = layer

    def _described(self) -> Run:
        stack = self.stack.source("the stack of beads")
        settings, positions, _ = self._chosen(stack)
        return "psf measure", {
            **image_of(stack, "beads"),
            "out": Path(f"{path_of(stack.layer).stem} PSF.tif"),
            "settings": settings,
            "positions": None if positions is None else tuple(map(tuple, positions.tolist())),
        }

    def _chosen(
        self, stack: LayerImage
    ) -> tuple[MeasureSettings, npt.NDArray[np.float64] | None, dict[str, int]]:
        """Return settings, positions (N, 3) where the user edited them, and how many differ.

        Raises
        ------
        RlnError
            If the points are of another stack, or none is left.
        """
        settings = self.form.settings()
        if self.points.layer is None:
            return settings, None, {}
        found: Found = self.points.layer.metadata[_FOUND]
        if found.stack() is not stack.layer or found.at != stack.at:
            raise RlnError(
                f"{self.points.layer.name} are of another stack; choose the beads of "
                f"{stack.name}, or find them."
            )
        positions, edits = found.edited(self.points.layer)
        if not edits:
            return settings, None, {}
        size = settings.size or found.table.size
        return dataclasses.replace(settings, size=size), positions, edits


def holds_beads(layer: Layer) -> bool:
    """Tell whether a layer shows beads that were found here."""
    return isinstance(layer, Points) and _FOUND in layer.metadata
