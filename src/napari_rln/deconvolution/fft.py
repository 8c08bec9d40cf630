"""Filters by real 3D Fourier transforms, with the fastest library available.

A transform owns its buffers and filters volumes without allocating: the first access to
newly allocated memory costs as much as the transform itself.

On CPUs FFTW transforms along one axis at a time, on our own threads, see :class:`FftwTransform`.
That is faster than whole transforms by FFTW, which are faster than scipy's and torch's
(``benchmarks/fft.py``). On a GPU torch calls the vendor's library.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from itertools import chain, pairwise
from typing import Any

import numpy as np
import scipy.fft
import torch

from napari_rln.core.threads import parallel_map
from napari_rln.core.volume import Array, Box, Shape

try:
    import pyfftw
except ImportError:  # optional, see the extra "fast"
    pyfftw = None

_COMPLEX = {torch.float32: torch.complex64, torch.float64: torch.complex128}
_AXES = (0, 1, 2)
_EVERYWHERE: Box = (slice(None), slice(None), slice(None))
_LINE_BYTES = 64  # cache line
# Working set of a thread: for planes the size of a core's own cache; columns are spread over the
# volume, and longer rows of them are faster.
_SLAB_BYTES, _BLOCK_BYTES = 1 << 18, 1 << 19

_FEW = 1 << 16  # voxels below which starting threads takes longer than the work

_SHORT = 16  # lengths whose factors do not matter
_SEVENS = 112  # greatest length with a factor of 7


class Filter(ABC):
    """A work buffer and the filters that fill it."""

    real: torch.Tensor
    """Result of the last filter."""

    @abstractmethod
    def spectrum(self, source: torch.Tensor) -> torch.Tensor:
        """Return the transform of a volume, (z, y, x // 2 + 1), laid out as ``filter`` reads it.

        ``source`` has the shape of ``real`` and may be ``real``, whose values are kept.
        """

    def filter(
        self,
        source: torch.Tensor,
        transfer: torch.Tensor,
        *,
        conjugate: bool = False,
        constant: float = 0.0,
        source_box: Box = _EVERYWHERE,
        result_box: Box = _EVERYWHERE,
    ) -> None:
        """Fill ``real`` with a volume whose spectrum is multiplied by a transfer function.

        Parameters
        ----------
        source
            Values in ``source_box``; may be a view of ``real``, else it is unchanged.
        transfer
            (z, y, x // 2 + 1), divided by the number of voxels, as the inverse transform is not
            normalised. Fastest in the memory layout of ``spectrum``.
        conjugate
            Whether to multiply by the complex conjugate instead.
        constant
            Added to every voxel, at frequency 0.
        source_box
            Box of the source in the volume, which is 0 elsewhere.
        result_box
            Box to fill; other values are undefined afterwards.
        """
        self._forward(source, source_box)
        self._multiply(transfer, conjugate, constant)
        self._inverse(result_box)

    @abstractmethod
    def _forward(self, source: torch.Tensor, source_box: Box) -> None:
        """Transform the source."""

    @abstractmethod
    def _multiply(self, transfer: torch.Tensor, conjugate: bool, constant: float) -> None:
        """Multiply the spectrum."""

    @abstractmethod
    def _inverse(self, result_box: Box) -> None:
        """Fill the box of ``real`` from the spectrum."""


def plan(shape: Shape, device: torch.device, dtype: torch.dtype = torch.float32) -> Filter:
    """Return the fastest transform of a shape (Z, Y, X) in float32 or float64 on a device."""
    if device.type != "cpu":
        return TorchTransform(shape, device, dtype)
    if pyfftw is not None:
        return FftwTransform(shape, dtype)
    return ScipyTransform(shape, dtype)


def fast_shape(shape: Sequence[int]) -> Shape:
    """Return the next lengths (z, y, x) with fast transforms, equal on every machine.

    Multiples of four whose other prime factors are 2, 3 and 5, up to 112 also 7. Measured
    (``benchmarks/fft.py lengths``): per voxel, odd lengths take twice as long along x, where
    voxels are real, and half as long again along the others; so do long ones with a 7.
    """
    z, y, x = (_fast_length(n) for n in shape)
    return z, y, x


def _fast_length(n: int) -> int:
    if n <= _SHORT:
        return n if n <= 2 else int(scipy.fft.next_fast_len(n, real=True))
    n = -(-n // 4) * 4
    while not _smooth(n):
        n += 4
    return n


def _smooth(n: int) -> bool:
    for prime in (2, 3, 5, *([7] if n <= _SEVENS else [])):
        while n % prime == 0:
            n //= prime
    return n == 1


class FftwTransform(Filter):
    """FFTW along one axis at a time, in parts that stay in the cache, on our own threads.

    A filter is three passes over memory: slabs of planes along x and y; blocks of columns along z,
    multiplied and transformed back at once; slabs of planes back along y and x. Planes of zeros are
    skipped in the first pass, and planes outside the requested box in the last.

    FFTW's own threads meet at barriers, spinning, thousands of times in some of its plans, see
    :mod:`napari_rln.core.threads`. Its plans for one axis, each from strided to contiguous rows,
    need no measuring: estimated ones are within a fifth of measured ones, whereas estimated plans
    of whole volumes take between twice and a hundred times as long as measured ones. Estimated
    plans depend on the shape alone, and each part is computed by one thread: results on a machine
    are equal to the bit for any number of threads and in every process.
    """

    def __init__(self, shape: Shape, dtype: torch.dtype = torch.float32) -> None:
        self._types = {torch.float32: ("f4", "c8"), torch.float64: ("f8", "c16")}[dtype]
        self._shape = (z, y, x) = shape
        self._columns = columns = y * (x // 2 + 1)
        size = np.dtype(self._types[1]).itemsize
        real = pyfftw.zeros_aligned(shape, self._types[0])
        self._real, self.real = real, torch.from_numpy(real)
        # Each plane is (x // 2 + 1, y), contiguous along y.
        width = _row_bytes(columns * size) // size
        self._planes = pyfftw.empty_aligned((z, width), self._types[1])
        self._thickness = max(1, min(z, _SLAB_BYTES // (columns * size)))
        line = _LINE_BYTES // size
        self._width = max(1, min(columns, _BLOCK_BYTES // (z * size) // line * line), line)
        self._blocks = _parts(slice(0, columns), self._width)
        self._idle: list[_Workspace] = []  # at most one for each thread

    def spectrum(self, source: torch.Tensor) -> torch.Tensor:
        """Return the transform of a volume, a view that is contiguous along z."""
        z, y, x = self._shape
        result = np.empty((self._columns, z), self._types[1])
        self._forward(source, _EVERYWHERE)

        def transform(workspace: "_Workspace", block: slice) -> None:
            result[block] = workspace.columns_forward(self._planes[:, block])

        self._distribute(transform, self._blocks)
        return torch.from_numpy(result.reshape(x // 2 + 1, y, z)).permute(2, 1, 0)

    def _multiply(self, transfer: torch.Tensor, conjugate: bool, constant: float) -> None:
        factors = transfer.permute(2, 1, 0).contiguous().view(self._columns, -1).numpy()

        def multiply(workspace: "_Workspace", block: slice) -> None:
            columns = self._planes[:, block]
            lines = workspace.columns_forward(columns)
            if conjugate:
                np.conjugate(lines, lines)  # conj(conj(s) t) = s conj(t)
            np.multiply(lines, factors[block], lines)
            if conjugate:
                np.conjugate(lines, lines)
            if block.start == 0:
                lines[0, 0] += constant
            workspace.columns_inverse(lines, columns)

        self._distribute(multiply, self._blocks)

    def _forward(self, source: torch.Tensor, source_box: Box) -> None:
        values = source.numpy()
        z, y, x = (range(n)[part] for n, part in zip(self._shape, source_box, strict=True))
        full = (len(y), len(x)) == self._shape[1:]

        def transform(workspace: "_Workspace", slab: slice) -> None:
            if slab.start < z.start or slab.start >= z.stop:
                self._planes[slab] = 0
                return
            rows = workspace.rows[: slab.stop - slab.start]
            if not full:
                rows.fill(0)
            inside = slice(slab.start - z.start, slab.stop - z.start)
            rows[:, source_box[1], source_box[2]] = values[inside]
            workspace.planes_forward(self._slab(slab))

        ends = (0, z.start, z.stop, self._shape[0])
        parts = [_parts(slice(*pair), self._thickness) for pair in pairwise(ends)]
        self._distribute(transform, list(chain(*parts)))

    def _inverse(self, result_box: Box) -> None:
        def transform(workspace: "_Workspace", slab: slice) -> None:
            rows = workspace.planes_inverse(self._slab(slab))
            self._real[slab, result_box[1], result_box[2]] = rows[:, result_box[1], result_box[2]]

        z = range(self._shape[0])[result_box[0]]
        self._distribute(transform, _parts(slice(z.start, z.stop), self._thickness))

    def _slab(self, slab: slice) -> Array:
        """Return planes as (planes, x // 2 + 1, y)."""
        planes: Array = self._planes[slab, : self._columns]
        return planes.reshape(-1, self._shape[2] // 2 + 1, self._shape[1])

    def _distribute(
        self, work: "Callable[[_Workspace, slice], None]", parts: Sequence[slice]
    ) -> None:
        """Distribute parts over threads, each with its own buffers and plans."""

        def work_on(part: slice) -> None:
            try:
                workspace = self._idle.pop()
            except IndexError:
                workspace = _Workspace(self._shape, self._thickness, self._width, self._types)
            work(workspace, part)
            self._idle.append(workspace)

        if self._real.size < _FEW:
            for part in parts:
                work_on(part)
        else:
            parallel_map(work_on, parts)


class _Workspace:
    """Workspace of a thread: its buffers, and plans between them and those of the volume."""

    def __init__(self, shape: Shape, thickness: int, width: int, types: tuple[str, str]) -> None:
        z, y, x = shape
        size = np.dtype(types[1]).itemsize
        self.rows = pyfftw.zeros_aligned((thickness, y, x), types[0])
        """(planes, y, x), real."""
        length = _row_bytes((x // 2 + 1) * size) // size
        half = pyfftw.zeros_aligned((thickness, y, length), types[1])
        self._half = half[:, :, : x // 2 + 1]
        self._lines = pyfftw.zeros_aligned((width, z), types[1])
        self._plans: dict[tuple[str, int], Any] = {}

    def planes_forward(self, planes: Array) -> None:
        """Transform rows along x and y into planes, (planes, x // 2 + 1, y)."""
        n = len(planes)
        rows, half = self.rows[:n], self._half[:n]
        self._run("x forward", n, rows, half, 2)
        self._run("y forward", n, half.transpose(0, 2, 1), planes, 2)

    def planes_inverse(self, planes: Array) -> Array:
        """Return the rows, (planes, y, x), of planes transformed back, until the next call."""
        n = len(planes)
        rows: Array = self.rows[:n]
        half = self._half[:n]
        self._run("y inverse", n, planes, half.transpose(0, 2, 1), 2)
        self._run("x inverse", n, half, rows, 2)
        return rows

    def columns_forward(self, columns: Array) -> Array:
        """Return the transforms, (columns, z), of (z, columns); valid until the next call."""
        lines: Array = self._lines[: columns.shape[1]]
        self._run("z forward", len(lines), columns.T, lines, 1)
        return lines

    def columns_inverse(self, lines: Array, columns: Array) -> None:
        """Transform lines, (columns, z), back into columns, (z, columns)."""
        self._run("z inverse", len(lines), lines, columns.T, 1)

    def _run(self, name: str, count: int, source: Array, target: Array, axis: int) -> None:
        """Transform between arrays, with one plan for all of equal layout."""
        plan = self._plans.get((name, count))
        if plan is None:
            inverse = name.endswith("inverse")
            plan = self._plans[name, count] = pyfftw.FFTW(
                source,
                target,
                axes=(axis,),
                direction="FFTW_BACKWARD" if inverse else "FFTW_FORWARD",
                flags=("FFTW_ESTIMATE", *(["FFTW_DESTROY_INPUT"] if inverse else [])),
            )
        else:
            plan.update_arrays(source, target)
        plan.execute()


def _row_bytes(size: int) -> int:
    """Return the stride in bytes, at least ``size``, of rows that are read by columns.

    An odd number of cache lines: rows a multiple of a large power of two apart compete for the same
    few lines of a cache.
    """
    return (-(-size // _LINE_BYTES) | 1) * _LINE_BYTES


def _parts(whole: slice, length: int) -> list[slice]:
    """Return slices of a length that cover a range; the last may be shorter."""
    return [
        slice(start, min(start + length, whole.stop))
        for start in range(whole.start, whole.stop, length)
    ]


class ScipyTransform(Filter):
    """scipy.fft, for CPUs without FFTW."""

    def __init__(self, shape: Shape, dtype: torch.dtype = torch.float32) -> None:
        self.real = torch.zeros(shape, dtype=dtype)
        self._shape = shape

    def spectrum(self, source: torch.Tensor) -> torch.Tensor:
        """Return the transform of a volume."""
        workers = torch.get_num_threads()
        return torch.from_numpy(scipy.fft.rfftn(source.numpy(), axes=_AXES, workers=workers))

    def _forward(self, source: torch.Tensor, source_box: Box) -> None:
        self._spectrum = self.spectrum(_embedded(self.real, source, source_box)).numpy()

    def _multiply(self, transfer: torch.Tensor, conjugate: bool, constant: float) -> None:
        spectrum, factors = self._spectrum, transfer.numpy()

        def multiply(z: int) -> None:
            factor = factors[z].conj() if conjugate else factors[z]
            np.multiply(spectrum[z], factor, spectrum[z])

        parallel_map(multiply, range(self._shape[0]))
        spectrum[0, 0, 0] += constant

    def _inverse(self, result_box: Box) -> None:
        back = scipy.fft.irfftn(
            self._spectrum,
            s=self._shape,
            axes=_AXES,
            norm="forward",
            overwrite_x=True,
            workers=torch.get_num_threads(),
        )
        del self._spectrum  # frees its memory
        self.real.numpy()[result_box] = back[result_box]


class TorchTransform(Filter):
    """torch.fft, for GPUs."""

    def __init__(
        self, shape: Shape, device: torch.device, dtype: torch.dtype = torch.float32
    ) -> None:
        self.real = torch.zeros(shape, dtype=dtype, device=device)
        z, y, x = shape
        self._spectrum = torch.zeros((z, y, x // 2 + 1), dtype=_COMPLEX[dtype], device=device)
        self._shape = shape

    def spectrum(self, source: torch.Tensor) -> torch.Tensor:
        """Return the transform of a volume."""
        spectrum: torch.Tensor = torch.fft.rfftn(source, dim=_AXES)
        return spectrum

    def _forward(self, source: torch.Tensor, source_box: Box) -> None:
        embedded = _embedded(self.real, source, source_box)
        torch.fft.rfftn(embedded, dim=_AXES, out=self._spectrum)

    def _multiply(self, transfer: torch.Tensor, conjugate: bool, constant: float) -> None:
        spectrum = self._spectrum
        if conjugate:  # conj(conj(s) t) = s conj(t), without a second copy of the transfer function
            spectrum.conj_physical_()
        spectrum.mul_(transfer)
        if conjugate:
            spectrum.conj_physical_()
        spectrum[0, 0, 0] += constant

    def _inverse(self, result_box: Box) -> None:
        torch.fft.irfftn(self._spectrum, s=self._shape, dim=_AXES, norm="forward", out=self.real)


def _embedded(real: torch.Tensor, source: torch.Tensor, source_box: Box) -> torch.Tensor:
    """Return a volume with zeros around a box, in ``real`` if the box is smaller."""
    if source.shape == real.shape:
        return source
    inside = real[source_box]
    if source.data_ptr() != inside.data_ptr():
        inside.copy_(source)
    for axis, part in enumerate(source_box):
        real.narrow(axis, 0, part.start).zero_()
        real.narrow(axis, part.stop, real.shape[axis] - part.stop).zero_()
    return real
