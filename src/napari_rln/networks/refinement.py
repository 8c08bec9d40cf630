"""Refinement of several estimates of an object into one, behind the Richardson-Lucy Network.

An architecture of this project, not of the paper. Its candidates are classical estimates after
fewer and more iterations, smooth to sharp, and the output of the Richardson-Lucy Network. A
residual U-Net looks at all of them and at the image, on a scale on which noise and bright points
are moderate, and returns for each voxel the weights of a mixture of the candidates, which sum to 1,
and a bounded factor. So zeros stay zeros, the brightness is that of the candidates, and the network
can always fall back to one of them.

It works at half and quarter resolution: blocks of 2 x 2 x 2 voxels are channels (space to depth).
It has no normalisation layers, which would make tiles differ from the whole.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import torch
from torch import nn

from napari_rln.core.limits import check_limits
from napari_rln.core.tiles import STEP, even_sized
from napari_rln.core.volume import FloatArray
from napari_rln.deconvolution.ladder import AROUND
from napari_rln.networks.inference import Precision
from napari_rln.networks.normalisation import Normalisation

DTYPES = {"float32": torch.float32, "float64": torch.float64, "float16": torch.float16}

CANDIDATES: int = len(AROUND) + 2
"""Number of candidates: classical estimates, and the output of the Richardson-Lucy Network."""

VOXEL_BYTES = 215
"""Memory of a refinement per voxel, beside its input and output, in bytes.

Measured: 140 to 213 for tiles of 128^3 and more; smaller ones need some 50 MB more.
"""

_MOST_LOG_FACTOR = 2.0  # logarithm of the largest factor on the mixture
_MIDDLE = (1.5, -1.0)  # usual log10 of photons, and of the background relative to structures
_LEAST_BACKGROUND = 1e-3  # relative to the brightness of structures


@dataclass(frozen=True, kw_only=True)
class RefinementSettings:
    """Architecture of a refinement.

    Attributes
    ----------
    candidates
        Number of candidate estimates.
    width, deep_width
        Channels at half and at quarter resolution.
    before, deep, after
        Residual blocks at half resolution before, at quarter, and at half after it.
    """

    candidates: Annotated[int, {"min": 1, "max": 16}] = CANDIDATES
    width: Annotated[int, {"min": 1, "max": 256}] = 32
    deep_width: Annotated[int, {"min": 1, "max": 256}] = 64
    before: Annotated[int, {"min": 0, "max": 8}] = 1
    deep: Annotated[int, {"min": 0, "max": 8}] = 2
    after: Annotated[int, {"min": 0, "max": 8}] = 1

    def __post_init__(self) -> None:
        check_limits(self)

    @property
    def receptive_field(self) -> int:
        """Receptive field: voxels on either side of a position on which its result depends."""
        half = 1 + 2 * self.before + 1 + 2 * self.after  # 3 x 3 x 3 convolutions
        reach = 2 * half + 4 * 2 * self.deep + STEP  # and the blocks of voxels themselves
        return STEP * -(-reach // STEP)


class Refinement(nn.Module):
    """The network that refines candidate estimates."""

    def __init__(self, settings: RefinementSettings | None = None) -> None:
        super().__init__()
        self.settings = s = settings or RefinementSettings()
        self.first = nn.Conv3d(8 * (s.candidates + 1), s.width, 3, padding=1)
        self.light = nn.Linear(2, s.width)
        self.before = nn.Sequential(*(Residual(s.width) for _ in range(s.before)))
        self.down = nn.Conv3d(s.width, s.deep_width, 2, stride=2)
        self.deep = nn.Sequential(*(Residual(s.deep_width) for _ in range(s.deep)))
        self.up = nn.ConvTranspose3d(s.deep_width, s.width, 2, stride=2)
        self.merge = nn.Conv3d(2 * s.width, s.width, 3, padding=1)
        self.after = nn.Sequential(*(Residual(s.width) for _ in range(s.after)))
        self.last = nn.Conv3d(s.width, 8 * (s.candidates + 1), 1)
        for layer in (self.light, self.last):  # at first, the mean of the candidates
            for parameter in layer.parameters():
                nn.init.zeros_(parameter)

    def forward(
        self, x: torch.Tensor, candidates: torch.Tensor, light: torch.Tensor
    ) -> torch.Tensor:
        """Return the refined estimate, (N, 1, D, H, W), non-negative as the candidates are.

        Parameters
        ----------
        x
            (N, 1, D, H, W), the image without background; sizes are multiples of 4.
        candidates
            (N, C, D, H, W), the estimates in the same unit, the brightness of structures.
        light
            (N, 2): photons of that brightness, and the background in that unit.
        """
        level, background = light[:, 0].log10(), light[:, 1].clamp_min(_LEAST_BACKGROUND).log10()
        about = self.light(torch.stack((level - _MIDDLE[0], background - _MIDDLE[1]), 1))
        output = as_voxels(self._unet(x, candidates, about))
        weights = torch.softmax(output[:, :-1], 1)
        factor = torch.exp(_MOST_LOG_FACTOR * torch.tanh(output[:, -1:]))
        return (weights * candidates).sum(1, keepdim=True) * factor

    def _unet(self, x: torch.Tensor, candidates: torch.Tensor, about: torch.Tensor) -> torch.Tensor:
        """Return the output of the U-Net, whose memory is free afterwards."""
        first = self.first(as_channels(_compressed(torch.cat((x, candidates), 1))))
        a = torch.relu(self.before(first + about[:, :, None, None, None]))
        del first
        b = torch.relu(self.deep(self.down(a)))
        c = self.after(self.merge(torch.cat((torch.relu(self.up(b)), a), 1)))
        del a, b
        output: torch.Tensor = self.last(torch.relu(c))
        return output


def _compressed(x: torch.Tensor) -> torch.Tensor:
    """Return values on a scale on which bright points are moderate, with their sign."""
    return torch.copysign(torch.log1p(x.abs()), x)


class Residual(nn.Module):
    """A residual block of two 3 x 3 x 3 convolutions, the identity at first."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.a = nn.Conv3d(width, width, 3, padding=1)
        self.b = nn.Conv3d(width, width, 3, padding=1)
        for parameter in self.b.parameters():
            nn.init.zeros_(parameter)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the shape of ``x``."""
        added: torch.Tensor = self.b(torch.relu(self.a(torch.relu(x))))
        return x + added


def as_channels(x: torch.Tensor) -> torch.Tensor:
    """Return (N, 8 C, D/2, H/2, W/2) of (N, C, D, H, W): blocks of voxels as channels."""
    n, c, d, h, w = x.shape
    blocks = x.view(n, c, d // 2, 2, h // 2, 2, w // 2, 2).permute(0, 2, 4, 6, 1, 3, 5, 7)
    return blocks.reshape(n, d // 2, h // 2, w // 2, 8 * c).permute(0, 4, 1, 2, 3)


def as_voxels(x: torch.Tensor) -> torch.Tensor:
    """Return (N, C, 2 D, 2 H, 2 W) of (N, 8 C, D, H, W), the inverse of :func:`as_channels`."""
    n, c, d, h, w = x.shape
    blocks = x.permute(0, 2, 3, 4, 1).reshape(n, d, h, w, c // 8, 2, 2, 2)
    return blocks.permute(0, 4, 1, 5, 2, 6, 3, 7).reshape(n, c // 8, 2 * d, 2 * h, 2 * w)


class InferenceRefinement:
    """A trained refinement prepared for inference; it holds a copy of the weights."""

    def __init__(self, refinement: Refinement, device: torch.device, precision: Precision) -> None:
        self._device, self._dtype = device, DTYPES[precision]
        self._network = copy.deepcopy(refinement).eval()
        self._network.to(device, self._dtype, memory_format=torch.channels_last_3d)  # type: ignore[call-overload]

    @torch.inference_mode()
    def __call__(
        self, x: FloatArray, candidates: Sequence[FloatArray], photons: float, background: float
    ) -> FloatArray:
        """Return the refined estimate, (z, y, x) float32.

        Image and candidates, (z, y, x) without background, are in a unit of so many photons, the
        background too.
        """
        volumes = [even_sized(volume, STEP) for volume in (x, *candidates)]
        shown = torch.from_numpy(np.stack(volumes))[None].to(self._device, self._dtype)
        light = torch.tensor([[photons, background]]).to(self._device, self._dtype)
        output = self._network(shown[:, :1], shown[:, 1:], light)[0, 0]
        whole: FloatArray = output.to("cpu", torch.float32).numpy()
        return whole[tuple(slice(n) for n in x.shape)]


@dataclass(frozen=True, kw_only=True, eq=False)
class Refiner:
    """Combination of the estimates of one image by a refinement.

    Attributes
    ----------
    network
        Refinement prepared for inference.
    scaling
        Normalisation of the image, in photons.
    factor
        Factor on the result.
    """

    network: InferenceRefinement
    scaling: Normalisation
    factor: float = 1.0

    def __call__(
        self, output: FloatArray, estimate: FloatArray, scale: float, light: FloatArray
    ) -> FloatArray:
        """Return the result; see :class:`napari_rln.networks.application.Combination`."""
        unit, photons = np.float32(scale), self.scaling.photons
        candidates = [part / unit for part in (*estimate, np.maximum(output, 0))]
        data = self.network(light / unit, candidates, photons, self.scaling.background / photons)
        data *= np.float32(self.factor * scale)
        return data
