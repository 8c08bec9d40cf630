import pytest
import torch

from napari_rln.core.device import (
    check_memory,
    computing,
    free_bytes,
    has_fast_bfloat16,
    resolve_device,
)
from napari_rln.core.errors import ComputeError, RlnError

CPU = torch.device("cpu")


def test_cpu_is_always_there():
    assert resolve_device("cpu") == CPU


@pytest.mark.parametrize(
    ("cuda", "mps", "expected"),
    [(True, False, "cuda"), (True, True, "cuda"), (False, True, "mps"), (False, False, "cpu")],
)
def test_auto_takes_cuda_then_mps_then_cpu(monkeypatch, cuda, mps, expected):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    assert resolve_device() == torch.device(expected)


@pytest.mark.parametrize(("name", "there"), [("cuda", 1), ("cuda:0", 1), ("cuda:1", 2)])
def test_a_cuda_device_that_is_there(monkeypatch, name, there):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: there)
    assert resolve_device(name) == torch.device(name)


@pytest.mark.parametrize(("name", "there"), [("cuda", 0), ("cuda:0", 0), ("cuda:1", 1)])
def test_an_absent_cuda_device_is_named(monkeypatch, name, there):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: there)
    with pytest.raises(RlnError, match=rf"{name}.*{there} CUDA"):
        resolve_device(name)


@pytest.mark.parametrize("known", [{"avx512_bf16": True}, {"avx512_bf16": False}, {}, None])
def test_bfloat16_is_fast_where_the_processor_has_instructions_for_it(monkeypatch, known):
    assert has_fast_bfloat16(torch.device("cuda"))
    if known is None:  # an older torch
        monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    else:
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: known, raising=False)
    assert has_fast_bfloat16(CPU) == bool(known and known["avx512_bf16"])


def test_absent_mps_is_named(monkeypatch):
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(RlnError, match=r"mps.*Mac"):
        resolve_device("mps")


@pytest.mark.parametrize("name", ["gpu", "", "cuda:x", "cuda:-1"])
def test_an_unknown_name_is_refused_with_the_known_ones(name):
    with pytest.raises(RlnError, match=rf"{name}.*auto, cpu, cuda"):
        resolve_device(name)


def test_a_device_of_another_kind_is_refused():
    with pytest.raises(RlnError, match="meta"):
        resolve_device("meta")


def test_free_memory_is_of_this_machine():
    assert 2**20 < free_bytes(CPU) < 2**50


def test_want_of_memory_is_said_before_the_work(monkeypatch):
    monkeypatch.setattr("napari_rln.core.device.free_bytes", lambda device: 2_000_000_000)
    check_memory(2_000_000_000, CPU, "crop it.")
    message = r"^this needs 3\.50 GB on cpu but 2\.00 GB are free; crop it\.$"
    with pytest.raises(RlnError, match=message):
        check_memory(3_500_000_000, CPU, "crop it.")


@pytest.mark.parametrize(
    "error",
    [
        torch.cuda.OutOfMemoryError("CUDA"),
        MemoryError(),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to"),
        RuntimeError("MPS backend out of memory (MPS allocated: 1 GB)"),
    ],
)
def test_running_out_of_memory_says_how_much_was_needed(error):
    message = r"^cpu ran out of memory; about 1\.50 GB were needed; crop it\.$"
    with (
        pytest.raises(ComputeError, match=message) as caught,
        computing(1_500_000_000, CPU, "crop it."),
    ):
        raise error
    assert caught.value.__cause__ is error


def test_an_allocation_that_no_machine_has_runs_out_of_memory():
    with pytest.raises(ComputeError, match=r"memory.*GB"), computing(2**55, CPU, "crop it."):
        torch.empty(2**55, dtype=torch.uint8)


def test_a_failure_of_torch_is_no_runtime_error():
    failed = pytest.raises(ComputeError, match="cpu")
    with failed as caught, computing(1, CPU, "crop it."):
        torch.ones(2) @ torch.ones(3)
    assert not isinstance(caught.value, RuntimeError)


@pytest.mark.parametrize("error", [RlnError("mine"), KeyboardInterrupt(), GeneratorExit()])
def test_what_is_no_failure_of_the_computation_passes(error):
    with pytest.raises(type(error)) as caught, computing(1, CPU, "crop it."):
        raise error
    assert caught.value is error
