"""The architectures by their names in settings and model files."""

from collections.abc import Mapping
from typing import Any, Literal, cast

import torch

from napari_rln.core.errors import RlnError
from napari_rln.networks.architectures.admm_net import AdmmNet, AdmmSettings
from napari_rln.networks.architectures.base import Architecture
from napari_rln.networks.architectures.care import Care, CareSettings
from napari_rln.networks.architectures.dense_decon import DenseDecon, DenseDeconSettings
from napari_rln.networks.architectures.ista_net import IstaNet, IstaSettings
from napari_rln.networks.architectures.kernel_learning import (
    KernelLearning,
    KernelLearningSettings,
)
from napari_rln.networks.architectures.rcan import Rcan, RcanSettings
from napari_rln.networks.rln import RLN, NetworkSettings

ArchitectureName = Literal["rln", "care", "rcan", "ddn", "ista", "ista-large", "admm", "kld"]
"""Names of architectures for training; sizes of one network have a name each."""

TITLES: dict[ArchitectureName, str] = {
    "rln": "RLN",
    "care": "CARE",
    "rcan": "3D-RCAN",
    "ddn": "DenseDeconNet",
    "ista": "ISTA-Net+",
    "ista-large": "ISTA-Net+, large",
    "admm": "ADMM-Net",
    "kld": "Kernel learning (KLD)",
}
"""Names for readers."""

_CLASSES: dict[str, tuple[type[Any], type[Any]]] = {
    RLN.kind: (RLN, NetworkSettings),
    Care.kind: (Care, CareSettings),
    Rcan.kind: (Rcan, RcanSettings),
    DenseDecon.kind: (DenseDecon, DenseDeconSettings),
    IstaNet.kind: (IstaNet, IstaSettings),
    AdmmNet.kind: (AdmmNet, AdmmSettings),
    KernelLearning.kind: (KernelLearning, KernelLearningSettings),
}


_ISTA_LARGE = IstaSettings(channels=32, phases=9)


def class_of(name: str) -> type[Architecture]:
    """Return the class of an architecture, by its name in settings or its kind.

    Raises
    ------
    RlnError
        If it is unknown, as of a later version.
    """
    return _classes_of(name)[0]


def _classes_of(name: str) -> tuple[type[Any], type[Any]]:
    kind = IstaNet.kind if name == "ista-large" else name
    if kind not in _CLASSES:
        raise RlnError(
            f"the architecture {kind!r} is unknown; update napari-rln, or use a model of "
            f"{', '.join(_CLASSES)}."
        )
    return _CLASSES[kind]


def new_network(name: ArchitectureName) -> Architecture:
    """Return a network of an architecture, with torch's initial weights."""
    return IstaNet(_ISTA_LARGE) if name == "ista-large" else saved_network(name, {})


def name_of(network: Architecture) -> ArchitectureName:
    """Return the name of a network's architecture in settings."""
    if network.settings == _ISTA_LARGE:
        return "ista-large"
    return cast("ArchitectureName", network.kind)


def saved_network(kind: str, settings: Mapping[str, Any]) -> Architecture:
    """Return a network of a kind and its settings as in a model file, without its weights.

    Raises
    ------
    RlnError
        If the kind is unknown, as of a later version.
    """
    made, sizes = _classes_of(kind)
    network: Architecture = made(sizes(**settings))
    return network


def copy_of(
    network: Architecture, weights: Mapping[str, torch.Tensor] | None = None
) -> Architecture:
    """Return another network of the same architecture and weights, or other weights."""
    other = type(network)(network.settings)
    other.load_state_dict(network.state_dict() if weights is None else weights)
    return other
