"""The state of a training in a file: safetensors and JSON, like a model; reading runs no code."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from napari_rln.errors import RlnError
from napari_rln.io import atomic

_KEY = "napari-rln training"


@dataclass(frozen=True, kw_only=True, eq=False)
class Checkpoint:
    """All that a training needs to go on.

    Attributes
    ----------
    tensors
        Weights, the optimiser's moments and the best weights, by prefixed names.
    described
        The rest, in JSON's types.
    """

    tensors: dict[str, torch.Tensor]
    described: dict[str, Any]

    def part(self, prefix: str) -> dict[str, torch.Tensor]:
        """Return the tensors of a prefix, by the rest of their names."""
        start = f"{prefix}."
        return {k.removeprefix(start): v for k, v in self.tensors.items() if k.startswith(start)}

    def differing(self, part: str, now: dict[str, Any]) -> list[str]:
        """Return the names in a described part whose values are not those of now."""
        then = self.described[part]
        now = json.loads(json.dumps(now))
        return sorted(k for k in {*then, *now} if then.get(k) != now.get(k))

    def save(self, path: Path) -> None:
        """Write the state, whole or not at all."""
        tensors = {name: value.contiguous() for name, value in self.tensors.items()}
        with atomic(path) as temporary:
            temporary.write_bytes(save(tensors, {_KEY: json.dumps(self.described)}))

    @classmethod
    def load(cls, path: Path) -> Self:
        """Return the state in a file.

        Raises
        ------
        RlnError
            If there is none, or the file is damaged or something else.
        """
        if not path.is_file():
            raise RlnError(f"there is no checkpoint {path} to resume from; train without --resume.")
        try:
            with safe_open(path, framework="pt") as file:
                metadata = file.metadata() or {}
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            described = json.loads(metadata[_KEY])
        except (SafetensorError, OSError, KeyError, ValueError) as error:
            raise RlnError(f"{path.name} is no checkpoint of a training ({error}).") from error
        return cls(tensors=tensors, described=described)
