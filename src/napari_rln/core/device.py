"""Computing devices and their memory."""

import contextlib
from collections.abc import Iterator

import torch

from napari_rln.core.errors import ComputeError, RlnError
from napari_rln.core.machine import (
    USABLE_FRACTION,
    Allowance,
    MemoryGb,
    available_bytes,
    used_bytes,
)
from napari_rln.core.memory import release_freed_memory
from napari_rln.core.volume import FloatArray


def resolve_device(name: str = "auto") -> torch.device:
    """Return the device of a name: ``auto`` takes CUDA, else MPS, else the CPU.

    Raise an RlnError if the name is unknown or this machine has no such device.
    """
    mps = torch.backends.mps.is_available()
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "mps" if mps else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise RlnError(
            f"device {name!r} is unknown; use auto, cpu, cuda, cuda:1 or mps."
        ) from error
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise RlnError(
            f"device {name} does not exist: torch finds {torch.cuda.device_count()} CUDA devices; "
            "use `device=cpu`, or install a CUDA build of torch."
        )
    if device.type == "mps" and not mps:
        raise RlnError("device mps needs a Mac with Apple silicon; use `device=cpu`.")
    if device.type not in ("cpu", "cuda", "mps"):
        raise RlnError(f"device {name} is not supported; use auto, cpu, cuda or mps.")
    return device


def has_fast_bfloat16(device: torch.device) -> bool:
    """Tell whether a device multiplies numbers of bfloat16 faster than those of float32."""
    if device.type != "cpu":
        return device.type == "cuda"
    if not hasattr(torch.cpu, "get_capabilities"):  # an older torch
        return False
    known = torch.cpu.get_capabilities()
    return any(known.get(name) for name in ("avx512_bf16", "amx_bf16"))


def to_numpy(tensor: torch.Tensor) -> FloatArray:
    """Return a float32 array copy of a tensor of any type and device."""
    array: FloatArray = tensor.to("cpu", torch.float32, copy=True).contiguous().numpy()
    return array


def free_bytes(device: torch.device) -> int:
    """Return the memory that is available to this process on a device, bytes."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return available_bytes()


def bytes_allowed(memory_gb: MemoryGb, device: torch.device) -> int:
    """Return the remaining memory by a limit, bytes, whether or not it is free.

    The limit is that of the process with its libraries, or on CUDA of the device's memory.
    """
    if device.type != "cuda":
        return Allowance(memory_gb).left_bytes
    return (
        int(USABLE_FRACTION * free_bytes(device)) if memory_gb == "auto" else int(memory_gb * 1e9)
    )


def has_memory(needed: int, device: torch.device) -> bool:
    """Tell whether a device has the needed bytes free."""
    return needed <= free_bytes(device)


def check_memory(needed: int, device: torch.device, advice: str) -> None:
    """Raise an RlnError with an advice, before the work, if a device has too little free memory."""
    free = free_bytes(device)
    if needed > free:
        raise RlnError(
            f"this needs {needed / 1e9:.2f} GB on {device} but {free / 1e9:.2f} GB are free; "
            f"{advice}"
        )


@contextlib.contextmanager
def computing(needed: int, device: torch.device, advice: str) -> Iterator[None]:
    """Convert errors of a computation to a :class:`ComputeError`.

    Raise a ComputeError if torch fails inside the block; out of memory, with the needed memory and
    the advice.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        out_of_memory = isinstance(error, MemoryError | torch.cuda.OutOfMemoryError)
        # The CPU and MPS have no error class for this, only messages.
        messages = ("allocate memory", "out of memory", "not enough memory")
        if out_of_memory or any(message in str(error) for message in messages):
            raise ComputeError(
                f"{device} ran out of memory; about {needed / 1e9:.2f} GB were needed; {advice}"
            ) from error
        raise ComputeError(f"the computation on {device} failed: {error}") from error


class PeakMemory:
    """Peak memory since creation, sampled by :meth:`sample`."""

    def __init__(self, device: torch.device) -> None:
        self._cuda = device if device.type == "cuda" else None
        release_freed_memory()  # otherwise memory kept from an earlier run would not count
        self._before = used_bytes()
        self.peak = 0
        if self._cuda:
            torch.cuda.reset_peak_memory_stats(self._cuda)

    def sample(self) -> None:
        """Sample the current memory."""
        now = (
            torch.cuda.max_memory_allocated(self._cuda)
            if self._cuda
            else used_bytes() - self._before
        )
        self.peak = max(self.peak, now)
