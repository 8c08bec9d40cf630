"""Settings with which the architectures beside the Richardson-Lucy Network are trained."""

from dataclasses import replace
from typing import Any

from napari_rln.networks.architectures.registry import ArchitectureName, class_of
from napari_rln.train.training_settings import PRESETS, Preset, TrainSettings

_COMMON: dict[str, Any] = {"variant": "paper", "mirror": False, "loss": "paper"}

# Peak learning rates for the minutes of a common budget, chosen on validation volumes
# (benchmarks/rivals.py); DenseDeconNet needs the statistics of its own batches.
_BUDGET: dict[ArchitectureName, dict[str, Any]] = {
    "care": {"learning_rate": 1e-3},
    "rcan": {"learning_rate": 1e-3},
    "ddn": {"learning_rate": 0.003, "frozen": 0.0},
    "ista": {"learning_rate": 1e-3},
    "ista-large": {"learning_rate": 5e-4},
    "admm": {"learning_rate": 1e-3},
    "kld": {"learning_rate": 0.02},
}

# As published, as far as it is: loss and schedule are functions of the architecture. Patches are
# cubes here; those of CARE and RCAN have as many voxels as the authors'.
_PAPER: dict[ArchitectureName, dict[str, Any]] = {
    "care": {
        "steps": 40_000, "learning_rate": 4e-4, "batch": 16, "patch": 40,
        "normalisation": "percentiles", "validate": 11, "validate_every": 400,
    },
    "rcan": {
        "steps": 76_800, "learning_rate": 1e-4, "batch": 1, "patch": 100,
        "normalisation": "percentiles",
    },
    "ddn": {
        "steps": 12_000, "learning_rate": 0.04, "batch": 1, "patch": 128,
        "normalisation": "percentiles", "bn_momentum": 0.1,
    },
    "ista": {"steps": 20_000, "learning_rate": 1e-4, "batch": 1, "shape": (64, 64, 64)},
    "ista-large": {"steps": 20_000, "learning_rate": 1e-4, "batch": 1, "shape": (64, 64, 64)},
    "admm": {"steps": 20_000, "learning_rate": 1e-3, "batch": 1, "shape": (64, 64, 64)},
    "kld": {
        "steps": 1_000, "learning_rate": 0.02, "batch": 1, "examples": 1, "shape": (64, 64, 64),
    },
}  # fmt: skip


def settings_of(architecture: ArchitectureName, preset: Preset) -> TrainSettings:
    """Return the settings of a preset for an architecture.

    The preset paper follows its authors. Any other is a budget common to all architectures: the
    same volumes and the same time or number of steps, with the loss of the authors and a learning
    rate for that time.
    """
    settings = PRESETS[preset]
    if architecture == "rln":
        return settings
    if preset == "paper":
        own = {"normalisation": "brightness", "initial": "estimate"} | _PAPER[architecture]
        return replace(settings, architecture=architecture, mirror=False, **own)
    own = _COMMON | _BUDGET[architecture]
    if class_of(architecture).needs_psf:  # light of a patch would come from beyond it
        own |= {"batch": 1, "patch": 2 * (min(settings.shape) // 2)}
    return replace(
        settings, architecture=architecture, start="matched", normalisation="brightness", **own
    )
