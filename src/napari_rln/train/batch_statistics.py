"""Running statistics (means and variances) of batch normalisation."""

from collections.abc import Iterable, Iterator

import torch
from torch import nn

from napari_rln.networks.rln import RLN
from napari_rln.train.batches import Batch


def set_momentum(network: RLN, momentum: float) -> None:
    """Set the weight of a batch in the running statistics."""
    for module in _normalisations(network):
        module.momentum = momentum


@torch.no_grad()
def estimate_statistics(network: RLN, batches: Iterable[Batch]) -> None:
    """Set the running statistics to the plain mean over batches, for the present weights.

    Leaves the network in training mode.
    """
    modules = list(_normalisations(network))
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


def _normalisations(network: RLN) -> Iterator[nn.BatchNorm3d]:
    return (m for m in network.modules() if isinstance(m, nn.BatchNorm3d))
