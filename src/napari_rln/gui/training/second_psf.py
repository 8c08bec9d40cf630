"""A second view of the object, for networks that are trained to take two."""

from dataclasses import dataclass

from napari.components import ViewerModel
from qtpy.QtWidgets import QComboBox, QFormLayout, QWidget

from napari_rln.deconvolution.views import DualSettings
from napari_rln.gui.forms import Form, tooltips
from napari_rln.gui.layers import LayerImage
from napari_rln.gui.pickers import SecondPsfPicker
from napari_rln.networks.rln import Views
from napari_rln.train.training_settings import TrainSettings

_VIEWS: dict[str, Views] = {
    "one": "single",
    "two, their sum": "averaged",
    "two, each": "concatenated",
}


@dataclass(frozen=True, kw_only=True, eq=False)
class Second:
    """The second view of a training; nothing is read yet.

    Attributes
    ----------
    psf
        As the second camera takes it.
    settings
        How its view is turned, and which voxels both have then.
    """

    psf: LayerImage
    settings: DualSettings


class SecondView(QWidget):
    """The choice of what blurs a second view; seen only where ``box`` says that there is one.

    Parameters
    ----------
    viewer
        Whose layers may be chosen.
    """

    def __init__(self, viewer: ViewerModel) -> None:
        super().__init__()
        self.box = QComboBox()
        for text, views in _VIEWS.items():
            self.box.addItem(text, views)
        self.box.setToolTip(tooltips(TrainSettings)["views"])
        self.psf = SecondPsfPicker(viewer)
        self.form = Form(
            DualSettings, top=("turn", "voxels"), hidden=("transform", "background_b", "seed")
        )
        rows = QFormLayout(self)
        rows.setContentsMargins(0, 0, 0, 0)
        rows.addRow("Second PSF", self.psf)
        rows.addRow(self.form)
        self.box.currentIndexChanged.connect(self._show_rows)
        self._show_rows()

    @property
    def views(self) -> Views:
        """How the network is given what it takes."""
        views: Views = self.box.currentData()
        return views

    def show_views(self, views: Views, *, fixed: bool) -> None:
        """Show how a network takes views.

        Parameters
        ----------
        views
            How.
        fixed
            Whether that is a model's, which stays as it is.
        """
        self.box.setCurrentIndex(self.box.findData(views))
        self.box.setEnabled(not fixed)

    def given(self, psf: LayerImage) -> Second | None:
        """Return the second view; none where the network takes one.

        Parameters
        ----------
        psf
            Of the first view.

        Raises
        ------
        RlnError
            If its PSF cannot be used.
        """
        if self.views == "single":
            return None
        return Second(psf=self.psf.source_beside(psf), settings=self.form.settings())

    def _show_rows(self) -> None:
        self.setVisible(self.views != "single")
