"""The network as chains of compiled convolutions, on several threads: CPU, float32.

Six chains, each a pass over the volume, keep in memory only the variables of the network's
equations: two quotients, two corrected estimates, the output, eight channels at half resolution.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import product

import numpy as np
import numpy.typing as npt
import torch

from napari_rln.core.threads import parallel_map
from napari_rln.core.volume import FloatArray
from napari_rln.networks.cpu_kernels.chain import Weights, chain, halve, workspace
from napari_rln.networks.cpu_kernels.chain_ends import DIVIDE, KEEP, MEAN, MULTIPLY, End
from napari_rln.networks.cpu_kernels.winograd import STRIP, transform_weights

Block = tuple[int, int, int, int]

_SWAPPED = ("e_3", "u_7")  # in chains the channels of the previous convolution come first
_MOST_STRIPS = 16  # of the widest chain, which fit a usual cache


@dataclass(frozen=True, kw_only=True)
class _Chain:
    """Constants of a chain, see :func:`chain.chain` and :class:`chain_ends.End`."""

    kind: int
    count: int
    weights: Weights
    biases: Weights
    scale: FloatArray
    shift: FloatArray
    plus: float


class Compiled:
    """The network with its weights. Calls are thread-safe.

    Parameters
    ----------
    layers
        Weight and bias of each convolution by its name, float64.
    norms
        Scale and shift, (channels,), of DV1, e, DV2, e2.
    eps
        Constant of the division.
    """

    def __init__(
        self,
        layers: Mapping[str, tuple[torch.Tensor, torch.Tensor]],
        norms: Mapping[str, tuple[torch.Tensor, torch.Tensor]],
        eps: float,
    ) -> None:
        def plan(kind: int, names: str, norm: str = "e", plus: float = 0.0) -> _Chain:
            split = names.split()
            pairs = [arrays[name] for name in (*split, split[-1], split[-1])[:3]]
            w1, w2, w3 = (transform_weights(weight) for weight, _ in pairs)
            b1, b2, b3 = (_single(bias) for _, bias in pairs)
            scale, shift = (_single(t.cpu().numpy()) for t in norms[norm])
            return _Chain(
                kind=kind,
                count=len(split),
                weights=(w1, w2, w3),
                biases=(b1, b2, b3),
                scale=scale,
                shift=shift,
                plus=plus,
            )

        arrays = {name: (w.cpu().numpy(), b.cpu().numpy()) for name, (w, b) in layers.items()}
        for name in _SWAPPED:
            weight, bias = arrays[name]
            arrays[name] = np.roll(weight, weight.shape[1] // 2, axis=1), bias
        weight, bias = arrays["e_7"]
        self._doubling = _single(weight), _single(bias)
        self._DV1 = plan(DIVIDE, "e_1 e_2 e_3", "DV1", eps)
        self._k = plan(KEEP, "e_4 e_5 e_6")
        self._E1 = plan(MULTIPLY, "e_8", "e")
        self._DV2 = plan(DIVIDE, "u_1 u_2", "DV2", eps)
        self._E2 = plan(MULTIPLY, "u_3 u_4", "e2", 1.0)
        self._output = plan(MEAN, "u_5 u_6 u_7")
        self._spaces: list[FloatArray] = []  # workspaces not in use, at most one for each thread

    def __call__(self, x: FloatArray, E0: FloatArray) -> FloatArray:
        """Return the output, (1, D, H, W), of ``x`` and ``E0``, (C, D, H, W)."""
        shape = x.shape[1:]
        depth, height, width = (n // 2 for n in shape)
        small = _halve(x)
        start = small if E0 is x else _halve(E0)
        DV1 = np.empty_like(small)
        self._run(self._DV1, start, DV1, small, start)
        k = np.empty((8, depth, height, width), np.float32)
        self._run(self._k, DV1, k)
        estimates = np.empty((2, *shape), np.float32)  # H3 takes both
        E2, E1 = estimates[:1], estimates[1:]
        self._run(self._E1, k, E1, estimate=E0)
        DV2 = np.empty_like(x)
        self._run(self._DV2, E0, DV2, x, E0)
        self._run(self._E2, DV2, E2, estimate=E1)
        output = np.empty((1, *shape), np.float32)
        self._run(self._output, estimates, output)
        return output

    def _run(
        self,
        plan: _Chain,
        source: FloatArray,
        out: FloatArray,
        image: FloatArray | None = None,
        estimate: FloatArray | None = None,
    ) -> None:
        """Fill ``out`` with the result of a chain."""
        strips = math.ceil(out.shape[2] / STRIP)
        grid = list(blocks(out.shape[1], strips, torch.get_num_threads()))
        weight, bias = self._doubling
        inputs = source.shape[0] if source.shape[1:] == out.shape[1:] else bias.size
        size = workspace(
            out.shape[3],
            max(last - first for *_, first, last in grid),
            (inputs, plan.biases[0].size, plan.biases[1].size),
        )
        end = End(
            plan.kind,
            out if image is None else image,  # an array in any case, so that one type is compiled
            out if estimate is None else estimate,
            plan.scale,
            plan.shift,
            np.float32(plan.plus),
        )

        def compute(block: Block) -> None:
            space = self._space(size)
            chain(
                plan.count, source, weight, bias, plan.weights, plan.biases, end, out, block, space
            )
            self._spaces.append(space)

        parallel_map(compute, grid)

    def _space(self, size: int) -> FloatArray:
        """Return a workspace, reused: the first access to new memory is slow."""
        while True:
            try:
                space = self._spaces.pop()
            except IndexError:
                return np.empty(size, np.float32)
            if space.size >= size:
                return space


def _halve(volume: FloatArray) -> FloatArray:
    channels, depth, height, width = volume.shape
    out = np.empty((channels, depth // 2, height // 2, width // 2), np.float32)
    parallel_map(lambda z: halve(volume, out, z), range(out.shape[1]))
    return out


def blocks(depth: int, strips: int, threads: int) -> Iterator[Block]:
    """Yield the blocks of a volume as (z0, z1, strip0, strip1), for threads that end together.

    They are the grid whose slowest thread has the least work, with planes and strips at borders,
    which are computed twice.
    """

    def work(grid: tuple[int, int]) -> float:
        z, s = grid
        rounds = math.ceil(z * s / threads)
        return rounds * (math.ceil(depth / z) + 2 * (z > 1)) * (math.ceil(strips / s) + (s > 1))

    fewest = math.ceil(strips / _MOST_STRIPS)
    most = max(fewest, min(strips, 2 * threads))
    grids = product(range(1, min(depth, 2 * threads) + 1), range(fewest, most + 1))
    z, s = min(grids, key=work)
    for i, j in product(range(z), range(s)):
        yield depth * i // z, depth * (i + 1) // z, strips * j // s, strips * (j + 1) // s


def _single(array: npt.NDArray[np.float64]) -> FloatArray:
    return np.ascontiguousarray(array, np.float32)
