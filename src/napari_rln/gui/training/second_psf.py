"""Choice of the second view, for networks of two views."""

from dataclasses import dataclass
from functools import cached_property

from napari.components import ViewerModel
from qtpy.QtWidgets import QComboBox, QFormLayout, QVBoxLayout, QWidget

from napari_rln.deconvolution.views import DualSettings
from napari_rln.gui.deferred import Deferred
from napari_rln.gui.forms import Form, tooltips
from napari_rln.gui.layers import LayerImage
from napari_rln.gui.layouts import fill
from napari_rln.gui.pickers import SecondPsfPicker
from napari_rln.networks.architectures.base import Views
from napari_rln.train.training_settings import VIEWS_WORDS, TrainSettings


@dataclass(frozen=True, kw_only=True, eq=False)
class SecondPsf:
    """The second view of a training, with its PSF in the orientation of the second camera."""

    psf: LayerImage
    settings: DualSettings


class SecondViewForm(QWidget):
    """Settings of the second view; hidden if one view is chosen in ``box``."""

    def __init__(self, viewer: ViewerModel) -> None:
        super().__init__()
        self.box = QComboBox(toolTip=tooltips(TrainSettings)["views"])
        for views, text in VIEWS_WORDS.items():
            self.box.addItem(text, views)
        self._viewer = viewer
        self._rows = Deferred(self._make_rows)
        fill(QVBoxLayout(self), self._rows, margin=0)
        self.box.currentIndexChanged.connect(self._show_rows)
        self._show_rows()

    @cached_property
    def psf(self) -> SecondPsfPicker:
        """The PSF of the second view."""
        return SecondPsfPicker(self._viewer)

    @cached_property
    def form(self) -> Form[DualSettings]:
        """The settings of the second view."""
        return Form(
            DualSettings, top=("rotation", "voxels"), hidden=("transform", "background_b", "seed")
        )

    @property
    def views(self) -> Views:
        """Views of the network."""
        views: Views = self.box.currentData()
        return views

    def show_views(self, views: Views, *, fixed: bool) -> None:
        """Show the views of a network, which may be fixed by an initial model."""
        self.box.setCurrentIndex(self.box.findData(views))
        self.box.setEnabled(not fixed)

    def second(self, psf: LayerImage) -> SecondPsf | None:
        """Return the second view, or none; errors as in :meth:`LayerPicker.source`."""
        if self.views == "single":
            return None
        return SecondPsf(psf=self.psf.source_or(psf), settings=self.form.settings())

    def _make_rows(self) -> QWidget:
        rows = QWidget()
        fill(QFormLayout(rows), ("Second PSF", self.psf), self.form, margin=0)
        return rows

    def _show_rows(self) -> None:
        for part in (self, self._rows):
            part.setVisible(self.views != "single")
