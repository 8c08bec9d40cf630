"""3D residual channel attention network (Chen et al., Nature Methods 18, 678, 2021)."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from torch import nn
from torch.nn.functional import relu

from napari_rln.core.limits import check_limits
from napari_rln.core.volume import Shape
from napari_rln.networks.architectures.base import (
    Architecture,
    Conv,
    Outputs,
    check_input,
    initialise_uniformly,
)


@dataclass(frozen=True, kw_only=True)
class RcanSettings:
    """Sizes of a residual channel attention network.

    Parameters
    ----------
    groups, blocks
        Number of residual groups, and of blocks in each.
    channels
        Channels of all of them.
    reduction
        Factor by which the attention reduces the channels.
    """

    groups: Annotated[int, {"min": 1, "max": 50}] = 5
    blocks: Annotated[int, {"min": 1, "max": 50}] = 3
    channels: Annotated[int, {"min": 2, "max": 512}] = 32
    reduction: Annotated[int, {"min": 1, "max": 64}] = 8

    def __post_init__(self) -> None:
        check_limits(self)


class Block(nn.Module):
    """Two convolutions whose channels are weighted by attention, added to the input."""

    def __init__(self, channels: int, reduction: int) -> None:
        super().__init__()
        reduced = max(1, channels // reduction)
        self.first, self.second = Conv(channels, channels), Conv(channels, channels)
        self.squeeze, self.excite = (
            nn.Conv3d(channels, reduced, 1),
            nn.Conv3d(reduced, channels, 1),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the shape of ``x``."""
        y: torch.Tensor = self.second(relu(self.first(x)))
        mean = y.mean((2, 3, 4), keepdim=True)
        return x + y * torch.sigmoid(self.excite(relu(self.squeeze(mean))))


class Group(nn.Module):
    """Blocks and a convolution, added to the input."""

    def __init__(self, settings: RcanSettings) -> None:
        super().__init__()
        n = settings.channels
        blocks = [Block(n, settings.reduction) for _ in range(settings.blocks)]
        self.body = nn.Sequential(*blocks, Conv(n, n))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the shape of ``x``."""
        return x + self.body(x)  # type: ignore[no-any-return]


class Rcan(Architecture):
    """The 3D residual channel attention network: 1,002,621 parameters by default.

    Attention is the mean of channels over the whole input, so that tiles differ from the whole. Of
    the image 0 becomes -1 and 1 becomes 1, and of the output the reverse.
    """

    kind: ClassVar[str] = "rcan"
    title: ClassVar[str] = "3D-RCAN"
    exact_tiles: ClassVar[bool] = False
    voxel_bytes: int = 1400

    def __init__(self, settings: RcanSettings | None = None) -> None:
        super().__init__()
        self.settings = settings or RcanSettings()
        n = self.settings.channels
        self.first, self.last = Conv(1, n), Conv(n, 1)
        groups = [Group(self.settings) for _ in range(self.settings.groups)]
        self.body = nn.Sequential(*groups, Conv(n, n))

    def halo(self, psf_shape: Shape | None) -> int:
        """Return the receptive field of the convolutions."""
        return 3 + self.settings.groups * (2 * self.settings.blocks + 1)  # type: ignore[no-any-return]

    def initialise(self, generator: torch.Generator) -> None:
        """Set the initial weights of Keras."""
        initialise_uniformly(self, generator)

    def forward(self, x: torch.Tensor, E0: torch.Tensor | None = None) -> Outputs:
        """Return the output for an image (N, 1, D, H, W)."""
        check_input(x, self.channels, self.step)
        first = self.first(2 * x - 1)
        return Outputs(0.5 * (self.last(first + self.body(first)) + 1))
