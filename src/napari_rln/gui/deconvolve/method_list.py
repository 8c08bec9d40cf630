"""The methods to deconvolve with, ticked and set."""

from collections.abc import Generator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import QGroupBox, QLabel, QListWidget, QListWidgetItem, QVBoxLayout, QWidget

from napari_rln.core.errors import RlnError
from napari_rln.core.tiles import Shape
from napari_rln.core.volume import FloatArray, Volume
from napari_rln.deconvolution.loop import iterate
from napari_rln.deconvolution.rld_settings import RldReport, RldSettings
from napari_rln.deconvolution.study import Study
from napari_rln.deconvolution.views import DualImage, iterate_views
from napari_rln.gui import preferences
from napari_rln.gui.deconvolve.streams import Estimate, Piece
from napari_rln.gui.fields import field_for
from napari_rln.gui.forms import Form
from napari_rln.gui.jobs import Steps, streamed
from napari_rln.gui.layers import Source
from napari_rln.gui.library_watcher import LibraryWatch
from napari_rln.networks.application import apply_steps
from napari_rln.networks.library import Library
from napari_rln.networks.model import UNIVERSAL
from napari_rln.networks.network_views import apply_views_steps
from napari_rln.networks.rln_settings import RlnReport, RlnSettings
from napari_rln.psf.examine import fit_psf

# It brings what reads and writes Zarr; napari opens the dock faster without.
if TYPE_CHECKING:
    from napari_rln.engine.request import LargeRun

_KEPT = "1 2 5 10 20 50 100"
_NAMES = {"wiener-butterworth": "WB"}


@dataclass(frozen=True, kw_only=True)
class Rld:
    """Richardson-Lucy, and which iterations to keep for browsing."""

    settings: RldSettings
    kept: tuple[int, ...] = ()

    @property
    def name(self) -> str:
        """What its results are called."""
        return _NAMES.get(self.settings.back_projector, "RLD")

    @property
    def needs_psf(self) -> bool:
        """Always."""
        return True

    def steps(self, image: Volume, psf: Volume | None, study: Study) -> Steps[Volume]:
        """Yield estimates, return the result."""
        assert psf is not None
        return self._streamed(iterate(image, psf, self.settings, study), image.shape)

    def steps_of_views(self, pair: DualImage) -> Steps[Volume]:
        """Yield estimates, return the result, of two views."""
        return self._streamed(iterate_views(pair, self.settings), pair.first.shape)

    def _streamed(self, steps: Generator[RldReport, None, Volume], shape: Shape) -> Steps[Volume]:
        def seen(report: RldReport) -> Estimate | None:
            data = _in_place(report.estimate(), report.part, shape)
            if data is None:
                return None
            sought = report.phase == "stop"
            return Estimate(report.iteration, data, kept=always(report), sought=sought)

        def always(report: RldReport) -> bool:
            return report.phase == "deconvolve" and report.iteration in self.kept

        return streamed(steps, seen, always=always)

    def large_run(self, psf: Volume | None, **where: Any) -> "LargeRun":
        """Return the run from disk to disk; see :class:`napari_rln.engine.request.LargeRun`."""
        from napari_rln.engine.request import LargeRun

        return LargeRun(psf=psf, settings=self.settings, **where)


@dataclass(frozen=True, kw_only=True)
class Rln:
    """A Richardson-Lucy Network by a model of the library."""

    settings: RlnSettings
    model: str
    library: Library
    needs_psf: bool = True

    @property
    def name(self) -> str:
        """What its results are called."""
        return f"RLN {self.model}"

    @property
    def model_path(self) -> str:
        """By what name, or which file, a command finds the model."""
        return str(self.library.path(self.model) or self.model)

    def steps(self, image: Volume, psf: Volume | None, study: Study) -> Steps[Volume]:
        """Yield the first estimate and then tiles, return the result."""
        model = self.library.load(self.model)
        return self._streamed(apply_steps(image, psf, model, self.settings, study), image.shape)

    def steps_of_views(self, pair: DualImage) -> Steps[Volume]:
        """Yield the first estimate and then tiles, return the result, of two views."""
        model = self.library.load(self.model)
        return self._streamed(apply_views_steps(pair, model, self.settings), pair.first.shape)

    def _streamed(self, steps: Generator[RlnReport, None, Volume], shape: Shape) -> Steps[Volume]:
        def seen(report: RlnReport) -> Estimate | Piece | None:
            if report.tile is not None and report.piece is not None:
                return Piece(report.tile, report.piece)
            estimate = report.estimate()
            data = None if estimate is None else _in_place(estimate, report.part, shape)
            return None if data is None else Estimate(report.done, data)

        return streamed(steps, seen, always=lambda report: report.tile is not None)

    def large_run(self, psf: Volume | None, **where: Any) -> "LargeRun":
        """Return the run from disk to disk; see :class:`napari_rln.engine.request.LargeRun`."""
        from napari_rln.engine.request import LargeRun

        if "model" not in where:
            where["model"] = self.library.load(self.model)
        tiled = {name: where[name] for name in ("tile", "memory_gb") if name in where}
        return LargeRun(psf=psf, settings=replace(self.settings, **tiled), **where)


Method = Rld | Rln


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
    image: Source, psf: Source | None, method: Method, mend: bool, study: Study
) -> Steps[Volume]:
    """Yield what a method shows on its way; return its result.

    Parameters
    ----------
    image, psf
        Read here, in the thread.
    method
        How.
    mend
        Whether to repair what is wrong with the PSF.
    study
        Of the image, for all methods that are applied to it.
    """
    volume = image.read()
    fitted = fitted_psf(psf, volume, mend, study)
    return (yield from method.steps(volume, fitted, study))


def fitted_psf(psf: Source | None, image: Volume, mend: bool, study: Study) -> Volume | None:
    """Return the PSF as methods need it, prepared once for all of them."""
    if psf is None:
        return None
    given = psf.read()
    key = ("fit", given.hash, given.voxel_um, image.shape, image.voxel_um, mend)
    return study.once(key, lambda: fit_psf(given, image, mend=mend)[0])


class Methods(QWidget):
    """RLD with its settings, and RLN with its models; each may be ticked."""

    changed = Signal()

    def __init__(self) -> None:
        super().__init__()
        self.rld = QGroupBox("Richardson-Lucy (RLD)")
        self.rld_form = Form(
            RldSettings, top=("iterations", "back_projector"), hidden=("device", "report_every")
        )
        tip = "<p>Iterations that are kept, to browse through them afterwards.</p>"
        self.kept = field_for(str, value=_KEPT, tooltip=tip)
        self.rln = QGroupBox("Network (RLN)")
        self.rln_form = Form(RlnSettings, top=(), hidden=("device", "tile"))
        self.models = QListWidget()
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
        self.watch = LibraryWatch(self)
        self.watch.changed.connect(self._show_models)
        self._show_models()
        self.rld_form.changed.connect(self.changed)
        self.rln_form.changed.connect(self.changed)
        self.models.itemChanged.connect(self.changed)

    def chosen(self) -> list[Method]:
        """Return the methods that are ticked.

        Raises
        ------
        RlnError
            If there is none, or its settings cannot be.
        """
        found: list[Method] = []
        if self.rld.isChecked():
            settings = self.rld_form.settings(device=preferences.device(), report_every=1)
            found.append(Rld(settings=settings, kept=iterations_in(self.kept.value)))
        if self.rln.isChecked():
            library = preferences.library()
            told = self.rln_form.settings(device=preferences.device(), tile=preferences.tile())
            variants = {entry.name: entry.variant for entry in self.watch.entries}
            found += [
                Rln(
                    settings=told,
                    model=name,
                    library=library,
                    needs_psf=variants.get(name) != "paper",
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
        self.models.setFixedHeight(self.models.sizeHintForRow(0) * rows + 6)
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
