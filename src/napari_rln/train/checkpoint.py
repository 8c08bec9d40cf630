"""Checkpoint files of a training: safetensors and JSON, like a model; loading runs no code."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Self

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from napari_rln.core.errors import RlnError
from napari_rln.core.limits import as_dict
from napari_rln.io.paths import atomic
from napari_rln.train.estimates_on_disk import EstimateCache
from napari_rln.train.training_settings import Baseline, Quality, TrainSettings

_KEY = "napari-rln training"
_METADATA = (
    "settings", "inputs", "step", "total", "frozen", "losses", "volumes", "initial_errors",
    "learning_rate", "seconds",
)  # fmt: skip

Tensors = dict[str, torch.Tensor]


class BestWeights(NamedTuple):
    """The best weights so far and their scores, as in a validation.

    ``step`` is that after which they were reached; 0 for the initial weights.
    """

    quality: Quality
    error: float
    estimate_weight: float
    step: int
    weights: Tensors


@dataclass(frozen=True, kw_only=True, eq=False)
class Checkpoint:
    """Complete state of a training, sufficient to resume it with the same settings and inputs.

    ``frozen`` tells whether the statistics of batch normalisation are; the losses are those of the
    last step, the moments those of the optimiser, by number of the weight. ``volumes`` are the
    numbers of held-out and of first examples, ``initial_errors`` those of the initial model on
    the former, whose classical scores are ``baseline``, ``learning_rate`` is the state of the
    schedule, and ``seconds`` the duration so far.
    """

    settings: dict[str, Any]
    inputs: dict[str, str]
    step: int
    total: int
    frozen: bool
    losses: dict[str, float]
    weights: Tensors
    moments: dict[int, Tensors]
    volumes: tuple[int, int]
    initial_errors: list[float]
    learning_rate: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0
    best: BestWeights | None = None
    baseline: Baseline | None = None

    def check(self, settings: Mapping[str, Any], inputs: Mapping[str, Any], path: Path) -> None:
        """Raise an RlnError with the names of the settings or inputs of another training."""
        # A setting that a later version added had its default.
        added = {k: v for k, v in as_dict(TrainSettings()).items() if k in settings}
        before = json.loads(json.dumps(added)) | self.settings
        for saved, present in ((before, settings), (self.inputs, inputs)):
            now = json.loads(json.dumps(present))
            differ = sorted(k for k in {*saved, *now} if saved.get(k) != now.get(k))
            if differ:
                raise RlnError(
                    f"{path.name} is of another training: {', '.join(differ)} differ; resume with "
                    "the same settings, or train without `resume`."
                )

    def save(self, path: Path) -> None:
        """Write the state atomically."""
        parts = {"network": self.weights}
        parts |= {f"adam.{number}": moments for number, moments in self.moments.items()}
        fields = {name: getattr(self, name) for name in _METADATA}
        fields["baseline"] = self.baseline and asdict(self.baseline)
        if self.best is not None:
            best = self.best._asdict()
            parts["best"] = best.pop("weights")
            fields["best"] = best | {"quality": as_dict(self.best.quality)}
        tensors = {
            f"{part}.{name}": value.contiguous()
            for part, values in parts.items()
            for name, value in values.items()
        }
        with atomic(path) as temporary:
            temporary.write_bytes(save(tensors, {_KEY: json.dumps(fields)}))

    @classmethod
    def load(cls, path: Path) -> Self:
        """Return the state in a file.

        Raise an RlnError if the file is missing, damaged or not a checkpoint.
        """
        if not path.is_file():
            raise RlnError(f"there is no checkpoint {path} to resume from; train without `resume`.")
        try:
            with safe_open(path, framework="pt") as file:
                metadata = file.metadata() or {}
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            fields = json.loads(metadata[_KEY])
            moments: dict[int, Tensors] = {}
            for name, value in _part(tensors, "adam").items():
                number, moment = name.split(".")
                moments.setdefault(int(number), {})[moment] = value
            best = fields.pop("best", None)
            if best is not None:
                quality = Quality(**best.pop("quality"))
                best = BestWeights(quality=quality, weights=_part(tensors, "best"), **best)
            baseline = fields.pop("baseline", None)  # which earlier versions did not save
            if baseline is not None:
                scores = {kind: found and Quality(**found) for kind, found in baseline.items()}
                fields["baseline"] = Baseline(**scores)
            return cls(**fields, weights=_part(tensors, "network"), moments=moments, best=best)
        except (SafetensorError, OSError, AttributeError, KeyError, TypeError, ValueError) as error:
            raise RlnError(
                f"{path.name} is not a training checkpoint ({error}); train without `resume`."
            ) from error


def discard(checkpoint: Path) -> None:
    """Remove a checkpoint and the initial estimates prepared for its training."""
    checkpoint.unlink(missing_ok=True)
    EstimateCache.beside(checkpoint).remove()


def _part(tensors: Tensors, prefix: str) -> Tensors:
    """Return the tensors with a prefix, by name without it."""
    start = f"{prefix}."
    return {k.removeprefix(start): v for k, v in tensors.items() if k.startswith(start)}
