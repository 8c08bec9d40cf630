"""Results that grow in a layer while they are computed."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from napari.components import ViewerModel
from napari.layers import Image, Layer

from napari_rln.core.record import Record
from napari_rln.core.tiles import Tile
from napari_rln.core.volume import FloatArray, Volume
from napari_rln.gui.layers import (
    DISPLAY_ONLY,
    KEY,
    LayerImage,
    contrast_limits,
    metadata,
    record_of,
)

RESULTS = ("rld", "rln", "rld dual", "rln dual")
"""Methods of the records of results."""

COMPARED = (*RESULTS, "register")
"""Methods of the records of what is compared with an image."""


@dataclass(frozen=True, eq=False)
class Estimate:
    """An estimate after so many iterations, to be kept for browsing or not.

    While it is sought when to stop it is made of a part of the photons.
    """

    iteration: int
    data: FloatArray
    kept: bool = False
    done: bool = False


@dataclass(frozen=True, eq=False)
class FinishedPart:
    """A part of a result, and where it lies."""

    tile: Tile
    data: FloatArray


@dataclass(frozen=True, eq=False)
class PairedViews:
    """Two views on the voxels that the result will have, which may be others than the image's."""

    first: Volume
    second: Volume


class ResultStream:
    """One result in its layer, which is there from the first estimate on.

    Parameters
    ----------
    viewer
        Where it is shown.
    source
        What it is of: it lies there, and is shown in its colours.
    title
        What to call it until it is done.
    """

    def __init__(self, viewer: ViewerModel, source: LayerImage, title: str) -> None:
        self._viewer, self._source, self._title = viewer, source, title
        self.layer: Image | None = None
        self.kept: dict[int, FloatArray] = {}
        self._shown: Estimate | None = None

    def take(self, content: Estimate | FinishedPart | PairedViews, draw: bool) -> None:
        """Take what is there now, and show it; an estimate only where there is time to draw it."""
        if isinstance(content, PairedViews):
            self._source = self._source.on_voxels(content.first)
            self._show_second(content.second)
        elif isinstance(content, Estimate):
            if content.kept:
                self.kept[content.iteration] = content.data
            if draw or self.layer is None:
                self._shown = content
                self._set(content.data)
        elif self.layer is None:  # a network that starts from the image shows no estimate before
            data = np.zeros(self._source.shape, np.float32)
            data[content.tile.core] = content.data
            self._set(data)
        else:
            whole = self.layer.data if self.layer.ndim == 3 else self.layer.data[None]
            whole[content.tile.core] = content.data
            self.layer.refresh()

    def finish(self, result: Volume) -> None:
        """Show the result, with its name and record."""
        self._set(result.data)
        assert self.layer is not None
        self.layer.name = result.name
        self.layer.metadata = metadata(result)
        if (
            self.layer not in self._viewer.layers
        ):  # removed on the way, but it is what was asked for
            self._viewer.add_layer(self.layer)
        facts = result.record.facts if result.record else {}
        if self.kept and "iterations" in facts:
            self.kept[facts["iterations"]] = result.data

    def leave(self, record: Record, why: str) -> None:
        """End before the result is there: an estimate is left as what it is, nothing else.

        Parameters
        ----------
        record
            How it was made so far.
        why
            ``"cancelled"`` or ``"failed"``.
        """
        if self.layer is None:
            return
        shown, self._shown = self._shown, None
        if not record.method.startswith("rld") or shown is None:
            if self.layer in self._viewer.layers:
                self._viewer.layers.remove(self.layer)
            return
        facts = record.facts | {"iterations": shown.iteration, "stopped_by": why}
        if shown.done:
            facts["made_of"] = "a part of the photons, while it was sought when to stop"
        self.layer.metadata = {KEY: dataclasses.replace(record, facts=facts).as_dict()}
        self.layer.name = f"{self._title} {shown.iteration} ({why})"

    def browse(self, iteration: int) -> None:
        """Show a kept iteration; the layer's name and record say which."""
        assert self.layer is not None
        record = record_of(self.layer)
        if record is None:
            return
        before = record.facts["iterations"]
        facts = record.facts | {"iterations": iteration, "stopped_by": "chosen"}
        self.layer.data = self.kept[iteration] if self.layer.ndim == 3 else self.kept[iteration][0]
        self.layer.name = f"{self.layer.name.removesuffix(str(before))}{iteration}"
        self.layer.metadata = {KEY: dataclasses.replace(record, facts=facts).as_dict()}

    def _show_second(self, second: Volume) -> None:
        """Show once how the second view lies on the first, to be looked at and for nothing else."""
        name = f"{second.name} on {self._source.layer.name}"
        for layer in list(self._viewer.layers):
            if layer.name == name and DISPLAY_ONLY in layer.metadata:
                self._viewer.layers.remove(layer)
        limits = contrast_limits([second.data])
        layer = self._source.result_layer(
            second.data,
            name=name,
            visible=False,
            contrast_limits=limits,
            metadata={DISPLAY_ONLY: True},
        )
        self._viewer.add_layer(layer)

    def _set(self, data: FloatArray) -> None:
        if self.layer is not None:
            self.layer.data = data if self.layer.ndim == 3 else data[0]
            self.layer.contrast_limits = contrast_limits([data])
            return
        shown = data[0] if self._source.data.ndim == 2 else data
        limits = contrast_limits([data])
        self.layer = self._source.result_layer(shown, name=self._title, contrast_limits=limits)
        self._viewer.add_layer(self.layer)


def made_of(viewer: ViewerModel, image_hash: str, methods: Sequence[str]) -> list[Image]:
    """Return the layers that were made of an image by some methods, as their records say."""

    def is_made(layer: Layer) -> bool:
        record = record_of(layer) if isinstance(layer, Image) else None
        made = record is not None and record.method in methods
        return made and record.inputs.get("image") == image_hash  # type: ignore[union-attr]

    return [layer for layer in viewer.layers if is_made(layer)]


def share_contrast(layers: list[Image]) -> None:
    """Show results of one image with the same contrast limits."""
    if layers:
        coarsest = [layer.data[-1] if layer.multiscale else layer.data for layer in layers]
        limits = contrast_limits([np.asarray(data) for data in coarsest])
        for layer in layers:
            layer.contrast_limits = limits
