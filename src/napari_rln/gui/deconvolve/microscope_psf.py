"""PSFs computed from what the files of the images state about the microscope."""

import html
from collections.abc import Callable
from weakref import WeakKeyDictionary

from napari.components import ViewerModel
from napari.layers import Image, Layer
from qtpy.QtCore import Signal
from qtpy.QtWidgets import QHBoxLayout, QLabel, QPushButton, QWidget

from napari_rln.core.errors import RlnError
from napari_rln.core.volume import Volume
from napari_rln.engine.progress import Progress
from napari_rln.gui.deconvolve.channels import Channels
from napari_rln.gui.forms import with_labels
from napari_rln.gui.jobs import BackgroundJob, Steps, Update
from napari_rln.gui.layers import layer_data, optics_of, source_of
from napari_rln.gui.layouts import fill
from napari_rln.gui.pickers import VolumePicker
from napari_rln.psf.from_optics import CompletedOptics, GivenOptics, complete_optics
from napari_rln.psf.optics import Optics

_NO_PSF = "No PSF yet: choose its layer above, or get one."


class MicroscopePsf(QWidget):
    """Note on the PSF that a run computes where none is chosen, or a button to get one."""

    page_requested = Signal(str)

    def __init__(
        self, viewer: ViewerModel, image: VolumePicker, psf: VolumePicker, channels: Channels
    ) -> None:
        super().__init__()
        self._viewer, self._image, self._psf, self._channels = viewer, image, psf, channels
        self.note = QLabel(wordWrap=True)
        self.button = QPushButton("Get a PSF")
        self.button.setToolTip("<p>Go to the page PSF to compute, measure or open one.</p>")
        fill(QHBoxLayout(self), (self.note, 1), self.button, margin=0)
        self.button.clicked.connect(lambda: self.page_requested.emit("PSF"))
        self._computed: WeakKeyDictionary[Image, Image] = WeakKeyDictionary()  # by image
        image.changed.connect(self._on_image)
        psf.changed.connect(self._refresh)
        self._on_image()

    def job(self, done: Callable[[], None]) -> BackgroundJob | None:
        """Return a job that computes the missing PSFs, chooses them and calls ``done``.

        None if none is missing. Raises :class:`RlnError` if a file contradicts itself.
        """
        missing = []
        for layer in self._without_psf():
            optics = optics_of(layer)
            if optics is not None and optics.is_known:
                image = source_of(layer, self._viewer.dims.point)
                missing.append((image, _completed(layer, optics)))
        if not missing:
            return None

        def steps() -> Steps[list[Volume]]:
            found = []
            for number, (image, known) in enumerate(missing):
                yield Update(
                    Progress(activity="computing the PSF", done=number, total=len(missing))
                )
                name = f"PSF of {image.name}"
                found.append(known.psf(image.voxel_um, image.shape[0], name))
            yield None
            return found

        def add(psfs: list[Volume]) -> None:
            for (image, _), psf in zip(missing, psfs, strict=True):
                self._add(image.layer, psf)
            done()

        names = ", ".join(image.name for image, _ in missing)
        key = tuple((image.key, known.settings) for image, known in missing)
        return BackgroundJob(f"PSF of {names}", steps, key=key, done=add)

    def _without_psf(self) -> list[Layer]:
        """Return the channels to deconvolve for which no PSF is chosen."""
        layers = [] if self._psf.layer is not None else [self._image.layer]
        layers += [each for each in self._channels.others if self._channels.psf_of(each) is None]
        return [layer for layer in layers if layer is not None]

    def _add(self, image: Image, psf: Volume) -> None:
        """Add a computed PSF as a hidden layer, and choose it for its image."""
        data, options, _ = layer_data(psf, colormap="magma", visible=False)
        selected = {*self._viewer.layers.selection}
        layer = Image(data, **options)
        self._viewer.add_layer(layer)
        self._viewer.layers.selection = selected
        self._computed[image] = layer
        if image is self._image.layer:
            self._psf.suggest(layer)
        else:
            self._channels.choose_psf(image, layer)

    def _on_image(self) -> None:
        """Choose the PSF of the image, unless the user has chosen one of his own for it."""
        image, psf = self._image.layer, self._psf.layer
        optics = None if image is None else optics_of(image)
        is_own = self._psf.is_chosen_by_hand and psf not in self._computed.values()
        if optics is not None and optics.is_known and not is_own:
            self._psf.suggest(self._computed.get(image))
        self._refresh()

    def _refresh(self) -> None:
        image = self._image.layer
        shown = image is not None and self._psf.layer is None
        self.setVisible(shown)
        if shown:
            optics = optics_of(image)
            self.note.setText(_NO_PSF if optics is None else _note(image, optics))
            self.button.setVisible(optics is None or not optics.is_known)


def _completed(layer: Layer, optics: Optics) -> CompletedOptics:
    """Return the microscope of a layer; raises a :class:`RlnError` if too little is known."""
    advice = " on the page PSF, or choose a PSF"
    return complete_optics(optics, GivenOptics(), name=layer.name, otherwise=advice)


def _note(layer: Layer, optics: Optics) -> str:
    """Return what the file states, what is assumed, or what is missing, as rich text."""
    try:
        known = _completed(layer, optics)
    except RlnError as error:
        return html.escape(f"{_NO_PSF} {with_labels(str(error))}")
    lines = (html.escape(f"{line[:1].upper()}{line[1:]}.") for line in known.lines())
    return " ".join(["<i>Run</i> computes the PSF.", *lines])
