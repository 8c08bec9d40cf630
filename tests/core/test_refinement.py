"""The refinement: a mixture of its candidates within bounds, as far-sighted as it says."""

import numpy as np
import phantoms
import pytest
import torch

from napari_rln.core.errors import RlnError
from napari_rln.networks.normalisation import Normalisation
from napari_rln.networks.refinement import (
    CANDIDATES,
    InferenceRefinement,
    Refinement,
    RefinementSettings,
    Refiner,
    as_channels,
    as_voxels,
)
from napari_rln.train.loss import refined_loss

CPU = torch.device("cpu")
SMALL = phantoms.SMALL_REFINEMENT
LIGHT = torch.tensor([[100.0, 0.1]])


def _candidates(shape=(8, 12, 16), seed=0, count=CANDIDATES):
    """Return an image and candidates, (1, n, D, H, W), non-negative with some empty voxels."""
    rng = np.random.default_rng(seed)
    data = rng.exponential(1.0, (1, count + 1, *shape)).astype(np.float32)
    data[0, :, rng.random(shape) < 0.2] = 0
    tensor = torch.from_numpy(data)
    return tensor[:, :1], tensor[:, 1:]


def _mixed(network, x, candidates, light=LIGHT):
    with torch.no_grad():
        return network(x, candidates, light)


@pytest.mark.parametrize("shape", [(1, 1, 2, 2, 2), (2, 3, 4, 6, 8)])
def test_blocks_of_voxels_are_channels_and_back(shape):
    x = torch.arange(float(np.prod(shape))).view(shape)
    channels = as_channels(x)
    n, c, *sizes = shape
    assert channels.shape == (n, 8 * c, *(s // 2 for s in sizes))
    first = x[0, 0, :2, :2, :2].ravel().tolist()
    assert sorted(channels[0, :8, 0, 0, 0].tolist()) == sorted(first)
    assert torch.equal(as_voxels(channels), x)


def test_first_weights_give_the_mean_of_the_candidates():
    x, candidates = _candidates()
    found = _mixed(Refinement(), x, candidates)
    torch.testing.assert_close(found, candidates.mean(1, keepdim=True))


@pytest.mark.parametrize("seed", [0, 1])
def test_a_result_stays_near_its_candidates_and_zeros_stay_zeros(seed):
    network = phantoms.random_refinement(seed=seed)
    x, candidates = _candidates(seed=seed)
    found = _mixed(network, x, candidates)
    least, most = candidates.amin(1, keepdim=True), candidates.amax(1, keepdim=True)
    assert (found >= least * np.exp(-2) * 0.9999).all()
    assert (found <= most * np.exp(2) * 1.0001).all()
    assert (found[most == 0] == 0).all()
    assert (most == 0).sum() > 100
    outside = (found < least) | (found > most)
    assert outside[most > 0].any()  # the factor is in use
    apart = (found / candidates.mean(1, keepdim=True))[most > 0]
    assert apart.std() > 0.1


def test_photons_and_background_matter():
    x, candidates = _candidates()
    network = phantoms.random_refinement()
    few = _mixed(network, x, candidates, torch.tensor([[10.0, 0.1]]))
    many = _mixed(network, x, candidates, torch.tensor([[1000.0, 0.1]]))
    bright = _mixed(network, x, candidates, torch.tensor([[10.0, 5.0]]))
    for other in (many, bright):
        assert (other - few).abs().max() > 1e-3
    both = _mixed(
        network, x.repeat(2, 1, 1, 1, 1), candidates.repeat(2, 1, 1, 1, 1),
        torch.tensor([[10.0, 0.1], [1000.0, 0.1]]),
    )  # fmt: skip
    torch.testing.assert_close(both, torch.cat((few, many)))


@pytest.mark.parametrize(
    ("before", "deep", "after"), [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 2, 1)]
)
def test_a_refinement_sees_as_far_as_it_says(before, deep, after):
    settings = RefinementSettings(width=8, deep_width=8, before=before, deep=deep, after=after)
    network = phantoms.random_refinement(settings).double()
    reach = settings.receptive_field
    size = 2 * reach + 8
    x, candidates = (part.double() for part in _candidates((4, 4, size)))
    whole = _mixed(network, x, candidates, LIGHT.double())
    farthest = 0
    for place in range(size // 2, size // 2 + 4):  # within a block of 4 voxels
        changed_x, changed = x.clone(), candidates.clone()
        changed_x[..., place] += 1
        changed[..., place] += 1
        differs = _mixed(network, changed_x, changed, LIGHT.double()) - whole
        places = torch.nonzero(differs.abs().amax((0, 1, 2, 3)) > 1e-14).ravel()
        farthest = max(farthest, int((places - place).abs().max()))
    assert reach - 4 < farthest <= reach


def test_the_default_refinement_has_so_many_weights():
    settings = RefinementSettings()
    assert settings.receptive_field == 32
    outputs, wide, deep = 8 * (CANDIDATES + 1), 32, 64
    residual = {width: 2 * (27 * width**2 + width) for width in (wide, deep)}
    expected = (
        27 * outputs * wide + wide  # first
        + 2 * wide + wide  # light
        + 2 * residual[wide] + 2 * residual[deep]
        + 2 * 8 * wide * deep + deep + wide  # down and up
        + 27 * 2 * wide * wide + wide  # merge
        + wide * outputs + outputs  # last
    )  # fmt: skip
    assert sum(p.numel() for p in Refinement().parameters()) == expected


def test_gradient_steps_lower_the_loss():
    torch.manual_seed(0)
    network = Refinement(SMALL)
    truth = torch.from_numpy(phantoms.spots((8, 16, 16), level=3.0))[None, None]
    x, candidates = _candidates((8, 16, 16))
    candidates[:, 2:3] = truth  # one of them is right
    power = truth.var().view(1)
    optimiser = torch.optim.Adam(network.parameters(), lr=0.01)
    losses = []
    for _ in range(12):
        loss = refined_loss(network(x, candidates, LIGHT), truth, power).total
        losses.append(float(loss.detach()))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert losses[1] < losses[0]
    assert losses[-1] < losses[0] - 0.3


@pytest.mark.parametrize(
    "changes", [{"candidates": 0}, {"width": 0}, {"deep_width": 257}, {"before": -1}, {"deep": 9}]
)
def test_settings_out_of_their_limits_are_refused(changes):
    (name,) = changes
    with pytest.raises(RlnError, match=f"`{name}`"):
        RefinementSettings(**changes)


# Inference


def _volumes(shape, seed=0):
    x, candidates = _candidates(shape, seed)
    return x[0, 0].numpy(), list(candidates[0].numpy())


@pytest.mark.parametrize("shape", [(8, 12, 16), (7, 9, 11), (1, 5, 6), (4, 4, 1)])
def test_inference_takes_volumes_of_any_size(shape):
    network = phantoms.random_refinement()
    x, candidates = _volumes(shape)
    found = InferenceRefinement(network, CPU, "float32")(x, candidates, 100.0, 0.1)
    assert (found.shape, found.dtype) == (shape, np.float32)
    pads = [(0, -n % 4) for n in shape]
    padded = [np.pad(v, pads, mode="edge") for v in (x, *candidates)]
    stack = torch.from_numpy(np.stack(padded))[None]
    expected = _mixed(network, stack[:, :1], stack[:, 1:])[0, 0].numpy()
    cut = tuple(slice(n) for n in shape)
    np.testing.assert_allclose(found, expected[cut], rtol=1e-4, atol=1e-5)


def test_double_precision_is_near_single():
    network = phantoms.random_refinement()
    x, candidates = _volumes((8, 12, 16))
    single, double = (
        InferenceRefinement(network, CPU, precision)(x, candidates, 100.0, 0.1)
        for precision in ("float32", "float64")
    )
    assert not np.array_equal(single, double)
    np.testing.assert_allclose(single, double, rtol=1e-4, atol=1e-5)
    assert next(network.parameters()).dtype == torch.float32  # a copy was converted


def test_a_refiner_works_in_image_units():
    prepared = InferenceRefinement(phantoms.random_refinement(), CPU, "float32")
    light, (*classical, output) = _volumes((8, 8, 8))
    expected = prepared(light, [*classical, output], 50.0, 0.2)
    scaling = Normalisation(offset=7.0, scale=100.0, gain=2.0, background=10.0)
    refiner = Refiner(network=prepared, scaling=scaling, factor=1.5)
    output = output - 1e-3 * (output == 0)  # below the background is none
    found = refiner(100 * output, 100 * np.stack(classical), 100.0, 100 * light)
    np.testing.assert_allclose(found, 150 * expected, rtol=1e-4, atol=1e-3)
