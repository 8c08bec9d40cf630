"""Learning rate of a training, by its step and, for some schedules, its validations."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from napari_rln.train.training_settings import TrainSettings

WARM_UP = 20
"""Steps of rising learning rate."""

_PATIENCE = 10  # validations without a smaller error, after which CARE's rate is halved


@dataclass
class LearningRate:
    """The learning rate of a training.

    Attributes
    ----------
    settings
        Settings of the training.
    halvings, waited, least
        Of a rate that depends on validations: how often it was halved, how many validations have
        had no smaller error since, and the smallest error; none before the first.
    """

    settings: TrainSettings
    halvings: int = 0
    waited: int = 0
    least: float | None = None

    def at(self, step: int, total: int) -> float:
        """Return the rate of a step of a total number."""
        highest = self.settings.learning_rate
        if self.settings.schedule == "paper":
            return highest * self._of_authors(step, total)
        return highest * cosine(step, total)

    def observe(self, error: float) -> None:
        """Adapt the rate to the error of a validation."""
        if self.least is None or error < self.least:
            self.least, self.waited = error, 0
            return
        self.waited += 1
        if self.waited == _PATIENCE:
            self.halvings, self.waited = self.halvings + 1, 0

    def state(self) -> dict[str, Any]:
        """Return the state for resuming, JSON types."""
        return {"halvings": self.halvings, "waited": self.waited, "least": self.least}

    def _of_authors(self, step: int, total: int) -> float:
        """Return the fraction of the highest rate, as by the architecture's authors."""
        architecture = self.settings.architecture
        if architecture == "rln":
            return float(0.95 ** (step / 600))
        if architecture == "care":
            return float(0.5**self.halvings)
        if architecture == "rcan":
            return float(0.5 ** (4 * step // total))
        if architecture == "ddn":
            return float(0.98 ** (step // 150))
        return 1.0


def cosine(step: int, total: int) -> float:
    """Return the fraction of the highest rate: rising at first, then a cosine to 0."""
    warm = min(1.0, (step + 1) / WARM_UP)
    return float(warm * 0.5 * (1 + np.cos(np.pi * step / total)))
