"""Residual maps of results, as layers beside them."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeGuard
from weakref import WeakKeyDictionary

from napari.components import ViewerModel
from napari.layers import Image, Layer

from napari_rln.core.errors import RlnError
from napari_rln.core.volume import Volume
from napari_rln.deconvolution.shared import Shared
from napari_rln.engine.progress import Progress
from napari_rln.evaluate.check import check_iter
from napari_rln.gui.compare.compared_image import WINDOW, ComparedImage
from napari_rln.gui.compare.grids import on_voxels_of
from napari_rln.gui.jobs import BackgroundJob, Steps, Update, streamed
from napari_rln.gui.layers import LayerImage, metadata, record_of

_LIMITS = (-5.0, 5.0)  # standard deviations of the noise
_ENDED = "Residual maps: green where a result lacks light, pink where it has too much."


@dataclass(frozen=True, eq=False)
class _Finished:
    """A map, on the grid of its image."""

    residual: Volume
    image: LayerImage
    result: Image


class ResidualMaps:
    """The residual maps in a viewer, by the layer of their result."""

    def __init__(self, viewer: ViewerModel) -> None:
        self._viewer = viewer
        self._maps: WeakKeyDictionary[Image, Image] = WeakKeyDictionary()

    def of(self, result: Image) -> Image | None:
        """Return the map of a result; None if there is none in the viewer."""
        layer = self._maps.get(result)
        if layer in self._viewer.layers:
            return layer
        name = f"{result.name} \N{MIDDLE DOT} residual"  # of a dock that was closed
        return next((each for each in self._viewer.layers if _is_map(each, name)), None)

    def job(self, compared: ComparedImage, shown: Callable[[], None]) -> BackgroundJob:
        """Return a job that adds a hidden map of every result and then calls ``shown``.

        Each map is an update of the job, which :meth:`take` adds; a job that is stopped leaves
        those until then. Raises :class:`RlnError` without a PSF or results.
        """
        inputs, results = compared.inputs, compared.sources(self._viewer)
        if inputs.psf is None:
            raise RlnError(
                f"a residual map needs the PSF of {inputs.image.name}; choose it on the page "
                "Deconvolve, and run a method."
            )

        def steps() -> Steps[None]:
            raw = inputs.image.read()
            fitted = inputs.fitted_psf(raw, Shared())
            assert fitted is not None
            for i, result in enumerate(results, 1):
                volume = on_voxels_of(raw, result.read())
                check = yield from streamed(check_iter(raw, volume, fitted))
                progress = Progress(activity="residual maps", done=i, total=len(results))
                yield Update(progress, _Finished(check.residual, inputs.image, result.layer))

        return BackgroundJob(
            f"residual maps of {inputs.image.name}",
            steps,
            key=(inputs.key, *(result.key for result in results)),
            done=lambda _: shown(),
            end_note=_ENDED,
            window=WINDOW,
        )

    def take(self, content: Any) -> None:
        """Add the map in an update of a job, hidden, or replace the earlier one."""
        if not isinstance(content, _Finished) or content.result not in self._viewer.layers:
            return
        older = self.of(content.result)
        if older is not None:
            self._maps[content.result] = older
            older.data = content.residual.data.reshape(older.data.shape)
            older.name, older.metadata = content.residual.name, metadata(content.residual)
            return
        # In 3D the brightest along a ray would hide what a result has too much.
        options = {"colormap": "PiYG", "contrast_limits": _LIMITS, "rendering": "average"}
        layer = content.image.layer_of(content.residual, visible=False, **options)
        self._maps[content.result] = layer
        self._viewer.add_layer(layer)


def _is_map(layer: Layer, name: str) -> TypeGuard[Image]:
    record = record_of(layer)
    return record is not None and record.method == "check" and layer.name == name
