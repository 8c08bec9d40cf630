"""Learning rate of a training, by its step and, for some schedules, its validations."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from napari_rln.train.recipes import RECIPES
from napari_rln.train.training_settings import TrainSettings

WARM_UP = 20
"""Steps of rising learning rate."""

_PATIENCE = 10  # validations without a smaller error: a plateau


@dataclass
class LearningRate:
    """The learning rate of a training.

    Attributes
    ----------
    settings
        Settings of the training.
    plateaus, waited, least
        Plateaus of the validation error so far, validations since its last fall or plateau, and the
        smallest error; none before the first.
    """

    settings: TrainSettings
    plateaus: int = 0
    waited: int = 0
    least: float | None = None

    def at(self, step: int, total: int) -> float:
        """Return the rate of a step of a total number."""
        highest = self.settings.learning_rate
        if self.settings.schedule == "paper":
            schedule = RECIPES[self.settings.architecture].schedule
            return highest * schedule(step, total, self.plateaus)
        return highest * cosine(step, total)

    def observe(self, error: float) -> None:
        """Adapt the rate to the error of a validation."""
        if self.least is None or error < self.least:
            self.least, self.waited = error, 0
            return
        self.waited += 1
        if self.waited == _PATIENCE:
            self.plateaus, self.waited = self.plateaus + 1, 0

    def state(self) -> dict[str, Any]:
        """Return the state for resuming, JSON types."""
        return {"plateaus": self.plateaus, "waited": self.waited, "least": self.least}


def cosine(step: int, total: int) -> float:
    """Return the fraction of the highest rate: rising at first, then a cosine to 0."""
    warm = min(1.0, (step + 1) / WARM_UP)
    return float(warm * 0.5 * (1 + np.cos(np.pi * step / total)))
