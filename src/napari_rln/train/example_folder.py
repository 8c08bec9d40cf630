"""Folder of synthetic training examples, created once and shared by trainings.

An example is a file: image, ground truth and classical estimates in units of their brightness, in
half precision. Its number determines it, so that several processes can create examples of one
folder, and a folder can grow.
"""

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from napari_rln import __version__
from napari_rln.core.brightness import brightness
from napari_rln.core.errors import RlnError
from napari_rln.core.limits import as_dict
from napari_rln.core.volume import FloatArray
from napari_rln.deconvolution.ladder import COUNTS, MOST
from napari_rln.io.paths import atomic
from napari_rln.networks.initial_estimate import StartSettings
from napari_rln.networks.normalisation import NormalisationMethod
from napari_rln.train.examples import (
    Example,
    LadderVolumes,
    SyntheticPairs,
    example_of_ladder,
    ladder_volumes,
    prepared,
)

_RECIPE = "recipe.json"
_LARGEST = 6e4  # of a value in half precision


class ExampleFolder:
    """Examples of a source with the initial estimates of a start, in a folder.

    The normalisation is that of the examples when they are loaded.

    Raises
    ------
    RlnError
        If the folder has examples of other settings.
    """

    def __init__(
        self,
        folder: Path,
        source: SyntheticPairs,
        start: StartSettings,
        normalisation: NormalisationMethod,
    ) -> None:
        self.folder, self._source, self._start = folder, source, start
        self._normalisation: NormalisationMethod = normalisation
        recipe = {
            "version": __version__,
            "shape": list(source.shape),
            "seed": source.seed,
            "structures": as_dict(source.structures),
            "imaging": as_dict(source.imaging),
            "conditions": source.conditions and as_dict(source.conditions),
            "psf": source.psf and source.psf.hash,
        }
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / _RECIPE
        text = json.dumps(recipe, indent=1)
        if path.exists() and path.read_text(encoding="utf-8") != text:
            raise RlnError(
                f"{folder} has examples of other settings; give another folder, or remove it."
            )
        with atomic(path) as temporary:
            temporary.write_text(text, encoding="utf-8")
        self.hash = hashlib.sha256(text.encode()).hexdigest()[:16]

    def numbers(self) -> list[int]:
        """Return the numbers of the examples present."""
        return sorted(int(path.stem) for path in self.folder.glob("[0-9]*.safetensors"))

    def path(self, number: int) -> Path:
        """Return the file of an example."""
        return self.folder / f"{number:06d}.safetensors"

    def create(self, number: int) -> None:
        """Create an example unless present."""
        path = self.path(number)
        if path.exists():
            return
        pair, psf = self._source.pair(number)
        made = ladder_volumes(pair, prepared(pair.image, psf))
        scale = brightness(made.estimates[COUNTS[1]])
        volumes = [made.light, made.truth, *made.estimates.values()]
        scaled = np.stack(volumes) / np.float32(scale)
        stored = np.clip(scaled, -_LARGEST, _LARGEST).astype(np.float16)
        record = pair.image.record
        assert record is not None
        metadata = {
            "scale": repr(scale),
            "background": repr(made.background),
            "deviances": json.dumps(made.deviances),
            "structures": ",".join(record.facts["structures"]),
        }
        with atomic(path) as temporary:
            temporary.write_bytes(save({"data": stored}, metadata))

    def load(self, number: int, output_scale: float = 1.0) -> Example:
        """Return an example, created unless present, with its arrays alone.

        The output scale is as for :func:`napari_rln.train.examples.example`.

        Raises
        ------
        RlnError
            If its file is damaged.
        """
        made = example_of_ladder(
            self.read(number), self._start.beyond, self._normalisation, output_scale=output_scale
        )
        return _in_half_precision(made)

    def read(self, number: int) -> LadderVolumes:
        """Return what is stored of an example, created unless present, in photons.

        Raises
        ------
        RlnError
            If its file is damaged.
        """
        self.create(number)
        return read_volumes(self.path(number))


def read_volumes(path: Path) -> LadderVolumes:
    """Return what is stored of an example, in photons.

    Raises
    ------
    RlnError
        If the file is damaged.
    """
    try:
        with safe_open(path, framework="np") as file:
            metadata = file.metadata()
            scaled = file.get_tensor("data").astype(np.float32)
        scale, background = float(metadata["scale"]), float(metadata["background"])
        deviances = tuple(float(value) for value in json.loads(metadata["deviances"]))
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise RlnError(f"{path} is damaged ({error}); delete it.") from error
    light, truth, *volumes = scaled * np.float32(scale)
    estimates = dict(zip((*COUNTS, MOST), volumes, strict=False))
    return LadderVolumes(light, truth, estimates, deviances, background)


def _in_half_precision(made: Example) -> Example:
    """Return an example with smaller arrays, as there are thousands of them in memory."""

    def half(data: FloatArray) -> Any:
        return np.clip(data, -_LARGEST, _LARGEST).astype(np.float16)

    assert made.light is not None
    return replace(
        made,
        x=half(made.x),
        E0=half(made.E0),
        target=half(made.target),
        light=half(made.light),
        estimates={},
        candidates=tuple(half(candidate) for candidate in made.candidates),
    )
