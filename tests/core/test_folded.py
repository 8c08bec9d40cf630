import importlib.util
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from napari_rln.core.errors import RlnError
from napari_rln.core.memory import keep_freed_memory, release_freed_memory
from napari_rln.networks.inference import (
    InferenceNetwork,
    Precision,
    compile_in_background,
    is_compiling,
)
from napari_rln.networks.rln import RLN, NetworkSettings, Views, initialise

CPU = torch.device("cpu")
PATHS = ["compiled", "torch"]


def trained(views: Views = "single", seed: int = 0, spread: float = 1.0) -> RLN:
    """Return a network with random statistics, scales and shifts in its normalisations."""
    generator = torch.Generator().manual_seed(seed)
    network = RLN(NetworkSettings(views=views, division_eps=1e-4))
    initialise(network, generator)
    network.train()
    norms = [m for m in network.modules() if isinstance(m, nn.BatchNorm3d)]
    for norm in norms:
        norm.momentum = 1.0
    with torch.no_grad():
        network(torch.rand(2, network.settings.channels, 16, 16, 16, generator=generator))
        for norm in norms:
            norm.running_mean *= 1 + 0.3 * spread * torch.rand(
                len(norm.weight), generator=generator
            )
            norm.running_var *= 0.5 + torch.rand(len(norm.weight), generator=generator)
            norm.weight.copy_(0.5 + torch.rand(len(norm.weight), generator=generator))
            norm.bias.copy_(spread * torch.randn(len(norm.weight), generator=generator))
    return network.eval()


def inputs(network: RLN, *shape: int, seed: int = 1) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(network.settings.channels, *shape, generator=generator)


def reference(network: RLN, x: torch.Tensor, E0: torch.Tensor | None = None) -> torch.Tensor:
    """Return the module's output in double precision."""
    twin = RLN(network.settings).double().eval()
    twin.load_state_dict(network.state_dict())
    with torch.no_grad():
        return twin(x[None].double(), None if E0 is None else E0[None].double()).output[0]


def error(a: torch.Tensor, b: torch.Tensor) -> float:
    """Return the largest difference over the largest value."""
    assert a.shape == b.shape
    return float((a - b).abs().max() / b.abs().max())


def make(network: RLN, path: str) -> InferenceNetwork:
    if path == "compiled":
        pytest.importorskip("numba")
    folded = InferenceNetwork(network, CPU, compiled=path == "compiled")
    assert folded.path == path
    return folded


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("views", ["single", "averaged", "concatenated"])
def test_equals_the_module(views: Views, path: str):
    network = trained(views)
    folded = make(network, path)
    for shape in [(2, 2, 2), (12, 14, 10), (4, 6, 40), (10, 20, 34), (2, 36, 48), (40, 2, 2)]:
        x, E0 = inputs(network, *shape), inputs(network, *shape, seed=2)
        assert error(folded(x), reference(network, x)) < 5e-6
        assert error(folded(x, E0), reference(network, x, E0)) < 5e-6


@pytest.mark.parametrize("path", PATHS)
def test_equals_the_module_where_volumes_are_split(path: str):
    network = trained(seed=3)
    folded = make(network, path)
    x = inputs(network, 6, 150, 18)  # more strips than a block has
    assert error(folded(x), reference(network, x)) < 5e-6
    threads = torch.get_num_threads()
    try:
        for count in (1, 3):
            torch.set_num_threads(count)
            assert error(folded(x), reference(network, x)) < 5e-6
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("scale", [-100.0, -1.0, 0.0, 1e-3, 100.0, 1e4])
def test_extreme_values(path: str, scale: float):
    network = trained(seed=4)
    folded = make(network, path)
    x = scale * inputs(network, 8, 12, 20)
    x[0, 4, 6, 10] *= 100  # a bright voxel beside dark ones
    expected = reference(network, x)
    assert torch.isfinite(expected).all()
    with torch.no_grad():
        plain = error(network(x[None]).output[0], expected)
    # Where float32 itself has fewer digits, so has this.
    assert error(folded(x), expected) < max(1e-5, 30 * plain)


@pytest.mark.parametrize("path", PATHS)
def test_extreme_statistics(path: str):
    for seed in range(3):
        network = trained(seed=seed, spread=6.0)
        x = inputs(network, 8, 12, 20)
        assert error(make(network, path)(x), reference(network, x)) < 2e-5


@pytest.mark.parametrize("shape", [(8, 12, 16), (26, 40, 48), (12, 36, 32), (6, 8, 18)])
def test_what_lay_in_the_workspace_before_does_not_matter(
    shape: tuple[int, int, int], monkeypatch: pytest.MonkeyPatch
):
    """Also where rows fill their vectors to the last, so that the next row's zeros end them."""
    pytest.importorskip("numba")
    from napari_rln.networks.cpu_kernels.compiled import Compiled

    monkeypatch.setattr(Compiled, "_space", lambda _, size: np.full(size, np.nan, np.float32))
    network = trained(seed=3)
    x, E0 = inputs(network, *shape), inputs(network, *shape, seed=2)
    assert error(make(network, "compiled")(x, E0), reference(network, x, E0)) < 1e-5


@pytest.mark.parametrize("path", PATHS)
def test_batches(path: str):
    network = trained("concatenated")
    folded = make(network, path)
    batch = torch.stack([inputs(network, 4, 6, 8, seed=seed) for seed in range(3)])
    together = folded(batch)
    assert together.shape == (3, 1, 4, 6, 8)
    for x, y in zip(batch, together, strict=True):
        assert error(folded(x), y) < 1e-6
    # As a crop or a transposed view comes.
    x = batch[0].transpose(1, 3)
    assert error(folded(x), reference(network, x.contiguous())) < 5e-6


@pytest.mark.parametrize("path", PATHS)
def test_workers_agree_to_the_bit(path: str):
    network = trained()
    folded = make(network, path)
    xs = [inputs(network, 8, 24, 24, seed=seed) for seed in range(4)]
    alone = [folded(x) for x in xs]
    assert all(torch.equal(folded(x), y) for x, y in zip(xs, alone, strict=True))
    with ThreadPoolExecutor(2) as pool:
        for _ in range(3):
            for y, z in zip(alone, pool.map(folded, xs), strict=True):
                assert torch.equal(y, z)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("views", ["single", "concatenated"])
def test_mirrored_inputs_give_the_mean_of_their_outputs(views: Views, path: str):
    network = trained(views)
    if path == "compiled":
        pytest.importorskip("numba")
    x, E0 = inputs(network, 6, 8, 10), inputs(network, 6, 8, 10, seed=2)
    for mirrors, expected in (
        ((False, False, False), [()]),
        ((False, False, True), [(), (3,)]),
        ((False, True, True), [(), (2,), (3,), (2, 3)]),
        ((True, True, True), [(), (1, 2), (1, 3), (2, 3)]),
    ):
        folded = InferenceNetwork(network, CPU, compiled=path == "compiled", mirrors=mirrors)
        for start in (None, E0):
            outputs = [
                reference(network, x.flip(axes), None if start is None else start.flip(axes)).flip(
                    axes
                )
                for axes in expected
            ]
            assert error(folded(x, start), torch.stack(outputs).mean(0)) < 5e-6


def test_a_network_of_mirrored_inputs_commutes_with_mirroring():
    network = trained()
    folded = InferenceNetwork(network, CPU, mirrors=(False, True, True))
    x = inputs(network, 6, 8, 10)
    assert error(folded(x.flip(2)), folded(x).flip(2)) < 1e-5
    plain = InferenceNetwork(network, CPU)
    assert error(plain(x.flip(2)), plain(x).flip(2)) > 1e-3


def test_input_stays_and_training_does_not_reach_it():
    network = trained()
    x = inputs(network, 4, 4, 4)
    before = x.clone()
    folded = InferenceNetwork(network, CPU)
    y = folded(x)
    assert torch.equal(x, before)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(1)
    assert torch.equal(folded(x), y)


def test_double_precision():
    network = trained()
    folded = InferenceNetwork(network, CPU, "float64")
    x = inputs(network, 6, 6, 6)
    assert folded.path == "torch"
    assert error(folded(x), reference(network, x)) < 1e-12


def test_half_precision_is_for_gpus():
    with pytest.raises(RlnError, match=r"float16.*CPU"):
        InferenceNetwork(trained(), CPU, "float16")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize(("precision", "limit"), [("float32", 1e-5), ("float16", 2e-2)])
def test_cuda(precision: Precision, limit: float):
    for views in ("single", "concatenated"):
        network = trained(views)
        x, E0 = inputs(network, 12, 14, 10), inputs(network, 12, 14, 10, seed=2)
        folded = InferenceNetwork(network, torch.device("cuda"), precision)
        assert error(folded(x, E0).cpu(), reference(network, x, E0)) < limit
        mirrors = (True, True, True)
        folded = InferenceNetwork(network, torch.device("cuda"), precision, mirrors=mirrors)
        expected = InferenceNetwork(network, CPU, "float64", mirrors=mirrors)(x, E0)
        assert error(folded(x, E0).cpu(), expected) < limit


def test_kernels_are_compiled_again_after_a_change_of_any_of_their_files(tmp_path):
    pytest.importorskip("numba")
    from napari_rln.networks import cpu_kernels

    names = set()
    for changed in (None, "simd", "winograd", "chain_ends"):
        folder = shutil.copytree(Path(cpu_kernels.__file__).parent, tmp_path / f"of_{changed}")
        if changed:
            file = folder / f"{changed}.py"
            file.write_text(file.read_text(encoding="utf-8") + "# changed", encoding="utf-8")
        spec = importlib.util.spec_from_file_location(f"of_{changed}", folder / "chain.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        names.add(module.chain.__qualname__)
    assert len(names) == 4


def test_without_numba(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "napari_rln.networks.cpu_kernels.compiled", None)
    assert InferenceNetwork(trained(), CPU).path == "torch"


def test_kernels_are_compiled_ahead_in_a_process_of_its_own(monkeypatch: pytest.MonkeyPatch):
    chain = pytest.importorskip("napari_rln.networks.cpu_kernels.chain")
    make(trained(), "compiled")
    assert chain.is_cached()
    compile_in_background.cache_clear()
    assert compile_in_background() is None
    monkeypatch.setattr(chain, "is_cached", lambda: False)
    monkeypatch.setattr("napari_rln.networks.inference._COMPILE", "import time; time.sleep(0.5)")
    compile_in_background.cache_clear()
    try:
        process = compile_in_background()
        assert process is not None
        assert process.poll() is None
        assert is_compiling()
        make(trained(), "compiled")
        assert process.poll() == 0  # it was waited for
        assert not is_compiling()
    finally:
        compile_in_background.cache_clear()


def test_wrong_shapes():
    network = trained()
    folded = InferenceNetwork(network, CPU)
    with pytest.raises(RlnError, match="even"):
        folded(torch.rand(1, 4, 5, 4))
    with pytest.raises(RlnError, match="takes"):
        folded(torch.rand(2, 4, 4, 4))
    with pytest.raises(RlnError, match=r"4, 6.*4, 4"):
        folded(torch.rand(1, 4, 4, 4), torch.rand(1, 4, 4, 6))


def test_memory_settings_are_taken_on_linux():
    library = sys.platform.startswith("linux")
    assert keep_freed_memory() in ({True, False} if library else {False})
    release_freed_memory()
