"""Application of a network to an image: its input, its output, and tiles.

Tiles overlap by the network's receptive field, so that their result equals that of the whole,
unless the network looks at all of it.
"""

import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
import torch

from napari_rln.core.generators import finish
from napari_rln.core.report import Report
from napari_rln.core.tiles import STEP, Tile, even_sized
from napari_rln.core.volume import Box, FloatArray, Mask, Shape, Volume
from napari_rln.deconvolution.calibration import Calibration
from napari_rln.deconvolution.method import Json
from napari_rln.deconvolution.prepared_view import PreparedView
from napari_rln.deconvolution.stopping_trial import Trial
from napari_rln.networks.data_consistency import HALO as MERGE_HALO
from napari_rln.networks.data_consistency import Consistency, Merge, explaining_factor
from napari_rln.networks.model import Model
from napari_rln.networks.normalisation import Normalisation
from napari_rln.networks.torch_inference import Inference

BRIGHTNESS_OF = 1
"""Index of the estimate whose brightness sets the scale, among several: smooth, yet sharpened."""


def halo_of(model: Model, network: Inference | None = None) -> int:
    """Return the voxels on either side of a tile that are read.

    For the PSF of the network prepared for inference, or else that of the training.
    """
    if network is not None:
        halo = network.halo
    else:
        halo = model.network.halo(None if model.psf is None else model.psf.shape)
    if model.refinement is not None:
        return halo + model.refinement.settings.receptive_field
    return halo + MERGE_HALO * model.start.needs_psf


class Combination(Protocol):
    """Combination of a network's output with the initial estimates."""

    def __call__(
        self, output: FloatArray, estimate: FloatArray, scale: float, light: FloatArray
    ) -> FloatArray:
        """Return the result, (z, y, x) float32, image units, background removed.

        ``estimate`` is (z, y, x), or several, and ``light`` the image, all of that kind; ``scale``
        is that of the normalisation, image units.
        """


class BlockInput(NamedTuple):
    """Input of a network.

    Attributes
    ----------
    x
        Channels, (z, y, x) each: the normalised image, or its views.
    E0
        Same number of channels of the initial estimate; none if that is the image.
    light
        (z, y, x), the image without background, image units; for a refinement.
    """

    x: Sequence[FloatArray]
    E0: Sequence[FloatArray] | None
    light: FloatArray


@dataclass(frozen=True, kw_only=True, eq=False)
class Application:
    """Application of a network to one image.

    Attributes
    ----------
    model, network
        Model, and its network prepared for inference.
    scaling
        Normalisation of the whole volume.
    background
        Background, image units.
    combine
        Combines the network's output with the initial estimates: merges or refines; the output is
        the result when none.
    """

    model: Model
    network: Inference
    scaling: Normalisation
    background: float
    combine: Combination | None = None

    def input_of(
        self, image: FloatArray, estimate: FloatArray, mask: Mask | None = None
    ) -> BlockInput:
        """Return the input for an image and its initial estimate, image units.

        The image is (z, y, x), the estimate too or several of them, (n, z, y, x). Unmeasured voxels
        are raised to at least the background.
        """
        background, scaling = np.float32(self.background), self.scaling
        if mask is not None:
            image = np.where(mask, image, np.maximum(image, background))
        last = last_of(estimate)
        return BlockInput(
            [scaling.apply(image)], [scaling.apply(last + background)], image - background
        )

    def output_of(self, channels: BlockInput, estimate: FloatArray, inner: Box) -> FloatArray:
        """Return the result in the inner part of a window, image units, background removed."""
        step = self.model.network.step if self.model.refinement is None else STEP
        x = _stacked(channels.x, step)
        output = self.network(x, None if channels.E0 is None else _stacked(channels.E0, step))[0]
        whole = tuple(slice(n) for n in estimate.shape[-3:])
        data: FloatArray = output.to("cpu", torch.float32).numpy()[whole]
        # The normalisation includes the offset; a result excludes the background.
        data = self.scaling.undo(data * np.float32(self.model.output_scale))
        data -= np.float32(self.background)
        if self.model.estimate_weight:
            data += np.float32(self.model.estimate_weight) * (last_of(estimate) - data)
        if self.combine is not None:
            if self.model.refinement is None:
                estimate = last_of(estimate)
            data = self.combine(data, estimate, self.scaling.scale, channels.light)
        return data[inner]

    def window(
        self, image: FloatArray, estimate: FloatArray, inner: Box, mask: Mask | None
    ) -> FloatArray:
        """Return the result in the inner part of a window, image units, background removed.

        ``image``, ``estimate`` (without background) and ``mask``, as for :meth:`tiles`, are of the
        window, (z, y, x). The network has its full receptive field around the inner part.
        """
        piece = self.output_of(self.input_of(image, estimate, mask), estimate, inner)
        return self._measured(
            piece, last_of(estimate)[inner], None if mask is None else mask[inner]
        )

    def tiles(
        self,
        read: Callable[[Box], BlockInput],
        tiles: Sequence[Tile],
        estimate: FloatArray,
        started: float,
        mask: Mask | None = None,
    ) -> Generator[Report, None, FloatArray]:
        """Yield reports with finished tiles; return (Z, Y, X), image units, background removed.

        ``read`` returns the network's input for a box of the volume. The tiles cover the volume,
        with the network's receptive field as their halo. ``estimate`` is (Z, Y, X), or several of
        them. Where ``mask``, (Z, Y, X) of measured voxels, is false the result is the initial
        estimate. ``started`` is ``time.perf_counter()`` at the start.
        """
        last = last_of(estimate)
        whole = np.empty_like(last)
        for number, tile in enumerate(tiles, 1):
            window = estimate[(..., *tile.window)]
            piece = self.output_of(read(tile.window), window, tile.inner)
            shown = None if mask is None else mask[tile.core]
            piece = self._measured(piece, last[tile.core], shown)
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

    def _measured(self, piece: FloatArray, estimate: FloatArray, mask: Mask | None) -> FloatArray:
        """Return a result with the initial estimate where nothing was measured.

        A refinement was trained with such voxels.
        """
        if mask is None or self.model.refinement is not None:
            return piece
        return np.where(mask, piece, estimate)


def consistency_of(
    trial: Trial | None,
    model: Model,
    network: Inference,
    tiles_of: Callable[[Shape], Sequence[Tile]],
) -> Consistency:
    """Return the parameters of merging a network's output with its initial estimate, for an image.

    ``trial`` is that of the image's deconvolution; the defaults are returned when none.
    ``tiles_of`` returns the tiles of a volume of a shape.
    """
    if trial is None:
        return Consistency()
    image, mask = trial.view.image.data, trial.view.mask
    estimate = trial.estimate(model.start.after(trial.best))
    background = trial.view.calibration.background
    scaling = scaling_of(model, image, estimate, trial.view.calibration)
    applied = Application(model=model, network=network, scaling=scaling, background=background)

    def read(box: Box) -> BlockInput:
        return applied.input_of(image[box], estimate[box], None if mask is None else mask[box])

    steps = applied.tiles(read, tiles_of(trial.view.image.shape), estimate, 0.0, mask)
    return Consistency.of(trial, estimate, finish(steps), scaling.scale)


def merge_of(model: Model, consistency: Consistency, psf: Volume | None = None) -> Merge:
    """Return the merging of a model's output with its initial estimate; the PSF is for detail."""
    data = None if psf is None else psf.data
    return Merge(consistency, data, root=model.normalisation == "photons")


def explain_light(
    model: Model,
    view: PreparedView,
    result: FloatArray,
    estimate: FloatArray,
    scale: float,
    outside: FloatArray | None,
    device: torch.device,
) -> Json:
    """Scale a result in place so that it explains its image; return the parameters of that.

    They are those of :class:`Consistency`: the factor is on the network's output, or on the result
    of a refinement. ``estimate`` is the initial one, ``scale`` that of the normalisation; result,
    estimate and ``outside``, the light from beyond the field of view, are (Z, Y, X), image units.
    """
    name, points = "result", None
    if model.refinement is None:
        name = "output"
        points = merge_of(model, Consistency()).points_of(estimate, scale, view.mask)
    factor = explaining_factor(view, result, outside, device, points)
    result *= np.float32(factor)
    if points is not None:
        result -= np.float32(factor - 1) * points
    return {name: factor}


def brightness_estimate(estimates: FloatArray) -> FloatArray:
    """Return the estimate whose brightness sets the scale, (Z, Y, X): of several, a smooth one."""
    return estimates[BRIGHTNESS_OF] if estimates.ndim == 4 else estimates


def scaling_of(
    model: Model, image: FloatArray, estimates: FloatArray, calibration: Calibration
) -> Normalisation:
    """Return the normalisation of an image and its estimates, as for a model."""
    chosen = brightness_estimate(estimates)
    scaling = Normalisation.of(image, chosen, calibration.background, model.normalisation)
    return scaling.of_photons(calibration) if model.normalisation == "photons" else scaling


def last_of(estimates: FloatArray) -> FloatArray:
    """Return the last of several estimates, or the only one, (Z, Y, X)."""
    return estimates[-1] if estimates.ndim == 4 else estimates


def _stacked(channels: Sequence[FloatArray], step: int) -> torch.Tensor:
    """Return channels stacked to (C, z, y, x), padded to multiples of a step."""
    return torch.stack([torch.from_numpy(even_sized(channel, step)) for channel in channels])
