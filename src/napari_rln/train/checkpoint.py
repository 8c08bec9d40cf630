"""The state of a training in a file: safetensors and JSON, like a model; reading runs no code."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Self

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from napari_rln.core.errors import RlnError
from napari_rln.core.limits import as_dict
from napari_rln.io.paths import atomic
from napari_rln.train.estimates_on_disk import Prepared
from napari_rln.train.training_settings import Quality

_KEY = "napari-rln training"
_DESCRIBED = ("settings", "inputs", "step", "total", "frozen", "losses")

Tensors = dict[str, torch.Tensor]


class BestWeights(NamedTuple):
    """The best weights so far, and how good they are.

    Attributes
    ----------
    quality, error, share
        See :class:`napari_rln.train.validation.Examination`.
    step
        After which they were reached; 0 for those that the training began with.
    weights
        By their names in the network.
    """

    quality: Quality
    error: float
    share: float
    step: int
    weights: Tensors


@dataclass(frozen=True, kw_only=True, eq=False)
class Checkpoint:
    """All that a training needs to go on.

    Attributes
    ----------
    settings, inputs
        Of the training, so that it is not gone on with as another.
    step, total
        Done and to do.
    frozen
        Whether the statistics of batch normalisation are held.
    losses
        Of the last step.
    weights
        By their names in the network.
    moments
        The optimiser's, by the numbers of the weights.
    best
        None where no weights were examined yet.
    """

    settings: dict[str, Any]
    inputs: dict[str, str]
    step: int
    total: int
    frozen: bool
    losses: dict[str, float]
    weights: Tensors
    moments: dict[int, Tensors]
    best: BestWeights | None = None

    def check(self, settings: Mapping[str, Any], inputs: Mapping[str, Any], path: Path) -> None:
        """Raise unless the state is of a training with these settings and inputs.

        Raises
        ------
        RlnError
            With the names of what differs.
        """
        for then, given in ((self.settings, settings), (self.inputs, inputs)):
            now = json.loads(json.dumps(given))
            differ = sorted(k for k in {*then, *now} if then.get(k) != now.get(k))
            if differ:
                raise RlnError(
                    f"{path.name} is of another training: {', '.join(differ)} differ; train anew "
                    "without `resume`, or with the settings of then."
                )

    def save(self, path: Path) -> None:
        """Write the state, whole or not at all."""
        parts = {"network": self.weights}
        parts |= {f"adam.{number}": moments for number, moments in self.moments.items()}
        described = {name: getattr(self, name) for name in _DESCRIBED}
        if self.best is not None:
            parts["best"] = self.best.weights
            described["best"] = {
                "quality": as_dict(self.best.quality),
                "error": self.best.error,
                "share": self.best.share,
                "step": self.best.step,
            }
        tensors = {
            f"{part}.{name}": value.contiguous()
            for part, values in parts.items()
            for name, value in values.items()
        }
        with atomic(path) as temporary:
            temporary.write_bytes(save(tensors, {_KEY: json.dumps(described)}))

    @classmethod
    def load(cls, path: Path) -> Self:
        """Return the state in a file.

        Raises
        ------
        RlnError
            If there is none, or the file is damaged or something else.
        """
        if not path.is_file():
            raise RlnError(f"there is no checkpoint {path} to resume from; train without `resume`.")
        try:
            with safe_open(path, framework="pt") as file:
                metadata = file.metadata() or {}
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            described = json.loads(metadata[_KEY])
            moments: dict[int, Tensors] = {}
            for name, value in _part(tensors, "adam").items():
                number, moment = name.split(".")
                moments.setdefault(int(number), {})[moment] = value
            best = described.pop("best", None)
            if best is not None:
                quality = Quality(**best.pop("quality"))
                best = BestWeights(quality=quality, weights=_part(tensors, "best"), **best)
            return cls(**described, weights=_part(tensors, "network"), moments=moments, best=best)
        except (SafetensorError, OSError, AttributeError, KeyError, TypeError, ValueError) as error:
            raise RlnError(f"{path.name} is no checkpoint of a training ({error}).") from error


def discard(checkpoint: Path) -> None:
    """Remove a training that was left off: its state, and what was prepared for it."""
    checkpoint.unlink(missing_ok=True)
    Prepared.beside(checkpoint).remove()


def _part(tensors: Tensors, prefix: str) -> Tensors:
    """Return the tensors of a prefix, by the rest of their names."""
    start = f"{prefix}."
    return {k.removeprefix(start): v for k, v in tensors.items() if k.startswith(start)}
