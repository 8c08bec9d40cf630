"""List of the deconvolution methods with their settings, and their runs in memory."""

from collections.abc import Generator, Hashable
from dataclasses import dataclass

import numpy as np
from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import QGroupBox, QLabel, QListWidget, QListWidgetItem, QVBoxLayout, QWidget

from napari_rln.core.errors import RlnError
from napari_rln.core.report import Report
from napari_rln.core.tiles import TileSide
from napari_rln.core.volume import FloatArray, Shape, Volume
from napari_rln.deconvolution.classical import RichardsonLucy
from napari_rln.deconvolution.method import Method
from napari_rln.deconvolution.shared import Shared
from napari_rln.engine.in_memory import deconvolve_iter
from napari_rln.gui import preferences
from napari_rln.gui.deconvolve.streams import Estimate, FinishedPart
from napari_rln.gui.fields import widget_for
from napari_rln.gui.forms import Form
from napari_rln.gui.jobs import Steps, streamed
from napari_rln.gui.layers import LayerImage
from napari_rln.gui.layouts import fill
from napari_rln.gui.library_watcher import LibraryWatcher
from napari_rln.networks.model import UNIVERSAL
from napari_rln.networks.network import NetworkOptions
from napari_rln.psf.examine import fit_psf

_KEPT_ITERATIONS = "1 2 5 10 20 50 100"


@dataclass(frozen=True, kw_only=True)
class ChosenMethod:
    """Ticked method with its settings, named for its results."""

    method: Method
    name: str
    needs_psf: bool = True
    kept_iterations: tuple[int, ...] = ()  # for browsing
    tile: TileSide = "auto"  # side in voxels of a network's tiles in memory

    def updates(self, steps: Generator[Report, None, Volume], shape: Shape) -> Steps[Volume]:
        """Yield the reports of an image's deconvolution as updates; return its result."""

        def is_kept(report: Report) -> bool:
            return report.phase == "deconvolve" and report.done in self.kept_iterations

        def content(report: Report) -> Estimate | FinishedPart | None:
            if report.tile is not None and report.piece is not None:
                return FinishedPart(report.tile, report.piece)
            estimate = report.estimate()
            data = None if estimate is None else _embed(estimate, report.part, shape)
            if data is None:
                return None
            from_search = report.phase == "stop"
            return Estimate(report.done, data, keep=is_kept(report), from_stop_search=from_search)

        return streamed(
            steps, content, always=lambda report: report.tile is not None or is_kept(report)
        )


def _embed(data: FloatArray, part: tuple[slice, ...], shape: Shape) -> FloatArray | None:
    """Return the estimate of a part of an image in an array of zeros of the image's shape.

    None if it is on another grid, as that of a first view in the search for the stop.
    """
    if data.shape == shape:
        return data
    whole = np.zeros(shape, np.float32)
    if whole[part].shape != data.shape:
        return None
    whole[part] = data
    return whole


@dataclass(frozen=True, kw_only=True, eq=False)
class Inputs:
    """Image, or a part of it, and PSF of a deconvolution, not read yet."""

    image: LayerImage
    psf: LayerImage | None
    repair: bool  # of the PSF

    @property
    def key(self) -> Hashable:
        """Identity of the inputs."""
        return self.image.key, self.psf and self.psf.key, self.repair

    def fitted_psf(self, image: Volume, shared: Shared) -> Volume | None:
        """Return the PSF on the image's voxels, fitted once for all methods."""
        if self.psf is None:
            return None
        psf, repair = self.psf.read(), self.repair
        key = ("fit", psf.hash, psf.voxel_um, image.shape, image.voxel_um, repair)
        return shared.cached(key, lambda: fit_psf(psf, image, repair=repair)[0])

    def deconvolve(self, chosen: ChosenMethod, shared: Shared) -> Steps[Volume]:
        """Yield updates of a deconvolution in memory; return its result."""
        image = self.image.read()
        psf = self.fitted_psf(image, shared)
        steps = deconvolve_iter(image, psf, chosen.method, tile=chosen.tile, shared=shared)
        return (yield from chosen.updates(steps, image.shape))


class MethodList(QWidget):
    """RLD and RLN with their settings; RLN with a list of models to tick."""

    changed = Signal()

    def __init__(self) -> None:
        super().__init__()
        self.rld = QGroupBox("Richardson-Lucy (RLD)")
        self.rld_form = Form(
            RichardsonLucy, top=("iterations", "back_projector"), hidden=("device", "report_every")
        )
        tip = "<p>Iterations to keep, which can be browsed with a slider afterwards.</p>"
        self.kept_iterations = widget_for(str, value=_KEPT_ITERATIONS, tooltip=tip)
        self.rln = QGroupBox("Networks")
        self.rln_form = Form(NetworkOptions, top=(), hidden=("device",))
        self.models = QListWidget()
        self.models.setSpacing(2)
        self.models.setToolTip("<p>Every ticked model is applied; universal needs no training.</p>")
        kept = (QLabel("Keep iterations"), self.kept_iterations.native)
        fill(QVBoxLayout(self.rld), self.rld_form, *kept, margin=5)
        fill(QVBoxLayout(self.rln), self.models, self.rln_form, margin=5)
        fill(QVBoxLayout(self), self.rld, self.rln, margin=0)
        for box in (self.rld, self.rln):
            box.setCheckable(True)
            box.toggled.connect(self.changed)
        self.library_watcher = LibraryWatcher(self)
        self.library_watcher.changed.connect(self._show_models)
        self._show_models()
        self.rld_form.changed.connect(self.changed)
        self.rln_form.changed.connect(self.changed)
        self.models.itemChanged.connect(self.changed)

    def chosen(self) -> list[ChosenMethod]:
        """Return the ticked methods.

        Raises :class:`RlnError` if none is ticked, or settings are not valid.
        """
        methods: list[ChosenMethod] = []
        if self.rld.isChecked():
            rld = self.rld_form.settings(device=preferences.device(), report_every=1)
            kept = iterations_in(self.kept_iterations.value)
            methods.append(ChosenMethod(method=rld, name=rld.title, kept_iterations=kept))
        if self.rln.isChecked():
            library = preferences.library()
            options = self.rln_form.settings(device=preferences.device())
            entries = {entry.name: entry for entry in self.library_watcher.entries}
            methods += [
                ChosenMethod(
                    method=options.of(library.path(name) or name),
                    name=f"{entries[name].architecture} {name}" if name in entries else name,
                    needs_psf=name not in entries or entries[name].needs_psf,
                    tile=preferences.tile(),
                )
                for name in self.ticked_models()
            ]
        if not methods:
            raise RlnError("tick at least one method: RLD, or a network.")
        return methods

    def ticked_models(self) -> list[str]:
        """Return the names of the ticked models."""
        items = (self.models.item(i) for i in range(self.models.count()))
        return [item.text() for item in items if item.checkState() == Qt.CheckState.Checked]

    def _show_models(self) -> None:
        """List the models of the library; those ticked stay ticked."""
        ticked = self.ticked_models() if self.models.count() else [UNIVERSAL]
        names = [entry.name for entry in self.library_watcher.entries if not entry.error]
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
    """Return the iterations in a text such as ``"1 2 5 10"``, sorted.

    Raises :class:`RlnError` if it contains anything but whole numbers above 0.
    """
    numbers = text.replace(",", " ").split()
    if not all(number.isdecimal() and int(number) > 0 for number in numbers):
        raise RlnError(f"iterations to keep are {text!r}; give whole numbers, such as 1 2 5 10.")
    return tuple(sorted({int(number) for number in numbers}))
