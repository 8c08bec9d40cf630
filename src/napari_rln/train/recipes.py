"""Losses, schedules, learning rates and presets with which each architecture is trained."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch.nn.functional import mse_loss

from napari_rln.networks.architectures.base import Outputs
from napari_rln.networks.architectures.registry import ArchitectureName, class_of
from napari_rln.train.loss import Losses, global_ssim
from napari_rln.train.training_settings import PRESETS, Preset, TrainSettings

_LEAST_NORM = 1e-3  # of a ground truth, that an error is relative to

Loss = Callable[[Outputs, torch.Tensor], torch.Tensor]
"""Scalar loss of the outputs for a ground truth (N, 1, D, H, W)."""

Schedule = Callable[[int, int, int], float]
"""Fraction of the highest learning rate, by the step, the total number of steps, and the number of
plateaus of the validation error so far."""


def _constant(step: int, total: int, plateaus: int) -> float:
    return 1.0


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Loss, schedule and settings with which an architecture is trained.

    Attributes
    ----------
    loss
        Loss of its authors; none for the Richardson-Lucy Network, whose losses depend on its start.
    schedule
        Schedule of its authors.
    budget
        Settings for a budget common to all architectures: the highest learning rate for its
        minutes, chosen on validation volumes (``benchmarks/rivals.py``).
    paper
        Settings of its authors, as far as they are published. Patches are cubes here; those of CARE
        and RCAN have as many voxels as the authors'.
    """

    loss: Loss | None = None
    schedule: Schedule = _constant
    budget: Mapping[str, Any] = field(default_factory=dict)
    paper: Mapping[str, Any] = field(default_factory=dict)

    def losses(self, outputs: Outputs, truth: torch.Tensor) -> Losses:
        """Return the loss of the authors, with mean squared error and structural similarity."""
        assert self.loss is not None
        mse, ssim = mse_loss(outputs.output, truth), global_ssim(outputs.output, truth)
        return Losses(self.loss(outputs, truth), mse, ssim, mse.new_zeros(()))


def _absolute_error(outputs: Outputs, truth: torch.Tensor) -> torch.Tensor:
    return (outputs.output - truth).abs().mean()


def _squared_error(outputs: Outputs, truth: torch.Tensor) -> torch.Tensor:
    return mse_loss(outputs.output, truth)


def _relative_norm(outputs: Outputs, truth: torch.Tensor) -> torch.Tensor:
    norms = truth.square().sum((1, 2, 3, 4)).sqrt().clamp_min(_LEAST_NORM)
    return ((outputs.output - truth).square().sum((1, 2, 3, 4)).sqrt() / norms).mean()


def _dense_decon_loss(outputs: Outputs, truth: torch.Tensor) -> torch.Tensor:
    """Return mse - ln((1 + ssim) / 2) - 1.3 times the minimum of the output."""
    output = outputs.output
    similarity = torch.log((1 + global_ssim(output, truth)) / 2)
    return mse_loss(output, truth) - similarity - 1.3 * output.min()


def _symmetry_loss(outputs: Outputs, truth: torch.Tensor) -> torch.Tensor:
    assert outputs.symmetry is not None
    return mse_loss(outputs.output, truth) + 0.01 * outputs.symmetry


_UNROLLED = {"steps": 20_000, "batch": 1, "shape": (64, 64, 64)}

RECIPES: dict[ArchitectureName, Recipe] = {
    "rln": Recipe(schedule=lambda step, total, plateaus: float(0.95 ** (step / 600))),
    "care": Recipe(
        loss=_absolute_error,
        schedule=lambda step, total, plateaus: float(0.5**plateaus),
        budget={"learning_rate": 1e-3},
        paper={
            "steps": 40_000, "learning_rate": 4e-4, "batch": 16, "patch": 40,
            "normalisation": "percentiles", "validate": 11, "validate_every": 400,
        },
    ),
    "rcan": Recipe(
        loss=_absolute_error,
        schedule=lambda step, total, plateaus: float(0.5 ** (4 * step // total)),
        budget={"learning_rate": 1e-3},
        paper={
            "steps": 76_800, "learning_rate": 1e-4, "batch": 1, "patch": 100,
            "normalisation": "percentiles",
        },
    ),
    "ddn": Recipe(
        loss=_dense_decon_loss,
        schedule=lambda step, total, plateaus: float(0.98 ** (step // 150)),
        budget={"learning_rate": 3e-3, "frozen": 0.0},  # needs the statistics of its own batches
        paper={
            "steps": 12_000, "learning_rate": 0.04, "batch": 1, "patch": 128,
            "normalisation": "percentiles", "bn_momentum": 0.1,
        },
    ),
    "ista": Recipe(
        loss=_symmetry_loss,
        budget={"learning_rate": 1e-3},
        paper=_UNROLLED | {"learning_rate": 1e-4},
    ),
    "ista-large": Recipe(
        loss=_symmetry_loss,
        budget={"learning_rate": 5e-4},
        paper=_UNROLLED | {"learning_rate": 1e-4},
    ),
    "admm": Recipe(
        loss=_relative_norm,
        budget={"learning_rate": 1e-3},
        paper=_UNROLLED | {"learning_rate": 1e-3},
    ),
    "kld": Recipe(
        loss=_squared_error,
        budget={"learning_rate": 0.02},
        paper=_UNROLLED | {"steps": 1_000, "learning_rate": 0.02, "examples": 1},
    ),
}  # fmt: skip
"""The recipes of all architectures, by their names."""


def settings_of(architecture: ArchitectureName, preset: Preset) -> TrainSettings:
    """Return the settings of a preset for an architecture.

    The preset paper follows its authors. Any other is a budget common to all architectures: the
    same volumes and the same time or number of steps, with the loss of the authors and a learning
    rate for that time.
    """
    settings, recipe = PRESETS[preset], RECIPES[architecture]
    if architecture == "rln":
        return settings
    own: dict[str, Any] = {"normalisation": "brightness", "mirror": False}
    if preset == "paper":
        own |= {"initial": "estimate"} | dict(recipe.paper)
        return replace(settings, architecture=architecture, **own)
    own |= {"variant": "paper", "start": "matched", "loss": "paper"} | dict(recipe.budget)
    if class_of(architecture).needs_psf:  # light of a patch would come from beyond it
        own |= {"batch": 1, "patch": 2 * (min(settings.shape) // 2)}
    return replace(settings, architecture=architecture, **own)
