"""Disk cache of the initial estimates of examples during a training.

Computing them takes minutes; an interrupted training reuses those already computed. The name of a
file is the hash of everything that its estimate depends on.
"""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np

from napari_rln.core.volume import FloatArray
from napari_rln.io.paths import atomic

_ENDING = ".estimate.npy"


class EstimateCache:
    """Cached initial estimates of a training, in a folder created when needed; none: no cache."""

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder

    @classmethod
    def beside(cls, checkpoint: Path | None) -> "EstimateCache":
        """Return the cache beside a checkpoint; without a checkpoint, no cache."""
        return cls(checkpoint and checkpoint.with_suffix(".prepared"))

    def estimate(self, depends_on: object, compute: Callable[[], FloatArray]) -> FloatArray:
        """Return an estimate, (Z, Y, X), from the cache or newly computed.

        ``depends_on`` is everything it depends on, in JSON types. Raise an OSError if the disk is
        full.
        """
        if self._folder is None:
            return compute()
        key = hashlib.sha256(json.dumps(depends_on, sort_keys=True).encode()).hexdigest()[:16]
        path = self._folder / f"{key}{_ENDING}"
        try:
            cached: FloatArray = np.load(path)
        except (OSError, ValueError, EOFError):  # missing or damaged
            cached = compute()
            self._folder.mkdir(exist_ok=True)
            with atomic(path) as temporary:
                np.save(temporary, cached)
        return cached

    def remove(self) -> None:
        """Remove the cached estimates, and their folder if it is then empty."""
        if self._folder is None or not self._folder.is_dir():
            return
        for path in self._folder.glob(f"*{_ENDING}"):
            path.unlink(missing_ok=True)
        if not any(self._folder.iterdir()):
            self._folder.rmdir()
