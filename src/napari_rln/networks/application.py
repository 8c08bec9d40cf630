"""Application of a network to arrays: its input, its output, and tiles of a volume.

Tiles overlap by the network's receptive field, so that their result equals that of the whole.
"""

import time
from collections.abc import Callable, Generator, Sequence
from typing import NamedTuple

import numpy as np
import torch

from napari_rln.core.generators import finish
from napari_rln.core.report import Report
from napari_rln.core.tiles import Tile, even_sized
from napari_rln.core.volume import Box, FloatArray, Mask, Shape
from napari_rln.deconvolution.stopping_trial import Trial
from napari_rln.networks.data_consistency import HALO as MERGE_REACH
from napari_rln.networks.data_consistency import Consistency, Merge
from napari_rln.networks.inference import InferenceNetwork
from napari_rln.networks.model import Model
from napari_rln.networks.normalisation import Normalisation
from napari_rln.networks.rln import RECEPTIVE_FIELD as NETWORK_REACH

HALO: int = NETWORK_REACH + MERGE_REACH
"""Receptive field: voxels on either side of an even position on which a result depends."""


class BlockInput(NamedTuple):
    """Normalised input of a network.

    Attributes
    ----------
    x
        Channels, (z, y, x) each: the image, or its views.
    E0
        Channels of the initial estimate, as many; none if that is the image.
    """

    x: Sequence[FloatArray]
    E0: Sequence[FloatArray] | None


def input_of(
    scaling: Normalisation,
    background: float,
    image: FloatArray,
    estimate: FloatArray,
    mask: Mask | None = None,
) -> BlockInput:
    """Return a network's input for an image and its initial estimate, (z, y, x), image units.

    Unmeasured voxels are raised to at least the background.
    """
    if mask is not None:
        image = np.where(mask, image, np.maximum(image, np.float32(background)))
    return BlockInput([scaling.apply(image)], [scaling.apply(estimate + np.float32(background))])


def apply_to_tiles(
    window: Callable[[Box], BlockInput],
    tiles: Sequence[Tile],
    estimate: FloatArray,
    scaling: Normalisation,
    background: float,
    model: Model,
    network: InferenceNetwork,
    started: float,
    *,
    mask: Mask | None = None,
    merge: Merge | None = None,
) -> Generator[Report, None, FloatArray]:
    """Yield reports with finished tiles; return (Z, Y, X), image units, background removed.

    Parameters
    ----------
    window
        Returns the network's input for a box of the volume.
    tiles
        Tiles that cover the volume, with the network's receptive field as their halo.
    estimate
        (Z, Y, X), initial estimate, image units, background removed.
    scaling
        Normalisation of the whole volume.
    background
        Background, image units.
    model, network
        Model, and its network prepared for inference.
    started
        ``time.perf_counter()`` at the start, for the seconds of reports.
    mask
        (Z, Y, X) bool, measured voxels; all when none. Elsewhere the result is the initial
        estimate.
    merge
        Merges the network's output with the initial estimate; the output is the result when none.
    """
    whole = np.empty_like(estimate)
    for number, tile in enumerate(tiles, 1):
        block, start = window(tile.window), estimate[tile.window]
        piece = output_of(network, model, scaling, background, block, start, tile.inner, merge)
        if mask is not None:
            piece = np.where(mask[tile.core], piece, estimate[tile.core])
        whole[tile.core] = piece
        yield Report(
            phase="network",
            done=number,
            total=len(tiles),
            seconds=time.perf_counter() - started,
            tile=tile,
            piece=piece,
        )
    return whole


def apply_to_window(
    network: InferenceNetwork,
    model: Model,
    scaling: Normalisation,
    background: float,
    image: FloatArray,
    estimate: FloatArray,
    inner: Box,
    mask: Mask | None = None,
    merge: Merge | None = None,
) -> FloatArray:
    """Return the result of a network for a window, image units, background removed.

    Parameters
    ----------
    network
        Network of the model, prepared for inference.
    model
        Model, with the parameters of its application.
    scaling
        Normalisation of the whole volume.
    background
        Background, image units.
    image, estimate
        (z, y, x) of the window, the estimate without background.
    inner
        Part of the window to return, of which the network has the full receptive field.
    mask
        (z, y, x) bool of the window, as for :func:`apply_to_tiles`.
    merge
        As for :func:`apply_to_tiles`.
    """
    block = input_of(scaling, background, image, estimate, mask)
    piece = output_of(network, model, scaling, background, block, estimate, inner, merge)
    return piece if mask is None else np.where(mask[inner], piece, estimate[inner])


def output_of(
    network: InferenceNetwork,
    model: Model,
    scaling: Normalisation,
    background: float,
    network_input: BlockInput,
    estimate: FloatArray,
    inner: Box,
    merge: Merge | None = None,
) -> FloatArray:
    """Return the result of a network for an input, see :func:`apply_to_window`."""
    x = _stacked(network_input.x)
    output = network(x, None if network_input.E0 is None else _stacked(network_input.E0))[0]
    whole = tuple(slice(n) for n in estimate.shape)
    data: FloatArray = output.to("cpu", torch.float32).numpy()[whole]
    # The normalisation includes the offset; a result excludes the background.
    data = scaling.undo(data * np.float32(model.output_scale)) - np.float32(background)
    if model.estimate_weight:
        data += np.float32(model.estimate_weight) * (estimate - data)
    if merge is not None:
        data = merge(data, estimate, scaling.scale)
    return data[inner]


def consistency_of(
    trial: Trial | None,
    model: Model,
    network: InferenceNetwork,
    tiles_of: Callable[[Shape], Sequence[Tile]],
) -> Consistency:
    """Return the parameters of merging a network's output with its initial estimate, for an image.

    Parameters
    ----------
    trial
        Trial of the image's deconvolution; the defaults are returned when none.
    model, network
        Model, and its network prepared for inference.
    tiles_of
        Returns the tiles of a volume of a shape.
    """
    if trial is None:
        return Consistency()
    image, mask = trial.view.image.data, trial.view.mask
    estimate = trial.estimate(model.start.after(trial.best))
    background = trial.view.calibration.background
    scaling = Normalisation.of(image, estimate, background, model.normalisation)

    def window(box: Box) -> BlockInput:
        shown = None if mask is None else mask[box]
        return input_of(scaling, background, image[box], estimate[box], shown)

    steps = apply_to_tiles(
        window, tiles_of(trial.view.image.shape), estimate, scaling, background, model, network,
        0.0, mask=mask,
    )  # fmt: skip
    return Consistency.of(trial, estimate, finish(steps), scaling.scale)


def _stacked(channels: Sequence[FloatArray]) -> torch.Tensor:
    """Return channels stacked to (C, z, y, x), padded to even sizes."""
    return torch.stack([torch.from_numpy(even_sized(channel)) for channel in channels])
