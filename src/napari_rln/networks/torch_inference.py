"""Inference with any architecture, and the choice of the fastest way for each."""

from typing import Protocol

import torch

from napari_rln.core.errors import RlnError
from napari_rln.core.memory import keep_freed_memory
from napari_rln.core.volume import FloatArray
from napari_rln.networks.architectures.base import Architecture, check_input
from napari_rln.networks.architectures.registry import copy_of
from napari_rln.networks.inference import NOT_MIRRORED, InferenceNetwork, Mirrors, Precision
from napari_rln.networks.rln import RLN


class Inference(Protocol):
    """A network prepared for inference.

    Attributes
    ----------
    path
        Implementation, for records.
    bytes_per_voxel
        Memory of a call beside input and output.
    halo
        Voxels around a tile that it reads.
    """

    path: str
    bytes_per_voxel: int
    halo: int

    def __call__(self, x: torch.Tensor, E0: torch.Tensor | None = None) -> torch.Tensor:
        """Return the output (1, D, H, W) for an image (C, D, H, W), or of N for (N, C, D, H, W)."""


class TorchInference:
    """A network of any architecture prepared for inference, as its module computes it.

    It holds a copy of the weights. Results are not negative: light is not.

    Parameters
    ----------
    network
        The network.
    device, precision
        Compute device and number type; float16 is for GPUs.
    psf
        (z, y, x), sum 1, for an architecture that needs it.

    Attributes
    ----------
    path, bytes_per_voxel, halo
        As of :class:`Inference`.

    Raises
    ------
    RlnError
        If the PSF is missing, or float16 is not available.
    """

    def __init__(
        self,
        network: Architecture,
        device: torch.device,
        precision: Precision = "float32",
        *,
        psf: FloatArray | None = None,
    ) -> None:
        if precision == "float16" and (device.type == "cpu" or network.needs_psf):
            raise RlnError(
                f"{network.title} has no float16 on {device.type}; use precision float32."
            )
        if device.type == "cpu":
            keep_freed_memory()
        self.path = "torch"
        self.bytes_per_voxel = network.voxel_bytes * (2 if precision == "float64" else 1)
        self.halo = network.halo(None if psf is None else (*psf.shape,))
        self.device, self._half = device, precision == "float16"
        self._dtype = torch.float64 if precision == "float64" else torch.float32
        self._network = copy_of(network).to(device, self._dtype).eval()
        if network.needs_psf:
            if psf is None:
                raise RlnError(f"{network.title} needs the PSF; give one (`psf`).")
            self._network.bind(psf)

    @torch.no_grad()
    def __call__(self, x: torch.Tensor, E0: torch.Tensor | None = None) -> torch.Tensor:
        """Return the output, (1, D, H, W), or (N, 1, D, H, W) for N inputs.

        Parameters
        ----------
        x
            (C, D, H, W) or (N, C, D, H, W), the normalised image, of sides that are multiples of
            the architecture's step.
        E0
            Not used: these architectures start from the image.

        Raises
        ------
        RlnError
            If the shape differs from that.
        """
        images = x if x.ndim == 5 else x[None]
        check_input(images, self._network.channels, self._network.step)
        images = images.to(self.device, self._dtype)
        # TensorFloat-32, torch's default for convolutions, has three digits.
        with (
            torch.backends.cudnn.flags(enabled=True, allow_tf32=False),
            torch.autocast(self.device.type, torch.float16, enabled=self._half),
        ):
            outputs: torch.Tensor = self._network(images).output
        outputs = outputs.to(self._dtype).clamp_min(0)
        return outputs if x.ndim == 5 else outputs[0]


def inference_of(
    network: Architecture,
    device: torch.device,
    precision: Precision = "float32",
    *,
    mirrors: Mirrors = NOT_MIRRORED,
    psf: FloatArray | None = None,
) -> Inference:
    """Return a network prepared for inference in the fastest way there is.

    ``mirrors`` is for the Richardson-Lucy Network, the PSF for architectures that need it; see
    :class:`napari_rln.networks.inference.InferenceNetwork` and :class:`TorchInference`.
    """
    if isinstance(network, RLN):
        return InferenceNetwork(network, device, precision, mirrors=mirrors)
    return TorchInference(network, device, precision, psf=psf)
