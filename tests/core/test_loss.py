"""What training makes small: values by hand, and what does not change them."""

from math import log

import pytest
import torch

from napari_rln.networks.rln import Stages
from napari_rln.train.loss import global_ssim, relative_loss

C1 = 1e-4


def _stages(output: torch.Tensor, e: torch.Tensor) -> Stages:
    return Stages(**dict.fromkeys(Stages._fields, output) | {"e": e})


def _random(*shape: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(shape, generator=generator, dtype=torch.float64)


def _by_decibels(stages, E0, truth, power) -> torch.Tensor:
    """Return the loss less its term in the structural similarity."""
    losses = relative_loss(stages, E0, truth, power)
    return losses.total + torch.log((1 + losses.ssim) / 2)


def test_relative_loss_by_hand():
    one = torch.ones(2, 1, 2, 2, 2, dtype=torch.float64)
    output = one * torch.tensor([1.2, 1.5], dtype=torch.float64).reshape(2, 1, 1, 1, 1)
    e = one * torch.tensor([1.0, 0.4], dtype=torch.float64).reshape(2, 1, 1, 1, 1)
    power = torch.tensor([0.5, 2.0], dtype=torch.float64)
    losses = relative_loss(_stages(output, e), 0 * one, one, power)
    ssim = ((2.4 + C1) / (1.44 + 1 + C1) + (3.0 + C1) / (2.25 + 1 + C1)) / 2  # luminance alone
    assert losses.mse.item() == pytest.approx((0.04 + 0.25) / 2)
    assert losses.e_mse.item() == pytest.approx((0.04 + 0.16) / 2)  # from 0.8
    assert losses.ssim.item() == pytest.approx(ssim)
    expected = (
        0.5 * (log(0.04 / 0.5 + 1e-3) + log(0.25 / 2.0 + 1e-3)) / 2
        + 0.05 * (log(0.04 / 0.5 + 1e-2) + log(0.16 / 2.0 + 1e-2)) / 2
        - log((1 + ssim) / 2)
    )
    assert losses.total.item() == pytest.approx(expected)


def test_the_estimate_is_drawn_to_truth_and_to_what_it_began_with():
    truth, E0 = _random(2, 1, 4, 4, 4), _random(2, 2, 4, 4, 4, seed=1)
    e = 0.8 * truth + 0.2 * (E0[:, :1] + E0[:, 1:]) / 2
    losses = relative_loss(_stages(truth, e), E0, truth, truth.var((1, 2, 3, 4)))
    assert losses.mse.item() == 0
    assert losses.e_mse.item() == pytest.approx(0, abs=1e-12)
    assert losses.ssim.item() == pytest.approx(1)
    assert losses.total.item() == pytest.approx(0.5 * log(1e-3) + 0.05 * log(1e-2))


def test_a_brighter_volume_has_the_same_loss_in_decibels():
    truth, output, e, E0 = (_random(3, 1, 4, 4, 4, seed=i) for i in range(4))
    power = truth.var((1, 2, 3, 4))
    before = _by_decibels(_stages(output, e), E0, truth, power)
    after = _by_decibels(_stages(7 * output, 7 * e), 7 * E0, 7 * truth, 49 * power)
    assert after.item() == pytest.approx(before.item())


def test_every_patch_weighs_the_same_however_dim():
    truth, output, e, E0 = (_random(2, 1, 4, 4, 4, seed=i) for i in range(4))
    factor = torch.tensor([1.0, 0.01], dtype=torch.float64).reshape(2, 1, 1, 1, 1)
    truth, output, e, E0 = (factor * part for part in (truth, output, e, E0))
    power = truth.var((1, 2, 3, 4))
    both = _by_decibels(_stages(output, e), E0, truth, power)
    single = [
        _by_decibels(_stages(output[i : i + 1], e[i : i + 1]), E0[i : i + 1], truth[i : i + 1],
                     power[i : i + 1])
        for i in range(2)
    ]  # fmt: skip
    assert both.item() == pytest.approx(sum(single).item() / 2)

    # The same relative change of either patch changes the loss about as much.
    output.requires_grad_()
    gradient = torch.autograd.grad(_by_decibels(_stages(output, e), E0, truth, power), output)[0]
    bright, dim = (factor * gradient).square().mean((1, 2, 3, 4)).sqrt()
    assert 0.5 < dim / bright < 2
    # In a plain mean squared error the dim patch hardly counts.
    plain = torch.autograd.grad((output - truth).square().mean(), output)[0]
    bright, dim = (factor * plain).square().mean((1, 2, 3, 4)).sqrt()
    assert dim / bright < 1e-3


def test_what_little_is_wrong_with_an_empty_patch_is_not_learnt():
    truth = torch.zeros(1, 1, 4, 4, 4, dtype=torch.float64)

    def pull(error: float) -> float:
        """Return how much the loss changes with the relative size of the error."""
        output = torch.full_like(truth, error).requires_grad_()
        losses = _by_decibels(_stages(output, truth), truth, truth, torch.ones(1))
        return float((torch.autograd.grad(losses, output)[0] * output.detach()).sum())

    assert pull(0.5) == pytest.approx(1, rel=0.01)
    assert pull(1000**-0.5) == pytest.approx(0.5)  # a thirtieth of the truth's deviation
    assert pull(1e-3) == pytest.approx(0, abs=0.01)


def test_structural_similarity_of_a_whole_tensor():
    a = _random(1, 1, 6, 6, 6)
    assert global_ssim(a, a).item() == pytest.approx(1)
    assert global_ssim(a, 1 - a).item() < -0.9
    assert abs(global_ssim(a, _random(1, 1, 6, 6, 6, seed=1)).item()) < 0.2
