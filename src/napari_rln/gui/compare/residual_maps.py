"""Residual maps of results, as layers beside them."""

from collections.abc import Callable
from weakref import WeakKeyDictionary

from napari.components import ViewerModel
from napari.layers import Image

from napari_rln.core.volume import Volume
from napari_rln.evaluate.check import check_iter
from napari_rln.gui.compare.grids import on_voxels_of
from napari_rln.gui.deconvolve.chosen_method import Inputs
from napari_rln.gui.jobs import BackgroundJob, Steps, streamed
from napari_rln.gui.layers import LayerImage
from napari_rln.psf.examine import fit_psf

_LIMITS = (-5.0, 5.0)  # standard deviations of the noise
_ENDED = "Residual maps: green where a result lacks light, pink where it has too much."


class ResidualMaps:
    """The residual maps in a viewer, by the layer of their result."""

    def __init__(self, viewer: ViewerModel) -> None:
        self._viewer = viewer
        self._maps: WeakKeyDictionary[Image, Image] = WeakKeyDictionary()

    def of(self, results: list[Image]) -> list[Image]:
        """Return the maps of results, where they are shown."""
        maps = (self._maps.get(layer) for layer in results)
        return [layer for layer in maps if layer is not None and layer in self._viewer.layers]

    def job(
        self, inputs: Inputs, result: LayerImage, window: str, shown: Callable[[], None]
    ) -> BackgroundJob:
        """Return a job that adds the map of a result and calls ``shown``; inputs have a PSF."""
        image, psf = inputs.image, inputs.psf
        assert psf is not None

        def steps() -> Steps[Volume]:
            raw = image.read()
            fitted, _ = fit_psf(psf.read(), raw, repair=inputs.repair)
            volume = on_voxels_of(raw, result.read())
            check = yield from streamed(check_iter(raw, volume, fitted))
            return check.residual

        def show(residual: Volume) -> None:
            layer = image.layer_of(residual, colormap="PiYG", contrast_limits=_LIMITS)
            self._insert(layer, result.layer)
            shown()

        return BackgroundJob(
            f"residual of {result.name}", steps, done=show, window=window, end_note=_ENDED
        )

    def _insert(self, layer: Image, result: Image) -> None:
        """Add a map beside its result, or replace the earlier one."""
        layers = self._viewer.layers
        if result not in layers:
            return
        older = self._maps.get(result)
        if older is not None and older in layers:
            layers.remove(older)
        self._maps[result] = layer
        layers.insert(layers.index(result) + 1, layer)
