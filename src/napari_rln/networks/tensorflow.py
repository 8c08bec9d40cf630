"""The weights of the paper's authors: their names and layouts in TensorFlow's checkpoints."""

import re
from collections.abc import Mapping

import numpy as np
import torch
from torch import nn

from napari_rln.core.errors import RlnError
from napari_rln.networks.rln import RLN, NetworkSettings, Views
from napari_rln.networks.tensorflow_bundle import Array

_STATISTICS = {
    "weight": "gamma",
    "bias": "beta",
    "running_mean": "moving_mean",
    "running_var": "moving_variance",
}


def rln_from_checkpoint(variables: Mapping[str, Array], *, division_eps: float = 1e-4) -> RLN:
    """Return the network that a checkpoint of the authors' code describes.

    Parameters
    ----------
    variables
        As ``read_checkpoint`` returns them; the optimiser's are ignored. Convolutions are
        found by the last part of their name (``estimation/e_1``), and batch normalisations by
        their number (``batch_normalization``, ``batch_normalization_1``, ...), which is their
        order in the network.
    division_eps
        Added to the denominator of the division, which the variables do not tell: 1e-4 in the
        released checkpoint and the authors' dual-view code, 1e-3 in their single-view code.

    Returns
    -------
    RLN
        In evaluation mode. For two concatenated views where ``e_1`` takes two channels, for a
        single view (or two averaged ones, which is the same network) where it takes one.

    Raises
    ------
    RlnError
        If variables are missing, there twice, of another shape or not finite; it names them.
    """
    found = _last_parts(variables)
    two = "e_1" in found and found["e_1"].ndim == 5 and found["e_1"].shape[3] == 2
    views: Views = "concatenated" if two else "single"
    network = RLN(NetworkSettings(views=views, division_eps=division_eps)).eval()
    state, names = network.state_dict(), _tensorflow_names(network)
    missing = [name for name in names.values() if name not in found]
    if missing:
        raise RlnError(
            f"the checkpoint lacks {', '.join(missing)}; give one that the authors' "
            "Richardson-Lucy network was saved to."
        )
    for own, name in names.items():
        state[own].copy_(_weight(name, found[name], state[own]))
    return network


def _tensorflow_names(network: RLN) -> dict[str, str]:
    """Return the last part of TensorFlow's name for each name in the network's state."""
    names: dict[str, str] = {}
    norms = 0
    for name, module in network.named_modules():
        if isinstance(module, nn.Conv3d | nn.ConvTranspose3d):
            names[f"{name}.weight"] = name.removesuffix(".conv").rpartition(".")[2]
        elif isinstance(module, nn.BatchNorm3d):
            layer = f"batch_normalization_{norms}" if norms else "batch_normalization"
            names |= {f"{name}.{own}": f"{layer}/{other}" for own, other in _STATISTICS.items()}
            norms += 1
    return names


def _last_parts(variables: Mapping[str, Array]) -> dict[str, Array]:
    """Return the variables by the part of their name that :func:`_tensorflow_names` gives."""
    found: dict[str, Array] = {}
    for name, value in variables.items():
        match = re.search(r"(?:^|/)([eu]_\d+|batch_normalization(?:_\d+)?/\w+)$", name)
        if match is None:
            continue
        if match[1] in found:
            raise RlnError(
                f"the checkpoint has {match[1]} twice, the second time as {name}; give one that "
                "holds a single network."
            )
        found[match[1]] = value
    return found


def _weight(name: str, value: Array, like: torch.Tensor) -> torch.Tensor:
    """Return a variable in torch's layout: (d, h, w, in, out) becomes (out, in, d, h, w).

    The transposed kernel is (d, h, w, out, in) there and (in, out, d, h, w) here.
    """
    last_first = (4, 3, 0, 1, 2) if like.ndim == 5 else (0,)
    shape = like.shape if like.ndim == 1 else (*like.shape[2:], like.shape[1], like.shape[0])
    if value.shape != tuple(shape):
        raise RlnError(
            f"{name} of the checkpoint is {value.shape} but is {tuple(shape)} in the "
            "Richardson-Lucy network; give a checkpoint of that network."
        )
    if not np.isfinite(value).all():
        raise RlnError(
            f"{name} of the checkpoint holds values that are not finite; give one saved earlier "
            "in that training."
        )
    return torch.from_numpy(np.ascontiguousarray(value.transpose(last_first), np.float32))
