"""Training losses of a network's outputs."""

from typing import NamedTuple

import torch
from torch.nn.functional import avg_pool3d, mse_loss

from napari_rln.networks.normalisation import photons_of_root, root_of_photons
from napari_rln.networks.rln import Stages, mean_c

_C1, _C2 = 1e-4, 9e-4  # (0.01 L)^2 and (0.03 L)^2 of Wang et al. (2004), for a range L of 1
_MSE_FLOOR = 1e-4
ERROR_FLOOR = 1e-3
"""Mean squared error over the variance of the ground truth, below which errors count less."""

_E_ERROR_FLOOR = 1e-2
_E_VARIANCE = 1e-4  # least variance of a ground truth, on the scale of the square root
_PEAK = 8.0  # usual range of a ground truth, in its standard deviations
_DARK = 1e-2  # light per voxel below which an error of it counts less


class Losses(NamedTuple):
    """The loss of a batch and its terms, each a scalar; ``ssim`` is better when larger."""

    total: torch.Tensor
    mse: torch.Tensor
    ssim: torch.Tensor
    e_mse: torch.Tensor


def paper_loss(stages: Stages, x: torch.Tensor, truth: torch.Tensor) -> Losses:
    """Return the loss of the paper's authors.

    ``mse + 0.1 e_mse - ln((1 + ssim) / 2)``: the target of the output is the ground truth, that of
    the estimate ``e`` of the iteration at half resolution 80 % of the ground truth and 20 % of the
    image. Both mean squared errors have 1e-4 added, as in their code. Image ``x`` (N, C, D, H, W)
    and ground truth (N, 1, D, H, W) are normalised; for averaged views x is half of the network's
    input.
    """
    mse = mse_loss(stages.output, truth) + _MSE_FLOOR
    e_mse = mse_loss(stages.e, 0.8 * truth + 0.2 * mean_c(x)) + _MSE_FLOOR
    ssim = global_ssim(stages.output, truth)
    return Losses(mse + 0.1 * e_mse - torch.log((1 + ssim) / 2), mse, ssim, e_mse)


def global_ssim(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Return the structural similarity of two tensors in a single window, for a range of 1.

    A scalar from -1 to 1, from means and variances of all elements and so independent of the
    location of differences; :mod:`napari_rln.core.metrics` has the usual one with a sliding window.
    """
    a_mean, b_mean = a.mean(), b.mean()
    a_off, b_off = a - a_mean, b - b_mean
    luminance = (2 * a_mean * b_mean + _C1) / (a_mean**2 + b_mean**2 + _C1)
    covariance = (a_off * b_off).mean()
    structure = (2 * covariance + _C2) / (a_off.square().mean() + b_off.square().mean() + _C2)
    return luminance * structure


def ladder_loss(
    stages: Stages,
    E0: torch.Tensor,
    truth: torch.Tensor,
    power: torch.Tensor,
    about: torch.Tensor | None = None,
) -> Losses:
    """Return the loss of a network that starts from a ladder of estimates.

    As :func:`refined_loss` of its output, and a twentieth of the logarithm of the error of ``e``.
    Stages and initial estimate are on the network's scale, ground truth and ``power`` in units of
    the target. For a network on the scale of the square root of photons,
    ``about`` is that of :class:`napari_rln.train.batches.Batch`.
    """
    output, target, spread = stages.output, truth, power
    if about is not None:
        unit, background = (part.view(-1, 1, 1, 1, 1) for part in about.unbind(1))
        output = photons_of_root(output, background * unit) / unit
        target = root_of_photons(truth * unit, background * unit)
        spread = target.var((1, 2, 3, 4)).clamp_min(_E_VARIANCE)
    losses = refined_loss(output, truth, power)
    e_mse = (stages.e - (0.8 * target + 0.2 * mean_c(E0))).square().mean((1, 2, 3, 4))
    total = losses.total + 0.05 * torch.log(e_mse / spread + _E_ERROR_FLOOR).mean()
    return losses._replace(total=total, e_mse=e_mse.mean())


def refined_loss(output: torch.Tensor, truth: torch.Tensor, power: torch.Tensor) -> Losses:
    """Return the loss of a refinement: error, structure and light of each patch.

    ``ln(mse / power) / 2``, as in decibels; a fifth of one minus the structural similarity in
    windows of 5 x 5 x 5 voxels; and a twentieth of the relative error of the light. Output and
    ground truth are (N, 1, D, H, W), ``power`` (N,) is the variance of each volume's ground truth.
    """
    mse = (output - truth).square().mean((1, 2, 3, 4))
    similarity = _windowed_ssim(output, truth, _PEAK * power.sqrt()).mean()
    light, true_light = output.sum((1, 2, 3, 4)), truth.sum((1, 2, 3, 4))
    dark = _DARK * truth[0].numel()
    flux = ((light - true_light).abs() / (true_light + dark)).clamp(max=1).mean()
    relative = torch.log(mse / power + ERROR_FLOOR).mean()
    total = 0.5 * relative + 0.2 * (1 - similarity) + 0.05 * flux
    return Losses(total, mse.mean(), similarity, mse.new_zeros(()))


def _windowed_ssim(a: torch.Tensor, b: torch.Tensor, peak: torch.Tensor) -> torch.Tensor:
    """Return the structural similarity in windows of 5 voxels, for ranges ``peak`` (N,)."""
    c1, c2 = (part * peak.square().view(-1, 1, 1, 1, 1) for part in (_C1, _C2))
    mean_a, mean_b, aa, bb, ab = (avg_pool3d(v, 5, 1) for v in (a, b, a * a, b * b, a * b))
    variances = (aa - mean_a.square()).clamp_min(0) + (bb - mean_b.square()).clamp_min(0)
    luminance = (2 * mean_a * mean_b + c1) / (mean_a.square() + mean_b.square() + c1)
    return luminance * (2 * (ab - mean_a * mean_b) + c2) / (variances + c2)


def relative_error_loss(output: torch.Tensor, truth: torch.Tensor, power: torch.Tensor) -> Losses:
    """Return the loss of :func:`relative_loss` without its term of ``e``."""
    mse = (output - truth).square().mean((1, 2, 3, 4))
    ssim = torch.stack([global_ssim(a, b) for a, b in zip(output, truth, strict=True)]).mean()
    total = 0.5 * torch.log(mse / power + ERROR_FLOOR).mean() - torch.log((1 + ssim) / 2)
    return Losses(total, mse.mean(), ssim, mse.new_zeros(()))


def relative_loss(
    stages: Stages, E0: torch.Tensor, truth: torch.Tensor, power: torch.Tensor
) -> Losses:
    """Return the loss with the logarithm of each patch's own error, as in decibels.

    For each patch ``ln(mse / power) / 2``, a tenth of it for ``e``, and the paper's term in the
    structural similarity. So dim, sparse or noisy volumes weigh as much as bright, dense and clear
    ones. Errors below a thirtieth of the ground truth's standard deviation count less, so that
    nearly empty patches do not dominate. Initial estimate (N, C, D, H, W) and ground truth
    (N, 1, D, H, W) are normalised; ``power`` (N,) is the variance of each volume's ground truth.
    """
    losses = relative_error_loss(stages.output, truth, power)
    e_mse = (stages.e - (0.8 * truth + 0.2 * mean_c(E0))).square().mean((1, 2, 3, 4))
    e_relative = torch.log(e_mse / power + _E_ERROR_FLOOR).mean()
    return losses._replace(total=losses.total + 0.05 * e_relative, e_mse=e_mse.mean())
