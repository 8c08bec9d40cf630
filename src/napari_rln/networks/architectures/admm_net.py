"""ADMM-Net in 3D (Yang et al., NeurIPS 2016): unrolled alternating directions."""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
import scipy.fft
import torch
from torch import nn
from torch.nn.functional import conv3d, conv_transpose3d, pad

from napari_rln.core.limits import check_limits
from napari_rln.core.volume import Shape
from napari_rln.networks.architectures.base import Outputs, check_input
from napari_rln.networks.architectures.blur import AXES, along, cropped, mirrored, reach_of
from napari_rln.networks.architectures.unrolled import Unrolled

FILTERS = 26
"""Number of filters of 3x3x3 voxels: the bases of the cosine transform without the constant."""

POINTS = 101
"""Control points of a piecewise linear function, from -1 to 1."""

_PENALTY, _RATE, _THRESHOLD = 0.2, 1.6, 0.05  # first values
_LEAST = 1e-6  # of the denominator
_SLAB = 1 << 17  # voxels whose filtered images are made at once
_MOST_HALO = 64  # beyond which tiles would be mostly halo


@dataclass(frozen=True, kw_only=True)
class AdmmSettings:
    """Sizes of an ADMM-Net.

    Parameters
    ----------
    stages
        Number of stages before the last reconstruction.
    """

    stages: Annotated[int, {"min": 1, "max": 50}] = 5

    def __post_init__(self) -> None:
        check_limits(self)


def cosine_bases() -> torch.Tensor:
    """Return the 3x3x3 bases of the cosine transform without the constant, (26, 27), norm 1."""
    rows = np.cos(np.pi / 3 * np.outer(np.arange(3), np.arange(3) + 0.5))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    indices = [i for i in itertools.product(range(3), repeat=3) if any(i)]
    bases = [np.einsum("z,y,x->zyx", *(rows[k] for k in index)).ravel() for index in indices]
    return torch.from_numpy(np.stack(bases).astype(np.float32))


class Filters(nn.Module):
    """Filters of 3x3x3 voxels, each a combination of the bases of the cosine transform."""

    bases: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("bases", cosine_bases(), persistent=False)
        self.weights = nn.Parameter(torch.eye(FILTERS))

    def kernels(self) -> torch.Tensor:
        """Return the filters, (26, 3, 3, 3)."""
        return (self.weights @ self.bases).view(FILTERS, 3, 3, 3)


class Reconstruction(nn.Module):
    """The estimate that explains the image and whose filtered images are as they should be."""

    def __init__(self) -> None:
        super().__init__()
        self.filters = Filters()
        self.penalty = nn.Parameter(torch.full((FILTERS,), _PENALTY))

    def forward(
        self, otf: torch.Tensor, image: torch.Tensor, wanted: Sequence[torch.Tensor], shape: Shape
    ) -> torch.Tensor:
        """Return the estimate (N, 1, D, H, W) of periodic images.

        ``image`` is the spectrum of the image, ``wanted`` the filtered images in slabs
        (N, 26, d, H, W); empty for zeros.
        """
        kernels = self.filters.kernels()
        weighted = self.penalty.view(-1, 1, 1, 1) * kernels
        numerator = otf.conj() * image
        if wanted:
            # The sum before the transform: one transform in place of 26.
            spectrum = torch.fft.rfftn(filtered_adjoint(wanted, weighted), dim=AXES)
            numerator = numerator + spectrum
        power = _transfer(_autocorrelation(kernels, weighted), shape, otf).real
        denominator = otf.abs().square() + power
        denominator = torch.where(denominator.abs() < _LEAST, _LEAST, denominator)
        estimate: torch.Tensor = torch.fft.irfftn(numerator / denominator, s=shape, dim=AXES)
        return estimate


class PiecewiseLinear(nn.Module):
    """A piecewise linear function for each filter, continued beyond its control points."""

    def __init__(self) -> None:
        super().__init__()
        self.values = nn.Parameter(torch.zeros(FILTERS, POINTS))

    def forward(self, c: torch.Tensor) -> torch.Tensor:
        """Return the functions of filtered images (N, 26, d, H, W)."""
        position = (c + 1) * (0.5 * (POINTS - 1))
        # NaN, of a training that diverged, shall be reported and not be an index.
        left = position.detach().nan_to_num().floor().clamp(0, POINTS - 2)
        first = POINTS * torch.arange(FILTERS, dtype=torch.int32, device=c.device)
        values, index = self.values.flatten(), left.int() + first.view(-1, 1, 1, 1)
        low, high = values[index], values[index + 1]
        return low + (position - left) * (high - low)


class Stage(nn.Module):
    """Reconstruction, filters, shrinkage, and the update of the multipliers."""

    def __init__(self) -> None:
        super().__init__()
        self.reconstruction = Reconstruction()
        self.filters = Filters()
        self.shrinkage = PiecewiseLinear()
        self.rate = nn.Parameter(torch.full((FILTERS,), _RATE))

    def forward(
        self,
        otf: torch.Tensor,
        image: torch.Tensor,
        wanted: list[torch.Tensor],
        multipliers: list[torch.Tensor],
        shape: Shape,
    ) -> None:
        """Replace the wanted filtered images and the multipliers, in slabs (N, 26, d, H, W) each.

        Both are empty at first. Slab by slab, what is replaced is freed at once.
        """
        estimate = self.reconstruction(otf, image, wanted, shape)
        rate = self.rate.view(-1, 1, 1, 1)
        for number, c in enumerate(filtered(estimate, self.filters.kernels())):
            before = multipliers[number] if number < len(multipliers) else torch.zeros_like(c)
            shrunk = self.shrinkage(c + before)
            after = before + rate * (c - shrunk)
            here = slice(number, number + 1)
            wanted[here], multipliers[here] = [shrunk - after], [after]


class AdmmNet(Unrolled):
    """ADMM-Net with 5 stages of 26 filters: 20,852 parameters.

    Images are periodic in it, and are therefore mirrored around first.
    """

    kind: ClassVar[str] = "admm"
    title: ClassVar[str] = "ADMM-Net"
    exact_tiles: ClassVar[bool] = False
    voxel_bytes: int = 6000

    def __init__(self, settings: AdmmSettings | None = None) -> None:
        super().__init__()
        self.settings = settings or AdmmSettings()
        self.stages = nn.ModuleList([Stage() for _ in range(self.settings.stages)])
        self.last = Reconstruction()

    def halo(self, psf_shape: Shape | None) -> int:
        """Return the voxels around a tile that it reads; it depends on all of the image."""
        return min(2 * max(psf_shape or (16,)), _MOST_HALO)

    def initialise(self, generator: torch.Generator) -> None:
        """Set the initial weights of the authors: no random ones."""
        points = torch.linspace(-1, 1, POINTS)
        soft = points.sign() * (points.abs() - _THRESHOLD).clamp_min(0)
        with torch.no_grad():
            for part in self.modules():
                if isinstance(part, Filters):
                    part.weights.copy_(torch.eye(FILTERS))
                elif isinstance(part, Reconstruction):
                    part.penalty.fill_(_PENALTY)
                elif isinstance(part, PiecewiseLinear):
                    part.values.copy_(soft.expand(FILTERS, POINTS))
                elif isinstance(part, Stage):
                    part.rate.fill_(_RATE)

    def forward(self, x: torch.Tensor, E0: torch.Tensor | None = None) -> Outputs:
        """Return the output for an image (N, 1, D, H, W)."""
        check_input(x, self.channels, self.step)
        size = self.blur.size_for(x.shape[-3:])
        before, after = reach_of(size)
        # One voxel more for the filters; then up to a size that is fast to transform.
        after = tuple(
            scipy.fft.next_fast_len(n + b + a + 1, real=True) - n - b
            for n, b, a in zip(x.shape[-3:], before, after, strict=True)
        )
        y = _extended(x, before, after)
        z, y_, x_ = y.shape[-3:]
        shape = (z, y_, x_)
        otf = self.blur.transfer(shape, size, y)
        image = torch.fft.rfftn(y, dim=AXES)
        wanted: list[torch.Tensor] = []
        multipliers: list[torch.Tensor] = []
        for stage in self.stages:
            stage(otf, image, wanted, multipliers, shape)
        return Outputs(cropped(self.last(otf, image, wanted, shape), before, after))


def _extended(x: torch.Tensor, before: Sequence[int], after: Sequence[int]) -> torch.Tensor:
    """Return images with their mirror images around them, and beyond these the border's voxels."""
    near = [min(a, n) for a, n in zip(after, x.shape[-3:], strict=True)]
    rest = [n for a, m in zip(after[::-1], near[::-1], strict=True) for n in (0, a - m)]
    return pad(mirrored(x, before, near), rest, mode="replicate")


def filtered(x: torch.Tensor, kernels: torch.Tensor) -> Iterator[torch.Tensor]:
    """Yield periodic images (N, 1, D, H, W) filtered by n filters, in slabs (N, n, d, H, W)."""
    count, _, planes, rows, columns = x.shape
    padded = pad(x, (1,) * 6, mode="circular")
    weights = kernels.flip(1, 2, 3)[:, None]
    depth = max(1, _SLAB // (count * rows * columns))
    for start in range(0, planes, depth):
        yield conv3d(padded[:, :, start : min(start + depth, planes) + 2], weights)


def filtered_adjoint(y: Sequence[torch.Tensor], kernels: torch.Tensor) -> torch.Tensor:
    """Return the adjoint of :func:`filtered`, (N, 1, D, H, W), of slabs (N, n, d, H, W)."""
    weights = kernels.flip(1, 2, 3)[:, None]
    count, _, _, rows, columns = y[0].shape
    planes = sum(slab.shape[2] for slab in y)
    x, start = y[0].new_zeros((count, 1, planes + 2, rows + 2, columns + 2)), 0
    for slab in y:
        x[:, :, start : start + slab.shape[2] + 2] += conv_transpose3d(slab, weights)
        start += slab.shape[2]
    for axis in AXES:  # What is beyond a border belongs to the other side.
        n = x.shape[axis] - 2
        first, middle, last = (x.narrow(axis, *part) for part in ((0, 1), (1, n), (n + 1, 1)))
        x = middle + pad(last, along(axis, 0, n - 1)) + pad(first, along(axis, n - 1, 0))
    return x


def _autocorrelation(kernels: torch.Tensor, weighted: torch.Tensor) -> torch.Tensor:
    """Return the sum of the filters' correlations with weighted ones, (5, 5, 5).

    Its spectrum is the sum of the filters' power, each with its weight.
    """
    return conv3d(pad(kernels, (2,) * 6)[None], weighted[None])[0, 0]


def _transfer(kernel: torch.Tensor, shape: Shape, like: torch.Tensor) -> torch.Tensor:
    """Return the transfer function of a small centred kernel on a periodic grid, as from rfftn."""
    spectrum = kernel.to(like.dtype)
    for axis, n in reversed(list(enumerate(shape))):
        frequencies = torch.fft.rfftfreq if axis == 2 else torch.fft.fftfreq
        frequency = frequencies(n, dtype=torch.float64, device="cpu")
        reach = kernel.shape[axis] // 2
        place = torch.arange(-reach, reach + 1.0, dtype=torch.float64)
        phases = torch.exp(-2j * torch.pi * place[:, None] * frequency).to(like)
        spectrum = torch.tensordot(spectrum, phases, dims=([axis], [0])).movedim(-1, axis)
    return spectrum
