"""Kernel learning deconvolution: Richardson-Lucy iterations with a learnt back projector.

In the manner of KLD (Qiao et al.; napari-kld): a few iterations with the blur by the PSF forth, and
a learnt kernel back, which is radially symmetric in planes of equal z.
"""

from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
import scipy.fft
import torch
from torch import nn

from napari_rln.core.limits import check_limits
from napari_rln.core.volume import FloatArray, Shape
from napari_rln.networks.architectures.base import Outputs, check_input
from napari_rln.networks.architectures.blur import AXES, cropped, mirrored
from napari_rln.networks.architectures.unrolled import Unrolled

_FLOOR = 1e-4  # of the first estimate, relative to the brightness of structures
_LEAST = 1e-3  # sum of a kernel before it is scaled to 1
_BACKGROUND = 0.1  # added to image and blur before the division


@dataclass(frozen=True, kw_only=True)
class KernelLearningSettings:
    """Sizes of kernel learning deconvolution.

    Parameters
    ----------
    iterations
        Number of iterations.
    depth, radius
        Voxels of the kernel before and after its centre along z, and largest distance from its
        axis; it begins as the PSF mirrored, cut off there.
    """

    iterations: Annotated[int, {"min": 1, "max": 20}] = 2
    depth: Annotated[int, {"min": 1, "max": 200}] = 16
    radius: Annotated[int, {"min": 1, "max": 200}] = 33

    def __post_init__(self) -> None:
        check_limits(self)


class KernelLearning(Unrolled):
    """Kernel learning deconvolution: 1,122 parameters by default."""

    kind: ClassVar[str] = "kld"
    title: ClassVar[str] = "KLD"
    voxel_bytes: int = 350

    def __init__(self, settings: KernelLearningSettings | None = None) -> None:
        super().__init__()
        self.settings = settings or KernelLearningSettings()
        planes, radii = 2 * self.settings.depth + 1, self.settings.radius + 1
        # The light of each ring, not its voxels' values: wide rings have hundreds of voxels, and
        # steps of one length in their values would be of very different effect.
        self.light = nn.Parameter(torch.zeros(planes, radii))
        distance = torch.arange(-self.settings.radius, self.settings.radius + 1).float()
        self._distances = torch.hypot(distance[:, None], distance[None])
        rings = self._distances.round().long().flatten()
        self._sizes = torch.bincount(rings, minlength=radii)[:radii].float()

    def halo(self, psf_shape: Shape | None) -> int:
        """Return the voxels on which it depends: a blur forth and a kernel back per iteration."""
        forth = max(psf_shape or (1,)) // 2
        back = max(self.settings.depth, self.settings.radius)
        return self.settings.iterations * (forth + back)  # type: ignore[no-any-return]

    def initialise(self, generator: torch.Generator) -> None:
        """Set the profile to that of the adjoint of the blur: two plain iterations."""
        kernel = self.blur.kernel.flip(0, 1, 2).numpy()
        with torch.no_grad():
            self.light.copy_(torch.from_numpy(self._light_of(kernel)))

    def kernel(self) -> torch.Tensor:
        """Return the back projector, (z, y, x) with sum 1."""
        radius = self._distances.to(self.light.device)
        left = radius.floor().long().clamp(max=self.settings.radius - 1)
        fraction = (radius - left).clamp(max=1)
        values = self.light / self._sizes.to(self.light.device)
        low, high = values[:, left], values[:, left + 1]
        kernel = low + fraction * (high - low)
        kernel = torch.where(radius <= self.settings.radius, kernel, 0.0)
        made: torch.Tensor = kernel / kernel.sum().clamp_min(_LEAST)
        return made

    def forward(self, x: torch.Tensor, E0: torch.Tensor | None = None) -> Outputs:
        """Return the output for an image (N, 1, D, H, W)."""
        check_input(x, self.channels, self.step)
        image = x.clamp_min(0)
        estimate, kernel = image.clamp_min(_FLOOR), self.kernel()
        for _ in range(self.settings.iterations):
            blurred = self.blur.A(estimate)
            ratio = (image + _BACKGROUND) / (blurred + _BACKGROUND)
            estimate = (estimate * _filtered(ratio, kernel)).clamp_min(0)
        return Outputs(estimate)

    def _light_of(self, kernel: FloatArray) -> FloatArray:
        """Return the light of the rings of a kernel (z, y, x), of 1 in the mean."""
        n_z, n_y, n_x = kernel.shape
        y, x = np.arange(n_y) - (n_y - 1) // 2, np.arange(n_x) - (n_x - 1) // 2
        ring = np.rint(np.hypot(y[:, None], x)).astype(int).ravel()
        radii = self.settings.radius + 1
        light = np.zeros(self.light.shape, np.float32)
        inside = np.bincount(ring, minlength=radii)[:radii]  # fewer than of the ring in corners
        for plane in range(n_z):
            z = plane - (n_z - 1) // 2 + self.settings.depth
            if 0 <= z < len(light):
                sums = np.bincount(ring, kernel[plane].ravel(), minlength=radii)[:radii]
                light[z] = sums / np.maximum(inside, 1) * self._sizes.numpy()
        light /= light.mean()
        return light


def _filtered(x: torch.Tensor, kernel: torch.Tensor) -> torch.Tensor:
    """Return images (N, 1, D, H, W), continued by their mirror images, convolved with a kernel.

    A kernel wider than two images is cropped.
    """
    reach = [min(k // 2, n) for k, n in zip(kernel.shape, x.shape[-3:], strict=True)]
    beyond = [k // 2 - r for k, r in zip(kernel.shape, reach, strict=True)]
    kernel = cropped(kernel, beyond, beyond)
    kernel = kernel / kernel.sum()
    image = mirrored(x, reach, reach)
    shape = [scipy.fft.next_fast_len(n, real=True) for n in image.shape[-3:]]
    spectrum = torch.fft.rfftn(image, s=shape, dim=AXES) * torch.fft.rfftn(kernel, s=shape)
    whole: torch.Tensor = torch.fft.irfftn(spectrum, s=shape, dim=AXES)
    for axis, n, r in zip(AXES, x.shape[-3:], reach, strict=True):
        whole = whole.narrow(axis, 2 * r, n)
    return whole
