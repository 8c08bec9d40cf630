"""Second view of the object, which is registered to the first and deconvolved with it."""

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from napari.components import ViewerModel
from qtpy.QtCore import Signal
from qtpy.QtWidgets import QFormLayout, QWidget

from napari_rln.core.generators import interruptible
from napari_rln.core.volume import Shape, Volume
from napari_rln.deconvolution.views import DualSettings, TwoViews, pair_views_iter
from napari_rln.engine.in_memory import deconvolve_iter
from napari_rln.engine.progress import Progress
from napari_rln.engine.psf_memory import check_psf_memory
from napari_rln.gui.deconvolve.chosen_method import ChosenMethod
from napari_rln.gui.deconvolve.streams import PairedViews
from napari_rln.gui.deferred import Deferred
from napari_rln.gui.forms import Form
from napari_rln.gui.jobs import Steps, Update, streamed
from napari_rln.gui.layers import LayerImage
from napari_rln.gui.layouts import fill
from napari_rln.gui.pickers import SecondPsfPicker, VolumePicker
from napari_rln.psf.examine import fit_psf


class SecondViewChoice(QWidget):
    """Choice of the second view, its PSF, and the settings of the registration."""

    changed = Signal()

    def __init__(self, viewer: ViewerModel) -> None:
        super().__init__()
        self.image = VolumePicker(viewer, optional="none")
        self.image.setToolTip(
            "<p>Another stack of the same object taken from the side, as by a diSPIM. Both are "
            "deconvolved together, each with its own PSF. Choose it if you have one.</p>"
        )
        self._viewer = viewer
        self._options = Deferred(self._make_options)
        fill(QFormLayout(self), self.image, self._options, margin=0)
        self._show_options()
        self.image.changed.connect(self._show_options)

    @cached_property
    def psf(self) -> SecondPsfPicker:
        """The PSF of the second view."""
        picker = SecondPsfPicker(self._viewer)
        picker.changed.connect(self.changed)
        return picker

    @cached_property
    def form(self) -> Form[DualSettings]:
        """The settings of the registration."""
        form = Form(DualSettings, top=("rotation", "transform"))
        form.changed.connect(self.changed)
        return form

    def views(self, image: LayerImage, psf: LayerImage) -> "ViewLayers":
        """Return both views, this one first; errors as in :meth:`LayerPicker.source`."""
        return ViewLayers(
            first=image,
            second=self.image.source("the second view"),
            psf_first=psf,
            psf_second=self.psf.source_or(psf),
            settings=self.form.settings(),
        )

    def _make_options(self) -> QWidget:
        options = QWidget()
        fill(QFormLayout(options), ("PSF", self.psf), self.form, margin=0)
        return options

    def _show_options(self) -> None:
        self._options.setVisible(self.image.layer is not None)
        self.changed.emit()


@dataclass(frozen=True, kw_only=True, eq=False)
class ViewLayers:
    """Two views with their PSFs, not read yet; registered once for all methods."""

    first: LayerImage
    second: LayerImage
    psf_first: LayerImage
    psf_second: LayerImage
    settings: DualSettings
    _pairs: dict[Any, TwoViews] = field(default_factory=dict, repr=False)

    @property
    def key(self) -> Any:
        """Identity of the views and settings."""
        sources = (self.first, self.second, self.psf_first, self.psf_second)
        return *(source.key for source in sources), self.settings

    def deconvolve(
        self, chosen: ChosenMethod, repair: bool, hashes: dict[str, str]
    ) -> Steps[Volume]:
        """Yield updates of a deconvolution; return its result.

        ``hashes`` gets those of the inputs, as in a record, once they are read.
        """
        pair = yield from self._pair(chosen, repair)
        hashes |= pair.inputs
        yield Update(
            Progress(activity="views are registered"),
            PairedViews(pair.first.image, pair.second.image),
        )
        steps = deconvolve_iter(pair, method=chosen.method, tile=chosen.tile)
        return (yield from chosen.updates(steps, pair.first.image.shape))

    def _pair(self, chosen: ChosenMethod, repair: bool) -> Steps[TwoViews]:
        method = chosen.method
        key = (
            method.background, method.offset, method.gain, method.repair_image, method.negatives,
            repair,
        )  # fmt: skip
        if key not in self._pairs:
            check_psf_memory(self.psf_first, self.first, method)
            check_psf_memory(self.psf_second, self.second, method)
            first, second = self.first.read(), self.second.read()
            yield Update(Progress(activity="preparing the PSFs"))
            psf, psf_b = yield from interruptible(
                lambda: (
                    fit_psf(self.psf_first.read(), first, repair=repair)[0],
                    fit_psf(self.psf_second.read(), second, repair=repair)[0],
                )
            )
            steps = pair_views_iter(first, second, psf, psf_b, self.settings, method)
            self._pairs[key] = yield from streamed(steps)
        return self._pairs[key]

    def result_shape(self) -> Shape:
        """Return the shape (z, y, x) of the result, voxels."""
        return self._shape_of(self.first)

    def psf_shape(self) -> Shape:
        """Return the shape (z, y, x) of the first view's PSF on the voxels of the result."""
        return self._shape_of(self.psf_first)

    def _shape_of(self, source: LayerImage) -> Shape:
        voxel_um = self.first.voxel_um
        is_isotropic = self.settings.voxels == "isotropic"
        return source.shape_on((min(voxel_um),) * 3 if is_isotropic else voxel_um)
