"""Our network and loss against numbers that the paper's authors' own code produced.

The network runs in float32, as theirs did, where its results are compared, and in float64 where
gradients are, so that the tolerance there is the rounding of the reference alone.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import avg_pool3d

from napari_rln.networks.rln import RLN, Stages
from napari_rln.networks.tensorflow import rln_from_checkpoint
from napari_rln.train.loss import paper_loss

STAGES = {
    "FP1": "FP1_ave_9",
    "DV1": "DV1_temp_layer",
    "BP1": "BP1_ave_result_prelu_12_u2",
    "e": "e_temp2",
    "E1": "result_prelu_12_1",
    "FP2": "FP2_ave_1",
    "DV2": "DV2_EST",
    "BP2": "BP2_ave_2",
    "e2": "e2_Estimation1",
    "E2": "Estimation",
    "output": "prediction",
}
NORMS = [
    "H1.e_1.bn",
    "H1.e_2.bn",
    "H1.e_3.bn",
    "H1.DV.bn",
    "H1.e_4.bn",
    "H1.e_5.bn",
    "H1.e_6.bn",
    "H1.e_7.bn",
    "H1.e_8.bn",
    "H1.e_bn",
    "H2.u_1.bn",
    "H2.u_2.bn",
    "H2.DV.bn",
    "H2.u_3.bn",
    "H2.u_4.bn",
    "H2.e2_bn",
    "H3.u_7.bn",
]
OF_NORMS = {
    "gamma": "weight",
    "beta": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
}
LOSSES = ("loss", "mse", "SSIM", "mse2")


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
def golden(shared, request) -> Reference:
    return Reference(shared / "reference", request.param)


def deviation(ours: torch.Tensor, theirs: np.ndarray) -> float:
    """Return the largest difference in units of the largest value."""
    found = ours.detach().numpy().reshape(theirs.shape)
    return float(np.abs(found - theirs).max() / np.abs(theirs).max())


def own_name(name: str) -> str:
    """Return our name of a variable of theirs."""
    layer, _, last = name.rpartition("/")
    if layer.startswith("batch_normalization"):
        number = layer.removeprefix("batch_normalization").removeprefix("_")
        return f"{NORMS[int(number or 0)]}.{OF_NORMS[last]}"
    part = "H1" if last[0] == "e" else "H2" if last < "u_5" else "H3"
    return f"{part}.{last}.weight" if last in ("u_5", "u_6") else f"{part}.{last}.conv.weight"


def their_layout(value: torch.Tensor) -> torch.Tensor:
    return value.permute(2, 3, 4, 1, 0) if value.ndim == 5 else value


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


def test_gradients(shared):
    golden = Reference(shared / "reference", "a")
    network, x = golden.network().double().train(), golden.batch("input").double()
    stages = network(x)
    alter_gradients(stages, x)
    paper_loss(stages, x, golden.batch("ground_truth").double()).total.backward()
    theirs = dict(golden.after("grad_train:"))
    assert {own_name(name) for name in theirs} == {name for name, _ in network.named_parameters()}
    for name, gradient in theirs.items():
        ours = their_layout(network.get_parameter(own_name(name)).grad)
        assert deviation(ours, gradient) < 5e-5, name


def test_five_steps(shared):
    golden = Reference(shared / "reference", "train5")
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
