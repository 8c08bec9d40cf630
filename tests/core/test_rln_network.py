import numpy as np
import pytest
import torch
from torch import nn

from napari_rln.core.errors import RlnError
from napari_rln.networks.rln import (
    RECEPTIVE_FIELD,
    RLN,
    NetworkSettings,
    Stages,
    initialise,
)
from napari_rln.train.loss import paper_loss

KERNELS = {
    "H1": {"e_1": 108, "e_2": 432, "e_3": 864, "e_4": 216, "e_5": 1728, "e_6": 3456, "e_7": 256}
    | {"e_8": 432},
    "H2": {"u_1": 108, "u_2": 432, "u_3": 216, "u_4": 1728},
    "H3": {"u_5": 216, "u_6": 2160, "u_7": 3456},
}
NORMS = [4, 4, 4, 1, 8, 8, 8, 4, 4, 1, 4, 4, 1, 8, 8, 1, 8]
BLURS = ("H1.e_1.conv", "H1.e_2.conv", "H1.e_3.conv", "H2.u_1.conv", "H2.u_2.conv")


def parameter_count(network):
    return sum(p.numel() for p in network.parameters() if p.requires_grad)


@pytest.fixture
def random() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.fixture
def network(random) -> RLN:
    """Return a float64 network in evaluation mode whose every number is random."""
    network = RLN().double().eval()
    for name, value in network.state_dict().items():
        if value.is_floating_point():
            shifted = name.endswith(("running_var", "bn.weight"))
            value.copy_(torch.rand(value.shape, generator=random) + 0.5 if shifted else
                        torch.randn(value.shape, generator=random) / 4)  # fmt: skip
    return network


def extent(mask: torch.Tensor) -> list[tuple[int, int]]:
    """Return the first and last true index along each axis of (D, H, W)."""
    return [(int(index.min()), int(index.max())) for index in mask.nonzero().T]


def test_parameters_block_by_block():
    network = RLN()
    assert parameter_count(network) == 15968
    for part, kernels in KERNELS.items():
        for name, count in kernels.items():
            block = network.get_submodule(f"{part}.{name}")
            convolutions = [block] if part == "H3" and name != "u_7" else [block.conv]
            assert sum(map(parameter_count, convolutions)) == count, name
            assert all(convolution.bias is None for convolution in convolutions)
    norms = [m for m in network.modules() if isinstance(m, nn.BatchNorm3d)]
    assert [norm.num_features for norm in norms] == NORMS
    assert {norm.eps for norm in norms} == {1e-3}
    assert sum(map(parameter_count, norms)) == 160


@pytest.mark.parametrize(
    ("views", "channels", "parameters"),
    [("single", 1, 15968), ("averaged", 1, 15968), ("concatenated", 2, 16620)],
)
@torch.no_grad()
def test_views(views, channels, parameters, random):
    network = RLN(NetworkSettings(views=views))
    assert parameter_count(network) == parameters
    x = torch.rand((2, channels, 8, 10, 12), generator=random)
    stages = network(x)
    for name, stage in stages._asdict().items():
        size = (4, 5, 6) if name in ("FP1", "DV1") else (8, 10, 12)
        assert stage.shape == (2, channels if name in ("DV1", "DV2") else 1, *size), name
    assert (stages.output > 0).all()
    torch.testing.assert_close(stages.e, x.mean(1, keepdim=True) * stages.BP1)
    assert paper_loss(stages, x, x[:, :1]).total.shape == ()


@torch.no_grad()
def test_the_image_as_first_estimate_is_the_papers_network(network, random):
    x = torch.rand((1, 1, 8, 8, 10), generator=random).double()
    for plain, started in zip(network(x), network(x, x.clone()), strict=True):
        assert torch.equal(plain, started)


@torch.no_grad()
def test_roles_of_image_and_first_estimate(network, random):
    x, E0 = torch.rand((2, 1, 1, 8, 8, 10), generator=random).double()
    stages, plain, other = network(x, E0), network(x), network(E0)
    assert torch.equal(stages.FP1, other.FP1)
    assert torch.equal(stages.FP2, other.FP2)
    torch.testing.assert_close(stages.e, E0 * stages.BP1)
    for norm, quotient, projection, image in (
        (network.H1.DV.bn, stages.DV1, stages.FP1, nn.functional.avg_pool3d(x, 2)),
        (network.H2.DV.bn, stages.DV2, stages.FP2, x),
    ):
        torch.testing.assert_close(quotient, norm(image / (projection + 1e-3)))
    assert not torch.allclose(stages.output, plain.output)


@pytest.mark.parametrize(
    ("views", "shape"),
    [
        ("single", (1, 1, 8, 7, 8)),
        ("single", (1, 1, 0, 8, 8)),
        ("single", (1, 2, 8, 8, 8)),
        ("single", (1, 8, 8, 8)),
        ("averaged", (1, 2, 8, 8, 8)),
        ("concatenated", (1, 1, 8, 8, 8)),
    ],
)
def test_refuses_odd_sizes_and_other_channels(views, shape):
    network = RLN(NetworkSettings(views=views))
    with pytest.raises(RlnError, match="even"):
        network(torch.zeros(shape))


@pytest.mark.parametrize("shape", [(1, 1, 8, 8, 6), (2, 1, 8, 8, 8), (1, 2, 8, 8, 8)])
def test_refuses_a_first_estimate_of_another_shape(shape):
    with pytest.raises(RlnError):
        RLN()(torch.zeros((1, 1, 8, 8, 8)), torch.zeros(shape))


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("at", [20, 21])
def test_reach(network, random, axis, at):
    """From an even position 16 back and 17 ahead, from an odd one the reverse."""
    within = (20 - RECEPTIVE_FIELD, 21 + RECEPTIVE_FIELD)
    shape, place = [4, 4, 4], [2, 2, 2]
    shape[axis], place[axis] = 40, at
    x = torch.rand((1, 1, *shape), generator=random).double().requires_grad_()
    output = network(x).output
    output[(0, 0, *place)].backward()
    assert extent(x.grad[0, 0] != 0)[axis] == within, "seen by an output voxel"
    with torch.no_grad():
        x[(0, 0, *place)] += 10
        changed = network(x).output != output
    assert extent(changed[0, 0])[axis] == within, "changed by an input voxel"


@torch.no_grad()
def test_only_even_shifts_commute(network, random):
    x = torch.rand((1, 1, 48, 8, 8), generator=random).double()
    output = network(x).output
    for shift in (1, 2, 3, 4):
        moved = network(x.roll(shift, 2)).output.roll(-shift, 2)
        difference = (moved - output)[:, :, 18:26].abs().max() / output.std()
        assert difference < 1e-12 if shift % 2 == 0 else difference > 1e-3, shift


def test_initial_weights_are_the_seeds():
    states = []
    for seed in (3, 3, 4):
        network = RLN()
        nn.init.normal_(network.H1.DV.bn.weight)
        network.H1.DV.bn.running_mean.fill_(5)
        initialise(network, torch.Generator().manual_seed(seed))
        states.append(network.state_dict())
    assert all(torch.equal(a, b) for a, b in zip(*(s.values() for s in states[:2]), strict=True))
    assert not torch.equal(states[0]["H1.e_1.conv.weight"], states[2]["H1.e_1.conv.weight"])
    assert not torch.equal(states[0]["H3.u_6.weight"], states[2]["H3.u_6.weight"])
    assert (states[0]["H1.DV.bn.weight"], states[0]["H1.DV.bn.running_mean"]) == (1, 0)


@pytest.mark.parametrize("views", ["single", "concatenated"])
def test_forward_projections_start_as_gaussians(random, views):
    network = RLN(NetworkSettings(views=views))
    initialise(network, random)
    squares = sum(axis**2 for axis in np.mgrid[-1:2, -1:2, -1:2])
    gaussians = np.exp(-squares / (2 * np.array([4, 1, 2, 3]).reshape(4, 1, 1, 1) ** 2))
    for name in BLURS:
        weight = network.get_submodule(name).weight.detach().numpy()
        factor = weight[0, :, 1, 1, 1]
        expected = gaussians[:, None] * factor[None, :, None, None, None]
        np.testing.assert_allclose(weight, expected, rtol=1e-6)
        assert (factor >= 0.7).all()
        assert (factor <= 1).all()
        assert len(set(factor)) == len(factor)


def test_other_kernels_start_as_truncated_normal(random):
    network = RLN()
    initialise(network, random)
    others = [
        module.weight.detach().flatten()
        for name, module in network.named_modules()
        if isinstance(module, nn.Conv3d | nn.ConvTranspose3d) and name not in BLURS
    ]
    weights = torch.cat(others)
    assert len(weights) == 15808 - (108 + 432 + 864 + 108 + 432)
    assert weights.abs().max() <= 2
    assert weights.mean().abs() < 0.03
    assert weights.std() == pytest.approx(0.8796, abs=0.02)  # of a normal cut at two of its own


def test_all_parameters_learn(random):
    network = RLN()
    initialise(network, random)
    x, truth = torch.rand((2, 2, 1, 8, 8, 8), generator=random)
    stages = network(x)
    assert isinstance(stages, Stages)
    paper_loss(stages, x, truth).total.backward()
    for name, parameter in network.named_parameters():
        assert torch.isfinite(parameter.grad).all(), name
        assert (parameter.grad != 0).any(), name
