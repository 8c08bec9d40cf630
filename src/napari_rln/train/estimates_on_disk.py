"""First estimates of examples, kept on the disk while a training is not complete.

They take minutes: a training that is broken off while they are made goes on with those that are
there. Each lies under the hash of all that it depends on.
"""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np

from napari_rln.core.volume import FloatArray
from napari_rln.io.paths import atomic

_ENDING = ".estimate.npy"


class Prepared:
    """Estimates of a training.

    Parameters
    ----------
    folder
        Where they lie; made with the first of them. None are kept when none.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder

    @classmethod
    def beside(cls, checkpoint: Path | None) -> "Prepared":
        """Return those of the training with a checkpoint; none are kept without one."""
        return cls(checkpoint and checkpoint.with_suffix(".prepared"))

    def estimate(self, made_of: object, make: Callable[[], FloatArray]) -> FloatArray:
        """Return an estimate, (Z, Y, X): the one that is kept, or a new one.

        Parameters
        ----------
        made_of
            All that it depends on, in JSON's types.
        make
            Makes it.

        Raises
        ------
        OSError
            If the disk is full.
        """
        if self._folder is None:
            return make()
        key = hashlib.sha256(json.dumps(made_of, sort_keys=True).encode()).hexdigest()[:16]
        path = self._folder / f"{key}{_ENDING}"
        try:
            kept: FloatArray = np.load(path)
        except (OSError, ValueError, EOFError):  # not there, or damaged
            kept = make()
            self._folder.mkdir(exist_ok=True)
            with atomic(path) as temporary:
                np.save(temporary, kept)
        return kept

    def remove(self) -> None:
        """Remove them from the disk, and their folder where nothing else is in it."""
        if self._folder is None or not self._folder.is_dir():
            return
        for path in self._folder.glob(f"*{_ENDING}"):
            path.unlink(missing_ok=True)
        if not any(self._folder.iterdir()):
            self._folder.rmdir()
