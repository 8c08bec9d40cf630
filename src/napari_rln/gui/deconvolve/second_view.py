"""A second view of the object, which is brought onto the first and deconvolved with it."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from napari.components import ViewerModel
from qtpy.QtCore import Signal
from qtpy.QtWidgets import QFormLayout, QWidget

from napari_rln.core.volume import Shape, Volume
from napari_rln.deconvolution.views import DualSettings, TwoViews, pair_views_iter
from napari_rln.engine.in_memory import deconvolve_iter
from napari_rln.engine.progress import Progress
from napari_rln.gui.deconvolve.method_list import ChosenMethod
from napari_rln.gui.deconvolve.streams import PairedViews
from napari_rln.gui.forms import Form
from napari_rln.gui.jobs import Steps, Update, streamed
from napari_rln.gui.layers import LayerImage
from napari_rln.gui.pickers import SecondPsfPicker, VolumePicker
from napari_rln.psf.examine import fit_psf


class SecondViewChoice(QWidget):
    """The choice of the second view, its PSF, and how it is brought onto the first."""

    changed = Signal()

    def __init__(self, viewer: ViewerModel) -> None:
        super().__init__()
        self.image = VolumePicker(viewer, optional="none")
        self.image.setToolTip(
            "<p>Of a diSPIM or alike: another stack of the same object, taken from the side. Both "
            "are deconvolved together, each by its own PSF.</p>"
        )
        self.psf = SecondPsfPicker(viewer)
        self.form = Form(DualSettings, top=("rotation", "transform"))
        self._below = QWidget()
        rows = QFormLayout(self._below)
        rows.setContentsMargins(0, 0, 0, 0)
        rows.addRow("PSF", self.psf)
        rows.addRow(self.form)
        layout = QFormLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addRow(self.image)
        layout.addRow(self._below)
        self._show_below()
        self.image.changed.connect(self._show_below)
        for part in (self.psf, self.form):
            part.changed.connect(self.changed)

    def given(self, image: LayerImage, psf: LayerImage) -> "ViewLayers | None":
        """Return both views; none where there is no second.

        Parameters
        ----------
        image, psf
            The first view.

        Raises
        ------
        RlnError
            If the second, or its PSF, cannot be used.
        """
        if self.image.layer is None:
            return None
        return ViewLayers(
            first=image,
            second=self.image.source("the second view"),
            psf_first=psf,
            psf_second=self.psf.source_beside(psf),
            settings=self.form.settings(),
        )

    def _show_below(self) -> None:
        self._below.setVisible(self.image.layer is not None)
        self.changed.emit()


@dataclass(frozen=True, kw_only=True, eq=False)
class ViewLayers:
    """Two views with their PSFs, not read yet.

    Several methods share them: the second is brought onto the first once.
    """

    first: LayerImage
    second: LayerImage
    psf_first: LayerImage
    psf_second: LayerImage
    settings: DualSettings
    _made: dict[Any, TwoViews] = field(default_factory=dict, repr=False)

    @property
    def key(self) -> Any:
        """What tells them from others."""
        sources = (self.first, self.second, self.psf_first, self.psf_second)
        return *(source.key for source in sources), self.settings

    def steps(self, chosen: ChosenMethod, repair: bool) -> Steps[Volume]:
        """Yield what a method shows on its way; return its result.

        Parameters
        ----------
        chosen
            How.
        repair
            Whether to repair what is wrong with the PSFs.
        """
        pair = yield from self._pair(chosen, repair)
        yield Update(
            Progress(activity="views are one upon the other"),
            PairedViews(pair.first.image, pair.second.image),
        )
        steps = deconvolve_iter(pair, method=chosen.method, tile=chosen.tile)
        return (yield from chosen.watched(steps, pair.first.image.shape))

    def _pair(self, chosen: ChosenMethod, repair: bool) -> Steps[TwoViews]:
        method = chosen.method
        key = (
            method.background, method.offset, method.gain, method.repair_image, method.negatives,
            repair,
        )  # fmt: skip
        known = self._made.get(key)
        if known is not None:
            return known
        first, second = self.first.read(), self.second.read()
        psf, _ = fit_psf(self.psf_first.read(), first, repair=repair)
        psf_b, _ = fit_psf(self.psf_second.read(), second, repair=repair)
        work = pair_views_iter(first, second, psf, psf_b, self.settings, method)
        pair = yield from streamed(work)
        self._made[key] = pair
        return pair

    def shape(self) -> Shape:
        """Return how large the result will be, voxels (z, y, x)."""
        return self._on_grid(self.first)

    def kernel(self) -> Shape:
        """Return how large the first view's PSF will be on these voxels (z, y, x)."""
        return self._on_grid(self.psf_first)

    def _on_grid(self, source: LayerImage) -> Shape:
        first = np.array(self.first.voxel_um)
        target = first.min() if self.settings.voxels == "isotropic" else first
        sizes = np.array(source.shape) * source.voxel_um / target
        z, y, x = np.maximum(1, np.rint(sizes)).astype(int)
        return int(z), int(y), int(x)
