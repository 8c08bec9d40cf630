"""Real 3D Fourier transforms between two buffers, by the fastest library at hand.

A transform owns a real and a complex buffer and moves data between them without allocating: memory
that is fresh from the system costs as much to touch as the transform itself. The inverse is not
normalised; whoever multiplies the spectrum folds 1 / N into the factor.

Measured (``benchmarks/rld.py``): on CPUs FFTW is fastest, then scipy, then torch; on a GPU torch
calls the vendor's library.
"""

from collections.abc import Sequence
from typing import Protocol

import scipy.fft
import torch

try:
    import pyfftw
except ImportError:  # optional, see the extra "fast"
    pyfftw = None

_COMPLEX = {torch.float32: torch.complex64, torch.float64: torch.complex128}
_AXES = (0, 1, 2)

# Planes along z times the power of two in the bytes from plane to plane, from which on they push
# each other out of the cache: measured, 240 planes 2 kB apart are fast and 256 are not.
_CROWDED = 1 << 19

Shape = tuple[int, int, int]


class Transform(Protocol):
    """A pair of buffers and the transforms between them."""

    real: torch.Tensor
    spectrum: torch.Tensor

    def forward(self, source: torch.Tensor) -> None:
        """Fill ``spectrum`` from a contiguous tensor of the shape of ``real``; it is unchanged."""

    def inverse(self) -> None:
        """Fill ``real`` from ``spectrum``, which is destroyed; not normalised."""


def plan(shape: Shape, device: torch.device, dtype: torch.dtype = torch.float32) -> Transform:
    """Return the fastest transform of a shape on a device.

    Parameters
    ----------
    shape
        (Z, Y, X) of the real buffer.
    device
        Where the buffers lie.
    dtype
        ``torch.float32`` or ``torch.float64``.
    """
    if device.type != "cpu":
        return TorchTransform(shape, device, dtype)
    if pyfftw is not None:
        return FftwTransform(shape, dtype)
    return ScipyTransform(shape, dtype)


def fast_shape(shape: Sequence[int]) -> Shape:
    """Return the next lengths (z, y, x) whose prime factors make every library fast.

    Where planes lie a multiple of a large power of two apart, the voxels of one column along z fall
    into the same few places of a processor's cache and push each other out: 256 x 256 x 256 takes
    three times as long as 256 x 264 x 256. Such planes are made a little wider along y.
    """
    z, y, x = (scipy.fft.next_fast_len(n, real=True) if n > 1 else 1 for n in shape)
    while y > 1 and z * _power_of_two(y * (x // 2 + 1) * 8) >= _CROWDED:
        y = scipy.fft.next_fast_len(y + 1, real=True)
    return z, y, x


def _power_of_two(n: int) -> int:
    """Return the largest power of two that divides a number."""
    return n & -n


def _half(shape: Shape) -> Shape:
    return (shape[0], shape[1], shape[2] // 2 + 1)


class FftwTransform:
    """FFTW, on as many threads as torch uses."""

    def __init__(self, shape: Shape, dtype: torch.dtype = torch.float32) -> None:
        numpy_types = {torch.float32: ("f4", "c8"), torch.float64: ("f8", "c16")}[dtype]
        real, spectrum = (
            pyfftw.empty_aligned(s, t)
            for s, t in zip((shape, _half(shape)), numpy_types, strict=True)
        )
        self.real, self.spectrum = torch.from_numpy(real), torch.from_numpy(spectrum)
        # ESTIMATE plans at once; MEASURE takes seconds and gained within the noise.
        common = {"axes": _AXES, "threads": torch.get_num_threads()}
        self._forward = pyfftw.FFTW(real, spectrum, flags=("FFTW_ESTIMATE",), **common)
        self._inverse = pyfftw.FFTW(
            spectrum,
            real,
            direction="FFTW_BACKWARD",
            flags=("FFTW_ESTIMATE", "FFTW_DESTROY_INPUT"),
            **common,
        )

    def forward(self, source: torch.Tensor) -> None:
        """Fill ``spectrum``."""
        self._forward.update_arrays(source.numpy(), self.spectrum.numpy())
        self._forward.execute()

    def inverse(self) -> None:
        """Fill ``real``."""
        self._inverse.execute()


class ScipyTransform:
    """scipy.fft, for CPUs without FFTW."""

    def __init__(self, shape: Shape, dtype: torch.dtype = torch.float32) -> None:
        self.real = torch.zeros(shape, dtype=dtype)
        self.spectrum = torch.zeros(_half(shape), dtype=_COMPLEX[dtype])
        self._shape = shape

    def forward(self, source: torch.Tensor) -> None:
        """Fill ``spectrum``."""
        workers = torch.get_num_threads()
        self.spectrum.numpy()[...] = scipy.fft.rfftn(source.numpy(), axes=_AXES, workers=workers)

    def inverse(self) -> None:
        """Fill ``real``."""
        self.real.numpy()[...] = scipy.fft.irfftn(
            self.spectrum.numpy(),
            s=self._shape,
            axes=_AXES,
            norm="forward",
            overwrite_x=True,
            workers=torch.get_num_threads(),
        )


class TorchTransform:
    """torch.fft, for GPUs."""

    def __init__(
        self, shape: Shape, device: torch.device, dtype: torch.dtype = torch.float32
    ) -> None:
        self.real = torch.zeros(shape, dtype=dtype, device=device)
        self.spectrum = torch.zeros(_half(shape), dtype=_COMPLEX[dtype], device=device)
        self._shape = shape

    def forward(self, source: torch.Tensor) -> None:
        """Fill ``spectrum``."""
        torch.fft.rfftn(source, dim=_AXES, out=self.spectrum)

    def inverse(self) -> None:
        """Fill ``real``."""
        torch.fft.irfftn(self.spectrum, s=self._shape, dim=_AXES, norm="forward", out=self.real)
