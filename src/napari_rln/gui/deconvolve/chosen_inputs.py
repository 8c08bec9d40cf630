"""Image, PSF, channels, region and second view as the widgets of the page choose them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from napari.components import ViewerModel
from qtpy.QtWidgets import QCheckBox

from napari_rln.core.errors import RlnError
from napari_rln.gui.deconvolve.channels import Channels
from napari_rln.gui.deconvolve.chosen_method import ChosenMethod, Inputs, StatedPsf
from napari_rln.gui.deconvolve.region import Region
from napari_rln.gui.deconvolve.result_destination import ResultDestination
from napari_rln.gui.deconvolve.second_view import SecondViewChoice, ViewLayers
from napari_rln.gui.deconvolve.stated_psfs import StatedPsfs
from napari_rln.gui.field_errors import FieldError
from napari_rln.gui.layers import LayerImage, source_of
from napari_rln.gui.pickers import VolumePicker


@dataclass(frozen=True, kw_only=True, eq=False)
class ChosenInputs:
    """The widgets that choose the inputs of a run, for the inputs that are chosen."""

    viewer: ViewerModel
    image: VolumePicker
    psf: VolumePicker
    channels: Channels
    stated: StatedPsfs
    repair: QCheckBox
    region: Region
    second: SecondViewChoice
    destination: ResultDestination

    @property
    def on_disk(self) -> bool:
        """Whether results are written to disk; those of a region stay in memory."""
        return self.destination.on_disk and self.region.is_whole

    def of(self, methods: Sequence[ChosenMethod]) -> list[Inputs]:
        """Return image and PSF of every chosen channel, the chosen one first.

        Raises :class:`RlnError` if one is missing or cannot be used.
        """
        needed = any(method.needs_psf for method in methods)
        return [
            Inputs(image=image, psf=self._psf_of(image, needed), repair=self.repair.isChecked())
            for image in self._images()
        ]

    def views(self, inputs: Inputs) -> ViewLayers | None:
        """Return both views; None without a second.

        Raises :class:`RlnError` if they cannot be deconvolved together.
        """
        if self.second.image.layer is None:
            return None
        image, psf = inputs.image, inputs.psf
        if psf is None:
            raise FieldError("two views need their PSFs; choose at least the first's.", self.psf)
        if isinstance(psf, StatedPsf):
            raise FieldError(
                "two views need PSFs in layers; get the first's on the page PSF, and choose it.",
                self.psf,
            )
        if self.second.image.layer is image.layer:
            raise FieldError(
                f"{image.name} is chosen as both views; choose another as the second.",
                self.second.image,
            )
        if image.data.ndim == 2:
            raise RlnError(f"{image.name} is a plane; choose two stacks of one object.")
        image.check_upright()
        if not self.region.is_whole or self.destination.on_disk or self.channels.others:
            raise RlnError(
                "two views are deconvolved whole, in memory and one channel at a time; choose the "
                "whole image, a result in memory, and one channel."
            )
        return self.second.views(image, psf)

    def _images(self) -> Iterator[LayerImage]:
        """Yield the images of the chosen channels, or the region of them."""
        yield self.region.part_of(self.image.source("the image"))
        for channel in self.channels.others:
            yield self.region.part_of(source_of(channel, self.viewer.dims.point))

    def _psf_of(self, image: LayerImage, needed: bool) -> LayerImage | StatedPsf | None:
        """Return the PSF of a channel: the chosen one, that of its file, or the one above."""
        is_main = image.layer is self.image.layer
        chosen = self.psf.layer if is_main else self.channels.psf_of(image.layer)
        if chosen is None:
            stated = self.stated.psf_of(image)
            if stated is not None:
                return stated
            chosen = self.psf.layer
        if chosen is None:
            if not needed:
                return None
            raise FieldError(
                f"choose the PSF of {image.name}; the page PSF computes, measures or opens one. "
                "Only networks that start from the image alone need none.",
                self.psf if is_main else self.channels.psfs[image.layer],
            )
        if chosen is image.layer:
            raise FieldError(
                f"{image.name} is chosen as the image and as the PSF; choose another layer.",
                self.psf,
            )
        if chosen is self.psf.layer:
            return self.psf.source("the PSF")
        return source_of(chosen, self.viewer.dims.point)
