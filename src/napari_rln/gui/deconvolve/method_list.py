"""The methods to deconvolve with, ticked and set."""

from collections.abc import Generator
from dataclasses import dataclass

import numpy as np
from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import QGroupBox, QLabel, QListWidget, QListWidgetItem, QVBoxLayout, QWidget

from napari_rln.core.errors import RlnError
from napari_rln.core.report import Report
from napari_rln.core.tiles import Shape, TileSide
from napari_rln.core.volume import FloatArray, Volume
from napari_rln.deconvolution.classical import RichardsonLucy
from napari_rln.deconvolution.method import Method
from napari_rln.deconvolution.shared import Shared
from napari_rln.engine.in_memory import deconvolve_iter
from napari_rln.gui import preferences
from napari_rln.gui.deconvolve.streams import Estimate, FinishedPart
from napari_rln.gui.fields import field_for
from napari_rln.gui.forms import Form
from napari_rln.gui.jobs import Steps, streamed
from napari_rln.gui.layers import LayerImage
from napari_rln.gui.library_watcher import LibraryWatcher
from napari_rln.networks.model import UNIVERSAL
from napari_rln.networks.network import NetworkOptions
from napari_rln.psf.examine import fit_psf

_KEPT = "1 2 5 10 20 50 100"


@dataclass(frozen=True, kw_only=True)
class ChosenMethod:
    """A ticked method.

    Attributes
    ----------
    method
        With its settings.
    name
        What its results are called.
    needs_psf
        Whether there is no result without a PSF.
    kept
        Iterations that are kept for browsing.
    tile
        Side in voxels of a network's tiles in memory.
    """

    method: Method
    name: str
    needs_psf: bool = True
    kept: tuple[int, ...] = ()
    tile: TileSide = "auto"

    def watched(self, steps: Generator[Report, None, Volume], shape: Shape) -> Steps[Volume]:
        """Yield estimates and tiles as they come, return the result.

        Parameters
        ----------
        steps
            That deconvolve.
        shape
            (Z, Y, X) of the image.
        """

        def shown(report: Report) -> Estimate | FinishedPart | None:
            if report.tile is not None and report.piece is not None:
                return FinishedPart(report.tile, report.piece)
            estimate = report.estimate()
            data = None if estimate is None else _in_place(estimate, report.part, shape)
            if data is None:
                return None
            sought = report.phase == "stop"
            return Estimate(report.done, data, kept=is_kept(report), done=sought)

        def is_kept(report: Report) -> bool:
            return report.phase == "deconvolve" and report.done in self.kept

        return streamed(
            steps, shown, always=lambda report: report.tile is not None or is_kept(report)
        )


def _in_place(data: FloatArray, part: tuple[slice, ...], shape: Shape) -> FloatArray | None:
    """Return an estimate of a part of an image where it lies; elsewhere there is nothing yet.

    None where it is on other voxels: so is that of a first view by which it is sought when to stop.
    """
    if data.shape == shape:
        return data
    whole = np.zeros(shape, np.float32)
    if whole[part].shape != data.shape:
        return None
    whole[part] = data
    return whole


def deconvolved(
    image: LayerImage, psf: LayerImage | None, chosen: ChosenMethod, repair: bool, shared: Shared
) -> Steps[Volume]:
    """Yield what a method shows on its way; return its result.

    Parameters
    ----------
    image, psf
        Read here, in the thread.
    chosen
        How.
    repair
        Whether to repair what is wrong with the PSF.
    shared
        What is known of the image, for all methods that are applied to it.
    """
    volume = image.read()
    fitted = fitted_psf(psf, volume, repair, shared)
    steps = deconvolve_iter(volume, fitted, chosen.method, tile=chosen.tile, shared=shared)
    return (yield from chosen.watched(steps, volume.shape))


def fitted_psf(
    psf: LayerImage | None, image: Volume, repair: bool, shared: Shared
) -> Volume | None:
    """Return the PSF as methods need it, prepared once for all of them."""
    if psf is None:
        return None
    given = psf.read()
    key = ("fit", given.hash, given.voxel_um, image.shape, image.voxel_um, repair)
    return shared.cached(key, lambda: fit_psf(given, image, repair=repair)[0])


class MethodList(QWidget):
    """RLD with its settings, and RLN with its models; each may be ticked."""

    changed = Signal()

    def __init__(self) -> None:
        super().__init__()
        self.rld = QGroupBox("Richardson-Lucy (RLD)")
        self.rld_form = Form(
            RichardsonLucy, top=("iterations", "back_projector"), hidden=("device", "report_every")
        )
        tip = "<p>Iterations that are kept, to browse through them afterwards.</p>"
        self.kept = field_for(str, value=_KEPT, tooltip=tip)
        self.rln = QGroupBox("Network (RLN)")
        self.rln_form = Form(NetworkOptions, top=(), hidden=("device",))
        self.models = QListWidget()
        self.models.setSpacing(2)
        self.models.setToolTip("<p>Every ticked model is applied; universal needs no training.</p>")
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        for box, parts in (
            (self.rld, (self.rld_form, QLabel("Keep iterations"), self.kept.native)),
            (self.rln, (self.models, self.rln_form)),
        ):
            box.setCheckable(True)
            inside = QVBoxLayout(box)
            inside.setContentsMargins(6, 4, 6, 4)
            for part in parts:
                inside.addWidget(part)
            box.toggled.connect(self.changed)
            layout.addWidget(box)
        self.watch = LibraryWatcher(self)
        self.watch.changed.connect(self._show_models)
        self._show_models()
        self.rld_form.changed.connect(self.changed)
        self.rln_form.changed.connect(self.changed)
        self.models.itemChanged.connect(self.changed)

    def chosen(self) -> list[ChosenMethod]:
        """Return the methods that are ticked.

        Raises
        ------
        RlnError
            If there is none, or its settings cannot be.
        """
        found: list[ChosenMethod] = []
        if self.rld.isChecked():
            method = self.rld_form.settings(device=preferences.device(), report_every=1)
            kept = iterations_in(self.kept.value)
            found.append(ChosenMethod(method=method, name=method.title, kept=kept))
        if self.rln.isChecked():
            library = preferences.library()
            options = self.rln_form.settings(device=preferences.device())
            variants = {entry.name: entry.variant for entry in self.watch.entries}
            found += [
                ChosenMethod(
                    method=options.of(library.path(name) or name),
                    name=f"RLN {name}",
                    needs_psf=variants.get(name) != "paper",
                    tile=preferences.tile(),
                )
                for name in self.ticked_models()
            ]
        if not found:
            raise RlnError("tick at least one method: RLD, or RLN with a model.")
        return found

    def ticked_models(self) -> list[str]:
        """Return the names of the models that are ticked."""
        items = (self.models.item(i) for i in range(self.models.count()))
        return [item.text() for item in items if item.checkState() == Qt.CheckState.Checked]

    def _show_models(self) -> None:
        """Show the models that there are now; what was ticked stays so."""
        ticked = self.ticked_models() if self.models.count() else [UNIVERSAL]
        names = [entry.name for entry in self.watch.entries if not entry.error]
        self.models.blockSignals(True)
        self.models.clear()
        for name in names:
            item = QListWidgetItem(name, self.models)
            item.setFlags(item.flags() | Qt.ItemFlag.ItemIsUserCheckable)
            on = name in ticked
            item.setCheckState(Qt.CheckState.Checked if on else Qt.CheckState.Unchecked)
        rows = min(max(len(names), 2), 6)
        row = self.models.sizeHintForRow(0) + 2 * self.models.spacing()
        self.models.setFixedHeight(row * rows + 6)
        self.models.blockSignals(False)


def iterations_in(text: str) -> tuple[int, ...]:
    """Return the iterations that a text names, such as ``"1 2 5 10"``.

    Raises
    ------
    RlnError
        If it holds anything but whole numbers above 0.
    """
    words = text.replace(",", " ").split()
    if not all(word.isdecimal() and int(word) > 0 for word in words):
        raise RlnError(f"iterations to keep are {text!r}; give whole numbers, such as 1 2 5 10.")
    return tuple(sorted({int(word) for word in words}))
