"""A network applied to arrays: its input, its output, and tiles of a volume.

Tiles overlap by the network's receptive field, so that they give what the whole would.
"""

import time
from collections.abc import Callable, Generator, Sequence
from typing import NamedTuple

import numpy as np
import torch

from napari_rln.core.generators import finish
from napari_rln.core.report import Report
from napari_rln.core.tiles import Shape, Tile, even_sized
from napari_rln.core.volume import Box, FloatArray
from napari_rln.deconvolution.calibration import Mask
from napari_rln.deconvolution.stopping_trial import Trial
from napari_rln.networks.data_consistency import REACH as MERGE_REACH
from napari_rln.networks.data_consistency import Consistency, Merge
from napari_rln.networks.inference import Folded
from napari_rln.networks.model import Model
from napari_rln.networks.normalisation import Normalisation
from napari_rln.networks.rln import REACH as NETWORK_REACH

REACH: int = NETWORK_REACH + MERGE_REACH
"""Voxels on either side, from an even position on, that a voxel of a result depends on."""


class BlockInput(NamedTuple):
    """What a network is given, on its own scale.

    Attributes
    ----------
    x
        Its channels, each (z, y, x): the image, or views of it.
    E0
        As many, the first estimate; none where that is the image.
    """

    x: Sequence[FloatArray]
    E0: Sequence[FloatArray] | None


def input_of(
    scaling: Normalisation,
    background: float,
    image: FloatArray,
    estimate: FloatArray,
    seen: Mask | None = None,
) -> BlockInput:
    """Return what a network is given of an image and its first estimate, (z, y, x), image units.

    Where the image is dark only because it was not measured, it is given the background.
    """
    if seen is not None:
        image = np.where(seen, image, np.maximum(image, np.float32(background)))
    return BlockInput([scaling.apply(image)], [scaling.apply(estimate + np.float32(background))])


def apply_to_tiles(
    window: Callable[[Box], BlockInput],
    tiles: Sequence[Tile],
    estimate: FloatArray,
    scaling: Normalisation,
    background: float,
    model: Model,
    network: Folded,
    began: float,
    *,
    seen: Mask | None = None,
    merge: Merge | None = None,
) -> Generator[Report, None, FloatArray]:
    """Yield the tiles as they are finished; return (Z, Y, X), image units, background removed.

    Parameters
    ----------
    window
        Returns what the network is given of a part of the volume.
    tiles
        That cover the volume, with the network's receptive field.
    estimate
        (Z, Y, X), the initial one, image units, background removed.
    scaling
        Of the whole volume.
    background
        Image units.
    model, network
        What is applied, and ready for that.
    began
        ``time.perf_counter()`` from which the reports count.
    seen
        (Z, Y, X) bool, where the image is a measurement; everywhere when none. Elsewhere the
        network has nothing to go by, and the result is the initial estimate.
    merge
        Makes the result of the network's output and the initial estimate; the output is the result
        when none.
    """
    whole = np.empty_like(estimate)
    for number, tile in enumerate(tiles, 1):
        given, start = window(tile.window), estimate[tile.window]
        piece = output_of(network, model, scaling, background, given, start, tile.inner, merge)
        if seen is not None:
            piece = np.where(seen[tile.core], piece, estimate[tile.core])
        whole[tile.core] = piece
        yield Report(
            phase="network",
            done=number,
            total=len(tiles),
            seconds=time.perf_counter() - began,
            tile=tile,
            piece=piece,
        )
    return whole


def through_network(
    network: Folded,
    model: Model,
    scaling: Normalisation,
    background: float,
    image: FloatArray,
    estimate: FloatArray,
    inner: Box,
    seen: Mask | None = None,
    merge: Merge | None = None,
) -> FloatArray:
    """Return what a network makes of a window, image units, background removed.

    Parameters
    ----------
    network
        Of the model, ready to be applied.
    model
        Says how it is applied.
    scaling
        Of the whole volume.
    background
        Image units.
    image, estimate
        (z, y, x) of the window, the estimate without background.
    inner
        Part of the window that is returned: what the network sees whole.
    seen
        (z, y, x) bool of the window, as for :func:`apply_to_tiles`.
    merge
        As for :func:`apply_to_tiles`.
    """
    given = input_of(scaling, background, image, estimate, seen)
    piece = output_of(network, model, scaling, background, given, estimate, inner, merge)
    return piece if seen is None else np.where(seen[inner], piece, estimate[inner])


def output_of(
    network: Folded,
    model: Model,
    scaling: Normalisation,
    background: float,
    given: BlockInput,
    estimate: FloatArray,
    inner: Box,
    merge: Merge | None = None,
) -> FloatArray:
    """Return what a network makes of what it is given, as :func:`through_network` does."""
    x = _stacked(given.x)
    output = network(x, None if given.E0 is None else _stacked(given.E0))[0]
    whole = tuple(slice(n) for n in estimate.shape)
    data: FloatArray = output.to("cpu", torch.float32).numpy()[whole]
    # The offset is part of the map; the background is not part of a result.
    data = scaling.undo(data * np.float32(model.output_scale)) - np.float32(background)
    if model.share:
        data += np.float32(model.share) * (estimate - data)
    if merge is not None:
        data = merge(data, estimate, scaling.scale)
    return data[inner]


def consistency_of(
    trial: Trial | None,
    model: Model,
    network: Folded,
    tiles_of: Callable[[Shape], Sequence[Tile]],
) -> Consistency:
    """Return how a network's output is to be merged with its initial estimate, for an image.

    Parameters
    ----------
    trial
        By which the stop was found; nothing can be said without.
    model, network
        What will be applied, and ready for that.
    tiles_of
        Returns the tiles for a volume of a shape.
    """
    if trial is None:
        return Consistency()
    image, seen = trial.view.image.data, trial.view.seen
    estimate = trial.estimate(model.start.after(trial.best))
    background = trial.view.calibration.background
    scaling = Normalisation.of(image, estimate, background, model.normalisation)

    def window(box: Box) -> BlockInput:
        shown = None if seen is None else seen[box]
        return input_of(scaling, background, image[box], estimate[box], shown)

    steps = apply_to_tiles(
        window, tiles_of(trial.view.image.shape), estimate, scaling, background, model, network,
        0.0, seen=seen,
    )  # fmt: skip
    return Consistency.of(trial, estimate, finish(steps), scaling.scale)


def _stacked(channels: Sequence[FloatArray]) -> torch.Tensor:
    """Return (C, z, y, x) of even sizes."""
    return torch.stack([torch.from_numpy(even_sized(channel)) for channel in channels])
