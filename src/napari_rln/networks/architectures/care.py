"""CARE in 3D (Weigert et al., Nature Methods 15, 1090, 2018): a residual U-Net."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from torch import nn
from torch.nn.functional import interpolate, max_pool3d, relu

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
class CareSettings:
    """Sizes of a CARE network.

    Parameters
    ----------
    filters
        Channels of the first of three levels; each level below has twice as many.
    """

    filters: Annotated[int, {"min": 2, "max": 512}] = 32

    def __post_init__(self) -> None:
        check_limits(self)


class Pair(nn.Module):
    """Two convolutions, each with ReLU."""

    def __init__(self, inputs: int, middle: int, outputs: int) -> None:
        super().__init__()
        self.first, self.second = Conv(inputs, middle), Conv(middle, outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return (N, outputs, D, H, W)."""
        return relu(self.second(relu(self.first(x))))


class Care(Architecture):
    """The U-Net of CARE: 996,769 parameters by default.

    Two convolutions per level, max pooling, nearest-neighbour up-sampling, concatenation, and the
    image added to the output.
    """

    kind: ClassVar[str] = "care"
    title: ClassVar[str] = "CARE"
    step: ClassVar[int] = 4
    voxel_bytes: int = 1500

    def __init__(self, settings: CareSettings | None = None) -> None:
        super().__init__()
        self.settings = settings or CareSettings()
        n = self.settings.filters
        self.down_0, self.down_1 = Pair(1, n, n), Pair(n, 2 * n, 2 * n)
        self.bottom = Pair(2 * n, 4 * n, 2 * n)
        self.up_1, self.up_0 = Pair(4 * n, 2 * n, n), Pair(2 * n, n, n)
        self.last = nn.Conv3d(n, 1, 1)

    def halo(self, psf_shape: Shape | None) -> int:
        """Return the receptive field: 2, 4 and 8 voxels down, 4 and 2 up, and blocks of 4."""
        return 24

    def initialise(self, generator: torch.Generator) -> None:
        """Set the initial weights of Keras."""
        initialise_uniformly(self, generator)

    def forward(self, x: torch.Tensor, E0: torch.Tensor | None = None) -> Outputs:
        """Return the output for an image (N, 1, D, H, W) of sides that are multiples of 4."""
        check_input(x, self.channels, self.step)
        level_0 = self.down_0(x)
        level_1 = self.down_1(max_pool3d(level_0, 2))
        up = interpolate(self.bottom(max_pool3d(level_1, 2)), scale_factor=2)
        up = interpolate(self.up_1(torch.cat((up, level_1), 1)), scale_factor=2)
        return Outputs(x + self.last(self.up_0(torch.cat((up, level_0), 1))))
