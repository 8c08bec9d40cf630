"""Layers of results in memory, updated during the computation."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from napari.components import ViewerModel
from napari.layers import Image

from napari_rln.core.record import Record
from napari_rln.core.tiles import Tile
from napari_rln.core.volume import FloatArray, Volume
from napari_rln.gui.layers import (
    DISPLAY_ONLY,
    KEY,
    UNFINISHED,
    LayerImage,
    contrast_limits,
    metadata,
    record_of,
)

RESULTS = ("rld", "wiener", "rln", "rld dual", "rln dual")
"""Methods in the records of results."""

COMPARED = (*RESULTS, "register")
"""Methods in the records of volumes that are compared with an image."""


@dataclass(frozen=True, eq=False)
class Estimate:
    """Estimate after some iterations, (Z, Y, X) float32, image units."""

    iteration: int
    data: FloatArray
    keep: bool = False  # for browsing
    from_stop_search: bool = False  # which uses a fraction of the photons


@dataclass(frozen=True, eq=False)
class FinishedPart:
    """Tile of a result."""

    tile: Tile
    data: FloatArray


@dataclass(frozen=True, eq=False)
class PairedViews:
    """Two views on the grid of the result, which may differ from the image's."""

    first: Volume
    second: Volume


class LayerStream:
    """Layer of a result, with the transform and the colours of the image, and a title."""

    def __init__(self, viewer: ViewerModel, image: LayerImage, title: str) -> None:
        self._viewer, self._image, self._title = viewer, image, title
        self.layer: Image | None = None
        self._name = ""

    def _add(self, data: Any, **options: Any) -> None:
        unfinished = {"metadata": {UNFINISHED: True}}
        self.layer = self._image.result_layer(data, name=self._title, **(unfinished | options))
        self._viewer.add_layer(self.layer)
        self._name = self.layer.name  # with a number, if the title was taken

    def _rename(self, name: str) -> None:
        """Name the layer, unless the user has done so."""
        if self.layer is not None and self.layer.name == self._name:
            self.layer.name = name

    def remove(self) -> None:
        """Remove the layer from the viewer; select the image instead, if it was selected."""
        layers, image = self._viewer.layers, self._image.layer
        if self.layer in layers:
            layers.remove(self.layer)
            if not layers.selection and image in layers:  # napari's controls would be empty
                layers.selection.active = image


class ResultStream(LayerStream):
    """Layer of a result in memory, added with the first estimate, and named when complete."""

    def __init__(self, viewer: ViewerModel, image: LayerImage, title: str) -> None:
        super().__init__(viewer, image, title)
        self.iterates: dict[int, FloatArray] = {}  # kept estimates by number of iterations
        self._displayed: Estimate | None = None

    def update(self, content: Estimate | FinishedPart | PairedViews, draw: bool) -> None:
        """Take new data; an estimate is drawn only if ``draw``, or as the first."""
        if isinstance(content, PairedViews):
            self._image = self._image.on_voxels(content.first)
            self._show_second(content.second)
        elif isinstance(content, Estimate):
            if content.keep:
                self.iterates[content.iteration] = content.data
            if draw or self.layer is None:
                self._displayed = content
                self._set(content.data)
        elif self.layer is None:  # no estimate comes before the tiles of a network
            data = np.zeros(self._image.shape, np.float32)
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
        self._rename(result.name)
        self.layer.metadata = metadata(result)
        if self.layer not in self._viewer.layers:  # the user removed it during the computation
            self._viewer.add_layer(self.layer)
        facts = result.record.facts if result.record else {}
        if self.iterates and "iterations" in facts:
            self.iterates[facts["iterations"]] = result.data

    def stop(self, record: Record, reason: str) -> None:
        """Name the displayed estimate by iteration and reason, or remove an incomplete layer."""
        if self.layer is None:
            return
        displayed, self._displayed = self._displayed, None
        if not record.method.startswith("rld") or displayed is None:
            self.remove()
            return
        newest = max(self.iterates, default=0)
        if newest > displayed.iteration:  # kept since it was drawn
            displayed = Estimate(newest, self.iterates[newest])
            self._set(displayed.data)
        if self.iterates:
            self.iterates[displayed.iteration] = displayed.data
        facts: dict[str, Any] = {"iterations": displayed.iteration, "stopped_by": reason}
        if displayed.from_stop_search:
            facts["estimated_from"] = "a fraction of the photons, from the search for the stop"
        self._change_facts(record, facts)
        self._rename(f"{self._title} {displayed.iteration} ({reason})")

    def browse(self, iteration: int) -> None:
        """Show a kept iteration, with its number in the layer's name and record."""
        assert self.layer is not None
        record = record_of(self.layer)
        if record is None:
            return
        facts, data = record.facts, self.iterates[iteration]
        before = self.layer.name.removesuffix(f" ({facts['stopped_by']})")  # of a cancelled one
        self.layer.data = data if self.layer.ndim == 3 else data[0]
        self.layer.name = f"{before.removesuffix(str(facts['iterations']))}{iteration}"
        self._change_facts(record, {"iterations": iteration, "stopped_by": "chosen"})

    def _change_facts(self, record: Record, facts: dict[str, Any]) -> None:
        assert self.layer is not None
        changed = dataclasses.replace(record, facts=record.facts | facts)
        self.layer.metadata = {KEY: changed.as_dict()}

    def _show_second(self, second: Volume) -> None:
        """Add the registered second view as a hidden layer, to check the registration."""
        name = f"{second.name} on {self._image.layer.name}"
        for layer in list(self._viewer.layers):
            if layer.name == name and DISPLAY_ONLY in layer.metadata:
                self._viewer.layers.remove(layer)
        layer = self._image.result_layer(
            second.data, name=name, visible=False, metadata={DISPLAY_ONLY: True},
            contrast_limits=contrast_limits([second.data]),
        )  # fmt: skip
        self._viewer.add_layer(layer)

    def _set(self, data: FloatArray) -> None:
        limits = contrast_limits([data])
        if self.layer is not None:
            self.layer.data = data if self.layer.ndim == 3 else data[0]
            self.layer.contrast_limits = limits
            return
        self._add(data[0] if self._image.data.ndim == 2 else data, contrast_limits=limits)


def result_layers(viewer: ViewerModel, image_hash: str, methods: Sequence[str]) -> list[Image]:
    """Return the layers whose records name an image and one of some methods."""
    return [
        layer
        for layer in viewer.layers
        if isinstance(layer, Image)
        and (record := record_of(layer)) is not None
        and record.method in methods
        and record.inputs.get("image") == image_hash
    ]


def equalize_contrast(layers: list[Image]) -> None:
    """Give layers the same contrast limits."""
    if layers:
        coarsest = [layer.data[-1] if layer.multiscale else layer.data for layer in layers]
        limits = contrast_limits([np.asarray(data) for data in coarsest])
        for layer in layers:
            layer.contrast_limits = limits
