"""Choice of the truth, or of another view of the object, that results are compared with."""

from typing import TYPE_CHECKING

from qtpy.QtWidgets import QFormLayout, QHBoxLayout, QPushButton, QWidget

from napari_rln.core.errors import RlnError
from napari_rln.core.volume import Volume
from napari_rln.gui.compare.compared_image import WINDOW
from napari_rln.gui.fields import widget_for
from napari_rln.gui.jobs import BackgroundJob, Steps, streamed
from napari_rln.gui.layers import LayerImage
from napari_rln.gui.layouts import fill
from napari_rln.gui.pickers import LayerPicker
from napari_rln.registration.register import RegistrationSettings, TransformKind, register_iter

if TYPE_CHECKING:
    import napari


class KnownObject(QWidget):
    """The true object, as of a simulation, or the same object by another microscope."""

    def __init__(self, viewer: "napari.viewer.Viewer") -> None:
        super().__init__()
        self._viewer = viewer
        self.truth = LayerPicker(viewer, optional="no truth")
        self.truth.setToolTip(
            "<p>The true object, as of a simulation. Choose its layer, and press Compare, to add "
            "PSNR, SSIM and resolution.</p>"
        )
        self.reference = LayerPicker(viewer, optional="no reference")
        self.reference.setToolTip(
            "<p>The same object by another microscope or program. Choose its layer, and press "
            "Register to bring it onto the image's voxels and compare it.</p>"
        )
        self.transform = widget_for(TransformKind, value=RegistrationSettings().transform)
        self.register_button = QPushButton("Register")
        transform = self.transform.native
        row = fill(QHBoxLayout(), (self.reference, 1), transform, self.register_button)
        fill(QFormLayout(self), ("Truth", self.truth), ("Reference", row), margin=0)

    def registration_job(self, image: LayerImage) -> BackgroundJob:
        """Return a job that registers the reference to an image, on its grid, as a layer.

        Raises :class:`RlnError` if none is chosen, or it is not a volume.
        """
        if self.reference.layer is None:
            raise RlnError("choose the reference, a layer that shows the same object.")
        reference = self.reference.source("the reference")
        settings = RegistrationSettings(transform=self.transform.value)

        def steps() -> Steps[Volume]:
            return (yield from streamed(register_iter(reference.read(), image.read(), settings)))

        def show(registered: Volume) -> None:
            colormap = reference.layer.colormap
            self._viewer.add_layer(image.layer_of(registered, colormap=colormap))

        title = f"registration of {reference.name}"
        note = "The reference is on the voxels of the image. Press Compare to compare it too."
        return BackgroundJob(title, steps, done=show, window=WINDOW, end_note=note)
