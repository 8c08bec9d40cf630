"""The Richardson-Lucy Network (Li et al., Nature Methods 19, 1427, 2022), with the paper's names.

An iteration of Richardson-Lucy blurs the estimate (forward projection, FP), divides the image by
that (DV), blurs the quotient back (BP) and multiplies the estimate by it. The network does so
twice with learnt convolutions, once at half resolution (H1) and once at full (H2), and merges the
two (H3).

The inputs are the image ``x`` and the initial estimate ``E0``. In the paper's network the estimate
is the image. In the started variant it is a classical deconvolution of the image, by which the
network depends on the point spread function. The module is the same: with ``E0 = x`` it equals the
paper's network to the bit.

This module is for training and as a reference; :mod:`napari_rln.networks.inference` computes the
same faster.
"""

from dataclasses import dataclass
from typing import Annotated, ClassVar, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn.functional import avg_pool3d, softplus

from napari_rln.core.errors import RlnError
from napari_rln.core.limits import check_limits
from napari_rln.core.volume import Shape
from napari_rln.networks.architectures.base import Architecture, Views, check_input

RECEPTIVE_FIELD = 16
"""Receptive field: voxels on either side of an even position (17 after it) that it depends on."""

BN_EPS = 1e-3
_PAPER_SIGMAS = (4.0, 1.0, 2.0, 3.0)  # of the first FP kernels, by output channel


@dataclass(frozen=True, kw_only=True)
class NetworkSettings:
    """Architecture of a Richardson-Lucy Network.

    Parameters
    ----------
    views
        Views of the input: single; averaged, two views of one PSF; or concatenated, two views of
        different PSFs.
    division_eps
        Constant added to the denominator of the division: 1e-3 in the authors' single-view code,
        1e-4 in their released checkpoint.
    """

    views: Views = "single"
    division_eps: Annotated[float, {"min": 1e-8, "max": 1.0}] = 1e-3

    def __post_init__(self) -> None:
        check_limits(self)
        if not isinstance(self.division_eps, int | float):
            raise RlnError(f"division_eps is {self.division_eps!r}; give a number.")

    @property
    def channels(self) -> int:
        """Number of input channels: 2 for concatenated views."""
        return 2 if self.views == "concatenated" else 1


T = TypeVar("T", npt.NDArray[np.float32], torch.Tensor)


def combine_views(views: Views, first: T, second: T) -> list[T]:
    """Return the input channels of a network for two normalised views of one shape.

    For a network trained on single views, their mean, which is as bright as each; on averaged ones
    their sum, as in the paper.
    """
    if views == "concatenated":
        return [first, second]
    both = first + second
    return [both if views == "averaged" else 0.5 * both]


class Stages(NamedTuple):
    """Intermediate results of the network, (N, 1, D, H, W) except DV1 and DV2.

    FP1 and DV1 are at half resolution; DV1 and DV2 have the channels of the input. Several channels
    of the others are averaged.
    """

    FP1: torch.Tensor
    DV1: torch.Tensor
    BP1: torch.Tensor
    e: torch.Tensor
    E1: torch.Tensor
    FP2: torch.Tensor
    DV2: torch.Tensor
    BP2: torch.Tensor
    e2: torch.Tensor
    E2: torch.Tensor
    output: torch.Tensor


def mean_c(x: torch.Tensor) -> torch.Tensor:
    """Return the mean over channels, with the dimension kept."""
    return x.mean(1, keepdim=True)


class ConvBN(nn.Module):
    """A 3x3x3 convolution without bias, with batch normalisation."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv: nn.Module = nn.Conv3d(inputs, outputs, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm3d(outputs, eps=BN_EPS)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return (N, outputs, D, H, W)."""
        return self.bn(self.conv(x))  # type: ignore[no-any-return]


class UpBN(ConvBN):
    """A transposed 2x2x2 convolution of stride 2 without bias, with batch normalisation."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs)
        self.conv = nn.ConvTranspose3d(inputs, outputs, 2, stride=2, bias=False)


class Division(nn.Module):
    """DV: the image divided by the forward projection, with batch normalisation."""

    def __init__(self, channels: int, eps: float) -> None:
        super().__init__()
        self.bn = nn.BatchNorm3d(channels, eps=BN_EPS)
        self.eps = eps

    def forward(self, x: torch.Tensor, projection: torch.Tensor) -> torch.Tensor:
        """Return the shape of ``x``."""
        return self.bn(x / (projection + self.eps))  # type: ignore[no-any-return]


class H1(nn.Module):
    """The iteration at half resolution."""

    def __init__(self, settings: NetworkSettings) -> None:
        super().__init__()
        c = settings.channels
        self.e_1, self.e_2, self.e_3 = ConvBN(c, 4), ConvBN(4, 4), ConvBN(8, 4)
        self.DV = Division(c, settings.division_eps)
        self.e_4, self.e_5, self.e_6 = ConvBN(c, 8), ConvBN(8, 8), ConvBN(16, 8)
        self.e_7, self.e_8 = UpBN(8, 4), ConvBN(4, 4)
        self.e_bn = nn.BatchNorm3d(1, eps=BN_EPS)

    def FP1(self, estimate: torch.Tensor) -> torch.Tensor:
        """Return the forward projection of the pooled estimate, 4 channels."""
        a = softplus(self.e_1(estimate))
        b = softplus(self.e_2(a))
        return softplus(self.e_3(torch.cat((a, b), 1))) + softplus(mean_c(estimate))

    def BP1(self, quotient: torch.Tensor) -> torch.Tensor:
        """Return the back projection of the quotient at full resolution, 4 channels."""
        g = softplus(self.e_4(quotient))
        h = softplus(self.e_5(g))
        k = softplus(self.e_6(torch.cat((h, g), 1)))
        return softplus(self.e_8(softplus(self.e_7(k))))

    def E1(self, e: torch.Tensor) -> torch.Tensor:
        """Return the corrected estimate, normalised."""
        return softplus(self.e_bn(e))


class H2(nn.Module):
    """The iteration at full resolution."""

    def __init__(self, settings: NetworkSettings) -> None:
        super().__init__()
        c = settings.channels
        self.u_1, self.u_2 = ConvBN(c, 4), ConvBN(4, 4)
        self.DV = Division(c, settings.division_eps)
        self.u_3, self.u_4 = ConvBN(c, 8), ConvBN(8, 8)
        self.e2_bn = nn.BatchNorm3d(1, eps=BN_EPS)

    def FP2(self, estimate: torch.Tensor) -> torch.Tensor:
        """Return the forward projection of the estimate, 4 channels."""
        return softplus(self.u_2(softplus(self.u_1(estimate)))) + softplus(mean_c(estimate))

    def BP2(self, quotient: torch.Tensor) -> torch.Tensor:
        """Return the back projection of the quotient, 8 channels."""
        return softplus(self.u_4(softplus(self.u_3(quotient)))) + 1

    def E2(self, e2: torch.Tensor) -> torch.Tensor:
        """Return the corrected estimate, normalised."""
        return softplus(self.e2_bn(e2))


class H3(nn.Module):
    """The merging of the two estimates."""

    def __init__(self) -> None:
        super().__init__()
        self.u_5 = nn.Conv3d(1, 8, 3, padding=1, bias=False)
        self.u_6 = nn.Conv3d(10, 8, 3, padding=1, bias=False)
        self.u_7 = ConvBN(16, 8)

    def forward(self, E1: torch.Tensor, E2: torch.Tensor) -> torch.Tensor:
        """Return the output, (N, 1, D, H, W), positive."""
        m1 = softplus(self.u_5(E2))
        m2 = softplus(self.u_6(torch.cat((m1, E2, E1), 1)))
        return mean_c(softplus(self.u_7(torch.cat((m1, m2), 1))))


class RLN(Architecture):
    """The Richardson-Lucy Network: 15,968 parameters, 16,620 for concatenated views."""

    kind: ClassVar[str] = "rln"
    title: ClassVar[str] = "RLN"
    step: ClassVar[int] = 2
    settings: NetworkSettings

    def __init__(self, settings: NetworkSettings | None = None) -> None:
        super().__init__()
        self.settings = settings or NetworkSettings()
        self.channels, self.views = self.settings.channels, self.settings.views
        self.H1, self.H2, self.H3 = H1(self.settings), H2(self.settings), H3()

    def halo(self, psf_shape: Shape | None) -> int:
        """Return the receptive field."""
        return RECEPTIVE_FIELD

    def initialise(self, generator: torch.Generator) -> None:
        """Set the initial weights of the authors."""
        initialise(self, generator)

    def forward(self, x: torch.Tensor, E0: torch.Tensor | None = None) -> Stages:
        """Return all stages; the last is the output.

        Parameters
        ----------
        x
            (N, C, D, H, W), normalised image of even sizes. C is 2 for concatenated views, else 1;
            averaged views are summed.
        E0
            Initial estimate, of the shape and normalisation of ``x``; the image when none, as in
            the paper.

        Raises
        ------
        RlnError
            If a shape differs from these.
        """
        E0 = x if E0 is None else E0
        for volume in (x, E0):
            check_input(volume, self.channels, self.step)
        if x.shape != E0.shape:
            raise RlnError(
                f"the initial estimate is {tuple(E0.shape)} but the image {tuple(x.shape)}; give "
                "both in one shape."
            )
        FP1 = mean_c(self.H1.FP1(avg_pool3d(E0, 2)))
        DV1 = self.H1.DV(avg_pool3d(x, 2), FP1)
        BP1 = mean_c(self.H1.BP1(DV1))
        e = mean_c(E0) * BP1
        E1 = self.H1.E1(e)
        FP2 = mean_c(self.H2.FP2(E0))
        DV2 = self.H2.DV(x, FP2)
        BP2 = mean_c(self.H2.BP2(DV2))
        e2 = E1 * BP2
        E2 = self.H2.E2(e2)
        return Stages(FP1, DV1, BP1, e, E1, FP2, DV2, BP2, e2, E2, self.H3(E1, E2))


def initialise(network: RLN, generator: torch.Generator) -> None:
    """Initialise the weights as the paper's authors do.

    The momentum of batch normalisation is set by the training (theirs is 0.01 as torch defines it).
    The kernels of the forward projections are Gaussians of several widths, all others truncated
    normal with standard deviation 1, and batch normalisation starts as the identity.
    """
    blurs = {"H1.e_1", "H1.e_2", "H1.e_3", "H2.u_1", "H2.u_2"}
    for name, module in network.named_modules():
        if isinstance(module, nn.Conv3d | nn.ConvTranspose3d):
            if name.removesuffix(".conv") in blurs:
                _blur_like(module.weight, generator)
            else:
                nn.init.trunc_normal_(module.weight, a=-2.0, b=2.0, generator=generator)
        elif isinstance(module, nn.BatchNorm3d):
            module.reset_parameters()


@torch.no_grad()
def initialise_as_identity(network: RLN) -> None:
    """Change initial weights so that the output is nearly the initial estimate.

    The corrections become nearly constant, and the merging convolutions pass the corrected
    estimates through their centre, with a tenth of their random weights. Training from the initial
    estimate is several times faster than from random weights (``benchmarks/RESULTS.md``).
    """
    merge = network.H3
    for bn in (network.H1.e_8.bn, network.H2.u_4.bn):
        bn.weight.fill_(0.1)
    last: torch.Tensor = merge.u_7.conv.weight  # type: ignore[assignment]
    for weight in (merge.u_5.weight, merge.u_6.weight, last):
        weight.mul_(0.1)
    merge.u_5.weight[:, 0, 1, 1, 1] += 1  # E2
    merge.u_6.weight[:, 9, 1, 1, 1] += 1  # E1
    for channel in range(8):
        last[channel, [channel, 8 + channel], 1, 1, 1] += 0.5


@torch.no_grad()
def _blur_like(weight: torch.Tensor, generator: torch.Generator) -> None:
    """Fill weights, (4, C, 3, 3, 3), with Gaussians times a random factor per input channel."""
    axis = torch.arange(-1.0, 2.0)
    squares = axis[:, None, None] ** 2 + axis[:, None] ** 2 + axis**2
    gaussians = torch.stack([torch.exp(-squares / (2 * s**2)) for s in _PAPER_SIGMAS])
    factor = 0.7 + 0.3 * torch.rand(weight.shape[1], generator=generator)
    weight.copy_(gaussians[:, None] * factor[None, :, None, None, None])
