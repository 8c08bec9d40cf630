"""What training and application need to know of an architecture."""

from typing import Any, ClassVar, Literal, NamedTuple

import torch
from torch import nn

from napari_rln.core.errors import RlnError
from napari_rln.core.volume import FloatArray, Shape

Views = Literal["single", "averaged", "concatenated"]
"""Views of an input: one; two summed; or two as channels."""


_FEW = 20_480  # voxels of all channels and two axes, up to which torch avoids oneDNN


class Outputs(NamedTuple):
    """Outputs of a network.

    Attributes
    ----------
    output
        (N, 1, D, H, W), the restored image.
    symmetry
        Mean squared errors of the symmetry of transforms, summed, a scalar; none without such
        transforms.
    """

    output: torch.Tensor
    symmetry: torch.Tensor | None = None


class Architecture(nn.Module):
    """A trainable network from a normalised image, and possibly an initial estimate, to an object.

    Attributes
    ----------
    kind
        Name in model files and settings.
    title
        Name in tables.
    step
        Number of voxels of which the sides of an input are multiples.
    channels, views
        Number of input channels, and the views that they are.
    needs_psf
        Whether the blur by the PSF is a part of the network; see :meth:`bind`.
    exact_tiles
        Whether tiles with the network's halo give the result of the whole.
    voxel_bytes
        Memory of inference per voxel beside input and output, bytes, of an architecture that
        :class:`napari_rln.networks.torch_inference.TorchInference` applies; measured, the largest
        of several sizes and numbers of threads.
    settings
        Frozen dataclass of the sizes of the network.
    """

    kind: ClassVar[str]
    title: ClassVar[str]
    step: ClassVar[int] = 1
    channels: int = 1
    views: Views = "single"
    needs_psf: ClassVar[bool] = False
    exact_tiles: ClassVar[bool] = True
    voxel_bytes: int
    settings: Any

    def halo(self, psf_shape: Shape | None) -> int:
        """Return the voxels around a tile that it reads, for a PSF of a shape (z, y, x)."""
        raise NotImplementedError

    def initialise(self, generator: torch.Generator) -> None:
        """Set the initial weights of the architecture's authors."""
        raise NotImplementedError

    def bind(self, psf: FloatArray) -> None:
        """Set the PSF, (z, y, x) with sum 1, of an architecture that needs it."""

    def forward(self, x: torch.Tensor, E0: torch.Tensor | None = None) -> Any:
        """Return the outputs, with ``output``, for an image (N, C, D, H, W).

        ``E0`` is the initial estimate; architectures that start from the image ignore it.
        """
        raise NotImplementedError

    @property
    def parameter_count(self) -> int:
        """Number of trained parameters."""
        return sum(p.numel() for p in self.parameters() if p.requires_grad)


def check_input(x: torch.Tensor, channels: int, step: int) -> None:
    """Raise unless an input (N, C, D, H, W) has these channels, and sides of multiples of a step.

    Raises
    ------
    RlnError
        If it does not.
    """
    if x.ndim != 5 or x.shape[1] != channels or any(n % step or n == 0 for n in x.shape[2:]):
        sides = "even D, H and W" if step == 2 else f"D, H and W multiples of {step}"
        raise RlnError(
            f"the input is {tuple(x.shape)} but the network takes (N, {channels}, D, H, W) with "
            f"{sides}; pad it."
        )


class Conv(nn.Conv3d):
    """A 3x3x3 convolution that keeps the size.

    On a CPU torch gives single inputs of few channels to a routine that is ten times as slow as
    oneDNN, and needs 27 copies of the input.
    """

    def __init__(self, inputs: int, outputs: int, *, bias: bool = True) -> None:
        super().__init__(inputs, outputs, 3, padding=1, bias=bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return (N, outputs, D, H, W)."""
        few = len(x) == 1 and x[0, :, :, :, 0].numel() <= _FEW
        if not few or x.device.type != "cpu" or x.dtype != torch.float32:
            return super().forward(x)
        if torch.is_grad_enabled():  # of a batch of two, oneDNN computes the gradient too
            return super().forward(torch.cat((x, torch.zeros_like(x))))[:1]
        one = [1, 1, 1]
        made: torch.Tensor = torch.ops.aten.mkldnn_convolution(
            x, self.weight, self.bias, one, one, one, 1
        )
        return made


def initialise_uniformly(module: nn.Module, generator: torch.Generator) -> None:
    """Set the weights of all convolutions by Glorot's uniform distribution, and biases to 0.

    Glorot and Bengio, AISTATS 9, 249 (2010), the default of Keras.
    """
    for part in module.modules():
        if isinstance(part, nn.Conv3d | nn.ConvTranspose3d):
            nn.init.xavier_uniform_(part.weight, generator=generator)
            if part.bias is not None:
                nn.init.zeros_(part.bias)
