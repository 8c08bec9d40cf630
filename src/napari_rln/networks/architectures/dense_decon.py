"""DenseDeconNet for single views (Guo et al., Nature Biotechnology 38, 1337, 2020)."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn
from torch.nn.functional import leaky_relu, relu

from napari_rln.core.volume import Shape
from napari_rln.networks.architectures.base import Architecture, Conv, Outputs, check_input

_EPS = 1e-3  # of batch normalisation
_SPREAD = 0.1  # standard deviation of initial weights


@dataclass(frozen=True, kw_only=True)
class DenseDeconSettings:
    """Sizes of a DenseDeconNet: those of its authors."""


class Layer(nn.Module):
    """A convolution without bias, with batch normalisation and ReLU."""

    def __init__(self, inputs: int, outputs: int, *, stride: int = 1) -> None:
        super().__init__()
        self.conv = (
            Conv(inputs, outputs, bias=False)
            if stride == 1
            else nn.Conv3d(inputs, outputs, 2, stride=stride, bias=False)
        )
        self.bn = nn.BatchNorm3d(outputs, eps=_EPS)

    def forward(self, *parts: torch.Tensor) -> torch.Tensor:
        """Return (N, outputs, D, H, W) of concatenated inputs."""
        return relu(self.bn(self.conv(torch.cat(parts, 1))))


class DenseDecon(Architecture):
    """DenseDeconNet: 16,860 parameters.

    Three dense blocks, in which each layer sees all before it: one at full resolution, two at half.
    """

    kind: ClassVar[str] = "ddn"
    title: ClassVar[str] = "DDN"
    step: ClassVar[int] = 2
    voxel_bytes: int = 1000

    def __init__(self, settings: DenseDeconSettings | None = None) -> None:
        super().__init__()
        self.settings = settings or DenseDeconSettings()
        self.input = nn.BatchNorm3d(1, eps=_EPS)
        self.at_full = nn.ModuleList([Layer(1, 4), Layer(4, 8), Layer(12, 4), Layer(16, 4)])
        self.down = Layer(4, 8, stride=2)
        self.at_half = nn.ModuleList([Layer(8, 4), Layer(12, 4), Layer(16, 8)])
        self.deeper = nn.ModuleList([Layer(8, 4), Layer(4, 8), Layer(12, 4), Layer(16, 8)])
        self.up = nn.ConvTranspose3d(8, 4, 2, stride=2, bias=False)
        self.up_bn = nn.BatchNorm3d(4, eps=_EPS)
        self.last = Conv(4, 1, bias=False)
        self.last_bn = nn.BatchNorm3d(1, eps=_EPS)

    def halo(self, psf_shape: Shape | None) -> int:
        """Return the receptive field: 4 layers, 7 at half resolution, the last, and blocks of 2."""
        return 20

    def initialise(self, generator: torch.Generator) -> None:
        """Set the initial weights of the authors: truncated normal."""
        for part in self.modules():
            if isinstance(part, nn.Conv3d | nn.ConvTranspose3d):
                nn.init.trunc_normal_(
                    part.weight, std=_SPREAD, a=-2 * _SPREAD, b=2 * _SPREAD, generator=generator
                )
            elif isinstance(part, nn.BatchNorm3d):
                part.reset_parameters()

    def forward(self, x: torch.Tensor, E0: torch.Tensor | None = None) -> Outputs:
        """Return the output for an image (N, 1, D, H, W) of even sides."""
        check_input(x, self.channels, self.step)
        a = self.at_full[0](self.input(x))
        b = self.at_full[1](a)
        c = self.at_full[2](a, b)
        s = self.down(self.at_full[3](a, b, c))
        p = self.at_half[0](s)
        q = self.at_half[1](s, p)
        t = self.deeper[0](self.at_half[2](s, p, q))
        u = self.deeper[1](t)
        v = self.deeper[2](t, u)
        up = relu(self.up_bn(self.up(self.deeper[3](t, u, v))) + a)
        return Outputs(leaky_relu(self.last_bn(self.last(up)), 0.2))
