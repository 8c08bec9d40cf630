"""Total-variation regularisation, which suppresses amplified noise."""

import torch

from napari_rln.core.volume import VoxelUm


def total_variation_factor(
    estimate: torch.Tensor, strength: float, voxel_um: VoxelUm
) -> torch.Tensor:
    """Return the factor of total variation on a Richardson-Lucy update, (Z, Y, X), around 1.

    ``1 / (1 - strength * div(grad x / |grad x|))``, Dey et al., Microscopy Research and Technique
    69, 260 (2006), equation 12; lengths are in units of the smallest voxel side, so that a coarse
    z step weighs less. The strength, the paper's lambda, is small enough (below 0.15) that the
    factor stays positive.
    """
    shortest = min(voxel_um)
    spacing = [size / shortest for size in voxel_um]
    gradient = []
    for axis, step in enumerate(spacing):
        forward = torch.zeros_like(estimate)
        n = estimate.shape[axis]
        if n > 1:
            forward.narrow(axis, 0, n - 1).copy_(estimate.diff(dim=axis)).div_(step)
        gradient.append(forward)
    length = torch.stack([g.square() for g in gradient]).sum(0)
    # A gradient below a thousandth of the mean counts as none.
    length.add_((1e-3 * estimate.mean()).square()).sqrt_()
    divergence = torch.zeros_like(estimate)
    for axis, (component, step) in enumerate(zip(gradient, spacing, strict=True)):
        component.div_(length).div_(step)
        divergence += component
        n = estimate.shape[axis]
        divergence.narrow(axis, 1, n - 1).sub_(component.narrow(axis, 0, n - 1))
    return divergence.mul_(-strength).add_(1).reciprocal_()
