"""Batches of random patches, augmented as the PSF's symmetry allows."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch

from napari_rln.core.volume import FloatArray
from napari_rln.networks.normalisation import HIGH, LOW
from napari_rln.networks.rln import combine_views
from napari_rln.train.examples import Example, Symmetry
from napari_rln.train.training_settings import TrainSettings

_TRIES = 4  # draws of a patch before an empty one is accepted


class Batch(NamedTuple):
    """Input of a training step, in normalised units.

    Image, initial estimate and ground truth (one channel) are (N, C, D, H, W); ``power`` (N,) is
    the variance of the volume's ground truth. For a refinement image, candidates instead of the
    initial estimate, and ground truth are in units of the scale. ``about`` (N, 2) is photons of the
    scale and the background in units of it; zeros for an affine normalisation.
    """

    x: torch.Tensor
    E0: torch.Tensor
    truth: torch.Tensor
    power: torch.Tensor
    about: torch.Tensor

    def to(self, device: torch.device) -> "Batch":
        """Return the batch on a device."""
        return Batch(*(part.to(device) for part in self))

    def without_margin(self, margin: int) -> "Batch":
        """Return the inner part of the patches."""
        x, E0, truth = (inner(part, margin) for part in self[:3])
        return Batch(x, E0, truth, self.power, self.about)


def draw_batch(
    examples: Sequence[Example],
    settings: TrainSettings,
    symmetry: Symmetry,
    seed: tuple[int, ...],
    *,
    refined: bool = False,
) -> Batch:
    """Return random patches of random examples, reproducible for the same arguments.

    With ``refined`` they are for the refinement, else for the network.
    """
    rng = np.random.default_rng(seed)
    patches, powers, about = [], [], []
    for _ in range(settings.batch):
        chosen = examples[int(rng.integers(len(examples)))]
        patch = _patch(chosen, settings, rng, refined=refined)
        if settings.augment:
            patch = _augmented(patch, symmetry, rng)
        if settings.normalisation == "percentiles":
            patch = _by_percentiles(patch)
        patches.append(np.ascontiguousarray(patch))
        powers.append(chosen.power)
        about.append(chosen.about if chosen.scaling.gain else (0.0, 0.0))
    stack = torch.from_numpy(np.stack(patches).astype(np.float32, copy=False))
    if refined:
        x, E0, truth = stack[:, :1], stack[:, 1:-1], stack[:, -1:]
        images = [x]
    else:
        *images, E0, truth = (stack[:, i : i + 1] for i in range(stack.shape[1]))
        x = images[0]
    if len(images) == 2:
        x = torch.cat(combine_views(settings.views, *images), 1)
        E0 = x if settings.variant == "paper" else E0.expand_as(x)
    x, E0, truth = (
        part.contiguous(memory_format=torch.channels_last_3d) for part in (x, E0, truth)
    )
    powers_, about_ = (torch.tensor(v, dtype=torch.float32) for v in (powers, about))
    return Batch(x, E0, truth, powers_, about_)


def _patch(
    chosen: Example, settings: TrainSettings, rng: np.random.Generator, *, refined: bool
) -> FloatArray:
    """Return a patch that is not empty: image or both views, initial estimate, ground truth.

    For a refinement: image, candidates and ground truth.

    It starts on even voxels, like tiles in inference.
    """
    side, least = settings.patch, settings.fullness * chosen.mean
    for _ in range(_TRIES):
        corner = [2 * int(rng.integers((n - side) // 2 + 1)) for n in chosen.target.shape]
        box = tuple(slice(c, c + side) for c in corner)
        if chosen.target[box].mean(dtype=np.float32) >= least:
            break
    if refined:
        assert chosen.light is not None
        return np.stack([p[box] for p in (chosen.light, *chosen.candidates, chosen.target)])
    images = [chosen.x] if chosen.x_b is None else [chosen.x, chosen.x_b]
    return np.stack([part[box] for part in (*images, chosen.E0, chosen.target)])


def _augmented(patch: FloatArray, symmetry: Symmetry, rng: np.random.Generator) -> FloatArray:
    for axis, allowed in enumerate(symmetry.flips):
        if allowed and rng.random() < 0.5:
            patch = np.flip(patch, axis + 1)
    if symmetry.quarter_turn and rng.random() < 0.5:
        patch = patch.swapaxes(2, 3)
    return patch


def _by_percentiles(patch: FloatArray) -> FloatArray:
    """Return each part stretched to its own percentiles, as by the paper's authors."""
    stretched = []
    for part in patch:
        low, high = np.percentile(part, (LOW, HIGH))
        stretched.append((part - low) / max(high - low, 1e-6))
    stretched[-1] = stretched[-1].clip(0)
    return np.stack(stretched).astype(np.float32)


def inner(tensor: torch.Tensor, margin: int) -> torch.Tensor:
    """Return (N, C, D, H, W) without a margin on all sides."""
    cut = slice(margin, -margin or None)
    return tensor[:, :, cut, cut, cut]
