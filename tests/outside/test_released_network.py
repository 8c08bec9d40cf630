"""Our network and loss against numbers that the paper's authors' own code and weights produced.

Their checkpoint has no licence, so this runs where it lies beside the checkout;
``tests/core/test_parity.py`` checks the same with weights drawn at random.

The network runs in float32, as theirs did, where its results are compared, and in float64 where
gradients are, so that the tolerance there is the rounding of the reference alone.
"""

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from parity import LOSSES, NORMS, STAGES, deviation, own_name, their_layout
from torch import nn
from torch.nn.functional import avg_pool3d

from napari_rln.networks.rln import RLN, Stages
from napari_rln.networks.tensorflow_checkpoint import read_checkpoint, rln_from_checkpoint
from napari_rln.train.loss import paper_loss


class Reference:
    """One file of golden values, and the released network with the constant they were made with."""

    def __init__(self, folder: Path, name: str) -> None:
        self.values = dict(np.load(folder / f"rln_golden_{name}.npz"))
        self.weights = dict(np.load(folder / "rln_released_weights.npz"))

    def network(self, division_eps: float = 1e-3) -> RLN:
        return rln_from_checkpoint(self.weights, division_eps=division_eps)

    def batch(self, name: str) -> torch.Tensor:
        data = self.values[name]
        return torch.from_numpy(data.reshape(-1, 1, *data.shape[-3:]))

    def after(self, prefix: str) -> Iterator[tuple[str, np.ndarray]]:
        for key, value in self.values.items():
            if key.startswith(prefix):
                yield key.removeprefix(prefix), value


@pytest.fixture(params=["a", "b"])
def golden(reference, request) -> Reference:
    return Reference(reference, request.param)


def alter_gradients(stages: Stages, x: torch.Tensor) -> None:
    """Make backpropagation do what the reference overrides.

    Its division x / f = m gives f the gradient -m^2 where the true one is -x / f^2, a factor of x;
    its product E1 * BP2 gives E1 the gradient 1 where the true one is BP2.
    """
    of_e2: list[torch.Tensor] = []
    BP2 = stages.BP2.detach()
    stages.FP1.register_hook(lambda gradient: gradient * avg_pool3d(x, 2))
    stages.FP2.register_hook(lambda gradient: gradient * x)
    stages.e2.register_hook(of_e2.append)
    stages.E1.register_hook(lambda gradient: gradient + of_e2[0] * (1 - BP2))


class TensorFlowAdam:
    """Adam with its epsilon added to the square root before that is corrected for the start."""

    def __init__(self, parameters: Iterator[nn.Parameter]) -> None:
        self.slots = [(p, torch.zeros_like(p), torch.zeros_like(p)) for p in parameters]
        self.steps = 0

    @torch.no_grad()
    def step(self, rate: float) -> None:
        self.steps += 1
        corrected = rate * (1 - 0.999**self.steps) ** 0.5 / (1 - 0.9**self.steps)
        for p, m, v in self.slots:
            m.lerp_(p.grad, 0.1)
            v.lerp_(p.grad.square(), 0.001)
            p -= corrected * m / (v.sqrt() + 1e-8)
            p.grad = None


def average_like_tensorflow(network: RLN) -> None:
    """Give batch normalisation its momentum there, and the variance divided by n, not n - 1."""

    def without_bessel(norm: nn.BatchNorm3d, inputs: tuple[torch.Tensor], _: torch.Tensor) -> None:
        axes = (0, 2, 3, 4)
        variance = inputs[0].detach().var(axes) - inputs[0].detach().var(axes, correction=0)
        norm.running_var = norm.running_var - norm.momentum * variance

    for name in NORMS:
        norm = network.get_submodule(name)
        norm.momentum = 0.01
        norm.register_forward_hook(without_bessel)


@torch.no_grad()
def test_every_stage(golden):
    stages = golden.network()(golden.batch("input"))
    for name, theirs in STAGES.items():
        assert deviation(getattr(stages, name), golden.values[theirs]) < 2.5e-6, name


@torch.no_grad()
def test_quotients_before_normalisation(golden):
    network = golden.network()
    seen = []
    for part in (network.H1, network.H2):
        part.DV.bn.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    network(golden.batch("input"))
    for ours, name in zip(seen, ("DV1_temp_layer_prebn", "DV2_EST_prebn"), strict=True):
        assert deviation(ours, golden.values[name]) < 2.5e-6, name


@torch.no_grad()
def test_the_released_division_constant(golden):
    output = golden.network(1e-4)(golden.batch("input")).output
    assert deviation(output, golden.values["prediction_eps1e-4"]) < 5e-6


@torch.no_grad()
def test_batch_statistics(golden):
    output = golden.network().train()(golden.batch("input")).output
    assert deviation(output, golden.values["prediction_train_mode"]) < 1e-5


@torch.no_grad()
@pytest.mark.parametrize("mode", ["infer", "train"])
def test_loss(golden, mode):
    x = golden.batch("input")
    stages = golden.network().train(mode == "train")(x)
    losses = paper_loss(stages, x, golden.batch("ground_truth"))
    for ours, name in zip(losses, LOSSES, strict=True):
        assert float(ours) == pytest.approx(golden.values[f"{mode}_{name}"], rel=1e-5), name


def test_gradients(reference):
    golden = Reference(reference, "a")
    network, x = golden.network().double().train(), golden.batch("input").double()
    stages = network(x)
    alter_gradients(stages, x)
    paper_loss(stages, x, golden.batch("ground_truth").double()).total.backward()
    theirs = dict(golden.after("grad_train:"))
    assert {own_name(name) for name in theirs} == {name for name, _ in network.named_parameters()}
    for name, gradient in theirs.items():
        ours = their_layout(network.get_parameter(own_name(name)).grad)
        assert deviation(ours, gradient) < 5e-5, name


def test_five_steps(reference):
    golden = Reference(reference, "train5")
    network, x = golden.network().double().train(), golden.batch("input").double()
    truth = golden.batch("ground_truth").double()
    average_like_tensorflow(network)
    adam = TensorFlowAdam(network.parameters())
    for step, rate in enumerate(golden.values["lr"].tolist(), 1):
        stages = network(x)
        alter_gradients(stages, x)
        losses = paper_loss(stages, x, truth)
        found = [loss.item() for loss in losses]
        theirs = golden.values["losses_loss_mse_SSIM_mse2"][step - 1]
        np.testing.assert_allclose(found, theirs, rtol=1e-5, err_msg=f"step {step}")
        losses.total.backward()
        adam.step(rate)
        for name, value in golden.after(f"after{step}:"):
            ours = their_layout(network.state_dict()[own_name(name)])
            assert deviation(ours, value) < 1e-5, f"{name} after step {step}"


def test_the_released_checkpoint(reference):
    found = read_checkpoint(reference / "checkpoint")
    with np.load(reference / "rln_released_weights.npz") as expected:
        weights = {name: expected[name] for name in expected.files}
    assert len(weights) == 83
    for name, value in weights.items():
        assert found[name].dtype == value.dtype, name
        np.testing.assert_array_equal(found[name], value, strict=True)
    assert all(re.search(r"Adam|_power|^input/", name) for name in found.keys() - weights)
    loaded, again = rln_from_checkpoint(found), rln_from_checkpoint(weights)
    for a, b in zip(loaded.state_dict().values(), again.state_dict().values(), strict=True):
        assert torch.equal(a, b)
