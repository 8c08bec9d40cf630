"""ISTA-Net+ in 3D (Zhang and Ghanem, CVPR 2018): unrolled proximal gradient steps."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from torch import nn
from torch.nn.functional import relu

from napari_rln.core.limits import check_limits
from napari_rln.core.volume import Shape
from napari_rln.networks.architectures.base import Conv, Outputs, check_input
from napari_rln.networks.architectures.blur import Blur
from napari_rln.networks.architectures.unrolled import Unrolled

_RATE, _THRESHOLD = 0.5, 0.01  # first values
_MOST_HALO = 64  # beyond which tiles would be mostly halo


@dataclass(frozen=True, kw_only=True)
class IstaSettings:
    """Sizes of an ISTA-Net+.

    Parameters
    ----------
    channels
        Channels of the transforms: 32 in the paper, here 8 by default.
    phases
        Number of phases: 9 in the paper, here 5 by default.
    """

    channels: Annotated[int, {"min": 1, "max": 256}] = 8
    phases: Annotated[int, {"min": 1, "max": 50}] = 5

    def __post_init__(self) -> None:
        check_limits(self)


class Phase(nn.Module):
    """A gradient step, and a learnt transform whose coefficients shrink."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        n = channels
        self.rate = nn.Parameter(torch.tensor([_RATE]))
        self.threshold = nn.Parameter(torch.tensor([_THRESHOLD]))
        self.D, self.G = Conv(1, n, bias=False), Conv(n, 1, bias=False)
        self.F_1, self.F_2 = Conv(n, n, bias=False), Conv(n, n, bias=False)
        self.Ft_1, self.Ft_2 = Conv(n, n, bias=False), Conv(n, n, bias=False)

    def forward(
        self, x: torch.Tensor, y: torch.Tensor, blur: Blur
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the next estimate, and the error of the symmetry of the transform."""
        r = x - self.rate * blur.A_adjoint(blur.A(x) - y)
        detail = self.D(r)
        coefficients = self.F_2(relu(self.F_1(detail)))
        shrunk = coefficients.sign() * relu(coefficients.abs() - self.threshold)
        back = self._back(shrunk)
        symmetry = (self._back(coefficients) - detail).square().mean()
        return r + self.G(back), symmetry

    def _back(self, coefficients: torch.Tensor) -> torch.Tensor:
        return self.Ft_2(relu(self.Ft_1(coefficients)))  # type: ignore[no-any-return]


class IstaNet(Unrolled):
    """ISTA-Net+: 36,730 parameters by default, 1,010,898 with 32 channels and 9 phases.

    Each phase descends towards explaining the image through the PSF, and removes what a learnt
    transform with small coefficients shows to be noise.
    """

    kind: ClassVar[str] = "ista"
    title: ClassVar[str] = "ISTA-Net+"
    exact_tiles: ClassVar[bool] = False

    def __init__(self, settings: IstaSettings | None = None) -> None:
        super().__init__()
        self.settings = settings or IstaSettings()
        self.voxel_bytes = 400 + 50 * self.settings.channels
        phases = [Phase(self.settings.channels) for _ in range(self.settings.phases)]
        self.phases = nn.ModuleList(phases)

    def halo(self, psf_shape: Shape | None) -> int:
        """Return the voxels around a tile that it reads: fewer than it depends on, if many.

        Each phase blurs forth and back and has six convolutions.
        """
        support = max(psf_shape or (1,))
        return min(self.settings.phases * (support + 6), _MOST_HALO)  # type: ignore[no-any-return]

    def initialise(self, generator: torch.Generator) -> None:
        """Set the initial weights of the authors."""
        for part in self.modules():
            if isinstance(part, nn.Conv3d):
                nn.init.xavier_normal_(part.weight, generator=generator)
            elif isinstance(part, Phase):
                nn.init.constant_(part.rate, _RATE)
                nn.init.constant_(part.threshold, _THRESHOLD)

    def forward(self, x: torch.Tensor, E0: torch.Tensor | None = None) -> Outputs:
        """Return the output for an image (N, 1, D, H, W)."""
        check_input(x, self.channels, self.step)
        estimate, symmetries = x, []
        for phase in self.phases:
            estimate, symmetry = phase(estimate, x, self.blur)
            symmetries.append(symmetry)
        return Outputs(estimate, torch.stack(symmetries).sum())
