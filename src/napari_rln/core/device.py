"""Where to compute, and how much memory there is."""

import contextlib
from collections.abc import Iterator

import torch

from napari_rln.core.errors import ComputeError, RlnError
from napari_rln.core.machine import SHARE, Allowance, MemoryGb, available_bytes, taken_bytes
from napari_rln.core.memory import release_freed_memory
from napari_rln.core.volume import FloatArray


def resolve_device(name: str = "auto") -> torch.device:
    """Return the device of a name: ``auto`` takes CUDA, else MPS, else the CPU.

    Raises
    ------
    RlnError
        If the name is unknown or this machine has no such device.
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
            f"device {name} is not there: torch sees {torch.cuda.device_count()} CUDA devices; "
            "use `device=cpu`, or install a CUDA build of torch."
        )
    if device.type == "mps" and not mps:
        raise RlnError("device mps needs a Mac with Apple silicon; use `device=cpu`.")
    if device.type not in ("cpu", "cuda", "mps"):
        raise RlnError(f"device {name} is not supported; use auto, cpu, cuda or mps.")
    return device


def to_numpy(tensor: torch.Tensor) -> FloatArray:
    """Return a copy of a tensor as an array, float32, whatever its type and wherever it lies."""
    array: FloatArray = tensor.to("cpu", torch.float32, copy=True).contiguous().numpy()
    return array


def free_bytes(device: torch.device) -> int:
    """Return how many bytes of memory this process may still take on a device."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return available_bytes()


def bytes_allowed(memory_gb: MemoryGb, device: torch.device) -> int:
    """Return how much memory may still be taken, in bytes; not whether it is there.

    Parameters
    ----------
    memory_gb
        Of the process with its libraries; on a CUDA device, of that. auto takes half of what is
        free.
    device
        Where is computed.
    """
    if device.type != "cuda":
        return Allowance(memory_gb).left_bytes
    return int(SHARE * free_bytes(device)) if memory_gb == "auto" else int(memory_gb * 1e9)


def has_memory(needed: int, device: torch.device) -> bool:
    """Tell whether a device has so many bytes free."""
    return needed <= free_bytes(device)


def check_memory(needed: int, device: torch.device, advice: str) -> None:
    """Raise before the work if a device has not the memory it will need.

    Raises
    ------
    RlnError
        With what is needed, what is free and what to do.
    """
    free = free_bytes(device)
    if needed > free:
        raise RlnError(
            f"this needs {needed / 1e9:.2f} GB on {device} but {free / 1e9:.2f} GB are free; "
            f"{advice}"
        )


@contextlib.contextmanager
def computing(needed: int, device: torch.device, advice: str) -> Iterator[None]:
    """Turn a failed computation into a :class:`ComputeError` that says what was needed.

    Raises
    ------
    ComputeError
        If torch fails inside the block; for want of memory, with the bytes needed and the advice.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        starved = isinstance(error, MemoryError | torch.cuda.OutOfMemoryError)
        # The CPU and MPS have no error of their own for this: they only say it.
        said = ("allocate memory", "out of memory", "not enough memory")
        if starved or any(words in str(error) for words in said):
            raise ComputeError(
                f"{device} ran out of memory; about {needed / 1e9:.2f} GB were needed; {advice}"
            ) from error
        raise ComputeError(f"the computation on {device} failed: {error}") from error


class Peak:
    """The most memory taken since it was made, as far as seen when it looked."""

    def __init__(self, device: torch.device) -> None:
        self._cuda = device if device.type == "cuda" else None
        release_freed_memory()  # else what is kept of an earlier run would not be seen to be taken
        self._before = taken_bytes()
        self.peak = 0
        if self._cuda:
            torch.cuda.reset_peak_memory_stats(self._cuda)

    def look(self) -> None:
        """Look how much memory is taken now."""
        now = (
            torch.cuda.max_memory_allocated(self._cuda)
            if self._cuda
            else taken_bytes() - self._before
        )
        self.peak = max(self.peak, now)
