"""The networks to compare RLN with: their sizes, their physics, training and application."""

import json
from dataclasses import replace
from typing import get_args

import numpy as np
import phantoms
import pytest
import torch
from scipy.ndimage import convolve

from napari_rln import cli
from napari_rln.core.errors import ComputeError, RlnError, RlnWarning
from napari_rln.core.generators import finish
from napari_rln.core.record import Record
from napari_rln.core.volume import Volume
from napari_rln.deconvolution.convolution import Convolution
from napari_rln.engine.execution import Execution, Output
from napari_rln.engine.in_memory import deconvolve
from napari_rln.engine.in_parts import run_task_iter
from napari_rln.engine.task import Task
from napari_rln.io.image import ImageFile
from napari_rln.io.volumes import read, write
from napari_rln.networks.architectures import admm_net
from napari_rln.networks.architectures.admm_net import (
    AdmmNet,
    PiecewiseLinear,
    Reconstruction,
    cosine_bases,
)
from napari_rln.networks.architectures.base import Architecture, Conv
from napari_rln.networks.architectures.blur import Blur
from napari_rln.networks.architectures.care import Care, CareSettings
from napari_rln.networks.architectures.dense_decon import DenseDecon
from napari_rln.networks.architectures.ista_net import IstaNet, IstaSettings
from napari_rln.networks.architectures.kernel_learning import (
    KernelLearning,
    KernelLearningSettings,
)
from napari_rln.networks.architectures.rcan import Rcan, RcanSettings
from napari_rln.networks.architectures.registry import ArchitectureName, name_of, new_network
from napari_rln.networks.initial_estimate import StartSettings
from napari_rln.networks.library import Library
from napari_rln.networks.model import SUFFIX, Model
from napari_rln.networks.network import Network
from napari_rln.train import learning_rate, state, validation
from napari_rln.train.learning_rate import LearningRate
from napari_rln.train.loop import train_model, train_model_iter
from napari_rln.train.loss import global_ssim
from napari_rln.train.recipes import RECIPES, settings_of
from napari_rln.train.training_set import choose_settings, training_set_of
from napari_rln.train.training_settings import PRESETS, TrainSettings

NAMES = [name for name in get_args(ArchitectureName) if name != "rln"]
RIVALS = pytest.mark.parametrize("name", [name for name in NAMES if name != "ista-large"])
PSF = phantoms.comatic_psf()
SYMMETRIC = phantoms.gaussian_psf()


def _seeded(seed=0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _small(name) -> Architecture:
    """Return a small network of an architecture with its first weights."""
    made = {
        "care": lambda: Care(CareSettings(filters=4)),
        "rcan": lambda: Rcan(RcanSettings(groups=1, blocks=1, channels=4, reduction=2)),
        "ista": lambda: IstaNet(IstaSettings(channels=2, phases=2)),
        "kld": lambda: KernelLearning(KernelLearningSettings(depth=4, radius=4)),
    }
    network = made[name]() if name in made else new_network(name)
    network.bind(SYMMETRIC.data)
    network.initialise(_seeded())
    return network


def _model(architecture, **changes) -> Model:
    network = _small(architecture)
    network.train()
    x = torch.from_numpy(phantoms.spots((16, 24, 24), level=2.0))[None, None]
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm3d):
            module.momentum = 1.0
    with torch.no_grad():
        network(x)
    given = {
        "name": f"small {architecture}", "network": network, "start": StartSettings(method="image"),
        "psf": SYMMETRIC, "record": Record(method="train"),
    }  # fmt: skip
    return Model(**given | changes)


def _image(shape=(16, 24, 24)) -> Volume:
    return phantoms.noisy_image(phantoms.spots(shape, level=300.0), SYMMETRIC)


@pytest.fixture
def quick(monkeypatch):
    """Take few classical iterations to judge by, and few batches for the statistics."""
    monkeypatch.setattr(state, "_STATISTICS", 2)
    monkeypatch.setattr(validation, "_ITERATIONS", (2, 4))
    monkeypatch.setattr(validation, "_WB_ITERATIONS", (1,))


# Sizes


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("care", 996_769), ("rcan", 1_002_621), ("ddn", 16_860), ("ista-large", 1_010_898),
        ("ista", 36_730), ("admm", 20_852), ("kld", 1_122), ("rln", 15_968),
    ],
)  # fmt: skip
def test_each_has_as_many_parameters_as_published(name, count):
    assert new_network(name).parameter_count == count


@RIVALS
def test_outputs_have_the_shape_of_the_image(name):
    network = _small(name)
    step = network.step
    x = torch.rand(2, 1, 4 * step, 4 * step + step, 16, generator=_seeded())
    assert network(x).output.shape == x.shape
    with pytest.raises(RlnError, match=r"takes \(N, 1, D, H, W\)"):
        network(torch.rand(1, 2, 16, 16, 16))
    if step > 1:
        with pytest.raises(RlnError, match="even D" if step == 2 else f"multiples of {step}"):
            network(torch.rand(1, 1, 16, 16, 16 + step - 1))


@RIVALS
def test_some_steps_lower_the_loss(name):
    network = _small(name)
    truth = torch.from_numpy(phantoms.spots((16, 24, 24), level=3.0))[None, None]
    x = Blur(SYMMETRIC.data).A(truth)
    optimiser = torch.optim.Adam(network.parameters(), lr=1e-3)
    losses = []
    for _ in range(6):
        loss = RECIPES[name].losses(network(x), truth).total
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())
    assert losses[-1] < losses[0]


# The blur as an operator


@pytest.mark.parametrize("psf", [PSF.data, PSF.data[:10, 1:, :10]], ids=["odd", "even"])
def test_the_blur_is_that_of_the_deconvolution(psf):
    psf = np.ascontiguousarray(psf / psf.sum())
    shape = (18, 20, 23)
    rng = np.random.default_rng(0)
    x, y = (torch.from_numpy(rng.random(shape)) for _ in range(2))
    engine = Convolution(psf, shape, border="reflect", dtype=torch.float64)
    blur = Blur(psf)
    forth, back = blur.A(x[None, None])[0, 0], blur.A_adjoint(y[None, None])[0, 0]
    torch.testing.assert_close(forth, engine.A(x).clone(), rtol=0, atol=1e-7)
    torch.testing.assert_close(back, engine.A_adjoint(y).clone(), rtol=0, atol=1e-7)
    assert float((forth * y).sum()) == pytest.approx(float((x * back).sum()), rel=1e-10)


def test_the_transfer_function_is_that_of_the_deconvolution():
    shape = (18, 20, 24)
    engine = Convolution(PSF.data, shape, border="periodic", dtype=torch.float64)
    x = torch.from_numpy(np.random.default_rng(0).random(shape))
    otf = Blur(PSF.data).transfer(shape, PSF.shape, x)
    blurred = torch.fft.irfftn(torch.fft.rfftn(x) * otf, s=shape)
    torch.testing.assert_close(blurred, engine.A(x).clone(), rtol=0, atol=1e-6)


def test_the_psf_reaches_all_planes_of_a_thin_stack():
    """Of four planes seven of a PSF matter; the impulse is mirrored at the borders."""
    psf = np.zeros((11, 3, 3), np.float32)
    psf[:, 1, 1] = np.arange(1.0, 12.0)
    x = torch.zeros(1, 1, 4, 5, 5)
    x[0, 0, 0, 2, 2] = 1
    used = np.arange(3.0, 10.0) / np.arange(3.0, 10.0).sum()  # shifts by -3 to 3
    row = Blur(psf / psf.sum()).A(x)[0, 0, :, 2, 2]
    expected = [used[3] + used[4], used[4] + used[5], used[5] + used[6], used[6]]
    torch.testing.assert_close(row, torch.tensor(expected, dtype=torch.float32))
    assert float(Blur(psf).A(x).sum()) == pytest.approx(float(sum(expected)))


def test_a_reconstruction_solves_its_equation():
    """The optimum of |H x - y|^2 + sum of rho |D x - z|^2 has no gradient."""
    shape = (8, 10, 12)
    part = Reconstruction()
    with torch.no_grad():
        part.penalty.copy_(torch.rand(26, generator=_seeded()) + 0.1)
    y = torch.rand(1, 1, *shape, generator=_seeded(1))
    wanted = torch.rand(1, 26, *shape, generator=_seeded(2))
    slabs = wanted.split((3, 4, 1), 2)
    otf = Blur(PSF.data).transfer(shape, (8, 10, 12), y)
    x = part(otf, torch.fft.rfftn(y, dim=(-3, -2, -1)), slabs, shape).detach()
    x.requires_grad_()
    blurred = torch.fft.irfftn(
        torch.fft.rfftn(x, dim=(-3, -2, -1)) * otf, s=shape, dim=(-3, -2, -1)
    )
    padded = torch.nn.functional.pad(x, (1,) * 6, mode="circular")
    kernels = part.filters.kernels().detach().flip(1, 2, 3)[:, None]
    filtered = torch.nn.functional.conv3d(padded, kernels)
    misfit = (filtered - wanted).square().sum((0, 2, 3, 4))
    cost = (blurred - y).square().sum() + (part.penalty.detach() * misfit).sum()
    cost.backward()
    assert float(x.grad.abs().max()) < 1e-3 * float(y.abs().max())


def test_the_filters_begin_as_cosines_without_a_constant():
    bases = cosine_bases()
    torch.testing.assert_close(bases @ bases.T, torch.eye(26), rtol=0, atol=1e-6)
    assert float(bases.sum(1).abs().max()) < 1e-6


def test_the_shrinkage_begins_as_a_soft_threshold():
    network = AdmmNet()
    network.initialise(_seeded())
    shrink = network.stages[0].shrinkage
    values = torch.tensor([-3.0, -1.0, -0.5, -0.05, -0.02, 0.0, 0.04, 0.2, 1.0, 2.5])
    expected = values.sign() * (values.abs() - 0.05).clamp_min(0)
    shrunk = shrink(values.view(1, 1, -1, 1, 1).expand(1, 26, -1, 1, 1))[0, :, :, 0, 0]
    # Control points lie 0.02 apart, so that the kink at 0.05 is off by at most half of that.
    torch.testing.assert_close(shrunk, expected.expand(26, -1), rtol=0, atol=0.0051)
    assert PiecewiseLinear().values.shape == (26, 101)


def test_slabs_change_neither_output_nor_gradients(monkeypatch):
    made = []
    for voxels in (1 << 17, 60):
        monkeypatch.setattr(admm_net, "_SLAB", voxels)
        network = _small("admm").double()
        x = torch.rand(2, 1, 6, 7, 8, generator=_seeded(3), dtype=torch.float64)
        output = network(x).output
        output.square().sum().backward()
        made.append([output.detach(), *(p.grad for p in network.parameters())])
    for one, other in zip(*made, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)


def test_a_stage_updates_coefficients_and_multipliers(monkeypatch):
    """Equations of Yang et al. with one filter watched, in plain numpy."""
    shape = (6, 7, 8)
    monkeypatch.setattr(admm_net, "_SLAB", 4 * 7 * 8)  # slabs of 4 and 2 planes
    network = AdmmNet()
    network.initialise(_seeded())
    stage, number = network.stages[1], 5
    with torch.no_grad():
        stage.rate.copy_(torch.linspace(0.5, 1.5, 26))
    image = torch.rand(1, 1, *shape, generator=_seeded(1))
    otf = Blur(PSF.data).transfer(shape, shape, image)
    spectrum = torch.fft.rfftn(image, dim=(-3, -2, -1))
    wanted = list(torch.rand(1, 26, *shape, generator=_seeded(2)).split((4, 2), 2))
    betas = list((0.1 * torch.rand(1, 26, *shape, generator=_seeded(3))).split((4, 2), 2))
    with torch.no_grad():
        x = stage.reconstruction(otf, spectrum, wanted, shape).numpy()[0, 0]
        beta = torch.cat(betas, 2)[0, number].numpy()
        stage(otf, spectrum, wanted, betas, shape)
    new_wanted, new_betas = torch.cat(wanted, 2), torch.cat(betas, 2)
    kernel = stage.filters.kernels()[number].detach().numpy()
    c = convolve(x, kernel, mode="wrap")
    points = np.linspace(-1, 1, 101)
    z = np.interp(c + beta, points, np.sign(points) * np.maximum(np.abs(points) - 0.05, 0))
    after = beta + float(stage.rate[number].detach()) * (c - z)
    assert np.abs(c + beta).max() < 1  # within the control points
    np.testing.assert_allclose(new_betas[0, number].numpy(), after, atol=1e-5)
    np.testing.assert_allclose(new_wanted[0, number].numpy(), z - after, atol=1e-5)


def test_symmetry_is_summed_over_phases():
    network = _small("ista")
    y = torch.rand(1, 1, 12, 14, 14, generator=_seeded())
    with torch.no_grad():
        x, total = y, 0.0
        for phase in network.phases:
            x, symmetry = phase(x, y, network.blur)
            total += float(symmetry)
        assert float(network(y).symmetry) == pytest.approx(total)
    assert total > 0


def test_few_channels_are_computed_as_by_torch():
    layer = Conv(3, 5)
    x = torch.rand(1, 3, 6, 7, 8, generator=_seeded(), requires_grad=True)
    plain = torch.nn.functional.conv3d(x, layer.weight, layer.bias, padding=1)
    torch.testing.assert_close(layer(x), plain)
    with torch.no_grad():
        torch.testing.assert_close(layer(x), plain)
    grads = [torch.autograd.grad(y.square().sum(), [x, layer.weight]) for y in (plain, layer(x))]
    torch.testing.assert_close(*grads)


def test_ista_starts_with_a_descent_towards_explaining_the_image():
    network = _small("ista")
    with torch.no_grad():
        for phase in network.phases:
            phase.G.weight.zero_()
    y = torch.rand(1, 1, 12, 14, 14, generator=_seeded())
    x, blur = y, Blur(SYMMETRIC.data)
    for _ in range(2):
        x = x - 0.5 * blur.A_adjoint(blur.A(x) - y)
    torch.testing.assert_close(network(y).output, x)


def test_kernel_learning_starts_with_the_adjoint():
    network = KernelLearning(KernelLearningSettings(depth=6, radius=8))
    network.bind(SYMMETRIC.data)
    network.initialise(_seeded())
    kernel = network.kernel().detach().numpy()
    around = np.pad(SYMMETRIC.data, ((2, 2), (4, 4), (4, 4)))
    assert np.abs(kernel - around).max() < 0.12 * around.max()  # interpolated between radii
    truth = torch.from_numpy(phantoms.spots((16, 24, 24), level=3.0))[None, None]
    blur = Blur(SYMMETRIC.data)
    y = blur.A(truth)
    x = y.clamp_min(1e-4)
    for _ in range(2):
        x = x * blur.A_adjoint((y + 0.1) / (blur.A(x) + 0.1))
    output = network(y).output.detach()
    assert float((output - x).abs().max()) < 0.05 * float(x.max())
    assert float(output.sum()) == pytest.approx(float(truth.sum()), rel=0.05)


# Application


@RIVALS
def test_a_saved_model_is_the_same(name, tmp_path):
    model = _model(name)
    model.save(tmp_path / f"m{SUFFIX}")
    again = Model.load(tmp_path / f"m{SUFFIX}")
    assert (again.hash, again.identity) == (model.hash, model.identity)
    assert name_of(again.network) == name
    image = _image()
    results = [
        deconvolve(image, SYMMETRIC, Network(model=one, background=10.0, device="cpu"))
        for one in (model, again)
    ]
    np.testing.assert_array_equal(results[0].data, results[1].data)
    assert results[0].data.min() >= 0
    assert results[0].shape == image.shape


@pytest.mark.parametrize("name", ["care", "ddn"])
@pytest.mark.parametrize("shape", [(18, 64, 72), (19, 61, 71)])
def test_tiles_together_are_the_whole(name, shape):
    model, image = _model(name), _image(shape)
    method = Network(model=model, background=10.0, device="cpu")
    whole = deconvolve(image, None, method)
    for tile in (16, 24):
        tiled = deconvolve(image, None, method, tile=tile)
        assert tiled.record.facts["tiles"] > 1
        # Only the last odd plane, which is repeated, may be pooled with another.
        np.testing.assert_allclose(tiled.data, whole.data, atol=1e-4 * whole.data.max())


def test_tiles_of_kernel_learning_are_the_whole():
    model, image = _model("kld"), _image((16, 24, 100))
    method = Network(model=model, background=10.0, device="cpu")
    whole = deconvolve(image, SYMMETRIC, method)
    tiled = deconvolve(image, SYMMETRIC, method, tile=32)
    assert tiled.record.facts["tiles"] > 1
    np.testing.assert_allclose(tiled.data, whole.data, atol=1e-4 * whole.data.max())


@pytest.mark.parametrize("name", ["rcan", "ista", "admm"])
def test_tiles_that_differ_from_the_whole_are_warned_of(name):
    model, image = _model(name), _image((16, 24, 80))
    method = Network(model=model, background=10.0, device="cpu")
    whole = deconvolve(image, SYMMETRIC, method)
    with pytest.warns(RlnWarning, match="seams may show"):
        tiled = deconvolve(image, SYMMETRIC, method, tile=32)
    off = np.abs(tiled.data - whole.data)
    assert 0 < off.max() < 0.05 * whole.data.max()


def test_tiles_see_the_whole_psf_at_hand():
    """A model for a small PSF, applied with a wider one, has a wider halo."""
    model, image = _model("kld"), _image((16, 24, 130))
    wider = phantoms.gaussian_psf((9, 9, 23), (1.6, 1.2, 3.0))
    method = Network(model=model, background=10.0, device="cpu")
    with pytest.warns(RlnWarning, match="another PSF"):
        whole = deconvolve(image, wider, method)
    with pytest.warns(RlnWarning, match="another PSF") as said:
        tiled = deconvolve(image, wider, method, tile=32)
    assert not [each for each in said if "seams" in str(each.message)]
    assert tiled.record.facts["tiles"] > 1
    np.testing.assert_allclose(tiled.data, whole.data, atol=1e-4 * whole.data.max())


@pytest.mark.parametrize("name", ["care", "kld"])
def test_from_disk_is_as_in_memory(name, tmp_path):
    image, model = _image((21, 70, 75)), _model(name)
    write(image, tmp_path / "image.ome.tif", dtype="uint16")
    model.save(tmp_path / f"m{SUFFIX}")
    method = Network(model=tmp_path / f"m{SUFFIX}", background=10.0, gain=1.0, device="cpu")
    task = Task(
        image=ImageFile(path=str(tmp_path / "image.ome.tif")),
        psf=SYMMETRIC if model.needs_psf else None,
        method=method,
        output=Output(path=tmp_path / "out.ome.zarr"),
        execution=Execution(tile=40),
    )
    finish(run_task_iter(task))
    whole = deconvolve(read(tmp_path / "image.ome.tif"), task.psf, method)
    there = read(tmp_path / "out.ome.zarr")
    np.testing.assert_allclose(there.data, whole.data, atol=2e-3 * whole.data.max())


@pytest.mark.parametrize("name", ["ista", "admm", "kld"])
def test_without_the_psf_there_is_a_clear_error(name):
    with pytest.raises(RlnError, match="needs the PSF"):
        deconvolve(_image(), None, Network(model=_model(name), device="cpu"))


def test_an_architecture_of_a_later_version_is_said(tmp_path):
    model = _model("care")
    path = tmp_path / f"m{SUFFIX}"
    model.save(path)
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    card = json.loads(header["__metadata__"]["napari-rln"]) | {"architecture": "later"}
    header["__metadata__"]["napari-rln"] = json.dumps(card)
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + content[8 + length :])
    with pytest.raises(RlnError, match="architecture 'later' is unknown"):
        Model.load(path)
    assert "later" in Library(tmp_path).entries()[-1].error


def test_the_library_says_what_a_model_is(tmp_path):
    for name in ("care", "kld"):
        _model(name, name=name).save(tmp_path / f"{name}{SUFFIX}")
    entries = {entry.name: entry for entry in Library(tmp_path).entries()}
    assert (entries["care"].architecture, entries["care"].needs_psf) == ("CARE", False)
    assert (entries["kld"].architecture, entries["kld"].needs_psf) == ("KLD", True)
    assert (entries["universal"].architecture, entries["universal"].needs_psf) == ("RLN", True)


# Training


@RIVALS
def test_each_is_trained_by_the_one_loop(name, quick):
    settings = replace(
        settings_of(name, "full"), steps=3, batch=1, patch=16, shape=(16, 16, 16), examples=2,
        steps_per_example=1, validate=1, validate_every=3, device="cpu",
    )  # fmt: skip
    reports = []
    steps = train_model_iter(training_set_of(settings, psf=SYMMETRIC), settings, name=name)
    while True:
        try:
            reports.append(next(steps))
        except StopIteration as stop:
            model = stop.value
            break
    assert [r.step for r in reports if r.phase == "train"] == [1, 2, 3]
    assert np.isfinite(reports[-1].loss)
    assert name_of(model.network) == name
    assert model.variant == "paper"
    assert (model.output_scale == 1) == model.network.needs_psf
    result = deconvolve(_image(), SYMMETRIC, Network(model=model, device="cpu"))
    assert np.isfinite(result.data).all()
    assert result.record.facts["model"]["settings"]["architecture"] == name


def test_a_training_that_goes_on_is_that_of_one_go(quick, tmp_path, monkeypatch):
    """The rate halved by validations, too, is that of an uninterrupted training."""
    monkeypatch.setattr(learning_rate, "_PATIENCE", 1)  # halved at every validation but the best
    settings = replace(
        settings_of("care", "paper"), steps=8, batch=1, patch=8, shape=(16, 16, 16), examples=2,
        steps_per_example=1, validate=1, validate_every=1, device="cpu",
    )  # fmt: skip
    setting = training_set_of(settings, psf=SYMMETRIC)
    whole = train_model(setting, settings)
    steps = train_model_iter(setting, settings, checkpoint=tmp_path / "c")
    for report in steps:
        if report.phase == "train" and report.step == 4:
            break
    steps.close()
    steps = train_model_iter(setting, settings, checkpoint=tmp_path / "c", resume=True)
    *_, last = steps
    model = last.model()
    assert model.hash == whole.hash
    assert last.learning_rate < 4e-4


@pytest.mark.parametrize("name", ["care", "ddn", "ista", "kld"])
def test_volumes_of_odd_sizes_are_trained_on(name, quick):
    settings = replace(
        settings_of(name, "full"), steps=2, batch=1, patch=16, shape=(18, 21, 22), examples=1,
        validate=1, validate_every=1, device="cpu",
    )  # fmt: skip
    model = train_model(training_set_of(settings, psf=PSF), settings)
    assert np.isfinite(model.validation["network"]["psnr_db"])


def test_a_training_that_diverges_is_ended(quick, monkeypatch):
    settings = replace(
        settings_of("admm", "full"), steps=3, batch=1, patch=16, shape=(16, 16, 16), examples=1,
        validate=0, device="cpu",
    )  # fmt: skip

    def spoilt(outputs, truth):
        return (outputs.output / 0 - truth).mean()

    monkeypatch.setitem(RECIPES, "admm", replace(RECIPES["admm"], loss=spoilt))
    with pytest.raises(ComputeError, match=r"training diverged.*learning_rate"):
        train_model(training_set_of(settings, psf=SYMMETRIC), settings)


def test_a_diverged_network_gives_no_number():
    network = _small("admm")
    x = torch.full((1, 1, 12, 14, 14), torch.nan)
    with torch.no_grad():
        assert network(x).output.isnan().all()


def test_rates_are_those_of_the_authors():
    def rates(name, steps, total):
        rate = LearningRate(settings_of(name, "paper"))
        return [rate.at(step, total) for step in steps]

    assert rates("rcan", (0, 24, 25, 50, 75, 99), 100) == pytest.approx(
        [1e-4, 1e-4, 5e-5, 2.5e-5, 1.25e-5, 1.25e-5]
    )
    assert rates("ddn", (0, 149, 150, 300), 12_000) == pytest.approx(
        [0.04, 0.04, 0.04 * 0.98, 0.04 * 0.98**2]
    )
    assert rates("ista", (0, 500), 1000) == [1e-4, 1e-4]
    care = LearningRate(settings_of("care", "paper"))
    for error in [1.0, 0.5, *[0.6] * 9]:
        care.observe(error)
    assert care.at(0, 100) == 4e-4
    care.observe(0.6)
    assert care.at(0, 100) == 2e-4
    assert LearningRate(care.settings, **care.state()).at(0, 100) == 2e-4


def test_losses_are_those_of_the_authors():
    network = _small("ista")
    x = torch.rand(2, 1, 8, 8, 8, generator=_seeded())
    truth = torch.rand(2, 1, 8, 8, 8, generator=_seeded(1))
    with torch.no_grad():
        outputs = network(x)

    def loss(name):
        return float(RECIPES[name].losses(outputs, truth).total)

    off = (outputs.output - truth).double()
    mse = float(off.square().mean())
    norms = [float(o.norm() / t.norm()) for o, t in zip(off, truth, strict=True)]
    assert loss("care") == loss("rcan") == pytest.approx(float(off.abs().mean()))
    assert loss("ista") == pytest.approx(mse + 0.01 * float(outputs.symmetry))
    assert loss("admm") == pytest.approx(np.mean(norms))
    assert loss("kld") == pytest.approx(mse)
    similarity = float(global_ssim(outputs.output, truth))
    least = float(outputs.output.min())
    assert loss("ddn") == pytest.approx(mse - np.log((1 + similarity) / 2) - 1.3 * least)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("preset", ["quick", "full", "paper"])
def test_a_common_budget_has_the_same_volumes_and_time(name, preset):
    settings, rln = settings_of(name, preset), PRESETS[preset]
    assert (settings.architecture, settings.variant, settings.loss) == (name, "paper", "paper")
    if preset != "paper":
        same = ("steps", "minutes", "examples", "steps_per_example", "shape", "validate", "seed")
        assert all(getattr(settings, field) == getattr(rln, field) for field in same)


def test_settings_that_an_architecture_cannot_use_are_said():
    with pytest.raises(RlnError, match=r"`patch` is 18 voxels; for care .* multiple of 4: give 20"):
        replace(settings_of("care", "full"), patch=18)
    with pytest.raises(RlnError, match=r"`normalisation` is percentiles.*give brightness"):
        replace(settings_of("ista", "full"), normalisation="percentiles")
    with pytest.raises(RlnError, match="needs the PSF that it is for"):
        _model("kld", psf=None)


def test_an_architecture_starts_from_the_image_and_new_weights():
    settings, model = choose_settings("quick", architecture="care")
    assert model is None
    assert settings.start_settings.method == "image"
    with pytest.raises(RlnError, match=r"`architecture` is care.*`variant` paper"):
        TrainSettings(architecture="care")
    with pytest.raises(RlnError, match="of architecture rln, the training of care"):
        training_set_of(settings, psf=SYMMETRIC, initial_model=phantoms.small_model("paper"))
    with pytest.raises(RlnError, match="trained for one PSF"):
        training_set_of(settings_of("ista", "full"), any_psf=True)


def test_a_model_goes_on_from_its_weights(quick, tmp_path):
    model = _model("care")
    model.save(tmp_path / f"m{SUFFIX}")
    settings, first = choose_settings("quick", None, str(tmp_path / f"m{SUFFIX}"))
    assert first.hash == model.hash
    assert (settings.architecture, settings.variant, settings.mirror) == ("care", "paper", False)
    settings = replace(
        settings, steps=2, batch=1, patch=8, shape=(16, 16, 16), examples=2, validate=1,
        validate_every=1, device="cpu",
    )  # fmt: skip
    trained = train_model(training_set_of(settings, psf=SYMMETRIC, initial_model=first), settings)
    assert name_of(trained.network) == "care"
    assert trained.network.settings == CareSettings(filters=4)


def test_the_command_line_trains_and_applies_one(monkeypatch, quick, tmp_path, capsys):
    tiny = replace(
        PRESETS["full"], steps=2, batch=1, patch=16, shape=(16, 16, 16), examples=1, validate=1,
        validate_every=2, device="cpu",
    )  # fmt: skip
    monkeypatch.setitem(PRESETS, "full", tiny)
    write(SYMMETRIC, tmp_path / "psf.ome.tif")
    write(_image(), tmp_path / "image.ome.tif")
    model = tmp_path / f"admm{SUFFIX}"
    words = ["train", "--out", model, "--psf", tmp_path / "psf.ome.tif", "--architecture", "admm",
             "--preset", "full"]  # fmt: skip
    assert cli.run([str(word) for word in words]) == 0
    assert Model.load(model).network.title == "ADMM-Net"
    words = ["rln", tmp_path / "image.ome.tif", "--model", model, "--psf",
             tmp_path / "psf.ome.tif", "--out", tmp_path / "out.ome.tif"]  # fmt: skip
    assert cli.run([str(word) for word in words]) == 0
    assert read(tmp_path / "out.ome.tif").shape == (16, 24, 24)
    assert cli.run(["model", str(model)]) == 0
    assert "ADMM-Net, 20,852 parameters" in capsys.readouterr().out
    words[4:6] = []  # without the PSF
    assert cli.run([str(word) for word in [*words[:4], "--out", tmp_path / "no.ome.tif"]]) == 1


def test_the_half_precision_of_a_gpu_is_refused_where_there_is_none():
    with pytest.raises(RlnError, match="no float16"):
        deconvolve(_image(), None, Network(model=_model("care"), precision="float16", device="cpu"))


def test_ddn_has_its_layers_where_torch_does_not_look():
    """A layer called half would replace the method of modules that changes their number type."""
    assert callable(DenseDecon().half)
