"""How far the stages of a network are from the truth: what training makes small."""

from typing import NamedTuple

import torch
from torch.nn.functional import mse_loss

from napari_rln.networks.rln import Stages, mean_c

_C1, _C2 = 1e-4, 9e-4  # (0.01 L)^2 and (0.03 L)^2 of Wang et al. (2004), for a range L of 1
_MSE_FLOOR = 1e-4
ERROR_FLOOR = 1e-3
"""Mean squared error, over the power of the truth, below which errors count for less."""

_E_ERROR_FLOOR = 1e-2


class Losses(NamedTuple):
    """The loss of a batch and its terms, each a scalar; ``ssim`` alone is better when larger."""

    total: torch.Tensor
    mse: torch.Tensor
    ssim: torch.Tensor
    e_mse: torch.Tensor


def paper_loss(stages: Stages, x: torch.Tensor, truth: torch.Tensor) -> Losses:
    """Return the loss that the paper's authors train with.

    ``mse + 0.1 e_mse - ln((1 + ssim) / 2)``: the output is to be the truth, in the mean and in
    structure, and the estimate ``e`` of the iteration at half resolution is to be 80 % of the
    truth and 20 % of the image. Both mean squared errors have 1e-4 added, as in their code.

    Parameters
    ----------
    stages
        What the network returned for the image.
    x
        (N, C, D, H, W), the normalised image. Of two averaged views, half the sum that the network
        was given.
    truth
        (N, 1, D, H, W), the normalised truth.
    """
    mse = mse_loss(stages.output, truth) + _MSE_FLOOR
    e_mse = mse_loss(stages.e, 0.8 * truth + 0.2 * mean_c(x)) + _MSE_FLOOR
    ssim = global_ssim(stages.output, truth)
    return Losses(mse + 0.1 * e_mse - torch.log((1 + ssim) / 2), mse, ssim, e_mse)


def global_ssim(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Return the structural similarity of two tensors taken whole as one window, for a range of 1.

    A scalar from -1 to 1. The means and variances are those of all elements, so it does not say
    *where* the two differ; :mod:`napari_rln.core.metrics` has the usual one with a sliding window.
    """
    a_mean, b_mean = a.mean(), b.mean()
    a_off, b_off = a - a_mean, b - b_mean
    luminance = (2 * a_mean * b_mean + _C1) / (a_mean**2 + b_mean**2 + _C1)
    covariance = (a_off * b_off).mean()
    structure = (2 * covariance + _C2) / (a_off.square().mean() + b_off.square().mean() + _C2)
    return luminance * structure


def relative_loss(
    stages: Stages, E0: torch.Tensor, truth: torch.Tensor, power: torch.Tensor
) -> Losses:
    """Return the loss in which every patch counts by its own error, as decibels count.

    Of each patch ``ln(mse / power) / 2``, a tenth as much for ``e``, and the paper's term in the
    structural similarity. So a dim, sparse or noisy volume weighs what a bright, full and clear one
    does. Errors below a thirtieth of the truth's standard deviation count for less: what little is
    wrong with an empty patch is not what to learn from.

    Parameters
    ----------
    stages
        What the network returned.
    E0
        (N, C, D, H, W), the first estimate.
    truth
        (N, 1, D, H, W), the truth.
    power
        (N,), the variance of the truth's volume.
    """
    mse = (stages.output - truth).square().mean((1, 2, 3, 4))
    e_mse = (stages.e - (0.8 * truth + 0.2 * mean_c(E0))).square().mean((1, 2, 3, 4))
    ssim = torch.stack(
        [global_ssim(a, b) for a, b in zip(stages.output, truth, strict=True)]
    ).mean()
    relative = torch.log(mse / power + ERROR_FLOOR).mean()
    e_relative = torch.log(e_mse / power + _E_ERROR_FLOOR).mean()
    total = 0.5 * relative + 0.05 * e_relative - torch.log((1 + ssim) / 2)
    return Losses(total, mse.mean(), ssim, e_mse.mean())
