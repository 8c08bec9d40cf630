"""Our network, loss and gradients against a port that reproduces the authors' graph.

The weights are drawn at random, so that the numbers may be shipped; they were made by a port that
gives what the authors' TensorFlow graph does to 1e-5 with their own weights, which
``tests/outside/test_released_network.py`` checks us by where they are at hand.
"""

from pathlib import Path

import numpy as np
import pytest
import torch
from parity import STAGES, deviation, own_name, their_layout

from napari_rln.networks.rln import RLN
from napari_rln.networks.tensorflow_checkpoint import rln_from_checkpoint
from napari_rln.train.loss import paper_loss

GOLDEN = dict(np.load(Path(__file__).parent / "data" / "rln_open_golden.npz"))


def _after(prefix: str) -> dict[str, np.ndarray]:
    return {k.removeprefix(prefix): v for k, v in GOLDEN.items() if k.startswith(prefix)}


def _batch(name: str) -> torch.Tensor:
    return torch.from_numpy(GOLDEN[name])[None, None]


@pytest.fixture
def network() -> RLN:
    return rln_from_checkpoint(_after("weight:"), division_eps=1e-3)


@torch.no_grad()
def test_every_stage(network):
    stages = network(_batch("input"))
    for name, theirs in STAGES.items():
        assert deviation(getattr(stages, name), GOLDEN[theirs]) < 2.5e-6, name


@torch.no_grad()
def test_quotients_before_normalisation(network):
    quotients = []
    for part in (network.H1, network.H2):
        part.DV.bn.register_forward_pre_hook(lambda _, inputs: quotients.append(inputs[0]))
    network(_batch("input"))
    for ours, name in zip(quotients, ("DV1_temp_layer_prebn", "DV2_EST_prebn"), strict=True):
        assert deviation(ours, GOLDEN[name]) < 2.5e-6, name


@torch.no_grad()
def test_batch_statistics(network):
    stages = network.train()(_batch("input"))
    assert deviation(stages.output, GOLDEN["train_prediction"]) < 1e-5
    assert deviation(stages.e, GOLDEN["train_e"]) < 1e-5


@torch.no_grad()
def test_loss(network):
    x = _batch("input")
    losses = paper_loss(network.train()(x), x, _batch("truth"))
    for ours, name in zip(losses, ("loss", "mse", "ssim", "mse2"), strict=True):
        assert float(ours) == pytest.approx(float(GOLDEN[f"train_{name}"]), rel=1e-5), name


def test_gradients(network):
    network, x = network.double().train(), _batch("input").double()
    paper_loss(network(x), x, _batch("truth").double()).total.backward()
    theirs = _after("grad_train:")
    kernels = {name for name, value in network.named_parameters() if value.ndim == 5}
    assert {own_name(name) for name in theirs} == kernels
    for name, gradient in theirs.items():
        ours = their_layout(network.get_parameter(own_name(name)).grad)
        assert deviation(ours, gradient) < 5e-5, name
