"""Running statistics (means and variances) of batch normalisation."""

from collections.abc import Iterable, Iterator

import torch
from torch import nn

from napari_rln.networks.architectures.base import Architecture
from napari_rln.train.batches import Batch


def set_momentum(network: Architecture, momentum: float) -> None:
    """Set the weight of a batch in the running statistics."""
    for module in _normalisations(network):
        module.momentum = momentum


@torch.no_grad()
def estimate_statistics(network: Architecture, batches: Iterable[Batch]) -> None:
    """Set the running statistics to the plain mean over batches, for the present weights.

    Leaves the network in training mode.
    """
    modules = list(_normalisations(network))
    if not modules:
        return
    momenta = [module.momentum for module in modules]
    for module in modules:
        module.reset_running_stats()
        module.momentum = None  # selects the plain mean in torch
    network.train()
    try:
        for batch in batches:
            network(batch.x, batch.E0)
    finally:
        for module, momentum in zip(modules, momenta, strict=True):
            module.momentum = momentum


def _normalisations(network: Architecture) -> Iterator[nn.BatchNorm3d]:
    return (m for m in network.modules() if isinstance(m, nn.BatchNorm3d))
