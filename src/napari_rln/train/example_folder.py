"""Folder of synthetic training examples, created once and shared by trainings.

An example is a file: image, ground truth and classical estimates on the network's scale, in half
precision. Its number determines it, so that several processes can create examples of one folder,
and a folder can grow.
"""

import hashlib
import json
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from napari_rln import __version__
from napari_rln.core.errors import RlnError
from napari_rln.core.limits import as_dict
from napari_rln.deconvolution.calibration import calibrate, prepare_data
from napari_rln.deconvolution.prepared_view import PreparedView
from napari_rln.io.paths import atomic
from napari_rln.networks.initial_estimate import StartSettings, ladder
from napari_rln.networks.normalisation import brightness
from napari_rln.train.examples import SyntheticPairs

_RECIPE = "recipe.json"
_LARGEST = 6e4  # of a value in half precision


class StoredExample(NamedTuple):
    """An example on disk.

    Attributes
    ----------
    data
        (C, Z, Y, X) float16: image, ground truth and the estimates of the start, without
        background, divided by the scale.
    scale
        Brightness of structures, photons.
    background
        Background, photons.
    structures
        Kinds of structures drawn.
    """

    data: npt.NDArray[np.float16]
    scale: float
    background: float
    structures: tuple[str, ...]


class ExampleFolder:
    """Examples of a source with the initial estimates of a start, in a folder.

    Raises
    ------
    RlnError
        If the folder has examples of other settings.
    """

    def __init__(self, folder: Path, source: SyntheticPairs, start: StartSettings) -> None:
        self.folder, self._source, self._start = folder, source, start
        recipe = {
            "version": __version__,
            "start": as_dict(start),
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
        made = self._made(number)
        metadata = {
            "scale": repr(made.scale),
            "background": repr(made.background),
            "structures": ",".join(made.structures),
        }
        with atomic(path) as temporary:
            temporary.write_bytes(save({"data": made.data}, metadata))

    def load(self, number: int) -> StoredExample:
        """Return an example.

        Raises
        ------
        RlnError
            If its file is damaged.
        """
        path = self.path(number)
        try:
            with safe_open(path, framework="np") as file:
                metadata = file.metadata()
                data = file.get_tensor("data")
            return StoredExample(
                data,
                float(metadata["scale"]),
                float(metadata["background"]),
                tuple(metadata["structures"].split(",")),
            )
        except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
            raise RlnError(f"{path} is damaged ({error}); delete it.") from error

    def _made(self, number: int) -> StoredExample:
        pair, psf = self._source.pair(number)
        calibration = calibrate(pair.image)
        data, mask, _ = prepare_data(pair.image.data, psf.data, calibration)
        image = pair.image.with_data(data)
        view = PreparedView(image=image, psf=psf, calibration=calibration, mask=mask)
        estimates = ladder([view], self._start, torch.device("cpu"))
        background = np.float32(calibration.background)
        scale = brightness(estimates[1])
        if not scale > 0:
            raise RlnError(f"example {number} is empty.")
        volumes = [data - background, pair.truth.data, *estimates]
        scaled = np.stack(volumes) / np.float32(scale)
        record = pair.image.record
        assert record is not None
        return StoredExample(
            np.clip(scaled, -_LARGEST, _LARGEST).astype(np.float16),
            scale / calibration.camera.gain,
            calibration.background_photons,
            tuple(record.facts["structures"]),
        )
