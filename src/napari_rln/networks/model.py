"""Trained models, as safetensors files of weights with a JSON card.

Loading a file reads numbers and text and runs no code.
"""

import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any, Literal, Self, get_args

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from napari_rln.core.errors import RlnError
from napari_rln.core.limits import as_dict
from napari_rln.core.record import Record, array_hash, jsonable
from napari_rln.core.volume import Volume
from napari_rln.deconvolution.convolution import of_one_size
from napari_rln.deconvolution.ladder import Ladder, StopPrediction
from napari_rln.io.paths import atomic
from napari_rln.networks.architectures.base import Architecture
from napari_rln.networks.architectures.registry import saved_network
from napari_rln.networks.inference import NOT_MIRRORED, Mirrors, Precision
from napari_rln.networks.initial_estimate import StartSettings
from napari_rln.networks.normalisation import NormalisationMethod
from napari_rln.networks.refinement import CANDIDATES, Refinement, RefinementSettings
from napari_rln.networks.rln import RLN
from napari_rln.networks.torch_inference import Inference, inference_of

FORMAT = 2
_FIRST_FORMAT = 1  # of Richardson-Lucy Networks, which earlier versions read
SUFFIX = ".safetensors"
UNIVERSAL = "universal"
"""Name of the shipped model that is the default."""

_KEY = "napari-rln"
_REFINEMENT = "refinement."  # prefix of its tensors
_PSFS = ("psf", "psf_b")  # names of their tensors, beside those of the weights


@dataclass(frozen=True, kw_only=True, eq=False)
class Model:
    """A trained network with all parameters of its application.

    Attributes
    ----------
    name
        Name of the model.
    network
        Network in inference mode.
    refinement
        Refinement of the estimates behind the network, in inference mode; none without one.
    start
        Settings of the initial estimate.
    stop
        Prediction of the best number of iterations, from several estimates; none for a single one.
    normalisation
        Normalisation of image and initial estimate.
    output_scale
        Output of 1 in units of the normalisation's scale.
    estimate_weight
        Weight of the initial estimate in the result: the mean of two estimates with partly
        independent errors is better than either.
    mirrors
        Whether the input is mirrored along z, y and x: the result is the mean over these
        orientations, whose errors are partly independent too; see
        :func:`napari_rln.networks.inference.orientations`.
    psf
        PSF that it was trained for; none for a family of PSFs, or if unknown.
    psf_b
        PSF of the second view, in the orientation of the first; none for single views.
    psf_widths
        Lowest and highest FWHM in voxels of the PSFs that it was trained for, along
        ``"axial"`` and ``"lateral"``; empty if unknown.
    record
        Record of the training: settings, seed, steps, losses, validation against RLD.
    """

    name: str
    network: Architecture
    refinement: Refinement | None = None
    start: StartSettings
    stop: StopPrediction | None = None
    normalisation: NormalisationMethod = "brightness"
    output_scale: float = 1.0
    estimate_weight: float = 0.0
    mirrors: Mirrors = NOT_MIRRORED
    psf: Volume | None = None
    psf_b: Volume | None = None
    psf_widths: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    record: Record

    def __post_init__(self) -> None:
        if (
            not isinstance(self.name, str)
            or self.normalisation not in get_args(NormalisationMethod)
            or not 0 < self.output_scale < math.inf
            or not 0 <= self.estimate_weight <= 1
            or len(self.mirrors) != 3
            or not all(isinstance(axis, bool) for axis in self.mirrors)
            or not all(0 < low <= high for low, high in self.psf_widths.values())
        ):
            raise RlnError(
                f"a model cannot have normalisation {self.normalisation!r}, output_scale "
                f"{self.output_scale}, estimate_weight {self.estimate_weight}, mirrors "
                f"{self.mirrors} and psf_widths {self.psf_widths}."
            )
        self.network.eval()
        if (self.stop is None) == (self.start.method == "ladder"):
            raise RlnError("a model whose start is a ladder, and no other, predicts the stop.")
        if not isinstance(self.network, RLN) and (self.start.needs_psf or any(self.mirrors)):
            raise RlnError(f"{self.network.title} starts from the image, and is not mirrored.")
        if self.network.needs_psf and self.psf is None:
            raise RlnError(f"a model of {self.network.title} needs the PSF that it is for.")
        if self.refinement is None:
            return
        self.refinement.eval()
        if self.refinement.settings.candidates != CANDIDATES or self.stop is None:
            raise RlnError(f"a refinement needs {CANDIDATES} candidates and a predicted stop.")
        if self.normalisation != "photons":
            raise RlnError("a refinement needs the normalisation by photons.")

    @property
    def variant(self) -> Literal["started", "paper"]:
        """``"paper"`` if the network starts from the image, else ``"started"``."""
        return "started" if self.start.needs_psf else "paper"

    @property
    def needs_psf(self) -> bool:
        """Whether it starts from a classical deconvolution, or the PSF is a part of its network."""
        return self.start.needs_psf or self.network.needs_psf

    @property
    def hash(self) -> str:
        """Hash of the weights, which identifies the model in records."""
        values = [v.numpy().ravel() for v in self._weights().values()]
        return array_hash(np.concatenate(values).astype(np.float32))

    @property
    def identity(self) -> str:
        """Hash of the weights and of the parameters of their application."""
        card = self.card()
        kept = ("network", "refinement", "start", "stop", "normalisation", "output_scale", "share")
        shown = {name: card.get(name) for name in kept}
        shown |= {name: card[name] for name in ("architecture", "mirrors") if name in card}
        text = json.dumps(shown, sort_keys=True)
        return f"{self.hash}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"

    def card(self) -> dict[str, Any]:
        """Return the description of the model, JSON types."""
        described: dict[str, Any] = {}
        if not isinstance(self.network, RLN):
            described["architecture"] = self.network.kind
        if self.psf_b is not None:  # keeps the format of models of single views
            described["psf_b"] = _described(self.psf_b)
        if self.refinement is not None:
            described["refinement"] = as_dict(self.refinement.settings)
        if self.stop is not None:
            described["stop"] = list(self.stop.weights)
        if any(self.mirrors):
            described["mirrors"] = list(self.mirrors)
        return {
            "format": _FIRST_FORMAT if isinstance(self.network, RLN) else FORMAT,
            "name": self.name,
            "variant": self.variant,
            "network": as_dict(self.network.settings),
            "start": as_dict(self.start),
            "normalisation": self.normalisation,
            "output_scale": self.output_scale,
            "share": self.estimate_weight,
            "psf": self.psf and _described(self.psf),
            **described,
            "reach": {axis: list(span) for axis, span in self.psf_widths.items()},
            "record": self.record.as_dict(),
            "weights": self.hash,
        }

    def for_inference(
        self,
        device: torch.device,
        precision: Precision = "float32",
        psf: Volume | None = None,
    ) -> Inference:
        """Return the network prepared for inference, in all its orientations.

        The PSF is for an architecture that needs it.
        """
        data = None if psf is None else psf.data
        return inference_of(self.network, device, precision, mirrors=self.mirrors, psf=data)

    @property
    def ladder(self) -> Ladder | None:
        """Estimates around a predicted stop; none for a single estimate."""
        return None if self.stop is None else Ladder(self.stop, self.start.beyond)

    @property
    def validation(self) -> dict[str, dict[str, float]]:
        """Quality on held-out volumes; see :func:`validation_of`."""
        return validation_of(self.record.facts)

    def save(self, path: str | Path) -> None:
        """Write the model, atomically.

        Raises
        ------
        RlnError
            If the name does not end in .safetensors, or the folder does not exist.
        OSError
            If writing fails; no file is left.
        """
        path = Path(path)
        check_model_path(path)
        tensors = self._weights()
        for name in _PSFS:
            psf: Volume | None = getattr(self, name)
            if psf is not None:
                tensors[name] = torch.from_numpy(psf.data)
        with atomic(path) as temporary:
            # Not save_file, which makes the file readable by its owner only.
            temporary.write_bytes(save(tensors, {_KEY: json.dumps(jsonable(self.card()))}))

    def _weights(self) -> dict[str, torch.Tensor]:
        """Return the tensors of the network, and of the refinement with a prefix."""
        weights = joined_weights(self.network, self.refinement)
        return {name: value.contiguous() for name, value in weights.items()}

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Return the model in a file.

        Raises
        ------
        RlnError
            If there is no file, or it is truncated, no model, or of a later version.
        """
        path = Path(path)
        with _opened(path) as file:
            card = _card(path.name, file.metadata() or {})
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        return cls._from(path.name, card, tensors)

    @classmethod
    def _from(cls, file: str, card: dict[str, Any], tensors: dict[str, torch.Tensor]) -> Self:
        try:
            network = saved_network(card.get("architecture", RLN.kind), card["network"])
            psf, psf_b = (_psf(card.get(name), tensors.pop(name, None)) for name in _PSFS)
            own, more = split_weights(tensors)
            refinement = None
            if "refinement" in card:
                refinement = Refinement(RefinementSettings(**card["refinement"]))
                refinement.load_state_dict(more)
            network.load_state_dict(own)
            bad = [name for name, values in tensors.items() if not torch.isfinite(values).all()]
            if bad:
                raise ValueError(f"{', '.join(bad)} contain NaN or infinities")
            bad = [n for n, v in tensors.items() if n.endswith("running_var") and (v < 0).any()]
            if bad:
                raise ValueError(f"{', '.join(bad)} contain negative variances")
            validation_of(card["record"]["facts"])
            model = cls(
                name=card["name"],
                network=network,
                refinement=refinement,
                start=StartSettings(**card["start"]),
                stop=StopPrediction(tuple(card["stop"])) if "stop" in card else None,
                normalisation=card["normalisation"],
                output_scale=float(card["output_scale"]),
                estimate_weight=float(card["share"]),
                mirrors=tuple(card.get("mirrors", NOT_MIRRORED)),  # absent from the first models
                psf=psf,
                psf_b=psf_b,
                psf_widths={axis: (low, high) for axis, (low, high) in card["reach"].items()},
                record=Record.from_dict(card["record"]),
            )
            if card.get("weights", model.hash) != model.hash:  # absent from the first models
                raise ValueError("the weights are not those that were saved")
            return model
        except (
            AttributeError, LookupError, TypeError, ValueError, RuntimeError, OverflowError,
        ) as error:  # fmt: skip
            raise RlnError(
                f"{file} does not contain the model that it describes: {error}"
            ) from error


def joined_weights(network: Architecture, refinement: Refinement | None) -> dict[str, torch.Tensor]:
    """Return the tensors of a network, and of a refinement with a prefix, by name."""
    weights = dict(network.state_dict())
    if refinement is not None:
        more = refinement.state_dict()
        weights |= {f"{_REFINEMENT}{name}": value for name, value in more.items()}
    return weights


def split_weights(
    weights: Mapping[str, torch.Tensor],
) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """Return the tensors of the network and of the refinement; see :func:`joined_weights`."""
    more = {k.removeprefix(_REFINEMENT): v for k, v in weights.items() if _is_of_refinement(k)}
    return {k: v for k, v in weights.items() if not _is_of_refinement(k)}, more


def _is_of_refinement(name: str) -> bool:
    return name.startswith(_REFINEMENT)


def validation_of(facts: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """Return the quality on held-out volumes from the facts of a record, by method.

    ``"psnr_db"`` and ``"ssim"`` of ``"network"`` and of the methods it was compared with; empty if
    not validated.

    Raises
    ------
    ValueError, TypeError, LookupError, AttributeError
        If the facts have another form.
    """
    return {
        str(kind): {name: float(quality[name]) for name in ("psnr_db", "ssim")}
        for kind, quality in facts.get("validation", {}).items()
    }


def _described(psf: Volume) -> dict[str, Any]:
    return {
        "name": psf.name,
        "voxel_um": list(psf.voxel_um),
        "hash": psf.hash,
        "record": psf.record and psf.record.as_dict(),
    }


def _psf(described: dict[str, Any] | None, array: torch.Tensor | None) -> Volume | None:
    if (described is None) != (array is None):
        raise ValueError("a PSF is described but missing, or present but not described")
    if described is None or array is None:
        return None
    record = described["record"]
    return Volume.from_array(
        array.numpy(),
        tuple(described["voxel_um"]),
        name=described["name"],
        record=record and Record.from_dict(record),
    )


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """Yield an open safetensors file, with only its header read."""
    if not path.is_file():
        raise RlnError(f"there is no model file {path}; check the name and the folder.")
    try:
        with safe_open(path, framework="pt") as file:
            yield file
    except (SafetensorError, OSError) as error:
        raise RlnError(
            f"{path.name} cannot be read as a model ({error}); it may be truncated, or not a "
            f"{SUFFIX} file."
        ) from error


def _card(file: str, metadata: dict[str, str]) -> dict[str, Any]:
    """Return the card from a file's metadata, if of a supported format."""
    if _KEY not in metadata:
        raise RlnError(f"{file} is a safetensors file but not a model of napari-rln.")
    try:
        card: dict[str, Any] = json.loads(metadata[_KEY])
        version = int(card["format"])
    except (ValueError, LookupError, TypeError, OverflowError, RecursionError) as error:
        raise RlnError(f"the description in {file} is damaged ({error}).") from error
    if version < 1:
        raise RlnError(f"the description in {file} is damaged (format {version}).")
    if version > FORMAT:
        raise RlnError(
            f"{file} is of model format {version}, of a later version; this one reads formats up "
            f"to {FORMAT}: update napari-rln."
        )
    return card


def check_model_path(path: Path) -> None:
    """Raise unless a model can be written at a path; to be called before training."""
    if path.suffix != SUFFIX:
        raise RlnError(f"{path.name} must end in {SUFFIX}.")
    if path.is_dir() or not path.parent.is_dir():
        raise RlnError(f"{path} cannot be written: name a file in a folder that exists.")


def shipped_models() -> dict[str, str]:
    """Return the file names of the shipped models, by name."""
    folder = files("napari_rln.networks.models")
    names = sorted(entry.name for entry in folder.iterdir() if entry.name.endswith(SUFFIX))
    return {name.removesuffix(SUFFIX): name for name in names}


def load_model(name: str | Path = UNIVERSAL) -> Model:
    """Return a model: a shipped one by its name, any other by its file.

    Raises
    ------
    RlnError
        If there is no model of that name, or the file is no model.
    """
    with _located(name) as path:
        return Model.load(path)


def read_card(name: str | Path = UNIVERSAL) -> dict[str, Any]:
    """Return the card of a model, see :meth:`Model.card`, without reading its weights.

    Raises
    ------
    RlnError
        If there is no model of that name, or the file is truncated, no model, or of a later
        version.
    """
    with _located(name) as path, _opened(path) as file:
        return _card(path.name, file.metadata() or {})


@contextmanager
def _located(name: str | Path) -> Iterator[Path]:
    """Yield the file of a shipped model, or the path itself."""
    shipped = shipped_models()
    if str(name) in shipped:
        with as_file(files("napari_rln.networks.models") / shipped[str(name)]) as path:
            yield path
    elif Path(name).suffix:
        yield Path(name)
    else:
        raise RlnError(
            f"there is no model called {name}; give {', '.join(shipped)}, or a {SUFFIX} file."
        )


def psf_difference(psf: Volume, other: Volume) -> float:
    """Return the fraction of light by which two PSFs of one voxel size differ, 0 to 1."""
    one, two = (k.astype(np.float64) for k in of_one_size([psf.data, other.data]))
    return float(0.5 * np.abs(one / one.sum() - two / two.sum()).sum())
